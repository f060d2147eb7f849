//! Our own server reaches every rung, over IPv4 and IPv6, repeatedly, and leaves no connection behind.

use std::net::TcpListener;
use std::sync::Mutex;

use campanile::testing::TestServer;
use campanile::testing::check::{Ladder, Outcome};
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
fn watch_sees_each_rung_begin_and_end_up_to_the_goal() {
    let server = TestServer::start();
    let mut seen = Vec::new();
    let ladder = Ladder::echo(server.echo().addr()).up_to(2);
    let report = ladder.climb(|rung| seen.push((rung.number, rung.outcome.clone()))).unwrap();
    let reached = || Outcome::Reached { note: None };
    let expected = [(1, Outcome::Untried), (1, reached()), (2, Outcome::Untried), (2, reached())];
    assert_eq!(seen, expected);
    assert_eq!((report.reached(), report.is_well(), report.rungs.len()), (2, true, 8));
}

#[test]
fn the_first_address_that_answers_is_climbed() {
    let server = TestServer::start();
    let addr = server.daytime().addr();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let both = Named([nobody, addr]);
    let report = Ladder::daytime(&both).up_to(2).climb(|_| {}).unwrap();
    assert_eq!((report.at, &*report.addr, report.is_well()), (addr, "two:1", true));
    let error = Ladder::daytime(nobody).climb(|_| {}).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot connect to {nobody}: Connection refused"));
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
