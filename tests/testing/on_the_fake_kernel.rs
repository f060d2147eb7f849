//! The wrappers on a kernel without sockets: no byte and no time but what the test gives.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use campanile::testing::{Book, Effect, Entry, Fault, Faulty, Ledger, Logged, Plan};
use campanile::{Clock, Limits, Reactor, daytime, echo};

use crate::common::{TUTORIAL, TUTORIAL_LINE, pattern};
use crate::sim::fake::{Client, Fake, NOW, World, settle};

struct Stage {
    world: World,
    plan: Plan,
    book: Book,
    reactor: Reactor<Faulty<Logged<Fake>>>,
}

impl Stage {
    fn new(seed: u64, limits: Limits) -> Stage {
        let (world, plan, book) = (World::new(), Plan::new(seed), Book::new(10_000));
        let kernel = Faulty::new(Logged::new(world.kernel(), &book), &plan, &book);
        let mut reactor = Reactor::with_kernel(kernel, limits);
        book.serving("daytime");
        reactor.listen("127.0.0.1:0", daytime(Clock::fixed(TUTORIAL))).unwrap();
        book.serving("echo");
        reactor.listen("127.0.0.1:0", echo()).unwrap();
        Stage { world, plan, book, reactor }
    }

    fn fault(&self, text: &str) {
        self.world.excuse();
        self.plan.add(text.parse().unwrap()).unwrap();
    }

    /// Turns until nothing is left to do at once.
    fn settle(&mut self) {
        settle(&mut self.reactor);
    }

    /// Lets time pass in the loop's own sleep.
    fn pass(&mut self, time: Duration) {
        self.settle();
        let end = self.world.now() + time;
        while self.world.now() < end {
            self.reactor.turn(Some(end - self.world.now())).unwrap();
        }
        self.settle();
    }
}

#[test]
fn without_a_fault_the_same_calls_are_made() {
    let mut stage = Stage::new(0, Limits::default());
    let (time, voice) = (stage.world.connect(0), stage.world.connect(1));
    voice.send(b"Hello, world");
    stage.settle();
    assert_eq!(time.received(), TUTORIAL_LINE);
    assert_eq!(voice.received(), b"Hello, world");
    let calls = stage.world.take_calls();
    assert_eq!(calls.iter().filter(|call| **call == "write").count(), 2, "{calls:?}");
    time.end();
    voice.end();
    stage.settle();
    let ended = stage.book.ended();
    assert!(ended.iter().all(|ledger| ledger.reason == "finished"), "{ended:?}");
    assert_eq!(ended.len(), 2);
}

#[test]
fn each_piece_is_sent_at_its_millisecond() {
    let mut stage = Stage::new(0, Limits::default());
    stage.fault("daytime: slice 10/5ms");
    let client = stage.world.connect(0);
    let began = stage.world.now();
    for piece in TUTORIAL_LINE.chunks(10) {
        stage.settle();
        assert_eq!(client.received(), piece);
        stage.pass(Duration::from_millis(5));
    }
    assert_eq!(stage.world.now() - began, Duration::from_millis(15));
    assert!(client.saw_eof());
}

#[test]
fn a_delay_wakes_the_loop_only_at_its_end() {
    let mut stage = Stage::new(0, Limits::default());
    stage.fault("echo: delay 10s");
    let client = stage.world.connect(1);
    client.send(b"x");
    stage.settle();
    let polls = stage.world.polls();
    stage.pass(Duration::from_secs(10));
    assert_eq!(client.received(), b"x");
    assert!(stage.world.polls() - polls < 12, "{} polls", stage.world.polls() - polls);
}

