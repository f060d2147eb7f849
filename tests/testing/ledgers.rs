//! Ledgers: what we did on a connection, as data.

use std::io::Write;
use std::net::Shutdown;

use campanile::Limits;
use campanile::testing::{Side, TestServer};

use crate::common::{eventually, pattern, ping, read_all, read_exactly, reset};

#[test]
fn a_ledger_records_a_conversation() {
    let server = TestServer::builder().keep_received().start();
    let mut client = server.echo().connect();
    let peer = client.local_addr().unwrap();
    ping(&mut client, b"Hello, ");
    ping(&mut client, b"world");
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut client).unwrap(), b"");
    let ledger = server.echo().ended();
    assert_eq!((&*ledger.service, ledger.id), ("echo", 1));
    assert_eq!(ledger.peer.inet(), Some(peer));
    assert_eq!((ledger.bytes_in, ledger.bytes_out, ledger.writes), (12, 12, 2));
    assert_eq!(ledger.write_sizes, [7, 5]);
    assert_eq!((ledger.short_writes, ledger.blocked_writes), (0, 0));
    assert_eq!((ledger.first_end, ledger.reset_by), (Some(Side::Peer), None));
    assert_eq!((&*ledger.reason, &*ledger.received), ("finished", &b"Hello, world"[..]));
    assert!(ledger.faults.is_empty() && ledger.closed.unwrap() >= ledger.opened);
}

#[test]
fn received_bytes_are_kept_on_request_only() {
    let server = TestServer::start();
    ping(&mut server.echo().connect(), b"secret");
    let ledger = server.echo().ended();
    assert_eq!((ledger.bytes_in, ledger.received), (6, vec![]));
}

#[test]
fn connections_of_a_service_are_counted_from_1_and_returned_once() {
    let server = TestServer::start();
    for number in 1..=3 {
        drop(server.daytime().connect());
        assert_eq!(server.daytime().ended().id, number);
        drop(server.echo().connect());
    }
    let numbers: Vec<_> = (0..3).map(|_| server.echo().ended().id).collect();
    assert_eq!(numbers, [1, 2, 3]);
    assert_eq!(server.ledgers().len(), 6);
}

#[test]
fn a_ledger_names_the_side_that_ended_first() {
    let server = TestServer::start();
    let client = server.daytime().connect();
    read_exactly(&mut client.try_clone().unwrap(), 26);
    drop(client);
    let ledger = server.daytime().ended();
    assert_eq!((ledger.first_end, ledger.reset_by), (Some(Side::We), None));

    let mut client = server.echo().connect();
    ping(&mut client, b"x");
    reset(&client);
    drop(client);
    let ledger = server.echo().ended();
    assert_eq!((ledger.first_end, ledger.reset_by), (Some(Side::Peer), Some(Side::Peer)));
    assert!(ledger.reason.starts_with("failed: Connection reset by peer"), "{}", ledger.reason);
}

#[test]
fn a_client_that_does_not_read_causes_short_writes_and_unread_time() {
    let limits = Limits::default().send_buffer(Some(4096));
    let server = TestServer::builder().limits(limits).manual_time().start();
    let mut client = server.echo().connect();
    let bytes = pattern(2 << 20);
    let mut writer = client.try_clone().unwrap();
    let sent = bytes.clone();
    let writing = std::thread::spawn(move || {
        writer.write_all(&sent).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    // Time passes while too much is owed, if only by the hand.
    for _ in 0..100 {
        server.advance(std::time::Duration::from_millis(10));
        let mut piece = vec![0; 1 << 10];
        std::io::Read::read_exact(&mut client, &mut piece).unwrap();
    }
    let back = read_all(&mut client).unwrap();
    writing.join().unwrap();
    assert!(back == bytes[100 << 10..]);
    let ledger = server.echo().ended();
    assert_eq!((ledger.bytes_in, ledger.bytes_out), (2 << 20, 2 << 20));
    assert!(ledger.blocked_writes > 0 && ledger.short_writes > 0, "{ledger:?}");
    assert!(!ledger.unread.is_zero() && ledger.unread <= ledger.closed.unwrap(), "{ledger:?}");
}

#[test]
fn the_sizes_of_the_first_64_writes_are_kept() {
    let server = TestServer::start();
    server.echo().once("short 10");
    ping(&mut server.echo().connect(), &pattern(1000));
    let ledger = server.echo().ended();
    assert_eq!((ledger.writes, ledger.write_sizes), (100, vec![10; 64]));
}

#[test]
fn a_connection_that_is_refused_before_it_is_served_has_a_ledger() {
    let limits = Limits::default().max_per_peer(Some(1));
    let server = TestServer::builder().limits(limits).start();
    let first = server.echo().connect();
    eventually("the accept", || (server.echo().accepted() == 1).then_some(()));
    let _second = server.echo().connect();
    let ledger = server.echo().ended();
    assert_eq!((ledger.id, &*ledger.reason), (2, "dropped before it was served"));
    drop(first);
}
