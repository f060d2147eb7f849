//! `serve --fault`, `--seed`, `--json` and `--pipe`: going wrong from any language.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

use super::program::{Ended, Server, Watchdog, campanile, run, run_words, signal};
use super::schema::checked;
use crate::common::{connect, eventually, skip};

/// A server that reports events in JSON.
pub struct Telling {
    pub child: Child,
    pub stdin: Option<ChildStdin>,
    pub stdout: BufReader<ChildStdout>,
    pub daytime: SocketAddr,
    pub echo: SocketAddr,
    seed: u64,
    _watchdog: Watchdog,
}

impl Telling {
    pub fn start(words: &[&str]) -> Telling {
        Telling::spawn(campanile().arg("serve").args(words).stderr(Stdio::null()))
    }

    pub fn spawn(command: &mut Command) -> Telling {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let watchdog = Watchdog::new(child.id());
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let (daytime, echo) = (next(&mut stdout), next(&mut stdout));
        let addr = |event: &Value, service| {
            assert_eq!((&event["event"], &event["service"]), (&"listening".into(), &service));
            event["addr"].as_str().unwrap().parse().unwrap()
        };
        Telling {
            stdin: child.stdin.take(),
            child,
            daytime: addr(&daytime, Value::from("daytime")),
            echo: addr(&echo, Value::from("echo")),
            seed: echo["seed"].as_u64().unwrap(),
            stdout,
            _watchdog: watchdog,
        }
    }

    pub fn next(&mut self) -> Value {
        next(&mut self.stdout)
    }

    /// Sends a line to stdin, and returns the last event of the answer.
    pub fn ask(&mut self, line: &str) -> Value {
        self.ask_all(line).pop().unwrap()
    }

    /// Sends a line to stdin, and returns all events up to the last one of the answer.
    pub fn ask_all(&mut self, line: &str) -> Vec<Value> {
        writeln!(self.stdin.as_mut().unwrap(), "{line}").unwrap();
        let last = match line.split(' ').next().unwrap() {
            "remove" => "fault_ended",
            "clear" => "cleared",
            "connections" => "listed",
            "advance" => "advanced",
            _ => "fault",
        };
        let mut events = Vec::new();
        loop {
            events.push(self.next());
            if [last, "wrong_fault"].contains(&events.last().unwrap()["event"].as_str().unwrap()) {
                return events;
            }
        }
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn next(stdout: &mut impl BufRead) -> Value {
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    checked(&line)
}

fn read_all(client: &mut TcpStream) -> (Vec<u8>, Option<ErrorKind>) {
    let mut bytes = Vec::new();
    let error = client.read_to_end(&mut bytes).err();
    (bytes, error.map(|error| error.kind()))
}

#[test]
fn a_flag_makes_it_go_wrong() {
    let words = ["--fault", "echo #2: reset after 5 bytes", "daytime: close after 3 bytes"];
    let server = Server::start(&words);
    for end in [None, Some(ErrorKind::ConnectionReset), None] {
        let mut client = connect(server.echo());
        client.write_all(b"Hello, world").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let said = if end.is_some() { 5 } else { 12 };
        assert_eq!(read_all(&mut client), (b"Hello, world"[..said].to_vec(), end));
    }
    assert_eq!(read_all(&mut connect(server.daytime())).0.len(), 3);
    let stderr = server.stop();
    assert!(stderr.contains("the faults draw their random numbers from --seed "), "{stderr}");
}

#[test]
fn the_environment_does_as_well() {
    let mut command = campanile();
    command.env("CAMPANILE_FAULT", "daytime: close after 3 bytes; echo: close after 2 bytes");
    command.env("CAMPANILE_SEED", "7").args(["serve", "-d", "0", "-e", "0"]);
    let server = Server::spawn(&mut command);
    assert_eq!(read_all(&mut connect(server.daytime())).0.len(), 3);
    let mut client = connect(server.echo());
    client.write_all(b"xyz").unwrap();
    assert_eq!(read_all(&mut client), (b"xy".to_vec(), None));
    assert!(!server.stop().contains("random numbers"));
}

#[test]
fn a_wrong_fault_is_a_usage_error_that_points() {
    for (fault, word) in [
        ("echo: rest", "column 7: unknown effect `rest`: did you mean `reset`?"),
        ("ekho: reset", "column 1: unknown service `ekho`: did you mean `echo`?"),
        ("reset", "column 1: name a service, as in `daytime: reset`"),
        (
            "echo once: refuse",
            "column 6: this effect holds for all clients: use `every`, or `#N` to begin",
        ),
    ] {
        let Ended { code, stdout, stderr } = run_words(["serve", "--fault", fault]);
        assert_eq!((code, &*stdout), (Some(2), ""), "{stderr}");
        assert!(stderr.contains(word), "{stderr}");
    }
    let ended = run_words(["serve", "--json", "--pipe"]);
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains("use --pipe alone"), "{}", ended.stderr);
}

#[test]
fn json_tells_every_connection() {
    let mut server = Telling::start(&["--json", "-d", "0", "-e", "0", "--seed", "7"]);
    assert_eq!(server.seed, 7);
    let mut client = connect(server.echo);
    client.write_all(b"Hello").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut client), (b"Hello".to_vec(), None));
    let event = server.next();
    assert_eq!((&event["event"], &event["id"]), (&"accepted".into(), &1.into()));
    assert_eq!(event["peer"], client.local_addr().unwrap().to_string());
    let event = server.next();
    assert_eq!((&event["event"], &event["reason"]), (&"closed".into(), &"finished".into()));
    assert_eq!((&event["bytes_in"], &event["bytes_out"]), (&5.into(), &5.into()));
    assert_eq!((&event["first_end"], &event["faults"]), (&"peer".into(), &Value::Array(vec![])));
    read_all(&mut connect(server.daytime));
    assert_eq!(server.next()["service"], "daytime");
    assert_eq!(server.next()["bytes_out"], 26);
    signal(server.child.id(), libc::SIGTERM);
    assert_eq!(server.next()["event"], "stopped");
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_fault_from_the_pipe_holds_for_the_very_next_connection() {
    let mut server = Telling::start(&["--pipe"]);
    for said in 0..50 {
        let answer = server.ask(&format!("daytime once: close after {} bytes", said % 26));
        assert_eq!(answer["event"], "fault");
        let mut client = connect(server.daytime);
        assert_eq!(read_all(&mut client).0.len(), said % 26);
        assert_eq!(read_all(&mut connect(server.daytime)).0.len(), 26);
    }
    let answer = server.ask("echo: refuse");
    assert_eq!(answer["fault"], "echo: refuse");
    let refused = TcpStream::connect(server.echo).map_err(|error| error.kind());
    assert_eq!(refused.err(), Some(ErrorKind::ConnectionRefused));
}

