//! Which time is told: TZ in all its forms, none of which may block or panic; --zone; --clock.

use std::io::Read;
use std::net::TcpStream;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use crate::program::{Folder, Server, campanile, run};

/// What a server with its clock at noon, UTC, of a winter's day says, up to the seconds.
fn noon(words: &[&str], tz: Option<&str>) -> String {
    let mut command = campanile();
    command.args(["serve", "-e", "off", "-d", "0", "--clock", "2014-01-29T12:00:00Z"]).args(words);
    if let Some(tz) = tz {
        command.env("TZ", tz);
    }
    let server = Server::spawn(&mut command);
    let mut line = String::new();
    TcpStream::connect(server.daytime()).unwrap().read_to_string(&mut line).unwrap();
    line.strip_prefix("Wed Jan 29 ").unwrap().strip_suffix(" 2014\r\n").unwrap().to_owned()
}

#[test]
fn an_offset_goes_either_way() {
    assert_eq!(noon(&["--zone", "-05:30"], None), "06:30:00");
    assert_eq!(noon(&["--zone=-05:30"], None), "06:30:00");
    assert_eq!(noon(&["--zone", "+05:45"], None), "17:45:00");
    assert_eq!(noon(&["--zone", "utc"], Some("CET-1")), "12:00:00");
}

#[test]
fn tz_may_be_empty_or_a_rule() {
    assert_eq!(noon(&[], Some("")), "12:00:00");
    assert_eq!(noon(&[], Some("UTC0")), "12:00:00");
    assert_eq!(noon(&[], Some("CET-1CEST,M3.5.0,M10.5.0/3")), "13:00:00");
    assert_eq!(noon(&["--zone", "local"], Some("<-0330>3:30")), "08:30:00");
}

#[test]
fn without_tz_it_is_the_zone_of_the_machine() {
    let line = noon(&[], None);
    assert_eq!(line.len(), 8, "{line}");
}

#[test]
fn a_clock_far_from_now_is_told_all_the_same() {
    for (time, expected) in [
        ("0001-01-01T00:00:00Z", "Mon Jan  1 00:00:00 1\r\n"),
        ("1969-12-31T23:59:59Z", "Wed Dec 31 23:59:59 1969\r\n"),
        ("9999-12-31T23:59:59Z", "Fri Dec 31 23:59:59 9999\r\n"),
        ("2014-01-29T20:14:15.999+01:00", "Wed Jan 29 19:14:15 2014\r\n"),
    ] {
        let server = Server::start(&["--zone", "utc", "--clock", time]);
        server.wait_for(&format!("the clock stands still at {time}\n"));
        let mut line = String::new();
        TcpStream::connect(server.daytime()).unwrap().read_to_string(&mut line).unwrap();
        assert_eq!(line, expected);
    }
}

#[test]
fn a_tz_that_cannot_be_used_is_named_and_nothing_is_served() {
    let folder = Folder::new("zones");
    let (garbage, fifo) = (folder.join("garbage"), folder.join("fifo"));
    std::fs::write(&garbage, [0xff; 100]).unwrap();
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let closed = folder.join("closed");
    std::fs::write(&closed, "TZif").unwrap();
    std::fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o0)).unwrap();
    let mut table = vec![
        (garbage.to_str().unwrap(), "not a TZif file"),
        (fifo.to_str().unwrap(), "not a regular file"),
        ("/dev/zero", "not a regular file"),
        ("/", "not a regular file"),
        ("Europe/Nowhere", "not found"),
        (":UTC0", "not found"),
        ("../../../../etc/passwd", "not a TZif file"),
    ];
    // SAFETY: it only reads a number.
    if unsafe { libc::geteuid() } == 0 {
        eprintln!("skipped: to root, no file is unreadable");
    } else {
        table.push((closed.to_str().unwrap(), "ermission denied"));
    }
    for (tz, why) in table {
        let mut command = campanile();
        let ended = run(command.args(["serve", "-d", "0", "-e", "0"]).env("TZ", tz));
        let start = format!("error: cannot use {tz:?} as the local time zone: ");
        assert!(ended.stderr.starts_with(&start), "{}", ended.stderr);
        assert!(ended.stderr.contains(why), "{}", ended.stderr);
        assert!(ended.stderr.ends_with("or use --zone utc\n"), "{}", ended.stderr);
        assert_eq!((ended.code, &*ended.stdout), (Some(1), ""));
        // Who tells no time, or another zone's, does not need it.
        for words in [&["-d", "off"][..], &["-d", "0", "--zone", "utc"]] {
            let mut command = campanile();
            command.args(["serve", "-e", "0"]).args(words).env("TZ", tz);
            Server::spawn(&mut command).stop();
        }
    }
    let bytes = std::ffi::OsStr::from_bytes(b"\xff\xfe");
    let ended = run(campanile().args(["serve", "-d", "0", "-e", "0"]).env("TZ", bytes));
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
}
