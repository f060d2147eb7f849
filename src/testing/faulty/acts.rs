//! One fault of one connection, and how far it has come.

use std::time::{Duration, Instant};

use crate::testing::fault::{Effect, Fault, When};
use crate::testing::plan::Random;

/// What a connection has seen so far: triggers are about this, and nothing else.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) now: Instant,
    pub(super) accepted: Instant,
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) writes: u64,
    pub(super) is_eof: bool,
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
    pub(super) fault: Fault,
    pub(super) has_begun: bool,
    /// Holds bytes back until then. `delay` keeps one that has come until everything is written.
    resume: Option<Deadline>,
    /// `corrupt` is done.
    pub(super) is_done: bool,
}

impl Act {
    pub(super) fn new(fault: Fault) -> Act {
        Act { fault, has_begun: false, resume: None, is_done: false }
    }

    /// Whether its moment has come. A write is about to be tried if `writing`.
    pub(super) fn is_due(&self, at: &Progress, writing: bool) -> bool {
        !self.has_begun
            && match self.fault.when {
                When::Accept => true,
                When::Sent(size) => at.sent >= size,
                When::Received(size) => at.received >= size,
                When::Time(time) => Deadline::after(at.accepted, time).has_come(at.now),
                When::Eof => at.is_eof,
                When::Write(number) => at.writes + u64::from(writing) >= number,
            }
    }

    /// When to look again for its sake.
    pub(super) fn look_at(&self, accepted: Instant) -> Option<Instant> {
        match self.fault.when {
            _ if self.has_begun => self.resume?.0,
            When::Time(time) => Deadline::after(accepted, time).0,
            _ => None,
        }
    }

    /// How many more bytes may be written before it begins.
    pub(super) fn sent_before(&self, sent: u64) -> u64 {
        match self.fault.when {
            When::Sent(size) if !self.has_begun => size.saturating_sub(sent),
            _ => u64::MAX,
        }
    }

    /// How many more bytes may be read before it begins.
    pub(super) fn received_before(&self, received: u64) -> u64 {
        match self.fault.when {
            When::Received(size) if !self.has_begun => size.saturating_sub(received),
            _ => u64::MAX,
        }
    }

    /// How many bytes may be written now; none while it holds them back.
    pub(super) fn room(&mut self, now: Instant, random: &mut Random) -> u64 {
        if !self.has_begun {
            return u64::MAX;
        }
        match self.fault.effect {
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

    /// Bytes were written; `is_all` if these were all there were.
    pub(super) fn wrote(&mut self, count: u64, is_all: bool, now: Instant) {
        match self.fault.effect {
            Effect::Delay { .. } if is_all => self.resume = None,
            Effect::Slice { gap, .. } if self.has_begun => {
                self.resume = Some(Deadline::after(now, gap));
            }
            Effect::Rate { per_second } if self.has_begun => {
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

    /// Whether it is about to flip a bit of what we read, or else of what we write.
    pub(super) fn is_corrupting(&self, incoming: bool) -> bool {
        let is_incoming = matches!(self.fault.when, When::Received(_));
        self.is(&Effect::Corrupt) && !self.is_done && is_incoming == incoming
    }

    /// Whether it is in force and does this.
    pub(super) fn is(&self, effect: &Effect) -> bool {
        self.has_begun && self.fault.effect == *effect
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
