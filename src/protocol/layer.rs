//! Protocols in layers: the outbox of a protocol that another one wraps, for example in TLS.

use super::{Outbox, State};

impl Outbox {
    /// Creates an empty outbox for a protocol that this one wraps. It has the same id, time, timer and
    /// bounds, and it is congested and paused as this one is.
    ///
    /// The wrapper calls the inner protocol with it, sends [`queued`](Outbox::queued) in its own form,
    /// and then passes it to [`adopt`](Outbox::adopt).
    pub fn nested(&self) -> Outbox {
        let mut inner = Outbox::with_high_water(self.now, self.high_water);
        (inner.id, inner.timer) = (self.id, self.timer);
        (inner.low_water, inner.max_send_queue) = (self.low_water, self.max_send_queue);
        let State { congested, paused, reads_while_congested, .. } = self.state;
        inner.state = State { congested, paused, reads_while_congested, ..State::default() };
        inner
    }

    /// Applies the requests of a [`nested`](Outbox::nested) outbox to this one: timer, timeouts, pause,
    /// messages and connections, and the end of our half, a close or an abort. Its queued bytes are the
    /// wrapper's to send, before this call.
    pub fn adopt(&mut self, mut inner: Outbox) {
        self.requests.append(&mut inner.requests);
        if inner.timer != self.timer {
            self.set_timer(inner.timer);
        }
        if let Some(timeouts) = inner.timeouts {
            self.set_timeouts(timeouts);
        }
        self.state.paused = inner.state.paused && !self.state.closed;
        self.state.reads_while_congested = inner.state.reads_while_congested;
        if inner.overflowed {
            (self.overflowed, self.has_requests) = (true, true);
        }
        if inner.aborted {
            self.abort();
        } else if inner.state.closed {
            self.close();
        } else if inner.is_half_closed() {
            self.half_close();
        }
    }
}
