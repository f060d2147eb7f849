//! Signals: as PID 1, in pairs, inherited as blocked or ignored, and those that no write may die of.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::common::eventually;
use crate::program::{Folder, Scripted, Server, Watchdog, campanile, inherit_signals, signal};

const TERMINATION: [i32; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];
const PROGRAM: &str = env!("CARGO_BIN_EXE_campanile");

/// A client that waits for a server that has accepted it and stays silent.
struct Waiting {
    client: Child,
    answer: mpsc::Sender<&'static [u8]>,
    _server: Scripted,
    _watchdog: Watchdog,
}

impl Waiting {
    /// Appends the address of the server to the words of `command` and starts it.
    fn start(command: &mut Command) -> Waiting {
        let (accepted, is_accepted) = mpsc::channel();
        let (answer, answers) = mpsc::channel();
        let server = Scripted::once(move |mut stream| {
            accepted.send(()).unwrap();
            if let Ok(bytes) = answers.recv() {
                stream.write_all(bytes).unwrap();
            }
        });
        command.arg(server.addr()).stdout(Stdio::null()).stderr(Stdio::null());
        let client = command.spawn().unwrap();
        let watchdog = Watchdog::new(client.id());
        is_accepted.recv().unwrap();
        Waiting { client, answer, _server: server, _watchdog: watchdog }
    }

    fn wait(mut self) -> ExitStatus {
        self.client.wait().unwrap()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}

/// The program as PID 1 of its own PID namespace.
fn as_pid_1() -> Command {
    let mut command = Command::new("unshare");
    command.args(["-rpf", "--mount-proc", "--kill-child", PROGRAM]).env_clear();
    inherit_signals(command.stdin(Stdio::null()), &[], &[]);
    command
}

fn may_be_pid_1() -> bool {
    let may = as_pid_1().arg("--version").output().is_ok_and(|output| output.status.success());
    if !may {
        crate::common::skip("`unshare` creates no PID namespace");
    }
    may
}

/// The PID, out here, of the only child of `parent`.
fn child_of(parent: u32) -> u32 {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
    children.trim().parse().unwrap()
}

fn talk(stream: &mut TcpStream) {
    stream.write_all(b"still there?").unwrap();
    let mut back = [0; 12];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"still there?");
}

fn conversation(server: &Server) -> TcpStream {
    let mut stream = TcpStream::connect(server.echo()).unwrap();
    talk(&mut stream);
    stream
}

/// The conversation goes on to its end, and then the server exits with 0.
fn finishes(mut server: Server, mut stream: TcpStream) {
    talk(&mut stream);
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0; 9]).unwrap(), 0);
    let (status, stderr) = server.wait();
    assert_eq!(status.code(), Some(0), "{stderr}");
}

#[test]
fn as_pid_1_every_client_ends_on_every_termination_signal() {
    if !may_be_pid_1() {
        return;
    }
    let clients: [&[&str]; 5] =
        [&["echo"], &["daytime"], &["check", "echo"], &["check", "daytime"], &["echo", "-m", "-"]];
    for words in clients {
        for number in TERMINATION {
            // An unread stdin keeps `-m -` in the middle of its stream.
            let waiting = Waiting::start(as_pid_1().args(words).stdin(Stdio::piped()));
            signal(child_of(waiting.client.id()), number);
            assert_eq!(waiting.wait().code(), Some(128 + number), "{words:?}");
        }
    }
}

#[test]
fn as_pid_1_a_server_ends_well_on_one_signal_and_at_once_on_a_later_one() {
    if !may_be_pid_1() {
        return;
    }
    let start =
        || Server::spawn(as_pid_1().args(["serve", "-d", "0", "-e", "0", "-v", "--grace", "1h"]));
    for number in TERMINATION {
        let mut server = start();
        signal(child_of(server.pid()), number);
        assert_eq!(server.wait().0.code(), Some(0));

        let mut server = start();
        let _stream = conversation(&server);
        let pid = child_of(server.pid());
        signal(pid, number);
        server.wait_for("another signal ends");
        signal(pid, number);
        assert_eq!(server.wait().0.code(), Some(128 + number));
    }
}

#[test]
fn a_client_with_any_other_pid_is_killed_by_the_signal_itself() {
    // A shell ends its loop on Ctrl-C only if the child was killed by it.
    for number in TERMINATION {
        let waiting = Waiting::start(campanile().arg("echo"));
        signal(waiting.client.id(), number);
        assert_eq!(waiting.wait().signal(), Some(number));
    }
}

#[test]
fn signals_that_arrive_together_are_one_request() {
    for numbers in [&TERMINATION[..], &[libc::SIGTERM, libc::SIGHUP], &[libc::SIGINT, libc::SIGHUP]]
    {
        let server = Server::start(&["-v", "--grace", "1h"]);
        let stream = conversation(&server);
        // A stopped process handles all of them before its loop runs again.
        server.signal(libc::SIGSTOP);
        for &number in numbers {
            server.signal(number);
        }
        server.signal(libc::SIGCONT);
        server.wait_for("signal ");
        finishes(server, stream);
    }
}

