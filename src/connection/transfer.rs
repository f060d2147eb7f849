//! A connection and its stream: reading, writing, ending.

use std::io::{self, ErrorKind};

use super::stream::Writer;
use super::{Connection, Input, Output, Stream};
use crate::limits::{Limits, Workspace};
use crate::outbox::{self, Flush};
use crate::protocol::CloseReason;
use crate::timers::Millis;

/// How many bytes may still be moved in this run, either way.
#[derive(Debug)]
pub(super) struct Budget {
    pub(super) input: usize,
    pub(super) output: usize,
}

impl Budget {
    pub(super) fn of(limits: &Limits) -> Budget {
        Budget { input: limits.budget, output: limits.budget }
    }
}

impl<S: Stream> Connection<S> {
    /// How much the protocol may hear: its answer must fit below the high-water mark.
    pub(super) fn room(&self, lent: &Workspace) -> usize {
        if self.output != Output::Open {
            lent.limits.scratch
        } else if self.congested {
            0
        } else {
            lent.limits.high_water.saturating_sub(self.owed.len())
        }
    }

    pub(super) fn read(
        &mut self,
        lent: &mut Workspace,
        budget: &mut Budget,
    ) -> Result<(), CloseReason> {
        let mut size = lent.scratch.len().min(budget.input);
        if self.input == Input::Open {
            size = size.min(self.room(lent));
        }
        match self.stream.read(&mut lent.scratch[..size]) {
            // Zero bytes is not "nothing yet" (that is WouldBlock): it is the peer's goodbye.
            Ok(0) => {
                if std::mem::replace(&mut self.input, Input::Ended) == Input::Open {
                    self.call(lent, 0, budget, |protocol, _, out| protocol.on_eof(out))?;
                }
                Ok(())
            }
            // Still readable, also after a short read: data and FIN can share one edge, and mio
            // promises another event only after WouldBlock.
            Ok(count) => {
                let count = count.min(size);
                budget.input -= count;
                self.bytes_in += count as u64;
                if self.input == Input::Discarded {
                    return self.discard(count, lent);
                }
                self.progress = lent.millis as u32;
                self.call(lent, count, budget, |protocol, data, out| protocol.on_data(data, out))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.readable = false;
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(CloseReason::Failed(error)),
        }
    }

    /// What comes after our end must be read, or closing would reset the connection and could
    /// destroy what the peer has not read yet (RFC 1122, 4.2.2.13).
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

    /// Offers bytes that were never queued; `last` if nothing is queued behind them.
    pub(super) fn transmit(
        &mut self,
        bytes: &mut &[u8],
        last: bool,
        now: Millis,
        budget: &mut Budget,
    ) -> Result<(), CloseReason> {
        if bytes.is_empty() || !self.writable {
            return Ok(());
        }
        let before = bytes.len();
        let mut writer =
            Writer { last: last && self.output == Output::Flushing, to: &mut self.stream };
        let outcome = outbox::flush(bytes, &mut writer, &mut budget.output);
        self.note_flush(before - bytes.len(), outcome, now)
    }

    /// Offers what is owed.
    pub(super) fn flush(&mut self, now: Millis, budget: &mut Budget) -> Result<(), CloseReason> {
        if self.owed.is_empty() || !self.writable {
            return Ok(());
        }
        let before = self.owed.len();
        let mut writer = Writer { last: self.output == Output::Flushing, to: &mut self.stream };
        let outcome = self.owed.flush(&mut writer, &mut budget.output);
        self.note_flush(before - self.owed.len(), outcome, now)
    }

    fn note_flush(
        &mut self,
        taken: usize,
        outcome: io::Result<Flush>,
        now: Millis,
    ) -> Result<(), CloseReason> {
        if taken > 0 {
            self.bytes_out += taken as u64;
            self.progress = now as u32;
        }
        match outcome {
            Ok(Flush::Blocked) => self.writable = false,
            Ok(Flush::Drained | Flush::Yielded) => {}
            Err(error) => return Err(CloseReason::Failed(error)),
        }
        Ok(())
    }

    /// Everything is delivered: says so to the peer, and starts the clock of lingering.
    pub(super) fn end_output(&mut self, now: Millis) -> Result<(), CloseReason> {
        self.output = Output::Shut;
        self.progress = now as u32;
        match self.stream.shutdown_write() {
            // The peer has reset the connection already; the next read says so.
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(()),
            Err(error) => Err(CloseReason::Failed(error)),
            Ok(()) => Ok(()),
        }
    }
}
