//! Accepting: bounds, pauses and what every error of accept(2) means, on a kernel without sockets.

mod common;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use campanile::{Clock, Limits, Reactor, daytime, echo};
use common::fake::{Client, Fake, World, settle, turns};
use common::{TUTORIAL, TUTORIAL_LINE};

const NOW: Option<Duration> = Some(Duration::ZERO);

fn reactor(world: &World, limits: Limits) -> Reactor<Fake> {
    let mut reactor = Reactor::with_kernel(world.kernel(), limits);
    reactor.listen("127.0.0.1:0", daytime(Clock::fixed(TUTORIAL))).unwrap();
    reactor.listen("127.0.0.1:0", echo()).unwrap();
    reactor.turn(NOW).unwrap();
    reactor
}

fn is_served(client: &Client) -> bool {
    client.received() == TUTORIAL_LINE
}

/// How many of them are served in each of so many turns.
fn served_by_turn(reactor: &mut Reactor<Fake>, clients: &[Client], count: usize) -> Vec<usize> {
    let mut turn = || {
        turns(reactor, 1);
        clients.iter().filter(|client| is_served(client)).count()
    };
    (0..count).map(|_| turn()).collect()
}

#[test]
fn who_comes_alone_is_taken_without_a_second_accept_and_the_next_one_is_told_of() {
    let world = World::new();
    let mut reactor = reactor(&world, Limits::default());
    let before = world.accepts(0);
    for count in 1..=100 {
        let client = world.connect(0);
        turns(&mut reactor, 1);
        assert!(is_served(&client));
        assert_eq!(world.accepts(0), before + count);
        // A moment without newcomers.
        turns(&mut reactor, 1);
    }
}

#[test]
fn a_queue_is_emptied_by_one_edge_over_several_turns_and_faster_while_it_lasts() {
    let world = World::new();
    let mut reactor = reactor(&world, Limits { accepts: 6, ..Limits::default() });
    let clients: Vec<_> = (0..30).map(|_| world.connect(0)).collect();
    let served = served_by_turn(&mut reactor, &clients, 12);
    assert_eq!(served, [1, 1, 1, 1, 2, 4, 6, 6, 6, 2, 0, 0], "at most 6 a turn");
    assert_ne!(reactor.timeout(), NOW, "nobody waits any more");
    // Whoever comes in a stream is taken in it.
    let clients: Vec<_> = (0..30).map(|_| world.connect(0)).collect();
    assert_eq!(served_by_turn(&mut reactor, &clients, 3), [1, 1, 1], "it was quiet");
}

#[test]
fn a_batch_too_small_for_all_makes_nobody_wait_longer_and_longer() {
    let world = World::with_capacity(2);
    let mut reactor = reactor(&world, Limits::default());
    let busy: Vec<_> = (0..4).map(|_| world.connect(1)).collect();
    settle(&mut reactor);
    let clients: Vec<_> = (0..60).map(|_| world.connect(0)).collect();
    for _ in 0..40 {
        busy.iter().for_each(|client| client.send(b"ping"));
        turns(&mut reactor, 1);
    }
    assert_eq!(clients.iter().filter(|client| is_served(client)).count(), 60);
}

#[test]
fn a_pause_is_no_pressure() {
    let world = World::new();
    let mut reactor = reactor(&world, Limits { connections: 1, ..Limits::default() });
    let client = world.connect(1);
    settle(&mut reactor);
    let waiting = world.connect(1);
    turns(&mut reactor, 100);
    client.end();
    settle(&mut reactor);
    let before = world.accepts(1);
    waiting.end();
    settle(&mut reactor);
    assert_eq!((world.accepts(1), reactor.connections()), (before, 0), "nobody was asked in vain");
}

#[test]
fn a_listener_that_cannot_be_asked_for_its_next_event_is_tried_instead() {
    let world = World::new();
    let mut reactor = reactor(&world, Limits::default());
    world.fail_rearm(true);
    let clients: Vec<_> = (0..3).map(|_| world.connect(0)).collect();
    assert_eq!(served_by_turn(&mut reactor, &clients, 3), [1, 1, 1]);
    assert_eq!(reactor.timeout(), NOW);
    settle(&mut reactor);
    let late = world.connect(0);
    settle(&mut reactor);
    assert!(is_served(&late));
}

#[test]
fn errors_of_one_peer_cost_the_next_one_nothing() {
    let world = World::new();
    let mut reactor = reactor(&world, Limits::default());
    let errnos = [
        libc::ECONNABORTED,
        libc::EINTR,
        libc::EPROTO,
        libc::ENETDOWN,
        libc::EHOSTUNREACH,
        libc::EPERM,
        libc::EOPNOTSUPP,
    ];
    world.fail_accepts(0, &errnos);
    let client = world.connect(0);
    settle(&mut reactor);
    assert!(is_served(&client));
    assert_eq!(world.now(), Duration::ZERO, "nobody waits for anything");
    assert_eq!(reactor.stats().accept_errors, errnos.len() as u64);
}

