//! Waiting for a connection to end, and looking at those that are open.

use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use campanile::testing::{Side, TestServer};
use campanile::{Accepted, Outbox, Protocol};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{DEADLINE, eventually, ping, read_all, read_exactly, reset};
use crate::servers::panic_of;

const SHORT: Duration = Duration::from_millis(10);

#[test]
fn a_wait_without_a_client_says_to_connect_one() {
    let server = TestServer::start();
    drop(server.daytime().connect());
    server.daytime().ended();
    let text = panic_of(|| _ = server.echo().ended_within(SHORT));
    let advice = "no connection to echo ended within 10ms: no connection to echo is open: connect \
                  a client before the wait\n";
    assert!(text.starts_with(advice), "{text}");
    assert!(text.contains("seed 0\n  daytime #1 from 127.0.0.1:"), "{text}");
}

#[test]
fn a_wait_that_gives_up_lists_the_open_connections_and_the_next_step() {
    let server = TestServer::start();
    ping(&mut server.echo().connect(), b"gone");
    server.echo().ended();
    let mut client = server.echo().connect();
    ping(&mut client, b"Hello");
    let peer = client.local_addr().unwrap();
    let text = panic_of(|| _ = server.echo().ended_within(SHORT));
    assert!(text.contains("no client has closed its connection: close one, or set"), "{text}");
    assert!(text.contains("Limits::idle_timeout") && !text.contains("advance"), "{text}");
    let rows: Vec<_> = text.lines().skip(2).collect();
    assert!(rows[0].starts_with("  echo #1 from ") && rows[0].ends_with(", finished"), "{text}");
    assert_eq!(rows[1..], [format!("  echo #2 from {peer}: 5 bytes in, 5 out, open")]);
}

#[test]
fn a_wait_that_gives_up_names_the_fault_that_holds_the_connection() {
    let server = TestServer::builder().manual_time().start();
    server.echo().once("stall after 2 bytes");
    let mut client = server.echo().connect();
    client.write_all(b"Hello").unwrap();
    assert_eq!(read_exactly(&mut client, 2), b"He");
    eventually("the stall", || (!server.echo().open()[0].faults.is_empty()).then_some(()));
    let text = panic_of(|| _ = server.echo().ended_within(SHORT));
    let holder =
        "`echo once: stall after 2 bytes` holds echo #1: close the client or end the fault";
    assert!(text.contains(holder), "{text}");
    assert!(text.contains("5 bytes in, 2 out, open [echo once: stall after 2 bytes]\n"), "{text}");
    assert!(text.contains("timeouts pass only when the test calls TestServer::advance"), "{text}");
}

#[test]
fn a_wait_that_gives_up_says_whether_closing_the_client_is_enough() {
    for fault in ["deaf", "hold-open", "delay 1h"] {
        let server = TestServer::start();
        let _guard = server.echo().always(fault);
        let mut client = server.echo().connect();
        client.write_all(b"Hello").unwrap();
        let faults = || server.echo().open().first().map_or(0, |ledger| ledger.faults.len());
        eventually("the fault", || (faults() == 1).then_some(()));
        let text = panic_of(|| _ = server.echo().ended_within(SHORT));
        assert!(text.contains("echo #1: close the client and end the fault\n"), "{text}");
    }
}

#[test]
fn a_table_marks_each_fault_that_has_ended() {
    let server = TestServer::start();
    let ended = server.echo().always("stall");
    let guard = server.echo().always("stall");
    let mut client = server.echo().connect();
    client.write_all(b"Hello").unwrap();
    let faults = || server.echo().open().first().map_or(0, |ledger| ledger.faults.len());
    eventually("the stalls", || (faults() == 2).then_some(()));
    drop(ended);
    let text = panic_of(|| _ = server.echo().ended_within(SHORT));
    assert!(text.contains(": `echo: stall` holds echo #1: close the client or end"), "{text}");
    assert!(text.contains(" 0 out, open [echo: stall, ended] [echo: stall]\n"), "{text}");
    drop(guard);
    assert_eq!(read_exactly(&mut client, 5), b"Hello");
    let text = panic_of(|| _ = server.echo().ended_within(SHORT));
    assert!(text.contains("no client has closed its connection: close one"), "{text}");
    assert!(text.contains(" 5 out, open [echo: stall, ended] [echo: stall, ended]\n"), "{text}");
}

