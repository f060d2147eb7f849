//! A connection's deadline: which bound applies, whether it has passed, when to check again.

use std::io::ErrorKind;
use std::time::Instant;

use super::{Connection, Next, Stage, Stream};
use crate::limits::Context;
use crate::protocol::CloseReason;
use crate::timers::{Millis, millis};

/// The most milliseconds by which a timeout may be noticed late, so that connections share wake-ups.
const SHARED: Millis = 3_600_000;

/// The bound that applies to a connection now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bound {
    Connect,
    Linger,
    Idle,
    Write,
}

impl Bound {
    /// Returns the close reason if the bound is exceeded.
    fn reason(self) -> CloseReason {
        match self {
            Bound::Connect => CloseReason::ConnectFailed(ErrorKind::TimedOut.into()),
            Bound::Linger => CloseReason::Lingered,
            Bound::Idle => CloseReason::Idle,
            Bound::Write => CloseReason::Stalled,
        }
    }
}

impl<S: Stream> Connection<S> {
    fn bound(&self) -> Bound {
        if self.stage == Stage::Connecting {
            Bound::Connect
        } else if self.is_lingering() {
            Bound::Linger
        } else if self.send_queue.is_empty() {
            Bound::Idle
        } else {
            Bound::Write
        }
    }

    /// Returns the timeout of a bound in milliseconds; `None` if there is none. The protocol may have
    /// set another one than the limits.
    fn timeout(&self, bound: Bound, cx: &Context) -> Option<u32> {
        let own = self.extra.as_ref().and_then(|extra| match bound {
            Bound::Connect => None,
            Bound::Linger => extra.timeouts.linger,
            Bound::Idle => extra.timeouts.idle,
            Bound::Write => extra.timeouts.write.or(extra.timeouts.idle),
        });
        match (own, bound) {
            (Some(own), _) => own.and_then(millis),
            (None, Bound::Connect) => cx.bounds.connect,
            (None, Bound::Linger) => cx.bounds.linger,
            (None, Bound::Idle) => cx.bounds.idle,
            (None, Bound::Write) => cx.bounds.write,
        }
    }

    /// Closes a connection that has exceeded its bound; otherwise returns the time of the next check.
    ///
    /// The check is skipped while the bound is the one that the armed deadline was computed for:
    /// that deadline has not come, and activity since then only moves it back.
    pub(super) fn check_deadline(
        &mut self,
        has_work: bool,
        cx: &Context,
    ) -> Result<Next, CloseReason> {
        let bound = self.bound();
        if matches!(bound, Bound::Idle | Bound::Write) && self.stream.is_held() {
            // The peer is not to blame for the silence.
            self.progress = cx.millis as u32;
        }
        if self.planned == Some(bound) {
            return Ok(Next { has_work, deadline: None });
        }
        if self.timeout(bound, cx).is_some_and(|timeout| self.time_left(timeout, cx) == 0) {
            return Err(bound.reason());
        }
        if self.end_of_life(cx).is_some_and(|at| at <= cx.millis) {
            return Err(CloseReason::Expired);
        }
        Ok(Next { has_work, deadline: self.plan_deadline(cx) })
    }

    /// Returns the time of the next check, unless it is planned already.
    pub(crate) fn plan_deadline(&mut self, cx: &Context) -> Option<Millis> {
        let bound = self.bound();
        if self.planned == Some(bound) {
            return None;
        }
        self.planned = Some(bound);
        self.deadline(cx)
    }

    /// Returns how much of a timeout is left, in milliseconds.
    fn time_left(&self, timeout: u32, cx: &Context) -> u32 {
        timeout.saturating_sub((cx.millis as u32).wrapping_sub(self.progress))
    }

    fn end_of_life(&self, cx: &Context) -> Option<Millis> {
        Some(self.extra.as_ref()?.born? + u64::from(cx.bounds.lifetime?))
    }

    /// Returns the next time at which something may be due; `None` if nothing can be.
    pub(super) fn deadline(&self, cx: &Context) -> Option<Millis> {
        let mut next = Millis::MAX;
        let bound = self.bound();
        if let Some(timeout) = self.timeout(bound, cx) {
            next = cx.millis + u64::from(self.time_left(timeout, cx));
            // Up to 20 % late, so that many idle connections share wake-ups. A lingering connection
            // holds a slot, so it does not wait longer.
            if bound != Bound::Linger {
                next = next.next_multiple_of(u64::from(timeout / 5).clamp(1, SHARED));
            }
        }
        if self.extra.is_some() {
            let timer = self.timer().map_or(Millis::MAX, |at| cx.deadline(at));
            next = next.min(timer).min(self.end_of_life(cx).unwrap_or(Millis::MAX));
        }
        (next < Millis::MAX).then_some(next)
    }

    fn timer(&self) -> Option<Instant> {
        self.extra.as_ref()?.timer.filter(|_| self.is_talking())
    }

    pub(super) fn set_timer(&mut self, timer: Option<Instant>) {
        if timer.is_some() || self.extra.is_some() {
            self.extra().timer = timer;
            self.planned = None;
        }
    }

    /// Clears a due timer and returns true.
    pub(super) fn take_due_timer(&mut self, cx: &Context) -> bool {
        let is_due = self.timer().is_some_and(|at| at <= cx.now);
        if is_due {
            self.extra().timer = None;
        }
        is_due
    }
}
