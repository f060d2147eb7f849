//! A connection's work: reads, calls of the protocol, and the one loop that writes.

use std::io::{self, ErrorKind};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{Connection, Stage, Stream};
use crate::limits::Context;
use crate::protocol::{self, CloseReason, Outbox, Output, Protocol};

/// A call of a protocol: its arguments are the read buffer and the outbox.
pub(crate) type What<'a> = &'a mut dyn FnMut(&mut dyn Protocol, &[u8], &mut Outbox);

impl<S: Stream> Connection<S> {
    /// Returns false while the kernel has not connected yet. An accepted connection always is.
    pub(super) fn has_connected(&mut self) -> Result<bool, CloseReason> {
        if self.stage != Stage::Connecting {
            return Ok(true);
        }
        let has_connected = self.ready.is_writable()
            && self.stream.connected().map_err(CloseReason::ConnectFailed)?;
        if !has_connected {
            self.ready.clear_writable();
        }
        Ok(has_connected)
    }

    pub(super) fn on_read_error(&mut self, error: io::Error) -> Result<(), CloseReason> {
        match error.kind() {
            // ANCHOR: would-block
            ErrorKind::WouldBlock => {
                self.ready.clear_readable();
                Ok(())
            }
            ErrorKind::Interrupted => Ok(()),
            _ => Err(CloseReason::Failed(error)),
        }
    }

    /// Calls the protocol, lends it the read buffer with the `count` bytes that were just read, applies
    /// its requests, and writes what it has sent. After the protocol has closed, discards the bytes.
    pub(super) fn call(
        &mut self,
        cx: &mut Context,
        count: usize,
        what: impl FnOnce(&mut dyn Protocol, &[u8], &mut Outbox),
    ) -> Result<(), CloseReason> {
        cx.read_budget -= count;
        self.bytes_in += count as u64;
        if self.state.closed {
            return self.discard(count, cx);
        }
        let was_empty = self.send_queue.is_empty();
        let timer = self.extra.as_ref().and_then(|extra| extra.timer);
        cx.outbox.begin_call(&mut self.send_queue, self.state, timer);
        cx.outbox.lends = count > 0;
        let (read, out) = (&cx.read_buffer[..], &mut cx.outbox);
        // Unwind-safe: only the protocol can be left inconsistent, and it is dropped.
        let outcome = catch_unwind(AssertUnwindSafe(|| what(&mut *self.protocol, read, out)));
        self.state = cx.outbox.end_call(&mut self.send_queue);
        if let Err(panic) = outcome {
            // `Reactor::reap` resets the connection and keeps the first payload for `take_panic`;
            // `Background` raises it again.
            cx.panics.push(panic);
            return Err(CloseReason::Panicked);
        }
        // With bytes queued before, only a write is progress. Bytes queued now start the write timeout.
        // ANCHOR: write-clock
        if was_empty && (count > 0 || !self.send_queue.is_empty()) {
            self.progress = cx.millis as u32;
        }
        if count > 0 && cx.outbox.has_lent() {
            // The next read would overwrite the lent bytes, so this run reads no more.
            cx.read_budget = 0;
        }
        if cx.outbox.has_requests {
            self.apply(cx)?;
        }
        self.flush(cx.outbox.borrowed(), cx)
    }

    // ANCHOR: linger
    /// Drops bytes that arrive after the protocol has closed. They must be read, or closing would
    /// reset the connection and could destroy what the peer has not read yet (RFC 1122, 4.2.2.13).
    fn discard(&mut self, count: usize, cx: &Context) -> Result<(), CloseReason> {
        if self.is_lingering() {
            let extra = self.extra();
            extra.discarded += count;
            if extra.discarded > cx.bounds.linger_bytes {
                return Err(CloseReason::Lingered);
            }
        }
        Ok(())
    }

    /// Applies the requests of a call, other than to send.
    #[cold] // saves 13 instructions an echo
    fn apply(&mut self, cx: &mut Context) -> Result<(), CloseReason> {
        if cx.outbox.aborted {
            return Err(CloseReason::Aborted);
        }
        if cx.outbox.overflowed {
            return Err(CloseReason::Overflow);
        }
        self.set_timer(cx.outbox.timer());
        if let Some(timeouts) = cx.outbox.timeouts.take() {
            self.extra().timeouts.update(timeouts);
            self.planned = None;
        }
        if self.state.closed {
            // A FIN is rarely there yet.
            self.ready.drop_assumption();
        }
        if self.is_lingering() {
            // Our half ended earlier; the linger timeout starts with the close.
            self.progress = cx.millis as u32;
        }
        Ok(())
    }

