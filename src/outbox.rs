//! The output of a protocol: its bytes ([`SendQueue`]) and its requests ([`Outbox`]).

use std::ops::Range;
use std::time::{Duration, Instant};

// ANCHOR: send-queue
/// Bytes that wait to be sent, oldest first. Invariant: `head < bytes.len()`, or both are 0.
#[derive(Debug, Default)]
pub(crate) struct SendQueue {
    bytes: Vec<u8>,
    head: usize,
}

impl SendQueue {
    pub(crate) fn unsent(&self) -> &[u8] {
        &self.bytes[self.head..]
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.head
    }

    pub(crate) fn is_empty(&self) -> bool {
        // By the invariant: `consume` clears a queue that has nothing left.
        self.bytes.is_empty()
    }

    /// Returns whether the queue has storage of its own; an empty one can have some, too.
    pub(crate) fn has_storage(&self) -> bool {
        self.bytes.capacity() > 0
    }

    /// Queues all of `more`. The capacity stays below twice the largest length of the queue.
    #[cold] // saves 32 instructions an echo
    pub(crate) fn append(&mut self, more: &[u8]) {
        if self.bytes.len() + more.len() > self.bytes.capacity() {
            self.make_room(more.len());
        }
        self.bytes.extend_from_slice(more);
    }

    /// Drops the sent prefix, only when the queue grows. Shifting after every write would be quadratic.
    /// Never shifting would keep every byte for a peer that is always a little behind.
    fn make_room(&mut self, more: usize) {
        let needed = self.len() + more;
        if needed <= self.bytes.capacity() && self.head >= self.bytes.len() / 2 {
            self.bytes.drain(..self.head);
        } else {
            let spare = if self.is_empty() { 0 } else { needed / 2 };
            let mut bytes = Vec::with_capacity(needed + spare);
            bytes.extend_from_slice(self.unsent());
            self.bytes = bytes;
        }
        self.head = 0;
    }

    /// Moves the cursor past the first `count` bytes, which were sent.
    pub(crate) fn consume(&mut self, count: usize) {
        self.head += count;
        if self.head == self.bytes.len() {
            self.bytes.clear();
            self.head = 0;
        }
    }

    /// Queues `first` before everything else.
    pub(crate) fn prepend(&mut self, first: &[u8]) {
        self.bytes.splice(..self.head, first.iter().copied());
        self.head = 0;
    }

    /// Gives back storage beyond `capacity` bytes, or beyond the bytes that are left.
    fn shrink(&mut self, capacity: usize) {
        if self.bytes.capacity() > capacity {
            self.bytes.drain(..self.head);
            self.head = 0;
            self.bytes.shrink_to(capacity);
        }
    }
}

/// Whether the peer may still send.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Input {
    /// The peer may send.
    #[default]
    Open,
    /// The peer has ended its half: its EOF was read.
    Ended,
}

/// Whether we may still send.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output {
    /// The protocol may send.
    #[default]
    Open,
    /// The protocol sends no more; the send queue is being delivered.
    Flushing,
    /// Our half has ended: the FIN is sent.
    Shut,
}

/// The state of a conversation: the connection keeps it, and the outbox carries it through a call.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) input: Input,
    pub(crate) output: Output,
    /// The protocol has closed: incoming bytes are discarded.
    pub(crate) closed: bool,
    /// The protocol has paused reading.
    pub(crate) paused: bool,
    /// The protocol has called [`Outbox::resume`]: the loop reads the peer even while the outbox is
    /// congested.
    pub(crate) reads_while_congested: bool,
    /// The send queue has reached high water, and not fallen to low water since.
    pub(crate) congested: bool,
}

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
#[derive(Debug)]
pub struct Outbox {
    pub(crate) now: Instant,
    /// During a call, the connection's send queue; between two calls, spare storage.
    queue: SendQueue,
    /// The address and length of the read buffer, which holds the data of a call.
    read_buffer: (usize, usize),
    /// The start and length of the part of the read buffer that was sent while the queue was empty.
    /// It is written from there without a copy, before the queue.
    borrowed: (usize, usize),
    high_water: usize,
    state: State,
    timer: Option<Instant>,
    pub(crate) aborted: bool,
    /// The protocol has closed, aborted, or changed its timer in this call.
    pub(crate) has_requests: bool,
}

