//! Clients of the two services, drawn from a seed. They compare every byte that they receive.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use crate::random::Random;

/// The addresses of the two services.
#[derive(Debug, Clone, Copy)]
pub struct Services {
    pub daytime: SocketAddr,
    pub echo: SocketAddr,
}

/// How a client behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Sends messages to echo, each after the answer to the one before.
    Talk,
    /// Sends everything to echo, ends its half, and only then reads.
    HalfClose,
    /// Reads the time.
    Ask,
    /// Sends to daytime before it reads.
    TalkFirst,
    /// Sends to either service, reads at most a part of the answer, and resets.
    Reset,
    /// The same, but closes the socket.
    Vanish,
    /// Connects and closes.
    Silent,
    /// Streams as fast as it can.
    Firehose,
    /// Streams more than the kernel's buffers hold, and reads in small pieces.
    SlowReader,
}

/// The short conversations.
pub const CHURN: [Way; 7] = {
    use Way::*;
    [Talk, HalfClose, Ask, TalkFirst, Reset, Vanish, Silent]
};

/// Bytes in a circle of prime length, so that every lost, doubled, moved or foreign byte is detected.
pub struct Circle(Vec<u8>);

const ROUND: usize = 65_521;
/// The longest piece.
const MOST: usize = 60_000;

impl Circle {
    pub fn new() -> Circle {
        let mut random = Random::new(0);
        let round: Vec<u8> = (0..ROUND).map(|_| random.next() as u8).collect();
        Circle([&round[..], &round].concat())
    }

    /// A piece from anywhere, of any length.
    pub fn any(&self, random: &mut Random) -> &[u8] {
        self.piece(random.below(ROUND), 1 + random.below(MOST))
    }

    fn piece(&self, begin: usize, count: usize) -> &[u8] {
        &self.0[begin % ROUND..][..count]
    }
}

/// Runs one conversation and returns how many bytes were received, all of them as expected.
pub fn visit(way: Way, at: Services, random: &mut Random, circle: &Circle) -> io::Result<u64> {
    let addr = match way {
        Way::Ask | Way::TalkFirst => at.daytime,
        Way::Reset | Way::Vanish | Way::Silent => random.pick(&[at.daytime, at.echo]),
        _ => at.echo,
    };
    converse(way, connect(addr)?, at, random, circle)
}

/// Runs one conversation on a connection that is already made.
pub fn converse(
    way: Way,
    mut stream: TcpStream,
    at: Services,
    random: &mut Random,
    circle: &Circle,
) -> io::Result<u64> {
    let bytes = circle.any(random);
    match way {
        Way::Ask => line(&mut stream),
        Way::TalkFirst => {
            stream.write_all(bytes)?;
            line(&mut stream)
        }
        Way::HalfClose => {
            stream.write_all(bytes)?;
            stream.shutdown(Shutdown::Write)?;
            compare(&mut stream, bytes)?;
            end(&mut stream, bytes.len())
        }
        Way::Talk => {
            let sizes = bytes.chunks(1 + random.below(bytes.len()).max(bytes.len() / 50));
            for message in sizes {
                stream.write_all(message)?;
                compare(&mut stream, message)?;
            }
            stream.shutdown(Shutdown::Write)?;
            end(&mut stream, bytes.len())
        }
        Way::Reset | Way::Vanish => {
            stream.write_all(bytes)?;
            let is_echo = stream.peer_addr()? == at.echo;
            let heard = if is_echo { random.below(bytes.len()) } else { 0 };
            compare(&mut stream, &bytes[..heard])?;
            if way == Way::Reset {
                socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
            }
            Ok(heard as u64)
        }
        Way::Silent => Ok(0),
        Way::Firehose => flow(stream, circle, random, 64 << 20, MOST),
        Way::SlowReader => flow(stream, circle, random, 16 << 20, 997),
    }
}

/// The deadline of every call.
const DEADLINE: Duration = Duration::from_secs(30);

pub fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&addr, DEADLINE)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    Ok(stream)
}

/// Streams this many bytes there and back, and reads at most `most` at once.
pub fn flow(
    mut stream: TcpStream,
    circle: &Circle,
    random: &mut Random,
    total: usize,
    most: usize,
) -> io::Result<u64> {
    let (begin, size) = (random.below(ROUND), 1 + random.below(MOST));
    let mut writer = stream.try_clone()?;
    thread::scope(|scope| {
        let writing = scope.spawn(move || {
            let mut sent = 0;
            while sent < total {
                let piece = circle.piece(begin + sent, size.min(total - sent));
                writer.write_all(piece)?;
                sent += piece.len();
            }
            writer.shutdown(Shutdown::Write)
        });
        let (mut got, mut buffer) = (0, vec![0; most]);
        loop {
            let count = stream.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            if buffer[..count] != *circle.piece(begin + got, count) {
                return Err(wrong("a byte differs"));
            }
            got += count;
            if most < MOST && random.percent(10) {
                thread::sleep(Duration::from_millis(1));
            }
        }
        writing.join().expect("the writer does not panic")?;
        if got == total { Ok(got as u64) } else { Err(wrong("the end came too early")) }
    })
}

fn compare(stream: &mut TcpStream, expected: &[u8]) -> io::Result<()> {
    let mut back = vec![0; expected.len()];
    stream.read_exact(&mut back)?;
    if back == expected { Ok(()) } else { Err(wrong("a byte differs")) }
}

fn end(stream: &mut TcpStream, heard: usize) -> io::Result<u64> {
    let more = stream.read(&mut [0])?;
    if more == 0 { Ok(heard as u64) } else { Err(wrong("more came back than was sent")) }
}

/// Reads one line with the time and EOF.
fn line(stream: &mut TcpStream) -> io::Result<u64> {
    let mut line = Vec::new();
    stream.read_to_end(&mut line)?;
    let is_line = line.len() == 26 && line.ends_with(b"\r\n");
    if is_line { Ok(26) } else { Err(wrong(&format!("no line: {line:?}"))) }
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}
