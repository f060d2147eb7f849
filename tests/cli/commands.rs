//! The commands of `serve --pipe`, and manual time.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};

use serde_json::{Value, json};

use super::faults::Telling;
use super::program::{campanile, run_words, signal};
use super::schema::checked;
use crate::common::{connect, eventually, ping, read_all};

fn names(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["event"].as_str().unwrap()).collect()
}

fn received(server: &Telling) -> usize {
    read_all(&mut connect(server.daytime)).unwrap().len()
}

/// Returns the names of all events of `serve` in the schema.
fn events_of_serve() -> BTreeSet<String> {
    let schema: Value = serde_json::from_str(include_str!("../schema/events.json")).unwrap();
    let rules = schema["oneOf"].as_array().unwrap().iter();
    let names = rules.map(|rule| rule["properties"]["event"]["const"].as_str().unwrap().to_owned());
    names.filter(|name| name != "rung" && !name.starts_with("check")).collect()
}

#[test]
fn a_fault_is_removed_by_the_id_of_its_answer() {
    let mut server = Telling::start(&["--pipe", "--fault", "daytime: close after 9 bytes"]);
    let answer = server.ask("daytime: close after 3 bytes");
    let expected =
        json!({"v": 1, "event": "fault", "id": 2, "fault": "daytime: close after 3 bytes"});
    assert_eq!(answer, expected);
    assert_eq!(received(&server), 3);
    let answer = server.ask("remove 2");
    assert_eq!((&answer["event"], &answer["id"]), (&"fault_ended".into(), &2.into()));
    assert_eq!(answer["fault"], "daytime: close after 3 bytes");
    assert_eq!(received(&server), 9);
    assert_eq!(server.ask("remove 1")["fault"], "daytime: close after 9 bytes");
    assert_eq!(received(&server), 26);
    for id in [1, 2, 3] {
        let answer = server.ask(&format!("remove {id}"));
        assert_eq!(answer["event"], "wrong_fault");
        let error = answer["error"].as_str().unwrap();
        assert!(error.starts_with(&format!("no fault with the id {id} is in force: ")), "{error}");
    }
    // An id is never used again.
    assert_eq!(server.ask("echo: reset")["id"], 3);
}

#[test]
fn a_removed_refuse_lets_clients_connect_again() {
    let mut server = Telling::start(&["--pipe"]);
    let id = server.ask("echo: refuse")["id"].clone();
    let refused = TcpStream::connect(server.echo).map_err(|error| error.kind());
    assert_eq!(refused.err(), Some(ErrorKind::ConnectionRefused));
    server.ask(&format!("remove {id}"));
    ping(&mut connect(server.echo), b"x");
}

#[test]
fn clear_ends_every_fault_and_says_how_many() {
    let mut server = Telling::start(&["--pipe"]);
    for fault in ["echo: refuse", "daytime once: close after 3 bytes", "daytime 30%: reset"] {
        server.ask(fault);
    }
    let answer = server.ask_all("clear");
    assert_eq!(names(&answer), ["fault_ended", "fault_ended", "fault_ended", "cleared"]);
    let ended: Vec<_> =
        answer[..3].iter().map(|e| (&e["id"], e["fault"].as_str().unwrap())).collect();
    let expected = [
        (&1.into(), "echo: refuse"),
        (&2.into(), "daytime once: close after 3 bytes"),
        (&3.into(), "daytime 30%: reset"),
    ];
    assert_eq!((ended, &answer[3]["count"]), (expected.into(), &3.into()));
    assert_eq!(received(&server), 26);
    ping(&mut connect(server.echo), b"x");
    assert_eq!(server.ask("clear")["count"], 0);
}

#[test]
fn connections_lists_what_is_open_with_the_ledger_so_far() {
    let mut server = Telling::start(&["--pipe"]);
    let answer = server.ask_all("connections");
    assert_eq!((names(&answer), &answer[0]["count"]), (vec!["listed"], &0.into()));
    server.ask("echo #2: stall after 2 bytes");
    let (mut first, mut second) = (connect(server.echo), connect(server.echo));
    ping(&mut first, b"Hello");
    second.write_all(b"Hello, world").unwrap();
    second.read_exact(&mut [0; 2]).unwrap();
    let answer = server.ask_all("connections");
    assert_eq!(names(&answer), ["accepted", "accepted", "open", "open", "listed"]);
    // The stall takes effect at the write after the two bytes.
    let answer = eventually("the stall", || {
        let answer = server.ask_all("connections");
        (answer[1]["faults"] != json!([])).then_some(answer)
    });
    let [one, two, listed] = &answer[..] else { panic!("{answer:?}") };
    assert_eq!(
        (&one["id"], &one["bytes_in"], &one["bytes_out"]),
        (&1.into(), &5.into(), &5.into())
    );
    assert_eq!(one["peer"], first.local_addr().unwrap().to_string());
    assert_eq!((&one["service"], &one["faults"]), (&"echo".into(), &json!([])));
    assert_eq!((&two["id"], &two["bytes_out"]), (&2.into(), &2.into()));
    assert_eq!(two["faults"], json!(["echo #2: stall after 2 bytes"]));
    assert_eq!(
        (one.get("reason"), one.get("closed_us"), &listed["count"]),
        (None, None, &2.into())
    );
    first.shutdown(Shutdown::Write).unwrap();
    assert_eq!(server.next()["event"], "closed");
    assert_eq!(names(&server.ask_all("connections")), ["open", "listed"]);
}

