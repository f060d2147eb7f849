//! The outbox: pausing, timers and per-connection timeouts, and unit tests of protocols without a loop.

use std::time::Instant;

use campanile::services::Echo;
use campanile::{CloseReason, Limits, Outbox, Protocol};

use super::common::diary::Diary;
use super::sim::fake::{World, serving, settle};
use super::{Call, Each, Log, NOW, join, seconds};

#[test]
fn pause_and_resume_leave_back_pressure_as_it_was() {
    let world = World::new();
    let limits = Limits::default().high_water(10).low_water(5);
    let mut reactor = serving(&world, limits, |_| {
        Each(|call: Call<'_>, out: &mut Outbox| match call {
            Call::Open => {
                out.pause();
                out.resume();
                out.resume();
            }
            Call::Data(data) => out.send(data),
            _ => {}
        })
    });
    let (client, _) = join(&world, &mut reactor);
    client.make_room(0);
    client.send(&[b'x'; 100]);
    settle(&mut reactor);
    assert_eq!(client.unread(), 90, "a congested peer is not read");
    client.make_room(usize::MAX);
    settle(&mut reactor);
    assert_eq!(client.received(), [b'x'; 100]);
}

#[test]
fn a_protocol_reads_while_congested_only_as_long_as_it_asks_for_it() {
    let world = World::new();
    let limits = Limits::default().high_water(10).low_water(5);
    let mut reactor = serving(&world, limits, |_| {
        Each(|call: Call<'_>, out: &mut Outbox| match call {
            Call::Open => {
                out.read_while_congested(true);
                out.send(&[0; 20]);
            }
            // A pause does not end it, and outranks it.
            Call::Wake if !out.is_paused() => out.pause(),
            Call::Wake => out.resume(),
            Call::Message(_) => out.read_while_congested(false),
            _ => {}
        })
    });
    let client = world.connect(0);
    client.make_room(0);
    settle(&mut reactor);
    let (id, handle) = (reactor.ids().next().unwrap(), reactor.handle());
    let mut unread_after = |act: &dyn Fn()| {
        act();
        settle(&mut reactor);
        client.send(b"x");
        settle(&mut reactor);
        client.unread()
    };
    assert_eq!(unread_after(&|| ()), 0);
    assert_eq!(unread_after(&|| handle.wake_connection(id).unwrap()), 1, "paused");
    assert_eq!(unread_after(&|| handle.wake_connection(id).unwrap()), 0, "resumed");
    assert_eq!(unread_after(&|| handle.send(id, b"").unwrap()), 1, "back-pressure again");
}

#[test]
fn a_deadline_calls_on_timer_and_a_wake_up_calls_on_wake() {
    let (world, diary) = (World::new(), Diary::default());
    let kept = diary.clone();
    let mut reactor = serving(&world, Limits::default().idle_timeout(None), move |_| {
        kept.of(Each(|call: Call<'_>, out: &mut Outbox| {
            if call == Call::Wake {
                assert!(out.timer().is_none_or(|timer| timer > out.now()));
                out.timer_after(seconds(5));
            }
        }))
    });
    let (client, id) = join(&world, &mut reactor);
    reactor.handle().wake_connection(id).unwrap();
    settle(&mut reactor);
    assert_eq!(diary.letters(), "ow");
    reactor.turn(None).unwrap();
    settle(&mut reactor);
    assert_eq!((diary.letters().as_str(), world.now()), ("owt", seconds(5)));
    assert_eq!(reactor.timeout(), None, "the timer is used up");
    // A wake-up while the timer runs replaces it, and neither stands for the other.
    for _ in 0..2 {
        reactor.handle().wake_connection(id).unwrap();
        settle(&mut reactor);
        world.advance(seconds(3));
    }
    settle(&mut reactor);
    assert_eq!(diary.letters(), "owtw");
    world.advance(seconds(2));
    client.send(b"data of the same turn");
    settle(&mut reactor);
    assert_eq!(diary.letters(), "owtwdt");
}

#[test]
fn timeouts_of_one_connection_leave_the_others_as_they_are() {
    let (world, log) = (World::new(), Log::default());
    let kept = log.clone();
    let limits = Limits::default().idle_timeout(seconds(10)).linger_timeout(seconds(2));
    let mut reactor = serving(&world, limits, move |_| Timid(kept.clone()));
    let [usual, patient, hasty, stalled] = std::array::from_fn(|_| world.connect(0));
    // A deadline is planned already when the connections change their timeouts.
    settle(&mut reactor);
    patient.send(b"patient");
    hasty.send(b"hasty");
    stalled.send(b"stalled");
    stalled.make_room(1);
    settle(&mut reactor);
    let mut seen = Vec::new();
    for second in 1..=16 {
        world.advance(seconds(1));
        settle(&mut reactor);
        let now = [&usual, &patient, &hasty, &stalled].map(|client| client.is_gone());
        if seen.last().is_none_or(|&(_, before)| before != now) {
            seen.push((second, now));
        }
    }
    let seconds: Vec<_> = seen.iter().map(|(second, _)| *second).collect();
    assert_eq!(seen.last().unwrap().1, [true, false, true, true], "{seen:?}");
    assert_eq!(seconds.len(), 4, "{seen:?}");
    assert!(seconds[1] <= 4 && seconds[2] <= 5 && (10..=12).contains(&seconds[3]), "{seen:?}");
    let reasons = ["idle for too long", "peer does not read", "idle for too long"];
    assert_eq!(log.take(), reasons);
}

