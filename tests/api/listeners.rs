//! Listeners with options of their own, and their end.

use std::net::{SocketAddr, TcpStream};

use campanile::services::Echo;
use campanile::{Limits, ListenOptions, ListenerId, Reactor, echo};

use super::common::{DEADLINE, connect, ping};
use super::sim::fake::{World, serving, settle};
use super::{Ends, Log, NOW, nowhere, seconds};

#[test]
fn each_listener_has_its_own_limits_and_outgoing_connections_those_of_the_reactor() {
    let (world, log) = (World::new(), Log::default());
    let limits = Limits::default().idle_timeout(seconds(100)).max_send_queue(8);
    let kept = log.clone();
    let mut reactor = serving(&world, limits, move |_| Ends("first", kept.clone()));
    let own = Limits::default().idle_timeout(seconds(10)).max_send_queue(80);
    let (options, kept) = (ListenOptions::default().limits(own), log.clone());
    reactor.listen_with(nowhere(), options, move |_| Ends("second", kept.clone())).unwrap();
    let far = world.expect_connect();
    reactor.connect(nowhere(), Ends("outgoing", log.clone()));
    far.establish();
    let clients = [world.connect(0), world.connect(1), world.connect(0), world.connect(1)];
    clients.iter().chain([&far]).for_each(|client| client.make_room(0));
    settle(&mut reactor);
    log.take();
    let (sizes, ids): (_, Vec<_>) = ([9, 9, 8, 81], reactor.ids().skip(1).take(4).collect());
    for (id, size) in ids.into_iter().zip(sizes) {
        reactor.handle().send(id, vec![7; size]).unwrap();
    }
    settle(&mut reactor);
    let overflows = log.take();
    assert_eq!(overflows, ["first closed: too much unsent", "second closed: too much unsent"]);
    let gone = clients.each_ref().map(|client| client.is_gone());
    assert_eq!(gone, [true, false, false, true]);
    world.advance(seconds(15));
    settle(&mut reactor);
    assert_eq!(log.take(), ["second closed: peer does not read"]);
    world.advance(seconds(110));
    settle(&mut reactor);
    let mut last = log.take();
    last.sort();
    let expected = ["first closed: peer does not read", "outgoing closed: idle for too long"];
    assert_eq!(last, expected);
}

#[test]
fn an_option_of_one_listener_reaches_the_high_water_of_its_connections_only() {
    let world = World::new();
    let mut reactor = serving(&world, Limits::default().high_water(100), echo());
    let own = ListenOptions::default().limits(Limits::default().high_water(10));
    reactor.listen_with(nowhere(), own, echo()).unwrap();
    // In one turn, so that each switches the bounds that are in force.
    let clients = [0, 1, 0, 1].map(|listener| world.connect(listener));
    for client in &clients {
        client.make_room(0);
        client.send(&[7; 200]);
    }
    settle(&mut reactor);
    assert_eq!(clients.each_ref().map(|client| client.unread()), [100, 190, 100, 190]);
}

#[test]
fn a_closed_listener_accepts_no_more_and_its_id_stays_unused() {
    let world = World::new();
    let mut reactor = serving(&world, Limits::default(), echo());
    let (first, addr) = reactor.listeners().map(|(id, addr)| (id, addr.clone())).next().unwrap();
    assert_eq!(reactor.local_addr(first), Some(&addr));
    let client = world.connect(0);
    settle(&mut reactor);
    let waiting = world.connect(0);
    assert!(reactor.close_listener(first));
    settle(&mut reactor);
    assert!(world.is_closed(0) && reactor.stats().accepted == 1);
    assert!(!reactor.close_listener(first) && reactor.local_addr(first).is_none());
    assert!(!reactor.is_finished(), "its connection goes on");
    client.send(b"still here");
    settle(&mut reactor);
    assert_eq!((client.received(), waiting.received()), (b"still here".to_vec(), vec![]));
    let second = reactor.listen_with(nowhere(), ListenOptions::default(), echo()).unwrap();
    assert_ne!(second, first);
    let listeners: Vec<ListenerId> = reactor.listeners().map(|(id, _)| id).collect();
    assert_eq!(listeners, [second]);
    client.end();
    assert!(reactor.close_listener(second));
    reactor.run().unwrap();
}

#[test]
fn an_address_is_free_again_when_its_listener_is_closed() {
    let mut reactor = Reactor::new().unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let options = ListenOptions::default();
    let first = reactor.listen_with(any, options.clone(), echo()).unwrap();
    let addr = reactor.local_addr(first).unwrap().inet().unwrap();
    let mut client = connect(addr);
    while reactor.connections() == 0 {
        reactor.turn(Some(DEADLINE)).unwrap();
    }
    let taken = reactor.listen_with(addr, options.clone(), echo()).unwrap_err();
    assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
    assert!(reactor.close_listener(first));
    let refused = TcpStream::connect(addr).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    // An open connection of the closed listener does not hold the address.
    let second = reactor.listen_with(addr, options, |_| Echo).unwrap();
    assert_eq!(reactor.local_addr(second).unwrap().inet(), Some(addr));
    let mut other = connect(addr);
    let clients = std::thread::spawn(move || {
        ping(&mut client, b"first");
        ping(&mut other, b"second");
    });
    while !clients.is_finished() {
        reactor.turn(NOW).unwrap();
    }
    clients.join().unwrap();
}

#[test]
fn an_address_that_cannot_be_resolved_is_refused_with_the_next_step() {
    let mut reactor = Reactor::new().unwrap();
    let error = reactor.listen("/run/echo.sock", echo()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    let expected = "cannot resolve the address: invalid socket address; write HOST:PORT, or call \
                    `listen_with` for the path of a Unix socket";
    assert_eq!(error.to_string(), expected);
}