#[test]
fn no_bound_of_the_server_fires_because_of_a_fault() {
    let bound = Duration::from_secs(1);
    let limits =
        || Limits::default().idle_timeout(bound).write_timeout(bound).linger_timeout(bound);
    for (fault, first, wait) in [
        ("echo: delay 10s", "", 10),
        ("echo: slice 3/10s", "Hel", 10),
        ("echo: rate 1 byte/s", "H", 4),
        ("echo: stall after 3 bytes for 10s", "Hel", 10),
        ("echo: deaf for 10s", "", 10),
    ] {
        let mut stage = Stage::new(0, limits());
        stage.fault(fault);
        let client = stage.world.connect(1);
        client.send(b"Hello");
        stage.settle();
        assert_eq!(client.received(), first.as_bytes(), "{fault}");
        stage.pass(Duration::from_secs(wait));
        assert_eq!(client.received(), &b"Hello"[first.len()..], "{fault}");
        // The timeouts begin anew when the fault lets the connection go on.
        stage.pass(bound - Duration::from_millis(1));
        assert!(!client.is_gone(), "{fault}");
        stage.pass(bound);
        assert_eq!(stage.book.ended()[0].reason, "idle for too long", "{fault}");
    }
}

#[test]
fn a_read_that_a_trigger_cuts_short_loses_nothing() {
    let mut stage = Stage::new(0, Limits::default());
    stage.fault("echo: corrupt after 10 bytes in");
    let client = stage.world.connect(1);
    stage.settle();
    let bytes = pattern(104);
    client.send(&bytes[..4]);
    stage.settle();
    client.send(&bytes[4..]);
    stage.settle();
    let back = client.received();
    let wrong: Vec<_> = (0..104).filter(|at| back[*at] != bytes[*at]).collect();
    assert_eq!(wrong, [10]);
}

#[test]
fn after_a_close_the_client_has_the_linger_time_to_end() {
    let limits = Limits::default().linger_timeout(Duration::from_secs(2));
    let mut stage = Stage::new(0, limits);
    stage.fault("echo: close after 3 bytes");
    let client = stage.world.connect(1);
    client.send(b"Hello");
    stage.settle();
    assert!(client.saw_eof() && !client.is_gone());
    stage.pass(Duration::from_millis(1_999));
    assert!(!client.is_gone());
    stage.pass(Duration::from_millis(1));
    assert!(client.is_gone() && !client.saw_reset());
}

#[test]
fn a_listener_stops_and_accepts_again_with_its_faults() {
    let mut stage = Stage::new(0, Limits::default());
    stage.settle();
    let id = stage.plan.add("echo: never-accept".parse().unwrap()).unwrap();
    stage.settle();
    let client = stage.world.connect(1);
    client.send(b"x");
    stage.settle();
    assert_eq!((client.received(), stage.book.accepted("echo")), (vec![], 0));
    stage.plan.remove(id);
    stage.settle();
    assert_eq!(client.received(), b"x");
    stage.plan.add("echo: refuse".parse().unwrap()).unwrap();
    stage.settle();
    assert!(stage.world.is_closed(1) && !stage.world.is_closed(0));
}

#[test]
fn the_reader_of_a_book_is_called_for_every_entry() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let (writer, world, plan) = (Arc::clone(&heard), World::new(), Plan::new(0));
    let book = Book::read_by(move |entry| {
        writer.lock().unwrap().push(match entry {
            Entry::Accepted(ledger) => format!("accepted {} #{}", ledger.service, ledger.id),
            Entry::Closed(ledger) => format!("closed #{}: {}", ledger.id, ledger.reason),
            Entry::AcceptError { service, error } => format!("{service}: {error}"),
            other => panic!("{other:?}"),
        });
    });
    let kernel = Faulty::new(Logged::new(world.kernel(), &book), &plan, &book);
    let mut reactor = Reactor::with_kernel(kernel, Limits::default());
    book.serving("echo");
    reactor.listen("127.0.0.1:0", echo()).unwrap();
    world.fail_accepts(0, &[libc::ECONNABORTED]);
    world.connect(0).end();
    for _ in 0..3 {
        reactor.turn(NOW).unwrap();
    }
    let aborted = "echo: Software caused connection abort (os error 103)";
    assert_eq!(*heard.lock().unwrap(), [aborted, "accepted echo #1", "closed #1: finished"]);
}

