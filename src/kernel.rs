//! [`Kernel`], the interface between the loop and an operating system, and [`Mio`], which implements it.
//!
//! In the core, only this file and those in `kernel/` import mio and socket2.

mod socket;
#[cfg(unix)]
mod unix;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};

pub use self::socket::{Passive, Socket};
use crate::connection::{Snapshot, Stream};
use crate::limits::Limits;
use crate::protocol::{Address, ConnId};

/// The source of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The waker.
    Waker,
    /// The listener with this key.
    Listener(usize),
    /// The connection with this key.
    Connection(usize),
}

/// Readiness of a source. An event is a hint: only the call itself shows whether it succeeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// The source that is ready.
    pub source: Source,
    /// A read or an accept may succeed.
    pub readable: bool,
    /// A write may succeed.
    pub writable: bool,
    /// Only data or room in a buffer: no closed half, no error and no urgent byte, from a selector
    /// that reports each of these. While all events of a stream are plain, a short read means that
    /// the stream is empty.
    pub data_only: bool,
}

/// The phases of a turn, for [`Kernel::phase`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum Phase {
    Sleep,
    NoteReadiness,
    ObeyCommands,
    FireTimers,
    Accept,
    RunConnections,
    Reap,
}

// ANCHOR: waker
/// Wakes a sleeping poll from any thread.
pub trait Wake: Send + Sync {
    /// Makes the current or the next poll return. Calls may be merged, but are never lost.
    fn wake(&self) -> io::Result<()>;
}

// ANCHOR: edge
/// The interface between the loop and an operating system.
///
/// [`Mio`] implements it with a real one. A simulator implements it to run the same loop without
/// sockets.
///
/// The contract is mio's: events are edge-triggered. After an event, the loop tries the source until
/// `WouldBlock`, or rearms it; only then is another event promised. A source that is ready when it is
/// registered gets an event, too.
pub trait Kernel: Sized {
    /// A connection's stream.
    type Stream: Stream;
    /// A listening socket.
    type Listener;

    /// Sleeps until an event comes, at most for `timeout`, and fetches a batch of events. After an
    /// error the batch is empty.
    fn poll(&mut self, timeout: Option<Duration>) -> io::Result<()>;

    /// Returns the batch that was fetched last.
    fn events(&self) -> impl Iterator<Item = Event>;

    /// Returns how many events fit into a batch. After a full batch, more events may be waiting.
    fn capacity(&self) -> usize;

    /// Reads the monotonic clock.
    fn now(&self) -> Instant;

    /// Returns the waker of this kernel. There is one.
    fn waker(&self) -> Arc<dyn Wake>;

    /// Binds a listener and registers it under `key`.
    fn listen(&mut self, addr: &Address, key: usize, limits: &Limits)
    -> io::Result<Self::Listener>;

    /// Takes over a bound listener: configures it as `listen` does and registers it under `key`.
    fn adopt(
        &mut self,
        listener: std::net::TcpListener,
        key: usize,
        limits: &Limits,
    ) -> io::Result<Self::Listener>;

    /// Takes over a bound Unix listener. Its path stays when the listener closes.
    ///
    /// # Errors
    /// If the listener cannot be configured, or if this kernel has no Unix sockets.
    #[cfg(unix)]
    fn adopt_unix(
        &mut self,
        _listener: std::os::unix::net::UnixListener,
        _key: usize,
        _limits: &Limits,
    ) -> io::Result<Self::Listener> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Returns the address of a listener.
    fn local_addr(&self, listener: &Self::Listener) -> io::Result<Address>;

    /// Accepts one connection. Fails as accept(2) does.
    fn accept(&mut self, listener: &mut Self::Listener) -> io::Result<(Self::Stream, Address)>;

    /// Changes the length of a listener's backlog.
    ///
    /// # Errors
    /// If the system or the kind of listener does not allow it.
    fn set_backlog(&mut self, _listener: &Self::Listener, _backlog: u32) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Asks for the next event of a listener, without a call that returns `WouldBlock`: an event
    /// comes as soon as a client waits, and at once if one waits already.
    fn rearm(&mut self, listener: &mut Self::Listener, key: usize) -> io::Result<()>;

    /// Begins to connect. The first writable event shows that there is a result. `parent` is the
    /// connection whose protocol has asked for this one, if one has.
    fn connect(
        &mut self,
        addr: &Address,
        limits: &Limits,
        parent: Option<ConnId>,
    ) -> io::Result<Self::Stream>;

    /// Registers a stream under `key` for its whole life. If `writes` is false, it gets no events for
    /// writing, because its half has ended.
    fn register(&mut self, stream: &mut Self::Stream, key: usize, writes: bool) -> io::Result<()>;

    /// Makes `poll` return once a descriptor of the program can be read. There is no event for it.
    ///
    /// # Errors
    /// If the descriptor cannot be watched, for example a regular file, or if this kernel watches none.
    #[cfg(unix)]
    fn watch(&mut self, _fd: std::os::fd::BorrowedFd<'_>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Called when a phase of the turn begins.
    fn phase(&mut self, _phase: Phase) {}

    /// Called after a connection has run; `view` returns its state.
    fn observe(&mut self, _id: ConnId, _view: impl FnOnce() -> Snapshot) {}
}

/// The operating system, through mio.
pub struct Mio {
    poll: Poll,
    events: Events,
    waker: Arc<mio::Waker>,
}

impl fmt::Debug for Mio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mio").field("poll", &self.poll).finish_non_exhaustive()
    }
}

/// Whether the selector is epoll, which reports a FIN and an urgent byte together with the data.
const EPOLL: bool = cfg!(all(target_os = "linux", not(mio_unsupported_force_poll_poll)));

