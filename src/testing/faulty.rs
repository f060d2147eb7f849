//! [`Faulty`]: a kernel with the faults of a [`Plan`].

mod acts;
mod listener;
#[cfg(target_os = "linux")]
mod sock_diag;
mod stream;
mod turn;
mod unacked;

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::listener::FaultyListener;
use self::listener::Managed;
pub use self::stream::FaultyStream;
use self::stream::{Circumstances, State};
use self::turn::Turn;
use super::ledger::{Book, Page, lock};
use super::plan::{Arrival, Plan};
use crate::connection::Snapshot;
use crate::kernel::{Event, Kernel, Phase, Source, Wake};
use crate::limits::Limits;
use crate::protocol::{Address, ConnId};

/// How often to check whether a peer has acknowledged everything: no event reports it.
const TICK: Duration = Duration::from_millis(1);

/// A kernel that does what the one inside does, except where its [`Plan`] says otherwise.
///
/// An effect may change only this: the bytes that reach the stream inside are a prefix of those
/// written (with one bit flipped per `corrupt`); the bytes read are a prefix of those that arrived
/// (with one bit flipped per `corrupt after SIZE in`); only `shut`, `close` and `reset` end a stream
/// early. A connection that a fault has slowed, silenced or held open goes on when the fault ends, and
/// loses nothing.
///
/// A turn in which the plan has changed has an event for each open connection. So a fault acts on
/// them in the turn that acknowledges it.
#[derive(Debug)]
pub struct Faulty<K: Kernel> {
    inner: K,
    plan: Plan,
    book: Book,
    turn: Rc<Turn>,
    /// By listener key.
    listeners: Vec<Option<Managed<K::Stream>>>,
    /// When the plan wants a listener to change by itself.
    next_change: Option<Instant>,
    /// The changes of the plan that the connections had an event for.
    reported: u64,
    /// The batch's events that the kernel inside did not report.
    own_events: Vec<Source>,
}

impl<K: Kernel> Faulty<K> {
    /// Applies the faults of `plan` to the services that `book` names.
    pub fn new(inner: K, plan: &Plan, book: &Book) -> Faulty<K> {
        plan.attach(inner.waker());
        Faulty {
            turn: Rc::new(Turn::new(inner.now())),
            inner,
            plan: plan.clone(),
            book: book.clone(),
            listeners: Vec::new(),
            next_change: None,
            reported: 0,
            own_events: Vec::new(),
        }
    }

    fn state(
        &self,
        service: Arc<str>,
        arrival: Arrival,
        page: Option<Page>,
        peer: &Address,
        limits: &Limits,
    ) -> Box<State> {
        let circumstances = Circumstances {
            plan: self.plan.clone(),
            service,
            number: arrival.number,
            turn: Rc::clone(&self.turn),
            page,
            book: self.book.clone(),
            peer: peer.inet(),
            linger: limits.linger_timeout,
            linger_bytes: limits.linger_bytes,
        };
        Box::new(State::new(arrival, circumstances))
    }

    /// Collects the events of the batch that the kernel inside did not report.
    fn add_own_events(&mut self) {
        self.check_listeners();
        let moving = self.listeners.iter().enumerate().filter_map(|(key, listener)| {
            let is_moving = listener.as_ref().is_some_and(Managed::is_moving);
            is_moving.then_some(Source::Listener(key))
        });
        self.own_events.extend(moving);
        let changes = self.turn.changes.get();
        let has_news = std::mem::replace(&mut self.reported, changes) != changes;
        self.turn.add_events(has_news, &mut self.own_events);
    }

    /// Polls, and returns soon if a connection waits for acknowledgements: these take real time,
    /// whatever clock the loop uses.
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
        self.plan.loop_ended();
    }
}

impl<K: Kernel> Kernel for Faulty<K> {
    type Stream = FaultyStream<K::Stream>;
    type Listener = FaultyListener<K::Listener>;

    forward! { waker watch phase observe wrapped_listeners }

    fn poll(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        // The last turn is over: its connections have run, and those that ended are dropped.
        self.report_unmoved();
        self.plan.acted_on(self.reported);
        self.own_events.clear();
        let outcome = if self.turn.waiting.borrow().is_empty() {
            let planned = self.turn.next_event();
            let change = [self.next_change, planned].into_iter().flatten().min();
            let change = change.map(|at| at.saturating_duration_since(self.now()));
            // Checked before every sleep: a selector may have swallowed the wake-up.
            let news = self.plan.has_news().then_some(Duration::ZERO);
            self.inner.poll([timeout, change, news].into_iter().flatten().min())
        } else {
            self.poll_and_tick()
        };
        self.now();
        self.turn.number.set(self.turn.number.get() + 1);
        self.turn.changes.set(self.plan.changes());
        if outcome.is_ok() {
            self.add_own_events();
        }
        outcome
    }

    fn events(&self) -> impl Iterator<Item = Event> {
        // A short read of ours does not show that the socket is empty.
        let inner = self.inner.events().map(|event| Event { data_only: false, ..event });
        let event = |&source| Event { source, readable: true, writable: true, data_only: false };
        inner.chain(self.own_events.iter().map(event))
    }

    /// Events of our own take no room: only a full batch of the selector's may leave others behind.
    fn capacity(&self) -> usize {
        self.inner.capacity() + self.own_events.len()
    }

    fn now(&self) -> Instant {
        self.turn.now.set(self.inner.now());
        self.turn.now.get()
    }

    fn local_addr(&self, listener: &Self::Listener) -> io::Result<Address> {
        Ok(listener.local.clone())
    }

    fn accept(&mut self, listener: &mut Self::Listener) -> io::Result<(Self::Stream, Address)> {
        let (socket, service) = self.move_listener(listener)?;
        let (inner, peer) = self.inner.accept(socket)?;
        let (page, arrival) = (self.book.newest(), self.plan.arrive(&service, None));
        let state = self.state(service, arrival, page, &peer, &listener.limits);
        Ok((FaultyStream { inner, state: Some(state) }, peer))
    }

    fn set_backlog(&mut self, listener: &Self::Listener, backlog: u32) -> io::Result<()> {
        let socket = listener.inner.as_ref();
        socket.map_or(Ok(()), |socket| self.inner.set_backlog(socket, backlog))
    }

    fn rearm(&mut self, listener: &mut Self::Listener, key: usize) -> io::Result<()> {
        // The connection that was accepted may be the last one before the listener changes. A listener
        // that does not accept needs no event; an event of our own follows when it does again.
        match self.move_listener(listener) {
            Ok((socket, _)) => self.inner.rearm(socket, key),
            Err(_) => Ok(()),
        }
    }

    fn connect(
        &mut self,
        addr: &Address,
        limits: &Limits,
        parent: Option<ConnId>,
    ) -> io::Result<Self::Stream> {
        let inner = self.inner.connect(addr, limits, parent)?;
        // Only the server's side of a proxied conversation has a ledger.
        let state = self.book.newest().map(|page| {
            let (service, number) = {
                let ledger = lock(&page);
                (Arc::from(&*ledger.service), ledger.id)
            };
            let arrival = self.plan.arrive(&service, Some(number));
            self.state(service, arrival, Some(page), addr, limits)
        });
        Ok(FaultyStream { inner, state })
    }

    fn register(&mut self, stream: &mut Self::Stream, key: usize, writes: bool) -> io::Result<()> {
        if let Some(state) = &mut stream.state {
            state.registered(key);
        }
        self.inner.register(&mut stream.inner, key, writes)
    }
}
