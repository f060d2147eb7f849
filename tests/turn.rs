//! The turn, on a kernel without sockets: order, time and identity, counted and not clocked.

mod common;
mod sim;

use std::time::Duration;

use campanile::services::Echo;
use campanile::{ConnId, Limits, Outbox, Protocol, sys::Source};
use common::diary::Diary;
use common::{TUTORIAL_LINE, pattern};
use sim::fake::{NOW, World, both as reactor, serving, settle};

/// Turns without sleeping until nothing is left to do at once.
#[test]
fn both_services_turn_without_a_socket() {
    let world = World::new();
    let mut reactor = reactor(&world, Limits::default());
    let (time, voice) = (world.connect(0), world.connect(1));
    voice.send(b"Hello, world");
    settle(&mut reactor);
    assert_eq!(time.received(), TUTORIAL_LINE);
    assert!(time.saw_eof() && !time.is_gone(), "lingers");
    assert_eq!(voice.received(), b"Hello, world");
    time.end();
    voice.end();
    settle(&mut reactor);
    assert!(time.is_gone() && voice.is_gone() && voice.saw_eof());
    assert!(!time.saw_reset() && !voice.saw_reset());
    assert_eq!(reactor.connections(), 0);
}

#[test]
fn daytime_answers_in_the_turn_that_accepts() {
    let world = World::new();
    let mut reactor = reactor(&world, Limits::default());
    settle(&mut reactor);
    let client = world.connect(0);
    reactor.turn(NOW).unwrap();
    assert_eq!(client.received(), TUTORIAL_LINE);
    assert_eq!(world.take_calls(), ["write", "shutdown"], "and no read before its FIN is known of");
}

#[test]
fn a_message_waits_for_no_second_event() {
    let world = World::new();
    let mut reactor = reactor(&world, Limits::default().leftover_budget(10));
    let client = world.connect(1);
    let bytes = pattern(1000);
    client.send(&bytes);
    client.end();
    settle(&mut reactor);
    assert_eq!(client.received(), bytes);
    assert!(client.is_gone());
}

#[test]
fn back_pressure_stops_reading_and_ends_without_an_edge() {
    let world = World::new();
    let limits = Limits::default().high_water(1000).low_water(100);
    let mut reactor = reactor(&world, limits);
    let client = world.connect(1);
    client.make_room(0);
    let bytes = pattern(50_000);
    client.send(&bytes);
    settle(&mut reactor);
    assert_eq!(client.unread(), 49_000, "as much as may be owed, and not a byte more");
    let mut back = Vec::new();
    while back.len() < bytes.len() {
        client.make_room(333);
        settle(&mut reactor);
        let piece = client.received();
        assert!(!piece.is_empty(), "stalled after {} bytes", back.len());
        back.extend(piece);
    }
    assert_eq!(back, bytes);
}

#[test]
fn no_event_outlives_its_connection() {
    let world = World::new();
    let mut reactor = reactor(&world, Limits::default());
    let gone = world.connect(1);
    settle(&mut reactor);
    // One batch: the first connection's end twice over, and a newcomer that must not inherit it.
    gone.end();
    gone.stray();
    let newcomer = world.connect(1);
    settle(&mut reactor);
    world.stray_event(Source::Connection(0));
    world.stray_event(Source::Connection(77));
    world.stray_event(Source::Listener(77));
    settle(&mut reactor);
    assert!(gone.is_gone() && !newcomer.is_gone());
    newcomer.send(b"still here");
    settle(&mut reactor);
    assert_eq!(newcomer.received(), b"still here");
}

#[test]
fn a_batch_of_one_event_serves_everybody() {
    let world = World::with_capacity(1);
    let mut reactor = reactor(&world, Limits::default());
    let clients: Vec<_> = (0..100).map(|_| world.connect(1)).collect();
    for client in &clients {
        client.send(b"ping");
        settle(&mut reactor);
    }
    for client in &clients {
        client.send(b"pong");
        client.end();
    }
    settle(&mut reactor);
    for client in &clients {
        assert_eq!(client.received(), b"pingpong");
        assert!(client.is_gone());
    }
}

