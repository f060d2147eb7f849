//! Readiness: the kernel's reports about a stream, and how long they hold.

// ANCHOR: readiness
/// Readiness: set by events, cleared by `WouldBlock`. (A listener has a bit of its own,
/// `Listener::ready`.)
///
/// Three more cases clear a bit: a short read that proves the stream empty, the close of a stream that
/// no event has reported yet, and a connect without a result. A deadline that has come sets both bits.
///
/// A read that returns less than was asked for clears nothing: data and FIN can share one edge, and
/// an urgent byte ends a read with bytes left behind it. The exception is a stream whose events were
/// all *plain* (see [`Event`](crate::sys::Event)): there a short read means that the stream is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Readiness(u8);

const READABLE: u8 = 1;
const WRITABLE: u8 = 2;
const SEEN_PLAIN: u8 = 4;
const SEEN_SPECIAL: u8 = 8;
/// `READABLE` is assumed: no event has reported anything yet.
const ASSUMED: u8 = 16;

impl Readiness {
    pub(super) const NONE: Readiness = Readiness(0);
    pub(super) const ASSUMED: Readiness = Readiness(READABLE | WRITABLE | ASSUMED);

    pub(super) fn is_readable(self) -> bool {
        self.0 & READABLE != 0
    }

    pub(super) fn is_writable(self) -> bool {
        self.0 & WRITABLE != 0
    }

    /// Returns whether a short read means that nothing is left.
    pub(super) fn is_drained_by_short_read(self) -> bool {
        self.0 & (SEEN_PLAIN | SEEN_SPECIAL) == SEEN_PLAIN
    }

    /// Sets readiness for a reason that is not an event.
    pub(super) fn set(&mut self, readable: bool, writable: bool) {
        self.0 |= if readable { READABLE } else { 0 } | if writable { WRITABLE } else { 0 };
    }

    /// Adds an event. After one that was not plain, no short read is believed again.
    pub(super) fn on_event(&mut self, readable: bool, writable: bool, data_only: bool) {
        self.set(readable, writable);
        self.0 &= !ASSUMED;
        self.0 |= if data_only { SEEN_PLAIN } else { SEEN_SPECIAL };
    }

    pub(super) fn clear_readable(&mut self) {
        self.0 &= !READABLE;
    }

    /// Clears `READABLE` if no event has reported anything yet. This saves a read that would find
    /// `WouldBlock`. Nothing is lost: the reactor registers the stream after its first run, and the
    /// registration reports a stream that is readable.
    pub(super) fn drop_assumption(&mut self) {
        if self.0 & ASSUMED != 0 {
            self.clear_readable();
        }
    }

    pub(super) fn clear_writable(&mut self) {
        self.0 &= !WRITABLE;
    }
}
