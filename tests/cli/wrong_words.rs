//! Each wrong word gets a message that names it, says what was expected and gives an example. The exit
//! code is 2 for a word that cannot be meant and 1 for an address that cannot be bound.

use std::net::TcpListener;

use crate::program::{campanile, campanile_without_privileges, run, run_words};

const A_LENGTH: &str = "expected a duration such as 500ms, 2s or 5m";
const NO_ADDRESS: &str =
    "the address is missing; use 127.0.0.1:9999 (loopback) or 0.0.0.0:9999 (all of IPv4)";
const A_COUNT: &str = "expected a whole number, 1 or greater, such as 100";
const A_PLACE: &str = "expected a port (9999), ip:port (127.0.0.1:9999), [ipv6]:port ([::1]:9999 or [fe80::1%eth0]:9999), host:port (localhost:9999) or unix:path (unix:/run/echo.sock)";

#[test]
fn a_value_of_serve_that_cannot_be_meant() {
    let off = |text: &str| format!("{text}, or off");
    let more = "expected a duration greater than zero, such as 500ms, 2s or 5m";
    let a_zone = "expected local, utc or an offset such as +01:00 or -05:30; for a named zone use local and set TZ, as in TZ=Europe/Berlin";
    let a_time = "expected a time in the form of RFC 3339, such as 2014-01-29T19:14:15Z";
    let table = [
        ("daytime", "<ADDR>...", ":9999", NO_ADDRESS),
        ("echo", "<ADDR>...", ":12345", &NO_ADDRESS.replace("9999", "12345")),
        ("daytime", "<ADDR>...", "localhost", A_PLACE),
        ("daytime", "<ADDR>...", "http://localhost:80", A_PLACE),
        ("daytime", "<ADDR>...", "70000", "70000 is not a port; ports go from 0 to 65535"),
        ("daytime", "<ADDR>...", "127.0.0.1", "the port is missing; use 127.0.0.1:9999"),
        ("echo", "<ADDR>...", "::1", "the port is missing; use [::1]:9999"),
        (
            "echo",
            "<ADDR>...",
            "[::1%lo]:7",
            "only a link-local address has an interface; use [::1]:7",
        ),
        ("backlog", "<N>", "0", A_COUNT),
        ("backlog", "<N>", "4294967296", "expected a whole number from 1 to 4294967295"),
        ("max-connections", "<N>", "0", A_COUNT),
        ("max-connections", "<N>", "lots", A_COUNT),
        ("max-per-peer", "<N>", "0", &off(A_COUNT)),
        ("idle", "<T>", "5", &off(A_LENGTH)),
        ("idle", "<T>", "0s", &off(more)),
        ("idle", "<T>", "soon", &off(A_LENGTH)),
        ("lifetime", "<T>", "0s", &off(more)),
        ("lifetime", "<T>", "5", &off(A_LENGTH)),
        ("linger", "<T>", "0", more),
        ("linger", "<T>", "off", A_LENGTH),
        ("grace", "<T>", "5 parsecs", A_LENGTH),
        ("grace", "<T>", "99999999999999999999s", A_LENGTH),
        ("clock", "<TIME>", "noon", a_time),
        ("clock", "<TIME>", "2014-02-30T00:00:00Z", a_time),
        ("clock", "<TIME>", "2014-01-29T19:14:15", a_time),
        ("zone", "<ZONE>", "Europe/Berlin", a_zone),
        ("zone", "<ZONE>", "+24:00", a_zone),
        ("zone", "<ZONE>", "-5", a_zone),
    ];
    for (flag, name, value, why) in table {
        let expected = format!(
            "error: invalid value '{value}' for '--{flag} {name}': {why}\n\n\
             For more information, try '--help'.\n"
        );
        let ended = run_words(["serve", &format!("--{flag}"), value]);
        assert_eq!(ended.stderr, expected);
        assert_eq!((ended.code, &*ended.stdout), (Some(2), ""), "{flag} {value}");
        // The same from the environment.
        let variable = format!("CAMPANILE_{}", flag.to_uppercase().replace('-', "_"));
        let ended = run(campanile().arg("serve").env(variable, value));
        assert_eq!((ended.code, ended.stderr), (Some(2), expected));
    }
}

