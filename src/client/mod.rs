//! Clients for daytime and echo on blocking sockets.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! let timeout = Duration::from_secs(10);
//! let line = campanile::client::daytime("127.0.0.1:9999", timeout)?;
//! let back = campanile::client::echo("127.0.0.1:12345", b"Hello, world", timeout)?;
//! # Ok::<(), campanile::client::Error>(())
//! ```
//!
//! While an address of a name is silent for 250 ms, the next one is tried beside it (RFC 8305).
//!
//! `timeout` bounds connecting, for each address, and the silence of a server that still has to send
//! something. It bounds neither the name lookup nor a reply that arrives slowly. For a bound on the
//! whole call, run it on a thread and wait for its result with `recv_timeout`, as
//! `campanile daytime --deadline` does.

mod connect;
mod error;
mod flight;
mod line;

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

#[cfg(feature = "testing")]
pub(crate) use self::connect::connect_to;
pub(crate) use self::connect::is_exhausted;
pub use self::connect::{Server, ToServers};
use self::connect::{Stream, connect};
pub use self::error::{Error, Mismatch};
use self::flight::Flight;
pub(crate) use self::line::one_line;

/// Longest reply that is accepted as a line.
const LINE_MAX: usize = 1024;
/// Bytes per read of the input or of the socket.
const PIECE: usize = 16 << 10;
/// Pieces in flight; the sender waits when there are more.
const PIECES: usize = 1024;
/// Time for the sender to report why the connection failed.
const MOMENT: Duration = Duration::from_millis(100);

/// Asks a daytime server (RFC 867) for the time and returns its line, without the line end.
///
/// The RFC prescribes no syntax: the line may end in CR LF, LF CR, CR, LF or nothing, with blank lines
/// around it and NUL bytes after it.
///
/// # Errors
/// If the server cannot be reached, sends nothing for the timeout or resets the connection; if its
/// reply is empty, longer than 1,024 bytes, or not one line of printable ASCII.
pub fn daytime(addr: impl ToServers, timeout: Duration) -> Result<String, Error> {
    let stream = connect(&addr, timeout)?;
    let addr = addr.to_string();
    let mut line = Vec::new();
    // Reads to EOF: one read may return less than a line.
    if let Err(error) = (&stream).take(LINE_MAX as u64 + 1).read_to_end(&mut line) {
        return Err(broken(addr, error, timeout, line.len() as u64));
    }
    if line.is_empty() {
        return Err(Error::Empty { addr });
    }
    if line.len() > LINE_MAX {
        return Err(Error::TooLong { addr, max: LINE_MAX });
    }
    match one_line(&line) {
        Ok((text, _)) => Ok(String::from_utf8_lossy(text).into_owned()),
        Err(_) => Err(Error::Garbage { addr, line }),
    }
}

/// Sends a message to an echo server (RFC 862), compares the reply with it, and returns the reply.
///
/// # Errors
/// If the server cannot be reached, sends nothing for the timeout or resets the connection; if its
/// reply differs from the message in a byte or in length.
pub fn echo(addr: impl ToServers, message: &[u8], timeout: Duration) -> Result<Vec<u8>, Error> {
    let mut back = Vec::with_capacity(message.len());
    echo_stream(addr, io::Cursor::new(message.to_vec()), &mut back, timeout)?;
    Ok(back)
}

/// Sends everything that `from` yields to an echo server, compares the reply with it and writes the
/// reply to `to`, all at the same time. Returns the number of bytes echoed.
///
/// Bytes are kept until the server has returned them, at most 16 MiB. If the input pauses, the call
/// waits; the timeout runs only while the server still has to send something.
///
/// If the call fails while `from` is blocked in a read, the thread that reads it ends when that read
/// returns.
///
/// # Errors
/// As for [`echo`]; also if the input cannot be read or the output cannot be written.
pub fn echo_stream(
    addr: impl ToServers,
    from: impl Read + Send + 'static,
    to: impl Write,
    timeout: Duration,
) -> Result<u64, Error> {
    let stream = connect(&addr, timeout)?;
    let addr = addr.to_string();
    let failed = |error| broken(addr.clone(), error, timeout, 0);
    let half = stream.try_clone().map_err(failed)?;
    let (notes, sent) = mpsc::sync_channel(PIECES);
    let flight = Flight::new();
    let sender = thread::Builder::new()
        .name("echo-sender".into())
        .spawn({
            let flight = flight.clone();
            move || send(from, &half, &notes, &flight)
        })
        .map_err(Error::Thread)?;
    let owed = Owed { notes: sent, piece: Vec::new(), at: 0, ended: false, since: Instant::now() };
    let receiver =
        Receiver { stream: &stream, addr, timeout, owed, flight: &flight, to, received: 0 };
    let outcome = receiver.run();
    if outcome.is_ok() {
        // The sender has sent everything and is about to return.
        let _ = sender.join();
    } else {
        flight.end();
        // Unblocks the sender's write. Dropping the receiver of the notes unblocks its `notes.send`.
        let _ = stream.shutdown(Shutdown::Both);
    }
    outcome
}

