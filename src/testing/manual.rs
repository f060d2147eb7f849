//! [`Timed`]: a kernel whose clock stands still until somebody moves it.

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

/// A hand on the clock of a loop.
#[derive(Clone)]
pub(super) struct Hand(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    rested: Condvar,
}

/// Invariant: `rested_at <= shown <= wanted`.
#[derive(Default)]
struct State {
    shown: Duration,
    wanted: Duration,
    /// The time at which the loop had nothing left to do.
    rested_at: Duration,
    is_over: bool,
    waker: Option<Arc<dyn Wake>>,
}

impl fmt::Debug for Hand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hand").field("shown", &self.lock().shown).finish_non_exhaustive()
    }
}

impl Hand {
    pub(super) fn new() -> Hand {
        Hand(Arc::new(Shared { state: Mutex::default(), rested: Condvar::new() }))
    }

    /// Lets time pass, from deadline to deadline, until nothing is left to do at its end.
    ///
    /// # Errors
    /// If time would pass its end, or the loop does not come to rest within the patience.
    pub(super) fn advance(&self, by: Duration, patience: Duration) -> Result<(), &'static str> {
        let mut state = self.lock();
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
            true => Err("the loop did not come to rest"),
            false => Ok(()),
        }
    }

    /// How long to sleep really. Time moves on here, and at most to the next deadline, so that
    /// every one on the way is met.
    fn sleep(&self, patience: Option<Duration>) -> Option<Duration> {
        if patience == Some(Duration::ZERO) {
            return patience;
        }
        let mut state = self.lock();
        let rest = state.wanted - state.shown;
        if rest.is_zero() {
            state.rested_at = state.shown;
            self.0.rested.notify_all();
            // Only somebody's event, or hand, can end this.
            return None;
        }
        state.shown += patience.map_or(rest, |patience| patience.min(rest));
        Some(Duration::ZERO)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A kernel whose time is moved by a hand, or, without one, is the inside one's.
#[derive(Debug)]
pub struct Timed<K> {
    inner: K,
    began: Instant,
    hand: Option<Hand>,
    has_rearmed: bool,
}

impl<K: Kernel> Timed<K> {
    pub(super) fn new(inner: K, hand: Option<Hand>) -> Timed<K> {
        let began = inner.now();
        if let Some(hand) = &hand {
            hand.lock().waker = Some(inner.waker());
        }
        Timed { inner, began, hand, has_rearmed: false }
    }
}

impl<K> Drop for Timed<K> {
    fn drop(&mut self) {
        if let Some(hand) = &self.hand {
            hand.lock().is_over = true;
            hand.0.rested.notify_all();
        }
    }
}

impl<K: Kernel> Kernel for Timed<K> {
    type Stream = K::Stream;
    type Listener = K::Listener;

    forward! { events capacity waker listen adopt listener_addr accept set_backlog connect register watch phase observe }

    fn poll(&mut self, patience: Option<Duration>) -> io::Result<()> {
        let patience = match &self.hand {
            // Whoever waits at a listener that was asked again is told of first: no time passes.
            Some(_) if std::mem::take(&mut self.has_rearmed) => Some(Duration::ZERO),
            Some(hand) => hand.sleep(patience),
            None => patience,
        };
        self.inner.poll(patience)
    }

    fn now(&self) -> Instant {
        match &self.hand {
            Some(hand) => self.began.checked_add(hand.lock().shown).unwrap_or(self.began),
            None => self.inner.now(),
        }
    }

    fn rearm(&mut self, listener: &mut Self::Listener, key: usize) -> io::Result<()> {
        self.has_rearmed = true;
        self.inner.rearm(listener, key)
    }
}
