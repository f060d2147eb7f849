//! Reactors on threads of their own: they end when told, close their ports, and hide no panic.

mod common;

use std::io::ErrorKind;
use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind};

use campanile::{Accepted, Background, Limits, Outbox, Protocol, echo};
use common::{Both, DEADLINE, connect, eventually, ping};

fn threads() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("Threads:"))?.trim().parse().ok()
}

/// Runs `what` in a process of its own, so that its threads and descriptors are its own.
fn alone(name: &str, what: impl FnOnce()) {
    if std::env::var_os("ALONE").is_some_and(|alone| alone == name) {
        return what();
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env("ALONE", name)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1 passed"), "{said}");
}

#[test]
fn a_thousand_servers_leave_nothing_behind_and_refuse_at_once() {
    alone("a_thousand_servers_leave_nothing_behind_and_refuse_at_once", || {
        let descriptors = || std::fs::read_dir("/proc/self/fd").map(Iterator::count).ok();
        let before = (threads(), descriptors());
        for round in 0..1000 {
            let server = Both::start(Limits::default());
            let addr = server.echo;
            // Some have a conversation open when they go.
            let mut client = connect(addr);
            if round % 10 == 0 {
                ping(&mut client, b"ping");
            }
            drop(server);
            let error = TcpStream::connect(addr).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "round {round}");
        }
        // The kernel wakes whoever joins a thread a moment before it stops counting the thread.
        eventually("everything as before", || ((threads(), descriptors()) == before).then_some(()));
    });
}

struct Bomb;
impl Protocol for Bomb {
    fn on_data(&mut self, _: &[u8], _: &mut Outbox) {
        panic!("boom");
    }
}

/// A server whose protocol has panicked, as its client knows by the reset.
fn exploded() -> Background {
    let (server, addr) = Background::start(Limits::default(), |reactor| {
        reactor.listen("127.0.0.1:0", |_: &Accepted| Bomb)
    })
    .unwrap();
    let mut client = connect(addr);
    std::io::Write::write_all(&mut client, b"x").unwrap();
    assert_eq!(common::read_all(&mut client).unwrap_err().kind(), ErrorKind::ConnectionReset);
    server
}

#[test]
fn a_panic_of_a_protocol_is_raised_where_the_server_is_owned() {
    let dropped = catch_unwind(|| drop(exploded())).unwrap_err();
    assert_eq!(dropped.downcast_ref(), Some(&"boom"));
    let ended = catch_unwind(|| exploded().shutdown(DEADLINE)).unwrap_err();
    assert_eq!(ended.downcast_ref(), Some(&"boom"));
}

#[test]
fn a_drop_while_unwinding_raises_no_second_panic() {
    let panic = catch_unwind(|| {
        let _server = exploded();
        panic!("the test's own");
    })
    .unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"the test's own"));
}

#[test]
fn a_panic_ends_only_its_own_connection() {
    let (server, (calm, bomb)) = Background::start(Limits::default(), |reactor| {
        let calm = reactor.listen("127.0.0.1:0", echo())?;
        Ok((calm, reactor.listen("127.0.0.1:0", |_: &Accepted| Bomb)?))
    })
    .unwrap();
    let mut friend = connect(calm);
    for _ in 0..20 {
        let mut client = connect(bomb);
        std::io::Write::write_all(&mut client, b"x").unwrap();
        assert!(common::read_all(&mut client).is_err());
        ping(&mut friend, b"unharmed");
    }
    assert!(catch_unwind(AssertUnwindSafe(|| drop(server))).is_err());
}

#[test]
fn a_server_dropped_on_its_own_thread_ends_without_a_hang() {
    struct Owner(std::sync::Arc<std::sync::Mutex<Option<Background>>>);
    impl Protocol for Owner {
        fn on_data(&mut self, _: &[u8], _: &mut Outbox) {
            self.0.lock().unwrap().take();
        }
    }
    let slot = std::sync::Arc::<std::sync::Mutex<Option<Background>>>::default();
    let shared = slot.clone();
    let (server, addr) = Background::start(Limits::default(), move |reactor| {
        reactor.listen("127.0.0.1:0", move |_: &Accepted| Owner(shared.clone()))
    })
    .unwrap();
    *slot.lock().unwrap() = Some(server);
    let mut client = connect(addr);
    std::io::Write::write_all(&mut client, b"end").unwrap();
    assert!(common::read_all(&mut client).is_err(), "the connection is aborted");
    assert!(slot.lock().unwrap().is_none());
}

#[test]
fn a_polite_end_waits_for_the_conversation() {
    let server = Both::start(Limits::default());
    let mut client = connect(server.echo);
    ping(&mut client, b"ping");
    let handle = server.server.handle().clone();
    handle.shutdown(DEADLINE);
    ping(&mut client, b"one more word");
    drop(client);
    let stats = server.server.join().unwrap();
    assert_eq!((stats.accepted, stats.closed, stats.our_resets), (1, 1, 0));
}

#[test]
fn a_million_wake_ups_from_another_thread_and_none_is_lost() {
    struct Count;
    impl Protocol for Count {
        fn on_data(&mut self, _: &[u8], _: &mut Outbox) {}
    }
    // Each round sends one byte through the mailbox and waits for the bell the client hears: a lost
    // wake-up is a hang. Between the rounds the handle only wakes.
    let (ids, id) = std::sync::mpsc::channel();
    let (server, addr) = Background::start(Limits::default(), move |reactor| {
        reactor.listen("127.0.0.1:0", move |new: &Accepted| {
            let _ = ids.send(new.id);
            Count
        })
    })
    .unwrap();
    let mut client = connect(addr);
    let id = id.recv_timeout(DEADLINE).unwrap();
    for round in 0..2_000_u64 {
        for _ in 0..499 {
            server.handle().wake();
        }
        server.handle().send(id, *b"!").unwrap();
        assert_eq!(common::read_exactly(&mut client, 1), b"!", "round {round}");
    }
}
