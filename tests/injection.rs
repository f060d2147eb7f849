//! The real program while its system calls fail: with `strace -e inject`, where that may be had.
//!
//! Never EAGAIN, and never an invented success: on an edge-triggered selector these break the
//! kernel's promises, and no program can be right.
#![cfg(all(feature = "cli", target_os = "linux", not(mio_unsupported_force_poll_poll)))]

#[path = "figures/amount.rs"]
mod amount;
mod common;
#[allow(dead_code)]
#[path = "cli/program.rs"]
mod program;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{connect, ping, read_all};
use program::{Server, Watchdog};

/// strace, attached to a running program until it is dropped.
struct Strace {
    child: Child,
    program: u32,
    said: BufReader<ChildStderr>,
    /// The file with the calls, if they are not on stderr.
    log: Option<PathBuf>,
    _watchdog: Watchdog,
}

impl Strace {
    /// Lets `call` fail as `what` says: `error=EMFILE:when=1+2` is every second time.
    fn attach(server: &Server, call: &str, what: &str) -> Strace {
        let log = std::env::temp_dir().join(format!("campanile-strace-{}", server.pid()));
        let options = ["-o", log.to_str().unwrap()];
        let mut strace = Strace::with(server.pid(), call, what, &options);
        strace.log = Some(log);
        strace
    }

    /// The same, and prints every such call and its time.
    fn printing(server: &Server, call: &str, what: &str) -> Strace {
        Strace::with(server.pid(), call, what, &["-ttt"])
    }

    fn with(program: u32, call: &str, what: &str, options: &[&str]) -> Strace {
        let mut child = Command::new("strace")
            // Not -f: the loop is the main thread, and only its calls are to fail.
            .args(["-p", &program.to_string()])
            .args(options)
            .args(["-e", &format!("trace={call}"), "-e", &format!("inject={call}:{what}")])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let watchdog = Watchdog::new(child.id());
        let mut said = String::new();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        stderr.read_line(&mut said).unwrap();
        assert!(said.contains("attached"), "{said}");
        Strace { child, program, said: stderr, log: None, _watchdog: watchdog }
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        // Not before the program sleeps: if strace detaches in the middle of an injected call, that call
        // fails with ENOSYS.
        let stat = format!("/proc/{}/stat", self.program);
        let began = std::time::Instant::now();
        while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") S "))
            && began.elapsed() < common::DEADLINE
        {
            std::thread::yield_now();
        }
        // strace lets go of the program and ends.
        program::signal(self.child.id(), libc::SIGTERM);
        let _ = self.child.wait();
        let Some(log) = &self.log else { return };
        let calls = std::fs::read_to_string(log).unwrap_or_default();
        let _ = std::fs::remove_file(log);
        assert!(
            std::thread::panicking() || calls.contains("(INJECTED)"),
            "no call failed: {calls}"
        );
    }
}

/// Whether strace is installed and may trace. If not, prints that the test is skipped.
fn may_inject() -> bool {
    let mut command = Command::new("strace");
    command.args(["-o", "/dev/null", "-e", "trace=none", "true"]).stderr(Stdio::null());
    let may = command.status().is_ok_and(|status| status.success());
    // Attaching needs more than tracing a child of one's own.
    let scope = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    // SAFETY: geteuid(2) takes nothing and cannot fail.
    let may = may && (scope.trim() <= "0" || unsafe { libc::geteuid() } == 0);
    if !may {
        common::skip("strace is not installed, or may not trace");
    }
    may
}

/// One conversation with each service; whether it went well to its end.
fn converse(server: &Server) -> bool {
    let says = |stream: &mut TcpStream| -> std::io::Result<Vec<u8>> {
        stream.write_all(b"echo, echo")?;
        stream.shutdown(Shutdown::Write)?;
        read_all(stream)
    };
    let echoed = says(&mut connect(server.echo())).is_ok_and(|back| back == b"echo, echo");
    let told = read_all(&mut connect(server.daytime())).is_ok_and(|line| line.len() == 26);
    echoed && told
}

const ACCEPT: &str = "EINTR ECONNABORTED EPROTO ENETDOWN ENETUNREACH EHOSTDOWN EHOSTUNREACH ENONET \
    ENOPROTOOPT EOPNOTSUPP ETIMEDOUT EPERM EMFILE ENFILE ENOBUFS ENOMEM";
