//! `Handle::run`, with a `Control` for the closure, and typed access to protocols.

use std::sync::mpsc;

use campanile::services::Echo;
use campanile::{
    Background, ConnId, Control, Limits, ListenOptions, Outbox, Protocol, Reactor, echo,
};

use super::common::{DEADLINE, connect, ping};
use super::sim::fake::{Fake, World, serving, settle};
use super::{Ends, Log, NOW, join, nowhere, seconds};

/// Counts bytes.
#[derive(Default)]
struct Counter(usize);

impl Protocol for Counter {
    fn on_data(&mut self, data: &[u8], _: &mut Outbox) {
        self.0 += data.len();
    }
}

/// Runs `what` on the loop, and returns its value.
fn run<T: Send + 'static>(
    reactor: &mut Reactor<Fake>,
    what: impl FnOnce(&mut Control<'_>) -> T + Send + 'static,
) -> T {
    let (sender, receiver) = mpsc::channel();
    reactor.handle().run(move |control| sender.send(what(control)).unwrap()).unwrap();
    settle(reactor);
    receiver.try_recv().expect("the closure has run")
}

#[test]
fn a_closure_connects_listens_and_closes_a_listener() {
    let world = World::new();
    let mut reactor = Reactor::with_kernel(world.kernel(), Limits::default());
    let far = world.expect_connect();
    let id = run(&mut reactor, |control| control.connect(nowhere(), Echo));
    far.establish();
    far.send(b"echo");
    settle(&mut reactor);
    assert_eq!(far.received(), b"echo");
    let (listener, addr) = run(&mut reactor, |control| {
        let id = control.listen_with(nowhere(), ListenOptions::default(), echo()).unwrap();
        (id, control.local_addr(id).unwrap())
    });
    assert_eq!(addr.to_string(), "127.0.0.1:1000");
    let client = world.connect(0);
    client.send(b"too");
    settle(&mut reactor);
    assert_eq!(client.received(), b"too");
    let (ids, accepted) = run(&mut reactor, |control| (control.ids(), control.stats().accepted));
    assert_eq!((ids, accepted), (reactor.ids().collect(), 1));
    assert!(reactor.ids().any(|other| other == id) && reactor.connections() == 2);
    let closed = move |control: &mut Control<'_>| {
        (control.close_listener(listener), control.local_addr(listener))
    };
    assert_eq!(run(&mut reactor, closed), (true, None));
    assert_eq!(run(&mut reactor, closed), (false, None));
    assert!(world.is_closed(0) && !client.is_gone());
}

#[test]
fn a_closure_reaches_the_state_of_a_protocol_by_its_type() {
    let world = World::new();
    let mut reactor = serving(&world, Limits::default(), |_| Counter::default());
    let (client, id) = join(&world, &mut reactor);
    client.send(b"twelve bytes");
    settle(&mut reactor);
    let count = move |control: &mut Control<'_>| {
        control.with(id, |counter: &mut Counter, out| {
            out.send(b"counted");
            std::mem::take(&mut counter.0)
        })
    };
    assert_eq!(run(&mut reactor, count), Some(12));
    assert_eq!(run(&mut reactor, count), Some(0));
    assert_eq!(client.received(), b"countedcounted");
    // Another type is `None`, and changes nothing.
    assert_eq!(run(&mut reactor, move |control| control.with(id, |_: &mut Echo, _| ())), None);
    assert_eq!(reactor.stats().gone, 0);
    client.end();
    settle(&mut reactor);
    assert_eq!(run(&mut reactor, count), None);
    assert_eq!(reactor.stats().gone, 1);
}

#[test]
fn a_protocol_is_found_in_every_box_and_a_pending_or_closing_connection_is_none() {
    let world = World::new();
    let mut reactor = serving(&world, Limits::default(), |accepted| -> Box<dyn Protocol> {
        match accepted.id.ordinal() {
            1 => Box::new(Counter(1)),
            2 => Box::new(Box::new(Counter(2)) as Box<dyn Protocol>),
            _ => Box::new(Box::new(Counter(3))),
        }
    });
    for ordinal in 1..=3 {
        let (_client, id) = join(&world, &mut reactor);
        assert_eq!(reactor.with(id, |counter: &mut Counter, _| counter.0), Some(ordinal));
        assert_eq!(reactor.with(id, |_: &mut Echo, _| ()), None);
    }
    world.expect_connect();
    let pending = reactor.connect(nowhere(), Counter(4));
    settle(&mut reactor);
    assert_eq!(reactor.with(pending, |counter: &mut Counter, _| counter.0), None);
    let closing = reactor.ids().next().unwrap();
    assert_eq!(reactor.with(closing, |_: &mut Counter, out| out.close()), Some(()));
    assert_eq!(reactor.with(closing, |_: &mut Counter, _| ()), None);
}

