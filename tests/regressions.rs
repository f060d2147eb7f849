//! One test for each fault that was found: by the simulator, by torture, by mutants. Each is named
//! for what happened, and none may happen again.

mod common;
mod sim;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use campanile::services::Echo;
use campanile::{Clock, ConnId, Limits, Outbox, Protocol, daytime, echo};
use common::diary::Diary;
use common::{TUTORIAL, TUTORIAL_LINE, pattern};
use sim::fake::{World, serving, settle};

const NOW: Option<Duration> = Some(Duration::ZERO);

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// A protocol of one closure, called for everything.
struct Each<F>(F);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Open,
    Data,
    Eof,
    Wake,
}

impl<F: FnMut(Call, &mut Outbox)> Protocol for Each<F> {
    fn on_open(&mut self, out: &mut Outbox) {
        (self.0)(Call::Open, out);
    }
    fn on_data(&mut self, _: &[u8], out: &mut Outbox) {
        (self.0)(Call::Data, out);
    }
    fn on_eof(&mut self, out: &mut Outbox) {
        (self.0)(Call::Eof, out);
        out.close();
    }
    fn on_wake(&mut self, out: &mut Outbox) {
        (self.0)(Call::Wake, out);
    }
}

/// Bounds were judged only when a run ended with nothing left to do.
#[test]
fn a_peer_that_never_stopped_talking_outlived_its_lifetime() {
    let world = World::new();
    let limits = Limits { lifetime: Some(seconds(5)), budget: 10, ..Limits::default() };
    let mut reactor = serving(&world, limits, echo());
    let client = world.connect(0);
    client.send(&pattern(10_000));
    for _ in 0..=5 {
        assert!(!client.is_gone());
        reactor.turn(NOW).unwrap();
        world.advance(seconds(1));
    }
    assert!(client.is_gone() && client.saw_reset());
}

#[test]
fn a_peer_that_never_stopped_talking_lingered_for_ever() {
    let world = World::new();
    let limits = Limits { linger: seconds(2), budget: 10, ..Limits::default() };
    let mut reactor = serving(&world, limits, daytime(Clock::fixed(TUTORIAL)));
    let client = world.connect(0);
    client.send(&pattern(10_000));
    for _ in 0..10 {
        reactor.turn(NOW).unwrap();
        world.advance(seconds(1));
    }
    assert!(TUTORIAL_LINE.starts_with(&client.received()));
    assert!(client.is_gone() && client.saw_reset());
}

#[test]
fn a_peer_that_never_stopped_talking_kept_a_protocol_from_its_wake_up() {
    let world = World::new();
    let mut reactor = serving(&world, Limits { budget: 10, ..Limits::default() }, |_| {
        Each(|call, out: &mut Outbox| match call {
            Call::Open => out.wake_after(seconds(1)),
            Call::Wake => out.abort(),
            _ => {}
        })
    });
    let client = world.connect(0);
    client.send(&pattern(10_000));
    reactor.turn(NOW).unwrap();
    world.advance(seconds(1));
    reactor.turn(NOW).unwrap();
    assert!(client.is_gone() && client.saw_reset());
}

/// Its bound counted from the last turn, however long ago that was.
#[test]
fn an_outgoing_connection_made_after_a_long_rest_was_given_up_at_once() {
    let (world, diary) = (World::new(), Diary::default());
    let mut reactor = serving(&world, Limits::default(), echo());
    settle(&mut reactor);
    world.advance(seconds(3600));
    let far = world.expect_connect();
    reactor.connect("192.0.2.1:7".parse().unwrap(), diary.of(Echo)).unwrap();
    settle(&mut reactor);
    assert_eq!(diary.reason(), None);
    world.advance(seconds(9));
    far.establish();
    settle(&mut reactor);
    assert_eq!(diary.letters(), "o");
}

#[test]
fn after_a_maker_had_panicked_the_next_connection_bore_the_same_identity() {
    let world = World::new();
    let seen = Rc::new(RefCell::new(Vec::<ConnId>::new()));
    let kept = seen.clone();
    let mut reactor = serving(&world, Limits::default(), move |new| {
        kept.borrow_mut().push(new.id);
        if kept.borrow().len() == 1 {
            std::panic::resume_unwind(Box::new("the first is one too many"));
        }
        Echo
    });
    let (unlucky, stranger) = (world.connect(0), world.connect(0));
    settle(&mut reactor);
    assert!(unlucky.is_gone() && !stranger.is_gone());
    assert_ne!(seen.borrow()[0], seen.borrow()[1]);
    reactor.handle().send(seen.borrow()[0], *b"not for you").unwrap();
    settle(&mut reactor);
    assert_eq!(stranger.received(), b"");
}

/// The clock of a stall ran while nothing was owed.
#[test]
fn a_debt_of_this_moment_was_taken_for_a_stall_of_minutes() {
    let world = World::new();
    let limits = Limits { stall: Some(seconds(10)), ..Limits::default() };
    let mut reactor = serving(&world, limits, echo());
    let client = world.connect(0);
    settle(&mut reactor);
    client.make_room(0);
    world.advance(seconds(60));
    let id = reactor.ids().next().unwrap();
    reactor.handle().send(id, *b"news").unwrap();
    settle(&mut reactor);
    assert!(!client.is_gone(), "it owes nothing for longer than this moment");
    world.advance(seconds(9));
    settle(&mut reactor);
    assert!(!client.is_gone());
    world.advance(seconds(3));
    settle(&mut reactor);
    assert!(client.is_gone() && client.saw_reset());
}

