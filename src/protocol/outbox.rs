//! [`Outbox`]: the bytes and the requests of a protocol.

mod loan;

use std::ops::Range;
use std::time::{Duration, Instant};

use super::{ConnId, Output, Requests, State, Timeouts};
use crate::send_queue::SendQueue;

/// The bytes and requests of a protocol: plain data, without a socket, a lifetime or a clock.
///
/// The connection lends an outbox for the length of one call and applies the requests after it, so a
/// protocol cannot block or break the loop, and can be tested without one:
///
/// ```
/// # use campanile::{Outbox, Protocol, services::Echo};
/// let mut out = Outbox::new(std::time::Instant::now());
/// Echo.on_data(b"Hello, world", &mut out);
/// assert_eq!(out.queued(), b"Hello, world");
/// ```
///
/// It is neither `Send` nor `Sync`. The loop writes after each call, so bytes that are only queued
/// here have not been sent.
#[must_use]
pub struct Outbox {
    pub(crate) now: Instant,
    pub(crate) id: ConnId,
    /// During a call, the connection's send queue; between two calls, spare storage.
    queue: SendQueue,
    /// The address and length of the read buffer, which holds the data of a call.
    read_buffer: (usize, usize),
    /// The start and length of the part of the read buffer that was sent while the queue was empty.
    /// It is written from there without a copy, before the queue.
    borrowed: (usize, usize),
    /// This call may lend its data: nothing is read until its messages are delivered.
    pub(crate) lends: bool,
    /// The number of unsent bytes that congests this outbox.
    pub(crate) high_water: usize,
    pub(crate) low_water: usize,
    pub(crate) max_send_queue: usize,
    pub(super) state: State,
    pub(super) timer: Option<Instant>,
    pub(crate) aborted: bool,
    /// One `send` was larger than the send queue may be.
    pub(crate) overflowed: bool,
    /// In this call the protocol has closed, aborted, overflowed, or set a timer or a timeout.
    pub(crate) has_requests: bool,
    pub(crate) timeouts: Option<Timeouts>,
    pub(crate) requests: Requests,
}

/// The queued bytes as text, cut after 64 of them: a failed assertion prints an outbox.
impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let queued = self.queued();
        let start = &queued[..queued.len().min(64)];
        f.debug_struct("Outbox")
            .field("id", &self.id)
            .field("unsent", &self.unsent())
            .field("queued", &format_args!("b\"{}\"", start.escape_ascii()))
            .field("state", &self.state)
            .field("aborted", &self.aborted)
            .field("timer", &self.timer)
            .field("requests", &self.requests.list.len())
            .finish_non_exhaustive()
    }
}

impl Outbox {
    /// Creates an outbox to test a protocol with. Its bounds are those of
    /// [`Limits::default`](crate::Limits).
    pub fn new(now: Instant) -> Outbox {
        Outbox::with_high_water(now, 64 * 1024)
    }

    /// Creates an outbox that is congested once `high_water` bytes are unsent. Its low-water mark is a
    /// quarter of that.
    pub fn with_high_water(now: Instant, high_water: usize) -> Outbox {
        Outbox {
            now,
            id: ConnId { key: 0, ordinal: 0 },
            queue: SendQueue::default(),
            read_buffer: (0, 0),
            borrowed: (0, 0),
            lends: false,
            high_water,
            low_water: high_water / 4,
            max_send_queue: 1 << 20,
            state: State::default(),
            timer: None,
            aborted: false,
            overflowed: false,
            has_requests: false,
            timeouts: None,
            requests: Requests::default(),
        }
    }

    /// Gives the connection the number `ordinal`, so that the connections of a unit test differ:
    ///
    /// ```
    /// # use campanile::Outbox;
    /// let now = std::time::Instant::now();
    /// let (first, second) = (Outbox::new(now).with_ordinal(1), Outbox::new(now).with_ordinal(2));
    /// assert_ne!(first.id(), second.id());
    /// ```
    pub fn with_ordinal(mut self, ordinal: u64) -> Outbox {
        self.id.ordinal = ordinal;
        self
    }

