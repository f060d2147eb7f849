//! The test server: it starts, serves, ends, and tells.

use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::time::Duration;

use campanile::testing::{Guard, Service, TestServer};
use campanile::{Accepted, Clock, Limits, Outbox, Protocol, Zone};

use crate::common::{TUTORIAL_LINE, ping, read_all, read_exactly};

/// Returns the message that a closure panics with.
pub fn panic_of(run: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(run)).expect_err("it panics");
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).expect("a text")
}

#[test]
fn both_services_are_there_when_start_returns() {
    let server = TestServer::start();
    assert_eq!(read_all(&mut server.daytime().connect()).unwrap(), TUTORIAL_LINE);
    ping(&mut server.echo().connect(), b"Hello, world");
    assert!(server.echo().addr().ip().is_loopback());
}

#[test]
fn dropping_the_server_closes_the_ports_and_resets_its_clients() {
    let server = TestServer::start();
    let (time, voice) = (server.daytime().addr(), server.echo().addr());
    let mut client = server.echo().connect();
    ping(&mut client, b"x");
    drop(server);
    assert!(TcpStream::connect(time).is_err() && TcpStream::connect(voice).is_err());
    assert!(client.read(&mut [0]).is_err());
}

#[test]
fn three_hundred_servers_live_in_one_process() {
    let servers: Vec<_> = (0..300).map(|_| TestServer::start()).collect();
    for server in &servers {
        server.echo().once("close after 3 bytes");
    }
    let mut clients: Vec<_> = servers.iter().map(|server| server.echo().connect()).collect();
    for client in &mut clients {
        client.write_all(b"Hello").unwrap();
    }
    for (client, server) in clients.iter_mut().zip(&servers) {
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_all(client).unwrap(), b"Hel");
        assert_eq!(server.echo().ended().bytes_out, 3);
    }
}

struct Shout(Vec<u8>);

impl Protocol for Shout {
    fn on_data(&mut self, data: &[u8], out: &mut Outbox) {
        assert_ne!(data, b"boom", "as asked");
        self.0 = data.to_ascii_uppercase();
        out.send(&self.0);
    }
}

fn shout(_: &Accepted) -> Shout {
    Shout(Vec::new())
}

#[test]
fn protocols_of_ones_own_have_faults_and_ledgers_too() {
    let server = TestServer::builder()
        .service("shout", shout)
        .fault("shout #2: close after 4 bytes")
        .start();
    let mut client = server.service("shout").connect();
    client.write_all(b"Hello").unwrap();
    assert_eq!(read_exactly(&mut client, 5), b"HELLO");
    let mut client = server.service("shout").connect();
    client.write_all(b"Hello").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut client).unwrap(), b"HELL");
    assert_eq!(server.service("shout").ended().bytes_out, 4);
    let told = panic_of(|| _ = server.service("shoot"));
    assert_eq!(told, "no service is named \"shoot\"; this server has daytime and echo and shout");
}

#[test]
fn a_name_is_given_to_one_service() {
    let text = panic_of(|| drop(TestServer::builder().service("echo", shout).start()));
    assert_eq!(text, "two services are named \"echo\": choose another name for yours");
}

#[test]
fn a_panic_of_a_protocol_is_raised_by_the_drop() {
    let server = TestServer::builder().service("shout", shout).start();
    let mut client = server.service("shout").connect();
    client.write_all(b"boom").unwrap();
    assert!(client.read(&mut [0]).is_err());
    assert!(panic_of(|| drop(server)).contains("as asked"));
}

#[test]
fn an_unmet_expectation_panics_in_the_drop() {
    let server = TestServer::builder().seed(7).start();
    server.echo().expect_connections(2..=3);
    server.daytime().expect_connections(..);
    drop(server.echo().connect());
    server.echo().ended();
    let told = panic_of(|| drop(server));
    assert!(told.starts_with("echo: 1 connections, expected 2 to 3\n"), "{told}");
    assert!(told.contains("seed 7\n  echo #1 from 127.0.0.1:"), "{told}");
    assert!(told.contains(": 0 bytes in, 0 out, finished"), "{told}");

    let server = TestServer::start();
    server.echo().expect_connections(1..);
    drop(server.echo().connect());
    server.echo().ended();
}

