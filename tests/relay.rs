//! The relay: what one end sends, ends or resets, the other end receives.

mod common;
mod sim;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use std::{env, io, thread};

use campanile::services::Upstream;
use campanile::{Background, Limits, Reactor, echo, relay};
use common::{DEADLINE, connect, pattern, read_all};
use sim::fake::{Client, Fake, NOW, World, serving, settle};
use sim::random::Random;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// `SIM_SEEDS=N` runs more of them, from `SIM_FIRST` on, and `SIM_SEED=S` just one.
#[test]
fn relayed_conversations_lose_nothing_and_end_as_their_ends_do() {
    let (first, count) = match number("SIM_SEED") {
        Some(seed) => (seed, 1),
        None => (number("SIM_FIRST").unwrap_or(0), number("SIM_SEEDS").unwrap_or(1_000)),
    };
    let mut turns = 0;
    for seed in first..first + count {
        match sim::relayed::run(seed) {
            Ok(more) => turns += more,
            Err(wrong) => panic!("seed {seed}: {wrong}\nSIM_SEED={seed} runs it again"),
        }
    }
    println!("{count} seeds, {turns} turns");
}

fn nowhere(port: u16) -> SocketAddr {
    ([10, 0, 0, 9], port).into()
}

/// A client and its server, connected through a relay.
fn pair(world: &World, limits: Limits) -> (Reactor<Fake>, Client, Client) {
    let mut reactor = serving(world, limits, relay(nowhere(1)));
    let server = world.expect_connect();
    let client = world.connect(0);
    reactor.turn(NOW).unwrap();
    server.establish();
    settle(&mut reactor);
    (reactor, client, server)
}

#[test]
fn bytes_and_fins_pass_in_the_turn_that_reads_them_and_wake_no_loop() {
    let world = World::new();
    let (mut reactor, client, server) = pair(&world, Limits::default());
    let wakes = world.wakes();
    for chunk in 0..100_u8 {
        client.send(&[chunk]);
        server.send(&[chunk, chunk]);
        reactor.turn(NOW).unwrap();
        assert_eq!((server.received(), client.received()), (vec![chunk], vec![chunk; 2]));
    }
    world.take_calls();
    server.send(b"last");
    server.end();
    reactor.turn(NOW).unwrap();
    assert_eq!(client.received(), b"last");
    assert!(client.saw_eof() && !server.saw_eof(), "one half has ended");
    let writes = world.take_calls().into_iter().filter(|call| *call == "write").count();
    assert_eq!(writes, 1, "the FIN follows the bytes at once");
    client.send(b"answer");
    client.end();
    settle(&mut reactor);
    assert_eq!(server.received(), b"answer");
    assert!(client.is_gone() && server.is_gone() && server.saw_eof());
    assert!(!client.saw_reset() && !server.saw_reset());
    assert_eq!(world.wakes(), wakes);
    assert_eq!((reactor.stats().gone, reactor.stats().closed), (0, 2));
}

#[test]
fn large_messages_and_their_fins_pass_in_two_turns_however_many_there_are() {
    let world = World::new();
    let mut reactor = serving(&world, Limits::default(), relay(nowhere(1)));
    let pairs: Vec<_> = (0..20)
        .map(|_| {
            let (server, client) = (world.expect_connect(), world.connect(0));
            settle(&mut reactor);
            server.establish();
            settle(&mut reactor);
            (client, server)
        })
        .collect();
    let bytes = pattern(16 << 10);
    for (client, _) in &pairs {
        client.send(&bytes);
        client.end();
    }
    reactor.turn(NOW).unwrap();
    assert!(pairs.iter().all(|(_, server)| server.received() == bytes));
    reactor.turn(NOW).unwrap();
    assert!(pairs.iter().all(|(_, server)| server.saw_eof()));
}

