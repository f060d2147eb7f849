//! stdin, stdout and stderr that another process made non-blocking: the program waits for them.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::thread;

use super::faults::next;
use super::program::{Server, Watchdog, campanile};
use super::schema::checked;
use crate::common::eventually;

/// The test's end of a stream, and the program's, which does not block.
fn stream() -> (UnixStream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    (ours, theirs)
}

fn stdio(stream: UnixStream) -> Stdio {
    OwnedFd::from(stream).into()
}

/// The same, with a program's end that has no room left; and how much lies before its output.
fn full_stream() -> (UnixStream, UnixStream, usize) {
    let (ours, mut theirs) = stream();
    let mut filler = 0;
    for size in [4096, 1] {
        loop {
            match theirs.write(&vec![b'.'; size]) {
                Ok(count) => filler += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
    (ours, theirs, filler)
}

/// Waits until the program sleeps, or has ended.
fn wait_for_sleep(child: &Child) {
    eventually("a program that sleeps", || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        let state = stat.rsplit(") ").next().unwrap().chars().next();
        matches!(state, Some('S' | 'Z')).then_some(())
    });
}

/// Runs a command, with one of its streams full until it sleeps. Returns the end, and the output.
fn run_full(command: &mut Command, is_stderr: bool) -> (Option<i32>, String) {
    let (mut ours, theirs, filler) = full_stream();
    if is_stderr {
        command.stderr(stdio(theirs)).stdout(Stdio::null());
    } else {
        command.stdout(stdio(theirs)).stderr(Stdio::null());
    }
    let mut child = command.spawn().unwrap();
    // This copy of the program's end would keep the output from ending.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let _watchdog = Watchdog::new(child.id());
    wait_for_sleep(&child);
    let mut output = Vec::new();
    ours.read_to_end(&mut output).unwrap();
    let output = String::from_utf8(output.split_off(filler)).unwrap();
    (child.wait().unwrap().code(), output)
}

#[test]
fn commands_are_read_from_a_non_blocking_stdin() {
    let (mut stdin, theirs) = stream();
    let mut command = campanile();
    command.args(["serve", "--pipe"]).stdin(stdio(theirs)).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    let _watchdog = Watchdog::new(child.id());
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let (_, echo) = (next(&mut stdout), next(&mut stdout));
    let echo: SocketAddr = echo["addr"].as_str().unwrap().parse().unwrap();
    for count in [3, 4] {
        stdin.write_all(format!("echo once: close after {count} ").as_bytes()).unwrap();
        // A conversation passes while half of a line is there.
        let mut client = TcpStream::connect(echo).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        assert_eq!(next(&mut stdout)["event"], "accepted");
        assert_eq!(next(&mut stdout)["event"], "closed");
        stdin.write_all(b"bytes\n").unwrap();
        assert_eq!(next(&mut stdout)["fault"], format!("echo once: close after {count} bytes"));
        let mut client = TcpStream::connect(echo).unwrap();
        client.write_all(b"Hello").unwrap();
        let mut back = Vec::new();
        let _ = client.read_to_end(&mut back);
        assert_eq!(back.len(), count);
        assert_eq!(next(&mut stdout)["event"], "accepted");
        assert_eq!(next(&mut stdout)["event"], "closed");
    }
    drop(stdin);
    assert_eq!(next(&mut stdout)["event"], "stopped");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn echo_streams_from_a_non_blocking_stdin_to_a_non_blocking_stdout() {
    let server = Server::start(&[]);
    let (mut stdin, their_stdin) = stream();
    let (mut stdout, their_stdout, filler) = full_stream();
    let mut command = campanile();
    command.args(["echo", &server.echo().to_string(), "-m", "-"]);
    command.stdin(stdio(their_stdin)).stdout(stdio(their_stdout)).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    drop(command);
    let _watchdog = Watchdog::new(child.id());
    let sent: Vec<u8> = (0..1 << 20).map(|number: u32| (number % 251) as u8).collect();
    // The first half waits for room in stdout, the second half is waited for in stdin.
    let (first, second) = sent.split_at(sent.len() / 2);
    let mut received = vec![0; filler + first.len()];
    thread::scope(|scope| {
        scope.spawn(|| stdin.write_all(first).unwrap());
        wait_for_sleep(&child);
        stdout.read_exact(&mut received).unwrap();
    });
    stdin.write_all(second).unwrap();
    drop(stdin);
    stdout.read_to_end(&mut received).unwrap();
    let ended = child.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), ended.stderr), (Some(0), Vec::new()));
    assert!(received[filler..] == sent, "{} bytes came back", received.len() - filler);
}

