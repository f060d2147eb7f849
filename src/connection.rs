//! One conversation: a stream, a protocol and what is owed between them.

use std::any::Any;
use std::io::{self, ErrorKind, Read, Write};
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::outbox::{self, Ending, Flush, Outbox, SendBuffer};
use crate::protocol::{CloseReason, Protocol};
use crate::timers::{Millis, millis};

/// What a connection needs of a byte stream that never blocks.
///
/// A TCP socket is one; so is a script in a test, or a wrapper that makes another stream slow.
pub trait Stream: Read + Write {
    /// Ends our half: the peer reads EOF after what was written (a FIN, in TCP).
    fn shutdown_write(&mut self) -> io::Result<()>;

    /// Makes the coming drop a reset instead of an orderly end.
    fn abort(&mut self);

    /// Writes bytes that the end of our half follows at once: a hint that lets TCP send the last
    /// bytes and the FIN as one segment.
    fn write_last(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write(bytes)
    }

    /// For an outgoing stream that was reported writable: whether it is connected by now.
    fn connected(&mut self) -> io::Result<bool> {
        Ok(true)
    }

    /// Until when the stream is blocked for a reason that no event will announce.
    fn retry_at(&self) -> Option<Instant> {
        None
    }

    /// The connection ended; comes once, before the stream is dropped.
    fn ended(&mut self, _reason: &CloseReason) {}
}

/// Bounds of a reactor and of each of its connections.
///
/// A length of 49 days or more counts as never. `None` is never, too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once; beyond it, clients wait in the backlog. 10,000.
    pub connections: usize,
    /// Connections at once of one address; beyond it, that peer is refused. Not bounded.
    pub per_peer: Option<usize>,
    /// No byte in either direction for this long: reset. 5 minutes. It is found out within a fifth
    /// of the time more, so that many idle connections share their wake-ups.
    pub idle: Option<Duration>,
    /// Bytes owed, and none taken for this long: reset. As `idle` unless set.
    pub stall: Option<Duration>,
    /// How long a peer may take to end its half after ours. 2 seconds.
    pub linger: Duration,
    /// How many bytes are read and discarded meanwhile. 1 MiB.
    pub linger_bytes: usize,
    /// A connection's whole life. Not bounded.
    pub lifetime: Option<Duration>,
    /// How long an outgoing connection may take to be made. 10 seconds.
    pub connecting: Duration,
    /// Bytes a connection may owe its peer; more is a reset ([`CloseReason::Overflow`]). 1 MiB.
    pub unsent: usize,
    /// Bytes owed at which a peer is no longer read. 64 KiB.
    pub high_water: usize,
    /// Bytes owed at which it is read again. 16 KiB.
    pub low_water: usize,
    /// Bytes read and written for one connection in one turn; the rest waits for the next. 256 KiB.
    pub budget: usize,
    /// Connections accepted from one listener in one turn. 256.
    pub accepts: usize,
    /// Readiness events taken from the kernel in one turn. 1024.
    pub events: usize,
    /// Size of the one buffer all connections read into. 32 KiB.
    pub scratch: usize,
    /// The kernel's send buffer per connection (`SO_SNDBUF`). The system's choice.
    pub send_buffer: Option<usize>,
    /// The kernel's receive buffer per connection (`SO_RCVBUF`). The system's choice.
    pub receive_buffer: Option<usize>,
    /// Connections that may wait to be accepted (`listen(2)`). 4096.
    pub backlog: u32,
    /// Commands that may wait in the mailbox of a [`Handle`](crate::Handle). 1024.
    pub mailbox: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 10_000,
            per_peer: None,
            idle: Some(Duration::from_secs(300)),
            stall: None,
            linger: Duration::from_secs(2),
            linger_bytes: 1 << 20,
            lifetime: None,
            connecting: Duration::from_secs(10),
            unsent: 1 << 20,
            high_water: 64 << 10,
            low_water: 16 << 10,
            budget: 256 << 10,
            accepts: 256,
            events: 1024,
            scratch: 32 << 10,
            send_buffer: None,
            receive_buffer: None,
            backlog: 4096,
            mailbox: 1024,
        }
    }
}

/// What the loop lends to one connection after the other: the buffer to read into, the outbox, the
/// limits and the time of the turn.
#[derive(Debug)]
pub struct Workspace {
    limits: Limits,
    idle: Option<u32>,
    stall: Option<u32>,
    linger: Option<u32>,
    lifetime: Option<u32>,
    connecting: Option<u32>,
    began: Instant,
    now: Instant,
    millis: Millis,
    scratch: Box<[u8]>,
    outbox: Outbox,
    panic: Option<Box<dyn Any + Send>>,
}

