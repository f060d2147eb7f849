//! One conversation: a stream, a protocol and what is owed between them.

mod deadlines;
mod stream;
mod view;

use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

pub use self::stream::Stream;
use self::stream::Writer;
pub use self::view::View;
use crate::limits::{Limits, Workspace};
use crate::outbox::{self, Ending, Flush, Outbox, SendBuffer};
use crate::protocol::{CloseReason, Protocol};
use crate::timers::Millis;

/// What the peer may still say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Input {
    /// Bytes may come.
    Open,
    /// The peer's EOF was read.
    Ended,
}

/// What we may still say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output {
    /// The protocol may send.
    Open,
    /// The protocol has closed; the rest is being delivered.
    Flushing,
    /// Our half has ended: the FIN is sent.
    Shut,
}

/// How far a connection has come before its conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Outgoing, and the kernel has not said yet how it went.
    Connecting,
    /// Connected; the protocol was not told yet.
    New,
    Opened,
    /// Closed, and to be dropped.
    Over,
}

/// What a connection wants after a run.
#[derive(Debug)]
#[must_use]
#[non_exhaustive]
pub enum Next {
    /// An event, or its deadline.
    Wait,
    /// To be run again in the next turn: its budget is spent, and no event will come for the rest.
    Again,
    /// To be dropped.
    Close(CloseReason),
}

/// How many bytes may still be moved in this run, either way.
#[derive(Debug)]
struct Budget {
    input: usize,
    output: usize,
}

impl Budget {
    fn of(limits: &Limits) -> Budget {
        Budget { input: limits.budget, output: limits.budget }
    }
}

/// What few connections need.
#[derive(Debug, Default)]
struct Rare {
    wake: Option<Instant>,
    born: Option<Millis>,
    discarded: usize,
    peer: Option<IpAddr>,
}

/// A conversation of two halves over one stream.
///
/// | input \ output | Open | Flushing | Shut |
/// |---|---|---|---|
/// | Open  | conversation | finishing; input is read and discarded | lingering: FIN sent, discard until EOF or the linger bound |
/// | Ended | the peer has finished, we may still talk | deliver the rest | closed |
///
/// *Readiness* is what the kernel told us: set by events, cleared by `WouldBlock` only. *Interest*
/// is what our state wants: computed, never stored. Work is their intersection.
pub struct Connection<S> {
    stream: S,
    /// The low bits of the time of the last progress; once lingering, of the FIN.
    progress: u32,
    stage: Stage,
    input: Input,
    output: Output,
    readable: bool,
    writable: bool,
    congested: bool,
    /// Whether the connection is on the run queue: the loop's mark, kept here to save a table.
    pub(crate) queued: bool,
    protocol: Option<Box<dyn Protocol>>,
    owed: SendBuffer,
    bytes_in: u64,
    bytes_out: u64,
    pub(crate) ordinal: u64,
    rare: Option<Box<Rare>>,
}

impl<S> std::fmt::Debug for Connection<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("ordinal", &self.ordinal)
            .field("input", &self.input)
            .field("output", &self.output)
            .field("unsent", &self.owed.len())
            .finish_non_exhaustive()
    }
}

impl<S> Connection<S> {
    pub(crate) fn is_new(&self) -> bool {
        self.stage == Stage::New
    }

    pub(crate) fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// Marks the connection as over; false if it was already.
    pub(crate) fn retire(&mut self) -> bool {
        std::mem::replace(&mut self.stage, Stage::Over) != Stage::Over
    }

    /// Whether something may be written yet, now or later.
    pub(crate) fn may_write(&self) -> bool {
        self.output != Output::Shut
    }
}

impl<S: Stream> Connection<S> {
    /// A connection over a connected stream. It starts readable and writable: trying costs one
    /// `WouldBlock` at worst, and lets a protocol that speaks first answer at once.
    pub fn new(stream: S, protocol: Box<dyn Protocol>, lent: &Workspace) -> Connection<S> {
        let mut connection = Connection {
            stream,
            progress: lent.millis as u32,
            stage: Stage::New,
            input: Input::Open,
            output: Output::Open,
            readable: true,
            writable: true,
            congested: false,
            queued: false,
            protocol: Some(protocol),
            owed: SendBuffer::default(),
            bytes_in: 0,
            bytes_out: 0,
            ordinal: 0,
            rare: None,
        };
        if lent.lifetime.is_some() {
            connection.rare().born = Some(lent.millis);
        }
        connection
    }