/// Four hundred connections of all kinds under faults of all kinds.
fn crowd(seed: u64) -> Vec<Ledger> {
    let limits = Limits::default().idle_timeout(Duration::from_secs(20));
    let mut stage = Stage::new(seed, limits);
    for text in [
        "echo 10%: reset after 5 bytes",
        "echo 10%: close after 7 bytes",
        "echo 10%: delay 20ms+-20ms",
        "echo 10%: slice 3/2ms",
        "echo 10%: rate 100 bytes/s after 2 bytes",
        "echo 10%: short 2",
        "echo 10%: stall at write 2",
        "echo 10%: deaf after 4 bytes in",
        "echo 10%: corrupt after 1 byte",
        "echo 10%: hold-open",
        "daytime 30%: shut after 9 bytes",
        "daytime #5..50: close at write 1",
    ] {
        stage.fault(text);
    }
    let clients: Vec<Client> = (0..400)
        .map(|at| {
            let client = stage.world.connect(at % 2);
            client.make_room(at % 40 + 1);
            client.send(&pattern(at % 60));
            stage.pass(Duration::from_millis(at as u64 % 3));
            client
        })
        .collect();
    for client in &clients {
        client.make_room(usize::MAX);
        client.end();
        stage.pass(Duration::from_millis(1));
    }
    stage.plan.clear();
    stage.pass(Duration::from_secs(60));
    assert_eq!(stage.reactor.connections(), 0, "every connection ends");
    stage.book.ended()
}

#[test]
fn one_seed_makes_the_same_ledgers() {
    let ledgers = crowd(1);
    assert_eq!(ledgers.len(), 400);
    assert!(ledgers == crowd(1));
    let applied = |ledgers: &[Ledger]| {
        let mut faults: Vec<_> =
            ledgers.iter().map(|l| (l.service.clone(), l.id, l.faults.clone())).collect();
        faults.sort_by_key(|(service, number, _)| (service.clone(), *number));
        faults
    };
    assert_ne!(applied(&ledgers), applied(&crowd(2)));
    let kinds = |fault: &Fault| std::mem::discriminant::<Effect>(&fault.effect);
    let seen: std::collections::HashSet<_> =
        ledgers.iter().flat_map(|ledger| ledger.faults.iter().map(kinds)).collect();
    assert_eq!(seen.len(), 11, "every effect was met");
}

#[test]
fn a_gap_without_an_end_never_ends() {
    const AGES: Duration = Duration::from_secs(500 * 86_400);
    let endless = Limits::default().idle_timeout(None).linger_timeout(Duration::MAX);
    for (fault, expected) in [
        ("echo: slice 3/18446744073709551615s", &b"Hel"[..]),
        // No clock counts so far, and one that counts a little further does.
        ("echo: slice 3/9223372036854775807s", b"Hel"),
        ("echo: slice 3/1000000h", b"Hel"),
        ("echo: slice 3/1099511627776ms", b"Hel"),
        ("echo: delay 18446744073709551615s", b""),
        ("echo: delay 5000000000000000h+-5000000000000000h", b""),
        ("echo: delay 1099511628s", b""),
        ("echo: slice 3/18446744073709551615s after 2 bytes", b"Hello"),
    ] {
        let mut stage = Stage::new(7, endless.clone());
        stage.fault(fault);
        let client = stage.world.connect(1);
        client.send(b"Hello");
        stage.settle();
        let polls = stage.world.polls();
        stage.pass(AGES);
        assert_eq!(client.received(), expected, "{fault}");
        assert!(stage.world.polls() - polls < 200, "{fault}: {} polls", stage.world.polls());
        assert!(!client.is_gone(), "{fault}");
    }
}

#[test]
fn a_fault_that_closes_waits_for_the_peer_as_long_as_the_linger_timeout_says() {
    for (linger, is_gone) in [
        (Duration::from_secs(2), true),
        (Duration::from_secs(u64::MAX), false),
        (Duration::MAX, false),
    ] {
        let limits = Limits::default().idle_timeout(None).linger_timeout(linger);
        let mut stage = Stage::new(0, limits);
        stage.fault("echo: close after 5 bytes");
        let client = stage.world.connect(1);
        client.send(b"Hello");
        stage.settle();
        assert!(client.saw_eof() && !client.is_gone(), "{linger:?}");
        stage.pass(Duration::from_secs(3));
        assert_eq!(client.is_gone(), is_gone, "{linger:?}");
        client.end();
        stage.settle();
        assert!(client.is_gone(), "{linger:?}");
    }
}
