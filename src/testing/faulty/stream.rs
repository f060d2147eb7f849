//! [`FaultyStream`]: a stream with the faults of its connection.

mod ending;

use std::cell::Cell;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::ending::{Ending, our_doing};
use super::Turn;
use super::acts::{Act, Progress};
use crate::connection::Stream;
use crate::protocol::{Address, CloseReason};
use crate::testing::fault::Effect;
use crate::testing::ledger::{Book, Page};
use crate::testing::plan::{Arrival, Entry, Plan};
use crate::testing::random::Random;

/// A stream that misbehaves as its faults say; without any, the stream inside.
#[derive(Debug)]
pub struct FaultyStream<S> {
    pub(super) inner: S,
    /// Outgoing connections have no faults, but for those of a proxy.
    pub(super) state: Option<Box<State>>,
}

/// What a stream knows of its connection and of the loop.
#[derive(Debug)]
pub(super) struct Circumstances {
    pub(super) plan: Plan,
    pub(super) service: Arc<str>,
    /// Of the connection within its service.
    pub(super) number: u64,
    pub(super) turn: Rc<Turn>,
    /// Its ledger, if one is kept.
    pub(super) page: Option<Page>,
    pub(super) book: Book,
    pub(super) peer: Option<SocketAddr>,
    pub(super) linger: Duration,
    pub(super) linger_bytes: usize,
}

#[derive(Debug)]
pub(super) struct State {
    acts: Vec<Act>,
    /// Faults with an id up to this one were considered.
    considered: u64,
    /// The change of the plan up to which they were.
    seen: u64,
    /// The first byte takes a `once`.
    wants_once: bool,
    progress: Progress,
    random: Random,
    /// The bit that `corrupt` flips.
    flip: u8,
    ending: Ending,
    /// Our half has ended: what is written is swallowed.
    is_shut: bool,
    /// A fault has refused the last read, or the last write.
    is_deaf: bool,
    is_silent: bool,
    /// What `is_held` has returned last.
    was_held: Cell<bool>,
    discarded: usize,
    key: Option<usize>,
    /// When the planned event of this connection comes.
    planned: Option<Instant>,
    /// The turn of the last write.
    wrote_in: u64,
    around: Circumstances,
}

impl State {
    pub(super) fn new(arrival: Arrival, around: Circumstances) -> State {
        let now = around.turn.now.get();
        let seed = around.plan.seed_of(&around.service, around.number);
        let progress = Progress { now, sent: 0, received: 0, writes: 0, eof: None };
        State {
            acts: arrival.entries.into_iter().map(|entry| Act::new(entry, progress)).collect(),
            considered: arrival.considered,
            seen: around.turn.changes.get(),
            wants_once: around.plan.ignores_probes(),
            progress,
            random: Random(seed),
            flip: 1 << (seed % 8),
            ending: Ending::No,
            is_shut: false,
            is_deaf: false,
            is_silent: false,
            was_held: Cell::new(false),
            discarded: 0,
            key: None,
            planned: None,
            wrote_in: 0,
            around,
        }
    }

    pub(super) fn registered(&mut self, key: usize) {
        self.key = Some(key);
        self.around.turn.open.borrow_mut().insert(key);
        self.plan_event();
    }

    /// Makes a call, then plans the next event.
    fn calling<R>(&mut self, call: impl FnOnce(&mut State) -> R) -> R {
        let outcome = call(self);
        self.plan_event();
        outcome
    }

    /// Ends and begins what is due.
    fn update(&mut self, inner: &mut impl Stream, writing: bool) {
        self.progress.now = self.around.turn.now.get();
        let changes = self.around.turn.changes.get();
        if std::mem::replace(&mut self.seen, changes) != changes {
            let Circumstances { plan, service, number, .. } = &self.around;
            let (entries, considered) = plan.join(service, *number, self.considered);
            self.considered = considered;
            entries.into_iter().for_each(|entry| self.get(entry));
        }
        self.heal();
        self.begin(inner, writing);
    }

    fn get(&mut self, entry: Arc<Entry>) {
        self.progress.now = self.around.turn.now.get();
        self.acts.push(Act::new(entry, self.progress));
    }

