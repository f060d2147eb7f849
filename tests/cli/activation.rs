//! `fd:NAME` serves sockets that a service manager has bound, `--reuse-port` shares a port.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::Command;

use crate::common::skip;
use crate::program::{Folder, Server, activated, campanile, inherit_signals, run};

fn tcp() -> (TcpListener, OwnedFd) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let passed = listener.try_clone().unwrap().into();
    (listener, passed)
}

fn echoes(mut stream: impl Read + Write) {
    stream.write_all(b"hello").unwrap();
    let mut back = [0; 5];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"hello");
}

#[test]
fn a_connection_older_than_the_process_is_served() {
    let (echo, passed) = tcp();
    let addr = echo.local_addr().unwrap();
    let mut client = TcpStream::connect(addr).unwrap();
    client.write_all(b"early").unwrap();
    let words = ["serve", "-d", "off", "-e", "fd:echo"];
    let server = Server::spawn(&mut activated(vec![passed], "echo", &words));
    assert_eq!(server.lines, format!("echo {addr}\n"));
    let mut back = [0; 5];
    client.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"early");
    server.stop();
    // The socket outlives the process, for the next one.
    let _waiting = TcpStream::connect(addr).unwrap();
}

#[test]
fn every_socket_of_a_name_and_every_kind_of_socket_is_served() {
    let folder = Folder::new("activation");
    let path = folder.join("echo");
    let unix = UnixListener::bind(&path).unwrap();
    let ((first, one), (second, two), (time, three)) = (tcp(), tcp(), tcp());
    let (first, second) = (first.local_addr().unwrap(), second.local_addr().unwrap());
    let time = time.local_addr().unwrap();
    let sockets = [one, three, unix.into(), two];
    let words = ["serve", "-d", "fd:time", "-e", "fd:echo", "fd:local"];
    for more in [&[][..], &["--json"]] {
        let sockets = sockets.iter().map(|fd| fd.try_clone().unwrap()).collect();
        let words: Vec<_> = words.iter().chain(more).copied().collect();
        let server = Server::spawn(&mut activated(sockets, "echo:time:local:echo", &words));
        for addr in [format!("{time}"), format!("{first}"), format!("{second}")] {
            assert!(server.lines.contains(&addr), "{}", server.lines);
        }
        assert!(server.lines.contains(&format!("unix:{}", path.display())), "{}", server.lines);
        echoes(TcpStream::connect(first).unwrap());
        echoes(TcpStream::connect(second).unwrap());
        echoes(UnixStream::connect(&path).unwrap());
        let mut line = String::new();
        TcpStream::connect(time).unwrap().read_to_string(&mut line).unwrap();
        assert!(line.ends_with("\r\n"), "{line:?}");
        server.stop();
        assert!(path.exists(), "the path belongs to the service manager");
    }
}

#[test]
fn a_proxy_listens_on_a_passed_socket() {
    let upstream = Server::start(&["-q"]);
    let (front, passed) = tcp();
    let words = ["proxy", "fd:front", &upstream.echo().to_string()];
    let proxy = Server::spawn(&mut activated(vec![passed], "front", &words));
    assert_eq!(proxy.lines, format!("proxy {}\n", front.local_addr().unwrap()));
    echoes(TcpStream::connect(front.local_addr().unwrap()).unwrap());
    proxy.stop();
}

#[test]
fn a_socket_that_no_address_names_is_reported() {
    let ((_kept, one), (_forgotten, two)) = (tcp(), tcp());
    let words = ["serve", "-d", "off", "-e", "fd:echo"];
    let server = Server::spawn(&mut activated(vec![one, two], "echo:other", &words));
    let log = server.stop();
    assert!(log.contains("no address names the socket other that was passed"), "{log}");
    assert!(log.contains("add --echo fd:other"), "{log}");
}

/// The program does not start, says why and what to do, and leaves no ready file.
fn is_refused(command: &mut Command, why: &str, advice: &str) {
    let folder = Folder::new("activation-refused");
    let ended = run(command.arg("--ready-file").arg(folder.join("ready")));
    let said = format!("error: cannot listen on fd:echo for echo: {why}");
    assert!(ended.stderr.starts_with(&said), "{said}\n{}", ended.stderr);
    assert!(ended.stderr.contains(advice), "{advice}\n{}", ended.stderr);
    assert_eq!((ended.code, &*ended.stdout), (Some(1), ""));
    assert!(folder.names().is_empty());
}

const WORDS: [&str; 5] = ["serve", "-d", "127.0.0.1:0", "-e", "fd:echo"];

#[test]
fn a_missing_socket_and_a_wrong_name_have_messages_of_their_own() {
    let start = "start it by the socket unit, or with systemd-socket-activate";
    is_refused(campanile().args(WORDS), "no socket was passed to this process", start);
    let mut foreign = campanile();
    foreign.args(WORDS).env("LISTEN_FDS", "1").env("LISTEN_PID", "1");
    let why = "the sockets are for the process LISTEN_PID=1, and this is process ";
    is_refused(&mut foreign, why, "let that program use exec");
    let mut wrong = activated(vec![tcp().1, tcp().1], "web:time", &WORDS);
    is_refused(&mut wrong, "no socket has this name; passed are web, time", "FileDescriptorName=");
    let mut uneven = activated(vec![tcp().1], "web:time", &WORDS);
    let why = "LISTEN_FDS=1 and LISTEN_FDNAMES do not describe the sockets that were passed";
    is_refused(&mut uneven, why, start);
    let mut closed = activated(vec![], "echo", &WORDS);
    closed.env("LISTEN_FDS", "1");
    is_refused(&mut closed, "LISTEN_FDS=1 and LISTEN_FDNAMES do not describe", start);
    let mut twice = activated(vec![tcp().1], "echo", &["serve", "-d", "fd:echo", "-e", "fd:echo"]);
    let own = "daytime listens on this socket already";
    is_refused(&mut twice, own, "give each service a socket of its own");
}

