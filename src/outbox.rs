//! What is owed to a peer: the bytes ([`SendBuffer`]) and a protocol's wishes ([`Outbox`]).

use std::io::{self, ErrorKind, Write};
use std::time::{Duration, Instant};

/// How an attempt to hand bytes to the kernel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flush {
    /// Every byte was taken.
    Drained,
    /// The kernel takes no more now; its next readiness event says when.
    Blocked,
    /// The budget is spent; the kernel might have taken more.
    Yielded,
}

/// Bytes owed to a peer, oldest first. Invariant: what lies before `head` was sent, and something
/// lies behind it, or nothing is there at all.
#[derive(Debug, Default)]
pub(crate) struct SendBuffer {
    bytes: Vec<u8>,
    head: usize,
}

impl SendBuffer {
    pub(crate) fn unsent(&self) -> &[u8] {
        &self.bytes[self.head..]
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.head
    }

    pub(crate) fn is_empty(&self) -> bool {
        // What is drained is forgotten.
        self.bytes.is_empty()
    }

    /// Queues all of `more`. Storage stays below twice the most that was ever owed at once. Cold,
    /// because what is sent on as it came is not copied.
    #[cold]
    pub(crate) fn append(&mut self, more: &[u8]) {
        if self.bytes.len() + more.len() > self.bytes.capacity() {
            self.make_room(more.len());
        }
        self.bytes.extend_from_slice(more);
    }

    /// Drops the sent prefix, and only here: shifting after every write would be quadratic, and
    /// never shifting would let a reader who is always a little behind make us keep everything.
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

    /// Writes until nothing is owed, the kernel refuses or the budget is spent. This is `sendall` for
    /// a socket that never blocks: what is left stays here. Once drained, the storage goes back.
    pub(crate) fn flush(&mut self, to: &mut impl Write, budget: &mut usize) -> io::Result<Flush> {
        while !self.is_empty() {
            if *budget == 0 {
                return Ok(Flush::Yielded);
            }
            let offer = &self.unsent()[..self.len().min(*budget)];
            // ANCHOR: cursor
            match to.write(offer) {
                // Not "nothing yet" (that is WouldBlock): a sink that takes nothing will never take more.
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                // A short write is the normal case, not an error: move the cursor and go on.
                Ok(taken) => {
                    let taken = taken.min(offer.len());
                    *budget -= taken;
                    self.head += taken;
                    if self.head == self.bytes.len() {
                        *self = SendBuffer::default();
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Flush::Blocked),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            // ANCHOR_END: cursor
        }
        Ok(Flush::Drained)
    }

    /// Forgets the bytes and keeps the storage, up to `keep` bytes of it.
    fn clear(&mut self, keep: usize) {
        self.bytes.clear();
        self.head = 0;
        self.bytes.shrink_to(keep);
    }
}

/// What the peer may still say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Input {
    /// The protocol hears what comes, as long as it does not owe too much.
    Open,
    /// The protocol hears what comes whatever it owes: it governs that by itself, or answers no more.
    Eager,
    /// The protocol wants to hear nothing for now.
    Paused,
    /// The protocol has closed: what comes is read and discarded.
    Discarded,
    /// The peer's EOF was read.
    Ended,
}

/// What we may still say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output {
    /// The protocol may send.
    Open,
    /// The protocol has said everything; the rest is being delivered.
    Flushing,
    /// Our half has ended: the FIN is sent.
    Shut,
}

/// A conversation's two halves: the connection's state, and what a protocol wishes it to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Halves {
    pub(crate) input: Input,
    pub(crate) output: Output,
    /// Too much is owed.
    pub(crate) congested: bool,
    /// Both are to end at once, with a reset.
    pub(crate) aborted: bool,
}

impl Halves {
    pub(crate) const OPEN: Halves =
        Halves { input: Input::Open, output: Output::Open, congested: false, aborted: false };
}

