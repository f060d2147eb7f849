//! A connection's work: reads, calls of the protocol, and the one loop that writes.

use std::any::Any;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use super::{Connection, Stage, Stream};
use crate::limits::Workspace;
use crate::outbox::{Input, Outbox, Output};
use crate::protocol::{CloseReason, Protocol};

impl<S: Stream> Connection<S> {
    /// Calls the protocol for the first time; returns false while the kernel has not connected yet.
    pub(super) fn open(&mut self, cx: &mut Workspace) -> Result<bool, CloseReason> {
        let is_outgoing = self.stage == Stage::Connecting;
        if is_outgoing && !self.has_connected()? {
            return Ok(false);
        }
        self.stage = Stage::Opened;
        self.progress = cx.millis as u32;
        self.notify(cx, &mut |protocol, out| protocol.on_open(out))?;
        // An accepted socket is assumed readable, for protocols that answer. A protocol that has
        // closed waits for a FIN, which is rarely there yet; if it is, registration reports it.
        if !is_outgoing && self.state.closed {
            self.ready.clear_readable();
        }
        Ok(true)
    }

    fn has_connected(&mut self) -> Result<bool, CloseReason> {
        if !self.ready.is_writable() {
            return Ok(false);
        }
        let has_connected = self.stream.connected().map_err(CloseReason::ConnectFailed)?;
        match has_connected {
            true => self.ready.set(true, false),
            false => self.ready.clear_writable(),
        }
        Ok(has_connected)
    }

    /// Reads once, at most `room` bytes, and calls the protocol with them.
    pub(super) fn read(&mut self, room: usize, cx: &mut Workspace) -> Result<(), CloseReason> {
        let size = room.min(cx.read_budget);
        let count = match self.stream.read(&mut cx.scratch[..size]) {
            Ok(0) => return self.on_peer_eof(cx),
            Ok(count) => count.min(size),
            Err(error) => return self.on_read_error(error),
        };
        // Without that proof it stays readable: mio only promises another event after `WouldBlock`.
        // ANCHOR: short-read
        if count < size && self.ready.is_drained_by_short_read() {
            self.ready.clear_readable();
        }
        cx.read_budget -= count;
        self.bytes_in += count as u64;
        if self.state.closed {
            return self.discard(count, cx);
        }
        if self.send_queue.is_empty() {
            // With bytes queued, only a write is progress: the write timeout runs.
            self.progress = cx.millis as u32;
        }
        self.call(cx, count, |protocol, data, out| protocol.on_data(data, out))
    }

    // ANCHOR: eof
    /// Zero bytes do not mean "nothing yet", which is `WouldBlock`: they are the peer's EOF.
    fn on_peer_eof(&mut self, cx: &mut Workspace) -> Result<(), CloseReason> {
        self.state.input = Input::Ended;
        if self.state.closed {
            return Ok(());
        }
        self.notify(cx, &mut |protocol, out| protocol.on_eof(out))
    }