#[test]
fn a_firehose_leaves_every_pinger_its_turn_and_every_other_firehose_one_in_four() {
    let world = World::new();
    let mut reactor = reactor(&world, Limits::default().leftover_budget(4096));
    let hoses: Vec<_> = (0..4).map(|_| world.connect(1)).collect();
    let pingers: Vec<_> = (0..50).map(|_| world.connect(1)).collect();
    settle(&mut reactor);
    for hose in &hoses {
        hose.send(&pattern(1 << 20));
    }
    let mut waited = [0; 4];
    for turn in 0..100 {
        for pinger in &pingers {
            pinger.send(b"ping");
        }
        reactor.turn(NOW).unwrap();
        for pinger in &pingers {
            assert_eq!(pinger.received(), b"ping", "turn {turn}");
        }
        for (hose, waited) in hoses.iter().zip(&mut waited) {
            let taken = hose.received().len();
            assert!(taken <= 4096, "turn {turn}: {taken} bytes of a hose");
            *waited = if taken > 0 { 0 } else { *waited + 1 };
            assert!(*waited < 4, "turn {turn}: a hose has waited {waited} turns");
        }
    }
}

#[test]
fn an_idle_connection_is_reset_in_time_and_a_busy_one_is_not() {
    let world = World::new();
    let limits = Limits::default().idle_timeout(Duration::from_secs(300));
    let mut reactor = reactor(&world, limits);
    let (idle, busy) = (world.connect(1), world.connect(1));
    settle(&mut reactor);
    for _ in 0..11 {
        world.advance(Duration::from_secs(25));
        busy.send(b"x");
        settle(&mut reactor);
    }
    assert!(!idle.is_gone(), "{:?} are not 300 s", world.now());
    world.advance(Duration::from_secs(60));
    busy.send(b"x");
    settle(&mut reactor);
    assert!(idle.is_gone() && idle.saw_reset());
    assert!(!busy.is_gone());
    assert_eq!(reactor.stats().our_resets, 1);
}

#[test]
fn who_has_bytes_waiting_is_not_idle_though_no_event_has_told() {
    let world = World::new();
    let limits = Limits::default().idle_timeout(Duration::from_secs(10));
    let mut reactor = reactor(&world, limits);
    let client = world.connect(1);
    settle(&mut reactor);
    // As after SIGSTOP for twice the time, and SIGCONT: poll is interrupted, its batch is empty.
    world.advance(Duration::from_secs(20));
    client.send(b"patience");
    world.fail_poll(std::io::ErrorKind::Interrupted);
    reactor.turn(NOW).unwrap();
    assert_eq!(client.received(), b"patience");
    assert!(!client.is_gone());
}

#[test]
fn a_reader_who_stalls_is_reset_and_a_slow_one_is_not() {
    let world = World::new();
    let limits =
        Limits::default().idle_timeout(None).write_timeout(Duration::from_secs(10)).high_water(64);
    let mut reactor = reactor(&world, limits);
    let (stalled, slow) = (world.connect(1), world.connect(1));
    for client in [&stalled, &slow] {
        client.make_room(1);
        client.send(&pattern(64));
    }
    settle(&mut reactor);
    for _ in 0..10 {
        world.advance(Duration::from_secs(4));
        slow.make_room(1);
        settle(&mut reactor);
    }
    assert!(stalled.is_gone() && stalled.saw_reset());
    assert!(!slow.is_gone());
}

#[test]
fn lingering_ends_at_its_time_and_at_its_bytes() {
    let world = World::new();
    let limits = Limits::default().linger_bytes(10_000);
    let mut reactor = reactor(&world, limits);
    let (silent, chatty) = (world.connect(0), world.connect(0));
    settle(&mut reactor);
    chatty.send(&pattern(10_000));
    settle(&mut reactor);
    assert!(!chatty.is_gone());
    chatty.send(b"x");
    settle(&mut reactor);
    assert!(chatty.is_gone() && chatty.saw_reset());
    world.advance(Duration::from_millis(1_999));
    settle(&mut reactor);
    assert!(!silent.is_gone());
    world.advance(Duration::from_millis(1));
    settle(&mut reactor);
    assert!(silent.is_gone() && silent.saw_reset());
}

#[test]
fn a_lifetime_ends_the_busiest_connection() {
    let world = World::new();
    let limits = Limits::default().max_lifetime(Duration::from_secs(5));
    let mut reactor = reactor(&world, limits);
    let client = world.connect(1);
    for _ in 0..50 {
        assert!(!client.is_gone());
        client.send(b"x");
        settle(&mut reactor);
        world.advance(Duration::from_millis(100));
    }
    settle(&mut reactor);
    assert!(client.is_gone() && client.saw_reset());
}

