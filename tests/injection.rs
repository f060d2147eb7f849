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
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{connect, ping, read_all};
use program::{Server, Watchdog};

/// strace, attached to a running program until dropped.
struct Strace {
    child: Child,
    program: u32,
    said: BufReader<ChildStderr>,
    _watchdog: Watchdog,
}

impl Strace {
    /// Lets `call` fail as `what` says: `error=EMFILE:when=1+2` is every second time.
    fn attach(server: &Server, call: &str, what: &str) -> Strace {
        Strace::with(server, call, what, &["-o", "/dev/null"])
    }

    /// The same, and says every such call and its time.
    fn telling(server: &Server, call: &str, what: &str) -> Strace {
        Strace::with(server, call, what, &["-ttt"])
    }

    fn with(server: &Server, call: &str, what: &str, options: &[&str]) -> Strace {
        let mut child = Command::new("strace")
            // Not -f: the loop is the main thread, and only its calls are to fail.
            .args(["-p", &server.pid().to_string()])
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
        Strace { child, program: server.pid(), said: stderr, _watchdog: watchdog }
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        // Not before the program sleeps: a call that strace has begun to inject into, and lets go of,
        // fails with ENOSYS, which is no kernel's answer.
        let stat = format!("/proc/{}/stat", self.program);
        let began = std::time::Instant::now();
        while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") S "))
            && began.elapsed() < common::DEADLINE
        {
            std::thread::yield_now();
        }
        // It lets go of the program and ends.
        program::signal(self.child.id(), libc::SIGTERM);
        let _ = self.child.wait();
    }
}

/// Whether strace is here and may trace; if not, says so.
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

const ACCEPT: &[&str] = &[
    "EINTR",
    "ECONNABORTED",
    "EPROTO",
    "ENETDOWN",
    "ENETUNREACH",
    "EHOSTDOWN",
    "EHOSTUNREACH",
    "ENONET",
    "ENOPROTOOPT",
    "EOPNOTSUPP",
    "ETIMEDOUT",
    "EPERM",
    "EMFILE",
    "ENFILE",
    "ENOBUFS",
    "ENOMEM",
];
const RECEIVE: &[&str] =
    &["EINTR", "ECONNRESET", "ETIMEDOUT", "ENOMEM", "ECONNREFUSED", "EHOSTUNREACH", "EBADF", "EIO"];
const SEND: &[&str] =
    &["EINTR", "EPIPE", "ECONNRESET", "ETIMEDOUT", "ENOBUFS", "ENOMEM", "EACCES", "EHOSTUNREACH"];
const SHUTDOWN: &[&str] = &["ENOTCONN", "EBADF", "EINVAL", "ENOTSOCK", "ENOBUFS"];
const REGISTER: &[&str] = &["ENOMEM", "ENOSPC", "EPERM", "EBADF", "EEXIST"];

/// Lets every second `call` fail in each of these ways, in the middle of conversations.
fn fail(call: &str, errnos: &[&str], harms_nobody: impl Fn(&str) -> bool) {
    if !may_inject() {
        return;
    }
    let server = Server::start(&["--linger", "200ms"]);
    let mut bystander = connect(server.echo());
    ping(&mut bystander, b"before");
    for errno in errnos {
        let strace = Strace::attach(&server, call, &format!("error={errno}:when=1+2"));
        let well = (0..4).filter(|_| converse(&server)).count();
        drop(strace);
        assert!(well == 4 || !harms_nobody(errno), "{call} {errno}: only {well} of 4 went well");
        ping(&mut bystander, b"unharmed");
        assert!(converse(&server), "{call} {errno}: nobody is served afterwards");
    }
    drop(bystander);
    server.stop();
}

#[test]
fn at_least_forty_pairs_of_a_call_and_its_error_are_tried() {
    let pairs = [ACCEPT, RECEIVE, SEND, SHUTDOWN, REGISTER].map(<[_]>::len);
    assert!(pairs.iter().sum::<usize>() >= 40, "{pairs:?}");
}

#[test]
fn when_accepting_fails_everybody_is_served_all_the_same() {
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
fn an_interrupted_poll_harms_nobody() {
    fail("epoll_wait", &["EINTR"], |_| true);
}

/// Sabotage: `None` for `Exhausted` in `Listener::next_try` (src/listener.rs).
#[test]
fn out_of_descriptors_at_every_second_accept_everyone_is_served() {
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

/// Sabotage: `RETRY` of 10 (src/listener.rs).
#[test]
fn out_of_descriptors_a_paused_listener_tries_at_most_ten_times_a_second() {
    if !may_inject() {
        return;
    }
    let server = Server::start(&[]);
    let mut bystander = connect(server.echo());
    ping(&mut bystander, b"before");
    let mut strace = Strace::telling(&server, "accept4", "error=EMFILE");
    let waiting: Vec<_> = (0..16).map(|_| connect(server.daytime())).collect();
    let calls = strace.said.by_ref().lines().map(Result::unwrap).take(16);
    let times: Vec<f64> = calls
        .map(|line| {
            assert!(line.contains("accept4(") && line.ends_with("(INJECTED)"), "{line}");
            // The loop turns meanwhile, and nobody goes.
            (0..10).for_each(|_| ping(&mut bystander, b"unharmed"));
            line.split(' ').next().unwrap().parse().unwrap()
        })
        .collect();
    drop(strace);
    let (again, seconds) = (times.len() - 1, times.last().unwrap() - times[0]);
    assert!(again as f64 <= 10.0 * seconds + 1.0, "{again} attempts in {seconds} seconds");
    for mut client in waiting {
        assert_eq!(read_all(&mut client).unwrap().len(), 26);
    }
    drop(bystander);
    server.stop();
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
fn whoever_half_closes_while_every_call_is_interrupted_gets_everything_back() {
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
