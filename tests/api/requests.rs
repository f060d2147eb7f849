//! Requests between connections: `out.message`, `out.wake` and `out.connect`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use campanile::{ConnId, Limits, Outbox, Protocol, Reactor};

use super::sim::fake::{Fake, World, serving, settle};
use super::{Call, Each, Ends, Log, NOW, join, nowhere};

type Target = Rc<Cell<Option<ConnId>>>;

/// Logs messages and wake-ups, and calls `on_data` with the id of the target when data arrives.
fn chained(
    world: &World,
    on_data: impl Fn(ConnId, &mut Outbox) + Clone + 'static,
) -> (Reactor<Fake>, Target, Log) {
    let (target, log) = (Target::default(), Log::default());
    let (to, kept) = (target.clone(), log.clone());
    let each = move |call: Call<'_>, out: &mut Outbox| match call {
        Call::Data(_) => on_data(to.get().unwrap_or(out.id()), out),
        Call::Message(bytes) => kept.add(String::from_utf8_lossy(bytes)),
        Call::Wake => kept.add("wake"),
        _ => {}
    };
    let reactor = serving(world, Limits::default(), move |_| Each(each.clone()));
    (reactor, target, log)
}

#[test]
fn messages_and_wake_ups_of_one_call_arrive_in_order_and_in_the_same_turn() {
    let world = World::new();
    let (mut reactor, target, log) = chained(&world, |to, out| {
        out.message(to, b"one");
        out.wake(to);
        out.message(to, b"");
        out.message(to, b"two");
        assert_eq!(out.messages().count(), 3);
    });
    let (client, _) = join(&world, &mut reactor);
    let (_other, id) = join(&world, &mut reactor);
    target.set(Some(id));
    let (wakes, polls) = (world.wakes(), world.polls());
    client.send(b"go");
    reactor.turn(NOW).unwrap();
    assert_eq!(log.take(), ["one", "wake", "", "two"]);
    assert_eq!((world.wakes(), world.polls()), (wakes, polls + 1), "no mailbox is involved");
}

#[test]
fn a_message_for_a_connection_that_is_gone_is_counted_and_reaches_no_other() {
    let world = World::new();
    let (mut reactor, target, log) = chained(&world, |to, out| {
        out.message(to, b"late");
        out.wake(to);
    });
    let (client, _) = join(&world, &mut reactor);
    let (gone, id) = join(&world, &mut reactor);
    gone.end();
    settle(&mut reactor);
    // The next connection gets the slot.
    let (heir, _) = join(&world, &mut reactor);
    target.set(Some(id));
    client.send(b"go");
    settle(&mut reactor);
    assert_eq!((reactor.stats().gone, log.take()), (2, vec![]));
    assert!(heir.received().is_empty() && !client.is_gone());
}

#[test]
fn two_protocols_that_message_each_other_for_ever_leave_the_others_their_turns() {
    let (world, count) = (World::new(), Rc::new(Cell::new(0)));
    let kept = count.clone();
    let mut reactor = serving(&world, Limits::default(), move |_| {
        let (kept, mut other) = (kept.clone(), None);
        Each(move |call: Call<'_>, out: &mut Outbox| match call {
            Call::Data(data) => {
                let ordinal = u64::from(data[0]);
                other = Some(out.id()).filter(|id| id.ordinal() == ordinal);
                out.send(data);
            }
            Call::Message(bytes) => {
                kept.set(kept.get() + 1);
                out.message(out.id(), bytes);
                out.wake(other.unwrap_or(out.id()));
            }
            _ => {}
        })
    });
    let (_first, id) = join(&world, &mut reactor);
    let (_second, other) = join(&world, &mut reactor);
    let (client, _) = join(&world, &mut reactor);
    reactor.handle().send(id, b"for ever").unwrap();
    reactor.handle().send(other, b"for ever").unwrap();
    for turn in 1..=50_u8 {
        client.send(&[turn]);
        reactor.turn(NOW).unwrap();
        assert_eq!(client.received(), [turn]);
        assert_eq!(reactor.timeout(), NOW, "requests are left, and no event reports them");
    }
    assert!((50..=500).contains(&count.get()), "{} messages in 50 turns", count.get());
}

#[test]
fn a_message_to_itself_comes_after_the_call_and_never_after_a_close() {
    let (world, log) = (World::new(), Log::default());
    let kept = log.clone();
    let each = move |call: Call<'_>, out: &mut Outbox| match call {
        Call::Data(data) => {
            out.message(out.id(), b"later");
            out.send(b"now, ");
            if data == b"end" {
                out.close();
            }
            kept.add("data");
        }
        Call::Message(bytes) => {
            kept.add("message");
            out.send(bytes);
        }
        _ => {}
    };
    let mut reactor = serving(&world, Limits::default(), move |_| Each(each.clone()));
    let (client, _) = join(&world, &mut reactor);
    client.send(b"go");
    settle(&mut reactor);
    assert_eq!(
        (log.take(), client.received()),
        (vec!["data".into(), "message".into()], b"now, later".to_vec())
    );
    client.send(b"end");
    settle(&mut reactor);
    assert_eq!((log.take(), reactor.stats().gone), (vec!["data".to_owned()], 1));
}

/// One side of a relay. Both sides share a place where each one leaves its id.
struct Side {
    own: Target,
    other: Target,
}

