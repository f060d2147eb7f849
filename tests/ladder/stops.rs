//! Every rung can fail: each wrong server stops exactly at its own rung.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use campanile::ladder::{Bound, Failure, Ladder, Outcome};
use campanile::testing::TestServer;

use crate::common::DEADLINE;
use crate::program::Watchdog;
use crate::wrong::{self, Wrong};

/// How long a wrong server may be silent.
const PATIENCE: Duration = Duration::from_secs(3);

/// Climbs and returns why it stopped, which must be there.
#[track_caller]
fn stops_at(number: usize, ladder: Ladder) -> Failure {
    let report = ladder.timeout(PATIENCE).climb(|_| {}).unwrap();
    let (rung, failure) = report.stopped().unwrap_or_else(|| panic!("it stops\n{report}"));
    assert_eq!(rung.number, number, "{report}");
    assert!(!failure.sent.is_empty() && !failure.rule.text.is_empty(), "{report}");
    let [reached, above] =
        [&report.rungs[..report.reached()], &report.rungs[report.reached() + 1..]];
    assert!(reached.iter().all(|rung| rung.number < number), "{report}");
    assert!(above.iter().all(|rung| rung.outcome == Outcome::Untried), "{report}");
    failure.clone()
}

/// The same for the whole ladder, and for the rung alone on a server of its own.
#[track_caller]
fn both_stop_at(
    number: usize,
    make: impl Fn() -> Wrong,
    ladder: fn(SocketAddr) -> Ladder,
) -> Failure {
    let (server, other) = (make(), make());
    std::thread::scope(|scope| {
        let alone = scope.spawn(|| stops_at(number, ladder(other.addr).only(number)));
        let failure = stops_at(number, ladder(server.addr));
        assert_eq!(alone.join().unwrap().rule, failure.rule);
        failure
    })
}

#[track_caller]
fn echo_stops_at(number: usize, make: impl Fn() -> Wrong) -> Failure {
    both_stop_at(number, make, Ladder::echo)
}

#[track_caller]
fn daytime_stops_at(number: usize, make: impl Fn() -> Wrong) -> Failure {
    both_stop_at(number, make, Ladder::daytime)
}

#[test]
fn an_echo_that_waits_for_the_end_of_a_line_stops_at_1() {
    let failure = echo_stops_at(1, wrong::echo_by_line);
    assert_eq!((&*failure.sent, failure.rule.number), ("'Hello, world'", "E1"));
    assert_eq!(failure.received, "nothing, then silence for 3s");
}

#[test]
fn the_tutorials_echo_as_written_stops_at_2() {
    assert_eq!(echo_stops_at(2, wrong::echo_once).rule.number, "L1");
}

#[test]
fn the_tutorials_echo_in_a_loop_stops_at_3() {
    let failure = echo_stops_at(3, wrong::echo_one_after_the_other);
    assert_eq!(failure.sent, "'Am I alone here?'; while another client was connected");
    assert_eq!(failure.received, "nothing, then silence for 3s");
}

#[test]
fn an_echo_of_text_stops_at_4() {
    let failure = echo_stops_at(4, wrong::echo_of_text);
    assert_eq!(failure.rule.number, "E1");
    assert!(failure.sent.ends_with("1048576 bytes"), "{}", failure.sent);
    assert!(failure.received.contains(r"'\xef\xbf\xbd"), "{}", failure.received);
}

#[test]
fn an_echo_whose_send_is_not_sendall_stops_at_5() {
    let failure = echo_stops_at(5, wrong::echo_by_one_send);
    assert_eq!(failure.rule.number, "E4");
    assert!(failure.sent.ends_with(" bytes before reading any"), "{}", failure.sent);
}

#[test]
fn an_echo_that_closes_at_eof_stops_at_6() {
    let failure = echo_stops_at(6, wrong::echo_that_closes_at_eof);
    assert_eq!(failure.rule.number, "E2");
    assert!(failure.sent.ends_with(" bytes before reading any, then EOF"), "{}", failure.sent);
}

#[test]
fn an_echo_with_one_writer_for_all_stops_at_7() {
    let failure = echo_stops_at(7, wrong::echo_with_one_writer);
    assert_eq!(failure.rule.number, "E3");
    assert!(failure.sent.ends_with(" and read nothing"), "{}", failure.sent);
    assert_eq!(failure.received, "nothing, then silence for 3s");
}

