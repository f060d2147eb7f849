//! The send queue: bytes and a cursor, which is how partial writes are kept.

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

    /// Returns the size of the storage; an empty queue can have some, too.
    pub(crate) fn capacity(&self) -> usize {
        self.bytes.capacity()
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
    pub(crate) fn shrink(&mut self, capacity: usize) {
        if self.bytes.capacity() > capacity {
            self.bytes.drain(..self.head);
            self.head = 0;
            self.bytes.shrink_to(capacity);
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
}