    fn take_once(&mut self) {
        if std::mem::take(&mut self.wants_once) {
            let once = self.around.plan.take_once(&self.around.service);
            once.into_iter().for_each(|entry| self.get(entry));
        }
    }

    /// Drops the faults that are over.
    fn heal(&mut self) {
        let now = self.progress.now;
        if !self.acts.iter().any(|act| act.is_over(now)) {
            return;
        }
        (self.is_deaf, self.is_silent) = (false, false);
        let acts = std::mem::take(&mut self.acts).into_iter();
        let (over, acts): (Vec<_>, _) = acts.partition(|act| act.is_over(now));
        self.acts = acts;
        for act in over {
            if let (true, Some(page)) = (act.has_begun(), &self.around.page) {
                self.around.book.fault_acts(page, act.fault(), false);
            }
        }
    }

    fn begin(&mut self, inner: &mut impl Stream, writing: bool) {
        for at in 0..self.acts.len() {
            if !self.acts[at].is_due(&self.progress, writing) {
                continue;
            }
            self.acts[at].begin(self.progress.now);
            let fault = self.acts[at].fault().clone();
            if let Some(page) = &self.around.page {
                self.around.book.fault_acts(page, &fault, true);
            }
            self.begin_to_end(inner, fault);
        }
    }

    /// Plans the next event that no kernel will report: the end of a pause, of a fault or of a wait.
    fn plan_event(&mut self) {
        let Some(key) = self.key else { return };
        let turn = &self.around.turn;
        if matches!(self.ending, Ending::Reset { .. }) {
            // No event reports an acknowledgement, so the connection runs in the next turn.
            turn.waiting.borrow_mut().insert(key);
        }
        let until = self.waits_until().and_then(|until| until.0);
        let changes = self.acts.iter().flat_map(Act::changes).chain(until);
        let next = changes.filter(|at| *at > self.progress.now).min();
        if next != self.planned {
            turn.plan_event(key, self.planned, next);
            self.planned = next;
        }
    }

    fn does(&self, effect: &Effect) -> bool {
        self.acts.iter().any(|act| act.is(effect))
    }

    /// Returns whether neither half may end. A stalled server sends no FIN either.
    fn holds_open(&self) -> bool {
        self.does(&Effect::HoldOpen) || self.does(&Effect::Stall)
    }

    fn is_held(&self) -> bool {
        // What is over holds nothing. The protocol may have paused, so that no call has found out.
        let now = self.around.turn.now.get();
        let is_refused = (self.is_deaf || self.is_silent)
            && self.acts.iter().any(|act| act.has_begun() && !act.is_over(now));
        let is_held = is_refused || self.waits_until().is_some_and(|until| !until.has_come(now));
        // Once more after the end: the timeouts begin anew there.
        self.was_held.replace(is_held) || is_held
    }

    /// Returns the act that corrupts the next byte, and the bit that it flips.
    fn corrupting(&mut self, incoming: bool) -> Option<(&mut Act, u8)> {
        let act = self.acts.iter_mut().find(|act| act.is_corrupting(incoming))?;
        Some((act, self.flip))
    }

    fn write(&mut self, inner: &mut impl Stream, bytes: &[u8]) -> io::Result<usize> {
        self.take_once();
        self.update(inner, true);
        self.end(inner)?;
        if matches!(self.ending, Ending::Reset { .. }) {
            return Err(ErrorKind::WouldBlock.into());
        }
        if self.is_shut {
            // Our half has ended, so these bytes are lost.
            return Ok(bytes.len());
        }
        let (now, sent) = (self.progress.now, self.progress.sent);
        let mut room = bytes.len() as u64;
        for act in &mut self.acts {
            room = room.min(act.room(now, &mut self.random)).min(act.sent_before(sent));
        }
        self.is_silent = room == 0;
        if self.is_silent {
            return refuse(inner);
        }
        let offer = &bytes[..room as usize];
        let taken = match self.corrupting(false) {
            None => inner.write(offer)?,
            Some((act, bit)) => {
                // If the kernel refuses the byte, the act stays, and flips the bit at the next try.
                let taken = inner.write(&[offer[0] ^ bit])?;
                act.is_done = true;
                taken
            }
        };
        self.progress.sent += taken as u64;
        self.progress.writes += 1;
        self.wrote_in = self.around.turn.number.get();
        for act in &mut self.acts {
            act.wrote(taken as u64, taken == bytes.len(), now);
        }
        self.begin(inner, false);
        Ok(taken)
    }

