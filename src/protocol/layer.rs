//! Protocols in layers: the outbox of a protocol that another one wraps, for example in TLS.

use super::Outbox;

impl Outbox {
    /// Creates an empty outbox for a protocol that this one wraps. It has the same id, time, timer and
    /// state: it is congested, paused, half-closed or closed if this one is. Its high-water mark is the
    /// room that is left below this one's.
    ///
    /// The wrapper calls the inner protocol with it, sends [`queued`](Outbox::queued) in its own form,
    /// and then passes it to [`adopt`](Outbox::adopt). The package `examples/tls` is such a wrapper.
    pub fn nested(&self) -> Outbox {
        let room = self.high_water.saturating_sub(self.unsent()).max(1);
        let mut inner = Outbox::with_high_water(self.now, room);
        (inner.id, inner.timer) = (self.id, self.timer);
        (inner.low_water, inner.max_send_queue) = (self.low_water, self.max_send_queue);
        inner.state = self.state;
        inner
    }

    /// Applies the requests of a [`nested`](Outbox::nested) outbox to this one: timer, timeouts, pause,
    /// messages and connections, and the end of our half, a close or an abort. Its queued bytes are the
    /// wrapper's to send, before this call. If they have congested the nested outbox, this one is
    /// congested as well, and the wrapper passes [`on_drain`](crate::Protocol::on_drain) on.
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
        self.state.congested |= inner.state.congested;
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_nested_outbox_is_congested_once_both_queues_reach_high_water() {
        let mut out = Outbox::with_high_water(Instant::now(), 100);
        out.send(&[b'x'; 60]);
        let mut inner = out.nested();
        inner.send(&[b'x'; 39]);
        assert!(!inner.is_congested());
        inner.send(b"1");
        assert!(inner.is_congested());
        // The wrapper compresses: its own form is too short to congest the outer queue.
        out.send(b"short");
        out.adopt(inner);
        assert!(
            out.is_congested() && out.drain(65),
            "a drain follows, so the inner protocol continues"
        );
    }

    #[test]
    fn a_nested_outbox_sends_nothing_once_the_outer_has_ended_its_half() {
        let mut out = Outbox::new(Instant::now());
        let mut inner = out.nested();
        inner.half_close();
        out.adopt(inner);
        assert!(out.is_half_closed() && !out.is_closed());
        let mut inner = out.nested();
        inner.send(b"late");
        assert!(inner.queued().is_empty() && inner.is_half_closed());
        inner.close();
        out.adopt(inner);
        assert!(out.is_closed() && out.nested().is_closed());
    }
}