// ANCHOR: token
/// A connection's token is its slab key; listeners count down from the top, below the waker.
impl From<Source> for Token {
    fn from(source: Source) -> Token {
        match source {
            Source::Connection(key) => Token(key),
            Source::Listener(key) => Token(usize::MAX - 1 - key),
            Source::Waker => Token(usize::MAX),
        }
    }
}

/// Marks the token of a connection that is not TCP: no short read proves that it is empty.
const NOT_TCP: usize = 1 << 30;

/// Returns the source of an event, and whether it can be a TCP connection.
fn source(Token(token): Token) -> (Source, bool) {
    if token < NOT_TCP {
        (Source::Connection(token), true)
    } else if token < usize::MAX / 2 {
        (Source::Connection(token & !NOT_TCP), false)
    } else if token < usize::MAX {
        (Source::Listener(usize::MAX - 1 - token), false)
    } else {
        (Source::Waker, false)
    }
}

impl Mio {
    /// Creates a selector that fetches at most `events` events per turn.
    pub fn new(events: usize) -> io::Result<Mio> {
        let poll = Poll::new()?;
        let waker = Arc::new(mio::Waker::new(poll.registry(), Source::Waker.into())?);
        Ok(Mio { poll, events: Events::with_capacity(events.max(1)), waker })
    }

    fn watch_listener(&self, listener: &mut Passive, key: usize) -> io::Result<()> {
        let token = Source::Listener(key).into();
        listener.source().register(self.poll.registry(), token, Interest::READABLE)
    }
}

impl Kernel for Mio {
    type Stream = Socket;
    type Listener = Passive;

    fn poll(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let outcome = self.poll.poll(&mut self.events, timeout);
        if outcome.is_err() {
            self.events.clear();
        }
        outcome
    }

    fn events(&self) -> impl Iterator<Item = Event> {
        self.events.iter().map(|event| {
            // ANCHOR: hint
            // A closed half, an error or an urgent byte: the loop tries both calls, which show it.
            let has_special_bits = event.is_error()
                || event.is_read_closed()
                || event.is_write_closed()
                || event.is_priority();
            let (source, is_tcp) = source(event.token());
            Event {
                readable: has_special_bits || event.is_readable(),
                writable: has_special_bits || event.is_writable(),
                data_only: EPOLL && is_tcp && !has_special_bits,
                source,
            }
        })
    }

    fn capacity(&self) -> usize {
        self.events.capacity()
    }

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::clone(&self.waker) as Arc<dyn Wake>
    }

    fn listen(&mut self, addr: &Address, key: usize, limits: &Limits) -> io::Result<Passive> {
        let mut listener = Passive::bind(addr, limits)?;
        self.watch_listener(&mut listener, key)?;
        Ok(listener)
    }

    fn adopt(
        &mut self,
        listener: std::net::TcpListener,
        key: usize,
        limits: &Limits,
    ) -> io::Result<Passive> {
        let mut listener = Passive::adopt(listener, limits)?;
        self.watch_listener(&mut listener, key)?;
        Ok(listener)
    }

    #[cfg(unix)]
    fn adopt_unix(
        &mut self,
        listener: std::os::unix::net::UnixListener,
        key: usize,
        limits: &Limits,
    ) -> io::Result<Passive> {
        let mut listener = Passive::adopt_unix(listener, limits)?;
        self.watch_listener(&mut listener, key)?;
        Ok(listener)
    }

    fn local_addr(&self, listener: &Passive) -> io::Result<Address> {
        listener.local_addr()
    }

    fn accept(&mut self, listener: &mut Passive) -> io::Result<(Socket, Address)> {
        listener.accept()
    }

    fn set_backlog(&mut self, listener: &Passive, backlog: u32) -> io::Result<()> {
        listener.set_backlog(backlog)
    }

    fn rearm(&mut self, listener: &mut Passive, key: usize) -> io::Result<()> {
        let token = Source::Listener(key).into();
        listener.source().reregister(self.poll.registry(), token, Interest::READABLE)
    }

    fn connect(
        &mut self,
        addr: &Address,
        limits: &Limits,
        _parent: Option<ConnId>,
    ) -> io::Result<Socket> {
        Socket::connect(addr, limits)
    }

    fn register(&mut self, stream: &mut Socket, key: usize, writes: bool) -> io::Result<()> {
        let mut interest = Interest::READABLE;
        if writes {
            interest |= Interest::WRITABLE;
        }
        // An urgent byte ends a read early. A short read means an empty stream only if the selector
        // reports urgent bytes.
        #[cfg(target_os = "linux")]
        {
            interest |= Interest::PRIORITY;
        }
        let token = Token(if stream.is_tcp() { key } else { key | NOT_TCP });
        stream.source().register(self.poll.registry(), token, interest)
    }

    #[cfg(unix)]
    fn watch(&mut self, fd: std::os::fd::BorrowedFd<'_>) -> io::Result<()> {
        let fd = std::os::fd::AsRawFd::as_raw_fd(&fd);
        let (mut source, token) = (mio::unix::SourceFd(&fd), Source::Waker.into());
        match self.poll.registry().register(&mut source, token, Interest::READABLE) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.poll.registry().reregister(&mut source, token, Interest::READABLE)
            }
            outcome => outcome,
        }
    }
}

impl Wake for mio::Waker {
    fn wake(&self) -> io::Result<()> {
        mio::Waker::wake(self)
    }
}

/// Lends the selector's descriptor. An outer loop polls it, and calls
/// [`Reactor::turn`](crate::Reactor::turn) when it is readable or when
/// [`Reactor::timeout`](crate::Reactor::timeout) has passed.
#[cfg(all(unix, not(mio_unsupported_force_poll_poll)))]
impl std::os::fd::AsFd for Mio {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.poll.registry().as_fd()
    }
}
