//! A connection and its protocol: the calls, and the wishes they leave behind.

use std::any::Any;
use std::io::{self, ErrorKind, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use super::stream::Writer;
use super::{Connection, Stream};
use crate::limits::Workspace;
use crate::outbox::{Halves, Input, Outbox, Output};
use crate::protocol::{CloseReason, Protocol};

impl<S: Stream> Connection<S> {
    /// Calls the protocol, with the first `count` bytes of scratch, and grants its wishes.
    #[inline]
    pub(super) fn call(
        &mut self,
        lent: &mut Workspace,
        count: usize,
        what: impl FnOnce(&mut dyn Protocol, &[u8], &mut Outbox),
    ) -> Result<(), CloseReason> {
        let wake = self.rare.as_ref().and_then(|rare| rare.wake);
        lent.outbox.lend(self.owed.len(), self.halves, wake);
        let (data, out) = (&lent.scratch[..count], &mut lent.outbox);
        // Whatever a panic leaves behind belongs to this protocol and goes with it.
        let body = AssertUnwindSafe(|| what(&mut *self.protocol, data, out));
        if let Err(panic) = catch_unwind(body) {
            return Err(self.panicked(panic, lent));
        }
        if let Some(wishes) = lent.outbox.new_wishes() {
            self.grant(wishes, lent)?;
        }
        self.send_off(lent)
    }

    /// Calls the protocol without data, which is rare beside the calls with it.
    #[inline(never)]
    pub(super) fn tell(
        &mut self,
        lent: &mut Workspace,
        what: &mut dyn FnMut(&mut dyn Protocol, &mut Outbox),
    ) -> Result<(), CloseReason> {
        self.call(lent, 0, |protocol, _, out| what(protocol, out))
    }

    #[cold]
    fn panicked(&mut self, panic: Box<dyn Any + Send>, lent: &mut Workspace) -> CloseReason {
        lent.panics.push(panic);
        // A second panic, on the way out, is part of the first.
        let _ = drop_guarded(std::mem::replace(&mut self.protocol, Box::new(Nobody)));
        CloseReason::Panicked
    }

    /// Tries the write now; only what the kernel refuses waits for writability.
    #[inline(always)]
    fn send_off(&mut self, lent: &mut Workspace) -> Result<(), CloseReason> {
        let whole = match lent.outbox.whole(&lent.scratch) {
            Some([]) => return Ok(()),
            Some(whole) if whole.len() <= lent.budget && self.ready.is_writable() => whole,
            _ => return self.send_within_budget(lent),
        };
        let size = whole.len();
        match Writer::new(&mut self.stream, self.halves.output).write(whole) {
            // Nearly always the kernel takes all of it.
            Ok(taken) if taken == size => {
                lent.budget -= size;
                self.note_sent(size, lent.millis);
                Ok(())
            }
            Ok(taken) => self.keep_rest(taken.min(size), lent),
            Err(error) => self.keep_all(error, lent),
        }
    }

    /// Sends as much as the budget allows, if that is anything, and keeps the rest.
    #[cold]
    fn send_within_budget(&mut self, lent: &mut Workspace) -> Result<(), CloseReason> {
        let offer = match lent.outbox.whole(&lent.scratch) {
            Some(whole) if self.ready.is_writable() => &whole[..whole.len().min(lent.budget)],
            _ => &[],
        };
        if offer.is_empty() {
            return self.keep(0, lent);
        }
        let most = offer.len();
        match Writer::new(&mut self.stream, self.halves.output).write(offer) {
            Ok(taken) => self.keep_rest(taken.min(most), lent),
            Err(error) => self.keep_all(error, lent),
        }
    }

    /// A short write: keeps the rest.
    #[cold]
    fn keep_rest(&mut self, taken: usize, lent: &mut Workspace) -> Result<(), CloseReason> {
        if taken == 0 {
            return Err(CloseReason::Failed(ErrorKind::WriteZero.into()));
        }
        lent.budget -= taken;
        self.note_sent(taken, lent.millis);
        self.keep(taken, lent)
    }

    /// Nothing was written: keeps all, unless that is for good.
    #[cold]
    fn keep_all(&mut self, error: io::Error, lent: &mut Workspace) -> Result<(), CloseReason> {
        match error.kind() {
            ErrorKind::WouldBlock => self.ready.clear_writable(),
            ErrorKind::Interrupted => {}
            _ => return Err(CloseReason::Failed(error)),
        }
        self.keep(0, lent)
    }

    /// Keeps what was said in this call, but for the first `taken` bytes.
    #[cold]
    fn keep(&mut self, taken: usize, lent: &mut Workspace) -> Result<(), CloseReason> {
        let [first, second] = lent.outbox.parts(&lent.scratch);
        if first.len() == taken {
            return Ok(());
        }
        if self.owed.is_empty() {
            // Whoever owed nothing until now has not stalled yet, however long it was silent.
            self.progress = lent.millis as u32;
        }
        self.owed.append(&first[taken..]);
        self.owed.append(second);
        self.replan = true;
        if self.owed.len() > lent.limits.unsent { Err(CloseReason::Overflow) } else { Ok(()) }
    }

    #[cold]
    fn grant(&mut self, wished: Halves, lent: &Workspace) -> Result<(), CloseReason> {
        if wished.aborted {
            return Err(CloseReason::Aborted);
        }
        self.replan = true;
        let wake = lent.outbox.wake();
        if wake.is_some() || self.rare.is_some() {
            self.rare().wake = wake;
        }
        if (wished.input, wished.output) == (Input::Discarded, Output::Shut) {
            // Our half ended long ago, but the peer's time to end begins now.
            self.progress = lent.millis as u32;
        }
        let has_ended = self.halves.input == Input::Ended;
        self.halves = wished;
        if has_ended {
            self.halves.input = Input::Ended;
        }
        Ok(())
    }

    /// Lets somebody else than the protocol ask for something, as the protocol would.
    pub(crate) fn command(
        &mut self,
        lent: &mut Workspace,
        what: &mut dyn FnMut(&mut dyn Protocol, &mut Outbox),
    ) -> Result<(), CloseReason> {
        if !self.is_talking() {
            return Ok(());
        }
        lent.renew_budget();
        self.tell(lent, what)
    }

    /// Ends the connection: the protocol hears why, the stream too, and both are dropped.
    pub fn end(self, reason: CloseReason, lent: &mut Workspace) {
        let Connection { mut stream, mut protocol, .. } = self;
        if reason.wants_reset() {
            stream.abort();
        }
        let told = catch_unwind(AssertUnwindSafe(|| protocol.on_close(&reason)));
        if let Err(panic) = told.and(drop_guarded(protocol)) {
            lent.panics.push(panic);
        }
        stream.ended(&reason);
    }
}

/// A panic in a protocol's drop is that protocol's, too.
fn drop_guarded(protocol: Box<dyn Protocol>) -> thread::Result<()> {
    catch_unwind(AssertUnwindSafe(|| drop(protocol)))
}

/// In the place of a protocol that has panicked.
struct Nobody;

impl Protocol for Nobody {
    fn on_data(&mut self, _data: &[u8], _out: &mut Outbox) {}
}
