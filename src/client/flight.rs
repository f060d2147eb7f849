//! How much may be under way: sent, and not come back yet.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// What may be under way at first. Less than two pipes hold: a server that hands everything through
/// two of them to another program (`ncat --exec /bin/cat`) waits for itself once both are full. Not
/// much less, or a delayed acknowledgement on either side holds up every piece.
const WINDOW: usize = 96 << 10;
/// A server that says nothing for so long may be waiting for more before it answers.
const NUDGE: Duration = Duration::from_millis(100);

/// The bytes under way, counted by whoever sends and whoever receives.
#[derive(Debug, Clone)]
pub(super) struct Flight(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug)]
struct State {
    under_way: usize,
    window: usize,
    is_over: bool,
}

impl Flight {
    pub(super) fn new() -> Flight {
        let state = State { under_way: 0, window: WINDOW, is_over: false };
        Flight(Arc::new((Mutex::new(state), Condvar::new())))
    }

    /// Waits until there is room, or the server stays silent: then twice as much may be under way.
    pub(super) fn take_off(&self, count: usize) {
        let is_full = |state: &mut State| {
            !state.is_over && state.under_way > 0 && state.under_way + count > state.window
        };
        let state = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.1.wait_timeout_while(state, NUDGE, is_full);
        let (mut state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            state.window = state.window.saturating_mul(2);
        }
        state.under_way += count;
    }

    /// Waits until everything has come back, or nothing comes any more: a server that drops what it
    /// owes when it reads our EOF (`ncat --exec`) should owe nothing by then.
    pub(super) fn touch_down(&self) {
        let mut state = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        while !state.is_over && state.under_way > 0 {
            let before = state.under_way;
            let waited = self.0.1.wait_timeout(state, NUDGE);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            if state.under_way == before {
                return;
            }
        }
    }

    pub(super) fn land(&self, count: usize) {
        let mut state = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.under_way = state.under_way.saturating_sub(count);
        drop(state);
        self.0.1.notify_one();
    }

    /// Nobody waits any more.
    pub(super) fn end(&self) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).is_over = true;
        self.0.1.notify_one();
    }
}
