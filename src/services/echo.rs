//! Echo (RFC 862): the server sends back every byte.

use crate::protocol::{Accepted, Outbox, Protocol};

/// Sends back every byte, in order. After the peer's EOF it sends the rest and closes.
///
/// The loop does the rest: back-pressure, partial writes and half-close.
#[derive(Debug, Clone, Copy, Default)]
pub struct Echo;

impl Protocol for Echo {
    fn on_data(&mut self, data: &[u8], out: &mut Outbox) {
        out.send(data);
    }
}

/// Creates an [`Echo`] for every connection: `reactor.listen(addr, echo())`.
pub fn echo() -> impl FnMut(&Accepted) -> Echo {
    |_| Echo
}