impl Protocol for Side {
    fn on_open(&mut self, out: &mut Outbox) {
        self.own.set(Some(out.id()));
        match self.other.get() {
            Some(other) => out.wake(other),
            None => {
                // No side takes the data yet.
                out.pause();
                let (own, other) = (self.other.clone(), self.own.clone());
                out.connect(nowhere(), Side { own, other });
            }
        }
    }
    fn on_data(&mut self, data: &[u8], out: &mut Outbox) {
        out.message(self.other.get().unwrap(), data);
    }
    fn on_wake(&mut self, out: &mut Outbox) {
        out.resume();
    }
}

fn relay() -> Side {
    Side { own: Target::default(), other: Target::default() }
}

#[test]
fn bytes_that_pass_through_three_connections_are_not_those_of_a_later_read() {
    /// Passes what it receives on to the next place; the last one sends it.
    struct Stage(Rc<RefCell<Vec<ConnId>>>);
    impl Protocol for Stage {
        fn on_data(&mut self, data: &[u8], out: &mut Outbox) {
            self.on_message(data, out);
        }
        fn on_message(&mut self, bytes: &[u8], out: &mut Outbox) {
            let places = self.0.borrow();
            match places.iter().skip_while(|id| **id != out.id()).nth(1) {
                Some(next) => out.message(*next, bytes),
                None => out.send(bytes),
            }
        }
    }
    let world = World::new();
    let places = Rc::new(RefCell::new(Vec::new()));
    let shared = places.clone();
    let limits = Limits::default().read_buffer(64);
    let mut reactor = serving(&world, limits, move |_| Stage(shared.clone()));
    let stages: Vec<_> = (0..3).map(|_| join(&world, &mut reactor)).collect();
    places.borrow_mut().extend(stages.iter().map(|(_, id)| *id));
    let (other, _) = join(&world, &mut reactor);
    for _ in 0..10 {
        // Both are ready in one turn, and the other one is read after the first.
        stages[0].0.send(&[1; 64]);
        other.send(&[2; 64]);
        settle(&mut reactor);
        assert_eq!((stages[2].0.received(), other.received()), (vec![1; 64], vec![2; 64]));
    }
}

#[test]
fn a_relay_passes_data_both_ways_in_the_turn_that_reads_it_and_wakes_no_loop() {
    let world = World::new();
    let mut reactor = serving(&world, Limits::default(), |_| relay());
    let far = world.expect_connect();
    let client = world.connect(0);
    client.send(b"early");
    settle(&mut reactor);
    assert_eq!(client.unread(), 5, "the other side is not connected");
    far.establish();
    settle(&mut reactor);
    assert_eq!(far.received(), b"early");
    let wakes = world.wakes();
    for chunk in 0..100_u8 {
        client.send(&[chunk]);
        far.send(&[chunk, chunk]);
        reactor.turn(NOW).unwrap();
        assert_eq!((far.received(), client.received()), (vec![chunk], vec![chunk; 2]));
    }
    assert_eq!(world.wakes(), wakes, "no chunk passes the mailbox");
    assert_eq!((reactor.stats().connecting, reactor.stats().gone), (1, 0));
}

/// Connects when it is opened.
fn dials(log: Log) -> Each<impl FnMut(Call<'_>, &mut Outbox) + 'static> {
    Each(move |call: Call<'_>, out: &mut Outbox| {
        if call == Call::Open {
            log.add(format!("front open {}", out.id()));
            out.connect(nowhere(), Ends("back", log.clone()));
        }
    })
}

#[test]
fn an_outgoing_connection_knows_its_id_when_it_opens() {
    let (world, log) = (World::new(), Log::default());
    let kept = log.clone();
    let mut reactor = serving(&world, Limits::default(), move |_| dials(kept.clone()));
    let far = world.expect_connect();
    far.establish();
    world.connect(0);
    settle(&mut reactor);
    assert_eq!(log.take(), ["front open #1", "back open #2"]);
    // The same from outside of a call.
    let far = world.expect_connect();
    far.establish();
    let id = reactor.connect(nowhere(), Ends("own", log.clone()));
    settle(&mut reactor);
    assert_eq!((log.take(), id.to_string()), (vec!["own open #3".to_owned()], "#3".to_owned()));
    reactor.handle().close(id).unwrap();
    settle(&mut reactor);
    assert!(far.saw_eof(), "the id is that of the connection");
}

#[test]
fn a_failed_attempt_is_reported_once_in_on_close() {
    let (world, log) = (World::new(), Log::default());
    let kept = log.clone();
    let mut reactor = serving(&world, Limits::default(), move |_| dials(kept.clone()));
    // No route: the attempt ends inside the call. Refused: it ends with an event.
    for is_refused in [false, true] {
        let far = is_refused.then(|| world.expect_connect());
        world.connect(0);
        if let Some(far) = far {
            reactor.turn(NOW).unwrap();
            far.refuse();
        }
        settle(&mut reactor);
        let lines = log.take();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[1].starts_with("back closed: cannot connect: "), "{lines:?}");
    }
    let id = reactor.connect(nowhere(), Ends("own", log.clone()));
    assert!(log.take()[0].contains("unreachable"), "without a turn");
    assert!(reactor.ids().all(|other| other != id));
    reactor.handle().send(id, b"x").unwrap();
    settle(&mut reactor);
    assert_eq!((reactor.stats().gone, log.take()), (1, vec![]));
}
