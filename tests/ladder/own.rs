//! Our own server reaches every rung, over IPv4 and IPv6, repeatedly, and leaves no connection behind.

use std::net::TcpListener;
use std::sync::Mutex;

use campanile::ladder::{Ladder, Outcome};
use campanile::testing::TestServer;
use campanile::{Background, Clock, Limits, daytime, echo};

use crate::common::{DEADLINE, TUTORIAL, skip};
use crate::program::Server;

/// Each climb wants 2,000 descriptors for a moment.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn climbs() -> usize {
    std::env::var("CAMPANILE_CLIMBS").map_or(2, |text| text.parse().expect("a number"))
}

#[track_caller]
fn reaches_every_rung(ladder: Ladder) {
    let report = ladder.timeout(DEADLINE).climb(|_| {}).unwrap();
    assert!(report.is_well(), "{report}");
    assert_eq!(report.reached(), report.rungs.len());
}

fn climb_both(ip: &'static str) {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let (server, [time, voice]) = Background::start(Limits::default(), move |reactor| {
        let time = reactor.listen((ip, 0), daytime(Clock::fixed(TUTORIAL)))?;
        Ok([time, reactor.listen((ip, 0), echo())?])
    })
    .unwrap();
    for _ in 0..climbs() {
        reaches_every_rung(Ladder::echo(voice));
        reaches_every_rung(Ladder::daytime(time));
    }
    let stats = server.shutdown(DEADLINE).unwrap();
    assert_eq!(stats.accepted, stats.closed, "no connection is left behind: {stats:?}");
    assert_eq!((stats.refused, stats.accept_errors, stats.panics), (0, 0, 0), "{stats:?}");
}

#[test]
fn ours_reaches_every_rung_over_ipv4() {
    climb_both("127.0.0.1");
}

#[test]
fn ours_reaches_every_rung_over_ipv6() {
    if TcpListener::bind("[::1]:0").is_err() {
        skip("this machine has no ::1");
        return;
    }
    climb_both("::1");
}

/// Where its memory is seen.
#[test]
fn the_program_reaches_every_rung() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let server = Server::start(&["-q"]);
    reaches_every_rung(Ladder::daytime(server.daytime[0]));
    let report = Ladder::echo(server.echo[0]).timeout(DEADLINE).climb(|_| {}).unwrap();
    assert!(report.is_well(), "{report}");
    let Outcome::Reached { note: Some(note) } = &report.rungs[6].outcome else {
        panic!("{report}");
    };
    if cfg!(target_os = "linux") {
        assert!(note.contains("; memory grew by "), "{note}");
    }
}

#[test]
fn one_rung_is_climbed_alone_and_watched_from_its_begin_to_its_end() {
    let server = TestServer::start();
    let mut seen = Vec::new();
    let ladder = Ladder::echo(server.echo().addr()).only(3);
    let report = ladder.climb(|rung| seen.push((rung.number, rung.outcome.clone()))).unwrap();
    assert_eq!(seen, [(3, Outcome::Untried), (3, Outcome::Reached { note: None })]);
    assert_eq!((report.reached(), report.is_well(), report.rungs.len()), (1, true, 1));
}

#[test]
fn the_first_address_that_answers_is_climbed() {
    let server = TestServer::start();
    let addr = server.daytime().addr();
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let both = Named([unused, addr]);
    // A higher rung alone still tells an address without a server from a server that breaks its rule.
    for rung in [1, 2] {
        let report = Ladder::daytime(&both).only(rung).climb(|_| {}).unwrap();
        assert_eq!((&report.at, &*report.addr, report.is_well()), (&addr.into(), "two:1", true));
        let error = Ladder::daytime(unused).only(rung).climb(|_| {}).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot connect to {unused}: Connection refused"));
    }
}

/// A name with two addresses.
struct Named([std::net::SocketAddr; 2]);

impl std::net::ToSocketAddrs for &Named {
    type Iter = std::array::IntoIter<std::net::SocketAddr, 2>;
    fn to_socket_addrs(&self) -> std::io::Result<Self::Iter> {
        Ok(self.0.into_iter())
    }
}

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("two:1")
    }
}
