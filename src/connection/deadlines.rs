//! How long a connection may take: which bound runs, whether it has passed, when to look again.

use std::io::ErrorKind;
use std::time::Instant;

use super::{Connection, Input, Next, Output, Stage, Stream};
use crate::limits::Workspace;
use crate::protocol::CloseReason;
use crate::timers::Millis;

impl<S: Stream> Connection<S> {
    /// The bound that runs now, and what it is to have reached it.
    fn bound(&self, lent: &Workspace) -> (Option<u32>, CloseReason) {
        if self.stage == Stage::Connecting {
            (lent.connecting, CloseReason::ConnectFailed(ErrorKind::TimedOut.into()))
        } else if self.is_lingering() {
            (lent.linger, CloseReason::Lingered)
        } else if self.owed.is_empty() {
            (lent.idle, CloseReason::Idle)
        } else {
            (lent.stall, CloseReason::Stalled)
        }
    }

    pub(super) fn overdue(&self, lent: &Workspace) -> Option<CloseReason> {
        let (limit, reason) = self.bound(lent);
        if limit.is_some_and(|limit| self.elapsed(lent) >= limit) {
            return Some(reason);
        }
        self.expires(lent).is_some_and(|at| at <= lent.millis).then_some(CloseReason::Expired)
    }

    /// Everything is said and delivered; only the peer's end is missing.
    pub(super) fn is_lingering(&self) -> bool {
        (self.halves.input, self.halves.output) == (Input::Discarded, Output::Shut)
    }

    fn elapsed(&self, lent: &Workspace) -> u32 {
        (lent.millis as u32).wrapping_sub(self.progress)
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
        if let (Some(limit), _) = self.bound(lent) {
            next = lent.millis + u64::from(limit.saturating_sub(self.elapsed(lent)));
            // Idle connections share their wake-ups; lingering ones hold a slot and do not wait.
            if !self.is_lingering() {
                next = next.next_multiple_of(u64::from(limit / 5).max(1));
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
