//! The simulated world, played by a test: the test plays the clients and gives every event, and time
//! passes only while the loop sleeps.

use std::cell::{Cell, RefCell};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::Duration;

use campanile::sys::{Event, Kernel, Source};
use campanile::{Accepted, Clock, Limits, Protocol, Reactor, daytime, echo};

use super::kernel::Sim;
use super::socket::{Link, Service, Socket, Tape};
use super::world::{self, Selector, Shared};
use crate::common::TUTORIAL;

/// The kernel of a world that a test plays.
pub type Fake = Sim;

/// A turn without sleep.
pub const NOW: Option<Duration> = Some(Duration::ZERO);

/// A reactor that has turned once, with daytime as listener 0 and echo as listener 1.
pub fn both(world: &World, limits: Limits) -> Reactor<Fake> {
    let mut reactor = serving(world, limits, daytime(Clock::fixed(TUTORIAL)));
    reactor.listen("127.0.0.1:0", echo()).unwrap();
    reactor.turn(NOW).unwrap();
    reactor
}

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
    (0..count).for_each(|_| reactor.turn(NOW).unwrap());
}

/// Turns until nothing is left to do and no event comes.
pub fn settle<K: Kernel>(reactor: &mut Reactor<K>) {
    for _ in 0..10_000 {
        reactor.turn(NOW).unwrap();
        let is_silent = reactor.kernel().events().next().is_none();
        if is_silent && reactor.timeout() != NOW {
            return;
        }
    }
    panic!("the loop spins");
}

/// The world outside of the loop. If the loop breaks a rule of the simulator, the test fails when
/// the world is dropped.
#[derive(Debug)]
pub struct World {
    shared: Shared,
    is_excused: Cell<bool>,
}

impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() && !self.is_excused.get() {
            assert_eq!(self.shared.borrow().violations, Vec::<String>::new());
        }
    }
}

impl World {
    pub fn new() -> World {
        World::with_capacity(1024)
    }

    /// A kernel that hands out at most `capacity` events at once.
    pub fn with_capacity(capacity: usize) -> World {
        World::with(Selector::Scripted, capacity)
    }

    /// A selector that is not epoll: no event is plain, and none comes before `WouldBlock`.
    pub fn portable() -> World {
        World::with(Selector::Miser, 1024)
    }

    fn with(selector: Selector, capacity: usize) -> World {
        World::seeded(selector, 0, capacity)
    }

    /// A world whose selector draws its events from `seed`.
    pub fn seeded(selector: Selector, seed: u64, capacity: usize) -> World {
        let limits = Limits::default().read_buffer(usize::MAX);
        let world = world::World::new(selector, seed, capacity, limits);
        World { shared: Rc::new(RefCell::new(world)), is_excused: Cell::new(false) }
    }

    /// From now on, a paused listener may be asked at once: the test shuts the reactor down.
    pub fn expect_shutdown(&self) {
        let now = self.now();
        self.shared.borrow_mut().shutdown = Some((now, Duration::ZERO));
    }

    /// No rule holds any more: a fault does behind the loop's back what the loop must not do.
    pub fn excuse(&self) {
        self.is_excused.set(true);
    }

    pub fn kernel(&self) -> Fake {
        Fake::new(&self.shared)
    }

    pub fn advance(&self, by: Duration) {
        self.shared.borrow_mut().now += by;
    }

    /// How long the world exists.
    pub fn now(&self) -> Duration {
        self.shared.borrow().now
    }

    /// Returns how often the waker was called.
    pub fn wakes(&self) -> usize {
        self.shared.borrow().bell.count()
    }

    pub fn polls(&self) -> usize {
        self.shared.borrow().polls
    }

