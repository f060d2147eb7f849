//! The messages to the service manager. They come from the loop, so that a stuck loop is noticed.

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Command;

use crate::common::{DEADLINE, connect};
use crate::program::{Folder, Server, campanile};

/// What systemd is to the program: a datagram socket.
struct Manager {
    socket: UnixDatagram,
    folder: Folder,
}

impl Manager {
    fn new(name: &str) -> Manager {
        let folder = Folder::new(name);
        let socket = UnixDatagram::bind(folder.join("notify")).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Manager { socket, folder }
    }

    fn command(&self) -> Command {
        let mut command = campanile();
        command.args(["serve", "-d", "0", "-e", "0", "--grace", "0s"]);
        command.env("NOTIFY_SOCKET", self.folder.join("notify"));
        command
    }

    fn next(&self) -> String {
        next(&self.socket)
    }
}

fn next(socket: &UnixDatagram) -> String {
    let mut message = [0; 4096];
    let count = socket.recv(&mut message).expect("a message");
    String::from_utf8(message[..count].to_vec()).unwrap()
}

#[test]
fn the_manager_learns_that_the_program_is_ready_and_that_it_stops() {
    let manager = Manager::new("notify");
    let server = Server::spawn(&mut manager.command());
    let (daytime, echo) = (server.daytime(), server.echo());
    let ready = format!("READY=1\nSTATUS=listening on daytime {daytime}, echo {echo}\n");
    assert_eq!(manager.next(), ready);
    let _client = connect(echo);
    server.wait_for("Connected by");
    server.stop();
    let stopping = "STOPPING=1\nSTATUS=ending: 1 open connections have 0ns to finish\n";
    assert_eq!(manager.next(), stopping);
}

#[test]
fn a_start_that_fails_is_never_ready() {
    let manager = Manager::new("notify-failed");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = manager.command();
    command.args(["-e", &taken.local_addr().unwrap().to_string()]);
    assert_eq!(crate::program::run(&mut command).code, Some(1));
    manager.socket.set_nonblocking(true).unwrap();
    assert!(manager.socket.recv(&mut [0; 10]).is_err());
}

#[test]
fn an_abstract_socket_is_found_and_a_missing_one_is_reported() {
    let name = format!("campanile-notify-{}", std::process::id());
    let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut command = campanile();
    command.args(["serve", "-d", "0", "-e", "0"]);
    let server = Server::spawn(command.env("NOTIFY_SOCKET", format!("@{name}")));
    assert!(next(&socket).starts_with("READY=1\n"));
    server.stop();

    let server = Server::spawn(command.env("NOTIFY_SOCKET", "/nowhere/notify"));
    let log = server.stop();
    assert!(log.contains("cannot connect to NOTIFY_SOCKET=/nowhere/notify"), "{log}");
}

fn threads(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).unwrap().count()
}

#[test]
fn the_loop_itself_reports_that_it_turns() {
    let manager = Manager::new("watchdog");
    let plain = Server::start(&[]);
    let mut command = manager.command();
    let server = Server::spawn(command.env("WATCHDOG_USEC", "100000"));
    assert!(manager.next().starts_with("READY=1\n"));
    let _client = connect(server.echo());
    // The first line of the log starts the thread that writes it.
    let _other = connect(plain.echo());
    plain.wait_for("Connected by");
    server.wait_for("Connected by");
    let report = "WATCHDOG=1\nSTATUS=1 open connections\n";
    crate::common::eventually("a report with the connection", || {
        (manager.next() == report).then_some(())
    });
    for _ in 0..5 {
        assert_eq!(manager.next(), report);
    }
    // A thread of its own would go on reporting for a loop that is stuck.
    assert_eq!(threads(server.pid()), threads(plain.pid()));
    server.stop();
}

#[test]
fn a_watchdog_of_another_process_is_left_alone() {
    let manager = Manager::new("watchdog-foreign");
    let mut command = manager.command();
    let server = Server::spawn(command.env("WATCHDOG_USEC", "1000").env("WATCHDOG_PID", "1"));
    assert!(manager.next().starts_with("READY=1\n"));
    connect(server.echo());
    server.wait_for("Connected by");
    server.stop();
    assert!(manager.next().starts_with("STOPPING=1\n"), "no report comes in between");
}

#[test]
fn a_manager_that_reads_nothing_does_not_stop_the_loop() {
    let manager = Manager::new("watchdog-full");
    let mut command = manager.command();
    let server = Server::spawn(command.env("WATCHDOG_USEC", "2000"));
    // One report a millisecond: the socket has room for far fewer.
    let mut client = connect(server.echo());
    let queue = fs::read_to_string("/proc/sys/net/unix/max_dgram_qlen").unwrap();
    for _ in 0..queue.trim().parse::<usize>().unwrap() * 20 {
        crate::common::ping(&mut client, b"hello");
    }
    server.stop();
}
