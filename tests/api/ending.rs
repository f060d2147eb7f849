//! The end of a reactor: every open connection gets its `on_close`, and no panic escapes.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc;

use campanile::{Background, CloseReason, Limits, Outbox, Protocol, Reactor};

use super::common::connect;
use super::sim::fake::{World, serving, settle};
use super::{Ends, Log, NOW, nowhere};

#[test]
fn a_dropped_reactor_closes_every_connection_once() {
    let (world, log) = (World::new(), Log::default());
    let kept = log.clone();
    let mut reactor = serving(&world, Limits::default(), move |_| Ends("peer", kept.clone()));
    let clients = [world.connect(0), world.connect(0), world.connect(0)];
    settle(&mut reactor);
    world.expect_connect();
    reactor.connect(nowhere(), Ends("outgoing", log.clone()));
    // One has ended by itself, another one is half way.
    let id = reactor.ids().next().unwrap();
    reactor.handle().abort(id).unwrap();
    settle(&mut reactor);
    clients[1].end();
    reactor.turn(NOW).unwrap();
    log.take();
    drop(reactor);
    let mut lines = log.take();
    lines.sort();
    assert_eq!(lines, ["outgoing closed: shut down", "peer closed: shut down"]);
    assert!(clients[2].saw_reset() && world.is_closed(0));
}

#[test]
fn connections_that_were_only_asked_for_are_closed_with_the_reactor_too() {
    let (world, log) = (World::new(), Log::default());
    let mut reactor = serving(&world, Limits::default(), |_| campanile::services::Echo);
    let (_client, id) = super::join(&world, &mut reactor);
    let backend = Ends("backend", log.clone());
    reactor
        .with(id, |_: &mut campanile::services::Echo, out| out.connect(nowhere(), backend))
        .unwrap();
    drop(reactor);
    assert_eq!(log.take(), ["backend closed: shut down"]);
}

#[test]
fn a_run_that_failed_leaves_the_connections_to_the_drop_which_closes_them() {
    let (world, log) = (World::new(), Log::default());
    let kept = log.clone();
    let mut reactor = serving(&world, Limits::default(), move |_| Ends("peer", kept.clone()));
    let client = world.connect(0);
    settle(&mut reactor);
    log.take();
    world.fail_poll(std::io::ErrorKind::Other);
    assert_eq!(reactor.run().unwrap_err().kind(), std::io::ErrorKind::Other);
    assert_eq!((log.take(), client.is_gone()), (vec![], false), "the program may go on");
    drop(reactor);
    assert_eq!((log.take(), client.saw_reset()), (vec!["peer closed: shut down".to_owned()], true));
}

/// Sends its close to another thread.
struct Reports(mpsc::Sender<String>);

impl Protocol for Reports {
    fn on_data(&mut self, _: &[u8], _: &mut Outbox) {}
    fn on_close(&mut self, reason: &CloseReason) {
        self.0.send(reason.to_string()).unwrap();
    }
}

#[test]
fn a_setup_that_fails_or_panics_closes_what_it_has_opened() {
    for panics in [false, true] {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (addr, (sender, reports)) = (server.local_addr().unwrap(), mpsc::channel());
        let ended = catch_unwind(AssertUnwindSafe(|| {
            Background::start(Limits::default(), move |reactor| -> std::io::Result<()> {
                reactor.connect(addr, Reports(sender.clone()));
                assert!(!panics, "no setup");
                reactor.listen(addr, campanile::echo()).map(drop)
            })
        }));
        match ended {
            Ok(failed) => assert_eq!(failed.unwrap_err().kind(), std::io::ErrorKind::AddrInUse),
            Err(panic) => assert_eq!((panic.downcast_ref(), panics), (Some(&"no setup"), true)),
        }
        assert_eq!(reports.iter().collect::<Vec<_>>(), ["shut down"]);
    }
}

#[test]
fn a_dropped_background_closes_its_connections_before_the_drop_returns() {
    let (sender, reports) = mpsc::channel();
    let (server, addr) = Background::start(Limits::default(), move |reactor| {
        reactor.listen("127.0.0.1:0", move |_| Reports(sender.clone()))
    })
    .unwrap();
    let _clients = [connect(addr), connect(addr)];
    super::common::eventually("two connections", || {
        let (count, counts) = mpsc::channel();
        server.handle().run(move |control| count.send(control.ids().len()).unwrap()).unwrap();
        (counts.recv().unwrap() == 2).then_some(())
    });
    drop(server);
    assert_eq!(reports.try_iter().collect::<Vec<_>>(), ["shut down", "shut down"]);
}

