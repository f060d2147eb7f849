//! A kernel without sockets: clients are played by the test, time passes only while the loop
//! sleeps, and an event comes only where mio's contract promises one.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use campanile::{
    Accepted, Address, Event, Kernel, Limits, Protocol, Reactor, Source, Stream, Wake,
};

/// A reactor that serves `make` and nothing else.
pub fn serving<P: Protocol + 'static>(
    world: &World,
    limits: Limits,
    make: impl FnMut(&Accepted) -> P + 'static,
) -> Reactor<Fake> {
    let mut reactor = Reactor::with_kernel(world.kernel(), limits);
    reactor.listen("127.0.0.1:0", make).unwrap();
    reactor
}

/// Turns without sleeping.
pub fn turns(reactor: &mut Reactor<Fake>, count: usize) {
    (0..count).for_each(|_| reactor.turn(Some(Duration::ZERO)).unwrap());
}

/// Turns until nothing is left to do and no event comes.
pub fn settle<K: Kernel>(reactor: &mut Reactor<K>) {
    for _ in 0..10_000 {
        reactor.turn(Some(Duration::ZERO)).unwrap();
        let is_silent = reactor.kernel().events().next().is_none();
        if is_silent && reactor.timeout() != Some(Duration::ZERO) {
            return;
        }
    }
    panic!("the loop spins");
}

/// The two ends of one connection.
#[derive(Debug, Default)]
pub struct Pair {
    key: Option<usize>,
    /// What the client sent and we did not read yet.
    inbox: VecDeque<u8>,
    client_ended: bool,
    reset: bool,
    /// What we wrote.
    pub outbox: Vec<u8>,
    /// How many more bytes the kernel takes from us.
    pub room: usize,
    pub shut: bool,
    pub aborted: bool,
    pub dropped: bool,
    refused: bool,
    connected: bool,
    read_blocked: bool,
    write_blocked: bool,
}

#[derive(Debug, Default)]
struct Queue {
    clients: VecDeque<(Client, SocketAddr)>,
    errors: VecDeque<i32>,
    accepts: usize,
    closed: bool,
}

#[derive(Debug)]
struct State {
    began: Instant,
    now: Duration,
    events: VecDeque<Event>,
    batch: Vec<Event>,
    capacity: usize,
    is_epoll: bool,
    listeners: Vec<Rc<RefCell<Queue>>>,
    connecting: VecDeque<Client>,
    calls: Vec<&'static str>,
    polls: usize,
    fail_poll: VecDeque<io::ErrorKind>,
    fail_register: bool,
    fail_rearm: bool,
    /// How many streams may be open, and how many are.
    descriptors: usize,
    open: usize,
}

/// The world outside of the loop: the test's hand on it.
#[derive(Debug, Clone)]
pub struct World(Rc<RefCell<State>>, Arc<Flag>);

#[derive(Debug, Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(&self) -> io::Result<()> {
        self.0.store(true, Ordering::SeqCst);
        Ok(())
    }
}

/// A client: it holds one end of a connection.
#[derive(Debug, Clone)]
pub struct Client {
    pair: Rc<RefCell<Pair>>,
    world: Rc<RefCell<State>>,
}

impl Pair {
    /// As epoll would say it: nothing but data or room.
    fn is_plain(&self) -> bool {
        !self.client_ended && !self.reset && !self.refused && self.connected
    }
}

impl World {
    pub fn new() -> World {
        World::with_capacity(1024)
    }

    /// A kernel that hands out at most `capacity` events at once.
    pub fn with_capacity(capacity: usize) -> World {
        let state = State {
            began: Instant::now(),
            now: Duration::ZERO,
            events: VecDeque::new(),
            batch: Vec::new(),
            capacity,
            is_epoll: true,
            listeners: Vec::new(),
            connecting: VecDeque::new(),
            calls: Vec::new(),
            polls: 0,
            fail_poll: VecDeque::new(),
            fail_register: false,
            fail_rearm: false,
            descriptors: usize::MAX,
            open: 0,
        };
        World(Rc::new(RefCell::new(state)), Arc::default())
    }

    /// A selector that is not epoll: no event is plain, and none comes before WouldBlock.
    pub fn portable() -> World {
        let world = World::new();
        world.0.borrow_mut().is_epoll = false;
        world
    }

    pub fn kernel(&self) -> Fake {
        Fake(self.clone())
    }