#[test]
fn endless_and_tiny_timeouts_neither_overflow_nor_spin() {
    for length in [Duration::MAX, Duration::from_nanos(1)] {
        let world = World::new();
        let limits = Limits::default().idle_timeout(length).linger_timeout(length);
        let mut reactor = reactor(&world, limits);
        let client = world.connect(1);
        client.send(b"x");
        settle(&mut reactor);
        assert_eq!(client.received(), b"x");
        let polls = world.polls();
        reactor.turn(Some(Duration::from_secs(1))).unwrap();
        assert_eq!(world.polls(), polls + 1);
        assert_eq!(client.is_gone(), length < Duration::from_secs(1));
    }
}

#[test]
fn ten_thousand_idle_connections_wake_the_loop_once_a_minute() {
    let world = World::new();
    let mut reactor = reactor(&world, Limits::default());
    let clients: Vec<_> = (0..10_000)
        .map(|_| {
            let client = world.connect(1);
            settle(&mut reactor);
            world.advance(Duration::from_millis(1));
            client
        })
        .collect();
    for client in &clients {
        client.send(b"x");
        settle(&mut reactor);
        world.advance(Duration::from_millis(1));
    }
    let (polls, began) = (world.polls(), world.now());
    while reactor.connections() > 0 {
        reactor.turn(None).unwrap();
    }
    let minutes = (world.now() - began).as_secs() / 60;
    let wakes = world.polls() - polls;
    assert!(wakes as u64 <= minutes + 2, "{wakes} wake-ups in {minutes} minutes");
    assert!((4..=6).contains(&minutes), "ended after {minutes} minutes");
}

#[test]
fn a_protocol_of_ones_own_hears_the_calls_in_their_order() {
    let world = World::new();
    let diary = Diary::default();
    let kept = diary.clone();
    let mut reactor = serving(&world, Limits::default(), move |_| kept.of(Echo));
    let client = world.connect(0);
    client.send(b"one");
    settle(&mut reactor);
    client.send(b"two");
    client.end();
    settle(&mut reactor);
    assert_eq!(diary.letters(), "odec");
    assert_eq!(diary.reason().as_deref(), Some("finished"));
    assert_eq!(client.received(), b"onetwo");
}

#[test]
fn a_reset_with_output_pending_drops_it_and_is_counted() {
    let world = World::new();
    let mut reactor = reactor(&world, Limits::default());
    let client = world.connect(1);
    client.make_room(0);
    client.send(b"never comes back");
    settle(&mut reactor);
    client.reset();
    settle(&mut reactor);
    assert!(client.is_gone());
    assert_eq!(reactor.stats().peer_resets, 1);
}

#[test]
fn a_failed_registration_drops_that_connection_only() {
    let world = World::new();
    let mut reactor = reactor(&world, Limits::default());
    let before = world.connect(1);
    settle(&mut reactor);
    world.fail_register();
    let unlucky = world.connect(1);
    settle(&mut reactor);
    assert!(unlucky.is_gone() && !before.is_gone());
    before.send(b"x");
    settle(&mut reactor);
    assert_eq!(before.received(), b"x");
}

#[test]
fn an_identity_kept_for_too_long_names_nobody() {
    let world = World::new();
    let ids = std::rc::Rc::new(std::cell::RefCell::new(Vec::<ConnId>::new()));
    let seen = ids.clone();
    let mut reactor = serving(&world, Limits::default(), move |new| {
        seen.borrow_mut().push(new.id);
        Echo
    });
    let handle = reactor.handle();
    for _ in 0..1000 {
        let client = world.connect(0);
        settle(&mut reactor);
        client.end();
        settle(&mut reactor);
    }
    let stranger = world.connect(0);
    settle(&mut reactor);
    let stale = ids.borrow()[0];
    handle.send(stale, *b"not for you").unwrap();
    handle.close(stale).unwrap();
    settle(&mut reactor);
    assert_eq!((stranger.received(), stranger.saw_eof()), (vec![], false));
    assert_eq!(reactor.stats().gone, 2);
    handle.send(*ids.borrow().last().unwrap(), *b"for you").unwrap();
    settle(&mut reactor);
    assert_eq!(stranger.received(), b"for you");
}

