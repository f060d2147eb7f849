//! How the loop lends its one outbox to a connection for the length of a call.

use std::ops::Range;
use std::time::Instant;

use super::Outbox;
use crate::protocol::{Output, Request, State};
use crate::send_queue::SendQueue;

impl Outbox {
    /// Creates an outbox that does not copy what is sent from `read_buffer`, which must not move.
    pub(crate) fn over(now: Instant, read_buffer: &[u8]) -> Outbox {
        let read_buffer = (read_buffer.as_ptr() as usize, read_buffer.len());
        Outbox { read_buffer, ..Outbox::with_high_water(now, 1) }
    }

    /// Takes over a connection's queue, state and timer for one call.
    pub(crate) fn begin_call(
        &mut self,
        queue: &mut SendQueue,
        state: State,
        timer: Option<Instant>,
    ) {
        // An empty queue is not swapped, so the call uses the spare storage.
        if !queue.is_empty() {
            std::mem::swap(&mut self.queue, queue);
        }
        self.state = state;
        self.timer = timer;
        self.aborted = false;
        self.overflowed = false;
        self.has_requests = false;
        self.timeouts = None;
        self.borrowed.1 = 0;
        self.lends = false;
    }

    /// Prepares for the call that reports the end of a connection: nothing can be sent on it.
    pub(crate) fn begin_last_call(&mut self) {
        let state = State { output: Output::Shut, closed: true, ..State::default() };
        self.begin_call(&mut SendQueue::default(), state, None);
    }

    /// Gives the queue back after the call, and returns the new state.
    pub(crate) fn end_call(&mut self, queue: &mut SendQueue) -> State {
        if !self.queue.is_empty() {
            std::mem::swap(&mut self.queue, queue);
        }
        self.state
    }

    /// Returns whether requests for other connections wait.
    pub(crate) fn has_mail(&self) -> bool {
        !self.requests.list.is_empty()
    }

    /// Returns whether a message is still in the read buffer.
    pub(crate) fn has_lent(&self) -> bool {
        self.requests.list.iter().any(|request| matches!(request, Request::Lent(..)))
    }

    /// Returns the borrowed part of the read buffer, which is to be written before the queue.
    pub(crate) fn borrowed(&self) -> Range<usize> {
        let (start, length) = self.borrowed;
        start..start + length
    }

    /// Keeps the storage of a drained queue for the next one, and bounds that of any other.
    pub(crate) fn recycle(&mut self, queue: &mut SendQueue) {
        if queue.is_empty() {
            queue.shrink(self.high_water);
            self.queue = std::mem::take(queue);
        } else {
            queue.shrink(2 * queue.len());
        }
    }
}
