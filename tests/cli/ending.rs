//! Signals: the first one lets conversations finish, the second one does not.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;

use crate::program::Server;

fn conversation(server: &Server) -> TcpStream {
    let mut stream = TcpStream::connect(server.echo()).unwrap();
    talk(&mut stream);
    stream
}

fn talk(stream: &mut TcpStream) {
    stream.write_all(b"still there?").unwrap();
    let mut back = [0; 12];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"still there?");
}

/// The signals that end it. A SIGHUP that is ignored here, as under nohup(1), is ignored there too.
fn ending_signals() -> Vec<i32> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    let mut signals = vec![libc::SIGTERM, libc::SIGINT];
    if ignored >> (libc::SIGHUP - 1) & 1 == 0 {
        signals.push(libc::SIGHUP);
    } else {
        println!("SKIPPED: SIGHUP is ignored here");
    }
    signals
}

#[test]
fn one_signal_ends_it_well() {
    for signal in ending_signals() {
        let mut server = Server::start(&[]);
        server.signal(signal);
        let (status, stderr) = server.wait();
        assert_eq!((status.code(), &*stderr), (Some(0), ""));
    }
}

#[test]
fn conversations_finish_within_the_grace() {
    let mut server = Server::start(&["-v", "--grace", "1h"]);
    let mut stream = conversation(&server);
    server.signal(libc::SIGTERM);
    server.wait_for("signal 15");
    talk(&mut stream);
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0; 9]).unwrap(), 0);
    assert_eq!(server.wait().0.code(), Some(0));
}

#[test]
fn without_any_grace_whoever_owes_nothing_gets_an_end() {
    let mut server = Server::start(&["--grace", "0"]);
    let mut stream = conversation(&server);
    server.signal(libc::SIGTERM);
    assert_eq!(stream.read(&mut [0; 9]).unwrap(), 0);
    drop(stream);
    assert_eq!(server.wait().0.code(), Some(0));
}

#[test]
#[cfg(target_os = "linux")]
fn who_has_nothing_to_say_has_one_thread_and_ends_by_a_signal_all_the_same() {
    let mut server = Server::start(&["-q"]);
    let mut stream = conversation(&server);
    let threads = std::fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
    assert_eq!(threads.count(), 1);
    server.signal(libc::SIGTERM);
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0; 9]).unwrap(), 0);
    assert_eq!(server.wait().0.code(), Some(0));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for second in ending_signals() {
        let mut server = Server::start(&["-v", "--grace", "1h"]);
        let _stream = conversation(&server);
        server.signal(libc::SIGTERM);
        server.wait_for("signal 15");
        server.signal(second);
        assert_eq!(server.wait().0.code(), Some(128 + second));
    }
}

#[test]
fn a_hangup_that_nohup_has_ignored_stays_ignored() {
    let script = "trap '' HUP; exec \"$0\" serve -d 0 -e 0 -v";
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_campanile")]).env_clear();
    let server = Server::spawn(&mut command);
    server.signal(libc::SIGHUP);
    drop(conversation(&server));
    let said = server.stop();
    assert!(said.contains("signal 15") && !said.contains("signal 1:"), "{said}");
}