    /// Returns the id of this connection. In an outbox made by [`Outbox::new`] its number is 0, unless
    /// [`with_ordinal`](Outbox::with_ordinal) was called.
    #[must_use]
    pub fn id(&self) -> ConnId {
        self.id
    }

    // ANCHOR: send
    /// Queues all of `bytes`.
    ///
    /// Like `sendall`, it takes everything; unlike `sendall`, it does not block. The bytes that the
    /// kernel does not take at once are kept and sent when it does. Does nothing after
    /// [`close`](Outbox::close), [`half_close`](Outbox::half_close) and [`abort`](Outbox::abort).
    ///
    /// A connection may keep at most [`Limits::max_send_queue`](crate::Limits::max_send_queue) unsent
    /// bytes, 1 MiB by default. More reset it ([`Overflow`](crate::CloseReason::Overflow)), and a single
    /// call with more is refused before it is copied. So send a long reply in pieces, while
    /// `!out.is_congested()`, and continue in [`on_drain`](crate::Protocol::on_drain).
    pub fn send(&mut self, bytes: &[u8]) {
        if self.state.output != Output::Open {
            return;
        }
        if !self.borrow(bytes) {
            if bytes.len() > self.max_send_queue {
                (self.overflowed, self.has_requests) = (true, true);
                return;
            }
            self.queue.append(bytes);
        }
        // Set here and not after the flush: otherwise a producer whose output fits the socket would
        // never get `on_drain`.
        if self.unsent() >= self.high_water {
            self.state.congested = true;
        }
    }

    /// Borrows `bytes` if they directly follow the borrowed part and the queue is empty.
    fn borrow(&mut self, bytes: &[u8]) -> bool {
        let Some(start) = self.start_in_read_buffer(bytes).filter(|_| self.queue.is_empty()) else {
            return false;
        };
        match self.borrowed {
            (_, 0) => self.borrowed = (start, bytes.len()),
            (first, length) if first + length == start => self.borrowed.1 += bytes.len(),
            _ => return false,
        }
        true
    }

    /// Returns the place of `bytes` in the read buffer, if this call may lend them. Small pieces are
    /// copied, because after a loan the sender reads on only in the next turn.
    pub(super) fn lend(&self, bytes: &[u8]) -> Option<Range<usize>> {
        let is_large = bytes.len() >= self.read_buffer.1 / 8;
        let start = self.start_in_read_buffer(bytes).filter(|_| self.lends && is_large)?;
        Some(start..start + bytes.len())
    }

    fn start_in_read_buffer(&self, bytes: &[u8]) -> Option<usize> {
        // An address below the buffer wraps around to far behind it. A slice that begins in the
        // buffer also ends there: no slice spans two allocations.
        let start = (bytes.as_ptr() as usize).wrapping_sub(self.read_buffer.0);
        (start < self.read_buffer.1).then_some(start)
    }