    pub fn advance(&self, by: Duration) {
        self.0.borrow_mut().now += by;
    }

    /// How long the world exists.
    pub fn now(&self) -> Duration {
        self.0.borrow().now
    }

    pub fn polls(&self) -> usize {
        self.0.borrow().polls
    }

    /// The system calls of connections since the last time this was asked.
    pub fn take_calls(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.0.borrow_mut().calls)
    }

    pub fn fail_poll(&self, kind: ErrorKind) {
        self.0.borrow_mut().fail_poll.push_back(kind);
    }

    pub fn fail_register(&self, fails: bool) {
        self.0.borrow_mut().fail_register = fails;
    }

    pub fn fail_rearm(&self, fails: bool) {
        self.0.borrow_mut().fail_rearm = fails;
    }

    /// Lets accept fail with `EMFILE` while so many streams are open.
    pub fn limit_descriptors(&self, count: usize) {
        self.0.borrow_mut().descriptors = count;
    }

    /// The next accepts of a listener fail with these.
    pub fn fail_accepts(&self, listener: usize, errnos: &[i32]) {
        let queue = Rc::clone(&self.0.borrow().listeners[listener]);
        queue.borrow_mut().errors.extend(errnos);
    }

    /// From now on, accepts of a listener fail no more.
    pub fn end_failures(&self, listener: usize) {
        let queue = Rc::clone(&self.0.borrow().listeners[listener]);
        queue.borrow_mut().errors.clear();
    }

    pub fn accepts(&self, listener: usize) -> usize {
        self.0.borrow().listeners[listener].borrow().accepts
    }

    pub fn is_closed(&self, listener: usize) -> bool {
        self.0.borrow().listeners[listener].borrow().closed
    }

    pub fn stray_event(&self, source: Source) {
        self.event(source, true, true);
    }

    fn event(&self, source: Source, readable: bool, writable: bool) {
        let event = Event { source, readable, writable, is_plain: false };
        push(&mut self.0.borrow_mut(), event);
    }

    /// A client that waits in the backlog of a listener.
    pub fn connect(&self, listener: usize) -> Client {
        self.connect_from(listener, Ipv4Addr::LOCALHOST.into())
    }

    pub fn connect_from(&self, listener: usize, ip: std::net::IpAddr) -> Client {
        let client = self.client();
        client.pair.borrow_mut().connected = true;
        let queue = Rc::clone(&self.0.borrow().listeners[listener]);
        let was_empty = queue.borrow().clients.is_empty();
        queue.borrow_mut().clients.push_back((client.clone(), SocketAddr::new(ip, 40_000)));
        // Edges coalesce: whoever joins a queue that is not empty makes none.
        if was_empty {
            self.event(Source::Listener(listener), true, false);
        }
        client
    }

    fn client(&self) -> Client {
        let pair = Pair { room: usize::MAX, ..Pair::default() };
        Client { pair: Rc::new(RefCell::new(pair)), world: Rc::clone(&self.0) }
    }

    /// The far end of the next outgoing connection.
    pub fn expect_connect(&self) -> Client {
        let client = self.client();
        self.0.borrow_mut().connecting.push_back(client.clone());
        client
    }
}

fn push(state: &mut State, event: Event) {
    // A source has one event waiting at most, as in epoll's ready list.
    match state.events.iter_mut().find(|waiting| waiting.source == event.source) {
        Some(waiting) => {
            waiting.readable |= event.readable;
            waiting.writable |= event.writable;
            waiting.is_plain &= event.is_plain;
        }
        None => state.events.push_back(event),
    }
}

impl Client {
    pub fn send(&self, bytes: &[u8]) {
        self.pair.borrow_mut().inbox.extend(bytes);
        self.edge(true, false);
    }

    /// Ends the client's half.
    pub fn end(&self) {
        self.pair.borrow_mut().client_ended = true;
        self.always(true, false);
    }

    pub fn reset(&self) {
        self.pair.borrow_mut().reset = true;
        self.always(true, true);
    }

    /// Lets the kernel take so many bytes from us altogether from now on.
    pub fn make_room(&self, room: usize) {
        self.pair.borrow_mut().room = room;
        if room > 0 {
            self.edge(false, true);
        }
    }

    /// An outgoing connection stands.
    pub fn establish(&self) {
        self.pair.borrow_mut().connected = true;
        self.edge(false, true);
    }

