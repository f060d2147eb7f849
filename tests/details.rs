//! Small things that nothing larger would miss: found by mutants, which lived until these were asked.

mod common;

use std::cell::RefCell;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::{Duration, Instant};

use campanile::{Accepted, Address, ConnId, Limits, Outbox, Protocol, Reactor, Workspace, echo};
use common::fake::{Fake, World};

const NOW: Option<Duration> = Some(Duration::ZERO);

fn serving<P: Protocol + 'static>(
    world: &World,
    limits: Limits,
    make: impl FnMut(&Accepted) -> P + 'static,
) -> Reactor<Fake> {
    let mut reactor = Reactor::with_kernel(world.kernel(), limits);
    reactor.listen("127.0.0.1:0", make).unwrap();
    reactor
}

fn turns(reactor: &mut Reactor<Fake>, count: usize) {
    (0..count).for_each(|_| reactor.turn(NOW).unwrap());
}

#[test]
fn what_has_a_name_says_it() {
    let world = World::new();
    let ids = Rc::new(RefCell::new(Vec::<ConnId>::new()));
    let kept = ids.clone();
    let limits = Limits { mailbox: 1, ..Limits::default() };
    let mut reactor = serving(&world, limits, move |new| {
        kept.borrow_mut().push(new.id);
        assert_eq!(new.local.to_string(), "127.0.0.1:1000");
        campanile::services::Echo
    });
    (0..3).for_each(|_| drop(world.connect(0)));
    turns(&mut reactor, 2);
    let told: Vec<_> = ids.borrow().iter().map(|id| (id.to_string(), id.ordinal())).collect();
    assert_eq!(told, [("#1".into(), 1), ("#2".into(), 2), ("#3".into(), 3)]);
    let handle = reactor.handle();
    handle.close(ids.borrow()[0]).unwrap();
    let full = handle.close(ids.borrow()[1]).unwrap_err();
    assert!(full.to_string().contains("mailbox is full"));
    assert_eq!(reactor.ids().collect::<Vec<_>>(), *ids.borrow());
}

#[test]
fn an_address_is_its_socket_address_and_a_mapped_one_counts_as_version_four() {
    let plain: SocketAddr = "192.0.2.7:9999".parse().unwrap();
    let mapped: SocketAddr = "[::ffff:192.0.2.7]:9999".parse().unwrap();
    assert_eq!(Address::from(plain).inet(), Some(plain));
    assert_eq!(Address::from(mapped).ip(), Some(plain.ip()));
    assert_eq!(Address::from(mapped).inet(), Some(mapped));
    assert_eq!(Address::from(plain).to_string(), "192.0.2.7:9999");
}

#[test]
fn a_listener_of_somebody_else_is_taken_over_where_it_is() {
    let mut reactor = Reactor::new().unwrap();
    let theirs = TcpListener::bind("127.0.0.1:0").unwrap();
    let bound = theirs.local_addr().unwrap();
    assert_eq!(reactor.listen_on(theirs, echo()).unwrap(), bound);
    let ours = reactor.listen("127.0.0.1:0", echo()).unwrap();
    let told: Vec<_> = reactor.local_addrs().filter_map(Address::inet).collect();
    assert_eq!(told, [bound, ours]);
    assert!(!reactor.is_finished());
}

#[test]
fn a_grace_without_an_end_has_none() {
    for grace in [Duration::MAX, Duration::from_secs(1_000_000)] {
        let world = World::new();
        let limits = Limits { idle: None, ..Limits::default() };
        let mut reactor = serving(&world, limits, echo());
        let client = world.connect(0);
        turns(&mut reactor, 2);
        reactor.handle().shutdown(grace);
        turns(&mut reactor, 2);
        world.advance(Duration::from_secs(900_000));
        client.send(b"still here");
        turns(&mut reactor, 2);
        assert_eq!(client.received(), b"still here");
    }
}

#[test]
fn a_farewell_lasts_for_a_second() {
    /// Hears the peer's end, and has not finished.
    struct Stubborn;
    impl Protocol for Stubborn {
        fn on_data(&mut self, _: &[u8], _: &mut Outbox) {}
    }
    let world = World::new();
    let mut reactor = serving(&world, Limits::default(), |_| Stubborn);
    let client = world.connect(0);
    turns(&mut reactor, 2);
    reactor.handle().shutdown(Duration::ZERO);
    turns(&mut reactor, 3);
    assert!(client.saw_eof() && !client.is_gone());
    world.advance(Duration::from_millis(999));
    turns(&mut reactor, 2);
    assert!(!client.is_gone());
    world.advance(Duration::from_millis(1));
    turns(&mut reactor, 2);
    assert!(client.is_gone() && client.saw_reset());
}

#[test]
fn limits_of_zero_that_would_stop_everything_count_as_one() {
    let zero = Limits {
        high_water: 0,
        low_water: 9,
        budget: 0,
        accepts: 0,
        events: 0,
        scratch: 0,
        ..Limits::default()
    };
    let lent = Workspace::new(zero, Instant::now());
    let limits = lent.limits();
    let least = [limits.high_water, limits.budget, limits.accepts, limits.events, limits.scratch];
    assert_eq!((least, limits.low_water), ([1; 5], 0));
}

/// What is logged on this thread.
struct Logger;

thread_local! {
    static SAID: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        if record.level() == log::Level::Warn {
            SAID.with(|said| said.borrow_mut().push(record.args().to_string()));
        }
    }
    fn flush(&self) {}
}

/// The number of failures that a warning stands for beside its own.
fn unsaid(warning: &str) -> usize {
    let (_, rest) = warning.rsplit_once('(').unwrap();
    rest.split_once(' ').unwrap().0.parse().unwrap()
}

#[test]
fn of_descriptors_that_run_out_one_warning_a_transition_and_a_second_is_given() {
    log::set_logger(&Logger).unwrap();
    log::set_max_level(log::LevelFilter::Warn);
    let world = World::new();
    let mut reactor = serving(&world, Limits::default(), echo());
    let leaving: Vec<_> = (0..4).map(|_| world.connect(0)).collect();
    turns(&mut reactor, 2);
    let said = || SAID.with(|said| said.borrow().clone());

    // One transition, however often it is tried.
    let _waiting = world.connect(0);
    world.fail_accepts(0, &[libc::EMFILE; 100]);
    for _ in 0..30 {
        turns(&mut reactor, 1);
        world.advance(Duration::from_millis(100));
    }
    assert_eq!(said().len(), 1, "{:?}", said());
    assert!(said()[0].contains("Too many open files"), "{:?}", said());
    assert_eq!(unsaid(&said()[0]), 0);

    // Whoever leaves ends a pause: a new transition. Two within a second are one warning.
    leaving[0].end();
    turns(&mut reactor, 2);
    assert_eq!(said().len(), 2, "{:?}", said());
    assert_eq!(unsaid(&said()[1]), 30, "what was not said meanwhile");
    world.advance(Duration::from_millis(999));
    leaving[1].end();
    turns(&mut reactor, 2);
    assert_eq!(said().len(), 2, "too soon");
    world.advance(Duration::from_millis(1));
    leaving[2].end();
    turns(&mut reactor, 2);
    assert_eq!(said().len(), 3, "{:?}", said());
}
