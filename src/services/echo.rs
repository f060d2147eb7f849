//! Echo, RFC 862: every byte comes back.

use crate::outbox::Outbox;
use crate::protocol::{Accepted, Protocol};

/// Gives back every byte, in order. At the peer's EOF it delivers the rest and ends, too.
///
/// Back-pressure, partial writes and half-close are the loop's work, so this is all of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Echo;

impl Protocol for Echo {
    fn on_data(&mut self, data: &[u8], out: &mut Outbox) {
        out.send(data);
    }
}

/// Makes an [`Echo`] for every connection: `reactor.listen(addr, echo())`.
pub fn echo() -> impl FnMut(&Accepted) -> Echo {
    |_| Echo
}
