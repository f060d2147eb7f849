//! Ending: the first signal lets conversations finish, a later one does not.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

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

const TERMINATION: [i32; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];

#[test]
fn one_signal_ends_the_server_with_exit_code_0() {
    for signal in TERMINATION {
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
fn without_any_grace_a_connection_with_an_empty_queue_receives_eof() {
    let mut server = Server::start(&["--grace", "0"]);
    let mut stream = conversation(&server);
    server.signal(libc::SIGTERM);
    assert_eq!(stream.read(&mut [0; 9]).unwrap(), 0);
    drop(stream);
    assert_eq!(server.wait().0.code(), Some(0));
}

#[test]
#[cfg(target_os = "linux")]
fn the_quiet_program_has_one_thread_and_ends_well_on_a_signal() {
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
fn a_signal_later_than_200_ms_after_the_first_ends_it_at_once() {
    for second in TERMINATION {
        let mut server = Server::start(&["-v", "--grace", "1h"]);
        let _stream = conversation(&server);
        server.signal(libc::SIGTERM);
        server.wait_for("another signal ends");
        server.signal(second);
        assert_eq!(server.wait().0.code(), Some(128 + second));
    }
}
