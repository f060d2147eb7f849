//! The running program under pressure: out of descriptors, stopped, told to end in the middle.
#![cfg(all(feature = "cli", target_os = "linux"))]

mod common;
#[allow(dead_code)]
#[path = "cli/program.rs"]
mod program;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use common::{connect, eventually, pattern, ping, read_all, read_exactly, reset};
use program::Server;

fn proc(server: &Server, file: &str) -> String {
    std::fs::read_to_string(format!("/proc/{}/{file}", server.pid())).unwrap()
}

/// How often the server went to sleep so far.
fn sleeps(server: &Server) -> u64 {
    let status = proc(server, "status");
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.unwrap().trim().parse().unwrap()
}

fn stop(server: &Server) {
    server.signal(libc::SIGSTOP);
    eventually("stopped", || proc(server, "stat").contains(") T ").then_some(()));
}

fn go_on(server: &Server) {
    server.signal(libc::SIGCONT);
}

/// Lets time pass on a connection that must not receive anything.
fn receive_nothing(client: &mut TcpStream, while_: Duration) {
    client.set_read_timeout(Some(while_)).unwrap();
    let error = client.read(&mut [0]).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
    client.set_read_timeout(Some(common::DEADLINE)).unwrap();
}

#[test]
fn out_of_descriptors_open_connections_go_on_and_the_others_are_served_as_they_close() {
    let server = Server::start(&[]);
    let mut established: Vec<_> = (0..30).map(|_| connect(server.echo())).collect();
    established.iter_mut().for_each(|client| ping(client, b"before"));
    let pid = server.pid() as libc::pid_t;
    rlimit::prlimit(pid, rlimit::Resource::NOFILE, Some((64, 64)), None).unwrap();

    let mut waiting: Vec<_> = (0..200).map(|_| connect(server.echo())).collect();
    for client in &mut waiting {
        client.write_all(b"served").unwrap();
    }
    server.wait_for("Too many open files");
    established.iter_mut().for_each(|client| ping(client, b"unharmed"));
    let before = sleeps(&server);
    receive_nothing(waiting.last_mut().unwrap(), Duration::from_millis(500));
    let wakes = sleeps(&server) - before;
    assert!(wakes <= 20, "{wakes} wake-ups in half a second");

    // From here on no client connects: no edge comes, only descriptors come free.
    drop(established);
    for mut client in waiting {
        assert_eq!(read_exactly(&mut client, 6), b"served");
    }
    let said = server.stop();
    let warnings = said.matches("Too many open files").count();
    assert!((1..=10).contains(&warnings), "one warning per transition: {said}");
}

/// Runs `meanwhile` while so many clients ask for the time again and again.
fn beside_busy_clients(server: &Server, count: usize, meanwhile: impl FnOnce()) {
    /// Ends the clients, even if `meanwhile` panics.
    struct End<'a>(&'a AtomicBool);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let (is_over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let _end = End(&is_over);
        for _ in 0..count {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    assert_eq!(read_all(&mut connect(server.daytime())).unwrap().len(), 26);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let is_busy = || answered.load(Ordering::Relaxed) >= 10 * count;
        eventually("the clients are busy", || is_busy().then_some(()));
        meanwhile();
    });
}

#[test]
fn at_the_connection_limit_a_busy_service_leaves_slots_to_the_other() {
    let server = Server::start(&["-q", "--max-connections", "10"]);
    beside_busy_clients(&server, 60, || {
        for _ in 0..20 {
            ping(&mut connect(server.echo()), b"served");
        }
    });
    server.stop();
}

#[test]
fn out_of_descriptors_a_busy_service_leaves_some_to_the_other() {
    let server = Server::start(&["-q"]);
    let pid = server.pid() as libc::pid_t;
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as u64;
    rlimit::prlimit(pid, rlimit::Resource::NOFILE, Some((open + 10, open + 10)), None).unwrap();
    beside_busy_clients(&server, 60, || {
        for _ in 0..20 {
            ping(&mut connect(server.echo()), b"served");
        }
    });
    server.stop();
}

