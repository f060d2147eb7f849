//! A connection and its stream: reading, writing, ending.

use std::io::{self, ErrorKind};

use super::stream::Writer;
use super::{Connection, Input, Next, Output, Stream};
use crate::limits::Workspace;
use crate::outbox::Flush;
use crate::protocol::CloseReason;
use crate::timers::Millis;

impl<S: Stream> Connection<S> {
    /// Reads once, at most `room` bytes, and tells the protocol.
    #[inline(always)]
    pub(super) fn read(
        &mut self,
        room: usize,
        budget: &mut usize,
        lent: &mut Workspace,
    ) -> Result<(), CloseReason> {
        let size = room.min(lent.scratch.len()).min(*budget);
        let count = match self.stream.read(&mut lent.scratch[..size]) {
            Ok(0) => return self.hear_end(lent),
            Ok(count) => count.min(size),
            Err(error) => return self.not_read(error),
        };
        // Otherwise still readable: mio promises another event only after WouldBlock.
        if count < size && self.ready.is_plain() {
            self.ready.clear_readable();
        }
        *budget -= count;
        self.bytes_in += count as u64;
        if self.halves.input == Input::Discarded {
            return self.discard(count, lent);
        }
        self.progress = lent.millis as u32;
        self.call(lent, count, |protocol, data, out| protocol.on_data(data, out))
    }

    /// Zero bytes is not "nothing yet" (that is WouldBlock): it is the peer's goodbye.
    #[cold]
    fn hear_end(&mut self, lent: &mut Workspace) -> Result<(), CloseReason> {
        if std::mem::replace(&mut self.halves.input, Input::Ended) == Input::Discarded {
            return Ok(());
        }
        self.tell(lent, &mut |protocol, out| protocol.on_eof(out))
    }

    /// Nothing was read: waits, unless that is for good.
    #[cold]
    fn not_read(&mut self, error: io::Error) -> Result<(), CloseReason> {
        match error.kind() {
            ErrorKind::WouldBlock => {
                self.ready.clear_readable();
                Ok(())
            }
            ErrorKind::Interrupted => Ok(()),
            _ => Err(CloseReason::Failed(error)),
        }
    }

    /// What comes after our end must be read, or closing would reset the connection and could
    /// destroy what the peer has not read yet (RFC 1122, 4.2.2.13).
    #[cold]
    fn discard(&mut self, count: usize, lent: &Workspace) -> Result<(), CloseReason> {
        if self.is_lingering() {
            let rare = self.rare();
            rare.discarded += count;
            if rare.discarded > lent.limits.linger_bytes {
                return Err(CloseReason::Lingered);
            }
        }
        Ok(())
    }

    /// Offers what is owed; when that was the last, says so to the peer. If that ends the run, says
    /// what is next.
    #[cold]
    pub(super) fn deliver(&mut self, lent: &mut Workspace) -> Result<Option<Next>, CloseReason> {
        if !self.owed.is_empty() && self.ready.is_writable() {
            self.flush(lent)?;
        }
        if self.owed.is_empty() && self.halves.output == Output::Flushing {
            self.end_output(lent.millis)?;
        }
        if self.halves.input == Input::Ended && self.halves.output == Output::Shut {
            return Ok(Some(Next::Close(CloseReason::Finished)));
        }
        let has_yielded = self.ready.is_writable() && !self.owed.is_empty();
        Ok(has_yielded.then_some(Next::Again))
    }

    #[cold]
    fn flush(&mut self, lent: &mut Workspace) -> Result<(), CloseReason> {
        self.replan = true;
        let before = self.owed.len();
        let mut writer = Writer::new(&mut self.stream, self.halves.output);
        let outcome = self.owed.flush(&mut writer, &mut lent.budget);
        let taken = before - self.owed.len();
        if taken > 0 {
            self.note_sent(taken, lent.millis);
        }
        match outcome {
            Ok(Flush::Blocked) => self.ready.clear_writable(),
            Ok(Flush::Drained | Flush::Yielded) => {}
            Err(error) => return Err(CloseReason::Failed(error)),
        }
        Ok(())
    }

    #[inline]
    pub(super) fn note_sent(&mut self, count: usize, now: Millis) {
        self.bytes_out += count as u64;
        self.progress = now as u32;
    }

    /// Everything is delivered: says so to the peer, and starts the clock of lingering.
    fn end_output(&mut self, now: Millis) -> Result<(), CloseReason> {
        self.halves.output = Output::Shut;
        self.replan = true;
        self.progress = now as u32;
        match self.stream.shutdown_write() {
            // The peer has reset the connection already; the next read says so.
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(()),
            Err(error) => Err(CloseReason::Failed(error)),
            Ok(()) => Ok(()),
        }
    }
}
