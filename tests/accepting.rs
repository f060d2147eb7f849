//! Accepting: bounds, pauses and what every error of accept(2) means, on a kernel without sockets.

mod common;
mod sim;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use campanile::{Clock, Limits, Reactor, daytime};
use common::{TUTORIAL, TUTORIAL_LINE};
use sim::fake::{Client, Fake, NOW, World, both as reactor, serving, settle, turns};

fn is_served(client: &Client) -> bool {
    client.received() == TUTORIAL_LINE
}

/// How many of the clients have been served after each of so many turns. What is counted once is not
/// counted again.
fn served_by_turn(reactor: &mut Reactor<Fake>, clients: &[Client], count: usize) -> Vec<usize> {
    let mut turn = || {
        turns(reactor, 1);
        clients.iter().filter(|client| is_served(client)).count()
    };
    (0..count).map(|_| turn()).collect()
}

#[test]
fn a_lone_client_costs_one_accept_and_the_next_one_makes_an_event() {
    let world = World::new();
    let mut reactor = reactor(&world, Limits::default());
    let before = world.accepts(0);
    for count in 1..=100 {
        let client = world.connect(0);
        turns(&mut reactor, 1);
        assert!(is_served(&client));
        assert_eq!(world.accepts(0), before + count);
        // A turn without a new client.
        turns(&mut reactor, 1);
    }
}

#[test]
fn one_edge_empties_a_queue_over_several_turns_and_faster_while_it_lasts() {
    let world = World::new();
    let mut reactor = reactor(&world, Limits::default().max_accepts_per_turn(6));
    let clients: Vec<_> = (0..42).map(|_| world.connect(0)).collect();
    let served = served_by_turn(&mut reactor, &clients, 24);
    assert_eq!(served[..16], [1; 16]);
    assert_eq!(served[16..], [2, 4, 6, 6, 6, 2, 0, 0], "at most 6 a turn");
    assert_ne!(reactor.timeout(), NOW, "no client waits any more");
    // After a quiet turn the bursts begin at one again.
    let clients: Vec<_> = (0..30).map(|_| world.connect(0)).collect();
    assert_eq!(served_by_turn(&mut reactor, &clients, 3), [1, 1, 1], "it was quiet");
}

#[test]
fn a_batch_too_small_for_all_events_lets_no_client_wait_longer_and_longer() {
    let world = World::with_capacity(2);
    let mut reactor = reactor(&world, Limits::default());
    let busy: Vec<_> = (0..4).map(|_| world.connect(1)).collect();
    settle(&mut reactor);
    let clients: Vec<_> = (0..60).map(|_| world.connect(0)).collect();
    for _ in 0..80 {
        busy.iter().for_each(|client| client.send(b"ping"));
        turns(&mut reactor, 1);
    }
    assert_eq!(clients.iter().filter(|client| is_served(client)).count(), 60);
}

#[test]
fn a_pause_is_no_pressure() {
    let world = World::new();
    let mut reactor = reactor(&world, Limits::default().max_connections(1));
    let client = world.connect(1);
    settle(&mut reactor);
    let waiting = world.connect(1);
    turns(&mut reactor, 100);
    client.end();
    settle(&mut reactor);
    let before = world.accepts(1);
    waiting.end();
    settle(&mut reactor);
    assert_eq!((world.accepts(1), reactor.connections()), (before, 0), "no accept is in vain");
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
    assert_eq!(world.now(), Duration::ZERO, "no client waits for anything");
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
        assert_eq!(world.accepts(0), before + 6, "five failures and the client");
    }
}

