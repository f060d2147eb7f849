//! Every effect with the triggers that make sense, seen from the client's side of real sockets.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use campanile::Limits;
use campanile::testing::{Service, Side, TestServer};

use crate::common::{TUTORIAL_LINE, eventually, pattern, ping, read_all, read_exactly};

const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

/// How a client's reading ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Eof,
    Reset,
}

/// Reads to the end, whichever that is.
pub fn read_to_end(client: &mut TcpStream) -> (Vec<u8>, End) {
    let mut bytes = Vec::new();
    match client.read_to_end(&mut bytes) {
        Ok(_) => (bytes, End::Eof),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => (bytes, End::Reset),
        Err(error) => panic!("{error} after {} bytes", bytes.len()),
    }
}

/// What can be read without waiting: bytes, and whether the end was among them.
fn read_now(client: &mut TcpStream) -> (Vec<u8>, Option<End>) {
    client.set_nonblocking(true).unwrap();
    let mut bytes = Vec::new();
    let end = match client.read_to_end(&mut bytes) {
        Ok(_) => Some(End::Eof),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Some(End::Reset),
        Err(error) => panic!("{error}"),
    };
    client.set_nonblocking(false).unwrap();
    (bytes, end)
}

/// A server whose clock only the test moves, and with no bound that it would run into.
fn by_hand() -> TestServer {
    let limits = Limits::default().idle_timeout(None).write_timeout(None).linger_timeout(2 * HOUR);
    TestServer::builder().limits(limits).manual_time().start()
}

/// A client that was accepted.
fn accepted(service: Service<'_>) -> TcpStream {
    let before = service.accepted();
    let client = service.connect();
    eventually("the accept", || (service.accepted() > before).then_some(()));
    client
}

/// Sends, ends, and reads to the end.
fn converse(service: Service<'_>, bytes: &[u8]) -> (Vec<u8>, End) {
    let mut client = service.connect();
    client.write_all(bytes).unwrap();
    // The server may have reset it already, which the read tells.
    let _ = client.shutdown(Shutdown::Write);
    read_to_end(&mut client)
}

#[test]
fn delay_holds_back_the_first_answer() {
    let server = by_hand();
    server.daytime().once("delay 200ms");
    let mut client = accepted(server.daytime());
    server.advance(199 * MS);
    assert_eq!(read_now(&mut client), (vec![], None));
    server.advance(MS);
    assert_eq!(read_to_end(&mut client), (TUTORIAL_LINE.to_vec(), End::Eof));
}

#[test]
fn delay_holds_back_every_answer() {
    let server = by_hand();
    server.echo().once("delay 50ms");
    let mut client = accepted(server.echo());
    for word in ["one", "two", "three"] {
        client.write_all(word.as_bytes()).unwrap();
        server.advance(49 * MS);
        assert!(is_silent(&client), "{word}");
        // The word may have come after the clock was moved first.
        eventually("the answer", || {
            server.advance(MS);
            (!is_silent(&client)).then_some(())
        });
        assert_eq!(read_exactly(&mut client, word.len()), word.as_bytes());
    }
}

