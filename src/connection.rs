//! One conversation: a stream, a protocol and what is owed between them.

mod calls;
mod deadlines;
mod readiness;
mod stream;
mod transfer;
mod view;

use std::net::IpAddr;
use std::time::Instant;

use self::readiness::Readiness;
pub use self::stream::Stream;
pub use self::view::View;
use crate::limits::Workspace;
use crate::outbox::{Halves, Input, Output, SendBuffer};
use crate::protocol::{CloseReason, Protocol};
use crate::timers::Millis;

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
    /// An event; or the deadline that was named before, if any was.
    Wait,
    /// An event; or this deadline, in milliseconds since the loop began.
    WaitUntil(u64),
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
/// | Open, Eager, Paused | conversation | we have finished, the rest is being delivered | we have finished, the peer may still talk |
/// | Discarded | | finishing: deliver the rest, discard what comes | lingering: FIN sent, discard until EOF or the linger bound |
/// | Ended     | the peer has finished, we may still talk | deliver the rest | closed |
///
/// *Readiness* is what the kernel told us: set by events, cleared by `WouldBlock`. *Interest* is what
/// our state wants: computed, never stored. Work is their intersection.
pub struct Connection<S> {
    stream: S,
    /// The low bits of the time of the last progress; once lingering, of the FIN.
    progress: u32,
    stage: Stage,
    halves: Halves,
    ready: Readiness,
    /// Whether its deadline may have moved forward, or has come: to be judged and planned anew.
    /// Mere activity only puts it off, which is found out when it comes.
    replan: bool,
    /// Whether the connection is on the run queue: the loop's mark, kept here to save a table.
    pub(crate) queued: bool,
    protocol: Box<dyn Protocol>,
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
            .field("input", &self.halves.input)
            .field("output", &self.halves.output)
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

    /// Whether the protocol has something left to say or to hear: it may be called.
    pub(crate) fn is_talking(&self) -> bool {
        self.stage == Stage::Opened
            && match self.halves.input {
                Input::Open | Input::Eager | Input::Paused => true,
                Input::Discarded => false,
                Input::Ended => self.halves.output == Output::Open,
            }
    }

    /// Whether something may be written yet, now or later.
    pub(crate) fn may_write(&self) -> bool {
        self.halves.output != Output::Shut
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
            halves: Halves::OPEN,
            ready: Readiness::BOTH,
            replan: true,
            queued: false,
            protocol,
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
        connection.ready = Readiness::NONE;
        connection
    }

    /// Notes what the kernel said. It is a hint: the next call tells. Whether it is plain says
    /// [`Event::is_plain`](crate::Event::is_plain).
    pub fn note(&mut self, readable: bool, writable: bool, is_plain: bool) {
        self.ready.note(readable, writable, is_plain);
    }

    /// Notes that its deadline has come, which is a hint like any event: with a full batch or after
    /// SIGCONT, bytes can be waiting of which no event has told yet.
    pub fn note_deadline(&mut self) {
        self.ready.hint(true, true);
        self.replan = true;
    }

    /// What we want of the peer: the half is open and there is room for what it says.
    pub fn wants_read(&self, lent: &Workspace) -> bool {
        self.stage == Stage::Opened && self.room(lent) > 0
    }

    /// How much we want of what the peer says. As long as we may answer, the answer must fit below
    /// the high-water mark; who has said everything, or governs its hearing, takes what there is.
    fn room(&self, lent: &Workspace) -> usize {
        if self.halves.input != Input::Open {
            return self.room_without_answer(lent);
        }
        let room = lent.limits.high_water.saturating_sub(self.owed.len());
        if self.halves.congested { 0 } else { room }
    }

    #[cold]
    fn room_without_answer(&self, lent: &Workspace) -> usize {
        match self.halves.input {
            Input::Open | Input::Eager | Input::Discarded => lent.limits.scratch,
            Input::Paused | Input::Ended => 0,
        }
    }

    /// What we want of the kernel: to take what is owed, or to tell whether we are connected.
    pub fn wants_write(&self) -> bool {
        !self.owed.is_empty() || self.stage == Stage::Connecting
    }

    /// Does everything that can be done without blocking, within one budget; then judges whether a
    /// deadline has passed. In this order, so that whoever has bytes waiting is not called idle.
    pub fn run(&mut self, lent: &mut Workspace) -> Next {
        lent.renew_budget();
        match self.work(lent) {
            Ok(next) if !self.needs_a_plan() => next,
            Ok(next) => self.judge(next, lent),
            Err(reason) => Next::Close(reason),
        }
    }

    fn work(&mut self, lent: &mut Workspace) -> Result<Next, CloseReason> {
        if self.stage != Stage::Opened && !self.open(lent)? {
            return Ok(Next::Wait);
        }
        let next = self.exchange(lent)?;
        // A peer that never stops talking must not keep its protocol from the time it asked for.
        if matches!(next, Next::Again) && self.take_wake(lent) {
            self.tell(lent, &mut |protocol, out| protocol.on_wake(out))?;
        }
        Ok(next)
    }

    /// Reads, calls and writes until nothing is left to do, or the budget.
    ///
    /// Nearly always that is one read, one call and one write. What is seldom beside them is marked
    /// `#[cold]`, or the compiler takes each branch for as likely as the other, and calls what it
    /// could have put in line.
    fn exchange(&mut self, lent: &mut Workspace) -> Result<Next, CloseReason> {
        let mut woken = false;
        let mut budget = lent.limits.budget;
        loop {
            if !self.owed.is_empty() || self.halves.output != Output::Open {
                if let Some(next) = self.deliver(lent)? {
                    return Ok(next);
                }
            }
            let room = if self.ready.is_readable() { self.room(lent) } else { 0 };
            if room > 0 {
                if budget == 0 {
                    return Ok(Next::Again);
                }
                self.read(room, &mut budget, lent)?;
                // All that is there was read and answered in full: nothing else has become due.
                if !self.ready.is_readable() && !self.needs_a_plan() {
                    return Ok(Next::Wait);
                }
            } else if self.is_relieved(lent) {
                if lent.budget == 0 {
                    return Ok(Next::Again);
                }
                self.halves.congested = false;
                self.tell(lent, &mut |protocol, out| protocol.on_drain(out))?;
            } else if !woken && self.take_wake(lent) {
                woken = true;
                self.tell(lent, &mut |protocol, out| protocol.on_wake(out))?;
            } else {
                return Ok(Next::Wait);
            }
        }
    }

    /// Tells the protocol that the peer is there; false while it is not known.
    #[cold]
    fn open(&mut self, lent: &mut Workspace) -> Result<bool, CloseReason> {
        if self.stage == Stage::Connecting {
            if !self.ready.is_writable() {
                return Ok(false);
            }
            if !self.stream.connected().map_err(CloseReason::ConnectFailed)? {
                self.ready.clear_writable();
                return Ok(false);
            }
            self.ready.hint(true, false);
        }
        let is_guess = self.stage == Stage::New;
        self.stage = Stage::Opened;
        self.replan = true;
        self.progress = lent.millis as u32;
        self.tell(lent, &mut |protocol, out| protocol.on_open(out))?;
        // A newcomer is readable by guess, for those who answer. Whoever has said everything waits
        // for a FIN, which is hardly ever there so soon: registration will tell.
        if is_guess && self.halves.input == Input::Discarded {
            self.ready.clear_readable();
        }
        Ok(true)
    }

    fn is_relieved(&self, lent: &Workspace) -> bool {
        self.halves.congested
            && self.halves.output == Output::Open
            && self.owed.len() <= lent.limits.low_water
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
