//! One connection: a stream, a protocol, and the bytes between them.

mod deadline;
mod io;
mod readiness;
mod snapshot;
mod stream;

use std::time::Instant;

use self::deadline::Bound;
pub(crate) use self::io::What;
use self::readiness::Readiness;
pub use self::snapshot::Snapshot;
pub use self::stream::Stream;
use crate::limits::{Context, Origin};
use crate::protocol::{Call, CloseReason, ConnId, Input, Output, Protocol, State, Timeouts};
use crate::send_queue::SendQueue;
use crate::timers::Millis;

/// The stage of a connection's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Outgoing; the kernel has not reported a result yet.
    Connecting,
    /// Connected; the protocol was not called yet.
    New,
    Opened,
    /// To be dropped at the end of the turn.
    Closed,
}

/// The result of a run: the loop must schedule this, besides events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub struct Next {
    /// Another run: the budget is spent or the data is lent, and no event will come for the work that
    /// is left.
    pub has_work: bool,
    /// A check at this time, in milliseconds since the loop began. `None` leaves an earlier deadline
    /// in force.
    pub deadline: Option<u64>,
}

/// The place of a connection in the run queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Queued {
    No,
    /// It runs in this turn, with the small budget.
    Fresh,
    /// Its budget was spent before its work was done: it runs once it is the oldest.
    Leftover,
}

/// Fields that few connections use.
#[derive(Debug, Default)]
struct Extra {
    timer: Option<Instant>,
    born: Option<Millis>,
    discarded: usize,
    timeouts: Timeouts,
}

/// A conversation of two halves over one stream.
///
/// | input \ output | Open | Flushing | Shut |
/// |---|---|---|---|
/// | Open | conversation | we have ended, the queue is being sent | we have ended, the peer may still send |
/// | Open, protocol has closed | | the queue is being sent, incoming bytes are discarded | lingering: the FIN is sent, incoming bytes are discarded until EOF or the linger timeout |
/// | Ended | the peer has ended, we may still send | the queue is being sent | finished |
///
/// *Readiness* is what the kernel reported: set by events, cleared by `WouldBlock`. *Interest* is what
/// the state allows: computed, never stored. Work is their intersection.
pub struct Connection<S> {
    pub(crate) stream: S,
    /// The low bits of the time from which the bound that applies is counted.
    progress: u32,
    stage: Stage,
    state: State,
    ready: Readiness,
    /// The bound that the armed deadline was computed for. `None` once the deadline has come, or a
    /// timer was set. While the bound stays the same, activity only moves the deadline back.
    planned: Option<Bound>,
    /// Where the reactor's run queue holds this connection, so that it is queued once. Kept here: a
    /// table in the run queue would cost a look-up per event.
    pub(crate) queued: Queued,
    pub(crate) origin: Origin,
    protocol: Box<dyn Protocol>,
    send_queue: SendQueue,
    bytes_in: u64,
    bytes_out: u64,
    pub(crate) ordinal: u64,
    extra: Option<Box<Extra>>,
}

impl<S> std::fmt::Debug for Connection<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("ordinal", &self.ordinal)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl<S: Stream> Connection<S> {
    /// Creates a connection over a connected stream.
    ///
    /// It starts readable and writable: a guess costs one `WouldBlock` at worst, and lets a protocol
    /// that speaks first answer at once.
    pub fn new(stream: S, protocol: Box<dyn Protocol>, cx: &Context) -> Connection<S> {
        let mut connection = Connection {
            stream,
            progress: cx.millis as u32,
            stage: Stage::New,
            state: State::default(),
            // ANCHOR: assumed-ready
            ready: Readiness::ASSUMED,
            planned: None,
            queued: Queued::No,
            origin: Origin::default(),
            protocol,
            send_queue: SendQueue::default(),
            bytes_in: 0,
            bytes_out: 0,
            ordinal: 0,
            extra: None,
        };
        if cx.bounds.lifetime.is_some() {
            connection.extra().born = Some(cx.millis);
        }
        connection
    }

    /// Creates an outgoing connection that is being made. It starts not writable: the event that
    /// makes it writable reports that the kernel has a result.
    pub fn connecting(stream: S, protocol: Box<dyn Protocol>, cx: &Context) -> Connection<S> {
        let mut connection = Connection::new(stream, protocol, cx);
        connection.stage = Stage::Connecting;
        connection.ready = Readiness::NONE;
        connection
    }

    /// Does everything that can be done without blocking, within one budget: writes, reads, and calls
    /// the protocol. Then checks the deadline.
    ///
    /// # Errors
    /// Returns the reason if the connection is over.
    pub fn run(&mut self, cx: &mut Context) -> Result<Next, CloseReason> {
        cx.renew_budget();
        if self.has_unsent() {
            self.flush(0..0, cx)?;
        }
        let mut timer_may_fire = true;
        loop {
            let room = if self.ready.is_readable() { self.room(cx) } else { 0 };
            let has_drained = self.has_drained(cx);
            let call = if self.stage != Stage::Opened {
                if !self.has_connected()? {
                    return self.check_deadline(false, cx);
                }
                (self.stage, self.progress) = (Stage::Opened, cx.millis as u32);
                Call::Open
            } else if has_drained && cx.write_budget > 0 {
                // Before the next read, or a peer that never pauses would keep the protocol from it.
                self.state.congested = false;
                Call::Drain
            } else if room > 0 && cx.read_budget > 0 && cx.write_budget > 0 {
                let size = room.min(cx.read_budget);
                match self.stream.read(&mut cx.read_buffer[..size]) {
                    // ANCHOR: eof
                    // Zero bytes are the peer's EOF. "Nothing yet" is `WouldBlock`.
                    Ok(0) => {
                        self.state.input = Input::Ended;
                        Call::Eof
                    }
                    Ok(count) => {
                        let count = count.min(size);
                        // Without that proof it stays readable: mio only promises another event
                        // after `WouldBlock`.
                        // ANCHOR: short-read
                        if count < size && self.ready.is_drained_by_short_read() {
                            self.ready.clear_readable();
                        }
                        self.call(cx, count, |it, read, out| it.on_data(&read[..count], out))?;
                        continue;
                    }
                    Err(error) => {
                        self.on_read_error(error)?;
                        continue;
                    }
                }
            } else if timer_may_fire && self.take_due_timer(cx) {
                // Even if work is left, or a peer that never pauses would block it. But only once, or
                // a timer in the past would loop for ever.
                timer_may_fire = false;
                Call::Timer
            } else if self.has_finished() {
                return Err(CloseReason::Finished);
            } else {
                // ANCHOR: io-first
                // After the IO: no connection with bytes waiting is idle.
                return self.check_deadline(room > 0 || has_drained || self.can_write(), cx);
            };
            self.call(cx, 0, |protocol, _, out| call.make(protocol, out))?;
        }
    }

