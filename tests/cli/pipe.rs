//! The lines of `serve --pipe`: a line that cannot be read is answered, and the next one holds.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

use super::faults::Telling;
use super::program::{Folder, campanile, run};
use super::schema::checked;

/// The most memory that a process has used up to now, in KiB.
fn peak_memory(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn received(server: &Telling) -> usize {
    let mut bytes = Vec::new();
    let mut client = TcpStream::connect(server.daytime).unwrap();
    client.read_to_end(&mut bytes).unwrap();
    bytes.len()
}

fn write(server: &mut Telling, bytes: &[u8]) {
    server.stdin.as_mut().unwrap().write_all(bytes).unwrap();
}

#[test]
fn a_line_that_is_not_utf8_is_answered_and_the_next_line_holds() {
    let mut server = Telling::start(&["--pipe"]);
    for line in [&b"\xff"[..], b"daytime: close \xc3\x28", b"\xed\xa0\x80\x00", b"\xf0\x9f"] {
        write(&mut server, &[b"daytime once: close after 3 bytes\n", line, b"\n"].concat());
        assert_eq!(server.next()["fault"], "daytime once: close after 3 bytes");
        let answer = server.next();
        assert_eq!(answer["event"], "wrong_fault");
        assert_eq!(answer["fault"], String::from_utf8_lossy(line).into_owned());
        assert!(answer["error"].as_str().unwrap().contains("is not UTF-8"), "{answer}");
        assert_eq!(server.ask("daytime once: close after 4 bytes")["event"], "fault");
        for expected in [3, 4, 26] {
            assert_eq!(received(&server), expected);
            assert_eq!(server.next()["event"], "accepted");
            assert_eq!(server.next()["event"], "closed");
        }
    }
    drop(server.stdin.take());
    assert_eq!(server.next()["event"], "stopped");
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_stdin_that_cannot_be_read_is_an_error() {
    let folder = Folder::new("write-only");
    let write_only = File::create(folder.join("file")).unwrap();
    let directory = File::open("/").unwrap();
    for (stdin, reason) in [(directory, "Is a directory"), (write_only, "Bad file descriptor")] {
        let ended = run(campanile().args(["serve", "--pipe"]).stdin(Stdio::from(stdin)));
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let expected = format!("error: cannot read commands from stdin: {reason} (os error ");
        assert!(ended.stderr.starts_with(&expected), "{ended:?}");
        assert!(ended.stderr.contains("\n  give --pipe a pipe that stays open"), "{ended:?}");
        let events: Vec<_> =
            ended.stdout.lines().map(|line| checked(line)["event"].clone()).collect();
        assert_eq!(events, ["listening", "listening", "stopped"]);
    }
}

#[test]
fn a_line_without_an_end_is_answered_once_and_takes_no_memory() {
    let mut server = Telling::start(&["--pipe"]);
    let before = peak_memory(server.child.id());
    let piece = vec![b'#'; 1_000_000];
    for _ in 0..30 {
        write(&mut server, &piece);
    }
    let answer = server.next();
    assert_eq!(
        (&answer["event"], &answer["fault"]),
        (&"wrong_fault".into(), &"#".repeat(1000).into())
    );
    assert!(answer["error"].as_str().unwrap().contains("longer than 65536 bytes"), "{answer}");
    write(&mut server, b"\ndaytime: close after 3 bytes\n");
    assert_eq!(server.next()["fault"], "daytime: close after 3 bytes", "it is answered once");
    assert_eq!(received(&server), 3);
    let grown = peak_memory(server.child.id()) - before;
    assert!(grown < 2048, "it took {grown} KiB");
}

#[test]
fn long_lines_whose_answers_are_not_read_take_little_memory() {
    let mut server = Telling::start(&["--pipe"]);
    let before = peak_memory(server.child.id());
    // Each byte is six bytes of the answer.
    let mut line = vec![1; 60_000];
    line.push(b'\n');
    for _ in 0..2000 {
        write(&mut server, &line);
    }
    // The answers to most of them have no room, and are counted.
    let mut answered = 0;
    while answered < 2000 {
        let event = server.next();
        answered += match event["event"].as_str().unwrap() {
            "wrong_fault" => 1,
            "lost" => event["count"].as_u64().unwrap(),
            _ => panic!("{event}"),
        };
    }
    assert_eq!(answered, 2000);
    let grown = peak_memory(server.child.id()) - before;
    assert!(grown < 24 * 1024, "it took {grown} KiB");
}
