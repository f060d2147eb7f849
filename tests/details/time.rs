//! Timeouts: which ones run, and when they begin.

use std::time::Duration;

use campanile::{Limits, Outbox, Protocol, echo};

use super::sim::fake::World;
use super::{seconds, serving, turns};

#[test]
fn an_endless_grace_never_ends() {
    for grace in [Duration::MAX, Duration::from_secs(1_000_000)] {
        let world = World::new();
        let limits = Limits::default().idle_timeout(None);
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
fn after_the_grace_a_connection_has_one_second_to_end() {
    /// Does not close when the peer ends its half.
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
fn without_timeouts_the_loop_waits_for_no_deadline() {
    let world = World::new();
    let limits = Limits::default().idle_timeout(None);
    let mut reactor = serving(&world, limits, echo());
    let _client = world.connect(0);
    turns(&mut reactor, 3);
    assert_eq!(reactor.connections(), 1);
    assert_eq!(reactor.timeout(), None);
}

#[test]
fn a_protocol_that_closes_does_not_extend_the_write_timeout() {
    let world = World::new();
    let limits = Limits::default().write_timeout(seconds(10));
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

/// Answers each piece of data a second later.
struct Later;

impl Protocol for Later {
    fn on_data(&mut self, _: &[u8], out: &mut Outbox) {
        out.timer_after(seconds(1));
    }

    fn on_timer(&mut self, out: &mut Outbox) {
        out.send(b"woken");
    }
}

const DAY: u64 = 86_400;

#[test]
fn a_wake_up_comes_in_time_although_the_idle_timeout_is_weeks_away() {
    for days in [1, 24, 25, 30, 48] {
        let world = World::new();
        let limits = Limits::default().idle_timeout(seconds(days * DAY));
        let mut reactor = serving(&world, limits, |_| Later);
        let client = world.connect(0);
        turns(&mut reactor, 2);
        client.send(b"x");
        turns(&mut reactor, 2);
        world.advance(seconds(1));
        turns(&mut reactor, 2);
        assert_eq!(client.received(), b"woken", "{days} days");
    }
}

#[test]
fn an_idle_timeout_of_weeks_is_kept_and_one_of_49_days_or_more_is_never() {
    for (days, is_kept) in
        [(20, true), (35, true), (45, true), (48, true), (49, false), (50, false)]
    {
        let world = World::new();
        let limits = Limits::default().idle_timeout(seconds(days * DAY));
        let mut reactor = serving(&world, limits, echo());
        // Deadlines are rounded up to a fifth of the timeout since the loop began.
        world.advance(seconds(3 * DAY));
        turns(&mut reactor, 2);
        let client = world.connect(0);
        turns(&mut reactor, 2);
        let mut gone = None;
        for hour in 0..110 * 24 {
            if client.is_gone() {
                gone.get_or_insert(hour);
            }
            world.advance(seconds(3600));
            turns(&mut reactor, 2);
        }
        let expected = if is_kept { Some(days * 24..days * 24 * 6 / 5 + 2) } else { None };
        match (gone, expected) {
            (Some(gone), Some(expected)) => assert!(expected.contains(&gone), "{days}: {gone} h"),
            (gone, expected) => assert_eq!((gone, expected), (None, None), "{days} days"),
        }
    }
}

#[test]
fn a_wake_up_decades_away_neither_comes_early_nor_keeps_the_loop_busy() {
    struct Decades(Duration);
    impl Protocol for Decades {
        fn on_open(&mut self, out: &mut Outbox) {
            out.timer_after(self.0);
        }
        fn on_data(&mut self, _: &[u8], _: &mut Outbox) {}
        fn on_timer(&mut self, out: &mut Outbox) {
            out.send(b"too early");
        }
    }
    // 2 to the power of 40 milliseconds, and around it: a timer has 40 bits.
    let wrap = Duration::from_millis(1 << 40);
    for length in [wrap, wrap + seconds(1), wrap * 3, seconds(u64::MAX / 2), Duration::MAX] {
        let world = World::new();
        let limits = Limits::default().idle_timeout(None);
        let mut reactor = serving(&world, limits, move |_| Decades(length));
        let client = world.connect(0);
        turns(&mut reactor, 3);
        assert_ne!(reactor.timeout(), Some(Duration::ZERO), "{length:?}");
        world.advance(seconds(100 * DAY));
        turns(&mut reactor, 3);
        assert_ne!(reactor.timeout(), Some(Duration::ZERO), "{length:?}");
        assert_eq!(client.received(), b"", "{length:?}");
    }
}

#[test]
fn a_byte_now_and_then_keeps_a_slot_until_the_end_of_the_lifetime() {
    for lifetime in [None, Some(seconds(60))] {
        let world = World::new();
        let limits = Limits::default().idle_timeout(seconds(1)).max_lifetime(lifetime);
        let mut reactor = serving(&world, limits, echo());
        let clients: Vec<_> = (0..5).map(|_| world.connect(0)).collect();
        turns(&mut reactor, 7);
        for _ in 0..119 {
            world.advance(Duration::from_millis(500));
            clients.iter().for_each(|client| client.send(b"."));
            turns(&mut reactor, 2);
            assert!(clients.iter().all(|client| client.received() == b"." && !client.is_gone()));
        }
        // A whole minute has passed, of which no second was without a byte.
        world.advance(Duration::from_millis(500));
        clients.iter().for_each(|client| client.send(b"."));
        turns(&mut reactor, 2);
        let gone = clients.iter().filter(|client| client.is_gone() && client.saw_reset()).count();
        assert_eq!(gone, if lifetime.is_some() { 5 } else { 0 }, "{lifetime:?}");
    }
}