#[test]
fn an_echo_that_dies_of_a_reset_stops_at_8() {
    echo_stops_at(8, wrong::echo_that_dies_of_a_reset);
}

#[test]
fn an_echo_with_a_small_table_stops_at_8() {
    assert_eq!(echo_stops_at(8, wrong::echo_with_a_small_table).rule.number, "L5");
}

/// With bytes beyond the urgent one in the queue, no edge will tell of them.
#[test]
#[cfg(all(target_os = "linux", not(mio_unsupported_force_poll_poll)))]
fn an_echo_that_believes_a_short_read_stops_at_8() {
    let failure = echo_stops_at(8, wrong::echo_that_believes_a_short_read);
    assert_eq!((&*failure.sent, failure.rule.number), ("'abc', an urgent 'X', 'def'", "R1"));
    assert_eq!(failure.received, "'abc', then silence for 3s");
}

const ANOTHER_PROCESS: &str = "CAMPANILE_TESTS_UNBOUNDED";

/// Only its own process shows what a server keeps.
#[test]
#[cfg(target_os = "linux")]
fn an_echo_without_bound_stops_at_7_where_its_process_is_seen() {
    let mut server = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "stops::unbounded", "--nocapture"])
        .env(ANOTHER_PROCESS, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let watchdog = Watchdog::new(server.id());
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let addr = lines.find_map(|line| Some(line.unwrap().split_once("bound to ")?.1.to_owned()));
    let failure = stops_at(7, Ladder::echo(addr.unwrap()));
    assert_eq!((&*failure.sent, failure.rule.number), ("64.0 MiB and read nothing", "E3"));
    assert!(failure.received.starts_with("the server took all of it, and its memory grew by "));
    drop(server.stdin.take());
    assert!(server.wait().unwrap().success());
    drop(watchdog);
}

/// The server of the test above, in a process of its own, until its stdin ends; otherwise nothing.
#[test]
fn unbounded() {
    if std::env::var_os(ANOTHER_PROCESS).is_some() {
        let server = wrong::echo_without_bound();
        println!("bound to {}", server.addr);
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    }
}

/// Within one process, the memory of the server and of the check cannot be told apart.
#[test]
fn memory_of_the_checks_own_process_does_not_count() {
    let server = wrong::echo_without_bound();
    let report = Ladder::echo(server.addr).only(7).timeout(PATIENCE).climb(|_| {}).unwrap();
    let Outcome::Reached { note: Some(note) } = &report.rungs[0].outcome else {
        panic!("{report}");
    };
    let expected = "the server took 64.0 MiB; memory not measured: \
                    the server runs in the same process as the check";
    assert_eq!(note, expected);
}

#[test]
fn a_daytime_that_waits_to_be_asked_stops_at_1() {
    let failure = daytime_stops_at(1, wrong::daytime_when_asked);
    assert_eq!((&*failure.sent, &*failure.received), ("nothing", "nothing, then silence for 3s"));
}

#[test]
fn a_daytime_that_does_not_end_stops_at_2() {
    let failure = daytime_stops_at(2, wrong::daytime_without_an_end);
    assert_eq!(failure.received, r"'Wed Jan 29 19:14:15 2014\r\n', then silence for 3s");
}

#[test]
fn a_daytime_that_sends_no_line_stops_at_2() {
    for (text, why) in [
        (&b"19:14"[..], "'19:14', then EOF: a line without an end"),
        (b"19:14\0\0", r"'19:14\x00\x00', then EOF: a line without an end"),
        (b"19:14\n19:15\n", r"'19:14\n19:15\n', then EOF: more than one line"),
        (b"19\x0014\r\n", r"'19\x0014\r\n', then EOF: '\x00' is not printable"),
        (b"\r\n", r"'\r\n', then EOF: an empty line"),
        (&[b'!'; 2000], "2000 bytes, then more, which is too long for a line"),
    ] {
        assert_eq!(daytime_stops_at(2, || wrong::daytime_that_says(text)).received, why);
    }
}

