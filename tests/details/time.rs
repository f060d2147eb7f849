//! Bounds: those that run, those that do not, and when they begin.

use std::time::Duration;

use campanile::{Limits, Outbox, Protocol, echo};

use super::common::fake::World;
use super::{seconds, serving, turns};

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
fn where_nothing_is_bounded_nothing_is_waited_for() {
    let world = World::new();
    let limits = Limits { idle: None, ..Limits::default() };
    let mut reactor = serving(&world, limits, echo());
    let _client = world.connect(0);
    turns(&mut reactor, 3);
    assert_eq!(reactor.connections(), 1);
    assert_eq!(reactor.timeout(), None);
}

#[test]
fn whoever_stalls_is_given_no_more_time_because_the_protocol_closes() {
    let world = World::new();
    let limits = Limits { stall: Some(seconds(10)), ..Limits::default() };
    let mut reactor = serving(&world, limits, echo());
    let client = world.connect(0);
    client.make_room(0);
    client.send(b"never read");
    turns(&mut reactor, 2);
    world.advance(seconds(8));
    reactor.handle().close(reactor.ids().next().unwrap()).unwrap();
    turns(&mut reactor, 2);
    assert!(!client.is_gone());
    world.advance(seconds(3));
    turns(&mut reactor, 2);
    assert!(client.is_gone() && client.saw_reset());
}
