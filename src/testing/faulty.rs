//! [`Faulty`]: a kernel that does what a [`Plan`] says is to go wrong.

mod acts;
#[cfg(target_os = "linux")]
mod sock_diag;
mod stream;
mod unacked;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::stream::FaultyStream;
use self::stream::{Circumstances, State};
use self::unacked::Unacked;
use super::ledger::Book;
use super::plan::{Door, Plan};
use crate::connection::Snapshot;
use crate::kernel::{Event, Kernel, Phase, Source, Wake};
use crate::limits::Limits;
use crate::protocol::{Address, ConnId};

/// How often to look whether a peer has acknowledged everything: no event tells.
const TICK: Duration = Duration::from_millis(1);

/// What the streams of one kernel share.
#[derive(Debug)]
pub(super) struct Turn {
    /// The time of the turn.
    now: Cell<Instant>,
    number: Cell<u64>,
    /// Connections that wait for acknowledgements, by slab key: they are run every turn.
    waiting: RefCell<BTreeSet<usize>>,
    unacked: RefCell<Unacked>,
}

/// A kernel that does what the one inside does, except where its [`Plan`] says otherwise.
///
/// What an effect may change, and nothing else: the bytes that reach the stream inside are a prefix
/// of those written (with one bit flipped per `corrupt`); the bytes read are a prefix of those that
/// came (with one bit flipped per `corrupt after SIZE in`); a stream is ended early by `shut`,
/// `close` and `reset` only, and never by `hold-open`. Whatever is not ended by a fault, stalled,
/// deaf or held open comes to the end it would have come to without, only later.
#[derive(Debug)]
pub struct Faulty<K: Kernel> {
    inner: K,
    plan: Plan,
    book: Book,
    turn: Rc<Turn>,
    /// By listener key.
    doors: Vec<Option<Doorway>>,
    next_change: Option<Instant>,
    /// The changes of the plan that the turn under way acts on.
    changes: u64,
}

/// What the kernel knows of a listener, which itself is the reactor's.
#[derive(Debug)]
struct Doorway {
    service: Arc<str>,
    wanted: Door,
    is: Door,
}

/// A listener that can be closed and opened again.
#[derive(Debug)]
pub struct FaultyListener<L> {
    inner: Option<L>,
    key: usize,
    local: Address,
    limits: Limits,
}

impl<K: Kernel> Faulty<K> {
    /// Does what `plan` says to the services that `book` names.
    pub fn new(inner: K, plan: &Plan, book: &Book) -> Faulty<K> {
        plan.attach(inner.waker());
        let now = Cell::new(inner.now());
        let number = Cell::new(1);
        let (waiting, unacked) = (RefCell::default(), RefCell::default());
        let turn = Turn { now, number, waiting, unacked };
        Faulty {
            inner,
            plan: plan.clone(),
            book: book.clone(),
            turn: Rc::new(turn),
            doors: Vec::new(),
            next_change: None,
            changes: 0,
        }
    }

    fn wrap(
        &mut self,
        inner: K::Listener,
        key: usize,
        limits: &Limits,
    ) -> io::Result<FaultyListener<K::Listener>> {
        let local = self.inner.local_addr(&inner)?;
        if key >= self.doors.len() {
            self.doors.resize_with(key + 1, || None);
        }
        let service = self.book.service();
        self.doors[key] = Some(Doorway { service, wanted: Door::Open, is: Door::Open });
        // Whether its faults change with time is found out by the next poll.
        self.next_change = Some(self.turn.now.get());
        Ok(FaultyListener { inner: Some(inner), key, local, limits: limits.clone() })
    }

    /// Asks the plan about each listener. One whose door must move gets an event: only while it is
    /// asked for a connection do we get hold of it.
    fn look_at_doors(&mut self) {
        self.changes = self.plan.changes();
        self.next_change = None;
        for door in self.doors.iter_mut().flatten() {
            let (wanted, change) = self.plan.door(&door.service, self.turn.now.get());
            door.wanted = wanted;
            let changes = [self.next_change, change].into_iter().flatten();
            self.next_change = changes.min();
        }
    }

    /// Moves the door of a listener to where the plan wants it.
    fn move_door(&mut self, listener: &mut FaultyListener<K::Listener>) -> io::Result<Arc<str>> {
        let (plan, now) = (&self.plan, self.turn.now.get());
        let door = self.doors.get_mut(listener.key).and_then(Option::as_mut);
        let door = door.ok_or(ErrorKind::InvalidInput)?;
        door.wanted = plan.door(&door.service, now).0;
        let service = Arc::clone(&door.service);
        match door.wanted {
            Door::Gone => listener.inner = None,
            Door::Open if listener.inner.is_none() => {
                self.book.serving(&service);
                // The same port; whoever took it meanwhile makes this fail, and be tried again.
                listener.inner =
                    Some(self.inner.listen(&listener.local, listener.key, &listener.limits)?);
            }
            Door::Open | Door::Shut => {}
        }
        self.book.door_moved(&service, door.is, door.wanted);
        door.is = door.wanted;
        if door.is == Door::Open { Ok(service) } else { Err(ErrorKind::WouldBlock.into()) }
    }

