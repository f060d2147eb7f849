//! `campanile daytime` against servers that are right, wrong, slow, silent or not there.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::time::Duration;

use campanile::client::{self, Error};
use socket2::{Domain, Socket, Type};

use crate::program::{Ended, Scripted, Server, Watchdog, campanile, run_words};

/// What the program says if the server says this and ends.
fn told(line: &'static [u8]) -> (Ended, String) {
    let server = Scripted::once(move |mut stream| stream.write_all(line).unwrap());
    (run_words(["daytime", &server.addr()]), server.addr())
}

#[test]
fn a_line_may_end_in_either_way_or_not_at_all() {
    for line in [
        &b"Sat Jan  4 07:20:00 2014\r\n"[..],
        b"Sat Jan  4 07:20:00 2014\n",
        b"Sat Jan  4 07:20:00 2014",
    ] {
        let (ended, _) = told(line);
        assert_eq!(ended.stdout, "The time got from the server is Sat Jan  4 07:20:00 2014\n");
        assert_eq!((ended.code, &*ended.stderr), (Some(0), ""));
    }
}

#[test]
fn only_the_line_end_is_taken_off() {
    assert_eq!(told(b"  noon \r\n").0.stdout, "The time got from the server is   noon \n");
    let nist = b"\n56686 14-01-29 19:14:15 00 0 0 100.0 UTC(NIST) * \n";
    let expected =
        "The time got from the server is \n56686 14-01-29 19:14:15 00 0 0 100.0 UTC(NIST) * \n";
    assert_eq!(told(nist).0.stdout, expected);
}

#[test]
fn one_read_is_not_one_line() {
    let server = Scripted::once(|mut stream| {
        stream.set_nodelay(true).unwrap();
        for byte in b"Wed Jan 29 19:14:15 2014\r\n" {
            stream.write_all(&[*byte]).unwrap();
        }
    });
    let ended = run_words(["daytime", &server.addr()]);
    assert_eq!(ended.stdout, "The time got from the server is Wed Jan 29 19:14:15 2014\n");
}

#[test]
fn what_is_not_a_line_of_text_is_shown_and_refused() {
    let long = [b'\xff'; 100];
    let long: &'static [u8] = Box::leak(Box::new(long));
    let dots = format!("'{}'...", "\\xff".repeat(60));
    for (line, shown) in [
        (&b"\x00\x01it's\xff\r\n"[..], r#""\x00\x01it's\xff""#),
        (b"\x1b[2Jnoon\r\n", r"'\x1b[2Jnoon'"),
        (b"two\r\nlines\r\n", r"'two\r\nlines'"),
        (b"noon\r", r"'noon\r'"),
        (b"\r\n", "''"),
        ("fünf\r\n".as_bytes(), r"'f\xc3\xbcnf'"),
        (long, &dots),
    ] {
        let (ended, addr) = told(line);
        let expected = format!(
            "error: {addr} did not say a line of text, but {shown}\n  \
             check that the port is that of a daytime service (RFC 867)\n"
        );
        assert_eq!((ended.code, &*ended.stdout, &*ended.stderr), (Some(1), "", &*expected));
    }
}

#[test]
fn nothing_at_all_is_an_error() {
    let (ended, addr) = told(b"");
    let expected = format!(
        "error: {addr} ended without a word\n  \
         check that the port is that of a daytime service (RFC 867)\n"
    );
    assert_eq!((ended.code, &*ended.stdout, &*ended.stderr), (Some(1), "", &*expected));
}

#[test]
fn a_server_that_never_stops_talking_is_left() {
    let server = Scripted::once(|mut stream| while stream.write_all(&[b'x'; 4096]).is_ok() {});
    let ended = run_words(["daytime", &server.addr()]);
    let expected = format!(
        "error: {} said more than a line: over 1024 bytes\n  \
         check that the port is that of a daytime service (RFC 867)\n",
        server.addr
    );
    assert_eq!((ended.code, &*ended.stdout, &*ended.stderr), (Some(1), "", &*expected));
}

#[test]
fn the_longest_line_is_taken() {
    let line: &'static [u8] = Box::leak(Box::new([b'x'; 1024]));
    assert_eq!(told(line).0.code, Some(0));
    let line: &'static [u8] = Box::leak(Box::new([b'x'; 1025]));
    assert_eq!(told(line).0.code, Some(1));
}

#[test]
fn a_silent_server_is_left_after_the_timeout() {
    for (said, count) in [(&b""[..], 0), (b"Wed Jan 29", 10)] {
        let server = Scripted::holding(move |stream| stream.write_all(said).unwrap());
        let ended = run_words(["daytime", &server.addr(), "--timeout", "300ms"]);
        let expected = format!(
            "error: {} was silent for 300ms, after {count} bytes\n  check that the port is that of \
             the right service; or allow more with --timeout 30s\n",
            server.addr
        );
        assert_eq!((ended.code, &*ended.stdout, &*ended.stderr), (Some(124), "", &*expected));
    }
}

#[test]
fn a_reset_is_not_an_end() {
    for _ in 0..30 {
        let server = Scripted::once(|stream| {
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        });
        let ended = run_words(["daytime", &server.addr()]);
        let expected = format!(
            "error: the connection to {} broke after 0 bytes: Connection reset by peer (os error 104)\n  \
             try again; if it happens again, the server's log may say why\n",
            server.addr
        );
        assert_eq!((ended.code, &*ended.stdout, &*ended.stderr), (Some(1), "", &*expected));
    }
}

#[test]
fn nobody_there() {
    let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for command in ["daytime", "echo"] {
        let ended = run_words([command, &addr.to_string()]);
        let expected = format!(
            "error: cannot connect to {addr}: Connection refused (os error 111)\n  \
             check address and port, and that the server runs: campanile serve\n"
        );
        assert_eq!((ended.code, &*ended.stdout, &*ended.stderr), (Some(1), "", &*expected));
    }
}

#[test]
fn a_name_that_nobody_knows() {
    for command in ["daytime", "echo"] {
        let ended = run_words([command, "no-such-host.invalid:13"]);
        let start = "error: cannot find no-such-host.invalid:13: failed to lookup address";
        assert!(ended.stderr.starts_with(start), "{}", ended.stderr);
        let end = "\n  check the spelling, or give the address itself, such as 127.0.0.1:9999\n";
        assert!(ended.stderr.ends_with(end), "{}", ended.stderr);
        assert_eq!((ended.code, &*ended.stdout), (Some(1), ""));
    }
}

#[test]
fn a_server_that_does_not_answer_the_door_is_left_after_the_timeout() {
    // A backlog that is full: the kernel lets further SYNs fall.
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    listener.listen(0).unwrap();
    let addr = listener.local_addr().unwrap().as_socket().unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&addr, Duration::from_millis(200)) {
        waiting.push(stream);
        if waiting.len() == 100 {
            crate::common::skip("the backlog of this kernel does not fill up");
            return;
        }
    }
    for command in ["daytime", "echo"] {
        let ended = run_words([command, &addr.to_string(), "--timeout", "300ms"]);
        let expected = format!(
            "error: cannot connect to {addr}: no answer for 300ms\n  check the address, or whether a \
             firewall is in between; or allow more with --timeout 30s\n"
        );
        assert_eq!((ended.code, &*ended.stdout, &*ended.stderr), (Some(124), "", &*expected));
    }
}

