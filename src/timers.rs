//! Deadlines: when to check a connection again.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// Milliseconds since the reactor was created.
pub(crate) type Millis = u64;

/// 49 days in milliseconds. A `u32` of milliseconds wraps 17 hours later: a timeout below this one is
/// noticed before the time since the last progress wraps.
const FOREVER: u64 = 49 * 86_400_000;

/// Returns `duration` in milliseconds, rounded up: a deadline may come late, never early. A duration
/// of 49 days or more never ends and returns `None`.
pub(crate) fn millis(duration: Duration) -> Option<u32> {
    let rounded = duration.checked_add(Duration::from_nanos(999_999))?;
    let millis = rounded.as_secs().checked_mul(1000)? + u64::from(rounded.subsec_millis());
    u32::try_from(millis).ok().filter(|_| millis < FOREVER)
}

const NEVER: u32 = u32::MAX;
const KEY_BITS: u32 = 24;

/// The most slots that can have a deadline.
pub(crate) const SLOTS_MAX: usize = 1 << KEY_BITS;

/// The next deadline of each slot.
///
/// A deadline only schedules a check; the connection decides whether it has expired, and arms the
/// slot again. So activity on a connection never touches the heap: a check that comes too early is
/// scheduled again (the libev manual, "Be smart about timeouts", recommends this).
///
/// Invariant: the heap holds `(armed[key], key)` for every armed key. All other entries are
/// superseded. There are never more than twice as many entries as slots, and a constant.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    /// `deadline << KEY_BITS | key`: one word per entry, ordered by time. 40 bits of milliseconds
    /// last for 34 years.
    heap: BinaryHeap<Reverse<u64>>,
    /// The low bits of each slot's deadline, or `NEVER`.
    armed: Vec<u32>,
}

impl Timers {
    /// Schedules a check of `key` for `deadline`, unless an earlier one is already scheduled.
    pub(crate) fn arm(&mut self, key: usize, deadline: Millis) {
        debug_assert!(key < SLOTS_MAX);
        if key >= self.armed.len() {
            self.grow(key);
        }
        let armed = self.armed[key];
        if armed != NEVER && (low(deadline).wrapping_sub(armed) as i32) >= 0 {
            return;
        }
        if self.heap.len() >= 2 * self.armed.len() + 64 {
            self.forget_superseded();
        }
        self.armed[key] = low(deadline);
        if self.heap.len() == self.heap.capacity() {
            self.heap.reserve_exact(self.heap.len() / 8 + 8);
        }
        self.heap.push(Reverse(deadline << KEY_BITS | key as u64));
    }

    /// Returns the time of the next check. Its slot can be free by then.
    pub(crate) fn next(&self) -> Option<Millis> {
        self.heap.peek().map(|entry| entry.0 >> KEY_BITS)
    }

    /// Removes one deadline that has come and returns its slot.
    pub(crate) fn pop_due(&mut self, now: Millis) -> Option<usize> {
        while self.next().is_some_and(|deadline| deadline <= now) {
            let Reverse(entry) = self.heap.pop()?;
            let key = (entry & (SLOTS_MAX as u64 - 1)) as usize;
            if self.is_current(entry) {
                self.armed[key] = NEVER;
                return Some(key);
            }
        }
        None
    }

    fn is_current(&self, entry: u64) -> bool {
        self.armed[(entry & (SLOTS_MAX as u64 - 1)) as usize] == low(entry >> KEY_BITS)
    }

    fn forget_superseded(&mut self) {
        let mut entries = std::mem::take(&mut self.heap).into_vec();
        entries.retain(|entry| self.is_current(entry.0));
        self.heap = entries.into();
    }

    /// Grows by an eighth instead of doubling, because spare room is memory per idle connection, too.
    fn grow(&mut self, key: usize) {
        if key >= self.armed.capacity() {
            self.armed.reserve_exact(key + key / 8 + 9 - self.armed.len());
        }
        self.armed.resize(key + 1, NEVER);
    }
}

