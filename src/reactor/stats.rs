//! What a reactor has done, as counts.

use crate::protocol::CloseReason;

/// What a reactor has done so far, as counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Turns of the loop.
    pub turns: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Outgoing connections begun.
    pub connecting: u64,
    /// Connections closed, for whatever reason.
    pub closed: u64,
    /// Of those, how many the peer reset.
    pub peer_resets: u64,
    /// Of those, how many we reset because a bound was reached or the protocol asked for it.
    pub our_resets: u64,
    /// Protocols that panicked.
    pub panics: u64,
    /// Connections refused because their peer had too many.
    pub refused: u64,
    /// Errors of accept(2) other than that nobody waits.
    pub accept_errors: u64,
    /// Commands to connections that were gone, had closed or were still being made.
    pub gone: u64,
    /// Bytes read.
    pub bytes_in: u64,
    /// Bytes the kernel took.
    pub bytes_out: u64,
}

impl Stats {
    pub(super) fn count(&mut self, reason: &CloseReason, bytes_in: u64, bytes_out: u64) {
        self.closed += 1;
        self.peer_resets += u64::from(reason.is_peer_reset());
        self.our_resets += u64::from(reason.wants_reset());
        self.bytes_in += bytes_in;
        self.bytes_out += bytes_out;
    }
}
