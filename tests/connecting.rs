//! Outgoing connections, on a kernel without sockets: opened once they are established, or never.

mod common;
mod sim;

use std::time::Duration;

use campanile::services::Echo;
use campanile::{Limits, Outbox, Protocol, Reactor};
use common::diary::Diary;
use sim::fake::{Fake, NOW, World};

struct Asker;
impl Protocol for Asker {
    fn on_open(&mut self, out: &mut Outbox) {
        out.send(b"what time is it?");
    }
    fn on_data(&mut self, _: &[u8], out: &mut Outbox) {
        out.close();
    }
}

fn reactor(world: &World) -> Reactor<Fake> {
    Reactor::with_kernel(world.kernel(), Limits::default())
}

fn nowhere() -> std::net::SocketAddr {
    ([127, 0, 0, 1], 1).into()
}

#[test]
fn a_connection_opens_when_it_is_established_and_not_at_a_stray_event() {
    let (world, diary) = (World::new(), Diary::default());
    let mut reactor = reactor(&world);
    let peer = world.expect_connect();
    reactor.connect(nowhere(), diary.of(Asker));
    reactor.turn(NOW).unwrap();
    peer.stray();
    reactor.turn(NOW).unwrap();
    assert_eq!(diary.letters(), "", "not opened before there is a peer");
    peer.establish();
    reactor.turn(NOW).unwrap();
    assert_eq!((diary.letters(), peer.received()), ("o".into(), b"what time is it?".to_vec()));
    peer.send(b"late");
    peer.end();
    reactor.run().unwrap();
    assert_eq!(diary.letters(), "odc");
    assert_eq!(diary.reason().as_deref(), Some("finished"));
}

#[test]
fn data_that_comes_with_the_connection_is_read() {
    let (world, diary) = (World::new(), Diary::default());
    let mut reactor = reactor(&world);
    let peer = world.expect_connect();
    reactor.connect(nowhere(), diary.of(Echo));
    peer.establish();
    peer.send(b"first word");
    reactor.turn(NOW).unwrap();
    assert_eq!(peer.received(), b"first word");
}

#[test]
fn an_attempt_without_an_answer_ends_at_its_deadline() {
    let (world, diary) = (World::new(), Diary::default());
    let mut reactor = reactor(&world);
    let peer = world.expect_connect();
    reactor.connect(nowhere(), diary.of(Asker));
    reactor.run().unwrap();
    assert_eq!(world.now(), Duration::from_secs(10));
    assert_eq!(diary.letters(), "c");
    assert_eq!(diary.reason().as_deref(), Some("cannot connect: timed out"));
    assert!(peer.is_gone());
}

#[test]
fn outgoing_connections_count_against_the_limit() {
    let (world, diary) = (World::new(), Diary::default());
    let limits = Limits::default().max_connections(1);
    let mut reactor = Reactor::with_kernel(world.kernel(), limits);
    world.expect_connect();
    world.expect_connect();
    reactor.connect(nowhere(), Asker);
    let id = reactor.connect(nowhere(), diary.of(Asker));
    assert!(diary.reason().unwrap().contains("Limits::max_connections"), "{:?}", diary.reason());
    assert_eq!(diary.letters(), "c");
    assert!(reactor.ids().all(|other| other != id));
}

#[test]
fn shutdown_ends_an_attempt_too() {
    let (world, diary) = (World::new(), Diary::default());
    let mut reactor = reactor(&world);
    world.expect_connect();
    reactor.connect(nowhere(), diary.of(Asker));
    reactor.handle().shutdown(Duration::from_secs(1));
    reactor.run().unwrap();
    assert_eq!(diary.reason().as_deref(), Some("shut down"));
    assert_eq!(world.now(), Duration::from_secs(1));
}

#[cfg(target_os = "linux")]
mod to_itself {
    use std::net::SocketAddr;
    use std::sync::mpsc;

    use campanile::{CloseReason, Outbox, Protocol, Reactor};

    use super::common::namespace;

    const IN_NAMESPACE: &str = "CAMPANILE_TESTS_ONE_PORT";

    /// Reports what happened to its connection.
    struct Reporter(mpsc::Sender<String>);
    impl Protocol for Reporter {
        fn on_open(&mut self, out: &mut Outbox) {
            self.0.send("opened".into()).unwrap();
            out.abort();
        }
        fn on_data(&mut self, _: &[u8], _: &mut Outbox) {}
        fn on_close(&mut self, reason: &CloseReason) {
            self.0.send(reason.to_string()).unwrap();
        }
    }

    #[test]
    fn a_connection_to_itself_is_refused_and_leaves_its_port_free() {
        // With one local port, each connection to that port is a connection to itself.
        let script = "exec \"$0\" --exact to_itself::three_attempts --nocapture";
        let Some(mut command) = namespace::with_ports("40000 40000", script) else { return };
        let output = command
            .arg(std::env::current_exe().unwrap())
            .env(IN_NAMESPACE, "1")
            .output()
            .expect("unshare runs");
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{stdout}\n{stderr}");
        assert_eq!(stdout.matches("refused as it should be").count(), 3, "{stdout}");
    }

    /// Runs in the namespace of the test above; otherwise does nothing.
    #[test]
    fn three_attempts() {
        if std::env::var_os(IN_NAMESPACE).is_none() {
            return;
        }
        // A TIME_WAIT left by one attempt would fail the next one with EADDRNOTAVAIL.
        for addr in ["127.0.0.1:40000", "127.0.0.1:40000", "[::1]:40000"] {
            let addr: SocketAddr = addr.parse().unwrap();
            let (sender, reports) = mpsc::channel();
            let mut reactor = Reactor::new().unwrap();
            reactor.connect(addr, Reporter(sender));
            reactor.run().unwrap();
            let expected =
                "cannot connect: Connection refused: the socket connected to itself".to_owned();
            assert_eq!(reports.iter().collect::<Vec<_>>(), [expected]);
            println!("refused as it should be");
        }
    }
}
