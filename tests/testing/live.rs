//! Faults that begin and end on open connections.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use campanile::testing::{Fault, Plan, Service, Side, TestServer};
use campanile::{Limits, Outbox, Protocol};

use super::effects::{End, read_to_end};
use crate::common::{DEADLINE, TUTORIAL_LINE, pattern, ping, read_all, read_exactly};
use crate::sim::random::Random;

const SECOND: Duration = Duration::from_secs(1);

/// A connection that the service has answered once.
fn greeted(service: Service<'_>) -> TcpStream {
    let mut client = service.connect();
    ping(&mut client, b"hello");
    client
}

/// A server whose bounds do not end a connection of these tests.
fn unbounded() -> TestServer {
    let limits = Limits::default().idle_timeout(None).write_timeout(None).linger_timeout(DEADLINE);
    TestServer::builder().limits(limits).manual_time().start()
}

#[test]
fn a_reset_of_every_connection_does_not_wait_for_a_byte() {
    let server = TestServer::start();
    let mut clients: Vec<_> = (0..20).map(|_| greeted(server.echo())).collect();
    let mut other = server.daytime().connect();
    let _reset = server.echo().always("reset");
    for client in &mut clients {
        assert_eq!(read_to_end(client), (vec![], End::Reset));
        assert_eq!(server.echo().ended().bytes_in, 5);
    }
    assert_eq!(read_all(&mut other).unwrap(), TUTORIAL_LINE);
}

#[test]
fn each_choice_of_connections_includes_the_open_ones_or_leaves_them_alone() {
    for (fault, reset) in [
        ("echo: reset", [true, true, true]),
        ("echo new: reset", [false, false, true]),
        ("echo once: reset", [false, false, true]),
        ("echo #2: reset", [false, true, false]),
        ("echo #2..9: reset", [false, true, true]),
        ("echo 100%: reset", [true, true, true]),
        ("echo 0%: reset", [false, false, false]),
    ] {
        let server = TestServer::start();
        let open = [greeted(server.echo()), greeted(server.echo())];
        server.fault(fault);
        let [first, second] = open;
        let clients = [first, second, server.echo().connect()];
        for (mut client, is_reset) in clients.into_iter().zip(reset) {
            if is_reset {
                assert_eq!(read_to_end(&mut client), (vec![], End::Reset), "{fault}");
            } else {
                ping(&mut client, b"more");
            }
        }
    }
}

#[test]
fn bytes_writes_and_time_are_counted_from_the_moment_the_fault_is_added() {
    for (fault, passes) in [
        ("stall after 3 bytes", 3),
        ("stall after 3 bytes in", 0),
        ("stall after 9 bytes in", 4),
        ("stall at write 2", 4),
        ("stall after 2s", 4),
    ] {
        let server = unbounded();
        let mut client = greeted(server.echo());
        server.advance(10 * SECOND);
        let stall = server.echo().always(fault);
        client.write_all(b"four").unwrap();
        assert_eq!(read_exactly(&mut client, passes), b"four"[..passes], "{fault}");
        server.advance(2 * SECOND);
        client.write_all(b"!").unwrap();
        drop(stall);
        assert_eq!(read_exactly(&mut client, 5 - passes), b"four!"[passes..], "{fault}");
    }
}

#[test]
fn a_connection_delivers_everything_and_its_eof_after_the_fault_ends() {
    let bytes = pattern(100_000);
    for fault in [
        "stall",
        "stall after 5 bytes",
        "stall at eof",
        "deaf",
        "deaf after 7 bytes in",
        "hold-open",
        "hold-open at eof",
        "delay 1h",
        "slice 3/1h",
        "rate 1 byte/s",
        "short 1",
    ] {
        let server = unbounded();
        let mut client = greeted(server.echo());
        let guard = server.echo().always(fault);
        client.write_all(&bytes).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        server.advance(SECOND);
        drop(guard);
        assert_eq!(read_to_end(&mut client), (bytes.clone(), End::Eof), "{fault}");
        let ledger = server.echo().ended();
        assert_eq!(ledger.reason, "finished", "{fault}");
        // Only `short` holds nothing back, so the connection has ended before.
        assert!(ledger.healed == ledger.faults || fault == "short 1", "{fault}");
    }
}