#[test]
fn a_long_table_says_how_many_rows_it_leaves_out() {
    let server = TestServer::start();
    let mut clients: Vec<_> = (0..52).map(|_| server.echo().connect()).collect();
    for client in &mut clients {
        ping(client, b"x");
    }
    let text = panic_of(|| _ = server.echo().ended_within(SHORT));
    assert!(text.contains("\n  (2 more open connections)\n  echo #3 from "), "{text}");
    assert!(text.trim_end().lines().last().unwrap().starts_with("  echo #52 from "), "{text}");
}

#[test]
fn an_ended_connection_is_returned_once_and_without_waiting() {
    let server = TestServer::start();
    let echo = server.echo();
    let (mut first, mut second) = (echo.connect(), echo.connect());
    ping(&mut first, b"1");
    ping(&mut second, b"22");
    assert_eq!(echo.try_ended(), None);
    drop(second);
    let ledger = eventually("the end", || echo.try_ended());
    assert_eq!((ledger.id, ledger.bytes_in), (2, 2));
    assert_eq!(echo.try_ended(), None);
    drop(first);
    assert_eq!(echo.ended_within(DEADLINE).id, 1);
    assert_eq!(server.daytime().try_ended(), None);
}

#[test]
fn open_connections_have_ledgers_of_what_happened_so_far() {
    let server = TestServer::start();
    assert!(server.echo().open().is_empty());
    let mut clients = [server.echo().connect(), server.echo().connect()];
    for (client, text) in clients.iter_mut().zip([&b"Hello"[..], b"Hello, world"]) {
        ping(client, text);
    }
    let open = server.echo().open();
    let seen: Vec<_> = open.iter().map(|l| (l.id, l.bytes_in, l.bytes_out, l.closed)).collect();
    assert_eq!(seen, [(1, 5, 5, None), (2, 12, 12, None)]);
    assert_eq!(open[0].peer.inet(), Some(clients[0].local_addr().unwrap()));
    assert!(server.daytime().open().is_empty());
    let [first, _second] = clients;
    drop(first);
    assert_eq!(server.echo().ended().id, 1);
    assert_eq!(server.echo().open().iter().map(|ledger| ledger.id).collect::<Vec<_>>(), [2]);
}

/// Runs a test in tokio's current-thread runtime.
fn in_tokio(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let began = Instant::now();
    runtime.block_on(async { tokio::time::timeout(DEADLINE, test).await.expect("in time") });
    // The timer of the deadline wakes the task, too.
    assert!(began.elapsed() < DEADLINE, "no end of a connection woke the task");
}

#[test]
fn a_task_of_a_single_threaded_runtime_waits_beside_its_client() {
    let server = TestServer::start();
    server.echo().once("reset after 5 bytes");
    in_tokio(async {
        let addr = server.echo().addr();
        let client = tokio::spawn(async move {
            let mut client = tokio::net::TcpStream::connect(addr).await.unwrap();
            client.write_all(b"Hello, world").await.unwrap();
            let mut back = Vec::new();
            let error = client.read_to_end(&mut back).await.unwrap_err();
            (back, error.kind())
        });
        // The client has not begun: it runs while this task waits.
        let ledger = server.echo().ended_async().await;
        assert_eq!((ledger.id, ledger.bytes_out), (1, 5));
        assert_eq!(client.await.unwrap(), (b"Hello".to_vec(), ErrorKind::ConnectionReset));
    });
}

#[test]
fn each_waiting_task_receives_another_connection() {
    let server = TestServer::start();
    in_tokio(async {
        let tasks: Vec<_> = (0..3).map(|_| tokio::spawn(server.echo().ended_async())).collect();
        // A task that gave up takes no connection.
        let gone = tokio::time::timeout(SHORT, server.echo().ended_async()).await;
        assert!(gone.is_err());
        for _ in 0..3 {
            let mut client = tokio::net::TcpStream::connect(server.echo().addr()).await.unwrap();
            client.write_all(b"x").await.unwrap();
            client.read_exact(&mut [0]).await.unwrap();
        }
        let mut ids = Vec::new();
        for task in tasks {
            ids.push(task.await.unwrap().id);
        }
        ids.sort_unstable();
        assert_eq!(ids, [1, 2, 3]);
    });
    assert_eq!(server.echo().try_ended(), None);
}

