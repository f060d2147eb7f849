//! Echo over real sockets.

mod common;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread;

use campanile::Limits;
use common::{Both, connect, pattern, ping, read_all};

#[test]
fn every_byte_comes_back_and_the_end_too() {
    let server = Both::start(Limits::default());
    let mut client = connect(server.echo);
    for size in [1, 2, 12, 1000, 32 * 1024, 64 * 1024] {
        ping(&mut client, &pattern(size));
    }
    ping(&mut client, b"\0\r\n\xff\x1b[2J");
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut client).unwrap(), b"");
}

#[test]
fn a_mebibyte_written_before_the_first_read_comes_back() {
    let server = Both::start(Limits::default());
    let mut client = connect(server.echo);
    let bytes = pattern(1 << 20);
    client.write_all(&bytes).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert!(read_all(&mut client).unwrap() == bytes);
}

#[test]
fn eight_mebibytes_against_a_slow_reader_come_back_50_of_50() {
    let server = Both::start(Limits::default());
    let bytes = pattern(8 << 20);
    for round in 0..50 {
        let mut reader = connect(server.echo);
        let mut writer = reader.try_clone().unwrap();
        let sent = bytes.clone();
        let writing = thread::spawn(move || {
            writer.write_all(&sent).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        // Slow: it begins in dribs and drabs and goes on in odd pieces.
        let mut back = Vec::with_capacity(bytes.len());
        let mut piece = vec![0; 1 + round * 977];
        for _ in 0..200 {
            let count = reader.read(&mut piece).unwrap();
            back.extend_from_slice(&piece[..count]);
            thread::yield_now();
        }
        reader.read_to_end(&mut back).unwrap();
        writing.join().unwrap();
        assert!(back == bytes, "round {round}: {} of {} bytes", back.len(), bytes.len());
    }
}

#[test]
fn a_conversation_of_no_bytes_gets_its_end_back() {
    let server = Both::start(Limits::default());
    let mut client = connect(server.echo);
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut client).unwrap(), b"");
}

#[test]
#[cfg(unix)]
fn what_comes_around_an_urgent_byte_comes_back_and_the_connection_lives() {
    let server = Both::start(Limits::default());
    let mut client = connect(server.echo);
    client.write_all(b"abc").unwrap();
    socket2::SockRef::from(&client).send_out_of_band(b"X").unwrap();
    client.write_all(b"def").unwrap();
    assert_eq!(common::read_exactly(&mut client, 6), b"abcdef");
    ping(&mut client, b"still here");
}

#[test]
fn a_client_that_never_reads_costs_the_others_nothing() {
    let server = Both::start(Limits::default());
    let greedy = connect(server.echo);
    greedy.set_nonblocking(true).unwrap();
    let flood = pattern(1 << 20);
    let mut total = 0;
    // Until the kernel's buffers and the high-water mark are full, and then some.
    let mut refusals = 0;
    let mut other = connect(server.echo);
    while refusals < 20 {
        match (&greedy).write(&flood) {
            Ok(count) => total += count,
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                refusals += 1;
                ping(&mut other, &flood[..1000]);
            }
        }
    }
    assert!(total < 64 << 20, "back-pressure reaches the writer: {total} bytes");
}

#[test]
fn a_hundred_conversations_at_once_do_not_mix() {
    let server = Both::start(Limits::default().events(7));
    let mut clients: Vec<_> = (0..100).map(|_| connect(server.echo)).collect();
    for round in 0..20_u8 {
        for (at, client) in clients.iter_mut().enumerate() {
            client.write_all(&[round, at as u8, 7]).unwrap();
        }
        for (at, client) in clients.iter_mut().enumerate() {
            assert_eq!(common::read_exactly(client, 3), [round, at as u8, 7]);
        }
    }
    drop(clients);
    let stats = server.finish();
    assert_eq!((stats.accepted, stats.bytes_in, stats.bytes_out), (100, 6000, 6000));
}

/// Turns until so many bytes have come back to a client that is on the same thread.
fn turn_for(
    reactor: &mut campanile::Reactor,
    client: &mut std::net::TcpStream,
    count: usize,
) -> Vec<u8> {
    let mut back = vec![0; count];
    let mut got = 0;
    client.set_nonblocking(true).unwrap();
    for _ in 0..1000 {
        reactor.turn(Some(std::time::Duration::ZERO)).unwrap();
        match client.read(&mut back[got..]) {
            Ok(0) => break,
            Ok(count) => got += count,
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
        if got == count {
            break;
        }
    }
    client.set_nonblocking(false).unwrap();
    back.truncate(got);
    back
}

#[test]
#[cfg(unix)]
fn an_urgent_byte_in_the_middle_of_one_edge_hides_nothing_behind_it() {
    let mut reactor = campanile::Reactor::new().unwrap();
    let addr = reactor.listen("127.0.0.1:0", campanile::echo()).unwrap();
    let mut client = connect(addr);
    // Plain events first: from now on a short read is believed.
    for _ in 0..3 {
        client.write_all(b"plain").unwrap();
        assert_eq!(turn_for(&mut reactor, &mut client, 5), b"plain");
    }
    client.write_all(b"abc").unwrap();
    socket2::SockRef::from(&client).send_out_of_band(b"X").unwrap();
    client.write_all(b"def").unwrap();
    assert_eq!(turn_for(&mut reactor, &mut client, 6), b"abcdef");
    client.write_all(b"more").unwrap();
    assert_eq!(turn_for(&mut reactor, &mut client, 4), b"more");
}

#[test]
fn data_and_fin_that_share_an_edge_are_both_noticed() {
    let mut reactor = campanile::Reactor::new().unwrap();
    let addr = reactor.listen("127.0.0.1:0", campanile::echo()).unwrap();
    for _ in 0..20 {
        let mut client = connect(addr);
        client.write_all(b"plain").unwrap();
        assert_eq!(turn_for(&mut reactor, &mut client, 5), b"plain");
        client.write_all(b"last words").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(turn_for(&mut reactor, &mut client, 11), b"last words");
        for _ in 0..1000 {
            if reactor.connections() > 0 {
                reactor.turn(Some(std::time::Duration::ZERO)).unwrap();
            }
        }
        assert_eq!(reactor.connections(), 0, "a connection would leak for ever");
    }
}