/// The payload of a panic, which panics again when it is dropped.
struct Bomb(&'static str);

impl Drop for Bomb {
    fn drop(&mut self) {
        resume_unwind(Box::new(Bomb(self.0)));
    }
}

/// Panics where its name says, also when it is dropped.
struct Panics(&'static str);

impl Protocol for Panics {
    fn on_data(&mut self, _: &[u8], _: &mut Outbox) {
        if self.0 == "data" {
            resume_unwind(Box::new(Bomb("data")));
        }
    }
    fn on_close(&mut self, _: &CloseReason) {
        if self.0 == "close" {
            resume_unwind(Box::new(Bomb("close")));
        }
    }
}

impl Drop for Panics {
    fn drop(&mut self) {
        resume_unwind(Box::new(Bomb("drop")));
    }
}

#[test]
fn payloads_whose_drop_panics_are_contained_wherever_they_come_from() {
    let world = World::new();
    let mut places = ["data", "data", "close", "maker", "data", "never"].into_iter();
    let mut reactor = serving(&world, Limits::default(), move |_| match places.next().unwrap() {
        "maker" => resume_unwind(Box::new(Bomb("maker"))),
        place => Panics(place),
    });
    let clients: [_; 5] = std::array::from_fn(|_| world.connect(0));
    settle(&mut reactor);
    for (client, place) in clients.iter().zip(["data", "data", "close", "maker", "data"]) {
        match place {
            "data" => client.send(b"x"),
            "close" => client.end(),
            _ => {}
        }
    }
    // All in one turn.
    settle(&mut reactor);
    assert!(clients.iter().all(|client| client.is_gone()));
    // In a closure, and in an attempt that fails at once.
    reactor.handle().run(|_| resume_unwind(Box::new(Bomb("closure")))).unwrap();
    settle(&mut reactor);
    reactor.connect(nowhere(), Panics("close"));
    assert_eq!(reactor.stats().panics, 7);
    // One is still open, and a closure that panics in its drop was not run.
    world.connect(0);
    settle(&mut reactor);
    let unused = Bomb("unused");
    reactor.handle().run(move |_| std::mem::forget(unused)).unwrap();
    drop(reactor);
}

#[test]
fn the_first_payload_is_the_programs_to_take() {
    let world = World::new();
    let mut reactor = Reactor::with_kernel(world.kernel(), Limits::default());
    reactor.connect(nowhere(), Panics("close"));
    reactor.connect(nowhere(), Panics("never"));
    let payload = reactor.take_panic().unwrap();
    assert_eq!(payload.downcast_ref::<Bomb>().unwrap().0, "close");
    assert!(reactor.take_panic().is_none() && reactor.stats().panics == 2);
    std::mem::forget(payload);
}

/// Sends to itself and to the first connection when it closes.
struct LastCall;

impl Protocol for LastCall {
    fn on_data(&mut self, _: &[u8], out: &mut Outbox) {
        out.abort();
    }
    fn on_close_with(&mut self, _: &CloseReason, out: &mut Outbox) {
        assert!(out.is_closed());
        out.send(b"lost");
        let first = FIRST.with(std::cell::Cell::get).expect("the first connection is open");
        out.message(first, format!("{} is closed", out.id()).as_bytes());
    }
}

thread_local! {
    static FIRST: std::cell::Cell<Option<campanile::ConnId>> = const { std::cell::Cell::new(None) };
}

#[test]
fn the_last_call_of_a_protocol_reaches_another_connection_and_sends_nothing_on_its_own() {
    let world = World::new();
    let make = |_: &campanile::Accepted| -> Box<dyn Protocol> { Box::new(LastCall) };
    let mut reactor = serving(&world, Limits::default(), make);
    let peer = world.expect_connect();
    peer.establish();
    let id = reactor.connect(nowhere(), campanile::services::Echo);
    FIRST.with(|first| first.set(Some(id)));
    let (client, _) = super::join(&world, &mut reactor);
    client.send(b"x");
    settle(&mut reactor);
    assert!(client.saw_reset() && client.received().is_empty());
    assert_eq!(peer.received(), b"#2 is closed");
    peer.send(b"next");
    settle(&mut reactor);
    assert_eq!(peer.received(), b"next", "no byte of the closed connection is left in the outbox");
}
