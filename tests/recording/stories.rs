//! The stories of the guide: recordings of the library on a kernel without sockets, so that each run
//! makes the same calls. `CAMPANILE_STORIES=write` writes them again.

use std::fs;
use std::path::Path;
use std::time::Duration;

use campanile::record::{Recorded, Recorder};
use campanile::{Limits, Reactor, echo};

use crate::common::DEADLINE;
use crate::common::recording::{Paper, check, records};
use crate::sim::fake::{Fake, World, settle};

type Loop = Reactor<Recorded<Fake>>;

/// Plays a story on an echo server, and compares the recording with the committed one. Times differ
/// from run to run.
fn tell([name, title, text]: [&str; 3], limits: Limits, play: impl FnOnce(&World, &mut Loop)) {
    let (world, paper) = (World::new(), Paper::default());
    let recorder = Recorder::to(paper.clone(), name).record_bytes(32).services(["echo"]);
    let recorder = recorder.about(title, text);
    let kernel = Recorded::new(world.kernel(), Some(recorder.clone()), &limits).unwrap();
    let mut reactor = Reactor::with_kernel(kernel, limits);
    recorder.serving("echo");
    reactor.listen("127.0.0.1:0", echo()).unwrap();
    settle(&mut reactor);
    play(&world, &mut reactor);
    step(&world, &mut reactor);
    drop(reactor);
    assert!(recorder.finish(DEADLINE));
    let text = paper.text();
    check(&text);
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/guide/stories/{name}.jsonl"));
    if std::env::var_os("CAMPANILE_STORIES").is_some_and(|value| value == "write") {
        fs::write(&path, text).unwrap();
        return;
    }
    let committed = fs::read_to_string(&path).unwrap();
    let timeless = |text: &str| {
        let mut records = records(text);
        records.iter_mut().for_each(|record| drop(record.as_object_mut().unwrap().remove("t")));
        records
    };
    let (told, committed) = (timeless(&text), timeless(&committed));
    for (at, (told, committed)) in told.iter().zip(&committed).enumerate() {
        assert_eq!(told, committed, "line {} of {name}; CAMPANILE_STORIES=write renews it", at + 1);
    }
    assert_eq!(told.len(), committed.len(), "{name}; CAMPANILE_STORIES=write renews it");
}

/// Lets a millisecond pass, and turns until nothing is left to do.
fn step(world: &World, reactor: &mut Loop) {
    world.advance(Duration::from_millis(1));
    settle(reactor);
}

#[test]
fn a_short_write_leaves_a_rest_that_the_next_event_sends() {
    let about = [
        "short_write",
        "A short write",
        "The kernel takes 5 of 12 bytes. The rest stays in the send queue until an event reports room.",
    ];
    tell(about, Limits::default(), |world, reactor| {
        let client = world.connect(0);
        client.make_room(5);
        client.send(b"Hello, world");
        step(world, reactor);
        assert_eq!(client.received(), b"Hello");
        client.make_room(100);
        step(world, reactor);
        assert_eq!(client.received(), b", world");
        client.end();
    });
}

#[test]
fn back_pressure_stops_reading_at_high_water_and_begins_again_at_low_water() {
    let limits = Limits::default().read_buffer(16 << 10);
    let about = [
        "back_pressure",
        "Back-pressure",
        "The client sends 100 KiB and reads nothing. At high water the server stops reading; at low water it begins again.",
    ];
    tell(about, limits, |world, reactor| {
        let client = world.connect(0);
        client.make_room(0);
        client.send(&[b'x'; 100 << 10]);
        step(world, reactor);
        assert!(client.unread() > 0, "the server reads without end");
        for room in [20 << 10, 40 << 10, usize::MAX] {
            client.make_room(room);
            step(world, reactor);
        }
        assert_eq!(client.unread(), 0);
        client.end();
    });
}

#[test]
fn data_and_a_fin_arrive_with_one_event() {
    let about = [
        "data_and_fin",
        "Data and FIN in one edge",
        "The last bytes and the FIN arrive with one event. The server reads until it has seen both, because no other event comes.",
    ];
    tell(about, Limits::default(), |world, reactor| {
        let client = world.connect(0);
        step(world, reactor);
        client.send(b"goodbye");
        client.end();
        step(world, reactor);
        assert_eq!(client.received(), b"goodbye");
        assert!(client.saw_eof());
    });
}

#[test]
fn a_reset_overtakes_the_bytes_before_it() {
    let about = [
        "reset",
        "A reset that overtakes",
        "The client sends and then resets. The kernel discards the bytes that the server has not read yet.",
    ];
    tell(about, Limits::default(), |world, reactor| {
        let client = world.connect(0);
        step(world, reactor);
        client.send(b"these bytes are lost");
        client.reset();
        step(world, reactor);
        assert!(client.is_gone() && client.received().is_empty());
    });
}

#[test]
fn a_loop_without_descriptors_pauses_its_listener_and_goes_on() {
    let about = [
        "emfile",
        "No descriptor left",
        "accept4 fails with EMFILE. The listener pauses, the open connections go on, and the waiting client is accepted once one of them has ended.",
    ];
    tell(about, Limits::default(), |world, reactor| {
        world.limit_descriptors(2);
        let clients = [world.connect(0), world.connect(0), world.connect(0)];
        clients[2].send(b"third");
        step(world, reactor);
        clients[0].send(b"first");
        step(world, reactor);
        assert_eq!((clients[0].received(), clients[2].received()), (b"first".into(), vec![]));
        clients[0].end();
        step(world, reactor);
        assert_eq!(clients[2].received(), b"third");
        clients[1].end();
        clients[2].end();
    });
}

#[test]
fn a_stale_event_never_reaches_a_new_connection() {
    let about = [
        "stale_event",
        "A stale event",
        "One batch holds an event of a connection that ends in this turn, and a new client. The slot is free only from the next turn on, so the event cannot reach another connection.",
    ];
    tell(about, Limits::default(), |world, reactor| {
        let old = world.connect(0);
        step(world, reactor);
        // One batch: the end of the old connection, twice, and a new client.
        old.reset();
        old.stray();
        let new = world.connect(0);
        new.send(b"new");
        step(world, reactor);
        assert!(old.is_gone());
        assert_eq!(new.received(), b"new");
        let next = world.connect(0);
        next.send(b"in the slot of the old one");
        step(world, reactor);
        assert_eq!(next.received(), b"in the slot of the old one");
        new.end();
        next.end();
    });
}
