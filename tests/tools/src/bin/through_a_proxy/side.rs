//! One side of a relay with a protocol of its own on the side of the server.

use std::cell::Cell;
use std::rc::Rc;

use campanile::{CloseReason, ConnId, Handle, Outbox, Protocol};

/// The state of one connection that the other of its pair reads.
#[derive(Default)]
struct End {
    id: Cell<Option<ConnId>>,
    is_congested: Cell<bool>,
}

/// One of two connections that belong together.
pub struct Side {
    this: Rc<End>,
    other: Rc<End>,
    /// Ends the other connection if this one fails: `on_close` has no outbox.
    handle: Handle,
    /// The peer has ended its half.
    has_ended: bool,
    /// Connects the other side. Only a client's side has it.
    connect: Option<Connect>,
}

type Connect = Box<dyn FnOnce(Side, &mut Outbox)>;

impl Side {
    /// Creates the side of a client. Once it is open, `connect` gets the side of the server.
    pub fn new(handle: &Handle, connect: impl FnOnce(Side, &mut Outbox) + 'static) -> Side {
        let (this, other) = Default::default();
        Side {
            this,
            other,
            handle: handle.clone(),
            has_ended: false,
            connect: Some(Box::new(connect)),
        }
    }

    fn set_congested(&self, is_congested: bool, out: &mut Outbox) {
        if self.this.is_congested.replace(is_congested) != is_congested {
            self.other.id.get().inspect(|id| out.wake(*id));
        }
    }
}

impl Protocol for Side {
    fn on_open(&mut self, out: &mut Outbox) {
        self.this.id.set(Some(out.id()));
        out.read_while_congested(true);
        if let Some(connect) = self.connect.take() {
            out.pause();
            let (this, other, handle) =
                (self.other.clone(), self.this.clone(), self.handle.clone());
            connect(Side { this, other, handle, has_ended: false, connect: None }, out);
        }
        self.other.id.get().inspect(|id| out.wake(*id));
    }
    fn on_data(&mut self, data: &[u8], out: &mut Outbox) {
        self.other.id.get().inspect(|id| out.message(*id, data));
    }
    fn on_eof(&mut self, out: &mut Outbox) {
        self.has_ended = true;
        self.on_data(b"", out);
    }
    fn on_message(&mut self, bytes: &[u8], out: &mut Outbox) {
        if bytes.is_empty() {
            return out.half_close();
        }
        out.send(bytes);
        self.set_congested(out.is_congested(), out);
    }
    fn on_drain(&mut self, out: &mut Outbox) {
        self.set_congested(false, out);
    }
    /// The other side is connected, or its queue has been congested or drained.
    fn on_wake(&mut self, out: &mut Outbox) {
        if self.other.is_congested.get() { out.pause() } else { out.resume() }
    }
    fn on_close(&mut self, reason: &CloseReason) {
        let Some(other) = self.other.id.get() else { return };
        // If the mailbox is full, the idle timeout ends the other connection.
        let _ = match reason {
            CloseReason::Finished => return,
            // All bytes of the peer have been passed on.
            _ if self.has_ended => self.handle.close(other),
            // A reset tells the other peer that bytes are missing.
            _ => self.handle.abort(other),
        };
    }
}