/// Sends how many connections its service has had, counted in an `Rc`.
struct Counter(Rc<Cell<u8>>);

impl Protocol for Counter {
    fn on_open(&mut self, out: &mut Outbox) {
        self.0.set(self.0.get() + 1);
        out.send(&[self.0.get(); 3]);
        out.close();
    }

    fn on_data(&mut self, _: &[u8], _: &mut Outbox) {}
}

#[test]
fn a_protocol_that_shares_an_rc_is_served_under_faults() {
    let counter = || {
        let count = Rc::new(Cell::new(0));
        move |_: &Accepted| Counter(Rc::clone(&count))
    };
    let server = TestServer::builder().service_with("counter", counter).start();
    let service = server.service("counter");
    service.once("close after 2 bytes");
    assert_eq!(read_all(&mut service.connect()).unwrap(), [1; 2]);
    assert_eq!(read_all(&mut service.connect()).unwrap(), [2; 3]);
    assert_eq!((service.ended().bytes_out, service.ended().bytes_out), (2, 3));
}

#[test]
fn the_handle_reaches_every_open_connection() {
    let server = TestServer::start();
    let mut clients = [server.echo().connect(), server.echo().connect()];
    for client in &mut clients {
        ping(client, b"x");
    }
    server.handle().broadcast(None, *b"news").unwrap();
    for client in &mut clients {
        assert_eq!(read_exactly(client, 4), b"news");
    }
}

/// Blocks the loop until the test releases it.
struct Blocking(mpsc::Sender<()>, mpsc::Receiver<()>);

impl Protocol for Blocking {
    fn on_data(&mut self, _: &[u8], _: &mut Outbox) {
        self.0.send(()).unwrap();
        let _ = self.1.recv();
    }
}

#[test]
fn a_fault_that_is_refused_because_the_loop_is_blocked_is_not_in_force_later() {
    let (block, blocked) = mpsc::channel();
    let (release, released) = mpsc::channel();
    let mut protocol = Some(Blocking(block, released));
    let make = move |_: &Accepted| protocol.take().expect("one connection");
    let server = TestServer::builder().service("blocking", make).start();
    // Dropped before the server if the test fails: the server's thread waits for it.
    let release = release;
    let mut client = server.service("blocking").connect();
    client.write_all(b"x").unwrap();
    blocked.recv_timeout(DEADLINE).unwrap();
    let text = panic_of(|| server.daytime().once("close after 3 bytes").optional());
    let expected = "cannot add the fault `daytime once: close after 3 bytes`: the loop has not \
                    acknowledged it within 5s";
    assert!(text.starts_with(expected), "{text}");
    assert!(!text.contains("in force"), "{text}");
    release.send(()).unwrap();
    assert_eq!(read_all(&mut server.daytime().connect()).unwrap().len(), 26);
    client.shutdown(Shutdown::Write).unwrap();
}

#[test]
fn a_client_that_times_out_leaves_a_ledger_of_the_stall() {
    let server = TestServer::start();
    server.echo().once("stall");
    let mut client = server.echo().connect();
    client.set_read_timeout(Some(SHORT)).unwrap();
    client.write_all(b"Hello").unwrap();
    let error = client.read(&mut [0]).unwrap_err();
    assert!([ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()), "{error}");
    eventually("the bytes", || (server.echo().open().first()?.bytes_in == 5).then_some(()));
    reset(&client);
    drop(client);
    let ledger = server.echo().ended();
    assert_eq!((ledger.bytes_in, ledger.bytes_out), (5, 0));
    assert_eq!(ledger.reset_by, Some(Side::Peer));
    assert_eq!(ledger.faults[0].to_string(), "echo once: stall");
}