    /// Returns the number of unsent bytes, from this call and from earlier ones.
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.borrowed.1 + self.queue.len()
    }

    /// Returns the queued bytes, for assertions in a unit test. During a call of the loop, bytes of its
    /// read buffer that were sent first are not among them.
    #[must_use]
    pub fn queued(&self) -> &[u8] {
        self.queue.unsent()
    }

    /// Removes up to `count` queued bytes as if the kernel had taken them, for a unit test. Returns true
    /// if the queue has fallen to low water: then the loop would call
    /// [`on_drain`](crate::Protocol::on_drain).
    ///
    /// ```
    /// # use campanile::Outbox;
    /// let mut out = Outbox::with_high_water(std::time::Instant::now(), 8);
    /// out.send(b"12345678");
    /// assert!(out.is_congested());
    /// assert!(!out.drain(5) && out.drain(1) && !out.is_congested());
    /// assert_eq!(out.queued(), b"78");
    /// ```
    pub fn drain(&mut self, count: usize) -> bool {
        self.queue.consume(count.min(self.queue.len()));
        let has_drained = self.state.congested && self.queue.len() <= self.low_water;
        self.state.congested &= !has_drained;
        has_drained
    }

    /// Returns whether the send queue has reached high water. A producer stops here and continues in
    /// [`on_drain`](crate::Protocol::on_drain). Meanwhile the peer is not read, unless
    /// [`read_while_congested`](Outbox::read_while_congested) was called.
    #[must_use]
    pub fn is_congested(&self) -> bool {
        self.state.congested
    }

    // ANCHOR: close
    /// Closes the connection once everything queued has been sent. No call follows but
    /// [`on_close`](crate::Protocol::on_close).
    pub fn close(&mut self) {
        self.half_close();
        self.state.closed = true;
        self.state.paused = false;
        self.has_requests = true;
    }

    /// Ends our half once everything queued has been sent, and goes on reading: the peer reads EOF
    /// and may still answer, as after `shutdown(2)` with `SHUT_WR`. Nothing more can be sent.
    pub fn half_close(&mut self) {
        if self.state.output == Output::Open {
            self.state.output = Output::Flushing;
        }
    }

    /// Drops the unsent bytes and resets the connection.
    pub fn abort(&mut self) {
        self.close();
        self.aborted = true;
    }

    /// Returns whether [`close`](Outbox::close) or [`abort`](Outbox::abort) was called.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state.closed
    }

    /// Returns whether our half has ended or will end after the queued bytes: by
    /// [`half_close`](Outbox::half_close), [`close`](Outbox::close) or [`abort`](Outbox::abort).
    #[must_use]
    pub fn is_half_closed(&self) -> bool {
        self.state.output != Output::Open
    }

    /// Returns whether [`abort`](Outbox::abort) was called.
    #[must_use]
    pub fn is_aborted(&self) -> bool {
        self.aborted
    }

    /// Stops reading the peer until [`resume`](Outbox::resume), for a protocol that cannot pass its
    /// data on: the peer experiences back-pressure. Its EOF is not read meanwhile either, and
    /// [`Limits::idle_timeout`](crate::Limits::idle_timeout) goes on. `pause` and `resume` do not count:
    /// one `resume` ends any number of pauses, and leaves the back-pressure of a congested outbox as it
    /// is.
    ///
    /// ```
    /// # use campanile::{Outbox, Protocol};
    /// /// Receives one piece, and the next one once another thread has worked off the first.
    /// struct OneAtATime(std::sync::mpsc::Sender<Vec<u8>>);
    ///
    /// impl Protocol for OneAtATime {
    ///     fn on_data(&mut self, data: &[u8], out: &mut Outbox) {
    ///         let _ = self.0.send(data.to_vec());
    ///         out.pause();
    ///     }
    ///     fn on_wake(&mut self, out: &mut Outbox) {
    ///         out.resume(); // the other thread calls Handle::wake_connection
    ///     }
    /// }
    /// ```
    pub fn pause(&mut self) {
        self.state.paused = !self.state.closed;
    }

    /// Ends [`pause`](Outbox::pause).
    pub fn resume(&mut self) {
        self.state.paused = false;
    }

    /// Returns whether [`pause`](Outbox::pause) is in force.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.state.paused
    }

    /// Sets whether the peer is read while the outbox is congested. Default: false.
    ///
    /// A relay needs it, because it sends on one connection what it reads on another: two relays that
    /// wait for each other to read would wait for ever. A protocol that sets it must bound what it
    /// queues, for example with [`pause`](Outbox::pause).
    pub fn read_while_congested(&mut self, on: bool) {
        self.state.reads_while_congested = on;
    }

    /// Returns the time of this turn of the loop, the same for every connection in it.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Requests a call of [`on_timer`](crate::Protocol::on_timer) at `deadline`. A connection has one
    /// timer; a later request replaces an earlier one.
    pub fn timer_at(&mut self, deadline: Instant) {
        self.set_timer(Some(deadline));
    }

    /// Requests a call of [`on_timer`](crate::Protocol::on_timer) after `delay`. If the time of the call
    /// is beyond what a clock can hold, no timer is set.
    pub fn timer_after(&mut self, delay: Duration) {
        self.set_timer(self.now.checked_add(delay));
    }

    /// Cancels the timer.
    pub fn cancel_timer(&mut self) {
        self.set_timer(None);
    }

    /// Returns the time of the timer, if one is set.
    #[must_use]
    pub fn timer(&self) -> Option<Instant> {
        self.timer
    }

    pub(super) fn set_timer(&mut self, timer: Option<Instant>) {
        self.timer = timer;
        self.has_requests = true;
    }
}

