//! A connection and its protocol: the calls, and the wishes they leave behind.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use super::{Connection, Input, Output, Stream};
use crate::limits::Workspace;
use crate::outbox::{Ending, Hearing, Outbox, Wishes};
use crate::protocol::{CloseReason, Protocol};
use crate::timers::Millis;

impl<S: Stream> Connection<S> {
    #[inline]
    /// Calls the protocol, with the first `count` bytes of scratch, and grants its wishes.
    pub(super) fn call(
        &mut self,
        lent: &mut Workspace,
        count: usize,
        what: impl FnOnce(&mut dyn Protocol, &[u8], &mut Outbox),
    ) -> Result<(), CloseReason> {
        lent.outbox.lend(self.owed.len(), self.wishes());
        let Some(protocol) = &mut self.protocol else { return Ok(()) };
        let (data, out) = (&lent.scratch[..count], &mut lent.outbox);
        // Whatever a panic leaves behind belongs to this protocol and goes with it.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| what(&mut **protocol, data, out))) {
            lent.panics.push(panic);
            // A second panic, on the way out, is part of the first.
            let _ = self.drop_protocol();
            return Err(CloseReason::Panicked);
        }
        if let Some(wishes) = lent.outbox.new_wishes() {
            self.note_wishes(wishes, lent.millis)?;
        }
        self.send_off(lent)
    }

    fn wishes(&self) -> Wishes {
        Wishes {
            congested: self.congested,
            hearing: match self.input {
                Input::Eager => Hearing::Eager,
                Input::Paused => Hearing::Paused,
                _ => Hearing::Moderate,
            },
            ending: (self.output != Output::Open).then_some(Ending::HalfClose),
            wake: self.rare.as_ref().and_then(|rare| rare.wake),
        }
    }

    #[inline]
    /// Tries the write now; only what the kernel refuses waits for writability.
    fn send_off(&mut self, lent: &mut Workspace) -> Result<(), CloseReason> {
        let [first, second] = lent.outbox.parts(&lent.scratch);
        // Nearly always there is one part, and it can go as it is; two are rare enough to be copied.
        let (mut first, second) = if first.is_empty() { (second, first) } else { (first, second) };
        if self.owed.is_empty() && second.is_empty() {
            self.transmit(&mut first, lent.millis, &mut lent.budget)?;
        }
        if first.len() + second.len() > 0 {
            // Whoever owed nothing until now has not stalled yet, however long it was silent.
            if self.owed.is_empty() {
                self.progress = lent.millis as u32;
            }
            self.owed.append(first);
            self.owed.append(second);
            self.replan = true;
            if self.owed.len() > lent.limits.unsent {
                return Err(CloseReason::Overflow);
            }
        }
        Ok(())
    }

    fn note_wishes(&mut self, wishes: Wishes, now: Millis) -> Result<(), CloseReason> {
        if wishes.ending == Some(Ending::Abort) {
            return Err(CloseReason::Aborted);
        }
        self.replan = true;
        self.congested = wishes.congested;
        if wishes.wake.is_some() || self.rare.is_some() {
            self.rare().wake = wishes.wake;
        }
        if wishes.ending == Some(Ending::Close) && self.output == Output::Shut {
            // Our half ended long ago, but the peer's time to end begins now.
            self.progress = now as u32;
        }
        if wishes.ending.is_some() && self.output == Output::Open {
            self.output = Output::Flushing;
        }
        if self.input != Input::Ended {
            self.input = match wishes.hearing {
                _ if wishes.ending == Some(Ending::Close) => Input::Discarded,
                Hearing::Moderate => Input::Open,
                Hearing::Paused => Input::Paused,
                Hearing::Eager => Input::Eager,
            };
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
