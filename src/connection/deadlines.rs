//! How long a connection may take: which bound runs, whether it has passed, when to look again.

use std::io::ErrorKind;
use std::time::Instant;

use super::{Connection, Input, Next, Output, Stage, Stream};
use crate::limits::Workspace;
use crate::protocol::CloseReason;
use crate::timers::Millis;

/// How many milliseconds late a timeout may be noticed, at most, so that connections share wake-ups.
const SHARED: Millis = 3_600_000;

/// The bound that runs for a connection now.
#[derive(Debug, Clone, Copy)]
enum Bound {
    Connecting,
    Linger,
    Idle,
    Stall,
}

impl Bound {
    fn limit(self, lent: &Workspace) -> Option<u32> {
        match self {
            Bound::Connecting => lent.connecting,
            Bound::Linger => lent.linger,
            Bound::Idle => lent.idle,
            Bound::Stall => lent.stall,
        }
    }

    /// What it is to have reached it.
    fn reason(self) -> CloseReason {
        match self {
            Bound::Connecting => CloseReason::ConnectFailed(ErrorKind::TimedOut.into()),
            Bound::Linger => CloseReason::Lingered,
            Bound::Idle => CloseReason::Idle,
            Bound::Stall => CloseReason::Stalled,
        }
    }
}

impl<S: Stream> Connection<S> {
    fn bound(&self) -> Bound {
        if self.stage == Stage::Connecting {
            Bound::Connecting
        } else if self.is_lingering() {
            Bound::Linger
        } else if self.owed.is_empty() {
            Bound::Idle
        } else {
            Bound::Stall
        }
    }

    fn overdue(&self, lent: &Workspace) -> Option<CloseReason> {
        let bound = self.bound();
        if bound.limit(lent).is_some_and(|limit| self.left(limit, lent) == 0) {
            return Some(bound.reason());
        }
        self.expires(lent).is_some_and(|at| at <= lent.millis).then_some(CloseReason::Expired)
    }

    /// How much of a limit is left, in milliseconds.
    fn left(&self, limit: u32, lent: &Workspace) -> u32 {
        limit.saturating_sub((lent.millis as u32).wrapping_sub(self.progress))
    }

    /// Everything is said and delivered; only the peer's end is missing.
    pub(super) fn is_lingering(&self) -> bool {
        (self.halves.input, self.halves.output) == (Input::Discarded, Output::Shut)
    }

    fn expires(&self, lent: &Workspace) -> Option<Millis> {
        Some(self.rare.as_ref()?.born? + u64::from(lent.lifetime?))
    }

    /// Whether to judge and plan anew. Otherwise no bound can have passed: the deadline that was
    /// planned has not come, and whatever happened since only put it off.
    pub(super) fn needs_a_plan(&self) -> bool {
        self.replan || self.stream.retry_at().is_some()
    }

    /// Ends a connection that is overdue, and plans when to look at another one again.
    #[cold]
    pub(super) fn judge(&mut self, next: Next, lent: &Workspace) -> Next {
        if matches!(next, Next::Close(_)) {
            return next;
        }
        if let Some(reason) = self.overdue(lent) {
            return Next::Close(reason);
        }
        if matches!(next, Next::Again) {
            return next;
        }
        self.replan = false;
        self.deadline(lent).map_or(Next::Wait, Next::WaitUntil)
    }

    pub(super) fn deadline(&self, lent: &Workspace) -> Option<Millis> {
        let mut next = Millis::MAX;
        let bound = self.bound();
        if let Some(limit) = bound.limit(lent) {
            next = lent.millis + u64::from(self.left(limit, lent));
            // Idle connections share their wake-ups; lingering ones hold a slot and do not wait.
            if !matches!(bound, Bound::Linger) {
                next = next.next_multiple_of(u64::from(limit / 5).clamp(1, SHARED));
            }
        }
        if let Some(at) = self.stream.retry_at() {
            next = next.min(lent.deadline(at));
        }
        if self.rare.is_some() {
            let wake = self.wake().map_or(Millis::MAX, |at| lent.deadline(at));
            next = next.min(wake).min(self.expires(lent).unwrap_or(Millis::MAX));
        }
        (next < Millis::MAX).then_some(next)
    }

    fn wake(&self) -> Option<Instant> {
        self.rare.as_ref()?.wake.filter(|_| self.is_talking())
    }

    /// True once for a wake-up that is due.
    pub(super) fn take_wake(&mut self, lent: &Workspace) -> bool {
        let due = self.wake().is_some_and(|at| at <= lent.now);
        if due {
            self.rare().wake = None;
        }
        due
    }
}