    /// A connection that is being made. It starts not writable: the event that makes it so says
    /// that the kernel has come to a result.
    pub fn connecting(stream: S, protocol: Box<dyn Protocol>, lent: &Workspace) -> Connection<S> {
        let mut connection = Connection::new(stream, protocol, lent);
        connection.stage = Stage::Connecting;
        connection.readable = false;
        connection.writable = false;
        connection
    }

    /// Notes what the kernel said. It is a hint: the next call tells.
    pub fn note(&mut self, readable: bool, writable: bool) {
        self.readable |= readable;
        self.writable |= writable;
    }

    /// What we want of the peer: the half is open and there is room for what it says.
    pub fn wants_read(&self, lent: &Workspace) -> bool {
        self.stage == Stage::Opened
            && self.input == Input::Open
            && (self.output != Output::Open || self.room(lent) > 0)
    }

    /// What we want of the kernel: to take what is owed, or to tell whether we are connected.
    pub fn wants_write(&self) -> bool {
        !self.owed.is_empty() || self.stage == Stage::Connecting
    }

    /// Does everything that can be done without blocking, within one budget; then judges whether a
    /// deadline has passed. In this order, so that whoever has bytes waiting is not called idle.
    pub fn run(&mut self, lent: &mut Workspace) -> Next {
        let mut budget = Budget::of(&lent.limits);
        match self.work(lent, &mut budget) {
            Ok(Next::Wait) => match self.overdue(lent) {
                Some(reason) => Next::Close(reason),
                None => Next::Wait,
            },
            Ok(next) => next,
            Err(reason) => Next::Close(reason),
        }
    }

    fn work(&mut self, lent: &mut Workspace, budget: &mut Budget) -> Result<Next, CloseReason> {
        if self.stage != Stage::Opened && !self.open(lent, budget)? {
            return Ok(Next::Wait);
        }
        let mut woken = false;
        loop {
            self.flush(lent.millis, budget)?;
            if self.output == Output::Flushing && self.owed.is_empty() {
                self.end_output(lent.millis)?;
            }
            if (self.input, self.output) == (Input::Ended, Output::Shut) {
                return Ok(Next::Close(CloseReason::Finished));
            }
            if self.writable && !self.owed.is_empty() {
                return Ok(Next::Again);
            } else if self.is_relieved(lent) {
                if budget.output == 0 {
                    return Ok(Next::Again);
                }
                self.congested = false;
                self.call(lent, 0, budget, |protocol, _, out| protocol.on_drain(out))?;
            } else if self.readable && self.wants_read(lent) {
                if budget.input == 0 {
                    return Ok(Next::Again);
                }
                self.read(lent, budget)?;
            } else if !woken && self.take_wake(lent) {
                woken = true;
                self.call(lent, 0, budget, |protocol, _, out| protocol.on_wake(out))?;
            } else {
                return Ok(Next::Wait);
            }
        }
    }

    /// Tells the protocol that the peer is there; false while it is not known.
    fn open(&mut self, lent: &mut Workspace, budget: &mut Budget) -> Result<bool, CloseReason> {
        if self.stage == Stage::Connecting {
            if !self.writable {
                return Ok(false);
            }
            if !self.stream.connected().map_err(CloseReason::ConnectFailed)? {
                self.writable = false;
                return Ok(false);
            }
            self.readable = true;
        }
        let is_guess = self.stage == Stage::New;
        self.stage = Stage::Opened;
        self.progress = lent.millis as u32;
        self.call(lent, 0, budget, |protocol, _, out| protocol.on_open(out))?;
        // A newcomer is readable by guess, for those who answer. Whoever has said everything waits
        // for a FIN, which is hardly ever there so soon: registration will tell.
        if is_guess && self.output != Output::Open {
            self.readable = false;
        }
        Ok(true)
    }

