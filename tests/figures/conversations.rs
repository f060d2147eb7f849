//! Many conversations, of every kind, and what they leave behind: nothing.

use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use campanile::{Clock, Limits, Reactor, daytime};

use crate::amount::amount;
use crate::common::{self, Both, DEADLINE, TUTORIAL, TUTORIAL_LINE, eventually, ping, read_all};
use crate::guests::{self, CHURN, Circle, Services};
use crate::program::Server;
use crate::random::{Random, mix};
use crate::seed;

/// Guests at the same time.
const TOGETHER: usize = 8;

/// Does `visit` with each number below `count`, some at once; the bytes that were compared.
fn all(count: usize, visit: impl Fn(usize) -> io::Result<u64> + Sync) -> u64 {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        let guest = || {
            let mut bytes = 0;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return bytes;
                }
                bytes += visit(number).unwrap_or_else(|error| panic!("guest {number}: {error}"));
            }
        };
        let guests: Vec<_> = (0..TOGETHER).map(|_| scope.spawn(guest)).collect();
        guests.into_iter().map(|guest| guest.join().unwrap()).sum()
    })
}

/// Descriptors and threads of a program.
fn holds(server: &Server) -> [usize; 2] {
    ["fd", "task"]
        .map(|what| std::fs::read_dir(format!("/proc/{}/{what}", server.pid())).unwrap().count())
}

/// Sabotage: the 3,000th to close stays in the slab (`reap` in src/reactor.rs).
#[test]
fn thousands_that_come_and_go_as_they_like_leave_no_descriptor_slot_or_thread_behind() {
    const SLOTS: usize = 32;
    let (seed, circle) = (seed(), Circle::new());
    // A program for every 5,000: each test has half a minute, but any number of programs.
    for round in 0..amount(1, 10, 100) as u64 {
        let server = Server::start(&["-q", "--max-connections", &SLOTS.to_string()]);
        let at = Services { daytime: server.daytime(), echo: server.echo() };
        // Somebody stays all the while, and what is opened once is open.
        let mut resident = common::connect(at.echo);
        ping(&mut resident, b"before");
        let before = holds(&server);
        let bytes = all(5_000, |number| {
            let mut random = Random::new(mix(seed ^ mix(round << 32 | number as u64)));
            guests::visit(random.pick(&CHURN), at, &mut random, &circle)
        });
        println!("5000 connections, {bytes} bytes compared");
        eventually("descriptors and threads as before", || {
            (holds(&server) == before).then_some(())
        });
        // There is room for so many at once only if every slot but the resident's is free.
        let mut clients: Vec<_> = (1..SLOTS).map(|_| common::connect(at.echo)).collect();
        clients.iter_mut().for_each(|client| ping(client, b"all of us"));
        drop((resident, clients));
        assert_eq!(server.stop(), "");
    }
}

/// Sabotage: after a short write one byte is skipped (`Connection::flush` in src/connection/io.rs).
#[test]
fn every_byte_of_many_mebibytes_comes_back() {
    let (both, circle, flows) = (Both::start(Limits::default()), Circle::new(), 4);
    let each = (amount(64, 4 << 10, 64 << 10) << 20) / flows;
    let seed = seed();
    let bytes = all(flows, |number| {
        let mut random = Random::new(seed ^ number as u64);
        // One of them reads slowly: then writes are short.
        let most = if number == 0 { 16 << 10 } else { 60_000 };
        guests::flow(common::connect(both.echo), &circle, &mut random, each, most)
    });
    assert_eq!(bytes, (flows * each) as u64);
    assert_eq!(both.finish().bytes_out, bytes);
}

/// Sabotage: closed as soon as the output is shut (`Input::Ended &&` left out in src/connection).
#[test]
fn everyone_who_talks_before_listening_gets_the_time_and_a_clean_end() {
    const BATCH: usize = 50;
    // However busy the machine is, each gets the time to read.
    let mut reactor = Reactor::with_limits(Limits::default().linger_timeout(DEADLINE)).unwrap();
    let addr = reactor.listen("127.0.0.1:0", daytime(Clock::fixed(TUTORIAL))).unwrap();
    let (mut random, circle) = (Random::new(seed()), Circle::new());
    let count = amount(200, 20_000, 1_000_000);
    let mut turn_until = |what: &str, is_so: fn(&Reactor) -> bool| {
        eventually(what, || {
            reactor.turn(Some(Duration::from_millis(100))).unwrap();
            is_so(&reactor).then_some(())
        });
    };
    for _ in 0..count / BATCH {
        // The loop does not turn meanwhile: they do talk first.
        let mut clients: Vec<_> = (0..BATCH).map(|_| common::connect(addr)).collect();
        for client in &mut clients {
            client.write_all(circle.any(&mut random)).unwrap();
        }
        turn_until("all accepted", |reactor| reactor.stats().accepted % BATCH as u64 == 0);
        // And go on, though the answer is there: this would be the end of who closed meanwhile.
        for client in &mut clients {
            client.write_all(b"and another thing").unwrap();
            assert_eq!(read_all(client).unwrap(), TUTORIAL_LINE);
        }
        drop(clients);
        turn_until("all gone", |reactor| reactor.connections() == 0);
    }
    let stats = reactor.stats();
    assert_eq!((stats.accepted, stats.peer_resets, stats.our_resets), (count as u64, 0, 0));
}
