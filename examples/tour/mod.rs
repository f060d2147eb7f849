//! What the numbered examples share, so that each shows its own idea only: where to listen, sockets
//! that count what is asked of them, and what earlier examples have explained.
#![allow(dead_code)]

use std::cell::RefCell;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use mio::event::Source;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};

/// A connection is registered once, for both: what we want at a time is our business.
pub const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// When to accept again after descriptors have run out.
pub const RETRY: Duration = Duration::from_millis(100);

/// What happened at the sockets of this thread.
#[derive(Debug, Clone, Default)]
pub struct Story {
    pub accepts: usize,
    pub reads: usize,
    pub writes: usize,
    /// What was offered and what was taken, each time the kernel took less.
    pub short_writes: Vec<(usize, usize)>,
    pub would_blocks: usize,
    pub exhausted: usize,
    pub most_owed: usize,
}

thread_local! {
    static STORY: RefCell<Story> = RefCell::default();
}

pub fn story() -> Story {
    STORY.with_borrow(Clone::clone)
}

fn count<T>(outcome: io::Result<T>, add: impl FnOnce(&T, &mut Story)) -> io::Result<T> {
    STORY.with_borrow_mut(|story| match &outcome {
        Ok(value) => add(value, story),
        Err(error) if error.kind() == ErrorKind::WouldBlock => story.would_blocks += 1,
        Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE)) => story.exhausted += 1,
        Err(_) => {}
    });
    outcome
}

/// Listens on the address that was given as an argument, or else on a free port, whose address is
/// returned then: for the clients of the experiment.
pub fn listen() -> io::Result<(Listener, Option<SocketAddr>)> {
    let arg = std::env::args().nth(1);
    let listener = std::net::TcpListener::bind(arg.as_deref().unwrap_or("127.0.0.1:0"))?;
    listener.set_nonblocking(true)?;
    let addr = listener.local_addr()?;
    println!("listening on {addr}");
    Ok((Listener(TcpListener::from_std(listener)), arg.is_none().then_some(addr)))
}

/// mio's listener, counted.
pub struct Listener(TcpListener);

/// mio's stream, counted.
pub struct Stream(TcpStream);

impl Listener {
    pub fn accept(&self) -> io::Result<Stream> {
        count(self.0.accept(), |_, story| story.accepts += 1).map(|(stream, _)| Stream(stream))
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

    /// Accepts until `WouldBlock` or until no descriptor is left, which it notes: see example 9.
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
    /// Reads; `None` if there is nothing for now.
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
        count(self.0.read(data), |_, story| story.reads += 1)
    }
}

impl Write for Stream {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        count(self.0.write(data), |taken, story| {
            story.writes += 1;
            if *taken < data.len() {
                story.short_writes.push((data.len(), *taken));
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

/// Notes how many bytes are owed to one peer.
pub fn note_owed(bytes: usize) {
    STORY.with_borrow_mut(|story| story.most_owed = story.most_owed.max(bytes));
}

/// Bytes owed to a peer; the first `sent` of them are delivered. Example 6 explains it.
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
        note_owed(self.bytes.len() - self.sent);
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