/// Changes its timeouts as its client asks for.
struct Timid(Log);

impl Protocol for Timid {
    fn on_data(&mut self, data: &[u8], out: &mut Outbox) {
        match data {
            b"patient" => out.set_idle_timeout(None),
            b"hasty" => out.set_idle_timeout(Some(seconds(3))),
            _ => {
                out.set_idle_timeout(None);
                out.set_write_timeout(Some(seconds(4)));
                out.send(b"two bytes or more");
            }
        }
    }
    fn on_close(&mut self, reason: &CloseReason) {
        self.0.add(reason);
    }
}

#[test]
fn a_linger_timeout_of_one_connection_holds_for_it() {
    let world = World::new();
    let mut reactor = serving(&world, Limits::default(), |_| {
        Each(|call: Call<'_>, out: &mut Outbox| {
            if let Call::Data(data) = call {
                if data == b"long" {
                    out.set_linger_timeout(seconds(60));
                }
                out.close();
            }
        })
    });
    let (usual, long) = (world.connect(0), world.connect(0));
    usual.send(b"usual");
    long.send(b"long");
    settle(&mut reactor);
    world.advance(seconds(59));
    settle(&mut reactor);
    assert_eq!((usual.saw_reset(), long.is_gone()), (true, false));
    world.advance(seconds(1));
    settle(&mut reactor);
    assert!(long.saw_reset());
}

/// A producer: 100 bytes at a time until it is congested, 1,000 in all.
struct Producer(usize);

impl Protocol for Producer {
    fn on_data(&mut self, data: &[u8], out: &mut Outbox) {
        match data {
            b"abort" => out.abort(),
            b"end" => out.half_close(),
            _ => self.on_drain(out),
        }
    }
    fn on_drain(&mut self, out: &mut Outbox) {
        while self.0 > 0 && !out.is_congested() {
            out.send(&[7; 100]);
            self.0 -= 100;
        }
    }
}

#[test]
fn a_unit_test_drains_an_outbox_as_the_kernel_would() {
    let mut out = Outbox::with_high_water(Instant::now(), 400);
    let mut producer = Producer(1000);
    producer.on_data(b"go", &mut out);
    assert_eq!((producer.0, out.unsent()), (600, 400));
    let mut received = 0;
    while out.unsent() > 0 {
        received += out.unsent().min(150);
        if out.drain(150) {
            producer.on_drain(&mut out);
        }
    }
    assert_eq!((received, producer.0), (1000, 0));
    assert!(!out.drain(usize::MAX), "an empty outbox has nothing to drain");
}

#[test]
fn a_unit_test_sees_how_a_protocol_ends() {
    let ends = |data: &[u8]| {
        let mut out = Outbox::new(Instant::now());
        Producer(0).on_data(data, &mut out);
        (out.is_half_closed(), out.is_closed(), out.is_aborted())
    };
    assert_eq!(ends(b"go"), (false, false, false));
    assert_eq!(ends(b"end"), (true, false, false));
    assert_eq!(ends(b"abort"), (true, true, true));
    let mut out = Outbox::new(Instant::now());
    Echo.on_data(b"last words", &mut out);
    Echo.on_eof(&mut out);
    assert!(out.is_half_closed() && out.is_closed() && !out.is_aborted());
    out.send(b"never sent");
    assert_eq!(out.queued(), b"last words");
}

#[test]
fn a_send_larger_than_the_send_queue_resets_and_an_exact_fit_does_not() {
    for (size, fits) in [(1000, true), (1001, false), (1 << 26, false)] {
        let (world, diary) = (World::new(), Diary::default());
        let kept = diary.clone();
        let mut reactor =
            serving(&world, Limits::default().max_send_queue(1000), move |_| kept.of(Echo));
        let (client, id) = join(&world, &mut reactor);
        client.make_room(0);
        reactor.handle().send(id, vec![7; size]).unwrap();
        settle(&mut reactor);
        assert_eq!(diary.reason(), (!fits).then(|| "too much unsent".to_owned()), "{size}");
        client.make_room(usize::MAX);
        assert!(reactor.timeout() != NOW || fits);
        settle(&mut reactor);
        assert_eq!(
            (client.received().len(), client.saw_reset()),
            (size * usize::from(fits), !fits)
        );
    }
}
