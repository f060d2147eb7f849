//! Told to end in the middle of everything.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use crate::amount::amount;
use crate::common::eventually;
use crate::guests::{self, Circle, Services, Way};
use crate::program::Server;
use crate::random::{Random, mix};
use crate::seed;

/// One conversation: when it had begun, and what came of it.
type Conversation = (Way, Instant, io::Result<u64>);

/// Converses until nobody is there any more.
fn load(
    at: Services,
    mut random: Random,
    circle: &Circle,
    done: &AtomicUsize,
) -> Vec<Conversation> {
    let mut conversations = Vec::new();
    loop {
        let way = random.pick(&[Way::Talk, Way::HalfClose, Way::Ask, Way::TalkFirst]);
        let is_time = matches!(way, Way::Ask | Way::TalkFirst);
        let addr = if is_time { at.daytime } else { at.echo };
        let Ok(stream) = guests::connect(addr) else { return conversations };
        let begun = Instant::now();
        let spare = stream.try_clone().unwrap();
        let end = guests::converse(way, stream, at, &mut random, circle);
        let end = end.map_err(|error| after_a_word(spare, error));
        conversations.push((way, begun, end));
        done.fetch_add(1, Ordering::Relaxed);
    }
}

/// The error of whoever was left waiting, once it has said something. A client whose handshake ends
/// while the port closes is forgotten by the kernel; only what it says is answered, by a reset.
fn after_a_word(mut stream: TcpStream, error: io::Error) -> io::Error {
    if error.kind() != ErrorKind::WouldBlock {
        return error;
    }
    let answer = stream.write_all(b"?").and_then(|()| stream.read(&mut [0]));
    answer.err().filter(is_reset).unwrap_or(error)
}

/// Tells a busy server to end after so many conversations, in the middle of others.
fn end_after(moment: usize, random: &mut Random, circle: &Circle) -> Vec<Conversation> {
    let mut server = Server::start(&["--grace", "30s"]);
    let at = Services { daytime: server.daytime(), echo: server.echo() };
    let done = AtomicUsize::new(0);
    let mut conversations = Vec::new();
    let told = thread::scope(|scope| {
        let guest = |random| scope.spawn(|| load(at, random, circle, &done));
        let guests: Vec<_> = (0..8).map(|_| guest(Random::new(random.next()))).collect();
        eventually("load", || (done.load(Ordering::Relaxed) >= moment).then_some(()));
        let told = Instant::now();
        server.signal(libc::SIGTERM);
        conversations = guests.into_iter().flat_map(|guest| guest.join().unwrap()).collect();
        told
    });
    let (status, said) = server.wait();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(TcpStream::connect(at.echo).is_err(), "the port is closed");
    for (way, begun, end) in &conversations {
        match end {
            Ok(_) => {}
            // It came between the last accept and the close: the kernel resets it.
            Err(error) if *begun > told && is_reset(error) => {}
            Err(error) => panic!("{way:?}, begun before the signal: {}: {error}", *begun <= told),
        }
    }
    conversations
}

/// A reset, as different calls tell it.
fn is_reset(error: &io::Error) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionReset, NotConnected};
    matches!(error.kind(), BrokenPipe | ConnectionReset | NotConnected)
}

/// Sabotage: no grace (`until = self.cx.millis` in src/reactor/shutdown.rs).
#[test]
fn told_to_end_at_a_random_moment_nothing_that_was_begun_is_lost() {
    let (seed, circle) = (seed(), Circle::new());
    for round in 0..amount(5, 50, 500) as u64 {
        let mut random = Random::new(mix(seed ^ round));
        let moment = random.below(1000);
        let conversations = end_after(moment, &mut random, &circle);
        println!("round {round}: told after {moment} of {}", conversations.len());
    }
}
