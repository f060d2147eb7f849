//! `campanile daytime` against servers that are correct, wrong, slow, silent or not running.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use campanile::client::{self, Error};
use socket2::{Domain, Socket, Type};

use crate::common::namespace;
use crate::program::{Ended, Scripted, Server, Watchdog, campanile, run, run_words};

/// Runs the client against a server that sends this line and closes.
fn told(line: &'static [u8]) -> (Ended, String) {
    let server = Scripted::once(move |mut stream| stream.write_all(line).unwrap());
    (run_words(["daytime", &server.addr()]), server.addr())
}

#[test]
fn every_form_of_the_line_that_rfc_867_allows_is_accepted() {
    for line in [
        &b"Sat Jan  4 07:20:00 2014\r\n"[..],
        b"Sat Jan  4 07:20:00 2014\n\r",
        b"Sat Jan  4 07:20:00 2014\n",
        b"Sat Jan  4 07:20:00 2014\r",
        b"Sat Jan  4 07:20:00 2014",
        b"\r\n\r\nSat Jan  4 07:20:00 2014\r\n\r\n",
        b"Sat Jan  4 07:20:00 2014\n\0",
        b"Sat Jan  4 07:20:00 2014\0\0\r\n",
    ] {
        let (ended, _) = told(line);
        assert_eq!(ended.stdout, "The time got from the server is Sat Jan  4 07:20:00 2014\n");
        assert_eq!((ended.code, &*ended.stderr), (Some(0), ""));
    }
}

#[test]
fn line_ends_are_removed_and_spaces_are_kept() {
    assert_eq!(told(b"  noon \r\n").0.stdout, "The time got from the server is   noon \n");
    let nist = b"\n56686 14-01-29 19:14:15 00 0 0 100.0 UTC(NIST) * \n";
    let expected =
        "The time got from the server is 56686 14-01-29 19:14:15 00 0 0 100.0 UTC(NIST) * \n";
    assert_eq!(told(nist).0.stdout, expected);
}

