//! Listeners: whose they are, what they say when descriptors run out, and when they break.

use std::cell::RefCell;
use std::net::TcpListener;
use std::time::Duration;

use campanile::{Address, Limits, Reactor, echo};

use super::common::fake::{World, settle};
use super::{seconds, serving, turns};

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
fn a_listener_that_breaks_while_the_reactor_ends_is_no_failure() {
    let world = World::new();
    let mut reactor = serving(&world, Limits::default(), echo());
    turns(&mut reactor, 1);
    reactor.handle().shutdown(seconds(1));
    world.fail_accepts(0, &[libc::EBADF]);
    reactor.run().unwrap();
    assert!(world.is_closed(0));
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
    settle(&mut reactor);
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
