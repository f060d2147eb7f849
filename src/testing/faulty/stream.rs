//! [`FaultyStream`]: a stream that goes wrong.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Turn;
use super::acts::{Act, Deadline, Progress};
use super::unacked::Turns;
use crate::connection::Stream;
use crate::protocol::{Address, CloseReason};
use crate::testing::fault::{Effect, Fault};
use crate::testing::ledger::{Book, Page};
use crate::testing::plan::Random;

/// How long after the last byte a reset comes at least. The client may still be in connect(2), or
/// about to end its half: a reset that is there before makes these calls fail, and the client never
/// reads the bytes.
const GRACE: Duration = Duration::from_millis(5);

/// A stream that goes wrong as its faults say; without any, the stream inside.
#[derive(Debug)]
pub struct FaultyStream<S> {
    pub(super) inner: S,
    pub(super) state: Option<Box<State>>,
}

/// Where a connection is, and what its stream must know of that.
#[derive(Debug)]
pub(super) struct Circumstances {
    pub(super) seed: u64,
    pub(super) turn: Rc<Turn>,
    /// Its ledger, if one is kept.
    pub(super) page: Option<Page>,
    pub(super) book: Book,
    pub(super) peer: Option<SocketAddr>,
    pub(super) linger: Duration,
    pub(super) linger_bytes: usize,
}

/// What is left of a connection that a fault ends.
#[derive(Debug)]
enum Ending {
    No,
    /// Our half has ended; what comes is discarded until the peer's has, or until then. To close
    /// at once could reset the connection and destroy what the peer has not read yet.
    Close {
        until: Deadline,
        fault: Fault,
    },
    /// To be reset once the peer has acknowledged everything, or then.
    Reset {
        until: Deadline,
        fault: Fault,
        /// By the real clock.
        begun: Instant,
        /// Both ends, ours first, if they are known.
        ends: Option<(SocketAddr, SocketAddr)>,
    },
}

#[derive(Debug)]
pub(super) struct State {
    acts: Vec<Act>,
    progress: Progress,
    random: Random,
    ending: Ending,
    /// Our half has ended: what is written is swallowed.
    is_shut: bool,
    discarded: usize,
    pub(super) key: Option<usize>,
    /// The turn of the last write.
    wrote_in: u64,
    around: Circumstances,
}

impl State {
    pub(super) fn new(faults: Vec<Fault>, around: Circumstances) -> Option<Box<State>> {
        if faults.is_empty() {
            return None;
        }
        let now = around.turn.now.get();
        let progress =
            Progress { now, accepted: now, sent: 0, received: 0, writes: 0, is_eof: false };
        Some(Box::new(State {
            acts: faults.into_iter().map(Act::new).collect(),
            progress,
            random: Random(around.seed),
            ending: Ending::No,
            is_shut: false,
            discarded: 0,
            key: None,
            wrote_in: 0,
            around,
        }))
    }

    /// Begins what is due.
    fn begin(&mut self, inner: &mut impl Stream, writing: bool) {
        self.progress.now = self.around.turn.now.get();
        for at in 0..self.acts.len() {
            if !self.acts[at].is_due(&self.progress, writing) {
                continue;
            }
            self.acts[at].has_begun = true;
            let fault = self.acts[at].fault.clone();
            if let Some(page) = &self.around.page {
                self.around.book.fault_acts(page, &fault, true);
            }
            self.begin_to_end(inner, fault);
        }
    }

    fn begin_to_end(&mut self, inner: &mut impl Stream, fault: Fault) {
        if !matches!(self.ending, Ending::No) {
            return;
        }
        let until = Deadline::after(self.progress.now, self.around.linger);
        match fault.effect {
            Effect::Reset => {
                let local = inner.local_addr().ok().and_then(|local| local.inet());
                let ends = local.zip(self.around.peer);
                self.ending = Ending::Reset { until, fault, begun: Instant::now(), ends };
            }
            Effect::Close => {
                self.shut(inner);
                self.ending = Ending::Close { until, fault };
            }
            Effect::Shut => self.shut(inner),
            _ => {}
        }
    }

    fn shut(&mut self, inner: &mut impl Stream) {
        if !std::mem::replace(&mut self.is_shut, true) {
            // If it fails, the peer is gone, and the next read says so.
            let _ = inner.shutdown_write();
        }
    }

    /// The end of the connection, if it has come.
    fn end(&mut self, inner: &mut impl Stream) -> io::Result<()> {
        let now = self.progress.now;
        match &self.ending {
            Ending::Reset { until, fault, begun, ends } => {
                if until.has_come(now) || self.is_acknowledged(*ends, *begun) {
                    inner.abort();
                    return Err(match self.around.peer {
                        Some(_) => our_doing(fault),
                        None => not_reset(fault),
                    });
                }
                self.wait_for_acks();
                Ok(())
            }
            Ending::Close { until, fault } if until.has_come(now) => Err(our_doing(fault)),
            _ => Ok(()),
        }
    }

    fn is_acknowledged(&self, ends: Option<(SocketAddr, SocketAddr)>, begun: Instant) -> bool {
        let turn = &self.around.turn;
        match ends {
            Some((local, peer)) if self.progress.sent > 0 => {
                let turns = Turns { now: turn.number.get(), wrote: self.wrote_in };
                begun.elapsed() >= GRACE
                    && turn.unacked.borrow_mut().of(local, peer, turns) == Some(0)
            }
            _ => true,
        }
    }