#[test]
fn at_the_connection_limit_each_of_several_addresses_is_served() {
    let server = Server::start(&["-q", "--max-connections", "1", "-e", "127.0.0.1:0,127.0.0.2:0"]);
    assert_eq!(server.echo.len(), 3);
    beside_busy_clients(&server, 30, || {
        for addr in server.echo.iter().rev() {
            ping(&mut connect(*addr), b"served");
        }
    });
    server.stop();
}

#[test]
fn a_stopped_server_that_goes_on_answers_400_clients_that_have_half_closed() {
    let server = Server::start(&[]);
    stop(&server);
    let bytes = pattern(100);
    let mut clients = Vec::new();
    for at in 0..400 {
        let mut client = connect(server.echo());
        client.write_all(&bytes[..1 + at % 100]).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        clients.push(client);
    }
    go_on(&server);
    for (at, client) in clients.iter_mut().enumerate() {
        assert_eq!(read_all(client).unwrap(), &bytes[..1 + at % 100], "client {at}");
    }
    server.stop();
}

#[test]
fn a_client_with_bytes_waiting_is_not_idle_after_a_stop_of_twice_the_time() {
    let server = Server::start(&["--idle", "300ms"]);
    let mut clients: Vec<_> = (0..50).map(|_| connect(server.echo())).collect();
    clients.iter_mut().for_each(|client| ping(client, b"before"));
    stop(&server);
    for client in &mut clients {
        client.write_all(b"patience").unwrap();
    }
    receive_nothing(&mut clients[0], Duration::from_millis(600));
    go_on(&server);
    for (at, client) in clients.iter_mut().enumerate() {
        assert_eq!(read_exactly(client, 8), b"patience", "client {at}");
    }
}

#[test]
fn stops_and_signals_that_mean_nothing_lose_nothing() {
    let server = Server::start(&[]);
    let mut client = connect(server.echo());
    for round in 0..300_u32 {
        server.signal(libc::SIGSTOP);
        server.signal(libc::SIGCONT);
        server.signal(libc::SIGWINCH);
        server.signal(libc::SIGCHLD);
        ping(&mut client, &round.to_be_bytes());
    }
    drop(client);
    server.stop();
}

#[test]
fn a_hundred_conversations_told_to_end_lose_no_byte_and_the_backlog_is_served() {
    let mut server = Server::start(&["--grace", "30s"]);
    let bytes = pattern(200_000);
    let mut clients: Vec<_> = (0..100).map(|_| connect(server.echo())).collect();
    for client in &mut clients {
        client.write_all(&bytes).unwrap();
    }
    // These are complete when the signal comes, and not accepted yet.
    stop(&server);
    let mut backlog: Vec<_> = (0..50).map(|_| connect(server.echo())).collect();
    let mut times: Vec<_> = (0..50).map(|_| connect(server.daytime())).collect();
    for client in &mut backlog {
        client.write_all(b"just in time").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
    }
    server.signal(libc::SIGTERM);
    go_on(&server);
    for client in &mut backlog {
        assert_eq!(read_all(client).unwrap(), b"just in time");
    }
    for client in &mut times {
        assert_eq!(read_all(client).unwrap().len(), 26);
    }
    drop(times);
    for client in &mut clients {
        client.shutdown(Shutdown::Write).unwrap();
        assert!(read_all(client).unwrap() == bytes);
    }
    let (status, said) = server.wait();
    assert_eq!(status.code(), Some(0), "{said}");
}

#[test]
fn clients_that_reset_at_any_moment_leave_no_trace() {
    let server = Server::start(&["-q"]);
    // The first conversation settles what the server opens once.
    ping(&mut connect(server.echo()), b"warm");
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count();
    let at_rest = eventually("at rest", || {
        let first = descriptors();
        ping(&mut connect(server.echo()), b"x");
        (descriptors() <= first).then_some(first)
    });
    for round in 0..500 {
        let mut client = connect(if round % 2 == 0 { server.echo() } else { server.daytime() });
        if round % 3 > 0 {
            let _ = client.write_all(&pattern(round * 13));
        }
        if round % 5 > 2 && round % 3 > 0 {
            let _ = client.read(&mut [0; 7]);
        }
        reset(&client);
    }
    eventually("every descriptor is back", || (descriptors() <= at_rest).then_some(()));
    ping(&mut connect(server.echo()), b"still here");
    assert_eq!(server.stop(), "");
}