#[test]
fn a_poll_that_fails_for_good_ends_the_run_and_an_interrupted_one_does_not() {
    let world = World::new();
    let mut reactor = reactor(&world, Limits::default());
    world.fail_poll(std::io::ErrorKind::Interrupted);
    reactor.turn(NOW).unwrap();
    world.fail_poll(std::io::ErrorKind::InvalidInput);
    assert_eq!(reactor.run().unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
}

#[test]
fn a_callback_gets_the_time_of_the_turn() {
    struct Stopwatch(std::time::Instant);
    impl Protocol for Stopwatch {
        fn on_open(&mut self, out: &mut Outbox) {
            self.0 = out.now();
        }
        fn on_data(&mut self, _: &[u8], out: &mut Outbox) {
            out.send(format!("{:?}", out.now() - self.0).as_bytes());
        }
    }
    let world = World::new();
    let began = std::time::Instant::now();
    let mut reactor = serving(&world, Limits::default(), move |_| Stopwatch(began));
    let client = world.connect(0);
    settle(&mut reactor);
    world.advance(Duration::from_secs(3));
    client.send(b"?");
    settle(&mut reactor);
    assert_eq!(client.received(), b"3s");
}

/// Says something, ends its half, and goes on listening.
struct Caller;
impl Protocol for Caller {
    fn on_open(&mut self, out: &mut Outbox) {
        out.send(b"question");
        out.half_close();
        out.send(b"too late");
    }
    fn on_data(&mut self, _: &[u8], out: &mut Outbox) {
        assert!(!out.is_closed());
        out.send(b"too late, too");
    }
}

#[test]
fn whoever_half_closes_goes_on_listening_and_is_not_called_lingering() {
    let (world, diary) = (World::new(), Diary::default());
    let kept = diary.clone();
    let mut reactor = serving(&world, Limits::default(), move |_| kept.of(Caller));
    let client = world.connect(0);
    settle(&mut reactor);
    assert_eq!((client.received(), client.saw_eof()), (b"question".to_vec(), true));
    world.advance(Duration::from_secs(60));
    client.send(b"answer");
    settle(&mut reactor);
    assert_eq!(diary.letters(), "od");
    assert_eq!(client.received(), b"");
    client.end();
    settle(&mut reactor);
    assert_eq!(diary.letters(), "odec");
    assert_eq!(diary.reason().as_deref(), Some("finished"));
    assert!(!client.saw_reset());
}

#[test]
fn a_paused_peer_is_not_read_until_it_is_resumed() {
    /// Hears one piece, and the next when it is woken.
    struct Choosy(u32);
    impl Protocol for Choosy {
        fn on_data(&mut self, _: &[u8], out: &mut Outbox) {
            self.0 += 1;
            out.pause();
            assert!(out.is_paused());
        }
        fn on_wake(&mut self, out: &mut Outbox) {
            out.send(&[self.0 as u8]);
            out.resume();
        }
    }
    let world = World::new();
    let limits = Limits::default().read_buffer(10);
    let mut reactor = serving(&world, limits, |_| Choosy(0));
    let client = world.connect(0);
    client.send(&pattern(30));
    client.end();
    for heard in 1..=3 {
        settle(&mut reactor);
        assert_eq!(client.unread(), 30 - heard * 10);
        let id = reactor.ids().next().unwrap();
        reactor.handle().wake_connection(id).unwrap();
        settle(&mut reactor);
        assert_eq!(client.received(), [heard as u8]);
    }
    assert!(client.is_gone(), "and then its EOF is read");
}

#[test]
fn data_and_fin_in_one_edge_are_both_noticed_on_every_selector() {
    for world in [World::new(), World::portable()] {
        let mut reactor = reactor(&world, Limits::default());
        let client = world.connect(1);
        settle(&mut reactor);
        for _ in 0..3 {
            client.send(b"more");
            settle(&mut reactor);
        }
        client.send(b"last");
        client.end();
        settle(&mut reactor);
        assert_eq!(client.received(), b"moremoremorelast");
        assert!(client.is_gone(), "a short read is not the end of what there is");
    }
}

#[test]
fn where_every_event_is_plain_a_short_read_spares_the_call_that_would_block() {
    for (world, calls) in
        [(World::new(), &["read", "write"][..]), (World::portable(), &["read", "write", "read"])]
    {
        let mut reactor = reactor(&world, Limits::default());
        let client = world.connect(1);
        client.send(b"warm");
        settle(&mut reactor);
        world.take_calls();
        client.send(b"message");
        settle(&mut reactor);
        assert_eq!(world.take_calls(), calls);
        // An urgent byte, or anything else out of the ordinary, ends that for good.
        client.stray();
        settle(&mut reactor);
        world.take_calls();
        client.send(b"message");
        settle(&mut reactor);
        assert_eq!(world.take_calls(), ["read", "write", "read"]);
    }
}
