//! stdout and stderr closed, full, or read by nobody: service goes on.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use crate::common::eventually;
use crate::program::{Folder, Server, Watchdog, campanile};

/// More lines than a pipe of 64 KiB and the queue have room for.
const MANY: usize = 4000;

fn ask(addr: SocketAddr) {
    let mut line = String::new();
    TcpStream::connect(addr).unwrap().read_to_string(&mut line).unwrap();
    assert_eq!(line.len(), 26);
}

fn serve_many(server: &Server) {
    for _ in 0..MANY {
        ask(server.daytime());
    }
}

#[test]
fn a_stderr_that_nobody_reads_stops_nothing_and_what_was_lost_is_counted() {
    let mut command = campanile();
    let mut server = Server::spawn_unheard(command.args(["serve", "-d", "0", "-e", "0"]));
    serve_many(&server);
    // The reader comes back; and no other line is needed to be told.
    server = server.listen_to_stderr();
    server.wait_for(" lines were dropped here\n");
    let said = server.stop();
    let told: Vec<_> = said.lines().filter(|line| line.starts_with("Got a connection")).collect();
    let dropped = said.lines().filter_map(|line| line.strip_suffix(" lines were dropped here"));
    let dropped: usize = dropped.map(|count| count.parse::<usize>().unwrap()).sum();
    assert!(dropped > 0);
    assert_eq!(told.len() + dropped, MANY, "every line was said, or counted");
    assert!(said.lines().all(|line| line.len() < 60), "no line was cut or glued to another");
}

#[test]
fn a_stderr_that_nobody_reads_does_not_hold_up_the_end() {
    let mut command = campanile();
    let mut server = Server::spawn_unheard(command.args(["serve", "-d", "0", "-e", "0"]));
    serve_many(&server);
    server.signal(libc::SIGTERM);
    assert_eq!(server.wait().0.code(), Some(0));
}

#[test]
fn a_reader_of_stderr_that_goes_away_stops_nothing() {
    let mut command = campanile();
    command.args(["serve", "-d", "0", "-e", "0"]);
    let (reader, writer) = UnixStream::pair().unwrap();
    let mut server = Server::with_stderr(&mut command, OwnedFd::from(writer).into());
    drop(reader);
    for _ in 0..100 {
        ask(server.daytime());
    }
    server.signal(libc::SIGTERM);
    assert_eq!(server.wait().0.code(), Some(0));
}

/// Runs it with such sinks, waits for the ready file, and talks to both services.
fn serves(name: &str, command: &mut Command) {
    let folder = Folder::new(name);
    let path = folder.join("ready");
    command.env("CAMPANILE_READY_FILE", &path).stdin(Stdio::null());
    let mut child: Child = command.spawn().unwrap();
    let watchdog = Watchdog::new(child.id());
    let lines = eventually("the ready file", || fs::read_to_string(&path).ok());
    let addr = |service: &str| {
        let found = lines.lines().find_map(|line| line.strip_prefix(service));
        found.unwrap().parse::<SocketAddr>().unwrap()
    };
    ask(addr("daytime "));
    let mut stream = TcpStream::connect(addr("echo ")).unwrap();
    stream.write_all(b"abc").unwrap();
    stream.read_exact(&mut [0; 3]).unwrap();
    drop(stream);
    crate::program::signal(child.id(), libc::SIGTERM);
    let status = child.wait().unwrap();
    drop(watchdog);
    assert_eq!(status.code(), Some(0));
}

fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

#[test]
fn full_disks_stop_nothing() {
    let words = ["serve", "-d", "0", "-e", "0", "-vv"];
    serves("full-stdout", campanile().args(words).stdout(full()).stderr(Stdio::null()));
    serves("full-stderr", campanile().args(words).stdout(Stdio::null()).stderr(full()));
    // A word about a wrong RUST_LOG has nowhere to go, either.
    let mut command = campanile();
    serves("full-both", command.args(words).env("RUST_LOG", "=x").stdout(full()).stderr(full()));
}

#[test]
fn closed_sinks_stop_nothing() {
    for (name, redirections) in [
        ("no-stdout", ">&- 2>/dev/null"),
        ("no-stderr", ">/dev/null 2>&-"),
        ("none", "<&- >&- 2>&-"),
    ] {
        let script = format!("exec \"$0\" serve -d 0 -e 0 {redirections}");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_campanile")]).env_clear();
        command.env("RUST_LOG", "=x");
        serves(name, &mut command);
    }
}

#[test]
fn help_and_errors_that_nobody_can_read_have_the_same_exit_code() {
    let code = |words: &[&str]| {
        let mut child = campanile().args(words).stdout(full()).stderr(full()).spawn().unwrap();
        let _watchdog = Watchdog::new(child.id());
        child.wait().unwrap().code()
    };
    assert_eq!(code(&["--help"]), Some(0));
    assert_eq!(code(&[]), Some(2));
    assert_eq!(code(&["serve", "--idle", "x"]), Some(2));
    assert_eq!(code(&["serve", "-d", "off", "-e", "off"]), Some(2));
    assert_eq!(code(&["serve", "-d", "192.0.2.1:9"]), Some(1));
    assert_eq!(code(&["daytime", "no-such-host.invalid:9"]), Some(1));
}