#[test]
fn at_most_high_water_and_one_read_buffer_wait_each_way() {
    let world = World::new();
    let limits = Limits::default().high_water(1000).low_water(300).read_buffer(400);
    let (mut reactor, client, server) = pair(&world, limits);
    let bytes = pattern(100_000);
    for (from, to) in [(&client, &server), (&server, &client)] {
        to.make_room(0);
        from.send(&bytes);
        settle(&mut reactor);
        let held = bytes.len() - from.unread();
        assert!((1000..1400).contains(&held), "{held}");
    }
    // Each direction goes on without the other one.
    for (from, to) in [(&server, &client), (&client, &server)] {
        to.make_room(700);
        settle(&mut reactor);
        assert_eq!(to.received(), bytes[..700]);
        to.make_room(usize::MAX / 2);
        from.end();
        settle(&mut reactor);
        assert_eq!(to.received(), bytes[700..]);
        assert!(to.saw_eof());
    }
    assert_eq!(reactor.connections(), 0);
}

#[test]
fn early_data_waits_for_the_server_within_the_same_bound() {
    let world = World::new();
    let limits = Limits::default().high_water(1000).read_buffer(400);
    let mut reactor = serving(&world, limits, relay(nowhere(1)));
    let server = world.expect_connect();
    let client = world.connect(0);
    let bytes = pattern(10_000);
    client.send(&bytes);
    client.end();
    settle(&mut reactor);
    assert_eq!(bytes.len() - client.unread(), 1200);
    server.establish();
    settle(&mut reactor);
    assert_eq!(server.received(), bytes);
    assert!(server.saw_eof() && !client.saw_eof());
}

#[test]
fn a_reset_passes_and_after_an_eof_everything_is_delivered_first() {
    for side in 0..2 {
        for has_ended in [false, true] {
            let world = World::new();
            let (mut reactor, client, server) = pair(&world, Limits::default());
            let ends = [&client, &server];
            let (from, to) = (ends[side], ends[1 - side]);
            to.make_room(1);
            from.send(b"0123456789");
            if has_ended {
                from.end();
            }
            settle(&mut reactor);
            from.reset();
            // After its EOF, the reset is noticed by the next write.
            to.send(b"late");
            settle(&mut reactor);
            assert!(from.is_gone());
            assert_eq!((to.saw_reset(), to.is_gone()), (!has_ended, !has_ended));
            if has_ended {
                to.make_room(1000);
                settle(&mut reactor);
                assert_eq!(to.received(), b"0123456789");
                assert!(to.saw_eof());
                to.end();
                settle(&mut reactor);
                assert!(to.is_gone() && !to.saw_reset());
            }
        }
    }
}

#[test]
fn the_next_address_is_tried_and_after_the_last_one_the_client_is_reset_or_closed() {
    for closes in [false, true] {
        let world = World::new();
        let upstream = Upstream::new([nowhere(1), nowhere(2), nowhere(3)]).close_on_failure(closes);
        let mut reactor = serving(&world, Limits::default(), relay(upstream));
        // One fails inside the call, one with an event, and the last one is made.
        world.expect_failed_connect(libc::ENETUNREACH);
        let refusing = world.expect_connect();
        let client = world.connect(0);
        client.send(b"early");
        settle(&mut reactor);
        let server = world.expect_connect();
        refusing.refuse();
        settle(&mut reactor);
        server.establish();
        settle(&mut reactor);
        assert_eq!(server.received(), b"early");
        // For the next client, all fail.
        let refused = world.connect(0);
        settle(&mut reactor);
        assert_eq!((refused.saw_reset(), refused.saw_eof()), (!closes, closes));
        assert!(!client.saw_eof() && !client.saw_reset(), "the first one goes on");
    }
}

#[test]
fn a_client_that_goes_before_its_server_is_connected_takes_the_server_along() {
    for is_refused in [false, true] {
        let world = World::new();
        let upstream = Upstream::new([nowhere(1), nowhere(2)]);
        let mut reactor = serving(&world, Limits::default(), relay(upstream));
        let server = world.expect_connect();
        let client = world.connect(0);
        settle(&mut reactor);
        client.reset();
        settle(&mut reactor);
        assert!(client.is_gone());
        let next = world.expect_connect();
        if is_refused {
            server.refuse()
        } else {
            server.establish()
        }
        settle(&mut reactor);
        assert!(server.is_gone() && !world.has_dialled(), "no other address is tried");
        assert_eq!(server.saw_reset(), !is_refused);
        drop(next);
        assert_eq!(reactor.connections(), 0);
    }
}

