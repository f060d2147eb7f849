//! A protocol of one closure.

use campanile::{Outbox, Protocol};

/// A call of a protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call<'a> {
    Open,
    Data(&'a [u8]),
    Eof,
    Drain,
    Timer,
    Wake,
    Message(&'a [u8]),
}

/// A protocol of one closure.
pub struct Each<F>(pub F);

impl<F: FnMut(Call<'_>, &mut Outbox) + 'static> Protocol for Each<F> {
    fn on_open(&mut self, out: &mut Outbox) {
        (self.0)(Call::Open, out);
    }
    fn on_data(&mut self, data: &[u8], out: &mut Outbox) {
        (self.0)(Call::Data(data), out);
    }
    fn on_eof(&mut self, out: &mut Outbox) {
        (self.0)(Call::Eof, out);
        out.close();
    }
    fn on_drain(&mut self, out: &mut Outbox) {
        (self.0)(Call::Drain, out);
    }
    fn on_timer(&mut self, out: &mut Outbox) {
        (self.0)(Call::Timer, out);
    }
    fn on_wake(&mut self, out: &mut Outbox) {
        (self.0)(Call::Wake, out);
    }
    fn on_message(&mut self, bytes: &[u8], out: &mut Outbox) {
        (self.0)(Call::Message(bytes), out);
    }
}
