//! A connection and its protocol: the calls, and the wishes they leave behind.

use std::any::Any;
use std::io::{self, Write};
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
        let Some(protocol) = &mut self.protocol else { return Ok(()) };
        let (data, out) = (&lent.scratch[..count], &mut lent.outbox);
        // Whatever a panic leaves behind belongs to this protocol and goes with it.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| what(&mut **protocol, data, out))) {
            return Err(self.panicked(panic, lent));
        }
        if let Some(wishes) = lent.outbox.new_wishes() {
            self.grant(wishes, lent)?;
        }
        self.send_off(lent)
    }

    #[cold]
    fn panicked(&mut self, panic: Box<dyn Any + Send>, lent: &mut Workspace) -> CloseReason {
        lent.panics.push(panic);
        // A second panic, on the way out, is part of the first.
        let _ = self.drop_protocol();
        CloseReason::Panicked
    }

    /// Tries the write now; only what the kernel refuses waits for writability.
    #[inline(always)]
    fn send_off(&mut self, lent: &mut Workspace) -> Result<(), CloseReason> {
        let [only, _] = lent.outbox.parts(&lent.scratch);
        let size = only.len();
        if size == 0 {
            return Ok(());
        }
        // Nearly always this is all that is unsent, and the kernel takes all of it.
        if size < lent.outbox.unsent() || size > lent.budget.output || !self.ready.is_writable() {
            return self.keep(None, lent);
        }
        match Writer::new(&mut self.stream, self.halves.output).write(only) {
            Ok(taken) if taken == size => {
                lent.budget.output -= size;
                self.note_sent(size, lent.millis);
                Ok(())
            }
            tried => self.keep(Some(tried), lent),
        }
    }

    /// Sends what can be sent, and keeps the rest. `tried` is how a first write went.
    #[cold]
    fn keep(
        &mut self,
        tried: Option<io::Result<usize>>,
        lent: &mut Workspace,
    ) -> Result<(), CloseReason> {
        let [mut first, second] = lent.outbox.parts(&lent.scratch);
        if self.owed.is_empty() {
            // Two parts are rare enough to be copied.
            if second.is_empty() && self.ready.is_writable() {
                self.transmit(&mut first, tried, lent.millis, &mut lent.budget)?;
            }
            if first.is_empty() {
                return Ok(());
            }
            // Whoever owed nothing until now has not stalled yet, however long it was silent.
            self.progress = lent.millis as u32;
        }
        self.owed.append(first);
        self.owed.append(second);
        self.replan = true;
        if self.owed.len() > lent.limits.unsent { Err(CloseReason::Overflow) } else { Ok(()) }
    }

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
        what: impl FnOnce(&mut dyn Protocol, &mut Outbox),
    ) -> Result<(), CloseReason> {
        if !self.is_talking() {
            return Ok(());
        }
        lent.renew_budget();
        self.call(lent, 0, |protocol, _, out| what(protocol, out))
    }

    /// Ends the connection: the protocol hears why, the stream too, and both are dropped.
    pub fn end(mut self, reason: CloseReason, lent: &mut Workspace) {
        if reason.wants_reset() {
            self.stream.abort();
        }
        if let Some(protocol) = &mut self.protocol {
            let told = catch_unwind(AssertUnwindSafe(|| protocol.on_close(&reason)));
            let dropped = self.drop_protocol();
            if let Err(panic) = told.and(dropped) {
                lent.panics.push(panic);
            }
        }
        self.stream.ended(&reason);
    }

    /// A panic in a protocol's drop is that protocol's, too.
    fn drop_protocol(&mut self) -> thread::Result<()> {
        let protocol = self.protocol.take();
        catch_unwind(AssertUnwindSafe(|| drop(protocol)))
    }
}
