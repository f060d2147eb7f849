//! Bounds the bytes in flight: sent, and not yet returned by the server.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Initial window. Less than two pipes hold: a server that passes everything through two pipes to
/// another program (`ncat --exec /bin/cat`) deadlocks once both are full. Not much less, or a delayed
/// acknowledgement on either side delays every piece.
const WINDOW: usize = 96 << 10;
/// A server that is silent for this long may be waiting for more input before it answers.
const NUDGE: Duration = Duration::from_millis(100);

/// The bytes in flight, counted by the sender and the receiver.
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

    /// Waits until the window has room. If the server stays silent, doubles the window instead.
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

    /// Waits until the server has returned everything, or sends nothing more: some servers drop pending
    /// bytes when they read our EOF (`ncat --exec`).
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

    /// Ends both waits.
    pub(super) fn end(&self) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).is_over = true;
        self.0.1.notify_one();
    }
}