#[test]
fn a_fault_with_a_duration_ends_by_itself_and_acts_on_the_next_connection_again() {
    let server = unbounded();
    let _stall = server.echo().always("stall after 1 byte for 3s");
    for _ in 0..2 {
        let mut client = server.echo().connect();
        client.write_all(b"abc").unwrap();
        assert_eq!(read_exactly(&mut client, 1), b"a");
        server.advance(3 * SECOND - Duration::from_millis(1));
        client.set_nonblocking(true).unwrap();
        assert_eq!(client.read(&mut [0]).map_err(|e| e.kind()), Err(ErrorKind::WouldBlock));
        client.set_nonblocking(false).unwrap();
        server.advance(Duration::from_millis(1));
        assert_eq!(read_exactly(&mut client, 2), b"bc");
        ping(&mut client, b"still there");
    }
    let _refuse = server.daytime().always("refuse for 5s");
    let refused = |server: &TestServer| TcpStream::connect(server.daytime().addr()).is_err();
    assert!(refused(&server));
    server.advance(5 * SECOND);
    assert_eq!(read_all(&mut server.daytime().connect()).unwrap(), TUTORIAL_LINE);
}

#[test]
fn our_eof_that_a_fault_withholds_follows_when_the_fault_ends() {
    for fault in ["hold-open", "stall after 26 bytes"] {
        let server = unbounded();
        let hold = server.daytime().always(fault);
        let mut client = server.daytime().connect();
        assert_eq!(read_exactly(&mut client, 26), TUTORIAL_LINE);
        server.advance(SECOND);
        client.set_nonblocking(true).unwrap();
        assert_eq!(client.read(&mut [0]).map_err(|e| e.kind()), Err(ErrorKind::WouldBlock));
        client.set_nonblocking(false).unwrap();
        drop(hold);
        assert_eq!(read_to_end(&mut client), (vec![], End::Eof), "{fault}");
    }
}

#[test]
fn a_stalled_connection_ends_when_its_client_has_left() {
    // At once after a reset; after the linger timeout if the client has sent an EOF.
    for (is_reset, reason) in [
        (true, "reset by peer"),
        (false, "closed by fault: echo once: stall (linger timeout after the client's EOF)"),
    ] {
        let limits = Limits::default().linger_timeout(2 * SECOND);
        let server = TestServer::builder().limits(limits).manual_time().start();
        server.echo().once("stall");
        let mut client = server.echo().connect();
        client.write_all(b"query").unwrap();
        if is_reset {
            crate::common::reset(&client);
        }
        drop(client);
        if !is_reset {
            crate::common::eventually("the end of the linger timeout", || {
                server.advance(2 * SECOND);
                (!server.ledgers().is_empty()).then_some(())
            });
        }
        let ledger = server.echo().ended();
        assert!(ledger.reason.contains(reason), "{ledger}");
        assert_eq!(ledger.reset_by.map(|side| side == Side::Peer), Some(is_reset), "{ledger}");
    }
}

/// A protocol that reads nothing before it is woken.
struct Pausing;

impl Protocol for Pausing {
    fn on_open(&mut self, out: &mut Outbox) {
        out.pause();
    }
    fn on_data(&mut self, data: &[u8], out: &mut Outbox) {
        out.send(data);
    }
    fn on_wake(&mut self, out: &mut Outbox) {
        out.resume();
    }
}

#[test]
fn a_paused_connection_gets_its_fault_at_its_next_read() {
    let server = TestServer::builder().service("pausing", |_| Pausing).start();
    let mut client = server.service("pausing").connect();
    client.write_all(b"x").unwrap();
    crate::common::eventually("the accept", || {
        (server.service("pausing").accepted() == 1).then_some(())
    });
    let _reset = server.service("pausing").always("reset");
    client.set_nonblocking(true).unwrap();
    assert_eq!(client.read(&mut [0]).map_err(|e| e.kind()), Err(ErrorKind::WouldBlock));
    client.set_nonblocking(false).unwrap();
    let handle = server.handle();
    let (sender, receiver) = std::sync::mpsc::channel();
    handle.run(move |control| sender.send(control.ids()).unwrap()).unwrap();
    for id in receiver.recv().unwrap() {
        handle.wake_connection(id).unwrap();
    }
    assert_eq!(read_to_end(&mut client), (vec![], End::Reset));
}

#[test]
fn a_fault_that_was_removed_before_its_moment_does_not_act() {
    let (server, bytes) = (TestServer::start(), pattern(100));
    for fault in ["reset after 50 bytes", "corrupt after 50 bytes", "close at eof"] {
        let guard = server.echo().always(fault);
        let mut client = server.echo().connect();
        ping(&mut client, &bytes[..40]);
        drop(guard);
        ping(&mut client, &bytes);
        drop(client);
        let ledger = server.echo().ended();
        assert_eq!((ledger.faults, ledger.healed), (vec![], vec![]), "{fault}");
    }
}

#[test]
fn a_plan_lists_its_faults_and_ends_them_by_their_ids() {
    let (plan, fault) = (Plan::new(0), |text: &str| text.parse::<Fault>().unwrap());
    let (stall, delay) = (fault("echo: stall"), fault("echo new: delay 1s for 1m"));
    assert_eq!(plan.add(stall.clone()), Ok(1));
    assert_eq!(plan.add(delay.clone()), Ok(2));
    assert_eq!(plan.faults(), [(1, stall.clone()), (2, delay.clone())]);
    assert_eq!((plan.remove(1), plan.remove(1)), (Some(stall), None));
    assert_eq!(plan.clear(), [(2, delay)]);
    assert!(plan.faults().is_empty());
}

