//! `campanile check`: its output and its exit codes.

use std::io::{self, BufRead, BufReader};
use std::net::TcpListener;
use std::ops::Range;
use std::process::{Command, Stdio};

use campanile::testing::TestServer;

use crate::common::{DEADLINE, namespace, skip};
use crate::program::{Ended, Folder, Server, Watchdog, campanile, run, run_words};
use crate::schema::checked;
use crate::wrong;

/// The events of `--json`, each one checked against the schema.
fn events(ended: &Ended) -> Vec<serde_json::Value> {
    ended.stdout.lines().map(checked).collect()
}

#[track_caller]
fn ends(ended: &Ended, code: i32, stdout: &str, stderr: &str) {
    let is_so = ended.stdout.ends_with(stdout) && ended.stderr.ends_with(stderr);
    assert!(ended.code == Some(code) && is_so, "{}\n{}", ended.stdout, ended.stderr);
}

/// Rung 8 was reached with fewer idle clients than 1,000, for this reason.
#[track_caller]
fn has_smaller_crowd(ended: &Ended, counts: Range<usize>, reason: &str) {
    ends(ended, 0, ": 8 of 8 rungs\n", "");
    let (_, rest) = ended.stdout.split_once("   reached, with ").unwrap();
    let (count, rest) = rest.split_once(" of 1,000 idle clients: ").unwrap();
    assert!(rest.starts_with(reason) && counts.contains(&count.parse().unwrap()), "{count} {rest}");
}

/// `campanile check` with at most so many descriptors.
fn with_descriptors(count: usize, words: &[&str]) -> Ended {
    let mut shell = Command::new("sh");
    let script = format!("ulimit -n {count} && exec \"$0\" check \"$@\"");
    run(shell.args(["-c", &script, env!("CARGO_BIN_EXE_campanile")]).args(words))
}

#[test]
fn a_good_server_gets_a_table_and_exit_0() {
    let server = TestServer::start();
    let addr = server.daytime().addr().to_string();
    let ended = run_words(["check", "daytime", &addr]);
    let expected = format!(
        "\u{20} \
         1  a client that sends nothing       reached\n  \
         2  one line, then EOF                reached, ends with CR LF\n  \
         3  a client that sends first         reached\n  \
         4  100 clients at once               reached\n  \
         5  resets                            reached\n  \
         6  a client that never closes        reached\n\
         daytime {addr}: 6 of 6 rungs\n"
    );
    assert_eq!((ended.code, ended.stdout, &*ended.stderr), (Some(0), expected, ""));
}

#[test]
fn a_server_that_stops_or_is_silent_gets_a_table_that_says_why_and_exit_3() {
    let server = wrong::daytime_when_asked();
    let addr = server.addr.to_string();
    let ended = run_words(["check", "daytime", &addr, "--timeout", "1s"]);
    let expected = format!(
        "\u{20} \
         1  a client that sends nothing       STOPPED\n       \
         sent      nothing\n       \
         received  nothing, then silence for 1s\n       \
         rule      D1: the server sends the time at once, without waiting for a\n                 \
         request or for the client's EOF\n       \
         why       a client of daytime sends nothing, so both sides would wait\n                 \
         for ever\n       \
         source    RFC 867\n       \
         read      src/guide/library.md\n\
         daytime {addr}: 0 of 6 rungs\n"
    );
    assert_eq!((ended.code, ended.stdout), (Some(3), expected));
    let expected = format!(
        "error: {addr} does not reach rung 1, a client that sends nothing\n  \
         fix the server, then run: campanile check daytime --rung 1 {addr}\n"
    );
    assert_eq!(ended.stderr, expected);
}

#[test]
fn a_slow_server_gets_the_bound_that_ended_the_rung_and_exit_124() {
    let server = TestServer::start();
    server.fault("daytime: slice 1/450ms");
    let addr = server.daytime().addr().to_string();
    let ended = run_words(["check", "daytime", &addr, "--timeout", "1s"]);
    let bound = "10s for one rung, 10 times the timeout of 1s";
    let lines = "\n  2  one line, then EOF                TIMED OUT\n       sent      nothing\n";
    assert!(ended.stdout.contains(lines), "{}", ended.stdout);
    let expected = format!(
        "error: rung 2, one line, then EOF, did not finish within the bound of {bound}\n  \
         allow more time: campanile check daytime --rung 2 --timeout 3s {addr}\n"
    );
    let end = format!("\n       bound     {bound}\ndaytime {addr}: 1 of 6 rungs\n");
    ends(&ended, 124, &end, &expected);

    let ended = run_words(["check", "daytime", &addr, "--json", "--deadline", "3s", "--rung", "2"]);
    let advice =
        format!("  allow more time: campanile check daytime --rung 2 --deadline 9s {addr}\n");
    ends(&ended, 124, "", &advice);
    let rung = &events(&ended)[0];
    assert_eq!([&rung["outcome"], &rung["bound"]], ["timed-out", "3s for the whole check"]);
}