#[test]
fn a_connection_that_closes_ends_the_pause_at_once() {
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
fn at_the_limit_clients_wait_and_are_served_as_others_close() {
    let world = World::new();
    let mut reactor = reactor(&world, Limits::default().max_connections(10));
    let clients: Vec<_> = (0..30).map(|_| world.connect(1)).collect();
    for client in &clients {
        client.send(b"served");
    }
    settle(&mut reactor);
    assert_eq!(reactor.connections(), 10);
    assert_ne!(reactor.timeout(), NOW, "waits for a connection to close, and does not spin");
    for (at, client) in clients.iter().enumerate() {
        assert_eq!(client.received(), b"served", "client {at}");
        assert!(!client.saw_reset());
        client.end();
        turns(&mut reactor, 2);
        assert!(client.is_gone());
    }
    assert_eq!(reactor.connections(), 0);
}

/// One listener at which a client waits beside others at which clients always wait.
struct Rivals {
    /// How many listeners the waiting client has beside its own.
    busy: usize,
    /// How many connections may be open at once.
    room: usize,
    /// For how many turns a client keeps its connection once it is served.
    hold: usize,
}

impl Rivals {
    /// Returns how many clients of the busy listeners are served before the waiting one.
    fn served_before_the_waiting_client(&self, world: &World, limits: Limits) -> usize {
        let mut reactor = Reactor::with_kernel(world.kernel(), limits);
        for _ in 0..=self.busy {
            reactor.listen("127.0.0.1:0", daytime(Clock::fixed(TUTORIAL))).unwrap();
        }
        let waiting: Vec<_> = (0..self.busy * 2 * self.room).map(|at| at % self.busy).collect();
        let mut others: Vec<_> = waiting.iter().map(|&at| (at, world.connect(at), None)).collect();
        let (mut client, mut before) = (None, 0);
        for turn in 0..1_000 {
            for (listener, other, served) in &mut others {
                if served.is_none() && is_served(other) {
                    *served = Some(turn);
                    before += usize::from(client.is_some());
                }
                if served.is_some_and(|at| at + self.hold <= turn) {
                    other.end();
                    (*other, *served) = (world.connect(*listener), None);
                }
            }
            if client.as_ref().is_some_and(is_served) {
                return before;
            }
            if turn == 20 {
                client = Some(world.connect(self.busy));
            }
            turns(&mut reactor, 1);
        }
        panic!(
            "{before} others are served, and the client is not: {busy} busy listeners, room for {room}, held for {hold} turns",
            busy = self.busy,
            room = self.room,
            hold = self.hold
        );
    }
}

/// Every listener may take all the room there is before it is the waiting client's turn.
fn each_listener_has_its_turn(run: impl Fn(&Rivals) -> usize) {
    for busy in 1..=3 {
        for room in 1..=3 {
            for hold in 0..=8 {
                let rivals = Rivals { busy, room, hold };
                let before = run(&rivals);
                let most = busy * room;
                assert!(before <= most, "{before} of {most}: {busy} {room} {hold}");
            }
        }
    }
}

#[test]
fn at_the_connection_limit_each_listener_has_its_turn() {
    each_listener_has_its_turn(|rivals| {
        let limits = Limits::default().max_connections(rivals.room);
        rivals.served_before_the_waiting_client(&World::new(), limits)
    });
}

#[test]
fn out_of_descriptors_each_listener_has_its_turn() {
    each_listener_has_its_turn(|rivals| {
        let world = World::new();
        world.limit_descriptors(rivals.room);
        rivals.served_before_the_waiting_client(&world, Limits::default())
    });
}

/// How an accept error that stays is met: attempts at once, and attempts in the next second.
fn attempts(errno: i32) -> (usize, usize) {
    let world = World::new();
    let mut reactor = reactor(&world, Limits::default());
    let before = world.accepts(0);
    world.fail_accepts(0, &[errno; 10_000]);
    let client = world.connect(0);
    settle(&mut reactor);
    let at_once = world.accepts(0) - before;
    while world.now() < Duration::from_secs(1) {
        reactor.turn(None).unwrap();
    }
    let within_a_second = world.accepts(0) - before - at_once;
    assert_eq!(reactor.stats().accept_errors, (at_once + within_a_second) as u64);
    world.end_failures(0);
    while !is_served(&client) {
        reactor.turn(None).unwrap();
    }
    assert!(world.now() <= Duration::from_millis(1_100), "the client waits for one pause at most");
    (at_once, within_a_second)
}

#[test]
fn an_accept_error_that_stays_is_tried_ten_times_a_second() {
    for errno in [libc::EPERM, libc::ECONNABORTED, libc::EPROTO, libc::EINTR, libc::ETIMEDOUT] {
        assert_eq!(attempts(errno), (16, 10), "errno {errno}");
    }
}

#[test]
fn an_accept_error_that_no_manual_lists_pauses_the_listener() {
    for errno in [libc::EIO, libc::ENOSYS, libc::EACCES, libc::EDEADLK, 4_000] {
        assert_eq!(attempts(errno), (1, 10), "errno {errno}");
    }
}

#[test]
fn an_accept_error_with_a_connection_in_between_never_pauses_the_listener() {
    let world = World::new();
    let mut reactor = reactor(&world, Limits::default());
    for _ in 0..10 {
        world.fail_accepts(0, &[libc::ECONNABORTED; 15]);
        let client = world.connect(0);
        settle(&mut reactor);
        assert!(is_served(&client));
    }
    // Different errors are different peers' errors.
    world.fail_accepts(0, &[[libc::ECONNABORTED; 15], [libc::EPROTO; 15]].concat());
    let client = world.connect(0);
    settle(&mut reactor);
    assert!(is_served(&client));
    assert_eq!(world.now(), Duration::ZERO);
}

#[test]
fn an_accept_error_that_stays_leaves_the_other_listener_alone() {
    let world = World::new();
    let mut reactor = reactor(&world, Limits::default());
    world.fail_accepts(0, &[libc::EPERM; 10_000]);
    let _waiting = world.connect(0);
    let client = world.connect(1);
    settle(&mut reactor);
    client.send(b"unharmed");
    settle(&mut reactor);
    assert_eq!((client.received(), world.now()), (b"unharmed".to_vec(), Duration::ZERO));
}

#[test]
fn a_peer_with_too_many_connections_is_refused_and_no_other_peer() {
    let world = World::new();
    let mut reactor = reactor(&world, Limits::default().max_per_peer(Some(2)));
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
fn a_factory_that_panics_loses_one_client() {
    let world = World::new();
    let mut count = 0;
    let mut reactor = serving(&world, Limits::default(), move |_| {
        count += 1;
        assert_ne!(count, 2, "the second one is too much");
        campanile::services::Echo
    });
    let clients: Vec<_> = (0..3).map(|_| world.connect(0)).collect();
    settle(&mut reactor);
    assert!(!clients[0].is_gone() && clients[1].is_gone() && !clients[2].is_gone());
    assert!(clients[1].saw_reset());
    assert_eq!(reactor.stats().panics, 1);
    assert!(reactor.take_panic().is_some());
}
