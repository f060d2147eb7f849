//! `campanile echo` against servers that are correct, that change bytes, and that fail.

use std::io::{Cursor, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use campanile::client::{self, Error, Mismatch};

use crate::common::{pattern, reset};
use crate::program::{Ended, Scripted, Server, Talking, campanile, run, run_words};

const PATIENCE: Duration = Duration::from_secs(30);

/// Gives back what it reads, changed, to the end.
fn echo_but(mut change: impl FnMut(&mut Vec<u8>, usize) + Send + 'static) -> Scripted {
    Scripted::once(move |mut stream| {
        let (mut buffer, mut at) = (vec![0; 10_000], 0);
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            let mut piece = buffer[..count].to_vec();
            change(&mut piece, at);
            at += count;
            if stream.write_all(&piece).is_err() {
                return;
            }
        }
    })
}

fn mismatch_of(server: &Scripted, message: &[u8]) -> (u64, Mismatch) {
    match client::echo(server.addr, message, PATIENCE) {
        Err(Error::Mismatch { offset, kind, .. }) => (offset, kind),
        other => panic!("{other:?}"),
    }
}

fn says(ended: &Ended, code: i32, expected: &str) {
    assert_eq!((ended.code, &*ended.stdout, &*ended.stderr), (Some(code), "", expected));
}

#[test]
fn the_reply_is_quoted_as_python_does() {
    let server = Server::start(&[]);
    let addr = server.echo().to_string();
    for (message, shown) in [
        ("Hello, world", "'Hello, world'"),
        ("it's", "\"it's\""),
        ("\"it's\"", "'\"it\\'s\"'"),
        ("say \"hi\"", "'say \"hi\"'"),
        ("back\\slash", "'back\\\\slash'"),
        ("a\tb\r\nc", "'a\\tb\\r\\nc'"),
        ("\x1b\x7f\u{e9}", "'\\x1b\\x7f\\xc3\\xa9'"),
        ("", "''"),
        ("-x", "'-x'"),
    ] {
        let ended = run_words(["echo", &addr, "-m", message]);
        assert_eq!((ended.code, &*ended.stderr), (Some(0), ""), "{message:?}");
        assert_eq!(ended.stdout, format!("Received {shown}\n"));
    }
    assert_eq!(run_words(["echo", &addr]).stdout, "Received 'Hello, world'\n");
}

#[test]
fn twenty_megabytes_pass_from_stdin_to_stdout_unchanged() {
    let server = Server::start(&[]);
    let addr = server.echo().to_string();
    let mut client = Talking::spawn(campanile().args(["echo", &addr, "-m", "-"]));
    let (sent, mut stdin) = (pattern(20_000_000), client.stdin.take().unwrap());
    let copy = sent.clone();
    let feeder = thread::spawn(move || stdin.write_all(&copy).unwrap());
    let (code, back, stderr) = client.wait();
    feeder.join().unwrap();
    assert_eq!((code, &*stderr), (Some(0), ""));
    assert!(back == sent, "{} bytes came back", back.len());
}

#[test]
fn an_input_may_pause_longer_than_the_timeout() {
    let server = Server::start(&[]);
    let addr = server.echo().to_string();
    let words = ["echo", &addr, "-m", "-", "--timeout", "100ms"];
    let mut client = Talking::spawn(campanile().args(words));
    for word in [&b"one"[..], b"two"] {
        client.stdin.as_mut().unwrap().write_all(word).unwrap();
        assert_eq!(client.read(3), word, "it comes back at once, not at the end");
        // The pause is what is tested: three times as long as a server may be silent.
        thread::sleep(Duration::from_millis(300));
    }
    drop(client.stdin.take());
    let (code, rest, stderr) = client.wait();
    assert_eq!((code, rest.len(), &*stderr), (Some(0), 0, ""));
}

#[test]
fn the_timeout_starts_anew_after_a_pause_of_the_input() {
    let server = Scripted::once(|mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        // Silent, but for less than two seconds; the pauses are what is tested.
        thread::sleep(Duration::from_millis(1600));
        stream.write_all(&all).unwrap();
    });
    let words = ["echo", &server.addr(), "-m", "-", "--timeout", "2s"];
    let mut client = Talking::spawn(campanile().args(words));
    let mut stdin = client.stdin.take().unwrap();
    thread::sleep(Duration::from_millis(2500));
    stdin.write_all(b"at last").unwrap();
    drop(stdin);
    let (code, back, stderr) = client.wait();
    assert_eq!((code, &*back, &*stderr), (Some(0), &b"at last"[..], ""));
}