const RECEIVE: &str = "EINTR ECONNRESET ETIMEDOUT ENOMEM ECONNREFUSED EHOSTUNREACH EBADF EIO";
const SEND: &str = "EINTR EPIPE ECONNRESET ETIMEDOUT ENOBUFS ENOMEM EACCES EHOSTUNREACH";
const SHUTDOWN: &str = "ENOTCONN EBADF EINVAL ENOTSOCK ENOBUFS";
const REGISTER: &str = "ENOMEM ENOSPC EPERM EBADF EEXIST";

/// Lets every second `call` fail in each of these ways, in the middle of conversations.
fn fail(call: &str, errnos: &str, is_harmless: impl Fn(&str) -> bool) {
    if !may_inject() {
        return;
    }
    let server = Server::start(&["--linger", "200ms"]);
    let mut bystander = connect(server.echo());
    ping(&mut bystander, b"before");
    for errno in errnos.split(' ') {
        let strace = Strace::attach(&server, call, &format!("error={errno}:when=1+2"));
        let well = (0..4).filter(|_| converse(&server)).count();
        drop(strace);
        assert!(well == 4 || !is_harmless(errno), "{call} {errno}: only {well} of 4 went well");
        ping(&mut bystander, b"unharmed");
        assert!(converse(&server), "{call} {errno}: no client is served afterwards");
    }
    drop(bystander);
    server.stop();
}

#[test]
fn at_least_forty_pairs_of_a_call_and_its_error_are_tried() {
    let pairs = [ACCEPT, RECEIVE, SEND, SHUTDOWN, REGISTER].map(|errnos| errnos.split(' ').count());
    assert!(pairs.iter().sum::<usize>() >= 40, "{pairs:?}");
}

#[test]
fn when_accepting_fails_every_client_is_served_all_the_same() {
    fail("accept4", ACCEPT, |_| true);
}

#[test]
fn when_receiving_fails_only_that_connection_ends() {
    fail("recvfrom", RECEIVE, |errno| errno == "EINTR");
}

#[test]
fn when_sending_fails_only_that_connection_ends() {
    fail("sendto", SEND, |errno| errno == "EINTR");
}

#[test]
fn when_ending_a_half_fails_only_that_connection_ends() {
    fail("shutdown", SHUTDOWN, |_| false);
}

#[test]
fn when_registering_fails_only_that_connection_ends() {
    fail("epoll_ctl", REGISTER, |_| false);
}

#[test]
fn an_interrupted_poll_harms_no_connection() {
    fail("epoll_wait", "EINTR", |_| true);
}

/// Sabotage: `None` for `Exhausted` in `Listener::next_try` (src/listener.rs).
#[test]
fn out_of_descriptors_at_every_second_accept_every_client_is_served() {
    if !may_inject() {
        return;
    }
    let server = Server::start(&["-q"]);
    let strace = Strace::attach(&server, "accept4", "error=EMFILE:when=1+2");
    let (next, count) = (AtomicUsize::new(0), amount::amount(100, 1_000, 10_000));
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                while next.fetch_add(1, Ordering::Relaxed) < count {
                    assert_eq!(read_all(&mut connect(server.daytime())).unwrap().len(), 26);
                }
            });
        }
    });
    drop(strace);
    server.stop();
}

/// Lets every accept fail while clients wait, and returns when the first `count` attempts were made, in
/// seconds. No connection closes meanwhile, though the loop turns.
fn attempts(server: &Server, errno: &str, count: usize) -> Vec<f64> {
    let mut bystander = connect(server.echo());
    ping(&mut bystander, b"before");
    let mut strace = Strace::printing(server, "accept4", &format!("error={errno}"));
    let waiting: Vec<_> = (0..16).map(|_| connect(server.daytime())).collect();
    let calls = strace.said.by_ref().lines().map(Result::unwrap).take(count);
    let times = calls
        .map(|line| {
            assert!(line.contains("accept4(") && line.ends_with("(INJECTED)"), "{line}");
            (0..10).for_each(|_| ping(&mut bystander, b"unharmed"));
            line.split(' ').next().unwrap().parse().unwrap()
        })
        .collect();
    drop(strace);
    for mut client in waiting {
        assert_eq!(read_all(&mut client).unwrap().len(), 26);
    }
    times
}

/// Whether these attempts were at most ten a second.
fn assert_seldom(times: &[f64]) {
    let (again, seconds) = (times.len() - 1, times.last().unwrap() - times[0]);
    assert!(again as f64 <= 10.0 * seconds + 1.0, "{again} attempts in {seconds} seconds");
}

