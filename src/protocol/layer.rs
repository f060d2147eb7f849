//! Protocols in layers: the outbox of a protocol that another one wraps, for example in TLS.

use super::Outbox;

impl Outbox {
    /// Creates an empty outbox for a protocol that this one wraps. It has the same id, time, timer and
    /// bounds, and it is congested, paused and half-closed if this one is.
    ///
    /// The wrapper calls the inner protocol with it, sends [`queued`](Outbox::queued) in its own form,
    /// and then passes it to [`adopt`](Outbox::adopt).
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
        let mut inner = Outbox::with_high_water(self.now, self.high_water);
        (inner.id, inner.timer) = (self.id, self.timer);
        (inner.low_water, inner.max_send_queue) = (self.low_water, self.max_send_queue);
        inner.state = self.state;
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