#[test]
fn bytes_in_flight_are_bounded() {
    let server =
        Scripted::once(|mut stream| drop(std::io::copy(&mut stream, &mut std::io::sink())));
    let script = "ulimit -v 400000; exec \"$0\" echo \"$1\" -m - --timeout 2s </dev/zero";
    let mut command = Command::new("/bin/sh");
    let ended = run(command.args(["-c", script, env!("CARGO_BIN_EXE_campanile"), &server.addr()]));
    assert_eq!(ended.code, Some(124), "{}", ended.stderr);
}

/// An input that tells when it is dropped, which is when nobody reads it any more.
struct Watched<R>(R, Sender<()>);

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<R> Drop for Watched<R> {
    fn drop(&mut self) {
        self.1.send(()).unwrap();
    }
}

#[test]
fn every_outcome_ends_the_threads() {
    let (told, wait) = mpsc::channel();
    // Stuck in a write; stuck because too much is in flight; done.
    let server = Scripted::holding(|_| {});
    let input = Watched(Cursor::new(pattern(20_000_000)), told.clone());
    let patience = Duration::from_millis(300);
    let error = client::echo_stream(server.addr, input, std::io::sink(), patience);
    assert!(matches!(error, Err(Error::Silent { .. })), "{error:?}");
    wait.recv_timeout(PATIENCE).unwrap();
    let server =
        Scripted::once(|mut stream| drop(std::io::copy(&mut stream, &mut std::io::sink())));
    let input = Watched(std::io::repeat(b'x'), told.clone());
    let error = client::echo_stream(server.addr, input, std::io::sink(), patience);
    assert!(matches!(error, Err(Error::Silent { .. })), "{error:?}");
    wait.recv_timeout(PATIENCE).unwrap();
    let server = echo_but(|_, _| {});
    let input = Watched(Cursor::new(pattern(1_000_000)), told);
    let count = client::echo_stream(server.addr, input, std::io::sink(), PATIENCE);
    assert_eq!(count.unwrap(), 1_000_000);
    wait.try_recv().unwrap();
}

#[test]
fn a_server_that_reads_everything_first_passes() {
    let server = Scripted::once(|mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        stream.write_all(&all).unwrap();
    });
    let message = pattern(5_000_000);
    assert!(client::echo(server.addr, &message, PATIENCE).unwrap() == message);
}

#[test]
fn a_server_that_closes_before_our_eof_passes() {
    for _ in 0..50 {
        let server = Scripted::once(|mut stream| {
            let mut buffer = [0; 12];
            stream.read_exact(&mut buffer).unwrap();
            stream.write_all(&buffer).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let _ = stream.read(&mut buffer);
        });
        assert_eq!(client::echo(server.addr, b"Hello, world", PATIENCE).unwrap(), b"Hello, world");
    }
}

#[test]
fn a_changed_byte_is_reported_with_its_offset() {
    let server = echo_but(|piece, _| piece[4] ^= 0x20);
    let ended = run_words(["echo", &server.addr(), "-m", "Hello, world"]);
    let expected = format!(
        "error: the reply of {} differs from what was sent: byte 4 was 0x6f and came back as 0x4f\n  \
         check that this is the port of an echo service (RFC 862), and check any proxy on the way\n",
        server.addr
    );
    says(&ended, 3, &expected);

    let message = pattern(3_000_000);
    for offset in [0usize, 1, 65_535, 65_536, 2_999_999] {
        let server = echo_but(move |piece, at| {
            if let Some(byte) = offset.checked_sub(at).and_then(|offset| piece.get_mut(offset)) {
                *byte = !*byte;
            }
        });
        let sent = message[offset];
        let lie = Mismatch::Differs { sent, got: !sent };
        assert_eq!(mismatch_of(&server, &message), (offset as u64, lie));
    }
}

