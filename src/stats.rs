//! [`Stats`]: the counts of a reactor.

use crate::protocol::CloseReason;

/// The counts of a reactor since it was created.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Turns of the loop.
    pub turns: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Outgoing connections begun, whether they were made or not.
    pub connecting: u64,
    /// Connections closed for any reason.
    pub closed: u64,
    /// Closed connections that the peer reset.
    pub peer_resets: u64,
    /// Closed connections that the loop reset: a limit was reached, the protocol aborted or panicked,
    /// or the reactor ended.
    pub our_resets: u64,
    /// Protocols that panicked.
    pub panics: u64,
    /// Connections refused because their address had too many.
    pub refused: u64,
    /// Errors of accept(2) other than `WouldBlock`.
    pub accept_errors: u64,
    /// Commands for connections that were gone, had closed or were still connecting.
    pub gone: u64,
    /// Bytes received on connections that have closed.
    pub bytes_in: u64,
    /// Bytes sent, which means taken by the kernel, on connections that have closed.
    pub bytes_out: u64,
}

impl Stats {
    pub(crate) fn count(&mut self, reason: &CloseReason, bytes_in: u64, bytes_out: u64) {
        self.closed += 1;
        self.peer_resets += u64::from(reason.is_peer_reset());
        self.our_resets += u64::from(reason.wants_reset());
        self.bytes_in += bytes_in;
        self.bytes_out += bytes_out;
    }
}