impl Workspace {
    /// A workspace whose time begins at `now`. Limits of zero that would stop everything count as
    /// one.
    pub fn new(limits: Limits, now: Instant) -> Workspace {
        let limits = Limits {
            high_water: limits.high_water.max(1),
            low_water: limits.low_water.min(limits.high_water.max(1) - 1),
            budget: limits.budget.max(1),
            accepts: limits.accepts.max(1),
            events: limits.events.max(1),
            scratch: limits.scratch.max(1),
            ..limits
        };
        Workspace {
            idle: limits.idle.and_then(millis),
            stall: limits.stall.or(limits.idle).and_then(millis),
            linger: millis(limits.linger),
            lifetime: limits.lifetime.and_then(millis),
            connecting: millis(limits.connecting),
            began: now,
            now,
            millis: 0,
            scratch: vec![0; limits.scratch].into(),
            outbox: Outbox::with_high_water(now, limits.high_water),
            panic: None,
            limits,
        }
    }

    /// Begins a turn at `now`; a monotonic clock that goes back is not believed.
    pub fn begin_turn(&mut self, now: Instant) {
        self.now = self.now.max(now);
        let since = self.now.duration_since(self.began);
        self.millis = since.as_secs() * 1000 + u64::from(since.subsec_millis());
    }

    /// The limits in force.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What a protocol panicked with, if one did since the last call.
    pub fn take_panic(&mut self) -> Option<Box<dyn Any + Send>> {
        self.panic.take()
    }

    pub(crate) fn now(&self) -> Millis {
        self.millis
    }