impl Outbox {
    /// Creates an outbox to test a protocol with. Its high-water mark is that of
    /// [`Limits::default`](crate::Limits).
    pub fn new(now: Instant) -> Outbox {
        Outbox::with_high_water(now, 64 * 1024)
    }

    /// Creates an outbox that is congested once `high_water` bytes are unsent.
    pub fn with_high_water(now: Instant, high_water: usize) -> Outbox {
        Outbox {
            now,
            queue: SendQueue::default(),
            read_buffer: (0, 0),
            borrowed: (0, 0),
            high_water,
            state: State::default(),
            timer: None,
            aborted: false,
            has_requests: false,
        }
    }

    /// Creates an outbox that does not copy what is sent from `read_buffer`, which must not move.
    pub(crate) fn over(now: Instant, high_water: usize, read_buffer: &[u8]) -> Outbox {
        let read_buffer = (read_buffer.as_ptr() as usize, read_buffer.len());
        Outbox { read_buffer, ..Outbox::with_high_water(now, high_water) }
    }

    // ANCHOR: send
    /// Queues all of `bytes`.
    ///
    /// Like `sendall`, it takes everything; unlike `sendall`, it does not block. The bytes that the
    /// kernel does not take at once are kept and sent when it does. Does nothing after
    /// [`close`](Outbox::close), [`half_close`](Outbox::half_close) and [`abort`](Outbox::abort).
    ///
    /// A connection may keep at most [`Limits::unsent`](crate::Limits::unsent) unsent bytes, 1 MiB by
    /// default; more resets it ([`Overflow`](crate::CloseReason::Overflow)). So send a long reply in
    /// pieces, while `!out.is_congested()`, and continue in
    /// [`on_drain`](crate::Protocol::on_drain).
    pub fn send(&mut self, bytes: &[u8]) {
        if self.state.output != Output::Open {
            return;
        }
        if !self.borrow(bytes) {
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
        // An address below the buffer wraps around to far behind it. A slice that begins in the
        // buffer also ends there: no slice spans two allocations.
        let start = (bytes.as_ptr() as usize).wrapping_sub(self.read_buffer.0);
        if start >= self.read_buffer.1 || !self.queue.is_empty() {
            return false;
        }
        match self.borrowed {
            (_, 0) => self.borrowed = (start, bytes.len()),
            (first, length) if first + length == start => self.borrowed.1 += bytes.len(),
            _ => return false,
        }
        true
    }

    /// Returns the number of unsent bytes, from this call and from earlier ones.
    pub fn unsent(&self) -> usize {
        self.borrowed.1 + self.queue.len()
    }

    /// Returns the bytes queued in an outbox made by [`Outbox::new`], for assertions in a test.
    pub fn queued(&self) -> &[u8] {
        self.queue.unsent()
    }

    /// Returns whether the send queue has reached high water. A producer stops here and continues in
    /// [`on_drain`](crate::Protocol::on_drain). Meanwhile the peer is not read, unless
    /// [`resume`](Outbox::resume) was called.
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
    pub fn is_closed(&self) -> bool {
        self.state.closed
    }

    /// Stops reading the peer until [`resume`](Outbox::resume), for a protocol that cannot pass its
    /// data on: the peer experiences back-pressure. Its EOF is not read meanwhile either.
    pub fn pause(&mut self) {
        self.state.paused = !self.state.closed;
    }

    /// Reads the peer again, from now on also while the outbox is congested: a protocol that pauses
    /// and resumes bounds by itself what it reads. A relay must, because it sends on one connection
    /// what it reads on another: two relays that wait for each other to read would wait for ever.
    pub fn resume(&mut self) {
        self.state.paused = false;
        self.state.reads_while_congested = true;
    }

    /// Returns whether [`pause`](Outbox::pause) is in force.
    pub fn is_paused(&self) -> bool {
        self.state.paused
    }

    /// Returns the time of this turn of the loop, the same for every connection in it.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Requests a call of [`on_wake`](crate::Protocol::on_wake) at `deadline`. A connection has one
    /// such deadline; a later request replaces an earlier one.
    pub fn wake_at(&mut self, deadline: Instant) {
        self.set_timer(Some(deadline));
    }

    /// Requests a call of [`on_wake`](crate::Protocol::on_wake) after `delay`. If the time
    /// of the call is beyond what a clock can hold, no wake-up is set.
    pub fn wake_after(&mut self, delay: Duration) {
        self.set_timer(self.now.checked_add(delay));
    }

    /// Cancels the request for a wake-up.
    pub fn cancel_wake(&mut self) {
        self.set_timer(None);
    }

    /// Returns the requested deadline, if any.
    pub fn wake(&self) -> Option<Instant> {
        self.timer
    }

    fn set_timer(&mut self, timer: Option<Instant>) {
        self.timer = timer;
        self.has_requests = true;
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
        self.has_requests = false;
        self.borrowed.1 = 0;
    }

    /// Gives the queue back after the call, and returns the new state.
    pub(crate) fn end_call(&mut self, queue: &mut SendQueue) -> State {
        if !self.queue.is_empty() {
            std::mem::swap(&mut self.queue, queue);
        }
        self.state
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Write};

    /// Takes `chunk` bytes a call and refuses after `room` bytes.
    struct Sink {
        taken: Vec<u8>,
        chunk: usize,
        room: usize,
    }

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let n = bytes.len().min(self.chunk).min(self.room);
            if n == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            self.room -= n;
            self.taken.extend_from_slice(&bytes[..n]);
            Ok(n)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// Returns true once everything is sent.
    fn flush(queue: &mut SendQueue, sink: &mut Sink) -> bool {
        while !queue.is_empty() {
            match sink.write(queue.unsent()) {
                Ok(taken) => queue.consume(taken),
                Err(_) => return false,
            }
        }
        true
    }

    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 7 % 251) as u8).collect()
    }

    #[test]
    fn every_size_of_append_and_of_write_delivers_the_same_bytes() {
        let bytes = pattern(97);
        for piece in 1..=bytes.len() {
            for chunk in 1..=bytes.len() {
                let mut buffer = SendQueue::default();
                let mut sink = Sink { taken: Vec::new(), chunk, room: 0 };
                for part in bytes.chunks(piece) {
                    buffer.append(part);
                    sink.room = piece / 2 + 1;
                    flush(&mut buffer, &mut sink);
                }
                sink.room = usize::MAX;
                assert!(flush(&mut buffer, &mut sink));
                assert_eq!(sink.taken, bytes, "append {piece}, write {chunk}");
            }
        }
    }

    #[test]
    fn a_reader_always_a_little_behind_never_makes_us_keep_twice_what_is_owed() {
        let mut buffer = SendQueue::default();
        let mut sink = Sink { taken: Vec::new(), chunk: usize::MAX, room: 0 };
        let piece = pattern(16 * 1024);
        let (mut sent, mut most_owed) = (0, 0);
        buffer.append(&pattern(37 * 1024));
        while sent < 100 << 20 {
            buffer.append(&piece);
            most_owed = most_owed.max(buffer.len());
            assert!(buffer.bytes.capacity() < 2 * most_owed, "{}", buffer.bytes.capacity());
            sink.room = piece.len();
            sink.taken.clear();
            assert!(!flush(&mut buffer, &mut sink));
            sent += piece.len();
        }
    }

    /// Appends, and says how many bytes were moved for it.
    fn moved(buffer: &mut SendQueue, more: &[u8]) -> usize {
        let (at, len) = (buffer.unsent().as_ptr(), buffer.len());
        buffer.append(more);
        if buffer.unsent().as_ptr() == at { 0 } else { len }
    }

    #[test]
    fn what_fits_is_not_moved_and_what_grows_is_moved_a_few_times_at_most() {
        let mut buffer = SendQueue::default();
        buffer.append(&pattern(10));
        buffer.append(&pattern(5));
        let room = buffer.bytes.capacity() - buffer.len();
        assert_eq!(moved(&mut buffer, &pattern(room)), 0, "it just fits");
        let grown: usize = (0..1000).map(|_| moved(&mut buffer, &[7; 1000])).sum();
        assert!(grown < 3 * buffer.len(), "{grown} bytes moved for {}", buffer.len());
    }

    #[test]
    fn a_reader_always_far_behind_costs_no_move_for_each_write() {
        let mut buffer = SendQueue::default();
        let mut sink = Sink { taken: Vec::new(), chunk: usize::MAX, room: 0 };
        buffer.append(&pattern(100_000));
        let mut moves = 0;
        for _ in 0..1000 {
            sink.room = 100;
            flush(&mut buffer, &mut sink);
            moves += moved(&mut buffer, &[7; 100]);
        }
        assert!(moves < 4 * sink.taken.len(), "{moves} bytes moved for {}", sink.taken.len());
    }

    #[test]
    fn where_half_is_sent_the_rest_makes_room_without_new_storage() {
        let mut buffer = SendQueue::default();
        buffer.append(&pattern(100));
        let storage = buffer.bytes.as_ptr();
        let mut sink = Sink { taken: Vec::new(), chunk: 60, room: 60 };
        flush(&mut buffer, &mut sink);
        buffer.append(&[7; 50]);
        assert_eq!((buffer.bytes.as_ptr(), buffer.len()), (storage, 90));
    }

    #[test]
    fn what_a_short_write_left_goes_before_the_queue() {
        let mut queue = SendQueue::default();
        queue.append(b"0123456789");
        queue.consume(4);
        queue.prepend(b"abc");
        assert_eq!(queue.unsent(), b"abc456789");
        let mut empty = SendQueue::default();
        empty.prepend(b"abc");
        assert_eq!((empty.unsent(), empty.len()), (&b"abc"[..], 3));
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
            assert_eq!((queue.has_storage(), out.queue.bytes.capacity()), (false, kept));
        }
        let queue = call(&mut out, SendQueue::default(), 80);
        assert_eq!(queue.bytes.capacity(), 100, "the spare storage serves the next queue");
    }

    #[test]
    fn a_queue_that_has_shrunk_keeps_at_most_twice_its_length() {
        let mut out = Outbox::with_high_water(Instant::now(), 100);
        let mut queue = call(&mut out, SendQueue::default(), 50_000);
        queue.consume(40_000);
        out.recycle(&mut queue);
        assert!(queue.bytes.capacity() <= 20_000, "{}", queue.bytes.capacity());
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
        let mut out = Outbox::over(Instant::now(), 1000, &buffer);
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
        let mut out = Outbox::over(Instant::now(), 1000, &buffer);
        out.send(&buffer[0..10]);
        out.send(&buffer[50..60]);
        assert_eq!((out.borrowed(), out.queued()), (0..10, &buffer[50..60]));
    }

    #[test]
    fn all_of_the_read_buffer_can_be_borrowed() {
        let buffer = pattern(100);
        let mut out = Outbox::over(Instant::now(), 1000, &buffer);
        out.send(&buffer);
        assert_eq!((out.borrowed(), out.queued()), (0..100, &b""[..]));
    }

    #[test]
    fn nothing_is_borrowed_behind_an_earlier_queue_or_from_an_earlier_call() {
        let buffer = pattern(100);
        let mut out = Outbox::over(Instant::now(), 1000, &buffer);
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
    fn congestion_is_set_inside_send() {
        let mut out = Outbox::with_high_water(Instant::now(), 8);
        out.send(b"1234567");
        assert!(!out.is_congested());
        out.send(b"8");
        assert!(out.is_congested());
    }
}