#[test]
fn a_reset_after_n_bytes_is_exact_on_open_connections() {
    const TOGETHER: usize = 50;
    let server = TestServer::builder().limits(Limits::default().linger_timeout(DEADLINE)).start();
    let rounds = if std::env::var("CAMPANILE_RESETS").is_ok_and(|v| v == "full") { 20 } else { 2 };
    let bytes = pattern(1000);
    for round in 0..rounds {
        let size = [1, 5, 500, 1000][round % 4];
        let mut clients: Vec<_> = (0..TOGETHER).map(|_| greeted(server.echo())).collect();
        let _reset = server.echo().always(&*format!("reset after {size} bytes"));
        clients.iter_mut().for_each(|client| client.write_all(&bytes[..size]).unwrap());
        for client in &mut clients {
            assert_eq!(read_to_end(client), (bytes[..size].to_vec(), End::Reset), "{size}");
        }
        for _ in &clients {
            assert_eq!(server.echo().ended().bytes_out, size as u64 + 5);
        }
    }
}

/// Effects that a connection survives.
const HARMLESS: [&str; 9] = [
    "delay 1ms",
    "slice 500/1ms",
    "rate 1MiB/s",
    "short 700",
    "stall",
    "stall after 1000 bytes for 5ms",
    "deaf",
    "hold-open",
    "delay 2ms+-2ms for 3ms",
];

/// Adds and removes faults at random while a client talks. Returns the client's bytes and what it
/// received.
fn program(server: &TestServer, seed: u64) -> (Vec<u8>, Vec<u8>) {
    let mut random = Random::new(seed);
    let mut client = server.echo().connect();
    let bytes = pattern(random.below(20_000));
    let reading = {
        let mut client = client.try_clone().unwrap();
        thread::spawn(move || read_all(&mut client).unwrap())
    };
    let mut guards = Vec::new();
    for piece in bytes.chunks(1 + random.below(3000)) {
        match random.below(4) {
            0 if !guards.is_empty() => drop(guards.swap_remove(random.below(guards.len()))),
            0 | 1 => guards.push(server.echo().always(random.pick(&HARMLESS))),
            _ => {}
        }
        client.write_all(piece).unwrap();
    }
    client.shutdown(Shutdown::Write).unwrap();
    while !guards.is_empty() {
        drop(guards.swap_remove(random.below(guards.len())));
    }
    (bytes, reading.join().unwrap())
}

#[test]
fn whatever_faults_come_and_go_every_byte_and_the_eof_arrive() {
    let programs =
        if std::env::var("CAMPANILE_RESETS").is_ok_and(|v| v == "full") { 500 } else { 40 };
    for seed in 0..programs {
        let server = TestServer::builder().seed(seed).start();
        let (sent, received) = program(&server, seed);
        assert!(sent == received, "seed {seed}: {} of {} bytes", received.len(), sent.len());
        assert_eq!(server.echo().ended().reason, "finished", "seed {seed}");
    }
}

#[test]
fn a_probe_takes_no_fault_of_one_connection_if_probes_are_ignored() {
    let probe = |service: Service<'_>| {
        drop(service.connect());
        service.ended()
    };
    let server = TestServer::builder().ignore_probes().start();
    server.echo().once("close after 3 bytes");
    server.echo().once("corrupt after 0 bytes in");
    assert_eq!(probe(server.echo()).faults, []);
    let mut client = server.echo().connect();
    client.write_all(b"abcdef").unwrap();
    assert_eq!(read_all(&mut client).unwrap(), b"abc");
    let mut client = server.echo().connect();
    client.write_all(b"abc").unwrap();
    assert_ne!(read_exactly(&mut client, 3), b"abc");
    ping(&mut server.echo().connect(), b"both are used");
    // By default a probe is a client like any other.
    let server = TestServer::start();
    server.echo().once("hold-open");
    drop(server.echo().connect());
    ping(&mut server.echo().connect(), b"no fault is left");
}

#[test]
fn a_fault_for_one_connection_that_no_connection_got_fails_the_test() {
    let unused = std::panic::catch_unwind(|| {
        let server = TestServer::start();
        server.daytime().once("reset");
        ping(&mut server.echo().connect(), b"the wrong service");
    });
    let text = *unused.unwrap_err().downcast::<String>().unwrap();
    assert!(text.contains("no connection got the fault `daytime once: reset`"), "{text}");
    assert!(text.contains("echo #1"), "{text}");
    let server = TestServer::start();
    server.daytime().once("reset").optional();
}
