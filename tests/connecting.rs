//! Outgoing connections, on a kernel without sockets: opened when they stand, or never.

mod common;

use std::io::ErrorKind;
use std::time::Duration;

use campanile::services::Echo;
use campanile::{Limits, Outbox, Protocol, Reactor};
use common::diary::Diary;
use common::fake::{Fake, World};

const NOW: Option<Duration> = Some(Duration::ZERO);

struct Asker;
impl Protocol for Asker {
    fn on_open(&mut self, out: &mut Outbox) {
        out.send(b"what time is it?");
    }
    fn on_data(&mut self, _: &[u8], out: &mut Outbox) {
        out.close();
    }
}

fn reactor(world: &World) -> Reactor<Fake> {
    Reactor::with_kernel(world.kernel(), Limits::default())
}

fn nowhere() -> std::net::SocketAddr {
    ([127, 0, 0, 1], 1).into()
}

#[test]
fn a_connection_is_opened_when_it_stands_and_not_by_a_stray_event() {
    let (world, diary) = (World::new(), Diary::default());
    let mut reactor = reactor(&world);
    let peer = world.expect_connect();
    reactor.connect(nowhere(), diary.of(Asker)).unwrap();
    reactor.turn(NOW).unwrap();
    peer.stray();
    reactor.turn(NOW).unwrap();
    assert_eq!(diary.letters(), "", "not opened before there is a peer");
    peer.establish();
    reactor.turn(NOW).unwrap();
    assert_eq!((diary.letters(), peer.received()), ("o".into(), b"what time is it?".to_vec()));
    peer.send(b"late");
    peer.end();
    reactor.run().unwrap();
    assert_eq!(diary.letters(), "odc");
    assert_eq!(diary.reason().as_deref(), Some("finished"));
}

#[test]
fn data_that_comes_with_the_connection_is_read() {
    let (world, diary) = (World::new(), Diary::default());
    let mut reactor = reactor(&world);
    let peer = world.expect_connect();
    reactor.connect(nowhere(), diary.of(Echo)).unwrap();
    peer.establish();
    peer.send(b"first word");
    reactor.turn(NOW).unwrap();
    assert_eq!(peer.received(), b"first word");
}

#[test]
fn a_refused_connection_is_closed_without_having_been_opened() {
    let (world, diary) = (World::new(), Diary::default());
    let mut reactor = reactor(&world);
    let peer = world.expect_connect();
    reactor.connect(nowhere(), diary.of(Asker)).unwrap();
    peer.refuse();
    reactor.run().unwrap();
    assert_eq!(diary.letters(), "c");
    assert!(diary.reason().unwrap().starts_with("cannot connect"), "{:?}", diary.reason());
}

#[test]
fn a_silent_one_is_given_up_at_its_deadline() {
    let (world, diary) = (World::new(), Diary::default());
    let mut reactor = reactor(&world);
    let peer = world.expect_connect();
    reactor.connect(nowhere(), diary.of(Asker)).unwrap();
    reactor.run().unwrap();
    assert_eq!(world.now(), Duration::from_secs(10));
    assert_eq!(diary.letters(), "c");
    assert_eq!(diary.reason().as_deref(), Some("cannot connect: timed out"));
    assert!(peer.is_gone());
}

#[test]
fn no_route_is_an_error_and_the_protocol_hears_of_it_too() {
    let (world, diary) = (World::new(), Diary::default());
    let mut reactor = reactor(&world);
    let error = reactor.connect(nowhere(), diary.of(Asker)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NetworkUnreachable);
    assert_eq!(diary.letters(), "c");
    assert!(reactor.is_finished());
}

#[test]
fn outgoing_connections_count_against_the_limit() {
    let (world, diary) = (World::new(), Diary::default());
    let limits = Limits { connections: 1, ..Limits::default() };
    let mut reactor = Reactor::with_kernel(world.kernel(), limits);
    world.expect_connect();
    world.expect_connect();
    reactor.connect(nowhere(), Asker).unwrap();
    let error = reactor.connect(nowhere(), diary.of(Asker)).unwrap_err();
    assert!(error.to_string().contains("Limits::connections"), "{error}");
    assert_eq!(diary.letters(), "c");
}

#[test]
fn shutdown_ends_an_attempt_too() {
    let (world, diary) = (World::new(), Diary::default());
    let mut reactor = reactor(&world);
    world.expect_connect();
    reactor.connect(nowhere(), diary.of(Asker)).unwrap();
    reactor.handle().shutdown(Duration::from_secs(1));
    reactor.run().unwrap();
    assert_eq!(diary.reason().as_deref(), Some("shut down"));
    assert_eq!(world.now(), Duration::from_secs(1));
}

#[test]
fn a_panic_about_a_failed_attempt_is_caught_and_counted() {
    struct Bomb;
    impl Protocol for Bomb {
        fn on_data(&mut self, _: &[u8], _: &mut Outbox) {}
        fn on_close(&mut self, _: &campanile::CloseReason) {
            panic!("no route, no temper");
        }
    }
    let world = World::new();
    let mut reactor = reactor(&world);
    assert!(reactor.connect(nowhere(), Bomb).is_err());
    assert_eq!(reactor.stats().panics, 1);
    assert!(reactor.take_panic().is_some());
}