#[test]
fn a_line_that_arrives_byte_by_byte_is_read_to_its_end() {
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
fn a_reply_that_is_not_one_line_of_text_is_shown_escaped_and_refused() {
    let long = [b'\xff'; 100];
    let long: &'static [u8] = Box::leak(Box::new(long));
    let dots = format!("'{}'...", "\\xff".repeat(60));
    for (line, shown) in [
        (&b"\x00\x01it's\xff\r\n"[..], r#""\x00\x01it's\xff\r\n""#),
        (b"\x1b[2Jnoon\r\n", r"'\x1b[2Jnoon\r\n'"),
        (b"two\rlines\r\n", r"'two\rlines\r\n'"),
        (b"two\r\nlines\r\n", r"'two\r\nlines\r\n'"),
        (b"\0noon\r\n", r"'\x00noon\r\n'"),
        (b"\r\n", r"'\r\n'"),
        ("fünf\r\n".as_bytes(), r"'f\xc3\xbcnf\r\n'"),
        (long, &dots),
    ] {
        let (ended, addr) = told(line);
        let expected = format!(
            "error: {addr} sent something else than one line of text: {shown}\n  \
             check that this is the port of a daytime service (RFC 867)\n"
        );
        assert_eq!((ended.code, &*ended.stdout, &*ended.stderr), (Some(1), "", &*expected));
    }
}

#[test]
fn an_empty_reply_is_an_error() {
    let (ended, addr) = told(b"");
    let expected = format!(
        "error: {addr} closed the connection without sending anything\n  \
         check that this is the port of a daytime service (RFC 867)\n"
    );
    assert_eq!((ended.code, &*ended.stdout, &*ended.stderr), (Some(1), "", &*expected));
}

#[test]
fn a_server_that_never_stops_sending_is_an_error() {
    let server = Scripted::once(|mut stream| while stream.write_all(&[b'x'; 4096]).is_ok() {});
    let ended = run_words(["daytime", &server.addr()]);
    let expected = format!(
        "error: {} sent more than one line may have: over 1024 bytes\n  \
         check that this is the port of a daytime service (RFC 867)\n",
        server.addr
    );
    assert_eq!((ended.code, &*ended.stdout, &*ended.stderr), (Some(1), "", &*expected));
}

#[test]
fn the_longest_line_is_accepted() {
    let line: &'static [u8] = Box::leak(Box::new([b'x'; 1024]));
    assert_eq!(told(line).0.code, Some(0));
    let line: &'static [u8] = Box::leak(Box::new([b'x'; 1025]));
    assert_eq!(told(line).0.code, Some(1));
}

#[test]
fn a_silent_server_ends_the_command_at_its_timeout() {
    for (said, count) in [(&b""[..], 0), (b"Wed Jan 29", 10)] {
        let server = Scripted::holding(move |stream| stream.write_all(said).unwrap());
        let ended = run_words(["daytime", &server.addr(), "--timeout", "300ms"]);
        let expected = format!(
            "error: {} sent nothing for 300ms, after {count} bytes\n  check that this is the port of \
             the right service, or set a longer --timeout\n",
            server.addr
        );
        assert_eq!((ended.code, &*ended.stdout, &*ended.stderr), (Some(124), "", &*expected));
    }
}

#[test]
fn a_reset_is_an_error() {
    for _ in 0..30 {
        let server = Scripted::once(|stream| {
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        });
        let ended = run_words(["daytime", &server.addr()]);
        let expected = format!(
            "error: the connection to {} failed after 0 bytes: Connection reset by peer (os error 104)\n  \
             try again; if it fails again, read the log of the server\n",
            server.addr
        );
        assert_eq!((ended.code, &*ended.stdout, &*ended.stderr), (Some(1), "", &*expected));
    }
}

#[test]
fn a_refused_connection_is_an_error() {
    let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for command in ["daytime", "echo"] {
        let ended = run_words([command, &addr.to_string()]);
        let expected = format!(
            "error: cannot connect to {addr}: Connection refused (os error 111)\n  \
             check the address and the port, and start the server; ours is: campanile serve\n"
        );
        assert_eq!((ended.code, &*ended.stdout, &*ended.stderr), (Some(1), "", &*expected));
    }
}

#[test]
fn an_unknown_name_is_an_error() {
    for command in ["daytime", "echo"] {
        let ended = run_words([command, "no-such-host.invalid:13"]);
        let start = "error: cannot find no-such-host.invalid:13: failed to lookup address";
        assert!(ended.stderr.starts_with(start), "{}", ended.stderr);
        let end =
            "\n  check the spelling, or give an IP address and port, such as 127.0.0.1:9999\n";
        assert!(ended.stderr.ends_with(end), "{}", ended.stderr);
        assert_eq!((ended.code, &*ended.stdout), (Some(1), ""));
    }
}

#[test]
fn a_connect_without_an_answer_ends_at_the_timeout() {
    // With a full backlog the kernel drops further SYNs.
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
            "error: cannot connect to {addr}: no answer within 300ms\n  check the address and any \
             firewall on the way, or set a longer --timeout\n"
        );
        assert_eq!((ended.code, &*ended.stdout, &*ended.stderr), (Some(124), "", &*expected));
    }
}

#[test]
fn json_output_is_one_object() {
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
        "{{\"v\":1,\"service\":\"daytime\",\"addr\":\"{0}\",\"error\":\"empty\",\"message\":\"{0} closed the connection without sending anything\"}}\n",
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
                    check the file or program that stdout goes to\n";
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), expected);
}

#[test]
fn the_shortest_and_the_longest_bounds_do_not_panic() {
    let server = Scripted::holding(|_| {});
    let ended = run_words(["daytime", "--timeout", "1ns", &server.addr()]);
    assert_eq!((ended.code, &*ended.stdout), (Some(124), ""));
    let ages = "500000000000years";
    let server = Server::start(&["--idle", ages, "--linger", ages, "--grace", ages]);
    for (command, addr) in [("daytime", server.daytime()), ("echo", server.echo())] {
        let words = [command, "--timeout", ages, "--deadline", ages, &addr.to_string()];
        let ended = run_words(words);
        assert_eq!((ended.code, &*ended.stderr), (Some(0), ""));
    }
    server.stop();
}

