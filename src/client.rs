//! The two clients, on blocking sockets: the plainest code that is right.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! let patience = Duration::from_secs(10);
//! let line = campanile::client::daytime("127.0.0.1:9999", patience)?;
//! let back = campanile::client::echo("127.0.0.1:12345", b"Hello, world", patience)?;
//! # Ok::<(), campanile::client::Error>(())
//! ```
//!
//! `patience` bounds how long each address may take to connect, and how long a server that owes us
//! something may be silent. Looking up a name is the system's, and takes as long as it takes.

mod error;
mod flight;

use std::fmt::Display;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

pub use self::error::{Error, Mismatch};
use self::flight::Flight;

/// The longest line that is taken for a time.
const LINE_MAX: usize = 1024;
/// Bytes read from the input, or from the server, at once.
const PIECE: usize = 16 << 10;
/// Pieces that may be in flight; the next one waits until one has come back.
const PIECES: usize = 1024;
/// How long the sender has to say why the conversation broke.
const MOMENT: Duration = Duration::from_millis(100);

/// Asks for the time (RFC 867): the line without its line end.
///
/// # Errors
/// Also if what came is empty, too long, or not a line of printable text.
pub fn daytime(addr: impl ToSocketAddrs + Display, patience: Duration) -> Result<String, Error> {
    let stream = connect(&addr, patience)?;
    let addr = addr.to_string();
    let mut line = Vec::new();
    // To the end, not once: one read is not one line.
    if let Err(error) = (&stream).take(LINE_MAX as u64 + 1).read_to_end(&mut line) {
        return Err(broken(addr, error, patience, line.len() as u64));
    }
    if line.is_empty() {
        return Err(Error::Empty { addr });
    }
    if line.len() > LINE_MAX {
        return Err(Error::TooLong { addr, max: LINE_MAX });
    }
    let end = if line.ends_with(b"\r\n") { 2 } else { usize::from(line.ends_with(b"\n")) };
    line.truncate(line.len() - end);
    // NIST's servers begin with a line end, too.
    let text = line.strip_prefix(b"\n").unwrap_or(&line);
    if text.is_empty() || !text.iter().copied().all(is_printable) {
        return Err(Error::Garbage { addr, line });
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}

/// Sends a message to an echo server (RFC 862), compares what comes back, and returns it.
///
/// # Errors
/// Also if what came back is not what was sent, to the byte and to the end.
pub fn echo(
    addr: impl ToSocketAddrs + Display,
    message: &[u8],
    patience: Duration,
) -> Result<Vec<u8>, Error> {
    let mut back = Vec::with_capacity(message.len());
    echo_stream(addr, io::Cursor::new(message.to_vec()), &mut back, patience)?;
    Ok(back)
}

/// Sends everything that `from` gives to an echo server and writes to `to` what comes back, both
/// at once, comparing it on the way. Returns how many bytes it was.
///
/// What was sent is kept until it has come back, at most 16 MiB. An input that pauses is waited
/// for; the server's silence counts only while it owes us something.
///
/// If this fails while `from` is blocked in a read, the thread that reads it ends as soon as that
/// read returns.
///
/// # Errors
/// As [`echo`]; and if the input cannot be read or the output not be written.
pub fn echo_stream(
    addr: impl ToSocketAddrs + Display,
    from: impl Read + Send + 'static,
    to: impl Write,
    patience: Duration,
) -> Result<u64, Error> {
    let stream = connect(&addr, patience)?;
    let addr = addr.to_string();
    let failed = |error| broken(addr.clone(), error, patience, 0);
    let half = stream.try_clone().map_err(failed)?;
    let (notes, sent) = mpsc::sync_channel(PIECES);
    let flight = Flight::new();
    let sender = thread::Builder::new()
        .name("echo-sender".into())
        .spawn({
            let flight = flight.clone();
            move || send(from, &half, &notes, &flight)
        })
        .map_err(failed)?;
    let owed = Owed { notes: sent, piece: Vec::new(), at: 0, ended: false, since: Instant::now() };
    let receiver =
        Receiver { stream: &stream, addr, patience, owed, flight: &flight, to, received: 0 };
    let outcome = receiver.run();
    if outcome.is_ok() {
        // It has sent everything, so it is at its end.
        let _ = sender.join();
    } else {
        flight.end();
        // Ends a write that blocks; and with the notes' receiver gone, a note that does.
        let _ = stream.shutdown(Shutdown::Both);
    }
    outcome
}

/// What the sender tells the receiver: a piece, and when it was about to be sent. An empty piece
/// is the end of the input.
type Note = Result<(Instant, Vec<u8>), Failure>;

/// Why the sender stopped before the end of its input.
enum Failure {
    Input(io::Error),
    Socket(io::Error),
}

fn send(mut from: impl Read, mut to: &TcpStream, notes: &SyncSender<Note>, flight: &Flight) {
    let mut buffer = vec![0; PIECE];
    let failure = loop {
        let piece = match from.read(&mut buffer) {
            Ok(count) => &buffer[..count],
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => break Failure::Input(error),
        };
        flight.take_off(piece.len());
        // Before it is sent: the receiver must never see a byte come back of which it knows nothing.
        if notes.send(Ok((Instant::now(), piece.to_vec()))).is_err() {
            return;
        }
        if piece.is_empty() {
            flight.touch_down();
            // If it fails, the receiver hears why.
            let _ = to.shutdown(Shutdown::Write);
            return;
        }
        if let Err(error) = to.write_all(piece) {
            break Failure::Socket(error);
        }
    };
    let _ = notes.send(Err(failure));
    // The receiver may be waiting for bytes that will not come: this is its end.
    let _ = to.shutdown(Shutdown::Both);
}

struct Receiver<'a, W> {
    stream: &'a TcpStream,
    addr: String,
    patience: Duration,
    owed: Owed,
    flight: &'a Flight,
    to: W,
    received: u64,
}