#[test]
fn a_yes_or_a_count_in_the_environment_that_cannot_be_meant() {
    for (variable, flag, why) in [
        ("CAMPANILE_QUIET", "--quiet", "expected 1 (on) or 0 (off)"),
        ("CAMPANILE_VERBOSE", "--verbose...", "expected 0, 1 or 2"),
    ] {
        let ended = run(campanile().arg("serve").env(variable, "perhaps"));
        let expected = format!("error: invalid value 'perhaps' for '{flag}': {why}\n");
        assert!(ended.stderr.starts_with(&expected), "{}", ended.stderr);
        assert_eq!(ended.code, Some(2));
    }
}

#[test]
fn a_value_of_the_clients_that_cannot_be_meant() {
    let table: [(&[&str], &str, &str); 6] = [
        (&["daytime", ":9999"], "[ADDR]", NO_ADDRESS),
        (&["echo", "localhost"], "[ADDR]", A_PLACE),
        (&["daytime", "off"], "[ADDR]", A_PLACE),
        (
            &["echo", "0"],
            "[ADDR]",
            "port 0 cannot be connected to; give the port of the server, as in 127.0.0.1:9999",
        ),
        (&["daytime", "--timeout", "10"], "--timeout <T>", A_LENGTH),
        (
            &["echo", "--timeout", "0s"],
            "--timeout <T>",
            "expected a duration greater than zero, such as 500ms, 2s or 5m",
        ),
    ];
    for (words, name, why) in table {
        let value = words.last().unwrap();
        let ended = run_words(words);
        let expected = format!("error: invalid value '{value}' for '{name}': {why}\n");
        assert!(ended.stderr.starts_with(&expected), "{}", ended.stderr);
        assert_eq!((ended.code, &*ended.stdout), (Some(2), ""));
    }
}

#[test]
fn a_word_that_is_almost_right_is_guessed() {
    for (words, tip) in [
        (&["serve", "--idel", "5m"][..], "tip: a similar argument exists: '--idle'"),
        (&["serve", "--day-time", "0"], "tip: a similar argument exists: '--daytime'"),
        (&["srve"], "tip: a similar subcommand exists: 'serve'"),
        (&["echo", "--mesage", "x"], "tip: a similar argument exists: '--message'"),
    ] {
        let ended = run_words(words);
        assert!(ended.stderr.contains(tip), "{}", ended.stderr);
        assert_eq!((ended.code, &*ended.stdout), (Some(2), ""));
    }
}

#[test]
fn without_a_command_there_is_a_short_help() {
    let ended = run_words::<&str>([]);
    assert_eq!((ended.code, &*ended.stdout), (Some(2), ""));
    assert!(ended.stderr.contains("Usage: campanile <COMMAND>"), "{}", ended.stderr);
    assert!(ended.stderr.lines().count() < 22, "{}", ended.stderr);
}

#[test]
fn the_help_of_serve_fits_a_terminal_and_names_every_flag_in_its_group() {
    let ended = run_words(["serve", "--help"]);
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""));
    let play = run_words(["play", "--help"]).stdout;
    for line in ended.stdout.lines().chain(play.lines()) {
        assert!(line.chars().count() <= 80, "{line}");
    }
    let groups = "Listen: --daytime --echo --backlog --ready-file \
                  Limits: --max-connections --max-per-peer --idle --linger --lifetime --grace \
                  Faults: --fault --seed --clock --zone --manual-time \
                  Watch: --record --record-bytes --json --pipe --verbose --quiet \
                  Examples:";
    let (_, flags) = ended.stdout.split_once("--help").unwrap();
    let mut rest = flags.split_once("Print help").unwrap().1;
    for word in groups.split_whitespace() {
        let found = rest.find(&format!("{word}\n")).or(rest.find(&format!("{word} ")));
        let found = found.or(rest.find(&format!("{word}...")));
        rest = &rest[found.unwrap_or_else(|| panic!("{word} is missing or not in its place"))..];
    }
    let effects =
        "delay slice rate short stall deaf corrupt hold-open shut close reset refuse never-accept";
    for effect in effects.split(' ') {
        assert!(ended.stdout.contains(&format!("  {effect} ")), "{effect}");
    }
    for words in [&["--help"][..], &["daytime", "-h"], &["echo", "-h"], &["help", "serve"]] {
        assert!(run_words(words).stdout.contains("\nExamples:\n"), "{words:?}");
    }
    assert_eq!(
        run_words(["--version"]).stdout,
        concat!("campanile ", env!("CARGO_PKG_VERSION"), "\n")
    );
}