#[test]
fn one_panic_is_not_followed_by_another() {
    let told = panic_of(|| {
        let server = TestServer::start();
        server.echo().expect_connections(5..);
        panic!("the test's own");
    });
    assert_eq!(told, "the test's own");
}

#[test]
fn once_faults_queue_up_in_order() {
    let server = TestServer::start();
    for said in [1, 2, 3] {
        server.daytime().once(&*format!("close after {said} bytes"));
    }
    let said = || read_all(&mut server.daytime().connect()).unwrap().len();
    assert_eq!([said(), said(), said(), said()], [1, 2, 3, 26]);
}

#[test]
fn a_fault_may_be_a_formatted_text() {
    let server = TestServer::start();
    for count in [1, 3] {
        server.daytime().once(format!("close after {count} bytes"));
        assert_eq!(read_all(&mut server.daytime().connect()).unwrap(), &TUTORIAL_LINE[..count]);
    }
}

#[test]
fn a_guard_ends_its_fault_for_later_connections() {
    let server = TestServer::start();
    let guard = server.daytime().always("close after 4 bytes");
    assert_eq!(read_all(&mut server.daytime().connect()).unwrap(), b"Wed ");
    assert_eq!(read_all(&mut server.daytime().connect()).unwrap(), b"Wed ");
    drop(guard);
    assert_eq!(read_all(&mut server.daytime().connect()).unwrap(), TUTORIAL_LINE);
}

#[test]
fn a_wrong_fault_panics_at_its_call() {
    let server = TestServer::start();
    let told = panic_of(|| server.echo().once("rest").optional());
    assert_eq!(
        told,
        "cannot add the fault: column 1: unknown effect `rest`: did you mean `reset`?"
    );
    let told = panic_of(|| server.echo().once("echo: reset").optional());
    assert_eq!(told, "`echo: reset` names a service; add it with TestServer::fault");
    let told = panic_of(|| server.fault("ekho: reset"));
    assert_eq!(
        told,
        "cannot add the fault: column 1: unknown service `ekho`: did you mean `echo`?"
    );
    assert!(panic_of(|| server.fault("reset")).contains("name a service, as in `daytime: reset`"));
    let told = panic_of(|| server.echo().once("refuse").optional());
    assert!(told.contains("this effect holds for all clients"), "{told}");
    let told = panic_of(|| drop(TestServer::builder().fault("ekho: reset").start()));
    assert!(told.contains("did you mean `echo`?"), "{told}");
}

thread_local! {
    static PLACE: Cell<&'static str> = const { Cell::new("") };
}

/// Returns the file that the panic of a closure names.
fn file_of_panic(run: impl FnOnce()) -> &'static str {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let file = panic.location().expect("a location").file();
            PLACE.set(String::leak(file.to_owned()));
            previous(panic);
        }));
    });
    panic_of(run);
    PLACE.get()
}

#[test]
fn a_wrong_call_panics_at_the_line_of_the_test() {
    let server = TestServer::start();
    let echo = server.echo();
    let _guard = echo.always("refuse");
    let calls: [&dyn Fn(); 7] = [
        &|| server.fault("echo: rest"),
        &|| _ = echo.once("rest"),
        &|| drop(echo.always("rest")),
        &|| _ = echo.ended_within(Duration::ZERO),
        &|| drop(echo.connect()),
        &|| drop(TestServer::builder().fault("rest")),
        &|| drop(TestServer::builder().fault("eco: reset").start()),
    ];
    for (at, call) in calls.into_iter().enumerate() {
        assert_eq!(file_of_panic(call), file!(), "call {at}");
    }
}

#[test]
fn manual_timeouts_pass_only_when_the_test_advances_time() {
    let limits = Limits::default().idle_timeout(Duration::from_secs(300));
    let server = TestServer::builder().limits(limits).manual_time().start();
    let mut client = server.echo().connect();
    ping(&mut client, b"x");
    server.advance(Duration::from_secs(299));
    ping(&mut client, b"y");
    server.advance(Duration::from_secs(299));
    ping(&mut client, b"z");
    server.advance(Duration::from_secs(361));
    let ledger = server.echo().ended();
    assert_eq!(ledger.reason, "idle for too long");
    let lasted = ledger.closed.unwrap() - ledger.opened;
    assert!(lasted >= Duration::from_secs(898), "{lasted:?}");
    assert!(panic_of(|| TestServer::start().advance(Duration::ZERO)).contains("manual_time"));
}