    /// Whom an event of our own is for.
    fn ours(&self) -> Vec<Source> {
        let moving = self.doors.iter().enumerate().filter_map(|(key, door)| {
            let is_moving = door.as_ref().is_some_and(|door| door.wanted != door.is);
            is_moving.then_some(Source::Listener(key))
        });
        let waiting = self.turn.waiting.borrow();
        moving.chain(waiting.iter().map(|&key| Source::Connection(key))).collect()
    }

    /// Polls, and comes back soon if somebody waits for acknowledgements, whatever clock the
    /// patience is measured by: those take real time.
    fn poll_and_tick(&mut self) -> io::Result<()> {
        let outcome = self.inner.poll(Some(Duration::ZERO));
        if self.inner.events().next().is_none() {
            std::thread::sleep(TICK);
        }
        outcome
    }
}

impl<K: Kernel> Drop for Faulty<K> {
    fn drop(&mut self) {
        self.plan.end();
    }
}

impl<K: Kernel> Kernel for Faulty<K> {
    type Stream = FaultyStream<K::Stream>;
    type Listener = FaultyListener<K::Listener>;

    forward! { waker watch observe wrapped_listeners }

    fn poll(&mut self, patience: Option<Duration>) -> io::Result<()> {
        let outcome = if self.turn.waiting.borrow().is_empty() {
            let change = self.next_change.map(|at| at.saturating_duration_since(self.now()));
            // Looked at before every sleep: a selector may have swallowed the wake-up.
            let news = self.plan.has_news().then_some(Duration::ZERO);
            self.inner.poll([patience, change, news].into_iter().flatten().min())
        } else {
            self.poll_and_tick()
        };
        self.now();
        self.turn.number.set(self.turn.number.get() + 1);
        self.look_at_doors();
        outcome
    }

    fn events(&self) -> impl Iterator<Item = Event> {
        // A short read of ours says nothing of what the socket holds.
        let inner = self.inner.events().map(|event| Event { data_only: false, ..event });
        let event = |source| Event { source, readable: true, writable: true, data_only: false };
        inner.chain(self.ours().into_iter().map(event))
    }

    /// Events of our own take no room: only a full batch of the selector's may leave others behind.
    fn capacity(&self) -> usize {
        self.inner.capacity() + self.ours().len()
    }

    fn now(&self) -> Instant {
        self.turn.now.set(self.inner.now());
        self.turn.now.get()
    }

    fn local_addr(&self, listener: &Self::Listener) -> io::Result<Address> {
        Ok(listener.local.clone())
    }

    fn accept(&mut self, listener: &mut Self::Listener) -> io::Result<(Self::Stream, Address)> {
        let service = self.move_door(listener)?;
        let socket = listener.inner.as_mut().ok_or(ErrorKind::WouldBlock)?;
        let (inner, peer) = self.inner.accept(socket)?;
        let (number, faults) = self.plan.arrive(&service);
        let circumstances = Circumstances {
            seed: self.plan.seed_of(&service, number),
            turn: Rc::clone(&self.turn),
            page: self.book.newest(),
            book: self.book.clone(),
            peer: peer.inet(),
            linger: listener.limits.linger_timeout,
            linger_bytes: listener.limits.linger_bytes,
        };
        Ok((FaultyStream { inner, state: State::new(faults, circumstances) }, peer))
    }

    fn rearm(&mut self, listener: &mut Self::Listener, key: usize) -> io::Result<()> {
        // Whoever was taken may have been the last before the door moves. Behind a closed one nobody
        // waits; when it opens, an event of our own says so.
        match (self.move_door(listener), &mut listener.inner) {
            (Ok(_), Some(socket)) => self.inner.rearm(socket, key),
            _ => Ok(()),
        }
    }

    fn connect(&mut self, addr: &Address, limits: &Limits) -> io::Result<Self::Stream> {
        self.inner.connect(addr, limits).map(|inner| FaultyStream { inner, state: None })
    }

    fn register(&mut self, stream: &mut Self::Stream, key: usize, writes: bool) -> io::Result<()> {
        if let Some(state) = &mut stream.state {
            state.key = Some(key);
            state.wait_for_acks();
        }
        self.inner.register(&mut stream.inner, key, writes)
    }

    fn phase(&mut self, phase: Phase) {
        if phase == Phase::RunConnections {
            // Every listener that had an event was asked by now, so its door has moved.
            self.plan.acted_on(self.changes);
        }
        self.inner.phase(phase);
    }
}
