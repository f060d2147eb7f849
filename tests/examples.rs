//! The examples run and do what they say.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;

use common::{connect, pattern, read_all, read_exactly};

/// A program of `examples/`, built beside this test; killed on drop.
struct Example {
    child: Child,
    /// Kept open: an example may go on printing.
    _stdout: BufReader<ChildStdout>,
}

fn program(name: &str) -> Command {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    let mut command = Command::new(path.join("examples").join(name));
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

impl Example {
    /// Starts a server and reads from its first line where it listens.
    fn serve(name: &str, args: &[&str]) -> (Example, SocketAddr) {
        let mut child = program(name).args(args).spawn().expect("the example is built");
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        let addr = line.split_whitespace().last().unwrap().parse().expect("an address line");
        (Example { child, _stdout: stdout }, addr)
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs an example to its end.
fn output(name: &str, args: &[&str]) -> String {
    let output = program(name).args(args).output().expect("the example is built");
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_four_programs_of_the_tutorial_talk_to_each_other() {
    let (_daytime, daytime) = Example::serve("daytime_server", &["127.0.0.1:0"]);
    let said = output("daytime_client", &[&daytime.to_string()]);
    assert!(said.starts_with("The time got from the server is ") && said.len() == 57, "{said:?}");
    let (_echo, echo) = Example::serve("echo_server", &["127.0.0.1:0"]);
    assert_eq!(output("echo_client", &[&echo.to_string()]), "Received \"Hello, world\"\n");
}

#[test]
fn a_protocol_of_ones_own_frames_times_out_and_refuses() {
    let said = output("own_protocol", &[]);
    let answers: Vec<_> = said.lines().filter(|line| !line.starts_with("-- ")).collect();
    let framed = ["say a line", "5 bytes", "5 bytes", "too slow, goodbye"];
    let slow = ["say a line", "16 bytes", "too slow, goodbye"];
    let long = ["say a line", "too long, goodbye"];
    assert_eq!(answers, [&framed[..], &slow, &long].concat());
}

#[test]
fn what_one_guest_says_the_others_hear() {
    let (_chat, addr) = Example::serve("chat", &["127.0.0.1:0"]);
    let welcome = b"welcome; what you say, everybody hears\n";
    let mut alice = connect(addr);
    read_exactly(&mut alice, welcome.len());
    let mut bob = connect(addr);
    read_exactly(&mut bob, welcome.len());
    assert_eq!(read_exactly(&mut alice, 12), b"#2 comes in\n");
    alice.write_all(b"hello\n").unwrap();
    assert_eq!(read_exactly(&mut bob, 10), b"#1: hello\n");
    drop(bob);
    assert_eq!(read_exactly(&mut alice, 5), b"#2 is");
}

#[test]
#[cfg(all(unix, not(mio_unsupported_force_poll_poll)))]
fn a_foreign_loop_turns_the_reactor() {
    assert!(output("own_outer_loop", &[]).contains("reactor: 9 came back\n"));
}

#[test]
fn the_relay_passes_a_hundred_mebibytes_each_way_to_a_slow_reader_and_keeps_half_close() {
    let both = common::Both::start(campanile::Limits::default());
    let (relay, addr) = Example::serve("relay", &["127.0.0.1:0", &both.echo.to_string()]);
    let bytes = pattern(100 << 20);
    let mut reader = connect(addr);
    let mut writer = reader.try_clone().unwrap();
    let sent = bytes.clone();
    let writing = thread::spawn(move || {
        writer.write_all(&sent).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut back = Vec::with_capacity(bytes.len());
    let mut piece = vec![0; 4096];
    for _ in 0..2000 {
        let count = reader.read(&mut piece).unwrap();
        back.extend_from_slice(&piece[..count]);
        thread::yield_now();
    }
    reader.read_to_end(&mut back).unwrap();
    writing.join().unwrap();
    assert!(back == bytes, "{} of {} bytes", back.len(), bytes.len());
    let status = std::fs::read_to_string(format!("/proc/{}/status", relay.child.id()));
    if let Ok(status) = status {
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let kib: usize = peak.trim().trim_end_matches(" kB").parse().unwrap();
        assert!(kib < 20 << 10, "bounded memory: {kib} KiB at most");
    }
}

#[test]
fn the_end_of_one_direction_is_not_the_end_of_the_other() {
    let both = common::Both::start(campanile::Limits::default());
    let (_relay, addr) = Example::serve("relay", &["127.0.0.1:0", &both.echo.to_string()]);
    for _ in 0..50 {
        let mut client = connect(addr);
        client.write_all(b"all I have to say").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_all(&mut client).unwrap(), b"all I have to say");
    }
}
