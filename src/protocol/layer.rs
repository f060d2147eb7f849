//! Protocols in layers: the outbox of a protocol that another one wraps, for example in TLS.

use super::Outbox;

impl Outbox {
    /// Creates an empty outbox for a protocol that this one wraps. It has the same id, time, timer and
    /// state: it is congested, paused, half-closed or closed if this one is. Its high-water mark is the
    /// room that is left below this one's.
    ///
    /// The wrapper calls the inner protocol with it, sends [`queued`](Outbox::queued) in its own form,
    /// and then passes it to [`adopt`](Outbox::adopt). The package `examples/tls` is such a wrapper.
    ///
    /// ```
    /// use campanile::{Outbox, Protocol, services::Echo};
    ///
    /// /// Flips a bit of every byte, in both directions: a layer as TLS is one.
    /// struct Layer<P>(P);
    ///
    /// fn flipped(bytes: &[u8]) -> Vec<u8> {
    ///     bytes.iter().map(|byte| byte ^ 1).collect()
    /// }
    ///
    /// impl<P: Protocol> Layer<P> {
    ///     /// Each method of the layer calls this.
    ///     fn pass(&mut self, out: &mut Outbox, call: impl FnOnce(&mut P, &mut Outbox)) {
    ///         let mut inner = out.nested();
    ///         call(&mut self.0, &mut inner);
    ///         out.send(&flipped(inner.queued()));
    ///         out.adopt(inner);
    ///     }
    /// }
    ///
    /// impl<P: Protocol> Protocol for Layer<P> {
    ///     fn on_data(&mut self, data: &[u8], out: &mut Outbox) {
    ///         self.pass(out, |inner, out| inner.on_data(&flipped(data), out));
    ///     }
    ///     fn on_message(&mut self, bytes: &[u8], out: &mut Outbox) {
    ///         self.pass(out, |inner, out| inner.on_message(bytes, out));
    ///     }
    ///     // And so on, for every method of `Protocol`.
    /// }
    ///
    /// let mut out = Outbox::new(std::time::Instant::now());
    /// Layer(Echo).on_data(b"`ab", &mut out);
    /// assert_eq!(out.queued(), b"`ab");
    /// ```
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