    /// Writes until nothing is queued, the kernel refuses, or the budget is spent. This is `sendall`
    /// for a socket that never blocks: what the kernel does not take stays queued. A part of the read
    /// buffer may be `borrowed`; it goes first.
    #[inline(always)] // saves 36 instructions an echo
    pub(super) fn flush(
        &mut self,
        mut borrowed: Range<usize>,
        cx: &mut Context,
    ) -> Result<(), CloseReason> {
        while !(borrowed.is_empty() && self.send_queue.is_empty()) {
            if !self.ready.is_writable() || cx.write_budget == 0 {
                break;
            }
            let unsent = match borrowed.is_empty() {
                true => self.send_queue.unsent(),
                false => &cx.read_buffer[borrowed.clone()],
            };
            let offer = &unsent[..unsent.len().min(cx.write_budget)];
            let outcome = match self.state.output {
                Output::Flushing => self.stream.write_last(offer),
                _ => self.stream.write(offer),
            };
            // ANCHOR: cursor
            match outcome {
                // Zero is not "not yet" (that is `WouldBlock`): the stream will never take more.
                Ok(0) => return Err(CloseReason::Failed(ErrorKind::WriteZero.into())),
                // A short write is the normal case, not an error: move the cursor and go on.
                Ok(taken) => {
                    let taken = taken.min(offer.len());
                    cx.write_budget -= taken;
                    self.bytes_out += taken as u64;
                    self.progress = cx.millis as u32;
                    match borrowed.is_empty() {
                        true => self.send_queue.consume(taken),
                        false => borrowed.start += taken,
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.ready.clear_writable(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(CloseReason::Failed(error)),
            }
            // ANCHOR_END: cursor
        }
        // The rest of the borrowed bytes is copied here, once a call and never once a write.
        if !borrowed.is_empty() {
            self.send_queue.prepend(&cx.read_buffer[borrowed]);
        }
        self.settle(cx)
    }

    /// Gives spare storage back, checks the cap, and ends our half once a flushing queue is empty.
    fn settle(&mut self, cx: &mut Context) -> Result<(), CloseReason> {
        if self.send_queue.capacity() > 0 {
            cx.outbox.recycle(&mut self.send_queue);
            if self.send_queue.len() > cx.bounds.max_send_queue {
                return Err(CloseReason::Overflow);
            }
        }
        let has_ended = self.state.output == Output::Flushing && self.send_queue.is_empty();
        if has_ended { self.shut(cx) } else { Ok(()) }
    }

    // ANCHOR: fin
    /// Ends our half. The linger timeout, if the protocol has closed, starts here.
    fn shut(&mut self, cx: &Context) -> Result<(), CloseReason> {
        match self.stream.shutdown_write() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                // The half stays open until the next writable event.
                self.ready.clear_writable();
                return Ok(());
            }
            // `NotConnected`: the peer has reset the connection; the next read reports it.
            Err(error) if error.kind() != ErrorKind::NotConnected => {
                return Err(CloseReason::Failed(error));
            }
            _ => {}
        }
        self.state.output = Output::Shut;
        self.progress = cx.millis as u32;
        Ok(())
    }

    /// Calls the protocol for a reason that is not an event, and writes. Returns true if work is left
    /// that no event will report. Judges no deadline, because there may be bytes to read.
    pub(crate) fn command(
        &mut self,
        cx: &mut Context,
        what: What<'_>,
    ) -> Result<bool, CloseReason> {
        cx.renew_budget();
        self.call(cx, 0, what)?;
        Ok(self.has_work(cx))
    }

    /// Closes the connection: calls the protocol and the stream with the reason, and drops both. A
    /// protocol that has panicked is only dropped.
    pub fn end(self, reason: CloseReason, cx: &mut Context) {
        let Connection { mut stream, protocol, .. } = self;
        if reason.wants_reset() {
            stream.abort();
        }
        cx.panics.extend(protocol::end(protocol, &reason, &mut cx.outbox));
        stream.ended(&reason);
    }
}