/// What a protocol wants said, closed and woken: plain data, without a socket, a lifetime or a clock.
///
/// The connection lends an outbox for the length of one call and grants the wishes after it, so a
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
    now: Instant,
    queue: SendBuffer,
    /// The address and length of the scratch buffer that holds the data of a call.
    lent: (usize, usize),
    /// The part of it that was sent before anything was queued, its start and length: it is written
    /// from there, uncopied.
    uncopied: (usize, usize),
    unsent: usize,
    high_water: usize,
    halves: Halves,
    wake: Option<Instant>,
    has_changed: bool,
}

impl Outbox {
    /// An outbox of its own, to test a protocol with; its high-water mark is that of
    /// [`Limits::default`](crate::Limits).
    pub fn new(now: Instant) -> Outbox {
        Outbox::with_high_water(now, 64 * 1024)
    }

    /// An outbox that is congested once `high_water` bytes are unsent.
    pub fn with_high_water(now: Instant, high_water: usize) -> Outbox {
        Outbox {
            now,
            queue: SendBuffer::default(),
            lent: (0, 0),
            uncopied: (0, 0),
            unsent: 0,
            high_water,
            halves: Halves::OPEN,
            wake: None,
            has_changed: false,
        }
    }

    /// An outbox that need not copy what is sent on from `scratch`, which must not move.
    pub(crate) fn lending(now: Instant, high_water: usize, scratch: &[u8]) -> Outbox {
        let lent = (scratch.as_ptr() as usize, scratch.len());
        Outbox { lent, ..Outbox::with_high_water(now, high_water) }
    }

    /// Queues all of `bytes`: it keeps the promise of `sendall`, without blocking. Whatever the
    /// kernel does not take at once is kept and sent when it does. Ignored after
    /// [`close`](Outbox::close), [`half_close`](Outbox::half_close) and [`abort`](Outbox::abort).
    ///
    /// A peer that does not keep up may be owed [`Limits::unsent`](crate::Limits::unsent) bytes, 1 MiB
    /// by default; more resets the connection ([`Overflow`](crate::CloseReason::Overflow)). So a long
    /// reply is sent in pieces, while `!out.is_congested()`, and goes on in
    /// [`on_drain`](crate::Protocol::on_drain).
    pub fn send(&mut self, bytes: &[u8]) {
        if self.halves.output != Output::Open {
            return;
        }
        if !self.note_uncopied(bytes) {
            self.queue.append(bytes);
        }
        self.unsent += bytes.len();
        // Noted here and not after the flush: a producer whose output fits the socket would
        // otherwise never be called again.
        if self.unsent >= self.high_water {
            self.wish().congested = true;
        }
    }

    /// Notes a slice of the scratch buffer instead of copying it, as long as order is kept.
    fn note_uncopied(&mut self, bytes: &[u8]) -> bool {
        // What begins before the scratch buffer is very far behind it. What begins in it ends there,
        // too: no slice spans two allocations.
        let start = (bytes.as_ptr() as usize).wrapping_sub(self.lent.0);
        if start >= self.lent.1 || !self.queue.is_empty() {
            return false;
        }
        match self.uncopied {
            (_, 0) => self.uncopied = (start, bytes.len()),
            (first, length) if first + length == start => self.uncopied.1 += bytes.len(),
            _ => return false,
        }
        true
    }

    /// How many bytes are owed to the peer: queued in this call or left from earlier ones.
    pub fn unsent(&self) -> usize {
        self.unsent
    }

    /// The bytes queued in an outbox of one's own (see [`Outbox::new`]), to be compared in a test.
    pub fn queued(&self) -> &[u8] {
        self.queue.unsent()
    }

    /// Whether too much is owed: a producer stops here and goes on in
    /// [`on_drain`](crate::Protocol::on_drain). While it lasts, the peer is not read, unless
    /// [`resume`](Outbox::resume) says otherwise.
    pub fn is_congested(&self) -> bool {
        self.halves.congested
    }

