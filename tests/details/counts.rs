//! What is counted: turns, ends, errors, and calls of the kernel.

use campanile::services::Echo;
use campanile::{Limits, Outbox, Protocol, echo};

use super::common::diary::Diary;
use super::sim::fake::World;
use super::{serving, turns};

#[test]
fn turns_closed_connections_and_accept_errors_have_counts_of_their_own() {
    let world = World::new();
    let mut reactor = serving(&world, Limits::default(), echo());
    turns(&mut reactor, 3);
    assert_eq!(reactor.stats().turns, 3);
    let polite = world.connect(0);
    polite.end();
    turns(&mut reactor, 3);
    assert!(polite.is_gone());
    world.fail_register();
    let unlucky = world.connect(0);
    turns(&mut reactor, 3);
    assert!(unlucky.is_gone());
    world.fail_accepts(0, &[libc::EMFILE]);
    world.connect(0);
    turns(&mut reactor, 1);
    let stats = reactor.stats();
    assert_eq!((stats.accepted, stats.closed), (2, 2));
    assert_eq!((stats.peer_resets, stats.our_resets), (0, 0), "no end has sent a reset");
    assert_eq!(stats.accept_errors, 1);
}

#[test]
fn a_call_that_would_block_is_not_repeated_before_an_event() {
    let world = World::new();
    let mut reactor = serving(&world, Limits::default(), echo());
    let client = world.connect(0);
    client.make_room(0);
    client.send(b"owed");
    turns(&mut reactor, 2);
    world.take_calls();
    client.send(b"owed, too");
    turns(&mut reactor, 2);
    assert_eq!(world.take_calls(), ["read"], "a readable event causes no write");
    client.make_room(usize::MAX);
    turns(&mut reactor, 2);
    assert_eq!(world.take_calls(), ["write"], "a writable event causes no read");
    assert_eq!(client.received(), b"owedowed, too");
}

#[test]
fn a_message_that_fits_is_written_by_one_call_and_never_copied() {
    /// Gives back all of the scratch buffer.
    struct Mirror;
    impl Protocol for Mirror {
        fn on_data(&mut self, data: &[u8], out: &mut Outbox) {
            out.send(data);
            assert_eq!((out.unsent(), out.queued()), (data.len(), &[][..]));
        }
    }
    let world = World::new();
    let limits = Limits::default().read_buffer(64);
    let mut reactor = serving(&world, limits, |_| Mirror);
    let client = world.connect(0);
    turns(&mut reactor, 2);
    world.take_calls();
    client.send(&[7; 64]);
    turns(&mut reactor, 2);
    assert_eq!(client.received(), [7; 64]);
    assert_eq!(world.take_calls(), ["read", "write", "read"]);
}

#[test]
fn a_run_that_has_spent_its_write_budget_neither_reads_nor_calls_on_drain() {
    for (high_water, letters) in [(10, "odrd"), (11, "od")] {
        let (world, diary) = (World::new(), Diary::default());
        let limits = Limits::default().leftover_budget(10).high_water(high_water);
        let kept = diary.clone();
        let mut reactor = serving(&world, limits, move |_| kept.of(Echo));
        let client = world.connect(0);
        client.make_room(0);
        client.send(&[7; 10]);
        turns(&mut reactor, 2);
        client.make_room(usize::MAX);
        client.send(b"more");
        world.take_calls();
        turns(&mut reactor, 1);
        assert_eq!((world.take_calls(), &*diary.letters()), (vec!["write"], "od"));
        turns(&mut reactor, 1);
        assert_eq!(diary.letters(), letters);
        assert_eq!(client.received().len(), 14);
    }
}