impl<W: Write> Receiver<'_, W> {
    fn run(mut self) -> Result<u64, Error> {
        let mut buffer = vec![0; PIECE];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return self.finish(),
                Ok(count) => {
                    self.compare(&buffer[..count])?;
                    self.owed.since = Instant::now();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_timeout(&error) => self.judge_silence()?,
                Err(error) => {
                    let known = self.sender_says(Duration::ZERO);
                    return Err(known.unwrap_or_else(|| self.broken(error)));
                }
            }
        }
    }

    fn compare(&mut self, mut got: &[u8]) -> Result<(), Error> {
        while !got.is_empty() {
            self.owed.fetch(Duration::ZERO).map_err(|failure| self.failed(failure))?;
            let owed = self.owed.bytes();
            let count = owed.len().min(got.len());
            if count == 0 {
                return Err(self.mismatch(Mismatch::Surplus));
            }
            if owed[..count] != got[..count] {
                let same = owed.iter().zip(got).take_while(|(sent, got)| sent == got).count();
                let differs = Mismatch::Differs { sent: owed[same], got: got[same] };
                self.received += same as u64;
                return Err(self.mismatch(differs));
            }
            self.to.write_all(&got[..count]).map_err(Error::Output)?;
            self.owed.at += count;
            self.flight.land(count);
            self.received += count as u64;
            got = &got[count..];
        }
        self.to.flush().map_err(Error::Output)
    }

    /// Nothing came for a while. That is the server's fault only if it owes us something.
    fn judge_silence(&mut self) -> Result<(), Error> {
        self.owed.fetch(Duration::ZERO).map_err(|failure| self.failed(failure))?;
        let mut rest = self.patience;
        if self.owed.ended || !self.owed.bytes().is_empty() {
            rest = rest.saturating_sub(self.owed.since.elapsed());
            if rest.is_zero() {
                return Err(self.broken(ErrorKind::TimedOut.into()));
            }
        }
        set_patience(self.stream, rest).map_err(|error| self.broken(error))
    }

    /// The server has ended its half; it should not have before everything came back.
    fn finish(mut self) -> Result<u64, Error> {
        self.owed.fetch(MOMENT).map_err(|failure| self.failed(failure))?;
        if self.owed.ended {
            return Ok(self.received);
        }
        // A reset is told to whichever thread asks first; the other one sees an end. So the sender
        // gets a moment to speak.
        let known = self.sender_says(MOMENT);
        Err(known.unwrap_or_else(|| self.mismatch(Mismatch::Truncated)))
    }

    /// Why the sender has stopped, if it did and says so in time.
    fn sender_says(&self, patience: Duration) -> Option<Error> {
        let began = Instant::now();
        while let Ok(note) = self.owed.notes.recv_timeout(patience) {
            if let Err(failure) = note {
                return Some(self.failed(failure));
            }
            if began.elapsed() > MOMENT {
                break;
            }
        }
        None
    }

    fn failed(&self, failure: Failure) -> Error {
        match failure {
            Failure::Input(error) => Error::Input(error),
            Failure::Socket(error) => self.broken(error),
        }
    }

    fn broken(&self, error: io::Error) -> Error {
        broken(self.addr.clone(), error, self.patience, self.received)
    }

    fn mismatch(&self, kind: Mismatch) -> Error {
        Error::Mismatch { addr: self.addr.clone(), offset: self.received, kind }
    }
}