/// Lingering counted from the FIN, though the protocol had gone on listening.
#[test]
fn whoever_half_closed_and_closed_a_minute_later_gave_the_peer_no_time_to_end() {
    let (world, diary) = (World::new(), Diary::default());
    let kept = diary.clone();
    let mut reactor = serving(&world, Limits::default(), move |_| {
        kept.of(Each(|call, out: &mut Outbox| match call {
            Call::Open => {
                out.half_close();
                out.wake_after(seconds(60));
            }
            _ => out.close(),
        }))
    });
    let client = world.connect(0);
    settle(&mut reactor);
    world.advance(seconds(60));
    settle(&mut reactor);
    assert!(!client.is_gone(), "the peer may take its two seconds");
    world.advance(seconds(1));
    client.end();
    settle(&mut reactor);
    assert_eq!(diary.reason().as_deref(), Some("finished"));
    assert!(!client.saw_reset());
}

#[test]
fn a_loop_that_had_ended_asked_to_be_turned_for_ever() {
    let world = World::new();
    let mut reactor = serving(&world, Limits::default(), echo());
    let client = world.connect(0);
    settle(&mut reactor);
    reactor.handle().shutdown(seconds(1));
    settle(&mut reactor);
    client.end();
    settle(&mut reactor);
    assert!(reactor.is_finished());
    for _ in 0..3 {
        world.advance(seconds(10));
        reactor.turn(NOW).unwrap();
        assert_ne!(reactor.timeout(), NOW);
    }
}

/// After a full batch more may wait, of which a nested selector tells no second time.
#[test]
fn an_interrupted_poll_made_the_loop_forget_that_its_last_batch_was_full() {
    let world = World::with_capacity(1);
    let mut reactor = serving(&world, Limits::default(), echo());
    let clients = [world.connect(0), world.connect(0)];
    settle(&mut reactor);
    clients.iter().for_each(|client| client.send(b"x"));
    reactor.turn(NOW).unwrap();
    assert_eq!(reactor.timeout(), NOW);
    world.fail_poll(std::io::ErrorKind::Interrupted);
    reactor.turn(NOW).unwrap();
    assert_eq!(reactor.timeout(), NOW, "nobody has looked yet");
    settle(&mut reactor);
    assert!(clients.iter().all(|client| client.received() == b"x"));
}

#[test]
fn protocols_that_panicked_in_one_turn_were_counted_as_one_and_one_that_did_twice_as_two() {
    /// Panics when it hears something, and when it is dropped.
    struct Bomb;
    impl Protocol for Bomb {
        fn on_data(&mut self, _: &[u8], _: &mut Outbox) {
            std::panic::resume_unwind(Box::new("boom"));
        }
    }
    impl Drop for Bomb {
        fn drop(&mut self) {
            std::panic::resume_unwind(Box::new("boom, too"));
        }
    }
    let world = World::new();
    let mut reactor = serving(&world, Limits::default(), |_| Bomb);
    let clients = [world.connect(0), world.connect(0), world.connect(0)];
    clients.iter().for_each(|client| client.send(b"x"));
    settle(&mut reactor);
    assert!(clients.iter().all(|client| client.is_gone() && client.saw_reset()));
    assert_eq!(reactor.stats().panics, 3);
    let panic = reactor.take_panic().expect("the first is kept");
    assert_eq!(panic.downcast_ref(), Some(&"boom"));
}

/// One event a batch, and a listener whose door is to be shut and cannot be: with no slot
/// left, nobody asks it.
#[cfg(feature = "testing")]
fn behind_a_shut_door(
    world: &World,
    slots: usize,
) -> campanile::Reactor<campanile::testing::Faulty<sim::fake::Fake>> {
    use campanile::testing::{Book, Faulty, Plan};
    let (plan, book) = (Plan::new(0), Book::new(0));
    let limits = Limits { connections: slots, ..Limits::default() };
    let mut reactor =
        campanile::Reactor::with_kernel(Faulty::new(world.kernel(), &plan, &book), limits);
    book.serving("echo");
    reactor.listen("127.0.0.1:0", echo()).unwrap();
    for _ in 0..slots {
        world.connect(0);
    }
    (0..10).for_each(|_| reactor.turn(NOW).unwrap());
    plan.add("echo: never-accept".parse().unwrap()).unwrap();
    (0..10).for_each(|_| reactor.turn(NOW).unwrap());
    reactor
}

/// The events of its own that a fault adds were counted as if they filled the batch.
#[cfg(feature = "testing")]
#[test]
fn a_fault_that_could_not_be_acted_on_yet_kept_the_loop_from_sleeping() {
    let world = World::with_capacity(1);
    let reactor = behind_a_shut_door(&world, 1);
    assert_ne!(reactor.timeout(), NOW);
}

#[cfg(feature = "testing")]
#[test]
fn a_full_batch_was_not_seen_to_be_full_because_a_fault_had_added_to_it() {
    let world = World::with_capacity(1);
    let mut reactor = behind_a_shut_door(&world, 2);
    let ids: Vec<_> = reactor.ids().collect();
    assert_eq!(ids.len(), 2);
    world.stray_event(campanile::Source::Connection(0));
    world.stray_event(campanile::Source::Connection(1));
    reactor.turn(NOW).unwrap();
    assert_eq!(reactor.timeout(), NOW, "one of two events was left behind");
}
