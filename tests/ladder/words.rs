//! `campanile check`: what it prints, and how it ends.

use std::net::TcpListener;

use campanile::testing::TestServer;

use crate::program::{Server, run, run_words};
use crate::wrong;

#[test]
fn a_good_server_gets_a_table_and_exit_0() {
    let server = TestServer::start();
    let addr = server.daytime().addr().to_string();
    let ended = run_words(["check", "daytime", &addr]);
    let expected = format!(
        "daytime {addr}: 6 of 6 rungs\n  \
         1  said without being asked            reached\n  \
         2  one line, then EOF                  reached  ends with CR LF\n  \
         3  a client that talks first           reached\n  \
         4  many at once                        reached\n  \
         5  resets                              reached\n  \
         6  a client that never closes          reached\n"
    );
    assert_eq!((ended.code, ended.stdout, &*ended.stderr), (Some(0), expected, ""));
}

#[test]
fn a_server_that_stops_gets_a_table_that_says_why_and_exit_3_also_if_it_is_only_silent() {
    let server = wrong::daytime_when_asked();
    let addr = server.addr.to_string();
    let ended = run_words(["check", "daytime", &addr, "--timeout", "1s"]);
    let expected = format!(
        "daytime {addr}: 0 of 6 rungs\n  \
         1  said without being asked            STOPPED\n       \
         sent  nothing\n       \
         came  nothing, then silence for 1s\n       \
         rule  D1: the time is said at once, to a client that says nothing and\n             \
         goes on listening\n       \
         read  src/guide/library.md\n  \
         2  one line, then EOF                  -\n  \
         3  a client that talks first           -\n  \
         4  many at once                        -\n  \
         5  resets                              -\n  \
         6  a client that never closes          -\n"
    );
    assert_eq!((ended.code, ended.stdout), (Some(3), expected));
    let expected = format!(
        "error: {addr} does not reach rung 1, said without being asked\n  \
         make it so, then: campanile check daytime --rung 1 {addr}\n"
    );
    assert_eq!(ended.stderr, expected);
}

#[test]
fn only_up_to_a_rung_is_an_exercise() {
    let server = wrong::echo_one_after_the_other();
    let addr = server.addr.to_string();
    let ended = run_words(["check", "echo", "--rung", "2", &addr]);
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""));
    assert!(ended.stdout.starts_with(&format!("echo {addr}: 2 of 2 rungs\n")), "{}", ended.stdout);
    assert_eq!(ended.stdout.lines().count(), 3, "{}", ended.stdout);
}

#[test]
fn as_json_it_is_one_object() {
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
fn with_few_descriptors_there_are_fewer_idle_clients_and_that_is_noted() {
    // In a process of its own: the memory of this one is other tests', too.
    let server = Server::start(&["-q"]);
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "ulimit -n 100 && exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_campanile")]);
    shell.args(["check", "echo", &server.echo[0].to_string()]);
    let ended = run(&mut shell);
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""), "{}", ended.stdout);
    let note = ended.stdout.lines().last().unwrap().split_once("reached  only ").unwrap().1;
    assert!(note.ends_with(" idle: this machine has no room for more"), "{note}");
}

#[test]
fn where_nobody_is_it_fails_with_1() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let ended = run_words(["check", "echo", "--json", &nobody]);
    let message = format!("cannot connect to {nobody}: Connection refused");
    let expected = format!(
        "{{\"v\":1,\"service\":\"echo\",\"addr\":\"{nobody}\",\"error\":\"not-connected\",\
         \"message\":\"{message}\"}}\n"
    );
    assert_eq!((ended.code, ended.stdout), (Some(1), expected));
    let advice = "check address and port, and that the server runs: campanile serve";
    assert_eq!(ended.stderr, format!("error: {message}\n  {advice}\n"));
    let ended = run_words(["check", "daytime", "no-such-name.invalid:13"]);
    assert_eq!((ended.code, &*ended.stdout), (Some(1), ""));
    assert!(ended.stderr.starts_with("error: cannot find no-such-name.invalid:13: "));
}

#[test]
fn a_rung_that_the_ladder_does_not_have_is_a_wrong_word() {
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