    fn room(&self, lent: &Workspace) -> usize {
        if self.congested { 0 } else { lent.limits.high_water.saturating_sub(self.owed.len()) }
    }

    fn is_relieved(&self, lent: &Workspace) -> bool {
        self.congested && self.output == Output::Open && self.owed.len() <= lent.limits.low_water
    }

    fn read(&mut self, lent: &mut Workspace, budget: &mut Budget) -> Result<(), CloseReason> {
        let mut size = lent.scratch.len().min(budget.input);
        if self.output == Output::Open {
            size = size.min(self.room(lent));
        }
        match self.stream.read(&mut lent.scratch[..size]) {
            // Zero bytes is not "nothing yet" (that is WouldBlock): it is the peer's goodbye.
            Ok(0) => {
                self.input = Input::Ended;
                if self.output == Output::Open {
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
                if self.output != Output::Open {
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
        if self.output == Output::Shut {
            let rare = self.rare();
            rare.discarded += count;
            if rare.discarded > lent.limits.linger_bytes {
                return Err(CloseReason::Lingered);
            }
        }
        Ok(())
    }

    /// Calls the protocol, with the first `count` bytes of scratch, and grants its wishes.
    fn call(
        &mut self,
        lent: &mut Workspace,
        count: usize,
        budget: &mut Budget,
        what: impl FnOnce(&mut dyn Protocol, &[u8], &mut Outbox),
    ) -> Result<(), CloseReason> {
        let Some(protocol) = &mut self.protocol else {
            return Ok(());
        };
        let wake = self.rare.as_ref().and_then(|rare| rare.wake);
        lent.outbox.lend(lent.now, self.owed.len(), self.congested, wake);
        let (data, out) = (&lent.scratch[..count], &mut lent.outbox);
        out.lend_scratch(data);
        // Whatever a panic leaves behind belongs to this protocol and goes with it.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| what(&mut **protocol, data, out))) {
            lent.panic.get_or_insert(panic);
            self.drop_protocol(lent);
            return Err(CloseReason::Panicked);
        }
        self.grant(lent, wake, budget)
    }

    fn grant(
        &mut self,
        lent: &mut Workspace,
        wake: Option<Instant>,
        budget: &mut Budget,
    ) -> Result<(), CloseReason> {
        match lent.outbox.ending() {
            Some(Ending::Abort) => return Err(CloseReason::Aborted),
            Some(Ending::Close) => self.output = Output::Flushing,
            None => {}
        }
        self.congested = lent.outbox.is_congested();
        if lent.outbox.wake() != wake {
            self.rare().wake = lent.outbox.wake();
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

    /// Offers bytes that were never queued; `last` if nothing is queued behind them.
    fn transmit(
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
    fn flush(&mut self, now: Millis, budget: &mut Budget) -> Result<(), CloseReason> {
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
    fn end_output(&mut self, now: Millis) -> Result<(), CloseReason> {
        self.output = Output::Shut;
        self.progress = now as u32;
        match self.stream.shutdown_write() {
            // The peer has reset the connection already; the next read says so.
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(()),
            Err(error) => Err(CloseReason::Failed(error)),
            Ok(()) => Ok(()),
        }
    }

    /// Lets somebody else than the protocol ask for something, as the protocol would.
    pub(crate) fn command(
        &mut self,
        lent: &mut Workspace,
        what: impl FnOnce(&mut Outbox),
    ) -> Result<(), CloseReason> {
        if self.output != Output::Open {
            return Ok(());
        }
        let mut budget = Budget::of(&lent.limits);
        self.call(lent, 0, &mut budget, |_, _, out| what(out))
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

    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Remembers whom the connection counts for.
    pub(crate) fn set_peer(&mut self, peer: IpAddr) {
        self.rare().peer = Some(peer);
    }

    pub(crate) fn peer(&self) -> Option<IpAddr> {
        self.rare.as_ref()?.peer
    }

    pub(crate) fn stream_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// The bytes read from the peer and those the kernel took for it.
    pub fn bytes(&self) -> (u64, u64) {
        (self.bytes_in, self.bytes_out)
    }
}