/// A message from the sender to the receiver: a piece, and when its write began. An empty piece marks
/// the end of the input.
type Note = Result<(Instant, Vec<u8>), Failure>;

/// Why the sender stopped before the end of its input.
enum Failure {
    Input(io::Error),
    Socket(io::Error),
}

fn send(mut from: impl Read, mut to: &Stream, notes: &SyncSender<Note>, flight: &Flight) {
    let mut buffer = vec![0; PIECE];
    let failure = loop {
        let piece = match from.read(&mut buffer) {
            Ok(count) => &buffer[..count],
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => break Failure::Input(error),
        };
        flight.take_off(piece.len());
        // Before the write: the receiver must know a byte before the server can return it.
        if notes.send(Ok((Instant::now(), piece.to_vec()))).is_err() {
            return;
        }
        if piece.is_empty() {
            flight.touch_down();
            // If this fails, the receiver's read reports the error.
            let _ = to.shutdown(Shutdown::Write);
            return;
        }
        if let Err(error) = to.write_all(piece) {
            break Failure::Socket(error);
        }
    };
    let _ = notes.send(Err(failure));
    // Unblocks the receiver, which may be waiting for bytes that will not come.
    let _ = to.shutdown(Shutdown::Both);
}

struct Receiver<'a, W> {
    stream: &'a Stream,
    addr: String,
    timeout: Duration,
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
                Err(error) if is_timeout(&error) => self.check_silence()?,
                Err(error) => {
                    let known = self.sender_failure(Duration::ZERO);
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

    /// Handles a read timeout, which is an error only if the server still has to send something.
    fn check_silence(&mut self) -> Result<(), Error> {
        self.owed.fetch(Duration::ZERO).map_err(|failure| self.failed(failure))?;
        let mut rest = self.timeout;
        if self.owed.ended || !self.owed.bytes().is_empty() {
            rest = rest.saturating_sub(self.owed.since.elapsed());
            if rest.is_zero() {
                return Err(self.broken(ErrorKind::TimedOut.into()));
            }
        }
        self.stream.set_timeout(rest).map_err(|error| self.broken(error))
    }

    /// Handles the server's EOF, which must come after everything was returned.
    fn finish(mut self) -> Result<u64, Error> {
        self.owed.fetch(MOMENT).map_err(|failure| self.failed(failure))?;
        if self.owed.ended {
            return Ok(self.received);
        }
        // The kernel reports a reset to the first thread that calls; the other one sees EOF. So the
        // sender gets a moment to report it.
        let known = self.sender_failure(MOMENT);
        Err(known.unwrap_or_else(|| self.mismatch(Mismatch::Truncated)))
    }

    /// Returns why the sender stopped, if it did and reports it within the timeout.
    fn sender_failure(&self, timeout: Duration) -> Option<Error> {
        let began = Instant::now();
        while let Ok(note) = self.owed.notes.recv_timeout(timeout) {
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
        broken(self.addr.clone(), error, self.timeout, self.received)
    }

    fn mismatch(&self, kind: Mismatch) -> Error {
        Error::Mismatch { addr: self.addr.clone(), offset: self.received, kind }
    }
}

/// What was sent and not yet returned: the oldest piece, from `at` on, and the notes behind it.
struct Owed {
    notes: mpsc::Receiver<Note>,
    piece: Vec<u8>,
    at: usize,
    /// The input has ended, and only the server's EOF is missing.
    ended: bool,
    /// The later of the last byte received and the last write begun.
    since: Instant,
}

impl Owed {
    fn bytes(&self) -> &[u8] {
        &self.piece[self.at..]
    }

    /// Takes the next note if the last piece has been returned.
    fn fetch(&mut self, timeout: Duration) -> Result<(), Failure> {
        if self.ended || !self.bytes().is_empty() {
            return Ok(());
        }
        match self.notes.recv_timeout(timeout) {
            Ok(note) => {
                let (when, piece) = note?;
                self.ended = piece.is_empty();
                self.piece = piece;
                self.at = 0;
                self.since = self.since.max(when);
                Ok(())
            }
            Err(RecvTimeoutError::Timeout) => Ok(()),
            // The sender ended without a note, so a read of the input panicked.
            Err(RecvTimeoutError::Disconnected) => {
                Err(Failure::Input(io::Error::other("a read of it panicked")))
            }
        }
    }
}

fn broken(addr: String, error: io::Error, timeout: Duration, received: u64) -> Error {
    if is_timeout(&error) {
        Error::Silent { addr, timeout, received }
    } else {
        Error::Broken { addr, error, received }
    }
}

/// A read timeout is `WouldBlock` on Unix and `TimedOut` on Windows.
fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn is_printable(byte: u8) -> bool {
    matches!(byte, b' '..=b'~')
}

/// Formats bytes as Python's `repr` does, without the `b`.
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