    /// The same deadline in milliseconds since the loop began, rounded up.
    pub(crate) fn deadline(&self, at: Instant) -> Millis {
        let since = at.saturating_duration_since(self.began);
        let rounded = since.saturating_add(Duration::from_nanos(999_999));
        rounded
            .as_secs()
            .saturating_mul(1000)
            .saturating_add(u64::from(rounded.subsec_millis()))
    }
}

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
pub enum Next {
    /// An event, or its deadline.
    Wait,
    /// To be run again in the next turn: its budget is spent, and no event will come for the rest.
    Again,
    /// To be dropped.
    Close(CloseReason),
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
        let mut budget = lent.limits.budget;
        match self.work(lent, &mut budget) {
            Ok(Next::Wait) => match self.overdue(lent) {
                Some(reason) => Next::Close(reason),
                None => Next::Wait,
            },
            Ok(next) => next,
            Err(reason) => Next::Close(reason),
        }
    }

    fn work(&mut self, lent: &mut Workspace, budget: &mut usize) -> Result<Next, CloseReason> {
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
            let blocked = self.owed.is_empty() || !self.writable;
            let relieved = self.is_relieved(lent);
            let readable = self.readable && self.wants_read(lent);
            if blocked && !relieved && !readable {
                if woken || !self.take_wake(lent) {
                    return Ok(Next::Wait);
                }
                woken = true;
                self.call(lent, 0, budget, |protocol, _, out| protocol.on_wake(out))?;
            } else if *budget == 0 {
                return Ok(Next::Again);
            } else if relieved {
                self.congested = false;
                self.call(lent, 0, budget, |protocol, _, out| protocol.on_drain(out))?;
            } else if readable {
                self.read(lent, budget)?;
            }
        }
    }

    /// Tells the protocol that the peer is there; false while it is not known.
    fn open(&mut self, lent: &mut Workspace, budget: &mut usize) -> Result<bool, CloseReason> {
        if self.stage == Stage::Connecting {
            if !self.writable {
                return Ok(false);
            }
            if !self
                .stream
                .connected()
                .map_err(CloseReason::ConnectFailed)?
            {
                self.writable = false;
                return Ok(false);
            }
            self.readable = true;
        }
        self.stage = Stage::Opened;
        self.progress = lent.millis as u32;
        self.call(lent, 0, budget, |protocol, _, out| protocol.on_open(out))?;
        Ok(true)
    }

    fn room(&self, lent: &Workspace) -> usize {
        if self.congested {
            0
        } else {
            lent.limits.high_water.saturating_sub(self.owed.len())
        }
    }

    fn is_relieved(&self, lent: &Workspace) -> bool {
        self.congested && self.output == Output::Open && self.owed.len() <= lent.limits.low_water
    }

    fn read(&mut self, lent: &mut Workspace, budget: &mut usize) -> Result<(), CloseReason> {
        let mut size = lent.scratch.len().min(*budget);
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
                *budget -= count;
                self.bytes_in += count as u64;
                if self.output != Output::Open {
                    return self.discard(count, lent);
                }
                self.progress = lent.millis as u32;
                self.call(lent, count, budget, |protocol, data, out| {
                    protocol.on_data(data, out)
                })
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
        budget: &mut usize,
        what: impl FnOnce(&mut dyn Protocol, &[u8], &mut Outbox),
    ) -> Result<(), CloseReason> {
        let Some(protocol) = &mut self.protocol else {
            return Ok(());
        };
        let wake = self.rare.as_ref().and_then(|rare| rare.wake);
        lent.outbox
            .lend(lent.now, self.owed.len(), self.congested, wake);
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
        budget: &mut usize,
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
        budget: &mut usize,
    ) -> Result<(), CloseReason> {
        if bytes.is_empty() || !self.writable {
            return Ok(());
        }
        let before = bytes.len();
        let mut writer = Writer {
            last: last && self.output == Output::Flushing,
            to: &mut self.stream,
        };
        let outcome = outbox::flush(bytes, &mut writer, budget);
        self.note_flush(before - bytes.len(), outcome, now)
    }

    /// Offers what is owed.
    fn flush(&mut self, now: Millis, budget: &mut usize) -> Result<(), CloseReason> {
        if self.owed.is_empty() || !self.writable {
            return Ok(());
        }
        let before = self.owed.len();
        let mut writer = Writer {
            last: self.output == Output::Flushing,
            to: &mut self.stream,
        };
        let outcome = self.owed.flush(&mut writer, budget);
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

    /// The bound that runs now, and what it is to have reached it.
    fn bound(&self, lent: &Workspace) -> (Option<u32>, CloseReason) {
        if self.stage == Stage::Connecting {
            (
                lent.connecting,
                CloseReason::ConnectFailed(ErrorKind::TimedOut.into()),
            )
        } else if self.output == Output::Shut {
            (lent.linger, CloseReason::Lingered)
        } else if self.owed.is_empty() {
            (lent.idle, CloseReason::Idle)
        } else {
            (lent.stall, CloseReason::Stalled)
        }
    }

    fn overdue(&self, lent: &Workspace) -> Option<CloseReason> {
        let (limit, reason) = self.bound(lent);
        if limit.is_some_and(|limit| self.elapsed(lent) >= limit) {
            return Some(reason);
        }
        self.expires(lent)
            .is_some_and(|at| at <= lent.millis)
            .then_some(CloseReason::Expired)
    }

    fn elapsed(&self, lent: &Workspace) -> u32 {
        (lent.millis as u32).wrapping_sub(self.progress)
    }

    fn expires(&self, lent: &Workspace) -> Option<Millis> {
        Some(self.rare.as_ref()?.born? + u64::from(lent.lifetime?))
    }

    /// When to look at this connection again if no event comes before.
    pub(crate) fn deadline(&self, lent: &Workspace) -> Option<Millis> {
        let bound = self.bound(lent).0.map(|limit| {
            let due = lent.millis + u64::from(limit.saturating_sub(self.elapsed(lent)));
            // Idle connections share their wake-ups; lingering ones hold a slot and do not wait.
            let grain = if self.output == Output::Shut {
                1
            } else {
                u64::from(limit / 5).max(1)
            };
            due.next_multiple_of(grain)
        });
        let wake = self.wake().map(|at| lent.deadline(at));
        let retry = self.stream.retry_at().map(|at| lent.deadline(at));
        [bound, self.expires(lent), wake, retry]
            .into_iter()
            .flatten()
            .min()
    }

    fn wake(&self) -> Option<Instant> {
        if self.output == Output::Open {
            self.rare.as_ref()?.wake
        } else {
            None
        }
    }

    /// True once for a wake-up that is due.
    fn take_wake(&mut self, lent: &Workspace) -> bool {
        let due = self.wake().is_some_and(|at| at <= lent.now);
        if due {
            self.rare().wake = None;
        }
        due
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
        let mut budget = lent.limits.budget;
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

    /// The state as data, for whoever watches the loop.
    pub fn view(&self, lent: &Workspace) -> View {
        View {
            input: self.input,
            output: self.output,
            readable: self.readable,
            writable: self.writable,
            wants_read: self.wants_read(lent),
            wants_write: self.wants_write(),
            congested: self.congested,
            unsent: self.owed.len(),
            deadline: self.deadline(lent).map(Duration::from_millis),
        }
    }
}

/// A connection's state after a run, as data.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct View {
    /// What the peer may still say.
    pub input: Input,
    /// What we may still say.
    pub output: Output,
    /// Readiness: a read may give something.
    pub readable: bool,
    /// Readiness: a write may be taken.
    pub writable: bool,
    /// Interest: the next bytes are wanted.
    pub wants_read: bool,
    /// Interest: bytes are owed.
    pub wants_write: bool,
    /// Too much is owed to read on.
    pub congested: bool,
    /// Bytes owed.
    pub unsent: usize,
    /// When the connection is looked at without an event, since the reactor began.
    pub deadline: Option<Duration>,
}

/// A stream to write to, with the hint whether these are the last bytes.
struct Writer<'a, S> {
    to: &'a mut S,
    last: bool,
}

impl<S: Stream> Write for Writer<'_, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.last {
            self.to.write_last(bytes)
        } else {
            self.to.write(bytes)
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