#[test]
fn the_end_of_the_line_is_noted() {
    for (text, note) in [
        (&b"19:14\r\n"[..], "ends with CR LF"),
        (b"19:14\n", "ends with LF"),
        (b"19:14\n\r", "ends with LF CR"),
        (b"\r\n19:14\r\0", "ends with CR"),
        (b"\n56686 14-01-29 19:14:15 00 0 0 UTC(NIST) *\n", "ends with LF"),
    ] {
        let server = wrong::daytime_that_says(text);
        let report = Ladder::daytime(server.addr).timeout(PATIENCE).climb(|_| {}).unwrap();
        assert!(report.is_well(), "{report}");
        assert_eq!(report.rungs[1].outcome, Outcome::Reached { note: Some(note.into()) });
    }
}

#[test]
fn the_tutorials_daytime_which_does_not_read_stops_at_3() {
    let failure = daytime_stops_at(3, wrong::daytime_that_does_not_read);
    assert_eq!(failure.rule.number, "D3");
    assert!(failure.received.contains("the connection failed"), "{}", failure.received);
}

#[test]
fn a_daytime_that_leaks_stops_at_4() {
    let failure = daytime_stops_at(4, wrong::daytime_that_leaks);
    assert_eq!(failure.received, "nothing, then EOF");
}

#[test]
fn a_daytime_that_dies_of_a_reset_stops_at_5() {
    assert_eq!(daytime_stops_at(5, wrong::daytime_that_dies_of_a_reset).rule.number, "D4");
}

#[test]
fn a_daytime_one_after_the_other_stops_at_6() {
    let failure = daytime_stops_at(6, wrong::daytime_one_after_the_other);
    assert_eq!(failure.sent, "nothing; while another client had its line and did not close");
    assert_eq!(failure.received, "nothing, then silence for 3s");
}

/// Climbs and returns the rung that our bound ended, with what the client received there, and the bound.
#[track_caller]
fn times_out(ladder: Ladder) -> (usize, String, Bound) {
    let report = ladder.climb(|_| {}).unwrap();
    assert_eq!((report.stopped().map(|(rung, _)| rung.number), report.is_well()), (None, false));
    let end = report.rungs.iter().find_map(|rung| match &rung.outcome {
        Outcome::TimedOut { received, bound, .. } => Some((rung.number, received.clone(), *bound)),
        _ => None,
    });
    let (number, received, bound) = end.unwrap_or_else(|| panic!("it times out\n{report}"));
    assert_eq!(report.reached(), number - 1, "{report}");
    assert!(report.rungs[number - 1].took < DEADLINE, "{report}");
    (number, received, bound)
}

#[test]
fn a_slow_but_correct_echo_is_ended_by_our_bound_and_not_by_a_rule() {
    let server = TestServer::start();
    server.fault("echo: slice 100/10ms");
    let timeout = Duration::from_secs(1);
    let (number, received, bound) = times_out(Ladder::echo(server.echo().addr()).timeout(timeout));
    assert_eq!((number, bound), (4, Bound::Rung { timeout }));
    assert!(received.contains(" bytes, as sent, until the bound ended the rung; "), "{received}");
    let expected = "10s for one rung, 10 times the timeout of 1s";
    assert_eq!(bound.to_string(), expected);
}

#[test]
fn a_slow_but_correct_daytime_is_ended_by_our_bound_and_not_by_a_rule() {
    let server = TestServer::start();
    // 26 bytes take longer than the rung may, and the gaps are half of what may be silent.
    server.fault("daytime: slice 1/450ms");
    let timeout = Duration::from_secs(1);
    let ladder = Ladder::daytime(server.daytime().addr()).timeout(timeout);
    let (number, received, bound) = times_out(ladder);
    assert_eq!((number, bound), (2, Bound::Rung { timeout }));
    assert!(received.ends_with(", until the bound ended the rung"), "{received}");
}

#[test]
fn a_climb_is_bounded_by_its_deadline() {
    let server = TestServer::start();
    server.fault("echo: rate 10000/s");
    let deadline = Duration::from_secs(2);
    let ladder = Ladder::echo(server.echo().addr()).deadline(Some(deadline));
    let (number, _, bound) = times_out(ladder);
    assert_eq!((number, bound), (4, Bound::Climb { deadline }));
    assert_eq!(bound.to_string(), "2s for the whole check");
}