#[test]
fn a_socket_of_the_wrong_kind_is_refused_by_name() {
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (listener, _) = tcp();
    let connected = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let unlistened = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let kinds: [(OwnedFd, &str, &str); 6] = [
        (udp.into(), "it is a datagram socket", "ListenStream= instead of ListenDatagram="),
        (UnixDatagram::unbound().unwrap().into(), "it is a datagram socket", "ListenStream="),
        (connected.into(), "it is a connected socket", "Accept=no"),
        (UnixStream::pair().unwrap().0.into(), "it is a connected socket", "Accept=no"),
        (unlistened.unwrap().into(), "it does not listen", "ListenStream="),
        (
            fs::File::open("/dev/null").unwrap().into(),
            "it is neither a TCP socket nor a Unix stream socket",
            "ListenStream=",
        ),
    ];
    for (socket, why, advice) in kinds {
        is_refused(&mut activated(vec![socket], "echo", &WORDS), why, advice);
    }
}

#[test]
fn a_passed_path_that_clients_do_not_reach_is_refused() {
    let folder = Folder::new("activation-path");
    let path = folder.join("echo");
    let shown = path.display();
    let unix = UnixListener::bind(&path).unwrap();
    let refused = |why: &str| {
        let socket = unix.try_clone().unwrap().into();
        let again = "start the socket unit again";
        is_refused(&mut activated(vec![socket], "echo", &WORDS), why, again);
    };
    fs::remove_file(&path).unwrap();
    refused(&format!("clients cannot reach its path {shown}: No such file"));
    fs::write(&path, "precious").unwrap();
    refused(&format!("another file has replaced its path {shown}"));
    fs::remove_file(&path).unwrap();
    let _foreign = UnixListener::bind(&path).unwrap();
    refused(&format!("another server has bound its path {shown}, too"));
}

#[test]
fn a_passed_or_shared_address_cannot_refuse() {
    let why = "another process holds this address open, so it cannot refuse; use never-accept";
    let words = ["serve", "-d", "0", "-e", "fd:echo", "--fault"];
    let is_wrong = |command: &mut Command| {
        let ended = run(command);
        assert!(ended.stderr.contains(why), "{}", ended.stderr);
        assert_eq!((ended.code, &*ended.stdout), (Some(2), ""));
    };
    is_wrong(activated(vec![tcp().1], "echo", &words).arg("echo: refuse"));
    is_wrong(campanile().args(["serve", "--reuse-port", "--fault", "daytime: refuse"]));
    let proxy = ["proxy", "fd:echo", "7", "--fault", "proxy: refuse"];
    is_wrong(&mut activated(vec![tcp().1], "echo", &proxy));
    // The other service, and the other effects, are possible.
    for fault in ["daytime: refuse", "echo: never-accept", "echo: unreachable"] {
        let mut command = activated(vec![tcp().1], "echo", &words);
        Server::spawn(command.arg(fault)).stop();
    }
}

#[test]
fn systemd_socket_activate_starts_the_program_at_the_first_connection() {
    if Command::new("systemd-socket-activate").arg("--version").output().is_err() {
        return skip("systemd-socket-activate is not installed");
    }
    let folder = Folder::new("socket-activate");
    let path = folder.join("echo");
    let mut command = Command::new("systemd-socket-activate");
    command.arg(format!("--listen={}", path.display())).arg("--fdname=echo");
    command.args([env!("CARGO_BIN_EXE_campanile"), "serve", "-d", "off", "-e", "fd:echo"]);
    inherit_signals(&mut command, &[], &[]);
    // Until it listens, its path does not exist.
    let client = std::thread::spawn(move || {
        echoes(crate::common::eventually("the socket", || UnixStream::connect(&path).ok()));
    });
    let server = Server::spawn(&mut command);
    client.join().unwrap();
    assert!(server.lines.starts_with("echo unix:"), "{}", server.lines);
    server.stop();
}

#[test]
fn processes_share_a_port_if_each_says_so() {
    let first = Server::start(&["--reuse-port"]);
    let (daytime, echo) = (first.daytime().to_string(), first.echo().to_string());
    let words = ["serve", "-d", &daytime, "-e", &echo];
    let alone = run(campanile().args(words));
    assert!(alone.stderr.contains("another process listens on that address"), "{}", alone.stderr);
    let second = Server::spawn(campanile().args(words).arg("--reuse-port"));
    assert_eq!(first.lines, second.lines);
    // Each keeps its connections when the other ends: it accepts those that come from then on.
    assert!(!first.stop().contains("error"));
    for _ in 0..10 {
        echoes(TcpStream::connect(second.echo()).unwrap());
    }
    second.stop();

    let exclusive = Server::start(&["-q"]);
    let (daytime, echo) = (exclusive.daytime().to_string(), exclusive.echo().to_string());
    let refused = run(campanile().args(["serve", "-d", &daytime, "-e", &echo, "--reuse-port"]));
    let advice = "a process of another user, or one without --reuse-port, listens on that address";
    assert!(refused.stderr.contains(advice), "{}", refused.stderr);
}

#[test]
fn services_of_one_process_never_share_a_port() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let ended = run(campanile().args(["serve", "-d", &free, "-e", &free, "--reuse-port"]));
    let advice = "this command already listens on that address";
    assert!(ended.stderr.contains(advice), "{}", ended.stderr);
}