    /// Returns whether work is left that no event will report.
    fn has_work(&self, cx: &Context) -> bool {
        let can_read = self.ready.is_readable() && self.room(cx) > 0;
        can_read || self.can_write() || self.has_drained(cx) || self.has_finished()
    }

    // ANCHOR: interest
    /// Returns how many bytes may be read. While the protocol may answer, the answer must fit below
    /// the high-water mark.
    ///
    /// A congested connection stays readable, because no read has returned `WouldBlock`. So it reads
    /// again without a new event once there is room.
    fn room(&self, cx: &Context) -> usize {
        let State { closed, paused, reads_while_congested, congested, .. } = self.state;
        if self.state.input == Input::Ended || paused {
            0
        } else if closed || reads_while_congested || self.state.output != Output::Open {
            cx.read_buffer.len()
        } else if congested {
            0
        } else {
            cx.bounds.high_water.saturating_sub(self.send_queue.len()).min(cx.read_buffer.len())
        }
    }

    // ANCHOR: drain
    /// Returns whether [`Protocol::on_drain`] is due: the queue has fallen to low water.
    fn has_drained(&self, cx: &Context) -> bool {
        self.state.congested
            && self.state.output == Output::Open
            && self.send_queue.len() <= cx.bounds.low_water
    }

    /// Interest in reading: the peer's half is open and there is room for its bytes.
    pub fn wants_read(&self, cx: &Context) -> bool {
        self.stage == Stage::Opened && self.room(cx) > 0
    }

    /// Records the readiness that an event reported. It is a hint: only the next call shows whether
    /// it holds.
    /// For `data_only` see [`Event::data_only`](crate::sys::Event::data_only).
    pub fn on_event(&mut self, readable: bool, writable: bool, data_only: bool) {
        self.ready.on_event(readable, writable, data_only);
    }

    /// Records that the deadline has come. This is a hint like any event: with a full batch, or
    /// after SIGCONT, bytes can be waiting that no event has reported yet.
    pub fn on_deadline(&mut self) {
        // ANCHOR: deadline-hint
        self.ready.set(true, true);
        self.planned = None;
    }
}

impl<S> Connection<S> {
    /// Interest in writing: bytes or our EOF are unsent, or the kernel has not reported a connection
    /// yet.
    pub fn wants_write(&self) -> bool {
        self.has_unsent() || self.stage == Stage::Connecting
    }

    /// Returns whether bytes are queued, or the stream has not let our half end yet.
    fn has_unsent(&self) -> bool {
        !self.send_queue.is_empty() || self.state.output == Output::Flushing
    }

    fn can_write(&self) -> bool {
        self.wants_write() && self.ready.is_writable()
    }

    /// Returns whether the protocol may be called: it has something left to send or to receive.
    pub(crate) fn is_talking(&self) -> bool {
        self.stage == Stage::Opened
            && !self.state.closed
            && (self.state.input == Input::Open || self.state.output == Output::Open)
    }

    /// Returns whether the connection lingers: the protocol has closed, the FIN is sent, and the peer's
    /// FIN is missing. It ends as [`Lingered`](CloseReason::Lingered) after
    /// [`Limits::linger_timeout`](crate::Limits::linger_timeout) (`Bound::Linger`), or once more than
    /// [`Limits::linger_bytes`](crate::Limits::linger_bytes) were read (`discard`).
    fn is_lingering(&self) -> bool {
        self.state.closed && self.state.input == Input::Open && self.state.output == Output::Shut
    }

    // ANCHOR: finished
    fn has_finished(&self) -> bool {
        self.state.input == Input::Ended && self.state.output == Output::Shut
    }

    /// Returns whether something may be written now or later.
    pub(crate) fn may_write(&self) -> bool {
        self.state.output != Output::Shut
    }

    pub(crate) fn is_new(&self) -> bool {
        self.stage == Stage::New
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.stage == Stage::Closed
    }

    /// Marks the connection as closed; returns false if it was already.
    pub(crate) fn mark_closed(&mut self) -> bool {
        std::mem::replace(&mut self.stage, Stage::Closed) != Stage::Closed
    }

    fn extra(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    pub(crate) fn id(&self, key: usize) -> ConnId {
        ConnId { key: key as u32, ordinal: self.ordinal }
    }

    /// Returns the number of bytes read, and of bytes that the kernel took.
    pub fn bytes(&self) -> (u64, u64) {
        (self.bytes_in, self.bytes_out)
    }
}