/// What was sent and has not come back: the oldest piece, from `at` on, and the notes behind it.
struct Owed {
    notes: mpsc::Receiver<Note>,
    piece: Vec<u8>,
    at: usize,
    /// The input has ended and nothing is owed but the server's end.
    ended: bool,
    /// When the server last spoke, or was asked if that was later.
    since: Instant,
}

impl Owed {
    fn bytes(&self) -> &[u8] {
        &self.piece[self.at..]
    }

    /// Takes the next note if nothing of the last one is owed.
    fn fetch(&mut self, patience: Duration) -> Result<(), Failure> {
        if self.ended || !self.bytes().is_empty() {
            return Ok(());
        }
        match self.notes.recv_timeout(patience) {
            Ok(note) => {
                let (when, piece) = note?;
                self.ended = piece.is_empty();
                self.piece = piece;
                self.at = 0;
                self.since = self.since.max(when);
                Ok(())
            }
            Err(RecvTimeoutError::Timeout) => Ok(()),
            // The sender is gone and left no note, so its input panicked.
            Err(RecvTimeoutError::Disconnected) => {
                Err(Failure::Input(io::Error::other("its reader panicked")))
            }
        }
    }
}

fn connect(addr: &(impl ToSocketAddrs + Display), patience: Duration) -> Result<TcpStream, Error> {
    let found = addr
        .to_socket_addrs()
        .map_err(|error| Error::NotFound { addr: addr.to_string(), error })?;
    let mut failure = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for one in found {
        let connected = TcpStream::connect_timeout(&one, at_least_a_moment(patience))
            .and_then(|stream| set_patience(&stream, patience).map(|()| stream));
        match connected {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    let addr = addr.to_string();
    Err(match failure.kind() {
        ErrorKind::TimedOut => Error::ConnectTimedOut { addr, patience },
        // It stood, but not for as long as it takes to look.
        ErrorKind::ConnectionReset => broken(addr, failure, patience, 0),
        _ => Error::Connect { addr, error: failure },
    })
}

fn set_patience(stream: &TcpStream, patience: Duration) -> io::Result<()> {
    stream.set_read_timeout(Some(at_least_a_moment(patience)))
}

/// To std, no time at all is an error.
fn at_least_a_moment(patience: Duration) -> Duration {
    patience.max(Duration::from_millis(1))
}

fn broken(addr: String, error: io::Error, patience: Duration, received: u64) -> Error {
    if is_timeout(&error) {
        Error::Silent { addr, patience, received }
    } else {
        Error::Broken { addr, error, received }
    }
}

/// Unix says the one, Windows the other.
fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn is_printable(byte: u8) -> bool {
    matches!(byte, b' '..=b'~')
}

/// Bytes as Python's `repr` shows them, without the `b`.
///
/// ```
/// assert_eq!(campanile::client::repr(b"Hello, world"), "'Hello, world'");
/// assert_eq!(campanile::client::repr(b"it's\r\n\xff"), r#""it's\r\n\xff""#);
/// ```
pub fn repr(bytes: &[u8]) -> String {
    let has_single_only = bytes.contains(&b'\'') && !bytes.contains(&b'"');
    let quote = if has_single_only { '"' } else { '\'' };
    let mut text = String::from(quote);
    for &byte in bytes {
        match byte {
            b'\\' => text.push_str("\\\\"),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b'\t' => text.push_str("\\t"),
            b'\'' if quote == '\'' => text.push_str("\\'"),
            _ if is_printable(byte) => text.push(char::from(byte)),
            _ => text.push_str(&format!("\\x{byte:02x}")),
        }
    }
    text.push(quote);
    text
}