/// Whether there is nothing to read now.
fn is_silent(client: &TcpStream) -> bool {
    client.set_nonblocking(true).unwrap();
    let is_empty = client.peek(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    client.set_nonblocking(false).unwrap();
    is_empty
}

#[test]
fn slice_sends_small_pieces() {
    let server = by_hand();
    server.daytime().once("slice 3/10ms");
    let mut client = accepted(server.daytime());
    let mut said = Vec::new();
    for piece in TUTORIAL_LINE.chunks(3) {
        server.advance(Duration::ZERO);
        said.extend(read_exactly(&mut client, piece.len()));
        if said.len() < TUTORIAL_LINE.len() {
            assert!(is_silent(&client), "the rest waits");
        }
        server.advance(10 * MS);
    }
    assert_eq!(read_to_end(&mut client), (vec![], End::Eof));
    drop(client);
    assert_eq!(said, TUTORIAL_LINE);
    assert_eq!(server.daytime().ended().write_sizes, [3, 3, 3, 3, 3, 3, 3, 3, 2]);
}

#[test]
fn slice_in_real_time_delivers_everything() {
    let server = TestServer::start();
    server.echo().once("slice 100");
    let bytes = pattern(5000);
    assert_eq!(converse(server.echo(), &bytes), (bytes, End::Eof));
    let ledger = server.echo().ended();
    assert_eq!((ledger.writes, ledger.bytes_out), (50, 5000));
}

#[test]
fn rate_is_a_slow_link() {
    let server = by_hand();
    server.daytime().once("rate 10 bytes/s");
    let mut client = accepted(server.daytime());
    server.advance(950 * MS);
    assert_eq!(read_exactly(&mut client, 10), TUTORIAL_LINE[..10]);
    assert!(is_silent(&client));
    server.advance(Duration::from_secs(1));
    assert_eq!(read_exactly(&mut client, 10), TUTORIAL_LINE[10..20]);
    assert!(is_silent(&client));
    server.advance(Duration::from_secs(1));
    assert_eq!(read_to_end(&mut client), (TUTORIAL_LINE[20..].to_vec(), End::Eof));
}

#[test]
fn short_does_not_show_at_the_client() {
    let server = TestServer::start();
    server.daytime().once("short 5");
    assert_eq!(read_all(&mut server.daytime().connect()).unwrap(), TUTORIAL_LINE);
    assert_eq!(server.daytime().ended().write_sizes, [5, 5, 5, 5, 5, 1]);
}

#[test]
fn stall_is_silence() {
    for (fault, said) in [("stall", 0), ("stall after 5 bytes", 5), ("stall at write 1", 0)] {
        let server = by_hand();
        server.echo().once(fault);
        let mut client = accepted(server.echo());
        client.write_all(b"Hello, world").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_exactly(&mut client, said), b"Hello, world"[..said]);
        server.advance(HOUR);
        assert_eq!(read_now(&mut client), (vec![], None), "{fault}");
    }
}

#[test]
fn stall_at_eof_withholds_our_eof() {
    let server = by_hand();
    server.echo().once("stall at eof");
    let mut client = accepted(server.echo());
    client.write_all(b"Hello").unwrap();
    assert_eq!(read_exactly(&mut client, 5), b"Hello");
    client.shutdown(Shutdown::Write).unwrap();
    server.advance(HOUR);
    assert_eq!(read_now(&mut client), (vec![], None));
}

#[test]
fn deaf_fills_the_window() {
    for (fault, heard) in [("deaf", 0), ("deaf after 100 bytes in", 100)] {
        let server = by_hand();
        server.echo().once(fault);
        let mut client = accepted(server.echo());
        client.set_nonblocking(true).unwrap();
        let piece = [7; 65_536];
        let mut sent = 0;
        loop {
            server.advance(Duration::from_secs(1));
            match client.write(&piece) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        client.set_nonblocking(false).unwrap();
        assert_eq!(read_exactly(&mut client, heard), vec![7; heard], "{fault}");
        server.advance(HOUR);
        assert_eq!(read_now(&mut client), (vec![], None), "{fault}, {sent} sent");
        drop(client);
        server.advance(HOUR);
        assert!(server.ledgers().is_empty(), "a deaf server hears of no end: {fault}");
    }
}

#[test]
fn corrupt_flips_one_bit_of_that_byte() {
    let bytes = pattern(3000);
    for (fault, at) in [
        ("corrupt", 0),
        ("corrupt after 5 bytes", 5),
        ("corrupt after 2KiB", 2048),
        ("corrupt after 5 bytes in", 5),
        ("corrupt after 2999 bytes in", 2999),
        ("corrupt at write 1", 0),
    ] {
        let server = TestServer::start();
        server.echo().once(fault);
        let (back, end) = converse(server.echo(), &bytes);
        let wrong: Vec<_> = (0..3000).filter(|at| back[*at] != bytes[*at]).collect();
        assert_eq!((wrong, end), (vec![at], End::Eof), "{fault}");
        assert_eq!((back[at] ^ bytes[at]).count_ones(), 1, "{fault}");
    }
}

#[test]
fn hold_open_answers_and_sends_no_eof() {
    for fault in
        ["hold-open", "hold-open at eof", "hold-open after 3 bytes", "hold-open after 3 bytes in"]
    {
        let server = by_hand();
        server.echo().once(fault);
        let mut client = accepted(server.echo());
        client.write_all(b"Hello").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_exactly(&mut client, 5), b"Hello");
        server.advance(HOUR);
        assert_eq!(read_now(&mut client), (vec![], None), "{fault}");
        drop(server);
        assert_eq!(read_to_end(&mut client), (vec![], End::Reset), "{fault}");
    }
}

