//! The examples run and do what their heads promise.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;

use common::{connect, pattern, read_all};

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
    Command::new(path.join("examples").join(name))
}

fn read_line(from: &mut impl BufRead) -> String {
    let mut line = String::new();
    from.read_line(&mut line).unwrap();
    line
}

impl Example {
    fn serve(name: &str, args: &[&str]) -> (Example, SocketAddr) {
        let mut command = program(name);
        command.args(args);
        Example::start(command)
    }

    /// Starts a server and reads its address from its first line.
    fn start(mut command: Command) -> (Example, SocketAddr) {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the example is built");
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let line = read_line(&mut stdout);
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
fn own_protocol_frames_lines_and_notices_and_closes_slow_and_long_ones() {
    let printed = output("own_protocol", &[]);
    let answers: Vec<_> = printed.lines().filter(|line| !line.starts_with("-- ")).collect();
    let slow = "closed: no line within 300 ms";
    let framed = ["send a line", "5 bytes", "5 bytes", slow];
    let long = ["send a line", "closed: the line is longer than 80 bytes"];
    let silent = ["send a line", "notice: the server stops at noon", slow];
    assert_eq!(answers, [&framed[..], &long, &silent].concat());
}

#[test]
fn a_line_reaches_all_other_members_and_a_member_that_does_not_read_is_reset() {
    let (_chat, addr) = Example::serve("chat", &["127.0.0.1:0"]);
    let join = || {
        let mut member = BufReader::new(connect(addr));
        assert!(read_line(&mut member).starts_with("Welcome. "));
        member
    };
    let mut alice = join();
    let mut bob = join();
    assert_eq!(read_line(&mut alice), "#2: joined\n");
    alice.get_mut().write_all(b"hel").unwrap();
    bob.get_mut().write_all(b"hi\n").unwrap();
    assert_eq!(read_line(&mut alice), "#2: hi\n");
    alice.get_mut().write_all(b"lo\n").unwrap();
    assert_eq!(read_line(&mut bob), "#1: hello\n");
    let mut slow = join();
    assert_eq!(read_line(&mut bob), "#3: joined\n");
    // Far more than the kernel holds for a member that does not read.
    let lines = format!("{}\n", "x".repeat(4000)).repeat(16);
    let has_left = (0..1000).any(|_| {
        alice.get_mut().write_all(lines.as_bytes()).unwrap();
        (0..16).any(|_| read_line(&mut bob) == "#3: left: too much unsent\n")
    });
    assert!(has_left, "the slow member is still in the room");
    let error = slow.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
#[cfg(all(unix, not(mio_unsupported_force_poll_poll)))]
fn a_foreign_loop_turns_the_reactor() {
    assert!(output("own_outer_loop", &[]).contains("reactor: received 9\n"));
}

#[test]
fn the_relay_passes_a_hundred_mebibytes_each_way_without_a_lock_or_a_wake_up() {
    let may_trace = Command::new("strace").args(["-o", "/dev/null", "true"]).status();
    if !may_trace.is_ok_and(|status| status.success()) {
        return common::skip("strace is not installed, or may not trace");
    }
    let both = common::Both::start(campanile::Limits::default());
    let mut command = Command::new("strace");
    command.args(["-Dyfe", "trace=write,sendto,futex"]).arg(program("relay").get_program());
    command.args(["127.0.0.1:0", &both.echo.to_string()]).stderr(Stdio::piped());
    let (mut relay, addr) = Example::start(command);
    let mut stderr = relay.child.stderr.take().unwrap();
    let calls = thread::spawn(move || std::io::read_to_string(&mut stderr).unwrap());
    let bytes = pattern(100 << 20);
    let mut reader = connect(addr);
    let mut writer = reader.try_clone().unwrap();
    let sent = bytes.clone();
    let writing = thread::spawn(move || {
        writer.write_all(&sent).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut back = vec![0; bytes.len()];
    for piece in back.chunks_mut(4096).take(2000) {
        reader.read_exact(piece).unwrap();
        thread::yield_now();
    }
    reader.read_exact(&mut back[2000 * 4096..]).unwrap();
    assert_eq!(read_all(&mut reader).unwrap(), b"");
    writing.join().unwrap();
    assert!(back == bytes, "the bytes differ");
    if let Ok(status) = std::fs::read_to_string(format!("/proc/{}/status", relay.child.id())) {
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let kib: usize = peak.trim().trim_end_matches(" kB").parse().unwrap();
        assert!(kib < 20 << 10, "bounded memory: {kib} KiB at most");
    }
    drop(relay);
    let calls = calls.join().unwrap();
    assert!(calls.matches("sendto(").count() >= 1000, "the trace lacks chunks: {calls}");
    let dear = calls.lines().filter(|call| call.contains("eventfd") || call.contains("futex("));
    assert_eq!(dear.collect::<Vec<_>>(), [""; 0]);
}

fn relayed_server() -> (TcpListener, Example, SocketAddr) {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let there = server.local_addr().unwrap().to_string();
    let (relay, addr) = Example::serve("relay", &["127.0.0.1:0", &there]);
    (server, relay, addr)
}

#[test]
fn each_direction_of_the_relay_flows_and_ends_on_its_own() {
    let (server, _relay, addr) = relayed_server();
    let bytes = pattern(32 << 20);
    let send = |mut stream: &TcpStream| {
        stream.write_all(&bytes).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
    };
    thread::scope(|scope| {
        // The server sends and receives at once; the client receives nothing before it has sent all.
        scope.spawn(|| {
            let mut peer = server.accept().unwrap().0;
            let sender = peer.try_clone().unwrap();
            scope.spawn(move || send(&sender));
            assert!(read_all(&mut peer).unwrap() == bytes, "the server's bytes differ");
        });
        let mut client = connect(addr);
        send(&client);
        assert!(read_all(&mut client).unwrap() == bytes, "the client's bytes differ");
    });
}

#[test]
fn a_reset_passes_through_the_relay() {
    let (server, _relay, addr) = relayed_server();
    let mut client = connect(addr);
    common::reset(&server.accept().unwrap().0);
    let error = read_all(&mut client).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}
