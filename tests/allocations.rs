//! What is allocated, counted: nothing per message, one small block per daytime connection, and at
//! most 128 bytes of live heap for an idle echo connection.

#![cfg(not(mio_unsupported_force_poll_poll))]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use campanile::{Clock, ConnId, Limits, Outbox, Protocol, Reactor, daytime, echo, relay};
use common::{TUTORIAL, TUTORIAL_LINE, connect, read_all, skip};

thread_local! {
    static COUNTS: Cell<(usize, usize, isize)> = const { Cell::new((0, 0, 0)) };
}

/// Counts allocations, their largest size, and the bytes that live, of each thread.
struct Counting;

fn count(calls: usize, size: usize, live: isize) {
    // A thread that is ending has no counts any more, and nobody asks for them.
    let _ = COUNTS.try_with(|counts| {
        let (before, largest, alive) = counts.get();
        counts.set((before + calls, largest.max(size), alive + live));
    });
}

// SAFETY: every call is handed to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size(), layout.size() as isize);
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(0, 0, -(layout.size() as isize));
        unsafe { System.dealloc(block, layout) }
    }
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(1, size, size as isize - layout.size() as isize);
        unsafe { System.realloc(block, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Allocations and the largest of them since the last call, and what lives.
fn take_counts() -> (usize, usize, isize) {
    COUNTS.with(|counts| {
        let (calls, largest, live) = counts.get();
        counts.set((0, 0, live));
        (calls, largest, live)
    })
}

/// Turns until the loop would sleep and `done`.
fn turn_until(reactor: &mut Reactor, mut done: impl FnMut(&Reactor) -> bool) {
    while !done(reactor) {
        reactor.turn(Some(Duration::from_secs(30))).unwrap();
    }
}

/// Returns how much a thousand messages allocate that `writer` sends and `reader` receives.
fn allocations(reactor: &mut Reactor, writer: &mut TcpStream, reader: &mut TcpStream) -> usize {
    for round in 0..1_100 {
        if round == 100 {
            take_counts();
        }
        writer.write_all(b"Hello, world").unwrap();
        let (before, mut bytes) = (reactor.stats().turns, [0; 12]);
        turn_until(reactor, |reactor| {
            reader.set_nonblocking(true).unwrap();
            let is_there = reader.peek(&mut [0; 12]).is_ok();
            reader.set_nonblocking(false).unwrap();
            is_there && reactor.stats().turns > before
        });
        reader.read_exact(&mut bytes).unwrap();
        assert_eq!(bytes, *b"Hello, world");
    }
    take_counts().0
}

#[test]
fn an_echoed_message_allocates_nothing_once_warm() {
    let mut reactor = Reactor::new().unwrap();
    let addr = reactor.listen("127.0.0.1:0", echo()).unwrap();
    let mut client = connect(addr);
    let mut reader = client.try_clone().unwrap();
    assert_eq!(allocations(&mut reactor, &mut client, &mut reader), 0, "in a thousand messages");
}

/// Passes data to the connection that was made before this one.
struct Relay(Option<ConnId>);

impl Protocol for Relay {
    fn on_data(&mut self, data: &[u8], out: &mut Outbox) {
        out.message(self.0.unwrap(), data);
    }
}

#[test]
fn a_message_between_two_connections_allocates_nothing_once_warm() {
    let (mut reactor, mut last) = (Reactor::new().unwrap(), None);
    let addr = reactor.listen("127.0.0.1:0", move |new| Relay(last.replace(new.id))).unwrap();
    let (mut reader, mut writer) = (connect(addr), connect(addr));
    assert_eq!(allocations(&mut reactor, &mut writer, &mut reader), 0, "in a thousand messages");
}

#[test]
fn a_relayed_message_allocates_nothing_once_warm() {
    let mut reactor = Reactor::new().unwrap();
    let behind = reactor.listen("127.0.0.1:0", echo()).unwrap();
    let front = reactor.listen("127.0.0.1:0", relay(behind)).unwrap();
    let mut client = connect(front);
    let mut reader = client.try_clone().unwrap();
    assert_eq!(allocations(&mut reactor, &mut client, &mut reader), 0, "in a thousand messages");
}

#[test]
fn a_send_larger_than_the_send_queue_is_refused_before_it_is_copied() {
    const BIG: usize = 64 << 20;
    let mut out = Outbox::new(std::time::Instant::now());
    let big = vec![7; BIG];
    take_counts();
    out.send(&big);
    assert_eq!(take_counts().0, 0, "by itself");
    // The bytes of a handle are passed on as they are, and dropped with the connection.
    let mut reactor = Reactor::new().unwrap();
    let addr = reactor.listen("127.0.0.1:0", echo()).unwrap();
    let _client = connect(addr);
    turn_until(&mut reactor, |reactor| reactor.connections() == 1);
    let before = take_counts().2;
    reactor.handle().send(reactor.ids().next().unwrap(), big).unwrap();
    turn_until(&mut reactor, |reactor| reactor.connections() == 0);
    let (_, largest, live) = take_counts();
    assert!(largest < 64 << 10, "allocates {largest} bytes at once");
    assert!(before - live > BIG as isize - (64 << 10), "keeps {} bytes", live - before);
}

#[test]
fn a_daytime_connection_allocates_one_small_block() {
    let mut reactor = Reactor::new().unwrap();
    let clock = Clock::fixed(TUTORIAL);
    let addr = reactor.listen("127.0.0.1:0", daytime(clock)).unwrap();
    let (mut calls, mut largest) = (0, 0);
    for round in 0..300 {
        let mut client = connect(addr);
        take_counts();
        turn_until(&mut reactor, |reactor| reactor.connections() == 1);
        let (accepting, size, _) = take_counts();
        assert_eq!(read_all(&mut client).unwrap(), TUTORIAL_LINE);
        drop(client);
        take_counts();
        turn_until(&mut reactor, |reactor| reactor.connections() == 0);
        let (closing, _, _) = take_counts();
        if round >= 100 {
            (calls, largest) = (calls + accepting + closing, size.max(largest));
        }
    }
    assert!(calls <= 200, "{calls} allocations in 200 connections");
    assert!(largest <= 16, "{largest} bytes");
}

/// A run with few descriptors would print "3 passed" and nothing else.
#[test]
#[cfg(target_os = "linux")]
fn a_skipped_test_stands_in_the_list_with_its_name_and_reason() {
    let list = std::env::temp_dir().join(format!("campanile-skips-{}", std::process::id()));
    let name = "an_idle_echo_connection_is_at_most_128_bytes_of_live_heap";
    let output = std::process::Command::new("sh")
        .args(["-c", "ulimit -n 200 && exec \"$0\" \"$1\""])
        .arg(std::env::current_exe().unwrap())
        .arg(name)
        .env("CAMPANILE_SKIPS", &list)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("1 passed") && !said.contains("descriptors"), "{said}");
    let listed = std::fs::read_to_string(&list).expect("a list");
    std::fs::remove_file(&list).unwrap();
    let (place, reason) = listed.split_once(' ').unwrap();
    assert!(place.starts_with("tests/allocations.rs:"), "{listed}");
    assert_eq!(reason, format!("{name}: 200 descriptors are allowed, and it needs 10100\n"));
}

#[test]
#[cfg(target_os = "linux")]
fn an_idle_echo_connection_is_at_most_128_bytes_of_live_heap() {
    const COUNT: usize = 10_000;
    // The clients are another process, so that only the server's heap is counted, and each side has
    // its descriptors for itself.
    let script = "import socket, sys\n\
        open_ = []\n\
        for i in range(int(sys.argv[2])):\n\
        \x20   s = socket.socket()\n\
        \x20   s.bind(('127.0.0.%d' % (2 + i % 50), 0))\n\
        \x20   s.connect(('127.0.0.1', int(sys.argv[1])))\n\
        \x20   s.sendall(b'Hello, world')\n\
        \x20   n = 0\n\
        \x20   while n < 12: n += len(s.recv(12 - n))\n\
        \x20   open_.append(s)\n\
        print('open', flush=True)\n\
        sys.stdin.read()\n";
    let limit = rlimit::increase_nofile_limit(u64::MAX).unwrap();
    if (limit as usize) < COUNT + 100 {
        skip(format!("{limit} descriptors are allowed, and it needs {}", COUNT + 100));
        return;
    }
    let mut reactor = Reactor::with_limits(Limits::default().max_connections(20_000)).unwrap();
    let addr = reactor.listen("127.0.0.1:0", echo()).unwrap();
    let clients = std::process::Command::new("python3")
        .args(["-c", script, &addr.port().to_string(), &COUNT.to_string()])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn();
    let Ok(mut clients) = clients else {
        skip("python3 is not installed");
        return;
    };
    let before = take_counts().2;
    // Each client waits for its answer before the next one connects: the loop is never busy, so its
    // queues stay short, as those of an idle server are.
    turn_until(&mut reactor, |reactor| reactor.connections() == COUNT);
    let mut turns = 0;
    while turns < 3 {
        reactor.turn(Some(Duration::from_millis(100))).unwrap();
        turns += 1;
    }
    let each = (take_counts().2 - before) as f64 / COUNT as f64;
    drop(clients.stdin.take());
    clients.wait().unwrap();
    println!("{each:.1} bytes per idle connection");
    assert!(each <= 128.0, "{each:.1} bytes per idle connection");
}

/// Reads and writes on `client` what can be read and written at once, at most `most` bytes.
fn exchange(client: &mut TcpStream, read: usize, write: usize, buffer: &mut [u8]) {
    let _ = client.read(&mut buffer[..read]);
    let _ = client.write(&buffer[..write]);
}

/// The figure of the README: what a client that does not keep up makes the server keep.
#[test]
fn a_client_that_reads_in_bursts_pins_at_most_what_the_readme_says() {
    let readme = include_str!("../README.md");
    let (before, _) = readme.split_once(" KiB of our memory").expect("the README has the figure");
    let stated: usize = before.rsplit(' ').next().unwrap().parse().unwrap();

    // Buffers so small that the bytes stay in the server.
    let limits = Limits::default().send_buffer(Some(4 << 10)).receive_buffer(Some(64 << 10));
    let mut reactor = Reactor::with_limits(limits).unwrap();
    let addr = reactor.listen("127.0.0.1:0", echo()).unwrap();
    let mut buffer = vec![7; 64 << 10];
    let (mut most, mut state) = (0, 1_u64);
    // The first client makes the storage that all connections share; the second one is measured.
    for rounds in [2_000, 20_000] {
        let mut client = connect(addr);
        client.set_nonblocking(true).unwrap();
        turn_until(&mut reactor, |reactor| reactor.connections() == 1);
        let before = take_counts().2;
        most = 0;
        for _ in 0..rounds {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (read, write) = ((state >> 33) as usize % 32_000, (state >> 13) as usize % 65_537);
            // In bursts: nothing for a while, then a lot.
            let read = if (state >> 50) % 8 == 0 { 2 * read } else { 0 };
            exchange(&mut client, read, write, &mut buffer);
            reactor.turn(Some(Duration::ZERO)).unwrap();
            most = most.max(take_counts().2 - before);
        }
        drop(client);
        turn_until(&mut reactor, |reactor| reactor.connections() == 0);
    }
    let most = most as f64 / 1024.0;
    println!("{most:.1} KiB");
    assert!(most <= stated as f64 + 0.5, "{most:.1} KiB, but the README says {stated}");
    assert!(most > stated as f64 - 8.0, "{most:.1} KiB, but the README says {stated}");
}
