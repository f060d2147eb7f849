//! `campanile check`: its output and its exit codes.

use std::net::TcpListener;

use campanile::testing::TestServer;

use crate::common::namespace;
use crate::program::{Ended, Folder, Server, run, run_words};
use crate::wrong;

/// What stderr shows while these rungs are climbed.
fn progress(names: &[&str]) -> String {
    (1..).zip(names).map(|(number, name)| format!("rung {number}: {name} ...\n")).collect()
}

const DAYTIME: [&str; 6] = [
    "a client that sends nothing",
    "one line, then EOF",
    "a client that sends first",
    "100 clients at once",
    "resets",
    "a client that never closes",
];

/// `campanile check` with at most so many descriptors.
fn with_descriptors(count: usize, words: &[&str]) -> Ended {
    let mut shell = std::process::Command::new("sh");
    let script = format!("ulimit -n {count} && exec \"$0\" check \"$@\"");
    run(shell.args(["-c", &script, env!("CARGO_BIN_EXE_campanile")]).args(words))
}

#[test]
fn a_good_server_gets_a_table_and_exit_0() {
    let server = TestServer::start();
    let addr = server.daytime().addr().to_string();
    let ended = run_words(["check", "daytime", &addr]);
    let expected = format!(
        "daytime {addr}: 6 of 6 rungs\n  \
         1  a client that sends nothing       reached\n  \
         2  one line, then EOF                reached, ends with CR LF\n  \
         3  a client that sends first         reached\n  \
         4  100 clients at once               reached\n  \
         5  resets                            reached\n  \
         6  a client that never closes        reached\n"
    );
    assert_eq!((ended.code, ended.stdout), (Some(0), expected));
    assert_eq!(ended.stderr, progress(&DAYTIME), "a pipe gets the progress as lines");
}

#[test]
fn a_server_that_stops_or_is_silent_gets_a_table_that_says_why_and_exit_3() {
    let server = wrong::daytime_when_asked();
    let addr = server.addr.to_string();
    let ended = run_words(["check", "daytime", &addr, "--timeout", "1s"]);
    let expected = format!(
        "daytime {addr}: 0 of 6 rungs\n  \
         1  a client that sends nothing       STOPPED\n       \
         sent      nothing\n       \
         received  nothing, then silence for 1s\n       \
         rule      D1: the server sends the time at once, without waiting for a\n                 \
         request or for the client's EOF\n       \
         read      src/guide/library.md\n  \
         2  one line, then EOF                -\n  \
         3  a client that sends first         -\n  \
         4  100 clients at once               -\n  \
         5  resets                            -\n  \
         6  a client that never closes        -\n"
    );
    assert_eq!((ended.code, ended.stdout), (Some(3), expected));
    let expected = format!(
        "{}error: {addr} does not reach rung 1, a client that sends nothing\n  \
         fix the server, then run: campanile check daytime --rung 1 {addr}\n",
        progress(&DAYTIME[..1])
    );
    assert_eq!(ended.stderr, expected);
}

#[test]
fn a_slow_server_gets_the_bound_that_ended_the_rung_and_exit_124() {
    let server = TestServer::start();
    server.fault("daytime: slice 1/450ms");
    let addr = server.daytime().addr().to_string();
    let ended = run_words(["check", "daytime", &addr, "--timeout", "1s"]);
    assert_eq!(ended.code, Some(124), "{}", ended.stdout);
    let bound = "10s for one rung, 10 times the timeout of 1s";
    let lines = "\n  2  one line, then EOF                TIMED OUT\n       sent      nothing\n";
    assert!(ended.stdout.contains(lines), "{}", ended.stdout);
    assert!(ended.stdout.contains(&format!("\n       bound     {bound}\n")), "{}", ended.stdout);
    let expected = format!(
        "{}error: rung 2, one line, then EOF, did not finish within the bound of {bound}\n  \
         allow more time: campanile check daytime --rung 2 --timeout 3s {addr}\n",
        progress(&DAYTIME[..2])
    );
    assert_eq!(ended.stderr, expected);

    let words = ["check", "daytime", &addr, "--json", "--deadline", "3s"];
    let ended = run_words(words);
    assert_eq!(ended.code, Some(124), "{}", ended.stdout);
    let object: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    let rung = &object["rungs"][1];
    assert_eq!(
        (&rung["outcome"], &rung["bound"]),
        (&"timed-out".into(), &"3s for the whole check".into())
    );
    let advice =
        format!("  allow more time: campanile check daytime --rung 2 --deadline 9s {addr}\n");
    assert!(ended.stderr.ends_with(&advice), "{}", ended.stderr);
}

