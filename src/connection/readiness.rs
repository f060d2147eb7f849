//! What the kernel said of a stream, and for how long it may be believed.

/// Readiness: set by events, cleared by `WouldBlock`.
///
/// A read that gives less than was asked for clears nothing: data and FIN can share one edge, and
/// an urgent byte ends a read with bytes left behind it. The exception is a stream of which every
/// event so far was *plain* (see [`Event`](crate::Event)): there a short read means empty. And the
/// guess that a newcomer is readable is taken back unread if its protocol has closed already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Readiness(u8);

const READABLE: u8 = 1;
const WRITABLE: u8 = 2;
const PLAIN: u8 = 4;
const WARY: u8 = 8;

impl Readiness {
    pub(super) const NONE: Readiness = Readiness(0);
    pub(super) const BOTH: Readiness = Readiness(READABLE | WRITABLE);

    pub(super) fn is_readable(self) -> bool {
        self.0 & READABLE != 0
    }

    pub(super) fn is_writable(self) -> bool {
        self.0 & WRITABLE != 0
    }

    /// Whether a short read means that nothing is left.
    pub(super) fn is_plain(self) -> bool {
        self.0 & (PLAIN | WARY) == PLAIN
    }

    /// Adds a hint that says nothing of its cause.
    pub(super) fn hint(&mut self, readable: bool, writable: bool) {
        self.0 |= if readable { READABLE } else { 0 } | if writable { WRITABLE } else { 0 };
    }

    /// Adds an event; one that was not plain makes us wary for good.
    pub(super) fn note(&mut self, readable: bool, writable: bool, is_plain: bool) {
        self.hint(readable, writable);
        self.0 |= if is_plain { PLAIN } else { WARY };
    }

    pub(super) fn clear_readable(&mut self) {
        self.0 &= !READABLE;
    }

    pub(super) fn clear_writable(&mut self) {
        self.0 &= !WRITABLE;
    }
}