    /// Returns the system calls of connections since the last call of this.
    pub fn take_calls(&self) -> Vec<&'static str> {
        let name = |call| match call {
            "recv" => Some("read"),
            "send" => Some("write"),
            "shutdown" => Some("shutdown"),
            _ => None,
        };
        std::mem::take(&mut self.shared.borrow_mut().calls).into_iter().filter_map(name).collect()
    }

    pub fn fail_poll(&self, kind: ErrorKind) {
        self.shared.borrow_mut().fail_polls.push_back(kind);
    }

    /// The next registration of a connection fails.
    pub fn fail_register(&self) {
        self.shared.borrow_mut().fail_registers.push_back(libc::ENOMEM);
    }

    pub fn fail_rearm(&self, fails: bool) {
        self.shared.borrow_mut().fails_rearm = fails;
    }

    /// The next accepts of a listener fail with these.
    pub fn fail_accepts(&self, listener: usize, errnos: &[i32]) {
        self.shared.borrow_mut().queues[listener].errors.extend(errnos);
    }

    /// From now on, accepts of a listener fail no more.
    pub fn end_failures(&self, listener: usize) {
        self.shared.borrow_mut().queues[listener].errors.clear();
    }

    /// Lets accept fail with `EMFILE` while so many sockets are open.
    pub fn limit_descriptors(&self, count: usize) {
        self.shared.borrow_mut().descriptors = Some(count);
    }

    pub fn accepts(&self, listener: usize) -> usize {
        self.shared.borrow().queues[listener].accepts
    }

    pub fn is_closed(&self, listener: usize) -> bool {
        self.shared.borrow().queues[listener].closed
    }

    /// An event that means nothing.
    pub fn stray_event(&self, source: Source) {
        let event = Event { source, readable: true, writable: true, data_only: false };
        self.shared.borrow_mut().note(event);
    }

    /// A client that waits in the backlog of a listener.
    pub fn connect(&self, listener: usize) -> Client {
        self.connect_from(listener, Ipv4Addr::LOCALHOST.into())
    }

    pub fn connect_from(&self, listener: usize, ip: IpAddr) -> Client {
        let client = self.client(Some(ip), Link::Up);
        self.shared.borrow_mut().arrive(listener, client.sid);
        client
    }

    /// From now on, every far end is well: no selector of this world gives an event that means nothing.
    pub fn calm(&self) {
        self.shared.borrow_mut().is_calm = true;
    }

    /// Whether no event waits.
    pub fn is_silent(&self) -> bool {
        self.shared.borrow().is_silent()
    }

    /// The first rule that was broken.
    pub fn violation(&self) -> Option<String> {
        self.shared.borrow().violations.first().cloned()
    }

    /// The next outgoing connection fails inside the call that asks for it.
    pub fn expect_failed_connect(&self, errno: i32) {
        self.shared.borrow_mut().dials.push_back(Err(errno));
    }

    /// Returns whether every expected outgoing connection was asked for.
    pub fn has_dialled(&self) -> bool {
        self.shared.borrow().dials.is_empty()
    }

    /// The far end of the next outgoing connection.
    pub fn expect_connect(&self) -> Client {
        let client = self.client(None, Link::Pending);
        self.shared.borrow_mut().dials.push_back(Ok(client.sid));
        client
    }

    fn client(&self, ip: Option<IpAddr>, link: Link) -> Client {
        let world = &mut *self.shared.borrow_mut();
        let sid = world.add(Service::default(), ip, link, usize::MAX);
        let socket = &mut world.sockets[sid];
        // Its protocol is the test's, which no witness watches.
        (socket.made, socket.tape) = (true, Some(Tape::default()));
        Client { world: Rc::clone(&self.shared), sid }
    }
}

/// The far end of a connection.
#[derive(Debug, Clone)]
pub struct Client {
    world: Shared,
    sid: usize,
}

impl Client {
    pub fn socket<T>(&self, with: impl FnOnce(&mut Socket) -> T) -> T {
        with(&mut self.world.borrow_mut().sockets[self.sid])
    }

    pub fn tape<T>(&self, with: impl FnOnce(&mut Tape) -> T) -> T {
        self.socket(|socket| with(socket.tape.as_mut().expect("a client has a tape")))
    }

    fn edge(&self, readable: bool, writable: bool, loud: bool) {
        self.world.borrow_mut().edge(self.sid, readable, writable, loud);
    }

    pub fn send(&self, bytes: &[u8]) {
        self.tape(|tape| tape.sent.extend(bytes));
        self.world.borrow_mut().say(self.sid, bytes.len());
    }

    /// Ends the client's half.
    pub fn end(&self) {
        self.socket(|socket| socket.fin = true);
        self.edge(true, false, true);
    }

    pub fn reset(&self) {
        self.socket(|socket| socket.reset(false));
        self.notice_reset();
    }

    /// The kernel of the server's end learns of a reset.
    pub fn notice_reset(&self) {
        self.edge(true, true, true);
    }

    /// Nothing befalls the client any more: it is connected, reads everything and ends its half.
    pub fn recover(&self) {
        self.socket(|socket| {
            (socket.interrupts, socket.short, socket.room) = (0, None, usize::MAX / 2);
            if socket.link == Link::Pending {
                socket.link = Link::Up;
            }
            socket.fin |= !socket.was_reset;
        });
        self.edge(true, true, true);
    }

    /// Lets the kernel take so many bytes from the server altogether from now on.
    pub fn make_room(&self, room: usize) {
        self.socket(|socket| socket.room = room);
        self.edge(false, room > 0, false);
    }

    /// An outgoing connection stands.
    pub fn establish(&self) {
        self.socket(|socket| socket.link = Link::Up);
        self.edge(false, true, false);
    }

    /// An outgoing connection is refused.
    pub fn refuse(&self) {
        self.socket(|socket| socket.link = Link::Refused(libc::ECONNREFUSED));
        self.edge(true, true, false);
    }

    /// An event that means nothing.
    pub fn stray(&self) {
        let key = self.socket(|socket| socket.key).expect("a stray event needs a connection");
        let source = Source::Connection(key);
        let event = Event { source, readable: true, writable: true, data_only: false };
        self.world.borrow_mut().note(event);
    }

    /// Returns what came since the last call of this.
    pub fn received(&self) -> Vec<u8> {
        self.tape(|tape| std::mem::take(&mut tape.received))
    }

    pub fn unread(&self) -> usize {
        self.socket(|socket| socket.unread())
    }

    /// The server's end sent its FIN.
    pub fn saw_eof(&self) -> bool {
        self.socket(|socket| socket.shut)
    }

    pub fn saw_reset(&self) -> bool {
        self.socket(|socket| socket.aborted)
    }

    /// The server's end is closed and gone.
    pub fn is_gone(&self) -> bool {
        self.socket(|socket| socket.dropped)
    }
}