#[test]
fn each_rung_is_printed_when_it_is_done_also_into_a_pipe() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // This bounds accept(2), too.
    socket2::SockRef::from(&listener).set_read_timeout(Some(DEADLINE)).unwrap();
    let serve = || {
        let (client, _) = listener.accept().unwrap();
        io::copy(&mut &client, &mut &client).unwrap();
    };
    let mut check = campanile();
    check.args(["check", "echo", &listener.local_addr().unwrap().to_string()]);
    let mut child = check.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let watchdog = Watchdog::new(child.id());
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    serve();
    let mut next = || lines.next().unwrap().unwrap();
    assert_eq!(next(), "  1  one client                        reached");
    // The second rung waits for these.
    serve();
    serve();
    assert_eq!(next(), "  2  the next client                   reached");
    drop(listener);
    assert_eq!(child.wait().unwrap().code(), Some(3));
    drop(watchdog);
}

#[test]
fn json_output_is_one_event_for_each_rung_and_one_for_the_end() {
    let server = wrong::echo_of_text();
    let addr = server.addr.to_string();
    let ended = run_words(["check", "echo", "--json", &addr]);
    let [first, second, third, stopped, end] = &events(&ended)[..] else {
        panic!("{}", ended.stdout)
    };
    assert_eq!([first, second, third, stopped].map(|event| &event["rung"]), [1, 2, 3, 4]);
    assert!([first, second, third].iter().all(|event| event["outcome"] == "reached"));
    assert_eq!([&end["event"], &end["addr"]], ["checked", &*addr]);
    assert_eq!([&end["reached"], &end["not_tried"], &end["rungs"]], [3, 0, 8]);
    assert_eq!([&stopped["outcome"], &stopped["rule"]], ["stopped", "E1"]);
    assert!(stopped["sent"].as_str().unwrap().ends_with("1048576 bytes"), "{stopped}");
}

#[test]
fn a_rung_without_descriptors_is_not_tried_and_that_is_exit_4() {
    // In a process of its own: other tests use the memory of this one.
    let server = Server::start(&["-q"]);
    let addr = server.echo[0].to_string();
    for count in [30, 100] {
        let ended = with_descriptors(count, &["echo", &addr]);
        let (_, rest) = ended.stdout.split_once("  8  resets, urgent data, 1,000 idle   ").unwrap();
        let rest = rest.strip_prefix("not tried, no free file descriptor after ").unwrap();
        let (connected, _) = rest.split_once(" clients of 1000 (at least 100)\n").unwrap();
        assert!((1..count).contains(&connected.parse().unwrap()), "{rest}");
        let error = format!(
            "error: this machine cannot try rung 8, resets, urgent data, 1,000 idle: \
             no free file descriptor after {connected} clients of 1000 (at least 100)\n  \
             raise the limit of open files: ulimit -n 4096; then run: campanile check echo --rung 8 {addr}\n"
        );
        ends(&ended, 4, &format!("\necho {addr}: 7 of 8 rungs, 1 not tried\n"), &error);
    }
}

