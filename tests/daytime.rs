//! Daytime over real sockets.

mod common;

use std::io::Write;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use campanile::{Background, Clock, Limits, Zone, daytime};
use common::{Both, TUTORIAL, TUTORIAL_LINE, connect, pattern, read_all};

#[test]
fn the_line_comes_without_being_asked_and_then_eof() {
    let server = Both::start(Limits::default());
    for _ in 0..10 {
        assert_eq!(read_all(&mut connect(server.daytime)).unwrap(), TUTORIAL_LINE);
    }
}

#[test]
fn a_client_that_talks_first_gets_the_line_and_a_clean_eof_200_of_200() {
    let server = Both::start(Limits::default());
    let chatter = pattern(60 * 1024);
    for round in 0..200 {
        let mut client = connect(server.daytime);
        client.write_all(&chatter).unwrap();
        let line = read_all(&mut client).unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert_eq!(line, TUTORIAL_LINE, "round {round}");
    }
    assert_eq!(server.finish().peer_resets, 0);
}

#[test]
fn whoever_connects_and_goes_at_once_disturbs_nobody() {
    let server = Both::start(Limits::default());
    for round in 0..300 {
        let mut client = connect(server.daytime);
        match round % 3 {
            0 => client.shutdown(Shutdown::Both).unwrap(),
            1 => client.shutdown(Shutdown::Write).unwrap(),
            _ => common::reset(&client),
        }
        if round % 3 == 1 {
            assert_eq!(read_all(&mut client).unwrap(), TUTORIAL_LINE);
        }
    }
    assert_eq!(read_all(&mut connect(server.daytime)).unwrap(), TUTORIAL_LINE);
    assert_eq!(server.finish().panics, 0);
}

#[test]
fn many_at_once_get_one_line_each() {
    let server = Both::start(Limits::default());
    let mut clients: Vec<_> = (0..500).map(|_| connect(server.daytime)).collect();
    for client in &mut clients {
        assert_eq!(read_all(client).unwrap(), TUTORIAL_LINE);
    }
}

#[test]
fn the_clock_may_step_by_decades_and_leave_every_calendar() {
    let hand = Arc::new(AtomicI64::new(TUTORIAL));
    let clock = Clock::manual(hand.clone()).in_zone(Zone::east(3600).unwrap());
    let (server, addr) = Background::start(Limits::default(), |reactor| {
        reactor.listen("127.0.0.1:0", daytime(clock))
    })
    .unwrap();
    let decade = 315_576_000;
    let steps = [
        (TUTORIAL, "Wed Jan 29 20:14:15 2014\r\n"),
        (TUTORIAL + decade, "Tue Jan 30 08:14:15 2024\r\n"),
        (TUTORIAL - decade, "Fri Jan 30 08:14:15 2004\r\n"),
        (-1, "Thu Jan  1 00:59:59 1970\r\n"),
        (1_831_387_881_600, "Sun May 16 01:00:00 60004\r\n"),
    ];
    for (second, expected) in steps.into_iter().cycle().take(50) {
        hand.store(second, Ordering::Relaxed);
        let line = read_all(&mut connect(addr)).unwrap();
        assert_eq!(String::from_utf8(line).unwrap(), expected);
    }
    for second in [i64::MIN, i64::MAX] {
        hand.store(second, Ordering::Relaxed);
        assert!(read_all(&mut connect(addr)).unwrap().ends_with(b"\r\n"));
    }
    assert_eq!(server.shutdown(common::DEADLINE).unwrap().panics, 0);
}