#[test]
fn a_connection_is_accepted_before_it_is_listed_and_closed_after_that() {
    let mut server = Telling::start(&["--pipe"]);
    let addr = server.echo;
    let clients = std::thread::spawn(move || {
        for _ in 0..300 {
            let mut client = connect(addr);
            (0..3).for_each(|_| ping(&mut client, b"x"));
        }
    });
    let (mut open, mut listed, mut closed) = (BTreeSet::new(), 0, 0);
    while closed < 300 {
        for event in server.ask_all("connections") {
            let id = event["id"].as_u64();
            match event["event"].as_str().unwrap() {
                "accepted" => assert!(open.insert(id)),
                "open" => {
                    assert!(open.contains(&id), "{event}");
                    listed += 1;
                }
                "closed" => {
                    assert!(open.remove(&id));
                    closed += 1;
                }
                "listed" => {}
                _ => panic!("{event}"),
            }
        }
    }
    clients.join().unwrap();
    assert!(listed > 0, "no connection was open while the program listed them");
}

#[test]
fn time_passes_by_the_command_alone() {
    let words = ["--pipe", "--manual-time", "--idle", "60s"];
    let mut server = Telling::start(&words);
    server.ask("echo: delay 5s");
    let mut client = connect(server.echo);
    client.write_all(b"x").unwrap();
    assert_eq!(server.next()["event"], "accepted");
    // The byte has arrived, and its answer waits for the delay.
    let is_read = |server: &mut Telling| server.ask_all("connections")[0]["bytes_in"] == 1;
    while !is_read(&mut server) {}
    assert_eq!(server.ask("advance 4s")["now_us"], 4_000_000);
    client.set_nonblocking(true).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    let answer = server.ask("advance 1s");
    let expected = json!({"v": 1, "event": "advanced", "by_us": 1_000_000, "now_us": 5_000_000});
    assert_eq!(answer, expected);
    client.set_nonblocking(false).unwrap();
    client.read_exact(&mut [0]).unwrap();
    // Everything that is due on the way happens before the answer.
    let answer = server.ask_all("advance 2m");
    assert_eq!(names(&answer), ["closed", "advanced"]);
    assert_eq!(answer[0]["reason"], "idle for too long");
    let closed = answer[0]["closed_us"].as_u64().unwrap();
    assert!((60_000_000..=125_000_000).contains(&closed), "{closed}");
    for line in ["advance 31y", "advance", "advance soon"] {
        assert_eq!(server.ask(line)["event"], "wrong_fault", "{line}");
    }
    assert_eq!(server.ask("advance 0s")["now_us"], 125_000_000);
}

#[test]
fn advance_without_manual_time_is_answered_with_the_next_step() {
    let mut server = Telling::start(&["--pipe"]);
    let answer = server.ask("advance 5s");
    assert_eq!(answer["error"], "time passes by itself: start with --manual-time");
}

#[test]
fn manual_time_comes_from_the_environment_too() {
    let mut command = campanile();
    command.env("CAMPANILE_MANUAL_TIME", "1").args(["serve", "--pipe", "-q"]);
    let mut server = Telling::spawn(&mut command);
    assert_eq!(server.ask("advance 5s")["event"], "advanced");
}

#[test]
fn manual_time_without_a_pipe_is_a_usage_error() {
    for words in [&["serve", "--manual-time"][..], &["serve", "--json", "--manual-time"]] {
        let ended = run_words(words);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        let expected = "error: --manual-time needs --pipe, or no time would pass\n  add --pipe, ";
        assert!(ended.stderr.starts_with(expected), "{ended:?}");
    }
}

#[test]
fn a_program_whose_time_stands_still_ends_with_open_connections() {
    for by_signal in [true, false] {
        let mut server = Telling::start(&["--pipe", "--manual-time", "--grace", "100ms"]);
        let mut client = connect(server.echo);
        ping(&mut client, b"x");
        if by_signal {
            signal(server.child.id(), libc::SIGTERM);
        } else {
            drop(server.stdin.take());
        }
        assert_eq!(server.child.wait().unwrap().code(), Some(0), "{by_signal}");
        assert_eq!(client.read(&mut [0]).unwrap(), 0, "{by_signal}");
    }
}

#[test]
fn every_event_of_the_schema_is_printed_and_is_valid() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let route = format!("db=0>{}", upstream.local_addr().unwrap());
    let mut server = Telling::start(&["--pipe", "--manual-time", "--proxy", &route]);
    let listening = server.next();
    let mut seen = vec![listening["event"].clone()];
    let mut client = connect(server.echo);
    ping(&mut client, b"x");
    let _proxied = connect(listening["addr"].as_str().unwrap().parse().unwrap());
    let _behind = upstream.accept().unwrap();
    let lines =
        ["echo: deaf", "remove 1", "rest", "connections", "clear", "advance 1s", "advance 1h"];
    for line in lines {
        seen.extend(server.ask_all(line).into_iter().map(|event| event["event"].clone()));
    }
    drop(server.stdin.take());
    let mut events = String::new();
    server.stdout.read_to_string(&mut events).unwrap();
    seen.extend(events.lines().map(|line| checked(line)["event"].clone()));
    let mut seen: BTreeSet<_> = seen.iter().map(|name| name.as_str().unwrap().to_owned()).collect();
    // Full descriptor tables and unread pipes have tests of their own.
    seen.extend(["accept_error", "lost"].map(str::to_owned));
    assert_eq!(seen, events_of_serve());
    assert!(server.child.wait().unwrap().success());
}