    fn read(&mut self, inner: &mut impl Stream, buffer: &mut [u8]) -> io::Result<usize> {
        self.update(inner, false);
        self.end(inner)?;
        self.is_deaf = self.does(&Effect::Deaf);
        match self.ending {
            Ending::Close { .. } => return self.discard(inner, buffer),
            Ending::Reset { .. } => return Err(ErrorKind::WouldBlock.into()),
            Ending::No if self.is_deaf => return refuse(inner),
            Ending::No => {}
        }
        let received = self.progress.received;
        let rooms = self.acts.iter().map(|act| act.received_before(received));
        let most = if self.wants_once { 1 } else { buffer.len() };
        let room = rooms.fold(most as u64, u64::min);
        let count = inner.read(&mut buffer[..room as usize])?;
        if count == 0 {
            self.progress.eof.get_or_insert(self.progress.now);
            self.begin(inner, false);
            self.end(inner)?;
            return match &self.ending {
                Ending::Close { fault, .. } => Err(our_doing(fault, "")),
                Ending::Reset { .. } => Err(ErrorKind::WouldBlock.into()),
                Ending::No if self.holds_open() => Err(ErrorKind::WouldBlock.into()),
                Ending::No => Ok(0),
            };
        }
        if self.wants_once {
            self.take_once();
            self.begin(inner, false);
        }
        if let Some((act, bit)) = self.corrupting(true) {
            buffer[0] ^= bit;
            act.is_done = true;
        }
        self.progress.received += count as u64;
        self.begin(inner, false);
        Ok(count)
    }

    /// After the end of our half by `close`: reads and discards.
    fn discard(&mut self, inner: &mut impl Stream, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = inner.read(buffer)?;
            self.discarded += count;
            let is_over = count == 0 || self.discarded > self.around.linger_bytes;
            if let (true, Ending::Close { fault, .. }) = (is_over, &self.ending) {
                return Err(our_doing(fault, ""));
            }
        }
    }

    fn shutdown_write(&mut self, inner: &mut impl Stream) -> io::Result<()> {
        self.update(inner, false);
        self.end(inner)?;
        if self.is_shut {
            Ok(())
        } else if self.holds_open() || !matches!(self.ending, Ending::No) {
            Err(ErrorKind::WouldBlock.into())
        } else {
            inner.shutdown_write()
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.around.turn.forget(key, self.planned);
        }
    }
}

/// Refuses a call as a socket would that cannot make progress. Fails if the peer has reset the
/// connection, which no other call would find out.
fn refuse(inner: &mut impl Stream) -> io::Result<usize> {
    inner.connected()?;
    Err(ErrorKind::WouldBlock.into())
}

impl<S: Stream> Read for FaultyStream<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(state) = &mut self.state else { return self.inner.read(buffer) };
        state.calling(|state| state.read(&mut self.inner, buffer))
    }
}

impl<S: Stream> Write for FaultyStream<S> {
    forward! { flush }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(state) = &mut self.state else { return self.inner.write(bytes) };
        state.calling(|state| state.write(&mut self.inner, bytes))
    }
}

impl<S: Stream> Stream for FaultyStream<S> {
    forward! { abort connected local_addr ended }

    fn shutdown_write(&mut self) -> io::Result<()> {
        let Some(state) = &mut self.state else { return self.inner.shutdown_write() };
        state.calling(|state| state.shutdown_write(&mut self.inner))
    }

    fn write_last(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(state) = &mut self.state else { return self.inner.write_last(bytes) };
        // Whether an end follows these bytes is not certain, so they must not wait for it.
        state.calling(|state| state.write(&mut self.inner, bytes))
    }

    fn is_held(&self) -> bool {
        self.state.as_ref().is_some_and(|state| state.is_held()) || self.inner.is_held()
    }
}
