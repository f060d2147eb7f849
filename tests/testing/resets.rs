//! `reset after N bytes` is exact: N bytes arrive, then the reset, every time.

use std::io::{ErrorKind, Read, Write};
use std::thread;

use campanile::Limits;
use campanile::testing::{Side, TestServer};

use super::effects::{End, read_to_end};
use crate::common::{DEADLINE, pattern};

/// All of them take a while: `CAMPANILE_RESETS=full` asks for it.
fn times(few: usize, full: usize) -> usize {
    if std::env::var("CAMPANILE_RESETS").is_ok_and(|value| value == "full") { full } else { few }
}

/// Clients at once: most of a reset is waiting for an acknowledgement.
const TOGETHER: usize = 10;

/// Has that many connections reset after `size` bytes: each client gets them, and the reset.
fn check(size: usize, times: usize) {
    // However busy the machine is, each gets the time to read.
    let limits = Limits { linger: DEADLINE, ..Limits::default() };
    let server = TestServer::builder().limits(limits).start();
    let _guard = server.echo().always(&*format!("reset after {size} bytes"));
    let bytes = pattern(size);
    let converse = || {
        let mut client = server.echo().connect();
        let mut writer = client.try_clone().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| writer.write_all(&bytes).unwrap());
            read_to_end(&mut client) == (bytes.clone(), End::Reset)
        })
    };
    let exact: usize = thread::scope(|scope| {
        let run = || (0..times / TOGETHER).filter(|_| converse()).count();
        let running: Vec<_> = (0..TOGETHER).map(|_| scope.spawn(run)).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(exact, times, "clients that got {size} bytes and then the reset");
    for _ in 0..times {
        let ledger = server.echo().ended();
        assert_eq!((ledger.bytes_out, ledger.reset_by), (size as u64, Some(Side::We)));
    }
}

#[test]
fn after_1_byte() {
    check(1, times(100, 1000));
}

#[test]
fn after_5_bytes() {
    check(5, times(100, 1000));
}

#[test]
fn after_1000_bytes() {
    check(1000, times(100, 1000));
}

#[test]
fn after_65536_bytes() {
    check(65_536, times(100, 1000));
}

#[test]
fn after_1_mebibyte() {
    check(1 << 20, times(10, 100));
}

#[test]
fn a_reader_who_is_slow_gets_all_of_it_too() {
    let limits = Limits { linger: DEADLINE, ..Limits::default() };
    let server = TestServer::builder().limits(limits).start();
    server.echo().once("reset after 1MiB");
    let mut client = server.echo().connect();
    let bytes = pattern(1 << 20);
    let (mut writer, sent) = (client.try_clone().unwrap(), bytes.clone());
    let writing = thread::spawn(move || writer.write_all(&sent).unwrap());
    let mut piece = [0; 1024];
    let mut back = Vec::new();
    let end = loop {
        match client.read(&mut piece) {
            Ok(0) => panic!("an end after {} bytes", back.len()),
            Ok(count) => back.extend_from_slice(&piece[..count]),
            Err(error) => break error.kind(),
        }
        thread::yield_now();
    };
    writing.join().unwrap();
    assert!(back == bytes, "{} bytes", back.len());
    assert_eq!(end, ErrorKind::ConnectionReset);
}

#[test]
fn a_hundred_resets_at_once_are_exact_too() {
    let server = TestServer::start();
    let _guard = server.echo().always("reset after 10000 bytes");
    let bytes = pattern(10_000);
    let mut clients: Vec<_> = (0..100).map(|_| server.echo().connect()).collect();
    for client in &mut clients {
        client.write_all(&bytes).unwrap();
    }
    for client in &mut clients {
        assert_eq!(read_to_end(client), (bytes.clone(), End::Reset));
    }
}