#[cfg(test)]
mod tests {
    use super::super::Request;
    use super::*;

    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 7 % 251) as u8).collect()
    }

    /// An outbox over a read buffer, with a high-water mark of 1000.
    fn over(buffer: &[u8]) -> Outbox {
        let mut out = Outbox::over(Instant::now(), buffer);
        (out.high_water, out.low_water, out.max_send_queue) = (1000, 250, 1000);
        out
    }

    /// Makes a call that sends `size` bytes of its own, and returns the connection's queue.
    fn call(out: &mut Outbox, mut queue: SendQueue, size: usize) -> SendQueue {
        out.begin_call(&mut queue, State::default(), None);
        out.send(&pattern(size));
        out.end_call(&mut queue);
        queue
    }

    #[test]
    fn a_drained_queue_gives_its_storage_back_up_to_the_high_water_mark() {
        let mut out = Outbox::with_high_water(Instant::now(), 100);
        for (size, kept) in [(60, 60), (1000, 100)] {
            let mut queue = call(&mut out, SendQueue::default(), size);
            queue.consume(size);
            out.recycle(&mut queue);
            assert_eq!((queue.capacity(), out.queue.capacity()), (0, kept));
        }
        let queue = call(&mut out, SendQueue::default(), 80);
        assert_eq!(queue.capacity(), 100, "the spare storage serves the next queue");
    }

    #[test]
    fn a_queue_that_has_shrunk_keeps_at_most_twice_its_length() {
        let mut out = Outbox::with_high_water(Instant::now(), 100);
        let mut queue = call(&mut out, SendQueue::default(), 50_000);
        queue.consume(40_000);
        out.recycle(&mut queue);
        assert!(queue.capacity() <= 20_000, "{}", queue.capacity());
        assert_eq!(queue.unsent(), &pattern(50_000)[40_000..]);
    }

    #[test]
    fn an_earlier_queue_is_in_the_outbox_during_a_call_and_stays_first() {
        let mut out = Outbox::with_high_water(Instant::now(), 1000);
        let mut queue = call(&mut out, SendQueue::default(), 10);
        queue = call(&mut out, queue, 5);
        assert_eq!(queue.unsent(), [&pattern(10)[..], &pattern(5)[..]].concat());
        assert!(out.queue.is_empty());
    }

    #[test]
    fn slices_of_the_read_buffer_are_borrowed_in_order_and_others_copied() {
        let buffer = pattern(100);
        let mut out = over(&buffer);
        out.send(&buffer[10..20]);
        out.send(&buffer[20..30]);
        assert_eq!((out.borrowed(), out.queued()), (10..30, &b""[..]));
        out.send(b"between");
        out.send(&buffer[30..40]);
        assert_eq!(out.borrowed(), 10..30);
        assert_eq!(out.queued(), [b"between", &buffer[30..40]].concat());
        assert_eq!(out.unsent(), 37);
    }

    #[test]
    fn a_gap_between_two_borrowed_slices_is_copied_not_sent() {
        let buffer = pattern(100);
        let mut out = over(&buffer);
        out.send(&buffer[0..10]);
        out.send(&buffer[50..60]);
        assert_eq!((out.borrowed(), out.queued()), (0..10, &buffer[50..60]));
    }

    #[test]
    fn all_of_the_read_buffer_can_be_borrowed() {
        let buffer = pattern(100);
        let mut out = over(&buffer);
        out.send(&buffer);
        assert_eq!((out.borrowed(), out.queued()), (0..100, &b""[..]));
    }

    #[test]
    fn nothing_is_borrowed_behind_an_earlier_queue_or_from_an_earlier_call() {
        let buffer = pattern(100);
        let mut out = over(&buffer);
        let mut queue = SendQueue::default();
        queue.append(b"earlier");
        out.begin_call(&mut queue, State::default(), None);
        out.send(&buffer[..5]);
        assert!(out.borrowed().is_empty());
        out.end_call(&mut queue);
        out.begin_call(&mut SendQueue::default(), State::default(), None);
        out.send(&buffer[..5]);
        out.begin_call(&mut SendQueue::default(), State::default(), None);
        assert_eq!((out.borrowed().len(), out.unsent()), (0, 0));
    }

    #[test]
    fn a_message_of_the_bytes_just_read_is_lent_and_any_other_copied() {
        const LENT: usize = 100;
        let buffer = pattern(8 * LENT);
        let mut out = over(&buffer);
        let to = out.id();
        out.message(to, &buffer[..LENT]);
        out.lends = true;
        assert!(!out.has_lent());
        out.message(to, &buffer[5..LENT + 5]);
        out.message(to, &buffer[1..LENT]);
        out.message(to, &pattern(LENT));
        assert!(out.has_lent());
        let list = out.requests.list.iter().map(|it| match it {
            Request::Message(_, length) => (0, *length),
            Request::Lent(_, part) => (part.start, part.end),
            _ => unreachable!(),
        });
        let list: Vec<_> = list.collect();
        assert_eq!(list, [(0, LENT), (5, LENT + 5), (0, LENT - 1), (0, LENT)]);
        let copied = [&buffer[..LENT], &buffer[1..LENT], &pattern(LENT)].concat();
        assert_eq!(out.requests.bytes, copied);
        out.begin_call(&mut SendQueue::default(), State::default(), None);
        assert_eq!(out.lend(&buffer), None, "only the call that has read them lends");
    }

    #[test]
    fn nothing_is_queued_after_the_end_and_an_abort_outranks_a_close() {
        let mut out = Outbox::new(Instant::now());
        out.send(b"kept");
        out.close();
        out.send(b"dropped");
        assert_eq!(out.queued(), b"kept");
        out.abort();
        out.close();
        assert!(out.aborted);
    }

    #[test]
    fn a_closed_protocol_stays_closed_whatever_it_requests() {
        let mut out = Outbox::new(Instant::now());
        out.pause();
        out.close();
        assert!(!out.is_paused());
        out.pause();
        out.resume();
        out.half_close();
        assert!(out.is_closed() && !out.is_paused());
        assert_eq!(out.state.output, Output::Flushing);
    }

    #[test]
    fn a_call_begins_without_the_requests_of_a_call_that_aborted_or_panicked() {
        let mut out = Outbox::new(Instant::now());
        out.set_idle_timeout(None);
        out.send(&[0; (1 << 20) + 1]);
        out.abort();
        out.begin_call(&mut SendQueue::default(), State::default(), None);
        assert_eq!((out.aborted, out.overflowed, out.has_requests), (false, false, false));
        assert_eq!(out.timeouts, None);
    }

    #[test]
    fn congestion_is_set_inside_send() {
        let mut out = Outbox::with_high_water(Instant::now(), 8);
        out.send(b"1234567");
        assert!(!out.is_congested());
        out.send(b"8");
        assert!(out.is_congested());
    }

    #[test]
    fn debug_shows_the_first_queued_bytes_as_text() {
        let mut out = Outbox::new(Instant::now());
        out.send(b"OK\n");
        let short = format!("{out:?}");
        assert!(short.contains(r#"unsent: 3, queued: b"OK\n","#), "{short}");
        out.send(&[b'x'; 100_000]);
        assert!(format!("{out:?}").len() < 500);
    }
}