#[test]
fn a_server_that_drips_ends_the_command_at_its_deadline() {
    let server = Scripted::once(|mut stream| {
        // The pause is what is tested: shorter than the timeout, again and again.
        while stream.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(50));
        }
    });
    let addr = server.addr();
    let ended = run_words(["daytime", &addr, "--timeout", "20s", "--deadline", "500ms"]);
    let message = format!("{addr} did not finish within the deadline of 500ms");
    let expected = format!(
        "error: {message}\n  \
         check the server, or allow more time: --deadline 1500ms, or --deadline off\n"
    );
    assert_eq!((ended.code, &*ended.stdout, &*ended.stderr), (Some(124), "", &*expected));

    let server = Scripted::holding(|_| {});
    let addr = server.addr();
    let ended = run_words(["daytime", &addr, "--json", "--deadline", "100ms"]);
    let object: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((ended.code, &object["error"]), (Some(124), &"deadline".into()));
    assert_eq!(object["message"], format!("{addr} did not finish within the deadline of 100ms"));
}

/// A program that does not read its input blocks the client in a write to stdout.
#[test]
fn a_blocked_stdout_ends_the_command_at_its_deadline() {
    let server = Server::start(&[]);
    let addr = server.echo().to_string();
    for json in [None, Some("--json")] {
        let (_reader, mut writer) = UnixStream::pair().unwrap();
        writer.set_nonblocking(true).unwrap();
        while writer.write(&[b' '; 4096]).is_ok() {}
        writer.set_nonblocking(false).unwrap();
        let mut command = campanile();
        command.args(["echo", &addr, "--deadline", "300ms"]).args(json);
        let child = command.stdout(OwnedFd::from(writer)).stderr(Stdio::piped()).spawn().unwrap();
        let _watchdog = Watchdog::new(child.id());
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(124), "{stderr}");
        let expected = format!("error: {addr} did not finish within the deadline of 300ms\n");
        assert!(stderr.starts_with(&expected), "{stderr}");
    }
}

#[test]
fn a_deadline_that_is_off_or_not_reached_changes_nothing() {
    for deadline in ["off", "30s"] {
        let server = Scripted::once(|mut stream| stream.write_all(b"noon\r\n").unwrap());
        let ended = run_words(["daytime", &server.addr(), "--deadline", deadline]);
        assert_eq!((ended.code, &*ended.stderr), (Some(0), ""));
        assert_eq!(ended.stdout, "The time got from the server is noon\n");
    }
}

/// With one local port, each connection to that port is a connection to itself. A TIME_WAIT left by
/// one command would fail the next one with EADDRNOTAVAIL.
#[test]
#[cfg(target_os = "linux")]
fn a_connection_to_itself_is_refused_and_leaves_its_port_free() {
    let script = "for addr in 40000 '[::1]:40000' 0.0.0.0:40000 localhost:40000\n\
                  do for command in echo daytime 'check echo' 'check daytime'\n\
                  do \"$0\" $command $addr 2>&1; echo \"exit code $?\"; done; done; ss -tan";
    let Some(mut command) = namespace::with_ports("40000 40000", script) else { return };
    let ended = run(command.arg(env!("CARGO_BIN_EXE_campanile")));
    let count = |text: &str| ended.stdout.matches(text).count();
    let told = ended.stdout.as_str();
    assert_eq!(count("Connection refused: the socket connected to itself"), 16, "{told}");
    assert_eq!((count("exit code 1"), count("TIME-WAIT")), (16, 0), "{told}");
}

#[test]
fn the_library_returns_the_kind_of_error() {
    let patience = Duration::from_secs(30);
    let server = Scripted::once(|mut stream| stream.write_all(b"noon\r\n").unwrap());
    assert_eq!(client::daytime(server.addr, patience).unwrap(), "noon");
    let server = Scripted::once(drop);
    assert!(matches!(client::daytime(server.addr, patience), Err(Error::Empty { .. })));
    let error = client::daytime("no address", patience).unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
    assert!(std::error::Error::source(&error).is_some() && !error.advice().is_empty());
}