    /// Ends our half once everything queued is delivered; nothing but
    /// [`on_close`](crate::Protocol::on_close) follows.
    pub fn close(&mut self) {
        self.half_close();
        self.wish().input = Input::Discarded;
    }

    /// Ends our half once everything queued is delivered, and goes on listening: the peer reads EOF
    /// and may still answer, as after `shutdown(2)` with `SHUT_WR`. Nothing can be sent any more.
    pub fn half_close(&mut self) {
        let halves = self.wish();
        if halves.output == Output::Open {
            halves.output = Output::Flushing;
        }
        // What comes needs no answer any more, so there is none to make room for.
        if halves.input == Input::Open {
            halves.input = Input::Eager;
        }
    }

    /// Drops what is unsent and resets the connection at once.
    pub fn abort(&mut self) {
        self.close();
        self.wish().aborted = true;
    }

    /// Whether [`close`](Outbox::close) or [`abort`](Outbox::abort) was asked for.
    pub fn is_closed(&self) -> bool {
        self.halves.input == Input::Discarded
    }

    /// Stops reading the peer until [`resume`](Outbox::resume), for a protocol whose data has
    /// nowhere to go: the peer feels it as back-pressure. Its EOF is not read meanwhile, either.
    pub fn pause(&mut self) {
        self.hear(Input::Paused);
    }

    /// Reads the peer again, and from now on also while the outbox is congested: whoever pauses and
    /// resumes governs by itself what it hears. A relay must, because what it hears on one connection
    /// it says on another: two relays that wait for each other to read would wait for ever.
    pub fn resume(&mut self) {
        self.hear(Input::Eager);
    }

    /// Whether the peer is not read because of [`pause`](Outbox::pause).
    pub fn is_paused(&self) -> bool {
        self.halves.input == Input::Paused
    }

    /// The time of this turn of the loop, the same for every connection in it.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Asks for [`on_wake`](crate::Protocol::on_wake) once `deadline` has come. There is one such
    /// deadline per connection; a later call replaces an earlier one.
    pub fn wake_at(&mut self, deadline: Instant) {
        self.wish_wake(Some(deadline));
    }

    /// Asks for [`on_wake`](crate::Protocol::on_wake) after `delay`; one too long to be a point in
    /// time is never.
    pub fn wake_after(&mut self, delay: Duration) {
        self.wish_wake(self.now.checked_add(delay));
    }

    /// Takes the request for a wake-up back.
    pub fn cancel_wake(&mut self) {
        self.wish_wake(None);
    }

    /// The deadline asked for, if any.
    pub fn wake(&self) -> Option<Instant> {
        self.wake
    }

    fn hear(&mut self, how: Input) {
        if !self.is_closed() {
            self.wish().input = how;
        }
    }

    fn wish_wake(&mut self, wake: Option<Instant>) {
        self.wake = wake;
        self.has_changed = true;
    }

    /// Beside the bytes, a wish is rare: whoever grants them looks only if there is one.
    fn wish(&mut self) -> &mut Halves {
        self.has_changed = true;
        &mut self.halves
    }

    pub(crate) fn begin_turn(&mut self, now: Instant) {
        self.now = now;
    }

    /// Makes the outbox ready for one call on a connection that owes `ahead` bytes already.
    #[inline]
    pub(crate) fn lend(&mut self, ahead: usize, halves: Halves, wake: Option<Instant>) {
        self.unsent = ahead;
        self.halves = halves;
        self.wake = wake;
        self.has_changed = false;
        self.uncopied.1 = 0;
        if !self.queue.is_empty() {
            self.queue.clear(self.high_water);
        }
    }

    /// All that is unsent, if it was said in this call and lies in one piece.
    #[inline]
    pub(crate) fn whole<'a>(&'a self, scratch: &'a [u8]) -> Option<&'a [u8]> {
        if self.uncopied.1 == self.unsent {
            return Some(self.uncopied(scratch));
        }
        (self.queue.len() == self.unsent).then(|| self.queue.unsent())
    }