#[test]
fn an_exercise_climbs_up_to_its_rung() {
    let server = wrong::echo_one_after_the_other();
    let addr = server.addr.to_string();
    let ended = run_words(["check", "echo", "--rung", "2", &addr]);
    let expected = progress(&["one client", "the next client"]);
    assert_eq!((ended.code, ended.stderr), (Some(0), expected));
    assert!(ended.stdout.starts_with(&format!("echo {addr}: 2 of 2 rungs\n")), "{}", ended.stdout);
    assert_eq!(ended.stdout.lines().count(), 3, "{}", ended.stdout);
}

#[test]
fn json_output_is_one_object() {
    let server = wrong::echo_of_text();
    let addr = server.addr.to_string();
    let ended = run_words(["check", "echo", "--json", &addr, "--rung", "5"]);
    assert_eq!((ended.code, ended.stdout.lines().count()), (Some(3), 1));
    let object: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(object["v"], 1);
    assert_eq!((&object["service"], &object["addr"]), (&"echo".into(), &addr.into()));
    assert_eq!((&object["reached"], &object["goal"]), (&3.into(), &5.into()));
    let rungs = object["rungs"].as_array().unwrap();
    let outcomes: Vec<_> = rungs.iter().map(|rung| rung["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["reached", "reached", "reached", "stopped", "untried"]);
    let (first, stopped) = (&rungs[0], &rungs[3]);
    assert_eq!((&first["rung"], &first["name"]), (&1.into(), &"one client".into()));
    assert!(first["ms"].is_u64() && first.get("note").is_none());
    assert_eq!(stopped["rule"], "E1");
    assert!(stopped["sent"].as_str().unwrap().ends_with("1048576 bytes"), "{stopped}");
    assert!(stopped["came"].is_string() && stopped["says"].is_string());
}

#[test]
fn a_rung_without_descriptors_is_not_tried_and_that_is_exit_4() {
    // In a process of its own: other tests use the memory of this one.
    let server = Server::start(&["-q"]);
    let addr = server.echo[0].to_string();
    for count in [30, 100] {
        let ended = with_descriptors(count, &["echo", &addr]);
        assert_eq!(ended.code, Some(4), "{}", ended.stdout);
        let head = format!("echo {addr}: 7 of 8 rungs, 1 not tried\n");
        assert!(ended.stdout.starts_with(&head), "{}", ended.stdout);
        let last = ended.stdout.lines().last().unwrap();
        let rest = last.strip_prefix("  8  resets, urgent data, 1,000 idle   ").unwrap();
        let rest = rest.strip_prefix("not tried, no free file descriptor after ").unwrap();
        let connected = rest.strip_suffix(" clients of 1000 (at least 100)").unwrap();
        assert!((1..count).contains(&connected.parse().unwrap()), "{rest}");
        let error = "error: this machine cannot try rung 8, resets, urgent data, 1,000 idle: \
                     no free file descriptor after ";
        let advice = format!(
            "  raise the limit of open files: ulimit -n 4096; then run: campanile check echo {addr}\n"
        );
        assert!(
            ended.stderr.contains(error) && ended.stderr.ends_with(&advice),
            "{}",
            ended.stderr
        );
    }
}

#[test]
fn a_rung_without_any_descriptor_is_not_tried_either() {
    let server = TestServer::start();
    let addr = server.echo().addr().to_string();
    // stdin, stdout, stderr, the selector and its waker.
    let ended = with_descriptors(5, &["echo", "--rung", "2", "--json", &addr]);
    let object: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((ended.code, &object["reached"]), (Some(4), &0.into()));
    for rung in object["rungs"].as_array().unwrap() {
        assert_eq!(
            (&rung["outcome"], &rung["why"]),
            (&"not-tried".into(), &"no free file descriptor".into())
        );
        assert_eq!(rung["advice"], "raise the limit of open files: ulimit -n 4096");
    }
    let ended = with_descriptors(4, &["echo", &addr]);
    let expected = "error: cannot run the check: Too many open files (os error 24)\n  \
                    close other programs, or raise the limit of open files: ulimit -n 4096\n";
    assert_eq!((ended.code, &*ended.stdout, &*ended.stderr), (Some(4), "", expected));
}

#[test]
fn a_hundred_descriptors_and_more_are_enough_for_a_smaller_crowd() {
    let server = Server::start(&["-q"]);
    let ended = with_descriptors(140, &["echo", &server.echo[0].to_string()]);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    let last = ended.stdout.lines().last().unwrap();
    let (_, rest) = last.split_once("   reached, with ").unwrap();
    let count = rest.strip_suffix(" of 1,000 idle clients: no free file descriptor").unwrap();
    assert!((100..140).contains(&count.parse().unwrap()), "{rest}");
}

#[test]
fn a_rung_that_is_not_reached_outweighs_one_that_is_not_tried() {
    let server = wrong::daytime_that_dies_of_a_reset();
    let addr = server.addr.to_string();
    let ended = with_descriptors(50, &["daytime", "--timeout", "3s", &addr]);
    assert_eq!(ended.code, Some(3), "{}", ended.stdout);
    let head = format!("daytime {addr}: 3 of 6 rungs, 1 not tried\n");
    assert!(ended.stdout.starts_with(&head), "{}", ended.stdout);
    assert!(ended.stderr.contains("does not reach rung 5, resets\n"), "{}", ended.stderr);
}

/// Runs the program's server and a check in a namespace with these local ports.
#[cfg(target_os = "linux")]
fn with_ports(ports: &str, words: &str) -> Option<Ended> {
    let script = format!(
        "mkfifo \"$1\"\n\
         timeout 60 \"$0\" serve -q -d 9999 -e 12345 --ready-file \"$1\" >/dev/null &\n\
         cat \"$1\" >/dev/null; \"$0\" check {words}; code=$?; kill $!; wait; exit $code"
    );
    let folder = Folder::new(&format!("ports-{}", ports.replace(' ', "-")));
    let mut command = namespace::with_ports(ports, &script)?;
    Some(run(command.arg(env!("CARGO_BIN_EXE_campanile")).arg(folder.join("lines"))))
}

#[test]
#[cfg(target_os = "linux")]
fn a_few_hundred_local_ports_are_enough_for_a_smaller_crowd() {
    let Some(ended) = with_ports("40000 40499", "echo 2>&1") else { return };
    assert_eq!(ended.code, Some(0), "{}", ended.stdout);
    let last = ended.stdout.lines().last().unwrap();
    let (_, rest) = last.split_once("   reached, with ").unwrap();
    let count = rest.strip_suffix(" of 1,000 idle clients: no free local port").unwrap();
    assert!((100..500).contains(&count.parse().unwrap()), "{rest}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_rung_without_local_ports_is_not_tried_and_the_climb_goes_on() {
    let Some(ended) = with_ports("40000 40089", "daytime") else { return };
    assert_eq!(ended.code, Some(4), "{}", ended.stdout);
    let outcomes: Vec<_> = ended.stdout.lines().skip(1).map(|line| &line[39..]).collect();
    let head = "daytime 127.0.0.1:9999: 5 of 6 rungs, 1 not tried\n";
    assert!(ended.stdout.starts_with(head), "{}", ended.stdout);
    assert!(outcomes[3].starts_with("not tried, no free local port after "), "{outcomes:?}");
    assert_eq!(outcomes[4..], ["reached", "reached"]);
    let advice = "  wait a minute until used ports become free, or widen the range: \
                  sysctl net.ipv4.ip_local_port_range; then run: campanile check daytime 127.0.0.1:9999\n";
    assert!(ended.stderr.ends_with(advice), "{}", ended.stderr);
}

/// The error of connect(2) is that of a machine without a free port.
#[test]
#[cfg(target_os = "linux")]
fn an_address_family_that_is_off_is_an_error_and_no_lack_of_ports() {
    let script = "for name in all lo; do echo 1 >/proc/sys/net/ipv6/conf/$name/disable_ipv6; done\n\
                  \"$0\" check echo '[::1]:12345'";
    let Some(mut command) = namespace::with_ports("32768 60999", script) else { return };
    let ended = run(command.arg(env!("CARGO_BIN_EXE_campanile")));
    let expected = "error: cannot connect to [::1]:12345: Cannot assign requested address\n";
    assert_eq!((ended.code, &*ended.stdout), (Some(1), ""), "{}", ended.stderr);
    assert!(ended.stderr.contains(expected), "{}", ended.stderr);
}

#[test]
fn a_refused_connection_is_exit_1() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let ended = run_words(["check", "echo", "--json", &nobody]);
    let message = format!("cannot connect to {nobody}: Connection refused");
    let expected = format!(
        "{{\"v\":1,\"service\":\"echo\",\"addr\":\"{nobody}\",\"error\":\"not-connected\",\
         \"message\":\"{message}\"}}\n"
    );
    assert_eq!((ended.code, ended.stdout), (Some(1), expected));
    let advice = "check the address and the port, and start the server that is to be checked";
    let progress = progress(&["one client"]);
    assert_eq!(ended.stderr, format!("{progress}error: {message}\n  {advice}\n"));
    let ended = run_words(["check", "daytime", "no-such-name.invalid:13"]);
    assert_eq!((ended.code, &*ended.stdout), (Some(1), ""));
    assert!(ended.stderr.starts_with("error: cannot find no-such-name.invalid:13: "));
}

#[test]
fn a_rung_beyond_the_ladder_is_a_usage_error() {
    for (service, rung, top) in [("echo", "9", 8), ("daytime", "7", 6), ("echo", "0", 8)] {
        let ended = run_words(["check", service, "--rung", rung]);
        let expected = format!(
            "error: invalid value '{rung}' for '--rung <N>': \
             expected a rung of this ladder, from 1 to {top}\n"
        );
        assert_eq!(ended.code, Some(2));
        assert!(ended.stderr.starts_with(&expected), "{}", ended.stderr);
    }
    assert_eq!(run_words(["check"]).code, Some(2));
}