#[test]
fn without_descriptors_the_listener_pauses_and_goes_on_without_a_new_client() {
    for errno in [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM] {
        let world = World::new();
        let mut reactor = reactor(&world, Limits::default());
        let established = world.connect(1);
        turns(&mut reactor, 1);
        let before = world.accepts(0);
        world.fail_accepts(0, &[errno; 5]);
        let client = world.connect(0);
        turns(&mut reactor, 10);
        assert_eq!(world.accepts(0), before + 1, "idle while paused");
        assert_eq!(reactor.timeout(), Some(Duration::from_millis(100)));
        established.send(b"unharmed");
        turns(&mut reactor, 1);
        assert_eq!(established.received(), b"unharmed");
        let began = world.now();
        while !is_served(&client) {
            reactor.turn(None).unwrap();
        }
        assert_eq!(world.now() - began, Duration::from_millis(500), "ten tries a second");
        assert_eq!(world.accepts(0), before + 7, "five failures, the client, and nobody");
    }
}

#[test]
fn a_connection_that_goes_ends_the_pause_at_once() {
    let world = World::new();
    let mut reactor = reactor(&world, Limits::default());
    let established = world.connect(1);
    turns(&mut reactor, 1);
    world.fail_accepts(0, &[libc::EMFILE]);
    let client = world.connect(0);
    turns(&mut reactor, 1);
    assert!(!is_served(&client));
    established.end();
    turns(&mut reactor, 2);
    assert!(is_served(&client));
    assert_eq!(world.now(), Duration::ZERO);
}

#[test]
fn a_listener_broken_for_good_is_removed_and_the_last_one_ends_the_run() {
    for errno in [libc::EBADF, libc::EINVAL, libc::ENOTSOCK] {
        let world = World::new();
        let mut reactor = reactor(&world, Limits::default());
        world.fail_accepts(0, &[errno]);
        world.connect(0);
        turns(&mut reactor, 3);
        assert!(world.is_closed(0) && !world.is_closed(1));
        let client = world.connect(1);
        client.send(b"the other one lives");
        turns(&mut reactor, 1);
        assert_eq!(client.received(), b"the other one lives");
        world.fail_accepts(1, &[errno]);
        world.connect(1);
        turns(&mut reactor, 1);
        assert!(!reactor.is_finished(), "a conversation goes on");
        client.end();
        assert_eq!(reactor.run().unwrap_err().raw_os_error(), Some(errno));
    }
}

#[test]
fn at_the_limit_clients_wait_and_are_served_as_others_leave() {
    let world = World::new();
    let mut reactor = reactor(&world, Limits { connections: 10, ..Limits::default() });
    let clients: Vec<_> = (0..30).map(|_| world.connect(1)).collect();
    for client in &clients {
        client.send(b"served");
    }
    settle(&mut reactor);
    assert_eq!(reactor.connections(), 10);
    assert_ne!(reactor.timeout(), NOW, "waits for somebody to leave, and does not spin");
    for (at, client) in clients.iter().enumerate() {
        assert_eq!(client.received(), b"served", "client {at}");
        assert!(!client.saw_reset());
        client.end();
        turns(&mut reactor, 2);
        assert!(client.is_gone());
    }
    assert_eq!(reactor.connections(), 0);
}

#[test]
fn a_peer_with_too_many_is_refused_and_only_that_one() {
    let world = World::new();
    let mut reactor = reactor(&world, Limits { per_peer: Some(2), ..Limits::default() });
    let greedy: IpAddr = Ipv4Addr::new(127, 0, 0, 2).into();
    let mapped: IpAddr = Ipv4Addr::new(127, 0, 0, 2).to_ipv6_mapped().into();
    let first = world.connect_from(1, greedy);
    let second = world.connect_from(1, mapped);
    let third = world.connect_from(1, greedy);
    let other = world.connect_from(1, Ipv4Addr::LOCALHOST.into());
    settle(&mut reactor);
    assert!(third.is_gone());
    assert!(!first.is_gone() && !second.is_gone() && !other.is_gone());
    assert_eq!(reactor.stats().refused, 1);
    first.end();
    turns(&mut reactor, 2);
    let fourth = world.connect_from(1, greedy);
    turns(&mut reactor, 1);
    assert!(!fourth.is_gone(), "there is room for it again");
}

#[test]
fn a_maker_that_panics_loses_one_client() {
    let world = World::new();
    let mut reactor = Reactor::with_kernel(world.kernel(), Limits::default());
    let mut count = 0;
    reactor
        .listen("127.0.0.1:0", move |_: &campanile::Accepted| {
            count += 1;
            assert_ne!(count, 2, "the second one is too much");
            campanile::services::Echo
        })
        .unwrap();
    let clients: Vec<_> = (0..3).map(|_| world.connect(0)).collect();
    settle(&mut reactor);
    assert!(!clients[0].is_gone() && clients[1].is_gone() && !clients[2].is_gone());
    assert!(clients[1].saw_reset());
    assert_eq!(reactor.stats().panics, 1);
    assert!(reactor.take_panic().is_some());
}