#[test]
fn every_event_is_written_to_a_non_blocking_stdout() {
    const MANY: u64 = 400;
    let (stdout, theirs, filler) = full_stream();
    let ready = super::program::Folder::new("non-blocking");
    let path = ready.join("ready");
    let mut command = campanile();
    command.args(["serve", "-d", "0", "-e", "off", "--json", "--ready-file"]).arg(&path);
    let mut child = command.stdout(stdio(theirs)).stderr(Stdio::null()).spawn().unwrap();
    drop(command);
    let _watchdog = Watchdog::new(child.id());
    let line = eventually("the ready file", || std::fs::read_to_string(&path).ok());
    let addr: SocketAddr = line.trim().strip_prefix("daytime ").unwrap().parse().unwrap();
    for _ in 0..MANY {
        let mut line = Vec::new();
        TcpStream::connect(addr).unwrap().read_to_end(&mut line).unwrap();
    }
    let mut stdout = BufReader::new(stdout);
    stdout.read_exact(&mut vec![0; filler]).unwrap();
    assert_eq!(next(&mut stdout)["event"], "listening");
    let (mut accepted, mut closed) = (0, 0);
    while closed < MANY {
        let event = next(&mut stdout);
        match event["event"].as_str().unwrap() {
            "accepted" => accepted += 1,
            "closed" => closed += 1,
            _ => panic!("{event}"),
        }
    }
    assert_eq!(accepted, MANY);
    super::program::signal(child.id(), libc::SIGTERM);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let rest: Vec<_> = stdout.lines().map(|line| checked(&line.unwrap())).collect();
    assert_eq!((rest.len(), &rest[0]["event"]), (1, &"stopped".into()));
}

#[test]
fn results_help_and_errors_wait_for_room_in_a_non_blocking_stream() {
    let server = Server::start(&[]);
    let (daytime, echo) = (server.daytime().to_string(), server.echo().to_string());
    for (words, is_stderr, code, begin, end) in [
        (&["--help"][..], false, 0, "", "every flag of a command\n"),
        (&["--version"], false, 0, "campanile ", "\n"),
        (&["serve", "--idle", "x"], true, 2, "error: ", "try '--help'.\n"),
        (&["daytime", &daytime], false, 0, "The time got from the server is ", "\n"),
        (&["echo", &echo, "--json"], false, 0, "{\"v\":1,", "}\n"),
        (&["echo", "127.0.0.1:1"], true, 1, "error: ", "\n"),
        (&["check", "echo", "127.0.0.1:1", "--json"], false, 1, "{\"v\":1,", "}\n"),
        (&["check", "echo", "127.0.0.1:1"], true, 1, "error: ", "\n"),
        (&["check", "daytime", &daytime, "--rung", "1"], false, 0, "", "\n"),
    ] {
        let (ended, output) = run_full(campanile().args(words), is_stderr);
        assert_eq!(ended, Some(code), "{words:?}: {output}");
        assert!(output.len() > 9 && output.starts_with(begin), "{words:?}: {output}");
        assert!(output.ends_with(end), "{words:?}: {output}");
    }
}

#[test]
fn the_address_lines_wait_for_room_in_a_non_blocking_stdout() {
    let (stdout, theirs, filler) = full_stream();
    let mut command = campanile();
    command.args(["serve", "-d", "0", "-e", "0", "-q"]).stdout(stdio(theirs));
    let mut child = command.spawn().unwrap();
    drop(command);
    let _watchdog = Watchdog::new(child.id());
    wait_for_sleep(&child);
    let mut stdout = BufReader::new(stdout);
    stdout.read_exact(&mut vec![0; filler]).unwrap();
    for service in ["daytime ", "echo "] {
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let addr: SocketAddr = line.trim().strip_prefix(service).unwrap().parse().unwrap();
        drop(TcpStream::connect(addr).unwrap());
    }
    super::program::signal(child.id(), libc::SIGTERM);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