#[test]
fn as_json_it_is_one_object() {
    let server = Scripted::once(|mut stream| stream.write_all(b"\"noon\" \\\r\n").unwrap());
    let ended = run_words(["daytime", "--json", &server.addr()]);
    let expected = format!(
        "{{\"v\":1,\"service\":\"daytime\",\"addr\":\"{}\",\"time\":\"\\\"noon\\\" \\\\\"}}\n",
        server.addr
    );
    assert_eq!((ended.code, &*ended.stdout, &*ended.stderr), (Some(0), &*expected, ""));

    let server = Scripted::once(drop);
    let ended = run_words(["daytime", "--json", &server.addr()]);
    let expected = format!(
        "{{\"v\":1,\"service\":\"daytime\",\"addr\":\"{0}\",\"error\":\"empty\",\"message\":\"{0} ended without a word\"}}\n",
        server.addr
    );
    assert_eq!((ended.code, &*ended.stdout), (Some(1), &*expected));
    assert!(ended.stderr.starts_with("error: "), "{}", ended.stderr);
}

#[test]
fn an_answer_that_cannot_be_written_is_an_error() {
    let server = Scripted::once(|mut stream| stream.write_all(b"noon\r\n").unwrap());
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = campanile();
    command.args(["daytime", &server.addr()]).stdout(full).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let _watchdog = Watchdog::new(child.id());
    let output = child.wait_with_output().unwrap();
    let expected = "error: cannot write the output: No space left on device (os error 28)\n  \
                    check where the output goes\n";
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), expected);
}

#[test]
fn a_timeout_of_almost_nothing_or_almost_for_ever_is_no_panic() {
    let server = Scripted::holding(|_| {});
    let ended = run_words(["daytime", "--timeout", "1ns", &server.addr()]);
    assert_eq!((ended.code, &*ended.stdout), (Some(124), ""));
    let ages = "500000000000years";
    let server = Server::start(&["--idle", ages, "--linger", ages, "--grace", ages]);
    for (command, addr) in [("daytime", server.daytime()), ("echo", server.echo())] {
        let ended = run_words([command, "--timeout", ages, &addr.to_string()]);
        assert_eq!((ended.code, &*ended.stderr), (Some(0), ""));
    }
    server.stop();
}

#[test]
fn the_library_says_which_error_it_was() {
    let patience = Duration::from_secs(30);
    let server = Scripted::once(|mut stream| stream.write_all(b"noon\r\n").unwrap());
    assert_eq!(client::daytime(server.addr, patience).unwrap(), "noon");
    let server = Scripted::once(drop);
    assert!(matches!(client::daytime(server.addr, patience), Err(Error::Empty { .. })));
    let error = client::daytime("no address", patience).unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
    assert!(std::error::Error::source(&error).is_some() && !error.advice().is_empty());
}
