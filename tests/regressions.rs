//! One test for each fault that the simulator, the torture test or a mutant has found. Its name says
//! what holds; the comment above it says what went wrong.

mod common;
mod sim;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use campanile::services::Echo;
use campanile::{Clock, ConnId, Limits, Outbox, daytime, echo};
use common::diary::Diary;
use common::each::{Call, Each};
use common::{TUTORIAL, TUTORIAL_LINE, pattern};
use sim::fake::{NOW, World, serving, settle};

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Bounds were checked only when a run ended with nothing left to do.
#[test]
fn a_peer_that_never_stops_sending_is_reset_at_its_lifetime() {
    let world = World::new();
    let limits = Limits::default().max_lifetime(seconds(5)).leftover_budget(10);
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

/// As above: such a peer lingered for ever.
#[test]
fn a_peer_that_never_stops_sending_is_reset_at_the_linger_timeout() {
    let world = World::new();
    let limits = Limits::default().linger_timeout(seconds(2)).leftover_budget(10);
    let mut reactor = serving(&world, limits, daytime(Clock::fixed(TUTORIAL)));
    let client = world.connect(0);
    client.send(&pattern(10_000));
    for _ in 0..10 {
        reactor.turn(NOW).unwrap();
        world.advance(seconds(1));
    }
    assert_eq!(client.received(), TUTORIAL_LINE);
    assert!(client.is_gone() && client.saw_reset());
}

/// As above: the protocol of such a peer was never woken.
#[test]
fn a_protocol_is_woken_in_time_though_its_peer_never_stops_sending() {
    let world = World::new();
    let mut reactor = serving(&world, Limits::default().leftover_budget(10), |_| {
        Each(|call: Call<'_>, out: &mut Outbox| match call {
            Call::Open => out.timer_after(seconds(1)),
            Call::Timer => out.abort(),
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

/// The connect timeout counted from the last turn, however long ago that was.
#[test]
fn an_outgoing_connection_has_its_whole_connect_timeout_after_a_long_rest() {
    let (world, diary) = (World::new(), Diary::default());
    let mut reactor = serving(&world, Limits::default(), echo());
    settle(&mut reactor);
    world.advance(seconds(3600));
    let far = world.expect_connect();
    reactor.connect(std::net::SocketAddr::from(([192, 0, 2, 1], 7)), diary.of(Echo));
    settle(&mut reactor);
    assert_eq!(diary.reason(), None);
    world.advance(seconds(9));
    far.establish();
    settle(&mut reactor);
    assert_eq!(diary.letters(), "o");
}

/// The next connection got the id of the one whose maker had panicked.
#[test]
fn an_id_whose_maker_panicked_is_never_given_again() {
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

/// The write timeout ran while nothing was queued.
#[test]
fn the_write_timeout_counts_from_the_moment_something_is_queued() {
    let world = World::new();
    let limits = Limits::default().write_timeout(seconds(10));
    let mut reactor = serving(&world, limits, echo());
    let client = world.connect(0);
    settle(&mut reactor);
    client.make_room(0);
    world.advance(seconds(60));
    let id = reactor.ids().next().unwrap();
    reactor.handle().send(id, *b"news").unwrap();
    settle(&mut reactor);
    assert!(!client.is_gone(), "nothing was queued before this moment");
    world.advance(seconds(9));
    settle(&mut reactor);
    assert!(!client.is_gone());
    world.advance(seconds(3));
    settle(&mut reactor);
    assert!(client.is_gone() && client.saw_reset());
}

/// The linger timeout counted from the FIN, though the protocol had gone on reading.
#[test]
fn the_linger_timeout_counts_from_the_close_of_a_protocol_that_half_closed_before() {
    let (world, diary) = (World::new(), Diary::default());
    let kept = diary.clone();
    let mut reactor = serving(&world, Limits::default(), move |_| {
        kept.of(Each(|call: Call<'_>, out: &mut Outbox| match call {
            Call::Open => {
                out.half_close();
                out.timer_after(seconds(60));
            }
            _ => out.close(),
        }))
    });
    let client = world.connect(0);
    settle(&mut reactor);
    world.advance(seconds(60));
    settle(&mut reactor);
    assert!(!client.is_gone(), "the peer has two seconds to end its half");
    world.advance(seconds(1));
    client.end();
    settle(&mut reactor);
    assert_eq!(diary.reason().as_deref(), Some("finished"));
    assert!(!client.saw_reset());
}

/// Its timeout stayed zero for ever.
#[test]
fn a_reactor_that_has_ended_does_not_ask_for_another_turn() {
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

/// After a full batch more events may wait, and a nested selector reports them only once. An
/// interrupted poll made the loop forget that its last batch was full.
#[test]
fn a_full_batch_is_remembered_across_an_interrupted_poll() {
    let world = World::with_capacity(1);
    let mut reactor = serving(&world, Limits::default(), echo());
    let clients = [world.connect(0), world.connect(0)];
    settle(&mut reactor);
    clients.iter().for_each(|client| client.send(b"x"));
    reactor.turn(NOW).unwrap();
    assert_eq!(reactor.timeout(), NOW);
    world.fail_poll(std::io::ErrorKind::Interrupted);
    reactor.turn(NOW).unwrap();
    assert_eq!(reactor.timeout(), NOW, "an interrupted poll fetches nothing");
    settle(&mut reactor);
    assert!(clients.iter().all(|client| client.received() == b"x"));
}

/// One event a batch, and a listener that a fault is to shut but cannot: with no slot left, the
/// reactor does not call accept.
#[cfg(feature = "testing")]
fn behind_a_shut_door(
    world: &World,
    slots: usize,
) -> campanile::Reactor<campanile::testing::Faulty<sim::fake::Fake>> {
    use campanile::testing::{Book, Faulty, Plan};
    let (plan, book) = (Plan::new(0), Book::new(0));
    let limits = Limits::default().max_connections(slots);
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

/// The events that a fault adds were counted as if they filled the batch.
#[cfg(feature = "testing")]
#[test]
fn the_loop_sleeps_while_a_fault_waits_until_a_listener_is_asked() {
    let world = World::with_capacity(1);
    let reactor = behind_a_shut_door(&world, 1);
    assert_ne!(reactor.timeout(), NOW);
}

/// A batch that was full looked longer than full because a fault had added to it.
#[cfg(feature = "testing")]
#[test]
fn a_full_batch_counts_as_full_beside_the_events_that_a_fault_adds() {
    let world = World::with_capacity(1);
    let mut reactor = behind_a_shut_door(&world, 2);
    let ids: Vec<_> = reactor.ids().collect();
    assert_eq!(ids.len(), 2);
    world.stray_event(campanile::sys::Source::Connection(0));
    world.stray_event(campanile::sys::Source::Connection(1));
    reactor.turn(NOW).unwrap();
    assert_eq!(reactor.timeout(), NOW, "one of two events was left behind");
}
