//! Our clients against other people's servers, where these are installed.
#![cfg(all(feature = "cli", unix))]

mod common;
#[allow(dead_code)]
#[path = "cli/program.rs"]
mod program;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use common::{eventually, pattern, skip};
use program::{Folder, Watchdog, campanile, run};

/// Somebody else's server; ended when dropped.
struct Other {
    child: Child,
    _watchdog: Watchdog,
}

impl Other {
    /// Starts it and waits until it listens; `None`, with a word, if it is not installed.
    fn start(command: &mut Command, addr: SocketAddr) -> Option<Other> {
        let program = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let Ok(child) = command.spawn() else {
            skip(format!("{program} is not installed"));
            return None;
        };
        let other = Other { _watchdog: Watchdog::new(child.id()), child };
        eventually(&program, || TcpStream::connect(addr).ok());
        Some(other)
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that was free a moment ago: these servers cannot say which one they took.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Streams 20 MB through `campanile echo -m -` and compares.
fn stream_through(addr: SocketAddr) {
    let bytes = pattern(20_000_000);
    let mut child = campanile()
        .args(["echo", &addr.to_string(), "-m", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let _watchdog = Watchdog::new(child.id());
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let sent = bytes.clone();
    let writing = std::thread::spawn(move || stdin.write_all(&sent).unwrap());
    let mut back = Vec::new();
    stdout.read_to_end(&mut back).unwrap();
    writing.join().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(back == bytes, "{} of {} bytes", back.len(), bytes.len());
}

#[test]
fn twenty_megabytes_come_back_from_ours() {
    let both = common::Both::start(campanile::Limits::default());
    stream_through(both.echo);
}

#[test]
fn twenty_megabytes_come_back_from_ncat() {
    let addr = free();
    let mut command = Command::new("ncat");
    command.args(["-l", "-k", "--exec", "/bin/cat", "127.0.0.1", &addr.port().to_string()]);
    if let Some(_ncat) = Other::start(&mut command, addr) {
        stream_through(addr);
    }
}

#[test]
fn twenty_megabytes_come_back_from_socat() {
    let addr = free();
    let mut command = Command::new("socat");
    let listen = format!("TCP-LISTEN:{},bind=127.0.0.1,fork,reuseaddr", addr.port());
    command.args([&listen, "EXEC:/bin/cat"]);
    if let Some(_socat) = Other::start(&mut command, addr) {
        stream_through(addr);
    }
}

#[test]
fn the_time_of_inetd_is_understood() {
    // Its built-in services are known by their names, so the port is 13, and root's.
    let addr: SocketAddr = ([127, 0, 0, 1], 13).into();
    if TcpListener::bind(addr).is_err() {
        skip("this user may not listen on port 13, or it is in use");
        return;
    }
    let folder = Folder::new("inetd");
    let config = folder.join("inetd.conf");
    std::fs::write(&config, "127.0.0.1:daytime stream tcp nowait root internal\n").unwrap();
    let mut command = Command::new("inetutils-inetd");
    command.args(["-d", "--pidfile=/dev/null"]).arg(&config);
    if let Some(_inetd) = Other::start(&mut command, addr) {
        let ended = run(campanile().args(["daytime", &addr.to_string()]));
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert!(ended.stdout.starts_with("The time got from the server is "), "{}", ended.stdout);
        assert_eq!(ended.stdout.len(), 57, "{:?}", ended.stdout);
    }
}

/// `.ci/long proxy` does the same with PostgreSQL and nginx.
#[test]
fn a_redis_client_notices_the_proxy_only_by_the_faults_that_it_asks_for() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli/servers.py");
    let mut command = Command::new("python3");
    let program = campanile().get_program().to_owned();
    let Ok(output) = command.arg(script).arg(program).arg("redis").output() else {
        return skip("python3 is not installed");
    };
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    match output.status.code() {
        Some(77) => skip(text.trim()),
        code => assert_eq!((code, &*text), (Some(0), "redis: well\n")),
    }
}