    /// The two parts that this call asked to be sent, in order: one still in scratch, one copied. If
    /// there is only one, it comes first.
    #[inline]
    pub(crate) fn parts<'a>(&'a self, scratch: &'a [u8]) -> [&'a [u8]; 2] {
        let uncopied = self.uncopied(scratch);
        if self.queue.is_empty() {
            [uncopied, &[]]
        } else if uncopied.is_empty() {
            [self.queue.unsent(), &[]]
        } else {
            [uncopied, self.queue.unsent()]
        }
    }

    fn uncopied<'a>(&self, scratch: &'a [u8]) -> &'a [u8] {
        let (start, length) = self.uncopied;
        &scratch[start..start + length]
    }

    /// What is wished for beside the bytes, if the call changed it.
    pub(crate) fn new_wishes(&self) -> Option<Halves> {
        self.has_changed.then_some(self.halves)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes `chunk` bytes a call and refuses after `room` bytes.
    struct Sink {
        taken: Vec<u8>,
        chunk: usize,
        room: usize,
    }

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let n = bytes.len().min(self.chunk).min(self.room);
            if n == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            self.room -= n;
            self.taken.extend_from_slice(&bytes[..n]);
            Ok(n)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 7 % 251) as u8).collect()
    }

    #[test]
    fn every_size_of_append_and_of_write_delivers_the_same_bytes() {
        let bytes = pattern(97);
        for piece in 1..=bytes.len() {
            for chunk in 1..=bytes.len() {
                let mut buffer = SendBuffer::default();
                let mut sink = Sink { taken: Vec::new(), chunk, room: 0 };
                for part in bytes.chunks(piece) {
                    buffer.append(part);
                    sink.room = piece / 2 + 1;
                    buffer.flush(&mut sink, &mut { usize::MAX }).unwrap();
                }
                sink.room = usize::MAX;
                assert_eq!(buffer.flush(&mut sink, &mut { usize::MAX }).unwrap(), Flush::Drained);
                assert_eq!(sink.taken, bytes, "append {piece}, write {chunk}");
            }
        }
    }

    #[test]
    fn a_reader_always_a_little_behind_never_makes_us_keep_twice_what_is_owed() {
        let mut buffer = SendBuffer::default();
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
            assert_eq!(buffer.flush(&mut sink, &mut { usize::MAX }).unwrap(), Flush::Blocked);
            sent += piece.len();
        }
    }

    #[test]
    fn storage_is_given_back_once_everything_is_sent() {
        let mut buffer = SendBuffer::default();
        buffer.append(&pattern(50_000));
        let mut sink = Sink { taken: Vec::new(), chunk: 1000, room: usize::MAX };
        assert_eq!(buffer.flush(&mut sink, &mut { usize::MAX }).unwrap(), Flush::Drained);
        assert_eq!(buffer.bytes.capacity(), 0);
    }

    /// Appends, and says how many bytes were moved for it.
    fn moved(buffer: &mut SendBuffer, more: &[u8]) -> usize {
        let (at, len) = (buffer.unsent().as_ptr(), buffer.len());
        buffer.append(more);
        if buffer.unsent().as_ptr() == at { 0 } else { len }
    }

    #[test]
    fn what_fits_is_not_moved_and_what_grows_is_moved_a_few_times_at_most() {
        let mut buffer = SendBuffer::default();
        buffer.append(&pattern(10));
        buffer.append(&pattern(5));
        let room = buffer.bytes.capacity() - buffer.len();
        assert_eq!(moved(&mut buffer, &pattern(room)), 0, "it just fits");
        let grown: usize = (0..1000).map(|_| moved(&mut buffer, &[7; 1000])).sum();
        assert!(grown < 3 * buffer.len(), "{grown} bytes moved for {}", buffer.len());
    }

    #[test]
    fn a_reader_always_far_behind_costs_no_move_for_each_write() {
        let mut buffer = SendBuffer::default();
        let mut sink = Sink { taken: Vec::new(), chunk: usize::MAX, room: 0 };
        buffer.append(&pattern(100_000));
        let mut moves = 0;
        for _ in 0..1000 {
            sink.room = 100;
            buffer.flush(&mut sink, &mut { usize::MAX }).unwrap();
            moves += moved(&mut buffer, &[7; 100]);
        }
        assert!(moves < 4 * sink.taken.len(), "{moves} bytes moved for {}", sink.taken.len());
    }

    #[test]
    fn where_half_is_sent_the_rest_makes_room_without_new_storage() {
        let mut buffer = SendBuffer::default();
        buffer.append(&pattern(100));
        let storage = buffer.bytes.as_ptr();
        let mut sink = Sink { taken: Vec::new(), chunk: 60, room: 60 };
        buffer.flush(&mut sink, &mut { usize::MAX }).unwrap();
        buffer.append(&[7; 50]);
        assert_eq!((buffer.bytes.as_ptr(), buffer.len()), (storage, 90));
    }

    #[test]
    fn an_outbox_keeps_no_more_storage_than_its_high_water_mark() {
        let mut out = Outbox::with_high_water(Instant::now(), 100);
        for (size, kept) in [(60, 60), (1000, 100)] {
            out.send(&pattern(size));
            out.lend(0, Halves::OPEN, None);
            assert_eq!(out.queue.bytes.capacity(), kept);
        }
    }

    #[test]
    fn a_spent_budget_yields_and_a_zero_write_is_an_error() {
        let mut buffer = SendBuffer::default();
        buffer.append(&pattern(10));
        let mut sink = Sink { taken: Vec::new(), chunk: 4, room: usize::MAX };
        let mut budget = 7;
        assert_eq!(buffer.flush(&mut sink, &mut budget).unwrap(), Flush::Yielded);
        assert_eq!((buffer.len(), budget), (3, 0));
        let error = buffer.flush(&mut &mut [][..], &mut { usize::MAX }).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WriteZero);
    }

    #[test]
    fn slices_of_the_lent_scratch_are_noted_in_order_and_others_copied() {
        let scratch = pattern(100);
        let mut out = Outbox::lending(Instant::now(), 1000, &scratch);
        out.send(&scratch[10..20]);
        out.send(&scratch[20..30]);
        assert_eq!(out.parts(&scratch), [&scratch[10..30], &[]]);
        out.send(b"between");
        out.send(&scratch[30..40]);
        let mut copied = b"between".to_vec();
        copied.extend_from_slice(&scratch[30..40]);
        assert_eq!(out.parts(&scratch), [&scratch[10..30], &copied[..]]);
        assert_eq!(out.unsent(), 37);
    }

    #[test]
    fn a_gap_between_two_noted_slices_is_copied_not_sent() {
        let scratch = pattern(100);
        let mut out = Outbox::lending(Instant::now(), 1000, &scratch);
        out.send(&scratch[0..10]);
        out.send(&scratch[50..60]);
        assert_eq!(out.parts(&scratch), [&scratch[0..10], &scratch[50..60]]);
    }

    #[test]
    fn all_of_the_scratch_is_noted_too() {
        let scratch = pattern(100);
        let mut out = Outbox::lending(Instant::now(), 1000, &scratch);
        out.send(&scratch);
        assert_eq!(out.parts(&scratch), [&scratch[..], &[]]);
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
        assert!(out.new_wishes().unwrap().aborted);
    }

    #[test]
    fn whoever_has_closed_hears_nothing_more_whatever_it_asks_for_then() {
        let mut out = Outbox::new(Instant::now());
        out.close();
        out.pause();
        out.resume();
        out.half_close();
        let wished = out.new_wishes().unwrap();
        assert_eq!((wished.input, wished.output), (Input::Discarded, Output::Flushing));
    }

    #[test]
    fn congestion_is_noted_inside_send() {
        let mut out = Outbox::with_high_water(Instant::now(), 8);
        out.send(b"1234567");
        assert!(!out.is_congested());
        out.send(b"8");
        assert!(out.is_congested());
    }
}