#[test]
fn hold_open_withholds_our_own_eof() {
    let server = by_hand();
    server.daytime().once("hold-open");
    let mut client = accepted(server.daytime());
    assert_eq!(read_exactly(&mut client, 26), TUTORIAL_LINE);
    server.advance(HOUR);
    assert_eq!(read_now(&mut client), (vec![], None));
    drop(server);
    assert_eq!(read_to_end(&mut client), (vec![], End::Reset));
}

#[test]
fn shut_ends_our_half_and_goes_on_reading() {
    for (fault, said) in [("shut", 0), ("shut after 5 bytes", 5), ("shut after 12 bytes", 12)] {
        let server = TestServer::builder().keep_received().start();
        server.echo().once(fault);
        let mut client = server.echo().connect();
        client.write_all(b"Hello, world").unwrap();
        assert_eq!(read_to_end(&mut client), (b"Hello, world"[..said].to_vec(), End::Eof));
        client.write_all(b" and all that").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let ledger = server.echo().ended();
        assert_eq!(ledger.received, b"Hello, world and all that", "{fault}");
        assert_eq!(ledger.reason, "finished", "{fault}");
        assert_eq!(ledger.first_end, Some(Side::We), "{fault}");
    }
}

#[test]
fn close_is_an_early_end_in_order() {
    let bytes = pattern(300_000);
    for (fault, said) in [
        ("close", 0),
        ("close after 0 bytes", 0),
        ("close after 5 bytes", 5),
        ("close after 100KiB", 102_400),
        ("close after 1 byte in", 0),
        ("close at write 1", 0),
    ] {
        let server = TestServer::start();
        server.echo().once(fault);
        let mut client = server.echo().connect();
        let mut writer = client.try_clone().unwrap();
        let sent = bytes.clone();
        let writing = std::thread::spawn(move || {
            // Whether all of it is taken before the end is nobody's promise.
            let _ = writer.write_all(&sent);
            let _ = writer.shutdown(Shutdown::Write);
        });
        let (back, end) = read_to_end(&mut client);
        assert_eq!((back.len(), end), (said, End::Eof), "{fault}");
        assert_eq!(back, bytes[..said], "{fault}");
        writing.join().unwrap();
        let ledger = server.echo().ended();
        assert_eq!(ledger.reason, format!("failed: closed by fault: echo once: {fault}"));
        assert_eq!((ledger.reset_by, ledger.bytes_out), (None, said as u64));
    }
}

#[test]
fn close_of_daytime_truncates_the_line() {
    let server = TestServer::start();
    for said in [0, 1, 25, 26] {
        server.daytime().once(&*format!("close after {said} bytes"));
        let mut client = server.daytime().connect();
        assert_eq!(read_to_end(&mut client), (TUTORIAL_LINE[..said].to_vec(), End::Eof));
    }
}

#[test]
fn close_at_eof_drops_what_is_queued() {
    let server = TestServer::start();
    server.echo().once("close at eof");
    let mut client = server.echo().connect();
    client.write_all(b"Hello").unwrap();
    assert_eq!(read_exactly(&mut client, 5), b"Hello");
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut client), (vec![], End::Eof));
    assert_eq!(server.echo().ended().first_end, Some(Side::Peer));
}