    /// An outgoing connection is refused.
    pub fn refuse(&self) {
        self.pair.borrow_mut().refused = true;
        self.edge(true, true);
    }

    /// An event that means nothing.
    pub fn stray(&self) {
        if let Some(key) = self.pair.borrow().key {
            let source = Source::Connection(key);
            let event = Event { source, readable: true, writable: true, is_plain: false };
            push(&mut self.world.borrow_mut(), event);
        }
    }

    /// An edge that epoll delivers whatever happened before; elsewhere one like any other.
    fn always(&self, readable: bool, writable: bool) {
        if self.world.borrow().is_epoll {
            let pair = &mut *self.pair.borrow_mut();
            (pair.read_blocked, pair.write_blocked) = (true, true);
        }
        self.edge(readable, writable);
    }

    fn edge(&self, readable: bool, writable: bool) {
        let pair = &mut *self.pair.borrow_mut();
        let (Some(key), false) = (pair.key, pair.dropped) else { return };
        // The fewest edges the contract permits: only after WouldBlock, or, where events are plain,
        // after a read that emptied the stream.
        let readable = readable && std::mem::take(&mut pair.read_blocked);
        let writable = writable && std::mem::take(&mut pair.write_blocked);
        if readable || writable {
            let source = Source::Connection(key);
            let world = &mut *self.world.borrow_mut();
            let is_plain = world.is_epoll && pair.is_plain();
            push(world, Event { source, readable, writable, is_plain });
        }
    }

    /// What came since the last time this was asked.
    pub fn received(&self) -> Vec<u8> {
        std::mem::take(&mut self.pair.borrow_mut().outbox)
    }

    pub fn unread(&self) -> usize {
        self.pair.borrow().inbox.len()
    }

    /// Our end sent its FIN.
    pub fn saw_eof(&self) -> bool {
        self.pair.borrow().shut
    }

    pub fn saw_reset(&self) -> bool {
        self.pair.borrow().aborted
    }

    /// Our end is closed and gone.
    pub fn is_gone(&self) -> bool {
        self.pair.borrow().dropped
    }
}

/// The kernel of a [`World`].
#[derive(Debug)]
pub struct Fake(World);

#[derive(Debug)]
pub struct FakeStream(Client);

#[derive(Debug)]
pub struct FakeListener(Rc<RefCell<Queue>>, usize);

impl Drop for FakeListener {
    fn drop(&mut self) {
        self.0.borrow_mut().closed = true;
    }
}

impl Kernel for Fake {
    type Stream = FakeStream;
    type Listener = FakeListener;

    fn poll(&mut self, patience: Option<Duration>) -> io::Result<()> {
        let state = &mut *self.0.0.borrow_mut();
        state.polls += 1;
        state.batch.clear();
        if let Some(kind) = state.fail_poll.pop_front() {
            return Err(kind.into());
        }
        if self.0.1.0.swap(false, Ordering::SeqCst) {
            push(
                state,
                Event { source: Source::Waker, readable: true, writable: false, is_plain: false },
            );
        }
        if state.events.is_empty() {
            state.now += patience.expect("sleeps for ever: nobody will wake it");
        }
        let count = state.capacity.min(state.events.len());
        state.batch.extend(state.events.drain(..count));
        Ok(())
    }

    fn events(&self) -> impl Iterator<Item = Event> {
        self.0.0.borrow().batch.clone().into_iter()
    }

    fn capacity(&self) -> usize {
        self.0.0.borrow().capacity
    }

