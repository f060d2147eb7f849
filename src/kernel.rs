//! What the loop asks of an operating system, and [`Mio`], which asks Linux and its kin.
//!
//! The only file of the core that imports mio and socket2: mio's whole contract on one screen.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, SockRef, Socket, Type};

use crate::connection::{Stream, View};
use crate::limits::Limits;
use crate::protocol::{Address, ConnId};

/// Whom an event is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Somebody used the waker.
    Waker,
    /// The listener with this key.
    Listener(usize),
    /// The connection with this key.
    Connection(usize),
}

/// What the kernel said of a source. A hint: trying tells the truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Whom it is for.
    pub source: Source,
    /// A read, or an accept, may give something.
    pub readable: bool,
    /// A write may be taken.
    pub writable: bool,
    /// Nothing but data or room: no closed half, no error, no urgent byte; and a selector that tells
    /// of each of these. While all events of a stream are plain, a short read means that it is empty.
    pub is_plain: bool,
}

/// The steps of a turn, for whoever watches the loop.
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

/// Wakes a sleeping poll from any thread.
pub trait Wake: Send + Sync {
    /// Makes the current or the next poll return. Calls may be merged, never lost.
    fn wake(&self) -> io::Result<()>;
}

/// What the loop asks of an operating system: the seam between the loop and the world.
///
/// [`Mio`] is its one real implementation. Anything else, such as a simulator, turns the very same
/// loop.
///
/// The contract is mio's: events are edges. After one, its source is tried until `WouldBlock`, or
/// rearmed; only then another is promised. A source that is ready when it is registered gets an
/// event, too.
pub trait Kernel: Sized {
    /// A connection's stream.
    type Stream: Stream;
    /// A passive socket.
    type Listener;

    /// Sleeps until something happens, at most for `patience`, and fetches a batch of events. After
    /// an error the batch is empty.
    fn poll(&mut self, patience: Option<Duration>) -> io::Result<()>;

    /// The batch that was fetched last.
    fn events(&self) -> impl Iterator<Item = Event>;

    /// How many events fit into a batch. After a full one, more may be waiting.
    fn capacity(&self) -> usize;

    /// A monotonic clock.
    fn now(&self) -> Instant;

    /// The one waker of this kernel.
    fn waker(&self) -> Arc<dyn Wake>;

    /// Binds a listener and registers it under `key`.
    fn listen(
        &mut self,
        addr: SocketAddr,
        key: usize,
        limits: &Limits,
    ) -> io::Result<Self::Listener>;

    /// Takes over a bound listener: configures it as `listen` does and registers it under `key`.
    fn adopt(
        &mut self,
        listener: std::net::TcpListener,
        key: usize,
        limits: &Limits,
    ) -> io::Result<Self::Listener>;

    /// Where a listener is bound.
    fn local_addr(&self, listener: &Self::Listener) -> io::Result<Address>;

    /// Takes one waiting connection, or fails as accept(2) does.
    fn accept(&mut self, listener: &mut Self::Listener) -> io::Result<(Self::Stream, Address)>;

    /// Promises the next event of a listener as `WouldBlock` would: one comes once somebody waits,
    /// and at once if somebody does already.
    fn rearm(&mut self, listener: &mut Self::Listener, key: usize) -> io::Result<()>;

    /// Begins to connect; the first writable event says that there is a result.
    fn connect(&mut self, addr: SocketAddr, limits: &Limits) -> io::Result<Self::Stream>;

    /// Asks for the events of a stream under `key`, once and for all; those of writing only if
    /// something can still be written.
    fn register(&mut self, stream: &mut Self::Stream, key: usize, writes: bool) -> io::Result<()>;

    /// Makes poll return once somebody else's descriptor can be read; no event tells of it.
    ///
    /// # Errors
    /// If it cannot be watched: no file can, and a kernel need not know how.
    #[cfg(unix)]
    fn watch(&mut self, _fd: std::os::fd::BorrowedFd<'_>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// A phase of the turn begins.
    fn phase(&mut self, _phase: Phase) {}

    /// A connection was run; `view` tells how it stands.
    fn look(&mut self, _id: ConnId, _view: impl FnOnce() -> View) {}
}

/// The operating system, by way of mio.
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

/// Whether the selector is epoll, which tells of a FIN and of an urgent byte with the data.
const EPOLL: bool = cfg!(all(target_os = "linux", not(mio_unsupported_force_poll_poll)));

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

impl From<Token> for Source {
    fn from(Token(token): Token) -> Source {
        if token < usize::MAX / 2 { Source::Connection(token) } else { rare_source(token) }
    }
}

fn rare_source(token: usize) -> Source {
    if token < usize::MAX { Source::Listener(usize::MAX - 1 - token) } else { Source::Waker }
}

impl Mio {
    /// A selector with room for `events` events a turn.
    pub fn new(events: usize) -> io::Result<Mio> {
        let poll = Poll::new()?;
        let waker = Arc::new(mio::Waker::new(poll.registry(), Source::Waker.into())?);
        Ok(Mio { poll, events: Events::with_capacity(events.max(1)), waker })
    }
}

/// Sets the options of a connection's socket. Connections inherit them from their listener, which
/// saves the calls per connection.
fn configure(socket: &Socket, limits: &Limits) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    limits.send_buffer.map_or(Ok(()), |size| socket.set_send_buffer_size(size))?;
    limits.receive_buffer.map_or(Ok(()), |size| socket.set_recv_buffer_size(size))
}

impl Kernel for Mio {
    type Stream = Tcp;
    type Listener = TcpListener;