/// Returns the low bits of a deadline, but never `NEVER`, which marks an unarmed slot.
fn low(deadline: Millis) -> u32 {
    (deadline as u32).min(NEVER - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(timers: &mut Timers, now: Millis) -> Vec<usize> {
        std::iter::from_fn(|| timers.pop_due(now)).collect()
    }

    #[test]
    fn slots_come_due_in_the_order_of_their_deadlines_and_once() {
        let mut timers = Timers::default();
        for (key, deadline) in [(0, 30), (1, 10), (2, 20)] {
            timers.arm(key, deadline);
        }
        assert_eq!(timers.next(), Some(10));
        assert_eq!(due(&mut timers, 9), []);
        assert_eq!(due(&mut timers, 20), [1, 2]);
        assert_eq!(due(&mut timers, 1000), [0]);
        assert_eq!((timers.next(), due(&mut timers, 2000)), (None, vec![]));
    }

    #[test]
    fn the_earlier_of_two_deadlines_holds() {
        let mut timers = Timers::default();
        timers.arm(7, 50);
        timers.arm(7, 90);
        timers.arm(7, 20);
        assert_eq!(due(&mut timers, 20), [7]);
        assert_eq!(due(&mut timers, 100), []);
        timers.arm(7, 110);
        assert_eq!(due(&mut timers, 110), [7]);
    }

    #[test]
    fn superseded_deadlines_do_not_pile_up() {
        let mut timers = Timers::default();
        for now in 0..100_000 {
            timers.arm(0, now + 300_000);
            timers.arm(0, now + 1);
            assert!(timers.heap.len() <= 2 + 64, "{}", timers.heap.len());
            assert_eq!(due(&mut timers, now + 1), [0]);
        }
    }

    #[test]
    fn superseded_deadlines_stay_while_they_are_few_beside_the_slots() {
        let mut timers = Timers::default();
        for (key, deadline) in (0..100).map(|key| (key, 20)).chain((0..100).map(|key| (key, 10))) {
            timers.arm(key, deadline);
        }
        assert_eq!(timers.heap.len(), 200, "removing them would cost a pass over all entries");
        assert_eq!(due(&mut timers, 20).len(), 100);
    }

    #[test]
    fn spare_room_is_an_eighth_and_seldom_made() {
        let mut timers = Timers::default();
        let room = |timers: &Timers| [timers.heap.capacity(), timers.armed.capacity()];
        let mut growths = 0;
        for key in 0..10_000 {
            let before = room(&timers);
            timers.arm(key, 10);
            growths += usize::from(room(&timers) != before);
        }
        assert!(room(&timers).iter().all(|room| *room <= 10_000 + 10_000 / 8 + 9));
        assert!(growths < 100, "{growths}");
    }

    #[test]
    fn deadlines_go_on_when_the_low_bits_wrap() {
        let mut timers = Timers::default();
        let wrap = u64::from(u32::MAX);
        for (key, deadline) in [(0, wrap - 1), (1, wrap), (2, wrap + 1), (3, wrap + 70)] {
            timers.arm(key, deadline);
        }
        timers.arm(3, wrap - 5);
        // Deadline `wrap` has the low bits of `NEVER`; its slot is armed all the same.
        timers.arm(1, wrap + 10);
        assert_eq!(due(&mut timers, wrap + 1), [3, 0, 1, 2]);
    }

    #[test]
    fn a_duration_is_rounded_up_and_one_of_49_days_never_ends() {
        assert_eq!(millis(Duration::ZERO), Some(0));
        assert_eq!(millis(Duration::from_nanos(1)), Some(1));
        assert_eq!(millis(Duration::from_millis(7)), Some(7));
        assert_eq!(millis(Duration::from_micros(7_001)), Some(8));
        assert_eq!(millis(Duration::from_millis(FOREVER - 1)), Some(FOREVER as u32 - 1));
        for length in [Duration::from_millis(FOREVER), Duration::from_secs(u64::MAX), Duration::MAX]
        {
            assert_eq!(millis(length), None, "{length:?}");
        }
    }
}