    fn now(&self) -> Instant {
        let state = self.0.0.borrow();
        state.began + state.now
    }

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::clone(&self.0.1) as Arc<dyn Wake>
    }

    fn listen(&mut self, addr: SocketAddr, key: usize, _: &Limits) -> io::Result<FakeListener> {
        assert_eq!(addr.port(), 0, "tests listen on port 0");
        let queue = Rc::new(RefCell::new(Queue::default()));
        let listeners = &mut self.0.0.borrow_mut().listeners;
        listeners.resize_with(key, Rc::default);
        listeners.push(Rc::clone(&queue));
        Ok(FakeListener(queue, key))
    }

    fn adopt(
        &mut self,
        _: std::net::TcpListener,
        _: usize,
        _: &Limits,
    ) -> io::Result<FakeListener> {
        Err(ErrorKind::Unsupported.into())
    }

    fn local_addr(&self, listener: &FakeListener) -> io::Result<Address> {
        Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, 1000 + listener.1 as u16)).into())
    }

    fn accept(&mut self, listener: &mut FakeListener) -> io::Result<(FakeStream, Address)> {
        let queue = &mut *listener.0.borrow_mut();
        queue.accepts += 1;
        if let Some(errno) = queue.errors.pop_front() {
            return Err(io::Error::from_raw_os_error(errno));
        }
        let state = &mut *self.0.0.borrow_mut();
        // accept(2) takes a descriptor before it looks for a client.
        if state.open >= state.descriptors {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        let (client, peer) = queue.clients.pop_front().ok_or(ErrorKind::WouldBlock)?;
        state.open += 1;
        Ok((FakeStream(client), peer.into()))
    }

    fn rearm(&mut self, listener: &mut FakeListener, key: usize) -> io::Result<()> {
        if self.0.0.borrow().fail_rearm {
            return Err(ErrorKind::OutOfMemory.into());
        }
        let queue = listener.0.borrow();
        if !queue.clients.is_empty() || !queue.errors.is_empty() {
            let source = Source::Listener(key);
            let event = Event { source, readable: true, writable: false, is_plain: false };
            push(&mut self.0.0.borrow_mut(), event);
        }
        Ok(())
    }

    fn connect(&mut self, _: SocketAddr, _: &Limits) -> io::Result<FakeStream> {
        let state = &mut *self.0.0.borrow_mut();
        let client = state.connecting.pop_front().ok_or(ErrorKind::NetworkUnreachable)?;
        state.open += 1;
        Ok(FakeStream(client))
    }

    fn register(&mut self, stream: &mut FakeStream, key: usize, writes: bool) -> io::Result<()> {
        if self.0.0.borrow().fail_register {
            return Err(ErrorKind::OutOfMemory.into());
        }
        let mut pair = stream.0.pair.borrow_mut();
        assert_eq!(pair.key.replace(key), None, "registered twice");
        // Whoever is ready when it is registered gets an event.
        let readable = !pair.inbox.is_empty() || pair.client_ended || pair.reset;
        pair.read_blocked = !readable;
        let writable = writes && pair.connected && pair.room > 0;
        pair.write_blocked = !writable;
        let is_plain = self.0.0.borrow().is_epoll && pair.is_plain();
        let source = Source::Connection(key);
        drop(pair);
        if readable || writable {
            let event = Event { source, readable, writable, is_plain };
            push(&mut self.0.0.borrow_mut(), event);
        }
        Ok(())
    }
}

impl FakeStream {
    fn call(&self, name: &'static str) -> std::cell::RefMut<'_, Pair> {
        self.0.world.borrow_mut().calls.push(name);
        self.0.pair.borrow_mut()
    }
}

impl Read for FakeStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut pair = self.call("read");
        if pair.reset {
            return Err(ErrorKind::ConnectionReset.into());
        }
        if pair.inbox.is_empty() && !pair.client_ended {
            pair.read_blocked = true;
            return Err(ErrorKind::WouldBlock.into());
        }
        let count = pair.inbox.read(buffer)?;
        let is_plain = pair.is_plain() && self.0.world.borrow().is_epoll;
        pair.read_blocked |= count < buffer.len() && is_plain;
        Ok(count)
    }
}

impl Write for FakeStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut pair = self.call("write");
        assert!(!pair.shut, "a write after the end of our half");
        if pair.reset {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let count = bytes.len().min(pair.room);
        if count == 0 {
            pair.write_blocked = true;
            return Err(ErrorKind::WouldBlock.into());
        }
        pair.room -= if pair.room == usize::MAX { 0 } else { count };
        pair.outbox.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for FakeStream {
    fn shutdown_write(&mut self) -> io::Result<()> {
        self.call("shutdown").shut = true;
        Ok(())
    }

    fn abort(&mut self) {
        self.call("abort").aborted = true;
    }

    fn connected(&mut self) -> io::Result<bool> {
        let mut pair = self.call("connected");
        if pair.refused {
            return Err(ErrorKind::ConnectionRefused.into());
        }
        pair.write_blocked = !pair.connected;
        Ok(pair.connected)
    }
}

impl Drop for FakeStream {
    fn drop(&mut self) {
        self.0.world.borrow_mut().open -= 1;
        self.0.pair.borrow_mut().dropped = true;
    }
}
