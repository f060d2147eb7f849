//! [`Timed`]: a kernel whose clock a [`ManualClock`] moves.

use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::plan::wake;
use crate::connection::Snapshot;
use crate::kernel::{Event, Kernel, Phase, Wake};
use crate::limits::Limits;
use crate::protocol::{Address, ConnId};

/// How far manual time goes: timers count milliseconds in 40 bits, which are 34 years.
const END: Duration = Duration::from_secs(30 * 365 * 86_400);

/// Moves the time of a loop on a [`Timed`] kernel. Clones move the same time.
#[derive(Clone)]
pub struct ManualClock(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    rested: Condvar,
}

/// Invariant: `rested_at <= shown <= wanted`.
#[derive(Default)]
struct State {
    shown: Duration,
    wanted: Duration,
    /// The latest time at which the loop had nothing left to do.
    rested_at: Duration,
    is_over: bool,
    /// When time began to pass by itself again.
    released: Option<Instant>,
    waker: Option<Arc<dyn Wake>>,
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManualClock").field("shown", &self.lock().shown).finish_non_exhaustive()
    }
}

impl Default for ManualClock {
    fn default() -> ManualClock {
        ManualClock::new()
    }
}

impl ManualClock {
    /// Creates a clock that stands still, for one kernel.
    pub fn new() -> ManualClock {
        ManualClock(Arc::new(Shared { state: Mutex::default(), rested: Condvar::new() }))
    }

    /// Returns the time that has passed since the loop began.
    pub fn elapsed(&self) -> Duration {
        self.lock().shown
    }

    /// Lets time pass, from deadline to deadline, and returns when everything that was due is done.
    ///
    /// # Errors
    /// If the sum of all advances is more than 30 years, or if the loop still has something to do
    /// after `patience` of real time.
    pub fn advance(&self, by: Duration, patience: Duration) -> Result<(), &'static str> {
        let mut state = self.lock();
        if state.released.is_some() {
            return Err("time passes by itself again: advance it before the end begins");
        }
        let wanted = state.wanted.saturating_add(by);
        if wanted > END {
            return Err("manual time ends 30 years after the server started: advance by less");
        }
        state.wanted = wanted;
        let waker = state.waker.clone();
        drop(state);
        wake(waker);
        let is_moving = |state: &mut State| state.rested_at < wanted && !state.is_over;
        let waited = self.0.rested.wait_timeout_while(self.lock(), patience, is_moving);
        match waited.unwrap_or_else(PoisonError::into_inner).1.timed_out() {
            true => Err(
                "the loop still has something to do; if a protocol blocks it, let the callback return",
            ),
            false => Ok(()),
        }
    }

    /// Lets time pass by itself from now on, so that a shutdown comes to its end.
    pub fn release(&self) {
        let mut state = self.lock();
        state.released.get_or_insert_with(Instant::now);
        let waker = state.waker.clone();
        drop(state);
        wake(waker);
    }

    /// Returns how long to sleep in real time. Manual time moves on here, at most to the next
    /// deadline, so that each deadline on the way is met.
    fn sleep(&self, patience: Option<Duration>) -> Option<Duration> {
        let mut state = self.lock();
        if patience == Some(Duration::ZERO) || state.released.is_some() {
            return patience;
        }
        let rest = state.wanted - state.shown;
        if rest.is_zero() {
            state.rested_at = state.shown;
            self.0.rested.notify_all();
            // Only an event of the network or an advance, which wakes the loop, ends this sleep.
            return None;
        }
        state.shown += patience.map_or(rest, |patience| patience.min(rest));
        Some(Duration::ZERO)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A kernel whose time is a [`ManualClock`]. Without one, it passes on the time of the kernel inside.
#[derive(Debug)]
pub struct Timed<K> {
    inner: K,
    began: Instant,
    clock: Option<ManualClock>,
    has_rearmed: bool,
}

impl<K: Kernel> Timed<K> {
    /// Lets `clock` move the time of `inner`, if there is a clock.
    pub fn new(inner: K, clock: Option<ManualClock>) -> Timed<K> {
        let began = inner.now();
        if let Some(clock) = &clock {
            clock.lock().waker = Some(inner.waker());
        }
        Timed { inner, began, clock, has_rearmed: false }
    }
}

impl<K> Drop for Timed<K> {
    fn drop(&mut self) {
        if let Some(clock) = &self.clock {
            clock.lock().is_over = true;
            clock.0.rested.notify_all();
        }
    }
}

impl<K: Kernel> Kernel for Timed<K> {
    type Stream = K::Stream;
    type Listener = K::Listener;

    forward! { events capacity waker listen adopt listener_addr accept set_backlog connect register watch phase observe }

    fn poll(&mut self, patience: Option<Duration>) -> io::Result<()> {
        let patience = match &self.clock {
            // A re-armed listener reports its waiting clients first: no time passes until then.
            Some(_) if std::mem::take(&mut self.has_rearmed) => Some(Duration::ZERO),
            Some(clock) => clock.sleep(patience),
            None => patience,
        };
        self.inner.poll(patience)
    }

    fn now(&self) -> Instant {
        let Some(clock) = &self.clock else { return self.inner.now() };
        let state = clock.lock();
        let since = |released| self.inner.now().saturating_duration_since(released);
        let passed = state.shown + state.released.map_or(Duration::ZERO, since);
        self.began.checked_add(passed).unwrap_or(self.began)
    }

    fn rearm(&mut self, listener: &mut Self::Listener, key: usize) -> io::Result<()> {
        self.has_rearmed = true;
        self.inner.rearm(listener, key)
    }
}