#[test]
fn a_signal_within_200_ms_of_the_first_changes_nothing() {
    for (first, second) in [
        (libc::SIGTERM, libc::SIGHUP),
        (libc::SIGINT, libc::SIGINT),
        (libc::SIGTERM, libc::SIGTERM),
        (libc::SIGHUP, libc::SIGINT),
    ] {
        eventually("two signals within 200 ms", || {
            let server = Server::start(&["-v", "--grace", "1h"]);
            let stream = conversation(&server);
            let began = Instant::now();
            server.signal(first);
            server.wait_for(&format!("signal {first}"));
            server.signal(second);
            // On a machine this slow the second one is a request of its own.
            (began.elapsed() < Duration::from_millis(200)).then(|| finishes(server, stream))
        });
    }
}

#[test]
fn a_server_ends_on_a_signal_that_its_parent_has_blocked() {
    for number in TERMINATION {
        let mut command = campanile();
        inherit_signals(&mut command, &[], &TERMINATION);
        let mut server = Server::spawn(command.args(["serve", "-q", "-d", "0", "-e", "0"]));
        server.signal(number);
        assert_eq!(server.wait().0.code(), Some(0));
    }
}

#[test]
fn a_client_ends_on_a_signal_that_its_parent_has_blocked() {
    for (words, number) in [("daytime", libc::SIGINT), ("echo", libc::SIGTERM)] {
        let mut command = campanile();
        inherit_signals(&mut command, &[], &[number]);
        let waiting = Waiting::start(command.arg(words));
        signal(waiting.client.id(), number);
        assert_eq!(waiting.wait().signal(), Some(number));
    }
}

#[test]
fn a_server_ignores_a_signal_that_its_parent_has_ignored() {
    for (number, other) in [
        (libc::SIGINT, libc::SIGTERM),
        (libc::SIGTERM, libc::SIGINT),
        (libc::SIGHUP, libc::SIGTERM),
    ] {
        let mut command = campanile();
        inherit_signals(&mut command, &[number], &[]);
        let mut server = Server::spawn(command.args(["serve", "-v", "-d", "0", "-e", "0"]));
        server.signal(number);
        let mut stream = conversation(&server);
        talk(&mut stream);
        drop(stream);
        server.signal(other);
        let (status, said) = server.wait();
        assert_eq!(status.code(), Some(0), "{said}");
        assert!(!said.contains(&format!("signal {number};")), "{said}");
        assert!(said.contains(&format!("signal {other};")), "{said}");
    }
}

#[test]
fn a_client_ignores_a_signal_that_its_parent_has_ignored() {
    let finishes = |command: &mut Command, pid: fn(u32) -> u32| {
        inherit_signals(command, &TERMINATION, &[]);
        let waiting = Waiting::start(command.arg("daytime"));
        for number in TERMINATION {
            signal(pid(waiting.client.id()), number);
        }
        waiting.answer.send(b"Wed Jan 29 19:14:15 2014\r\n").unwrap();
        assert_eq!(waiting.wait().code(), Some(0));
    };
    finishes(&mut campanile(), |pid| pid);
    if may_be_pid_1() {
        finishes(&mut as_pid_1(), child_of);
    }
}

/// The program under a shell that lets it write files of this many blocks.
fn with_file_size(blocks: u32, words: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &format!("ulimit -f {blocks}; exec \"$0\" {words}"), PROGRAM]).env_clear();
    command
}

#[test]
fn a_log_that_has_reached_the_largest_file_size_does_not_stop_service() {
    let folder = Folder::new("log-size");
    let log = || File::create(folder.join("log")).unwrap().into();
    let mut command = with_file_size(8, "serve -d 0 -e 0 -v");
    let mut server = Server::with_stderr(&mut command, log());
    let size = || fs::metadata(folder.join("log")).unwrap().len();
    // The limit is 4 KiB or 8 KiB, as the shell counts; a line has at least 20 bytes.
    for _ in 0..500 {
        drop(conversation(&server));
    }
    let full =
        eventually("a full log", || Some(size()).filter(|&size| size > 0 && size % 4096 == 0));
    drop(conversation(&server));
    server.signal(libc::SIGTERM);
    assert_eq!(server.wait().0.code(), Some(0));
    assert_eq!(size(), full);
}

#[test]
fn an_output_that_has_reached_the_largest_file_size_is_an_error_and_no_death() {
    let folder = Folder::new("output-size");
    let server = Server::start(&[]);
    let output = || Stdio::from(File::create(folder.join("out")).unwrap());
    let code = |command: &mut Command| command.stderr(Stdio::null()).status().unwrap().code();
    let words = format!("echo -m hello {}", server.echo());
    assert_eq!(code(with_file_size(0, &words).stdout(output())), Some(1));
    // The ready file is one more file that may not grow.
    let ready = folder.join("ready");
    let words = format!("serve -d 0 -e 0 --ready-file {}", ready.display());
    assert_eq!(code(with_file_size(0, &words).stdout(Stdio::null())), Some(1));
    assert!(!ready.exists());
}

#[test]
fn a_closed_pipe_is_an_error_and_no_death() {
    let server = Server::start(&[]);
    let (reader, writer) = UnixStream::pair().unwrap();
    drop(reader);
    let mut client = campanile();
    client
        .args(["echo", &server.echo().to_string()])
        .stdout(OwnedFd::from(writer))
        .stderr(Stdio::null());
    assert_eq!(client.status().unwrap().code(), Some(1));
}