#[test]
fn a_rung_climbed_alone_without_any_descriptor_is_not_tried_either() {
    let server = TestServer::start();
    let addr = server.echo().addr().to_string();
    // stdin, stdout, stderr, the selector and its waker.
    for rung in ["1", "2"] {
        let ended = with_descriptors(5, &["echo", "--rung", rung, "--json", &addr]);
        ends(&ended, 4, "\"reached\":0,\"not_tried\":1,\"rungs\":1}\n", "");
        let event = &events(&ended)[0];
        assert_eq!([&event["outcome"], &event["reason"]], ["not-tried", "no free file descriptor"]);
        assert_eq!(event["advice"], "raise the limit of open files: ulimit -n 4096");
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
    has_smaller_crowd(&ended, 100..140, "no free file descriptor");
}

#[test]
fn a_rung_that_is_not_reached_outweighs_one_that_is_not_tried_and_junit_has_a_case_for_each() {
    let server = wrong::daytime_that_dies_of_a_reset();
    let (addr, folder) = (server.addr.to_string(), Folder::new("junit"));
    let out = folder.join("<\"&>.xml");
    let words = ["daytime", "--timeout", "3s", &addr, "--junit", out.to_str().unwrap()];
    let ended = with_descriptors(50, &words);
    ends(&ended, 3, &format!("\ndaytime {addr}: 3 of 6 rungs, 1 not tried\n"), "");
    assert!(ended.stderr.contains("does not reach rung 5, resets\n"), "{}", ended.stderr);

    let parse = "import sys, xml.etree.ElementTree as E\n\
                 for e in E.parse(sys.argv[1]).iter():\n \
                 print(e.tag, *(f'{k}={v}' for k, v in e.items() if k not in ('time', 'message')))\n";
    let mut python = Command::new("python3");
    let Ok(python) = python.args(["-c", parse, out.to_str().unwrap()]).output() else {
        return skip("python3 is not installed");
    };
    let expected = format!(
        "testsuites\ntestsuite name=campanile check daytime {addr} tests=6 failures=1 errors=0 skipped=2\n\
         CASE1 a client that sends nothing\nCASE2 one line, then EOF\nCASE3 a client that sends first\n\
         CASE4 100 clients at once\nskipped type=not-tried\nCASE5 resets\nfailure type=D4\n\
         CASE6 a client that never closes\nskipped type=untried\n"
    );
    let expected = expected.replace("CASE", "testcase classname=campanile.check.daytime name=");
    assert_eq!(String::from_utf8_lossy(&python.stdout), expected, "{python:?}");
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
    let Some(ended) = with_ports("40000 40499", "echo") else { return };
    has_smaller_crowd(&ended, 100..500, "no free local port");
}

#[test]
#[cfg(target_os = "linux")]
fn a_rung_without_local_ports_is_not_tried_and_the_climb_goes_on() {
    let Some(ended) = with_ports("40000 40089", "daytime") else { return };
    let row = "  4  100 clients at once               not tried, no free local port after ";
    assert!(ended.stdout.contains(row), "{}", ended.stdout);
    let end = "  5  resets                            reached\n  \
               6  a client that never closes        reached\n\
               daytime 127.0.0.1:9999: 5 of 6 rungs, 1 not tried\n";
    let advice = "  wait a minute until used ports become free, or widen the range: \
                  sysctl net.ipv4.ip_local_port_range; then run: campanile check daytime --rung 4 127.0.0.1:9999\n";
    ends(&ended, 4, end, advice);
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
    assert!(ended.code == Some(1) && ended.stderr.contains(expected), "{}", ended.stderr);
}

#[test]
fn a_refused_connection_is_exit_1() {
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let ended = run_words(["check", "echo", "--json", &unused]);
    let message = format!("cannot connect to {unused}: Connection refused");
    let expected = format!(
        "{{\"v\":1,\"service\":\"echo\",\"addr\":\"{unused}\",\"event\":\"check_failed\",\
         \"error\":\"not-connected\",\"message\":\"{message}\"}}\n"
    );
    assert_eq!((ended.code, &ended.stdout), (Some(1), &expected));
    checked(&ended.stdout);
    let advice = "check the address and the port, and start the server that is to be checked";
    assert_eq!(ended.stderr, format!("error: {message}\n  {advice}\n"));
    let ended = run_words(["check", "daytime", "no-such-name.invalid:13"]);
    assert_eq!((ended.code, &*ended.stdout), (Some(1), ""));
    assert!(ended.stderr.starts_with("error: cannot find no-such-name.invalid:13: "));
    let ended = run_words(["check", "echo", &unused, "--junit", "/no such folder/out.xml"]);
    let second = "error: cannot write the results to /no such folder/out.xml: No such file or directory \
                  (os error 2)\n  check that the folder of --junit exists and has room, then run this again\n";
    ends(&ended, 1, "", &format!("error: {message}\n  {advice}\n{second}"));
}

#[test]
fn a_rung_beyond_the_ladder_is_a_usage_error() {
    for (service, rung, top) in [("echo", "9", 8), ("daytime", "7", 6), ("echo", "0", 8)] {
        let ended = run_words(["check", service, "--rung", rung]);
        let expected = format!(
            "error: invalid value '{rung}' for '--rung <N>': \
             expected a rung of this ladder, from 1 to {top}\n"
        );
        assert!(ended.code == Some(2) && ended.stderr.starts_with(&expected), "{}", ended.stderr);
    }
    assert_eq!(run_words(["check"]).code, Some(2));
}
