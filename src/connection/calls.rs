//! A connection and its protocol: the calls, and the wishes they leave behind.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::transfer::Budget;
use super::{Connection, Input, Output, Stream};
use crate::limits::Workspace;
use crate::outbox::{Ending, Outbox, Wishes};
use crate::protocol::{CloseReason, Protocol};

impl<S: Stream> Connection<S> {
    /// Calls the protocol, with the first `count` bytes of scratch, and grants its wishes.
    pub(super) fn call(
        &mut self,
        lent: &mut Workspace,
        count: usize,
        budget: &mut Budget,
        what: impl FnOnce(&mut dyn Protocol, &[u8], &mut Outbox),
    ) -> Result<(), CloseReason> {
        let before = self.wishes();
        let Some(protocol) = &mut self.protocol else {
            return Ok(());
        };
        lent.outbox.lend(lent.now, self.owed.len(), before);
        let (data, out) = (&lent.scratch[..count], &mut lent.outbox);
        out.lend_scratch(data);
        // Whatever a panic leaves behind belongs to this protocol and goes with it.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| what(&mut **protocol, data, out))) {
            lent.panic.get_or_insert(panic);
            self.drop_protocol(lent);
            return Err(CloseReason::Panicked);
        }
        self.grant(lent, before, budget)
    }

    fn wishes(&self) -> Wishes {
        Wishes {
            congested: self.congested,
            paused: self.paused,
            ending: (self.output != Output::Open).then_some(Ending::HalfClose),
            wake: self.rare.as_ref().and_then(|rare| rare.wake),
        }
    }

    fn grant(
        &mut self,
        lent: &mut Workspace,
        before: Wishes,
        budget: &mut Budget,
    ) -> Result<(), CloseReason> {
        let wishes = lent.outbox.wishes();
        if wishes != before {
            self.note_wishes(wishes, before)?;
        }
        let [mut first, mut second] = lent.outbox.parts(&lent.scratch);
        // Try the write now; wait for writability only for what is left.
        if self.owed.is_empty() {
            self.transmit(&mut first, second.is_empty(), lent.millis, budget)?;
            if first.is_empty() {
                self.transmit(&mut second, true, lent.millis, budget)?;
            }
        }
        if first.len() + second.len() > 0 {
            self.owed.append(first);
            self.owed.append(second);
            if self.owed.len() > lent.limits.unsent {
                return Err(CloseReason::Overflow);
            }
        }
        Ok(())
    }

    fn note_wishes(&mut self, wishes: Wishes, before: Wishes) -> Result<(), CloseReason> {
        self.congested = wishes.congested;
        self.paused = wishes.paused;
        if wishes.wake != before.wake {
            self.rare().wake = wishes.wake;
        }
        if wishes.ending == Some(Ending::Abort) {
            return Err(CloseReason::Aborted);
        }
        if wishes.ending.is_some() && self.output == Output::Open {
            self.output = Output::Flushing;
        }
        if wishes.ending == Some(Ending::Close) && self.input == Input::Open {
            self.input = Input::Discarded;
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
        let mut budget = Budget::of(&lent.limits);
        self.call(lent, 0, &mut budget, |protocol, _, out| what(protocol, out))
    }

    /// Ends the connection: the protocol hears why, the stream too, and both are dropped.
    pub fn end(mut self, reason: CloseReason, lent: &mut Workspace) {
        if reason.wants_reset() {
            self.stream.abort();
        }
        if let Some(protocol) = &mut self.protocol {
            let told = catch_unwind(AssertUnwindSafe(|| protocol.on_close(&reason)));
            if let Err(panic) = told {
                lent.panic.get_or_insert(panic);
            }
            self.drop_protocol(lent);
        }
        self.stream.ended(&reason);
    }

    /// A panic in a protocol's drop is that protocol's, too.
    fn drop_protocol(&mut self, lent: &mut Workspace) {
        let protocol = self.protocol.take();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(protocol))) {
            lent.panic.get_or_insert(panic);
        }
    }
}