#[test]
fn reset_comes_after_exactly_that_byte() {
    for (fault, said) in
        [("reset after 5 bytes", 5), ("reset after 1 byte in", 0), ("reset at write 1", 0)]
    {
        let server = TestServer::start();
        server.echo().once(fault);
        let mut client = server.echo().connect();
        client.write_all(b"Hello, world").unwrap();
        let (back, end) = read_to_end(&mut client);
        assert_eq!((&*back, end), (&b"Hello, world"[..said], End::Reset), "{fault}");
        let ledger = server.echo().ended();
        assert_eq!((ledger.reset_by, ledger.bytes_out), (Some(Side::We), said as u64));
    }
    let server = TestServer::start();
    server.echo().once("reset at eof");
    assert_eq!(converse(server.echo(), b"").1, End::Reset);
    server.daytime().once("reset after 26 bytes");
    let mut client = server.daytime().connect();
    assert_eq!(read_to_end(&mut client), (TUTORIAL_LINE.to_vec(), End::Reset));
    for service in [server.daytime(), server.echo()] {
        service.once("reset");
        match TcpStream::connect(service.addr()) {
            Ok(mut client) => assert_eq!(read_to_end(&mut client), (vec![], End::Reset)),
            // It may even come while we connect.
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }
}

#[test]
fn faults_begin_at_their_time() {
    for (fault, end) in [("reset after 3s", End::Reset), ("close after 3s", End::Eof)] {
        let server = by_hand();
        server.echo().once(fault);
        let mut client = accepted(server.echo());
        client.write_all(b"Hello").unwrap();
        assert_eq!(read_exactly(&mut client, 5), b"Hello");
        server.advance(2_999 * MS);
        assert_eq!(read_now(&mut client), (vec![], None), "{fault}");
        server.advance(MS);
        assert_eq!(read_to_end(&mut client), (vec![], end), "{fault}");
    }
    let server = by_hand();
    server.echo().once("stall after 3s");
    let mut client = accepted(server.echo());
    client.write_all(b"Hello").unwrap();
    assert_eq!(read_exactly(&mut client, 5), b"Hello");
    server.advance(Duration::from_secs(3));
    client.write_all(b"again").unwrap();
    server.advance(HOUR);
    assert_eq!(read_now(&mut client), (vec![], None));
}

#[test]
fn the_nth_write_is_the_one_that_fails() {
    let server = TestServer::start();
    for (fault, end) in [("close at write 3", End::Eof), ("reset at write 3", End::Reset)] {
        server.echo().once(fault);
        let mut client = server.echo().connect();
        for word in [b"one", b"two"] {
            client.write_all(word).unwrap();
            assert_eq!(&read_exactly(&mut client, 3), word);
        }
        client.write_all(b"six").unwrap();
        assert_eq!(read_to_end(&mut client), (vec![], end));
        drop(client);
        assert_eq!(server.echo().ended().writes, 2);
    }
}

#[test]
fn refuse_closes_the_listener_for_as_long_as_its_guard_lives() {
    let server = TestServer::start();
    assert_eq!(converse(server.echo(), b"before"), (b"before".to_vec(), End::Eof));
    for _ in 0..3 {
        let guard = server.echo().always("refuse");
        let refused = TcpStream::connect(server.echo().addr()).map_err(|error| error.kind());
        assert_eq!(refused.err(), Some(ErrorKind::ConnectionRefused));
        assert_eq!(read_all(&mut server.daytime().connect()).unwrap(), TUTORIAL_LINE);
        drop(guard);
        assert_eq!(converse(server.echo(), b"after"), (b"after".to_vec(), End::Eof));
    }
}

#[test]
fn a_fault_of_a_listener_acts_on_the_first_client_of_a_server() {
    for _ in 0..50 {
        let server = TestServer::builder().manual_time().fault("echo: refuse for 1s").start();
        let refused = TcpStream::connect(server.echo().addr()).map_err(|error| error.kind());
        assert_eq!(refused.err(), Some(ErrorKind::ConnectionRefused));
        server.advance(Duration::from_secs(1));
        assert_eq!(converse(server.echo(), b"after"), (b"after".to_vec(), End::Eof));
    }
}

#[test]
fn refuse_begins_at_its_time_or_number() {
    let server = by_hand();
    let _guard = server.echo().always("refuse after 10s");
    drop(accepted(server.echo()));
    server.advance(Duration::from_secs(9));
    drop(accepted(server.echo()));
    server.advance(Duration::from_secs(1));
    let refused = |addr| {
        let refused = TcpStream::connect(addr).map_err(|error| error.kind());
        refused.err() == Some(ErrorKind::ConnectionRefused)
    };
    assert!(refused(server.echo().addr()));
    // By the real clock, which nobody moves on.
    let server = TestServer::start();
    server.fault("daytime #3: refuse");
    let mut staying = [server.daytime().connect(), server.daytime().connect()];
    for client in &mut staying {
        assert_eq!(read_exactly(client, TUTORIAL_LINE.len()), TUTORIAL_LINE);
    }
    assert!(refused(server.daytime().addr()), "though nobody has left");
    assert_eq!(server.daytime().accepted(), 2);
}

#[test]
fn waiting_clients_are_accepted_before_manual_time_passes() {
    for _ in 0..20 {
        let server = by_hand();
        let _clients: Vec<_> = (0..5).map(|_| server.echo().connect()).collect();
        server.advance(MS);
        assert_eq!(server.echo().accepted(), 5);
    }
}

#[test]
fn never_accept_leaves_clients_in_the_backlog() {
    let server = by_hand();
    let guard = server.echo().always("never-accept");
    let mut client = server.echo().connect();
    client.write_all(b"anybody there?").unwrap();
    server.advance(HOUR);
    assert_eq!((read_now(&mut client), server.echo().accepted()), ((vec![], None), 0));
    drop(guard);
    assert_eq!(read_exactly(&mut client, 14), b"anybody there?");
}

#[test]
fn several_faults_of_one_connection_act_together() {
    let server = TestServer::start();
    let _slow = server.echo().always("slice 100");
    let _wrong = server.echo().always("corrupt after 1000 bytes");
    server.echo().once("reset after 1500 bytes");
    let bytes = pattern(1500);
    let mut client = server.echo().connect();
    client.write_all(&bytes).unwrap();
    let (back, end) = read_to_end(&mut client);
    let wrong: Vec<_> = (0..back.len()).filter(|at| back[*at] != bytes[*at]).collect();
    assert_eq!((back.len(), wrong, end), (1500, vec![1000], End::Reset));
    let applied: Vec<_> = server.echo().ended().faults.iter().map(ToString::to_string).collect();
    let expected =
        ["echo: slice 100", "echo: corrupt after 1000 bytes", "echo once: reset after 1500 bytes"];
    assert_eq!(applied, expected);
}

#[test]
fn a_stalled_client_that_goes_away_is_noticed() -> io::Result<()> {
    let server = TestServer::start();
    server.echo().once("stall");
    let mut client = accepted(server.echo());
    client.write_all(b"Hello")?;
    crate::common::reset(&client);
    drop(client);
    assert_eq!(server.echo().ended().reset_by, Some(Side::Peer));
    Ok(())
}

#[test]
#[cfg(target_os = "linux")]
fn unreachable_lets_a_connect_time_out() {
    let server = TestServer::start();
    let addr = server.echo().addr();
    let mut open = server.echo().connect();
    ping(&mut open, b"accepted");
    for _ in 0..3 {
        let guard = server.echo().always("unreachable");
        let timeout = Duration::from_millis(200);
        let refused = TcpStream::connect_timeout(&addr, timeout).map_err(|error| error.kind());
        assert_eq!(refused.err(), Some(ErrorKind::TimedOut));
        ping(&mut open, b"an open connection is served");
        assert_eq!(read_all(&mut server.daytime().connect()).unwrap(), TUTORIAL_LINE);
        drop(guard);
        ping(&mut server.echo().connect(), b"back again");
    }
    // The connection that fills the backlog is not a client.
    assert_eq!(server.echo().accepted(), 4);
}