#[test]
fn a_side_that_is_closed_through_a_handle_or_by_a_bound_ends_the_other_one() {
    for by_handle in [true, false] {
        let world = World::new();
        let limits = Limits::default().idle_timeout(Some(Duration::from_secs(10)));
        let (mut reactor, client, server) = pair(&world, limits);
        if by_handle {
            let first = reactor.ids().min_by_key(|id| id.ordinal()).unwrap();
            reactor.handle().close(first).unwrap();
            settle(&mut reactor);
            assert!(client.saw_eof());
            client.end();
            settle(&mut reactor);
            assert!(server.saw_eof() && !server.saw_reset());
            server.end();
        } else {
            world.advance(Duration::from_secs(20));
        }
        settle(&mut reactor);
        assert!(client.is_gone() && server.is_gone());
        assert_eq!(reactor.connections(), 0);
    }
}

#[test]
fn a_silent_upstream_ends_the_client_at_the_connect_timeout() {
    let world = World::new();
    let limits = Limits::default().connect_timeout(Duration::from_secs(10));
    let mut reactor = serving(&world, limits, relay(nowhere(1)));
    let server = world.expect_connect();
    let client = world.connect(0);
    settle(&mut reactor);
    world.advance(Duration::from_secs(9));
    settle(&mut reactor);
    assert!(!client.saw_reset() && !server.is_gone());
    world.advance(Duration::from_secs(4));
    settle(&mut reactor);
    assert!(client.saw_reset() && server.is_gone());
}

#[test]
fn an_upstream_without_an_address_resets_its_clients() {
    let world = World::new();
    let none: [SocketAddr; 0] = [];
    let mut reactor = serving(&world, Limits::default(), relay(Upstream::new(none)));
    let client = world.connect(0);
    settle(&mut reactor);
    assert!(client.saw_reset() && client.is_gone());
}

/// A conversation on real sockets: its bytes each way, which end goes first, and which end is slow.
#[derive(Clone, Copy)]
struct Talk {
    seed: u64,
    up: usize,
    down: usize,
    /// 0: both at once; 1: the server answers after the client's EOF; 2: the other way round.
    order: u8,
    is_slow: [bool; 2],
}

const HEAD: usize = 26;

impl Talk {
    fn draw(seed: u64, most: f64) -> Talk {
        let mut random = Random::new(seed);
        let mut size = || {
            let share = random.below(1 << 20) as f64 / f64::from(1 << 20);
            (1024.0 * (most / 1024.0).powf(share)) as usize
        };
        let (up, down) = (size(), size());
        let order = random.below(3) as u8;
        Talk { seed, up, down, order, is_slow: [random.percent(30), random.percent(30)] }
    }

    fn head(self) -> [u8; HEAD] {
        let mut head = [0; HEAD];
        let words = [self.seed, self.up as u64, self.down as u64];
        for (place, word) in head.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        (head[24], head[25]) =
            (self.order, u8::from(self.is_slow[0]) * 2 + u8::from(self.is_slow[1]));
        head
    }

    fn parse(head: [u8; HEAD]) -> Talk {
        let word = |at: usize| u64::from_be_bytes(head[at * 8..][..8].try_into().unwrap());
        let is_slow = [head[25] & 2 > 0, head[25] & 1 > 0];
        let (up, down) = (word(1) as usize, word(2) as usize);
        Talk { seed: word(0), up, down, order: head[24], is_slow }
    }