    fn on_read_error(&mut self, error: io::Error) -> Result<(), CloseReason> {
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

    // ANCHOR: linger
    /// Drops bytes that arrive after the protocol has closed. They must be read, or closing would
    /// reset the connection and could destroy what the peer has not read yet (RFC 1122, 4.2.2.13).
    fn discard(&mut self, count: usize, cx: &Workspace) -> Result<(), CloseReason> {
        if self.is_lingering() {
            let extra = self.extra();
            extra.discarded += count;
            if extra.discarded > cx.limits.linger_bytes {
                return Err(CloseReason::Lingered);
            }
        }
        Ok(())
    }

    /// Calls the protocol with the first `count` bytes of the read buffer, applies its requests, and
    /// writes what it has sent.
    pub(super) fn call(
        &mut self,
        cx: &mut Workspace,
        count: usize,
        what: impl FnOnce(&mut dyn Protocol, &[u8], &mut Outbox),
    ) -> Result<(), CloseReason> {
        let timer = self.extra.as_ref().and_then(|extra| extra.timer);
        cx.outbox.begin_call(&mut self.send_queue, self.state, timer);
        let (data, out) = (&cx.scratch[..count], &mut cx.outbox);
        // Unwind-safe: only the protocol can be left inconsistent, and it is dropped.
        let outcome = catch_unwind(AssertUnwindSafe(|| what(&mut *self.protocol, data, out)));
        self.state = cx.outbox.end_call(&mut self.send_queue);
        if let Err(panic) = outcome {
            return Err(self.on_panic(panic, cx));
        }
        if cx.outbox.has_requests() {
            self.apply(cx)?;
        }
        let borrowed = cx.outbox.borrowed();
        self.flush(borrowed, cx)
    }

    /// Calls the protocol without data.
    #[cold]
    pub(super) fn notify(
        &mut self,
        cx: &mut Workspace,
        what: &mut dyn FnMut(&mut dyn Protocol, &mut Outbox),
    ) -> Result<(), CloseReason> {
        let was_empty = self.send_queue.is_empty();
        self.call(cx, 0, |protocol, _, out| what(protocol, out))?;
        if was_empty && !self.send_queue.is_empty() {
            // The queue was empty: the write timeout starts now.
            self.progress = cx.millis as u32;
        }
        Ok(())
    }

    /// Applies the requests of a call, other than to send.
    #[cold]
    fn apply(&mut self, cx: &Workspace) -> Result<(), CloseReason> {
        if cx.outbox.is_aborted() {
            return Err(CloseReason::Aborted);
        }
        self.set_timer(cx.outbox.wake());
        if self.is_lingering() {
            // Our half ended earlier; the linger timeout starts with the close.
            self.progress = cx.millis as u32;
        }
        Ok(())
    }

    /// Writes until nothing is queued, the kernel refuses, or the budget is spent. This is `sendall`
    /// for a socket that never blocks: what the kernel does not take stays queued. A part of the read
    /// buffer may be `borrowed`; it goes first.
    #[inline(always)]
    pub(super) fn flush(
        &mut self,
        mut borrowed: Range<usize>,
        cx: &mut Workspace,
    ) -> Result<(), CloseReason> {
        while !(borrowed.is_empty() && self.send_queue.is_empty()) {
            if !self.ready.is_writable() || cx.write_budget == 0 {
                break;
            }
            let unsent = match borrowed.is_empty() {
                true => self.send_queue.unsent(),
                false => &cx.scratch[borrowed.clone()],
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
            self.send_queue.prepend(&cx.scratch[borrowed]);
        }
        self.settle(cx)
    }

    /// Gives spare storage back, checks the cap, and ends our half once a flushing queue is empty.
    fn settle(&mut self, cx: &mut Workspace) -> Result<(), CloseReason> {
        cx.outbox.recycle(&mut self.send_queue);
        if !self.send_queue.is_empty() {
            let is_too_much = self.send_queue.len() > cx.limits.unsent;
            return if is_too_much { Err(CloseReason::Overflow) } else { Ok(()) };
        }
        if self.state.output == Output::Flushing { self.shut(cx) } else { Ok(()) }
    }

    // ANCHOR: fin
    /// Ends our half. The linger timeout, if the protocol has closed, starts here.
    fn shut(&mut self, cx: &Workspace) -> Result<(), CloseReason> {
        self.state.output = Output::Shut;
        self.progress = cx.millis as u32;
        match self.stream.shutdown_write() {
            // The peer has reset the connection; the next read reports it.
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(()),
            Err(error) => Err(CloseReason::Failed(error)),
            Ok(()) => Ok(()),
        }
    }

    fn on_panic(&mut self, panic: Box<dyn Any + Send>, cx: &mut Workspace) -> CloseReason {
        cx.panics.push(panic);
        // A second panic, in the protocol's drop, belongs to the first.
        let _ = drop_guarded(std::mem::replace(&mut self.protocol, Box::new(DeadProtocol)));
        CloseReason::Panicked
    }

    /// Runs a command from a [`Handle`](crate::Handle): a call that no event caused.
    pub(crate) fn command(
        &mut self,
        cx: &mut Workspace,
        what: &mut dyn FnMut(&mut dyn Protocol, &mut Outbox),
    ) -> Result<(), CloseReason> {
        if !self.is_talking() {
            return Ok(());
        }
        cx.renew_budget();
        self.notify(cx, what)
    }

    /// Closes the connection: calls the protocol and the stream with the reason, and drops both.
    pub fn end(self, reason: CloseReason, cx: &mut Workspace) {
        let Connection { mut stream, mut protocol, .. } = self;
        if reason.wants_reset() {
            stream.abort();
        }
        let closed = catch_unwind(AssertUnwindSafe(|| protocol.on_close(&reason)));
        if let Err(panic) = closed.and(drop_guarded(protocol)) {
            cx.panics.push(panic);
        }
        stream.ended(&reason);
    }
}

/// Drops a protocol; a panic in its drop counts as the protocol's.
fn drop_guarded(protocol: Box<dyn Protocol>) -> thread::Result<()> {
    catch_unwind(AssertUnwindSafe(|| drop(protocol)))
}

/// Takes the place of a protocol that has panicked.
struct DeadProtocol;

impl Protocol for DeadProtocol {
    fn on_data(&mut self, _data: &[u8], _out: &mut Outbox) {}
}