    fn poll(&mut self, patience: Option<Duration>) -> io::Result<()> {
        let outcome = self.poll.poll(&mut self.events, patience);
        if outcome.is_err() {
            self.events.clear();
        }
        outcome
    }

    fn events(&self) -> impl Iterator<Item = Event> {
        self.events.iter().map(|event| {
            // Closed halves, errors and urgent bytes are hints, too: to try both, and the calls tell.
            let is_odd = event.is_error()
                || event.is_read_closed()
                || event.is_write_closed()
                || event.is_priority();
            Event {
                readable: is_odd || event.is_readable(),
                writable: is_odd || event.is_writable(),
                is_plain: EPOLL && !is_odd,
                source: event.token().into(),
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

    fn listen(&mut self, addr: SocketAddr, key: usize, limits: &Limits) -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
        #[cfg(unix)]
        socket.set_reuse_address(true)?;
        if addr.is_ipv6() {
            // The default differs between systems: leave the port free for a listener on IPv4.
            socket.set_only_v6(true)?;
        }
        // `adopt` does it again, but tcp(7) wants the size of the buffers before listen(2).
        configure(&socket, limits)?;
        socket.bind(&addr.into())?;
        // std and mio would listen with a backlog of 128, or 1024.
        socket.listen(i32::try_from(limits.backlog).unwrap_or(i32::MAX))?;
        self.adopt(socket.into(), key, limits)
    }

    fn adopt(
        &mut self,
        listener: std::net::TcpListener,
        key: usize,
        limits: &Limits,
    ) -> io::Result<TcpListener> {
        configure(&SockRef::from(&listener), limits)?;
        listener.set_nonblocking(true)?;
        let (mut listener, token) = (TcpListener::from_std(listener), Source::Listener(key).into());
        self.poll.registry().register(&mut listener, token, Interest::READABLE)?;
        Ok(listener)
    }

    fn local_addr(&self, listener: &TcpListener) -> io::Result<Address> {
        listener.local_addr().map(Address::Inet)
    }

    fn accept(&mut self, listener: &mut TcpListener) -> io::Result<(Tcp, Address)> {
        let (stream, peer) = listener.accept()?;
        Ok((Tcp(stream), Address::Inet(peer)))
    }

    fn rearm(&mut self, listener: &mut TcpListener, key: usize) -> io::Result<()> {
        self.poll.registry().reregister(listener, Source::Listener(key).into(), Interest::READABLE)
    }

    fn connect(&mut self, addr: SocketAddr, limits: &Limits) -> io::Result<Tcp> {
        let stream = TcpStream::connect(addr)?;
        configure(&SockRef::from(&stream), limits)?;
        Ok(Tcp(stream))
    }

    fn register(&mut self, stream: &mut Tcp, key: usize, writes: bool) -> io::Result<()> {
        let mut interest = Interest::READABLE;
        if writes {
            interest |= Interest::WRITABLE;
        }
        // An urgent byte ends a read early, so a short read can only be believed if we hear of one.
        #[cfg(target_os = "linux")]
        {
            interest |= Interest::PRIORITY;
        }
        self.poll.registry().register(&mut stream.0, Source::Connection(key).into(), interest)
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

/// For somebody else's loop, together with [`Reactor::timeout`](crate::Reactor::timeout).
#[cfg(all(unix, not(mio_unsupported_force_poll_poll)))]
impl std::os::fd::AsFd for Mio {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.poll.registry().as_fd()
    }
}

/// A TCP connection that never blocks.
#[derive(Debug)]
pub struct Tcp(TcpStream);

impl Read for Tcp {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Tcp {
    /// std sends with `MSG_NOSIGNAL`: no SIGPIPE, whatever the program's disposition is. Vectored
    /// writes would not, so there are none.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Tcp {
    fn shutdown_write(&mut self) -> io::Result<()> {
        self.0.shutdown(std::net::Shutdown::Write)
    }

    fn abort(&mut self) {
        // Lingering for no time at all is how a reset is spelled (socket(7)). If it fails, the drop
        // that follows ends the connection all the same.
        let _ = SockRef::from(&self.0).set_linger(Some(Duration::ZERO));
    }

    #[cfg(target_os = "linux")]
    fn write_last(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // MSG_MORE holds an incomplete segment back for the FIN. Inside `try_io`, so that mio's
        // selectors that are not epoll hear of a WouldBlock.
        let flags = libc::MSG_NOSIGNAL | libc::MSG_MORE;
        self.0.try_io(|| SockRef::from(&self.0).send_with_flags(bytes, flags))
    }

    fn connected(&mut self) -> io::Result<bool> {
        // A stray event can come before there is a result, so mio asks for both checks.
        if let Some(error) = self.0.take_error()? {
            return Err(error);
        }
        match self.0.peer_addr() {
            // TCP can connect a socket to itself (simultaneous open on a free port): no server is
            // there. The reset leaves no TIME_WAIT, which would block that port for a server.
            Ok(peer) if is_same(peer, self.0.local_addr()?) => {
                self.abort();
                let text = "Connection refused: the socket connected to itself";
                Err(io::Error::new(io::ErrorKind::ConnectionRefused, text))
            }
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn local_addr(&self) -> io::Result<Address> {
        self.0.local_addr().map(Address::Inet)
    }
}

/// Whether both name the same socket, whatever flow they belong to.
fn is_same(one: SocketAddr, other: SocketAddr) -> bool {
    (one.ip(), one.port()) == (other.ip(), other.port())
}