    /// Has the connection run every turn: no event tells of an acknowledgement.
    pub(super) fn wait_for_acks(&self) {
        if let (Some(key), Ending::Reset { .. }) = (self.key, &self.ending) {
            self.around.turn.waiting.borrow_mut().insert(key);
        }
    }

    fn does(&self, effect: &Effect) -> bool {
        self.acts.iter().any(|act| act.is(effect))
    }

    /// Whether neither half may end. Silence is no end either, so `stall` is among these.
    fn holds_open(&self) -> bool {
        self.does(&Effect::HoldOpen) || self.does(&Effect::Stall)
    }

    /// The act that flips a bit of what passes now, and which bit.
    fn corrupting(&mut self, incoming: bool) -> Option<(&mut Act, u8)> {
        let act = self.acts.iter_mut().find(|act| act.is_corrupting(incoming))?;
        Some((act, 1 << (self.around.seed % 8)))
    }

    fn write(&mut self, inner: &mut impl Stream, bytes: &[u8]) -> io::Result<usize> {
        self.begin(inner, true);
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
        if room == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        let offer = &bytes[..room as usize];
        let taken = match self.corrupting(false) {
            None => inner.write(offer)?,
            Some((act, bit)) => {
                // If this is refused, the byte is wrong the next time.
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
        self.wait_for_acks();
        Ok(taken)
    }

    fn read(&mut self, inner: &mut impl Stream, buffer: &mut [u8]) -> io::Result<usize> {
        self.begin(inner, false);
        self.end(inner)?;
        match self.ending {
            Ending::Close { .. } => return self.discard(inner, buffer),
            Ending::Reset { .. } => return Err(ErrorKind::WouldBlock.into()),
            Ending::No if self.does(&Effect::Deaf) => return Err(ErrorKind::WouldBlock.into()),
            Ending::No => {}
        }
        let received = self.progress.received;
        let rooms = self.acts.iter().map(|act| act.received_before(received));
        let room = rooms.fold(buffer.len() as u64, u64::min);
        let count = inner.read(&mut buffer[..room as usize])?;
        if count == 0 {
            self.progress.is_eof = true;
            self.begin(inner, false);
            self.end(inner)?;
            return match &self.ending {
                Ending::Close { fault, .. } => Err(our_doing(fault)),
                Ending::Reset { .. } => Err(ErrorKind::WouldBlock.into()),
                Ending::No if self.holds_open() => Err(ErrorKind::WouldBlock.into()),
                Ending::No => Ok(0),
            };
        }
        if let Some((act, bit)) = self.corrupting(true) {
            buffer[0] ^= bit;
            act.is_done = true;
        }
        self.progress.received += count as u64;
        self.begin(inner, false);
        self.wait_for_acks();
        Ok(count)
    }

    /// After our end by `close`: reads and forgets.
    fn discard(&mut self, inner: &mut impl Stream, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = inner.read(buffer)?;
            self.discarded += count;
            let is_over = count == 0 || self.discarded > self.around.linger_bytes;
            if let (true, Ending::Close { fault, .. }) = (is_over, &self.ending) {
                return Err(our_doing(fault));
            }
        }
    }

    fn retry_at(&self) -> Option<Instant> {
        let now = self.around.turn.now.get();
        let closes = match self.ending {
            Ending::Close { until, .. } => until.0,
            _ => None,
        };
        let looks = self.acts.iter().map(|act| act.look_at(self.progress.accepted));
        looks.chain([closes]).flatten().filter(|at| *at > now).min()
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.around.turn.waiting.borrow_mut().remove(&key);
        }
    }
}

/// The reason of a connection that a fault ends. It is no error.
fn our_doing(fault: &Fault) -> io::Error {
    io::Error::new(ErrorKind::ConnectionAborted, format!("closed by fault: {fault}"))
}

/// The same for a reset on a Unix socket.
fn not_reset(fault: &Fault) -> io::Error {
    let text =
        format!("closed by fault: {fault} (a Unix socket has no reset: the client reads EOF)");
    io::Error::new(ErrorKind::ConnectionAborted, text)
}

impl<S: Stream> Read for FaultyStream<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.state {
            None => self.inner.read(buffer),
            Some(state) => state.read(&mut self.inner, buffer),
        }
    }
}

impl<S: Stream> Write for FaultyStream<S> {
    forward! { flush }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.state {
            None => self.inner.write(bytes),
            Some(state) => state.write(&mut self.inner, bytes),
        }
    }
}

impl<S: Stream> Stream for FaultyStream<S> {
    forward! { abort connected local_addr ended }

    fn shutdown_write(&mut self) -> io::Result<()> {
        let Some(state) = &mut self.state else { return self.inner.shutdown_write() };
        state.begin(&mut self.inner, false);
        let is_withheld =
            state.is_shut || matches!(state.ending, Ending::Reset { .. }) || state.holds_open();
        if is_withheld { Ok(()) } else { self.inner.shutdown_write() }
    }

    fn write_last(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.state {
            None => self.inner.write_last(bytes),
            // Whether an end follows these bytes is not certain, so they must not wait for it.
            Some(state) => state.write(&mut self.inner, bytes),
        }
    }

    fn retry_at(&self) -> Option<Instant> {
        let ours = self.state.as_ref().and_then(|state| state.retry_at());
        [ours, self.inner.retry_at()].into_iter().flatten().min()
    }
}