#[test]
fn what_is_wrong_on_the_pipe_is_answered_and_changes_nothing() {
    let mut server = Telling::start(&["--pipe"]);
    for (line, word) in [
        ("echo: rest", "did you mean `reset`?"),
        ("", "expected an effect"),
        ("\u{1}\"\\é", "unexpected `\u{1}`"),
        ("echo: slice 0", "nothing would ever be written"),
    ] {
        let answer = server.ask(line);
        assert_eq!((&answer["event"], &answer["fault"]), (&"wrong_fault".into(), &line.into()));
        assert!(answer["error"].as_str().unwrap().contains(word), "{answer}");
    }
    assert_eq!(read_all(&mut connect(server.daytime)).0.len(), 26);
}

#[test]
fn when_stdin_closes_the_process_ends() {
    let mut server = Telling::start(&["--pipe"]);
    server.ask("echo: hold-open");
    let mut client = connect(server.echo);
    client.write_all(b"x").unwrap();
    client.read_exact(&mut [0]).unwrap();
    drop(server.stdin.take());
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
    let mut events = String::new();
    server.stdout.read_to_string(&mut events).unwrap();
    let last = checked(events.lines().next_back().unwrap());
    assert_eq!(last["event"], "stopped");
    assert!(TcpStream::connect(server.echo).is_err());
}

#[test]
fn a_killed_test_leaves_no_server() {
    // The test is a shell that holds the pipe and is killed; the server is its child.
    let program = campanile().get_program().to_str().unwrap().to_owned();
    let shell = format!("sleep 1000 | {program} serve --pipe");
    let mut test = Command::new("sh");
    test.args(["-c", &format!("{shell}; exit")]).stdin(Stdio::null()).stdout(Stdio::piped());
    use std::os::unix::process::CommandExt;
    let mut test = test.stderr(Stdio::null()).process_group(0).spawn().unwrap();
    let _watchdog = Watchdog::new(test.id());
    let mut stdout = BufReader::new(test.stdout.take().unwrap());
    let addr: SocketAddr = next(&mut stdout)["addr"].as_str().unwrap().parse().unwrap();
    // Whoever holds the other end of the pipe is gone, however it went.
    let holder = run(Command::new("pgrep").args(["-P", &test.id().to_string(), "sleep"]));
    let holder = holder.stdout.trim().parse().expect("the holder of the pipe");
    signal(holder, libc::SIGKILL);
    eventually("the end of the server", || TcpStream::connect(addr).is_err().then_some(()));
    test.wait().unwrap();
}

#[test]
fn one_seed_makes_the_same_faults_in_two_processes() {
    let run = |seed: &str| -> Vec<usize> {
        let words = ["-q", "--seed", seed, "--fault", "daytime 30%: close after 4 bytes"];
        let server = Server::start(&words);
        let said = (0..60).map(|_| read_all(&mut connect(server.daytime())).0.len()).collect();
        server.stop();
        said
    };
    let said = run("11");
    assert_eq!(said, run("11"));
    assert_ne!(said, run("12"));
    assert!(said.contains(&4) && said.contains(&26));
}

/// The effects once more, from another language.
#[test]
fn python_sees_every_effect() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli/effects.py");
    let Ok(python) = Command::new("python3").arg("--version").output() else {
        skip("python3 is not installed");
        return;
    };
    assert!(python.status.success());
    let program = campanile().get_program().to_owned();
    let ended = run(Command::new("python3").arg(script).arg(program));
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    assert_eq!(ended.stdout.lines().last(), Some("13 effects seen"));
}

#[test]
fn a_linger_timeout_without_an_end_lasts_until_the_client_ends() {
    for fault in ["echo: close after 3 bytes", "echo: shut after 3 bytes"] {
        let words = ["--pipe", "--linger", "500000000000y", "--fault", fault];
        let mut server = Telling::start(&words);
        let closed = |server: &mut Telling| loop {
            let event = server.next();
            if event["event"] == "closed" {
                return event["service"].clone();
            }
        };
        let mut first = connect(server.echo);
        first.write_all(b"abc").unwrap();
        assert_eq!(read_all(&mut first), (b"abc".to_vec(), None), "{fault}");
        // Both halves of this one end later, and it is closed before.
        assert_eq!(read_all(&mut connect(server.daytime)).0.len(), 26);
        assert_eq!(closed(&mut server), "daytime", "{fault}");
        drop(first);
        assert_eq!(closed(&mut server), "echo", "{fault}");
    }
}
