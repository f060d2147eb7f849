//! Code that the numbered examples share, so that each shows its own idea only: the listening socket,
//! sockets that count calls, and the parts that earlier examples explain.
#![allow(dead_code)]

use std::cell::RefCell;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use mio::event::Source;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};

/// A connection is registered once, for reading and writing. The server itself decides which of the
/// two it wants at the moment. The kernel reports room to write as it reports bytes to read.
pub const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// The pause before the next accept after descriptors have run out.
pub const RETRY: Duration = Duration::from_millis(100);

/// Counts of the calls on the sockets of this thread.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    pub accepts: usize,
    pub reads: usize,
    pub writes: usize,
    /// The bytes offered and the bytes taken, for each write that the kernel took in part.
    pub short_writes: Vec<[usize; 2]>,
    pub would_blocks: usize,
    /// Accepts that found no descriptor.
    pub exhausted: usize,
    pub most_unsent: usize,
}

thread_local! {
    static COUNTS: RefCell<Counts> = RefCell::default();
}

pub fn counts() -> Counts {
    COUNTS.with_borrow(Clone::clone)
}

fn count<T>(outcome: io::Result<T>, add: impl FnOnce(&T, &mut Counts)) -> io::Result<T> {
    COUNTS.with_borrow_mut(|counts| match &outcome {
        Ok(value) => add(value, counts),
        Err(error) if error.kind() == ErrorKind::WouldBlock => counts.would_blocks += 1,
        Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE)) => counts.exhausted += 1,
        Err(_) => {}
    });
    outcome
}

/// Writes a number with a comma before every three digits.
pub fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let pieces: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    pieces.join(",")
}

/// Says how a conversation ended for a client: with EOF or with an error.
pub fn ending(outcome: io::Result<usize>) -> String {
    outcome.map_or_else(|error| error.to_string(), |_| "EOF".to_owned())
}

/// Listens on the address in the first argument. Without an argument, listens on a free port and
/// returns its address, for the clients of the experiment.
pub fn listen() -> io::Result<(Listener, Option<SocketAddr>)> {
    let arg = std::env::args().nth(1);
    let listener = std::net::TcpListener::bind(arg.as_deref().unwrap_or("127.0.0.1:0"))?;
    listener.set_nonblocking(true)?;
    let addr = listener.local_addr()?;
    println!("listening on {addr}");
    Ok((Listener(TcpListener::from_std(listener)), arg.is_none().then_some(addr)))
}

/// mio's listener; its calls are counted.
pub struct Listener(TcpListener);

/// mio's stream; its calls are counted.
pub struct Stream(TcpStream);

impl Listener {
    pub fn accept(&self) -> io::Result<Stream> {
        count(self.0.accept(), |_, counts| counts.accepts += 1).map(|(stream, _)| Stream(stream))
    }

    /// Accepts until `WouldBlock`, as example 4 does.
    pub fn accept_all(&self) -> io::Result<Vec<Stream>> {
        let mut streams = Vec::new();
        loop {
            match self.accept() {
                Ok(stream) => streams.push(stream),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(streams),
                Err(error) => return Err(error),
            }
        }
    }

    /// Accepts until `WouldBlock` or until no descriptor is left, and sets `exhausted` to which of the
    /// two it was: see example 9.
    pub fn accept_some(&self, exhausted: &mut bool) -> Vec<Stream> {
        let mut streams = Vec::new();
        loop {
            match self.accept() {
                Ok(stream) => streams.push(stream),
                Err(error) => {
                    *exhausted = error.kind() != ErrorKind::WouldBlock;
                    return streams;
                }
            }
        }
    }
}

impl Stream {
    /// Reads; `None` means `WouldBlock`.
    pub fn try_read(&mut self, data: &mut [u8]) -> io::Result<Option<usize>> {
        match self.read(data) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            outcome => outcome.map(Some),
        }
    }

    pub fn shutdown_write(&self) -> io::Result<()> {
        self.0.shutdown(Shutdown::Write)
    }
}

impl Read for Stream {
    fn read(&mut self, data: &mut [u8]) -> io::Result<usize> {
        count(self.0.read(data), |_, counts| counts.reads += 1)
    }
}

impl Write for Stream {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        count(self.0.write(data), |taken, counts| {
            counts.writes += 1;
            if *taken < data.len() {
                counts.short_writes.push([data.len(), *taken]);
            }
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

macro_rules! source {
    ($($name:ident)*) => {$(
        impl Source for $name {
            fn register(&mut self, at: &Registry, token: Token, what: Interest) -> io::Result<()> {
                self.0.register(at, token, what)
            }
            fn reregister(&mut self, at: &Registry, token: Token, what: Interest) -> io::Result<()> {
                self.0.reregister(at, token, what)
            }
            fn deregister(&mut self, at: &Registry) -> io::Result<()> {
                self.0.deregister(at)
            }
        }
    )*};
}
source!(Listener Stream);

/// Counts the bytes that wait to be sent to one peer.
pub fn note_unsent(bytes: usize) {
    COUNTS.with_borrow_mut(|counts| counts.most_unsent = counts.most_unsent.max(bytes));
}

/// Bytes for a peer; the kernel has taken the first `sent` of them. Example 6 explains it.
#[derive(Default)]
pub struct SendBuffer {
    bytes: Vec<u8>,
    sent: usize,
}

impl SendBuffer {
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn append(&mut self, more: &[u8]) {
        self.bytes.extend(more);
        note_unsent(self.bytes.len() - self.sent);
    }

    pub fn flush(&mut self, to: &mut Stream) -> io::Result<()> {
        while self.sent < self.bytes.len() {
            match to.write(&self.bytes[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        *self = SendBuffer::default();
        Ok(())
    }
}