#[test]
fn manual_time_passes_for_30_years_and_refuses_more_than_that() {
    const YEAR: Duration = Duration::from_secs(365 * 86_400);
    let server = TestServer::builder().manual_time().start();
    for length in [Duration::MAX, 31 * YEAR] {
        let told = panic_of(|| server.advance(length));
        assert!(told.contains("manual time ends 30 years after the server started"), "{told}");
    }
    // Nothing has passed by then.
    let mut client = server.echo().connect();
    ping(&mut client, b"x");
    server.advance(30 * YEAR);
    assert_eq!(server.echo().ended().reason, "idle for too long");
    ping(&mut server.echo().connect(), b"y");
    assert!(panic_of(|| server.advance(Duration::from_nanos(1))).contains("30 years"));
}

#[test]
fn a_fault_of_a_listener_is_refused_while_the_server_is_full() {
    let limits = Limits::default().max_connections(1);
    let server = TestServer::builder().limits(limits).start();
    let mut client = server.echo().connect();
    ping(&mut client, b"x");
    for fault in ["refuse", "unreachable", "never-accept"] {
        let text = panic_of(|| drop(server.echo().always(fault)));
        assert!(text.contains("close a client, or raise the maximum"), "{text}");
    }
    drop(client);
    server.echo().ended();
    let _guard = server.echo().always("refuse");
    assert!(TcpStream::connect(server.echo().addr()).is_err());
}

#[test]
fn a_test_sets_the_clock_and_the_zone() {
    let zone = Zone::east(3600).unwrap();
    let server = TestServer::builder().clock(Clock::fixed(0)).zone(zone).start();
    let line = read_all(&mut server.daytime().connect()).unwrap();
    assert_eq!(line, b"Thu Jan  1 01:00:00 1970\r\n");
}

#[test]
fn a_server_may_be_shared_among_threads() {
    fn is_shared<T: Send + Sync>() {}
    is_shared::<TestServer>();
    is_shared::<Service<'static>>();
    is_shared::<Guard<'static>>();
}

#[cfg(unix)]
#[test]
fn a_service_at_a_path_is_served_with_faults_and_ledgers() {
    use std::os::unix::net::UnixStream;

    use crate::common::Folder;

    let folder = Folder::new("test-server");
    let path = folder.join("own");
    let server = TestServer::builder().service_at("own", &path, campanile::echo()).start();
    let own = server.service("own");
    for fault in ["corrupt", "reset after 2 bytes"] {
        own.once(fault);
        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(b"abcd").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut back = Vec::new();
        client.read_to_end(&mut back).unwrap();
        let ledger = own.ended();
        assert_eq!(
            (ledger.peer.to_string(), ledger.bytes_out),
            ("unix:".into(), back.len() as u64)
        );
        let (corrupt, reset) = (fault == "corrupt", ledger.reason.contains("has no reset"));
        assert_eq!(
            (back == b"abcd", back.len(), reset),
            (false, if corrupt { 4 } else { 2 }, !corrupt)
        );
    }
    own.once("reset after 2 bytes in");
    let mut client = UnixStream::connect(&path).unwrap();
    client.write_all(b"abcd").unwrap();
    let end = client.read_to_end(&mut Vec::new()).map_err(|error| error.kind());
    assert!(!cfg!(target_os = "linux") || end == Err(ErrorKind::ConnectionReset), "{end:?}");
    let guard = own.always("refuse");
    assert!(!path.exists(), "refuse removes the path");
    drop(guard);
    let client = UnixStream::connect(&path);
    assert!(client.is_ok(), "{client:?}");
    let text = panic_of(|| drop(own.connect()));
    let expected = format!("own listens on unix:{}: connect to its path", path.display());
    assert!(text.starts_with(&expected), "{text}");
    drop(server);
    assert!(!path.exists());
    let builder = TestServer::builder().service_at("own", &path, campanile::echo());
    let text = panic_of(|| drop(builder.fault("own: unreachable").start()));
    assert!(text.starts_with("cannot add the fault: cannot make unix:"), "{text}");
}
