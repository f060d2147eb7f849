//! The end of a reactor, on a kernel without sockets.

mod common;
mod sim;

use std::time::Duration;

use campanile::Limits;
use common::TUTORIAL_LINE;
use sim::fake::{NOW, World, both as reactor};

const GRACE: Duration = Duration::from_secs(5);

#[test]
fn without_connections_it_ends_at_once() {
    let world = World::new();
    let mut reactor = reactor(&world, Limits::default());
    reactor.handle().shutdown(GRACE);
    reactor.run().unwrap();
    assert_eq!(world.now(), Duration::ZERO);
    assert!(world.is_closed(0) && world.is_closed(1));
}

#[test]
fn it_may_be_asked_before_the_run_twice_and_after_the_end() {
    let world = World::new();
    let mut reactor = reactor(&world, Limits::default());
    let handle = reactor.handle();
    handle.shutdown(GRACE);
    handle.shutdown(Duration::ZERO);
    reactor.run().unwrap();
    handle.shutdown(GRACE);
    reactor.run().unwrap();
    drop(reactor);
    handle.shutdown(GRACE);
    handle.wake();
}

#[test]
fn whoever_waits_in_the_backlog_is_served_first() {
    let world = World::new();
    let mut reactor = reactor(&world, Limits::default().max_connections(2).max_accepts_per_turn(1));
    let clients: Vec<_> = (0..10).map(|_| world.connect(0)).collect();
    for client in &clients {
        client.end();
    }
    reactor.handle().shutdown(GRACE);
    reactor.run().unwrap();
    for client in &clients {
        assert_eq!(client.received(), TUTORIAL_LINE);
        assert!(client.is_gone() && !client.saw_reset());
    }
    assert_eq!(world.now(), Duration::ZERO);
}

#[test]
fn a_conversation_may_finish_within_the_grace() {
    let world = World::new();
    let mut reactor = reactor(&world, Limits::default());
    let client = world.connect(1);
    reactor.turn(NOW).unwrap();
    reactor.handle().shutdown(GRACE);
    reactor.turn(NOW).unwrap();
    assert!(world.is_closed(1), "nobody new");
    world.advance(Duration::from_secs(4));
    client.send(b"goodbye");
    client.end();
    reactor.run().unwrap();
    assert_eq!(client.received(), b"goodbye");
    assert!(!client.saw_reset());
    assert_eq!(world.now(), Duration::from_secs(4));
}

#[test]
fn after_the_grace_who_owes_nothing_gets_a_fin_and_the_rest_a_reset() {
    let world = World::new();
    let mut reactor = reactor(&world, Limits::default());
    let (quiet, polite, stalled) = (world.connect(1), world.connect(1), world.connect(1));
    stalled.make_room(0);
    stalled.send(b"never read");
    reactor.turn(NOW).unwrap();
    reactor.handle().shutdown(GRACE);
    reactor.turn(NOW).unwrap();
    world.advance(GRACE);
    reactor.turn(NOW).unwrap();
    assert!(stalled.is_gone() && stalled.saw_reset());
    assert!(quiet.saw_eof() && !quiet.is_gone() && !quiet.saw_reset());
    polite.end();
    reactor.turn(NOW).unwrap();
    assert!(polite.is_gone() && !polite.saw_reset());
    reactor.run().unwrap();
    assert!(quiet.is_gone() && quiet.saw_reset());
    assert_eq!(world.now(), GRACE + Duration::from_secs(1));
}

#[test]
fn the_shortest_grace_counts() {
    let world = World::new();
    let mut reactor = reactor(&world, Limits::default());
    let client = world.connect(1);
    reactor.turn(NOW).unwrap();
    let handle = reactor.handle();
    handle.shutdown(Duration::MAX);
    reactor.turn(NOW).unwrap();
    handle.shutdown(Duration::from_secs(1));
    handle.shutdown(Duration::from_secs(60));
    reactor.run().unwrap();
    assert_eq!(world.now(), Duration::from_secs(2));
    assert!(client.saw_eof());
}

#[test]
fn clients_behind_a_pause_are_given_up_when_the_grace_ends() {
    let world = World::new();
    let mut reactor = reactor(&world, Limits::default());
    world.fail_accepts(0, &[libc::EMFILE; 1000]);
    let client = world.connect(0);
    reactor.turn(NOW).unwrap();
    world.expect_shutdown();
    reactor.handle().shutdown(GRACE);
    reactor.run().unwrap();
    assert!(world.is_closed(0));
    assert_eq!(client.received(), b"");
    assert_eq!(world.now(), GRACE);
}

#[test]
fn even_without_a_grace_the_backlog_gets_its_turn() {
    let world = World::new();
    let mut reactor = reactor(&world, Limits::default());
    let (time, voice) = (world.connect(0), world.connect(1));
    voice.send(b"just in time");
    reactor.handle().shutdown(Duration::ZERO);
    reactor.run().unwrap();
    assert_eq!(time.received(), TUTORIAL_LINE);
    assert_eq!(voice.received(), b"just in time");
    assert!(voice.saw_eof());
}