    /// One end: sends its bytes and its FIN, and receives the other's, exactly.
    fn play(self, stream: &TcpStream, is_client: bool) -> io::Result<()> {
        let all = bytes();
        let cut = |length, salt: u64| {
            let start = Random::new(self.seed ^ salt).below(all.len() - length);
            &all[start..start + length]
        };
        let (up, down) = (cut(self.up, 1), cut(self.down, 2));
        let (sends, receives) = if is_client { (up, down) } else { (down, up) };
        let is_slow = self.is_slow[usize::from(is_client)];
        let is_last = self.order == if is_client { 2 } else { 1 };
        let send = || {
            (&mut &*stream).write_all(sends)?;
            stream.shutdown(Shutdown::Write)
        };
        if is_last {
            receive(stream, receives, is_slow)?;
            return send();
        }
        thread::scope(|scope| {
            let sending = scope.spawn(send);
            receive(stream, receives, is_slow)?;
            sending.join().expect("no panic")
        })
    }
}

/// The bytes of which each conversation sends a part.
fn bytes() -> &'static [u8] {
    static BYTES: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    BYTES.get_or_init(|| pattern(9 << 20))
}

/// Receives exactly these bytes and then EOF. A slow end takes a little at a time.
fn receive(mut stream: &TcpStream, expected: &[u8], is_slow: bool) -> io::Result<()> {
    let mut buffer = vec![0; if is_slow { 700 } else { 32 << 10 }];
    let mut at = 0;
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            assert_eq!(at, expected.len(), "EOF after so many bytes");
            return Ok(());
        }
        assert!(expected[at..].starts_with(&buffer[..count]), "other bytes at {at}");
        at += count;
        if is_slow && at < 200 * buffer.len() {
            thread::yield_now();
        }
    }
}

/// Serves conversations, each on a thread, until one connection ends without a conversation.
fn serve_talks(listener: &TcpListener) {
    thread::scope(|scope| {
        loop {
            let stream = listener.accept().unwrap().0;
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            stream.set_write_timeout(Some(DEADLINE)).unwrap();
            let mut head = [0; HEAD];
            if (&mut &stream).read_exact(&mut head).is_err() {
                return;
            }
            scope.spawn(move || Talk::parse(head).play(&stream, false).unwrap());
        }
    });
}

/// Ends `serve_talks` when it is dropped, even if a client has failed.
struct LastClient(SocketAddr);

impl Drop for LastClient {
    fn drop(&mut self) {
        let _ = TcpStream::connect(self.0);
    }
}

/// `CAMPANILE_RELAY=full` takes all sizes, up to 8 MiB, and ten times as many conversations.
#[test]
fn five_hundred_conversations_200_at_once_arrive_whole_on_both_sides() {
    let is_full = env::var_os("CAMPANILE_RELAY").is_some_and(|form| form == "full");
    let (count, most) = if is_full { (5_000, 8 << 20) } else { (500, 1 << 20) };
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let there = upstream.local_addr().unwrap();
    let start = move |reactor: &mut Reactor| reactor.listen("127.0.0.1:0", relay(there));
    let (server, front) = Background::start(Limits::default(), start).unwrap();
    let (next, most) = (AtomicUsize::new(0), f64::from(most));
    thread::scope(|scope| {
        scope.spawn(|| serve_talks(&upstream));
        let _last = LastClient(there);
        thread::scope(|scope| {
            for _ in 0..200 {
                scope.spawn(|| {
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= count {
                            return;
                        }
                        let talk = Talk::draw(seed as u64, most);
                        let mut stream = connect(front);
                        stream.write_all(&talk.head()).unwrap();
                        let outcome = talk.play(&stream, true);
                        outcome.unwrap_or_else(|error| panic!("conversation {seed}: {error}"));
                    }
                });
            }
        });
    });
    let stats = server.shutdown(DEADLINE).unwrap();
    assert_eq!((stats.accepted, stats.connecting), (count as u64, count as u64));
    assert_eq!((stats.closed, stats.our_resets, stats.peer_resets), (2 * count as u64, 0, 0));
}