#[test]
fn words_that_do_not_go_together() {
    let table: [(&[&str], &str); 4] = [
        (
            &["-d", "off", "-e", "off"],
            "error: both services are off, so nothing is served\n  remove --daytime off or --echo off\n",
        ),
        (
            &["-d", "off", "9999"],
            "error: --daytime off cannot be combined with other addresses\n  use --daytime off alone, or remove the off\n",
        ),
        (
            &["-e", "0,off"],
            "error: --echo off cannot be combined with other addresses\n  use --echo off alone, or remove the off\n",
        ),
        (
            &["-q", "-v"],
            "error: --quiet and --verbose cannot be combined\n  remove one of them; CAMPANILE_QUIET or CAMPANILE_VERBOSE may have set it\n",
        ),
    ];
    for (words, expected) in table {
        let ended = run(campanile().arg("serve").args(words));
        assert_eq!((ended.code, &*ended.stdout, &*ended.stderr), (Some(2), "", expected));
    }
}

#[test]
fn an_address_that_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    for (flag, service, other) in [("-d", "daytime", "-e"), ("-e", "echo", "-d")] {
        let ended = run_words(["serve", flag, &addr.to_string(), other, "0"]);
        let expected = format!(
            "error: cannot listen on {addr} for {service}: Address already in use (os error 98)\n  \
             another process listens on that address; use another port, or --{service} 0 for any \
             free port\n"
        );
        assert_eq!((ended.code, &*ended.stdout, &*ended.stderr), (Some(1), "", &*expected));
    }
}

#[test]
fn one_port_for_both_services() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let ended = run_words(["serve", "-d", &free.to_string(), "-e", &free.to_string()]);
    let expected = format!(
        "error: cannot listen on {free} for echo: Address already in use (os error 98)\n  \
         this command already listens on that address; use another port, or --echo 0 for any \
         free port\n"
    );
    assert_eq!((ended.code, &*ended.stdout, &*ended.stderr), (Some(1), "", &*expected));
}

#[test]
fn an_address_of_another_machine() {
    let ended = run_words(["serve", "-d", "192.0.2.1:4000"]);
    let expected = "error: cannot listen on 192.0.2.1:4000 for daytime: Cannot assign requested \
                    address (os error 99)\n  this machine does not have that address; use --daytime \
                    127.0.0.1:4000 or 0.0.0.0:4000\n";
    assert_eq!((ended.code, &*ended.stdout, &*ended.stderr), (Some(1), "", expected));
}

#[test]
fn a_name_that_nobody_knows() {
    let ended = run_words(["serve", "-d", "0", "-e", "no-such-host.invalid:7"]);
    let start = "error: cannot listen on no-such-host.invalid:7 for echo: failed to lookup address";
    assert!(ended.stderr.starts_with(start), "{}", ended.stderr);
    let end = "  check the name, or give an address: --echo 127.0.0.1:7\n";
    assert!(ended.stderr.ends_with(end), "{}", ended.stderr);
    assert_eq!((ended.code, &*ended.stdout), (Some(1), ""));
}

#[test]
fn a_port_for_the_privileged() {
    let first = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    if first.map_or(1024, |text| text.trim().parse().unwrap()) <= 1 {
        crate::common::skip("every user may listen on port 1");
        return;
    }
    let Some(mut command) = campanile_without_privileges() else { return };
    let ended = run(command.args(["serve", "-e", "off", "-d", "1"]));
    let expected = "error: cannot listen on 127.0.0.1:1 for daytime: Permission denied (os error \
                    13)\n  ports below 1024 need a privilege; use --daytime 127.0.0.1:10001, or grant \
                    CAP_NET_BIND_SERVICE\n";
    assert_eq!((ended.code, &*ended.stdout, &*ended.stderr), (Some(1), "", expected));
}