#[test]
fn a_connection_that_ends_between_two_turns_is_reaped_in_the_next_one_at_once() {
    let (world, log) = (World::new(), Log::default());
    let kept = log.clone();
    let mut reactor = serving(&world, Limits::default(), move |_| Ends("peer", kept.clone()));
    let (client, id) = join(&world, &mut reactor);
    log.take();
    assert!(reactor.timeout() > NOW);
    reactor.with(id, |_: &mut Ends, out| out.abort()).unwrap();
    assert_eq!(reactor.timeout(), NOW, "no event will report it");
    reactor.turn(None).unwrap();
    assert_eq!((log.take(), world.now()), (vec!["peer closed: aborted".to_owned()], seconds(0)));
    assert!(client.saw_reset());
    // A message out of such a call is passed on as soon.
    let (client, id) = join(&world, &mut reactor);
    reactor.with(id, |_: &mut Ends, out| out.message(id, b"news")).unwrap();
    assert_eq!(reactor.timeout(), NOW);
    reactor.turn(None).unwrap();
    assert_eq!((client.received(), world.now()), (b"news".to_vec(), seconds(0)));
}

#[test]
fn a_timer_set_from_outside_counts_from_that_moment() {
    let world = World::new();
    let mut reactor = serving(&world, Limits::default().idle_timeout(None), echo());
    let (_client, id) = join(&world, &mut reactor);
    world.advance(seconds(3600));
    reactor.with(id, |_: &mut Echo, out| out.timer_after(seconds(5))).unwrap();
    assert_eq!(reactor.timeout(), Some(seconds(5)));
}

#[test]
fn a_panic_in_a_closure_counts_as_one_of_a_protocol() {
    let world = World::new();
    let mut reactor = serving(&world, Limits::default(), echo());
    let (client, id) = join(&world, &mut reactor);
    reactor.handle().run(|_| std::panic::resume_unwind(Box::new("in run"))).unwrap();
    settle(&mut reactor);
    assert_eq!((reactor.stats().panics, client.is_gone()), (1, false));
    assert_eq!(reactor.take_panic().unwrap().downcast_ref(), Some(&"in run"));
    // A panic with a connection's protocol in hand resets that connection.
    let what = |_: &mut Echo, _: &mut Outbox| std::panic::resume_unwind(Box::new("in with"));
    assert_eq!(run(&mut reactor, move |control| control.with(id, what)), None::<()>);
    assert!(client.saw_reset() && reactor.stats().panics == 2);
    assert_eq!(reactor.take_panic().unwrap().downcast_ref(), Some(&"in with"));
}

/// On real sockets: another thread than the loop's.
fn drives_a_server(handle: &campanile::Handle) {
    let (sender, receiver) = mpsc::channel();
    let kept = sender.clone();
    handle
        .run(move |control| {
            let to = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
            let options = ListenOptions::default();
            let id = control.listen_with(to, options, |_| Counter::default()).unwrap();
            kept.send(control.local_addr(id).unwrap().inet().unwrap()).unwrap();
        })
        .unwrap();
    let mut client = connect(receiver.recv_timeout(DEADLINE).unwrap());
    std::io::Write::write_all(&mut client, b"twelve bytes").unwrap();
    let (sender, receiver) = mpsc::channel::<(Vec<ConnId>, usize)>();
    super::common::eventually("a count of twelve", || {
        let sender = sender.clone();
        let count = move |control: &mut Control<'_>| {
            let ids = control.ids();
            let sum = ids.iter().filter_map(|&id| control.with(id, |it: &mut Counter, _| it.0));
            let sum = sum.sum();
            sender.send((ids, sum)).unwrap();
        };
        handle.run(count).unwrap();
        let (ids, sum) = receiver.recv_timeout(DEADLINE).unwrap();
        (ids.len() == 2 && sum == 12).then_some(())
    });
}

#[test]
fn a_started_background_listens_and_counts_for_another_thread() {
    let (server, addr) =
        Background::start(Limits::default(), |reactor| reactor.listen("127.0.0.1:0", echo()))
            .unwrap();
    let mut client = connect(addr);
    ping(&mut client, b"ping");
    drives_a_server(server.handle());
}

#[cfg(feature = "testing")]
#[test]
fn a_test_server_runs_closures_on_its_own_kernel() {
    let server = campanile::testing::TestServer::start();
    let mut client = server.echo().connect();
    ping(&mut client, b"ping");
    drives_a_server(server.handle());
}

#[test]
fn a_dropped_server_ends_though_closures_listen_and_connect_after_the_drop() {
    let (server, addr) =
        Background::start(Limits::default(), |reactor| reactor.listen("127.0.0.1:0", echo()))
            .unwrap();
    let handle = server.handle().clone();
    let (ended, posts) = (handle.clone(), handle.clone());
    handle
        .run(move |_| {
            // The thread of the loop drops the server, so the drop does not join it.
            drop(server);
            let late = move |control: &mut Control<'_>| {
                let to = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
                let _ = control.listen_with(to, ListenOptions::default(), echo());
                control.connect(addr, Echo);
            };
            posts.run(late).unwrap();
        })
        .unwrap();
    super::common::eventually("the end of the reactor", || ended.is_closed().then_some(()));
}

#[test]
fn a_reactor_that_shuts_down_refuses_new_listeners() {
    let world = World::new();
    let mut reactor = serving(&world, Limits::default(), echo());
    let (client, _) = join(&world, &mut reactor);
    reactor.handle().shutdown(seconds(5));
    settle(&mut reactor);
    let error = run(&mut reactor, |control| {
        control.listen_with(nowhere(), ListenOptions::default(), echo()).unwrap_err()
    });
    assert!(error.to_string().contains("shuts down"), "{error}");
    client.end();
    reactor.run().unwrap();
}