#[test]
fn a_reset_and_a_failed_connect_reach_the_other_end_of_real_sockets() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let there = upstream.local_addr().unwrap();
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let start = move |reactor: &mut Reactor| {
        let closing = Upstream::from(unused).close_on_failure(true);
        let both = Upstream::new([unused, there]);
        Ok([
            reactor.listen("127.0.0.1:0", relay(both))?,
            reactor.listen("127.0.0.1:0", relay(unused))?,
            reactor.listen("127.0.0.1:0", relay(closing))?,
        ])
    };
    let (_server, [second, refused, closed]) = Background::start(Limits::default(), start).unwrap();
    for is_client in [true, false] {
        let client = connect(second);
        let server = upstream.accept().unwrap().0;
        server.set_read_timeout(Some(DEADLINE)).unwrap();
        let (goes, mut stays) = if is_client { (client, server) } else { (server, client) };
        common::reset(&goes);
        drop(goes);
        assert_eq!(read_all(&mut stays).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
    // The reset may come before the client has left its connect(2).
    let reset = std::net::TcpStream::connect(refused).and_then(|mut client| {
        client.set_read_timeout(Some(DEADLINE))?;
        read_all(&mut client)
    });
    let error = reset.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(read_all(&mut connect(closed)).unwrap(), b"");
}

#[test]
#[cfg(unix)]
fn a_relay_connects_ipv4_ipv6_and_unix_sockets_in_every_combination() {
    use campanile::{Address, ListenOptions};
    use std::os::unix::net::UnixStream;
    let folder = common::Folder::new("relay");
    let mut kinds: Vec<Address> = vec![SocketAddr::from(([127, 0, 0, 1], 0)).into()];
    match TcpListener::bind("[::1]:0") {
        Ok(_) => kinds.push("[::1]:0".parse().unwrap()),
        Err(_) => common::skip("this machine has no ::1"),
    }
    kinds.push(folder.join("kind").into());
    let place = |kind: &Address, name: String| match kind.path() {
        Some(_) => folder.join(&name).into(),
        None => kind.clone(),
    };
    let mut plan = Vec::new();
    for (from, front) in kinds.iter().enumerate() {
        for (to, back) in kinds.iter().enumerate() {
            let name = |side| format!("{side}-{from}-{to}");
            plan.push((place(front, name("front")), place(back, name("back"))));
        }
    }
    let start = move |reactor: &mut Reactor| {
        let mut fronts = Vec::new();
        for (front, back) in plan {
            let back = reactor.listen_with(back, ListenOptions::default(), echo())?;
            let back = reactor.local_addr(back).unwrap().clone();
            let front = reactor.listen_with(front, ListenOptions::default(), relay(back))?;
            fronts.push(reactor.local_addr(front).unwrap().clone());
        }
        Ok(fronts)
    };
    let (server, fronts) = Background::start(Limits::default(), start).unwrap();
    let bytes = pattern(300_000);
    for front in fronts {
        let back = match (front.inet(), front.path()) {
            (Some(addr), _) => {
                exchange(connect(addr), |s| s.try_clone(), |s| s.shutdown(Shutdown::Write), &bytes)
            }
            (_, path) => exchange(
                UnixStream::connect(path.unwrap()).unwrap(),
                |s| s.try_clone(),
                |s| s.shutdown(Shutdown::Write),
                &bytes,
            ),
        };
        assert!(back == bytes, "{front}");
    }
    let stats = server.shutdown(DEADLINE).unwrap();
    assert_eq!((stats.our_resets, stats.peer_resets), (0, 0));
}

/// Sends all on one thread and receives all on another.
fn exchange<S: Read + Write + Send>(
    mut stream: S,
    clone: impl Fn(&S) -> io::Result<S>,
    end: impl Fn(&S) -> io::Result<()> + Send + Sync,
    bytes: &[u8],
) -> Vec<u8> {
    let mut writer = clone(&stream).unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            writer.write_all(bytes).unwrap();
            end(&writer).unwrap();
        });
        let mut back = Vec::new();
        stream.read_to_end(&mut back).unwrap();
        back
    })
}