/// Sabotage: `RETRY` of 10 (src/listener.rs).
#[test]
fn out_of_descriptors_a_paused_listener_tries_at_most_ten_times_a_second() {
    if !may_inject() {
        return;
    }
    let server = Server::start(&[]);
    assert_seldom(&attempts(&server, "EMFILE", 16));
    server.stop();
}

/// The first errors concern one connection, says accept(2); the others it does not list.
///
/// Sabotage: `REPEATS` of `u32::MAX`; `Class::Peer` for what `class` does not name (src/listener.rs).
#[test]
fn an_accept_error_that_stays_is_tried_ten_times_a_second_with_one_warning() {
    if !may_inject() {
        return;
    }
    for (errno, at_once) in [("EPERM", 16), ("ECONNABORTED", 16), ("ENOSYS", 1), ("EIO", 1)] {
        let server = Server::start(&[]);
        let times = attempts(&server, errno, at_once + 6);
        assert_seldom(&times[at_once - 1..]);
        let said = server.stop();
        assert_eq!(said.matches("cannot accept").count(), 1, "{errno}: {said}");
    }
}

#[test]
fn an_accept_error_that_stays_makes_few_events() {
    if !may_inject() {
        return;
    }
    let mut command = program::campanile();
    command.args(["serve", "-d", "off", "-e", "0", "--json", "-q"]).stderr(Stdio::null());
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let _watchdog = Watchdog::new(child.id());
    let mut events = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(&line.unwrap()).unwrap());
    let listening = events.next().unwrap();
    let addr = listening["addr"].as_str().unwrap().parse().unwrap();
    let mut strace = Strace::with(child.id(), "accept4", "error=EPERM", &["-ttt"]);
    let mut client = connect(addr);
    let calls = strace.said.by_ref().lines().map(Result::unwrap).take(22);
    let times: Vec<f64> =
        calls.map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect();
    drop(strace);
    assert_seldom(&times[15..]);
    ping(&mut client, b"served");
    drop(client);
    // One event an attempt, and some while strace detaches.
    let errors = events.by_ref().take_while(|event| event["event"] != "accepted");
    let errors = errors.inspect(|event| assert_eq!(event["event"], "accept_error")).count();
    assert!((times.len()..=times.len() + 50).contains(&errors), "{errors} events");
    program::signal(child.id(), libc::SIGTERM);
    assert_eq!(events.last().unwrap()["event"], "stopped");
    assert!(child.wait().unwrap().success());
}

#[test]
fn listeners_that_are_broken_for_good_end_the_program_with_one() {
    if !may_inject() {
        return;
    }
    for errno in ["EBADF", "EINVAL"] {
        let mut server = Server::start(&[]);
        let strace = Strace::attach(&server, "accept4", &format!("error={errno}"));
        let wait = |addr: SocketAddr| TcpStream::connect_timeout(&addr, Duration::from_secs(30));
        let _clients = [wait(server.daytime()), wait(server.echo())];
        let (status, said) = server.wait();
        drop(strace);
        assert_eq!(status.code(), Some(1), "{errno}: {said}");
        assert!(said.contains("broken"), "{errno}: {said}");
    }
}

#[test]
fn a_poll_that_fails_for_good_ends_the_program_with_one() {
    if !may_inject() {
        return;
    }
    let mut server = Server::start(&[]);
    let strace = Strace::attach(&server, "epoll_wait", "error=EBADF");
    let client = TcpStream::connect(server.echo());
    let (status, said) = server.wait();
    drop((strace, client));
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("error: the loop failed"), "{said}");
}

#[test]
fn a_client_that_half_closes_while_every_call_is_interrupted_receives_everything() {
    if !may_inject() {
        return;
    }
    let server = Server::start(&[]);
    let calls = "recvfrom,sendto,accept4,epoll_wait";
    let strace = Strace::attach(&server, calls, "error=EINTR:when=1+2");
    let bytes = common::pattern(300_000);
    let mut client = connect(server.echo());
    let mut half = client.try_clone().unwrap();
    let sent = bytes.clone();
    let sender = std::thread::spawn(move || {
        half.write_all(&sent).unwrap();
        half.shutdown(Shutdown::Write).unwrap();
    });
    let mut back = Vec::new();
    client.read_to_end(&mut back).unwrap();
    sender.join().unwrap();
    assert!(back == bytes, "{} of {} bytes came back", back.len(), bytes.len());
    drop(strace);
    server.stop();
}