#[test]
fn a_reply_that_is_too_short_is_a_mismatch() {
    let server = Scripted::once(|mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        stream.write_all(&all[..5]).unwrap();
    });
    let ended = run_words(["echo", &server.addr(), "-m", "Hello, world"]);
    let expected = format!(
        "error: the reply of {} differs from what was sent: it ends early, after 5 bytes\n  \
         check that this is the port of an echo service (RFC 862), and check any proxy on the way\n",
        server.addr
    );
    says(&ended, 3, &expected);
    // In the middle of a long one, while we are still sending.
    let server = Scripted::once(|mut stream| {
        let mut half = vec![0; 100_000];
        stream.read_exact(&mut half).unwrap();
        stream.write_all(&half).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    assert_eq!(mismatch_of(&server, &pattern(3_000_000)), (100_000, Mismatch::Truncated));
}

#[test]
fn a_reply_that_continues_is_a_mismatch() {
    let server = echo_but(|piece, _| piece.extend(b"!?"));
    let ended = run_words(["echo", &server.addr(), "-m", "Hello, world"]);
    let expected = format!(
        "error: the reply of {} differs from what was sent: it continues after the 12 bytes of the message\n  \
         check that this is the port of an echo service (RFC 862), and check any proxy on the way\n",
        server.addr
    );
    says(&ended, 3, &expected);
    // Also if there was nothing to give back.
    let server = Scripted::once(|mut stream| {
        stream.read_to_end(&mut Vec::new()).unwrap();
        let _ = stream.write_all(b"220 smtp.example.org ESMTP\r\n");
    });
    assert_eq!(mismatch_of(&server, b""), (0, Mismatch::Surplus));
}

#[test]
fn a_silent_server_ends_the_command_at_its_timeout() {
    let deaf = |_: &mut TcpStream| {};
    let dumb = |stream: &mut TcpStream| drop(stream.read_to_end(&mut Vec::new()));
    let endless = |stream: &mut TcpStream| {
        let mut buffer = [0; 12];
        stream.read_exact(&mut buffer).unwrap();
        stream.write_all(&buffer).unwrap();
    };
    for (count, server) in [
        (0, Scripted::holding(deaf)),
        (0, Scripted::holding(dumb)),
        (12, Scripted::holding(endless)),
    ] {
        let ended = run_words(["echo", &server.addr(), "--timeout", "300ms"]);
        let expected = format!(
            "error: {} sent nothing for 300ms, after {count} bytes\n  check that this is the port of \
             the right service, or set a longer --timeout\n",
            server.addr
        );
        says(&ended, 124, &expected);
    }
    // So much that the sender is stuck in a write; and more than may be in flight.
    for count in [20_000_000, 100_000_000] {
        let server = Scripted::holding(deaf);
        let error = client::echo(server.addr, &pattern(count), Duration::from_millis(300));
        assert!(matches!(error, Err(Error::Silent { received: 0, .. })), "{error:?}");
    }
    let server =
        Scripted::once(|mut stream| drop(std::io::copy(&mut stream, &mut std::io::sink())));
    let endless = std::io::repeat(b'x');
    let patience = Duration::from_millis(300);
    let error = client::echo_stream(server.addr, endless, std::io::sink(), patience);
    assert!(matches!(error, Err(Error::Silent { received: 0, .. })), "{error:?}");
}

#[test]
fn a_reset_ends_the_call_at_once_on_either_thread() {
    for _ in 0..50 {
        // With unread bytes a close is a reset; the sender is in the middle of a write.
        let server = Scripted::once(|mut stream| {
            stream.read_exact(&mut [0; 1000]).unwrap();
            reset(&stream);
        });
        let error = client::echo(server.addr, &pattern(3_000_000), PATIENCE);
        assert!(matches!(error, Err(Error::Broken { received: 0, .. })), "{error:?}");
    }
}

#[test]
fn a_reset_ends_the_command_while_the_input_is_open() {
    let server = Scripted::once(|mut stream| {
        stream.read_exact(&mut [0; 3]).unwrap();
        stream.write_all(b"one").unwrap();
        // The client has it: then the reset does not overtake it.
        stream.read_exact(&mut [0; 3]).unwrap();
        reset(&stream);
    });
    let mut client = Talking::spawn(campanile().args(["echo", &server.addr(), "-m", "-"]));
    client.stdin.as_mut().unwrap().write_all(b"one").unwrap();
    assert_eq!(client.read(3), b"one");
    client.stdin.as_mut().unwrap().write_all(b"two").unwrap();
    let (code, rest, stderr) = client.wait();
    assert_eq!((code, rest.len()), (Some(1), 0));
    let expected = format!(
        "error: the connection to {} failed after 3 bytes: Connection reset by peer (os error 104)\n  \
         try again; if it fails again, read the log of the server\n",
        server.addr
    );
    assert_eq!(stderr, expected);
}

#[test]
fn an_eof_while_the_input_is_open_is_early() {
    let server = Scripted::once(|stream| stream.shutdown(Shutdown::Both).unwrap());
    let client = Talking::spawn(campanile().args(["echo", &server.addr(), "-m", "-"]));
    let (code, _, stderr) = client.wait();
    assert_eq!(code, Some(3), "{stderr}");
    assert!(stderr.contains("it ends early, after 0 bytes"), "{stderr}");
}

#[test]
fn an_input_that_never_ends_ends_the_command_at_its_deadline() {
    let server = Server::start(&[]);
    let addr = server.echo().to_string();
    let words = ["echo", &addr, "-m", "-", "--deadline", "500ms"];
    let mut client = Talking::spawn(campanile().args(words));
    client.stdin.as_mut().unwrap().write_all(b"one").unwrap();
    assert_eq!(client.read(3), b"one");
    let (code, _, stderr) = client.wait();
    assert_eq!(code, Some(124), "{stderr}");
    let expected = format!("error: {addr} did not finish within the deadline of 500ms\n");
    assert!(stderr.starts_with(&expected), "{stderr}");
}

#[test]
fn an_input_or_output_that_fails_is_an_error() {
    struct Broken(usize);
    impl Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            match self.0.checked_sub(1) {
                None => Err(std::io::Error::other("torn")),
                Some(left) => {
                    self.0 = left;
                    buffer[0] = b'x';
                    Ok(1)
                }
            }
        }
    }
    impl Write for Broken {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.read(&mut [0; 1]).map(|_| bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    struct Panicking;
    impl Read for Panicking {
        fn read(&mut self, _buffer: &mut [u8]) -> std::io::Result<usize> {
            std::panic::resume_unwind(Box::new("of the input"))
        }
    }
    for count in 0..40 {
        let began = Instant::now();
        let server = echo_but(|_, _| {});
        let error = client::echo_stream(server.addr, Broken(count % 4), std::io::sink(), PATIENCE);
        assert_eq!(error.unwrap_err().to_string(), "cannot read the input: torn");
        assert!(began.elapsed() < PATIENCE, "it is told at once");
    }
    let server = echo_but(|_, _| {});
    let input = Cursor::new(pattern(3_000_000));
    let error = client::echo_stream(server.addr, input, Broken(3), PATIENCE);
    assert_eq!(error.unwrap_err().to_string(), "cannot write the output: torn");
    let server = echo_but(|_, _| {});
    let error =
        client::echo_stream(server.addr, Panicking, std::io::sink(), Duration::from_millis(100));
    assert!(matches!(error, Err(Error::Input(_) | Error::Mismatch { .. })), "{error:?}");
}

#[test]
fn json_output_is_one_object() {
    let server = Server::start(&[]);
    let addr = server.echo().to_string();
    let ended = run_words(["echo", &addr, "--json", "-m", "a\"\\\n\u{e9}"]);
    let expected = format!(
        "{{\"v\":1,\"service\":\"echo\",\"addr\":\"{addr}\",\"bytes\":6,\"received\":\"a\\\"\\\\\\u000a\u{e9}\"}}\n"
    );
    assert_eq!((ended.code, &*ended.stdout, &*ended.stderr), (Some(0), &*expected, ""));

    let words = ["echo", &addr, "--json", "-m", "-"];
    let mut client = Talking::spawn(campanile().args(words));
    client.stdin.take().unwrap().write_all(b"streamed").unwrap();
    let (code, out, _) = client.wait();
    let expected = format!("{{\"v\":1,\"service\":\"echo\",\"addr\":\"{addr}\",\"bytes\":8}}\n");
    assert_eq!((code, String::from_utf8(out).unwrap()), (Some(0), expected));

    let server = echo_but(|piece, _| piece[0] = b'J');
    let ended = run_words(["echo", &server.addr(), "--json"]);
    let expected = format!(
        "{{\"v\":1,\"service\":\"echo\",\"addr\":\"{0}\",\"error\":\"differs\",\"message\":\"the reply of {0} \
         differs from what was sent: byte 0 was 0x48 and came back as 0x4a\",\"offset\":0}}\n",
        server.addr
    );
    assert_eq!((ended.code, ended.stdout), (Some(3), expected));
}
