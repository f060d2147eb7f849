//! The clients try the addresses of a name beside each other: RFC 8305.
#![cfg(all(feature = "testing", target_os = "linux"))]

mod common;

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use campanile::client::{self, Server, ToServers};
use campanile::testing::TestServer;
use common::{DEADLINE, eventually, skip};

/// A name with these addresses.
struct Name(Vec<SocketAddr>);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("name:7")
    }
}

impl ToServers for &Name {
    fn to_servers(&self) -> io::Result<Vec<Server>> {
        Ok(self.0.iter().copied().map(Server::Tcp).collect())
    }
}

/// An address that refuses every connection.
fn refusing() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Whether a connect to this address is under way: the server has not answered its SYN.
fn is_connecting(addr: SocketAddr) -> bool {
    const SYN_SENT: &str = "02";
    let remote = format!("0100007F:{:04X}", addr.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    table.lines().any(|line| {
        let mut columns = line.split_whitespace().skip(2);
        columns.next() == Some(&remote) && columns.next() == Some(SYN_SENT)
    })
}

/// Whether connects to an address with a full backlog time out on this kernel.
fn is_silent(addr: SocketAddr) -> bool {
    let outcome = std::net::TcpStream::connect_timeout(&addr, Duration::from_millis(50));
    let is_silent = outcome.is_err_and(|error| error.kind() == io::ErrorKind::TimedOut);
    if !is_silent {
        skip("the backlog of this kernel does not fill up");
    }
    is_silent
}

#[test]
fn a_silent_address_does_not_keep_the_client_from_the_next_one() {
    let (silent, live) = (TestServer::start(), TestServer::start());
    let _fault = silent.echo().always("unreachable");
    if !is_silent(silent.echo().addr()) {
        return;
    }
    let name = Name(vec![silent.echo().addr(), live.echo().addr()]);
    let began = Instant::now();
    assert_eq!(client::echo(&name, b"hello", DEADLINE).unwrap(), b"hello");
    assert!(began.elapsed() < DEADLINE, "the client waited for the silent address");
}

#[test]
fn an_address_that_answers_late_is_still_used() {
    let (late, silent) = (TestServer::start(), TestServer::start());
    let fault = late.echo().always("unreachable");
    let _fault = silent.echo().always("unreachable");
    let (first, second) = (late.echo().addr(), silent.echo().addr());
    if !is_silent(first) {
        return;
    }
    let name = Name(vec![first, refusing(), second]);
    let client = thread::spawn(move || client::echo(&name, b"hello", DEADLINE));
    // The first one is not given up while the others are tried.
    eventually("three attempts", || is_connecting(second).then_some(()));
    assert!(is_connecting(first));
    drop(fault);
    assert_eq!(client.join().unwrap().unwrap(), b"hello");
}

#[test]
fn the_error_is_that_of_the_last_address() {
    let silent = TestServer::start();
    let _fault = silent.echo().always("unreachable");
    let (timeout, silent) = (Duration::from_millis(300), silent.echo().addr());
    if !is_silent(silent) {
        return;
    }
    let refused = "cannot connect to name:7: Connection refused (os error 111)";
    let timed_out = "cannot connect to name:7: no answer within 300ms";
    for (addrs, expected) in [
        (vec![silent, refusing()], refused),
        (vec![refusing(), silent], timed_out),
        (vec![refusing(), refusing()], refused),
        (vec![], "cannot connect to name:7: the name has no address"),
    ] {
        let error = client::echo(&Name(addrs.clone()), b"hello", timeout).unwrap_err();
        assert_eq!(error.to_string(), expected, "{addrs:?}");
    }
}
