//! One fault on one connection, and how far it has come.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::testing::fault::{Effect, Fault, When};
use crate::testing::plan::Entry;
use crate::testing::random::Random;

/// What a connection has done so far: the triggers of faults are about this, and nothing else.
#[derive(Debug, Clone, Copy)]
pub(super) struct Progress {
    pub(super) now: Instant,
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) writes: u64,
    /// When the peer's EOF was read.
    pub(super) eof: Option<Instant>,
}

/// A point in time that may never come: no clock counts as far as a duration can say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline(pub(super) Option<Instant>);

impl Deadline {
    pub(super) fn after(start: Instant, length: Duration) -> Deadline {
        Deadline(start.checked_add(length))
    }

    pub(super) fn has_come(self, now: Instant) -> bool {
        self.0.is_some_and(|at| at <= now)
    }
}

/// A fault with its state.
#[derive(Debug)]
pub(super) struct Act {
    entry: Arc<Entry>,
    /// The connection's progress when it got the fault: triggers count from there.
    base: Progress,
    begun: Option<Instant>,
    /// Holds bytes back until then. `delay` keeps one that has come until everything is written.
    resume: Option<Deadline>,
    /// `corrupt` is done.
    pub(super) is_done: bool,
}

impl Act {
    pub(super) fn new(entry: Arc<Entry>, base: Progress) -> Act {
        Act { entry, base, begun: None, resume: None, is_done: false }
    }

    pub(super) fn fault(&self) -> &Fault {
        &self.entry.fault
    }

    pub(super) fn has_begun(&self) -> bool {
        self.begun.is_some()
    }

    pub(super) fn begin(&mut self, now: Instant) {
        self.begun = Some(now);
    }

    /// Returns whether its moment has come. `writing` says that a write is about to be tried.
    pub(super) fn is_due(&self, at: &Progress, writing: bool) -> bool {
        self.begun.is_none()
            && match self.fault().when {
                When::AtOnce => true,
                When::Sent(size) => at.sent - self.base.sent >= size,
                When::Received(size) => at.received - self.base.received >= size,
                When::Time(time) => Deadline::after(self.base.now, time).has_come(at.now),
                When::Eof => at.eof.is_some(),
                When::Write(number) => at.writes - self.base.writes + u64::from(writing) >= number,
            }
    }

    /// Returns whether it was removed, or its duration has passed.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.entry.is_over() || self.end().has_come(now)
    }

    fn end(&self) -> Deadline {
        let end = self.begun.zip(self.fault().duration);
        Deadline(end.and_then(|(begun, duration)| begun.checked_add(duration)))
    }

    /// Returns the next times at which it changes by itself.
    pub(super) fn changes(&self) -> impl Iterator<Item = Instant> {
        let begins = match self.fault().when {
            When::Time(time) if self.begun.is_none() => Deadline::after(self.base.now, time).0,
            _ => None,
        };
        let resumes = self.resume.filter(|_| self.begun.is_some()).and_then(|resume| resume.0);
        [begins, resumes, self.end().0].into_iter().flatten()
    }

    /// Returns how many more bytes may be written before it begins.
    pub(super) fn sent_before(&self, sent: u64) -> u64 {
        match self.fault().when {
            When::Sent(size) if self.begun.is_none() => size.saturating_sub(sent - self.base.sent),
            _ => u64::MAX,
        }
    }

    /// Returns how many more bytes may be read before it begins.
    pub(super) fn received_before(&self, received: u64) -> u64 {
        match self.fault().when {
            When::Received(size) if self.begun.is_none() => {
                size.saturating_sub(received - self.base.received)
            }
            _ => u64::MAX,
        }
    }

    /// Returns how many bytes may be written now; none while it holds them back.
    pub(super) fn room(&mut self, now: Instant, random: &mut Random) -> u64 {
        if self.begun.is_none() {
            return u64::MAX;
        }
        match self.entry.fault.effect {
            Effect::Stall => 0,
            Effect::Short { size } => size.max(1),
            Effect::Delay { time, jitter } => {
                let begin = || Deadline::after(now, vary(time, jitter, random));
                if self.resume.get_or_insert_with(begin).has_come(now) { u64::MAX } else { 0 }
            }
            _ if self.resume.is_some_and(|resume| !resume.has_come(now)) => 0,
            Effect::Slice { size, .. } => size.max(1),
            // A fiftieth of a second's worth at once.
            Effect::Rate { per_second } => (per_second / 50).max(1),
            _ => u64::MAX,
        }
    }

    /// Records that bytes were written; `is_all` says that these were all there were.
    pub(super) fn wrote(&mut self, count: u64, is_all: bool, now: Instant) {
        let has_begun = self.begun.is_some();
        match self.fault().effect {
            Effect::Delay { .. } if is_all => self.resume = None,
            Effect::Slice { gap, .. } if has_begun => {
                self.resume = Some(Deadline::after(now, gap));
            }
            Effect::Rate { per_second } if has_begun => {
                let nanos = u128::from(count) * 1_000_000_000 / u128::from(per_second.max(1));
                let length = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
                // From the end of the pause before, or the lateness of timers would add up.
                let earliest = now.checked_sub(LATE).unwrap_or(now);
                let before = self.resume.and_then(|resume| resume.0);
                let from = before.map_or(now, |at| at.max(earliest));
                self.resume = Some(Deadline::after(from, length));
            }
            _ => {}
        }
    }

    /// Returns whether it is about to flip a bit of what the server reads, or else of what it writes.
    pub(super) fn is_corrupting(&self, incoming: bool) -> bool {
        let is_incoming = matches!(self.fault().when, When::Received(_));
        self.is(&Effect::Corrupt) && !self.is_done && is_incoming == incoming
    }

    /// Returns whether it has begun and has this effect.
    pub(super) fn is(&self, effect: &Effect) -> bool {
        self.begun.is_some() && self.fault().effect == *effect
    }

    /// For a stall: returns the peer's EOF or the beginning of the stall, if that was later. From then
    /// on the peer has no more to wait for.
    pub(super) fn stalls_since_eof(&self, eof: Option<Instant>) -> Option<Instant> {
        let begun = self.begun.filter(|_| self.fault().effect == Effect::Stall)?;
        Some(eof?.max(begun))
    }
}

/// How late a timer may be without slowing a `rate` down.
const LATE: Duration = Duration::from_millis(20);

fn vary(time: Duration, jitter: Duration, random: &mut Random) -> Duration {
    let span = u64::try_from(jitter.as_nanos()).unwrap_or(u64::MAX / 2).min(u64::MAX / 2);
    if span == 0 {
        return time;
    }
    let more = Duration::from_nanos(random.below(2 * span + 1));
    time.saturating_add(more).saturating_sub(Duration::from_nanos(span))
}
