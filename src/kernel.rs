//! [`Kernel`], the interface between the loop and an operating system, and [`Mio`], which implements it.
//!
//! This is the only file of the core that imports mio and socket2.

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
    pub is_plain: bool,
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

    /// Returns the address of a listener.
    fn local_addr(&self, listener: &Self::Listener) -> io::Result<Address>;

    /// Accepts one connection. Fails as accept(2) does.
    fn accept(&mut self, listener: &mut Self::Listener) -> io::Result<(Self::Stream, Address)>;

    /// Asks for the next event of a listener, without a call that returns `WouldBlock`: an event
    /// comes as soon as a client waits, and at once if one waits already.
    fn rearm(&mut self, listener: &mut Self::Listener, key: usize) -> io::Result<()>;

    /// Begins to connect. The first writable event shows that there is a result.
    fn connect(&mut self, addr: SocketAddr, limits: &Limits) -> io::Result<Self::Stream>;

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
    fn look(&mut self, _id: ConnId, _view: impl FnOnce() -> View) {}
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

impl From<Token> for Source {
    fn from(Token(token): Token) -> Source {
        if token < usize::MAX / 2 { Source::Connection(token) } else { rare_source(token) }
    }
}

fn rare_source(token: usize) -> Source {
    if token < usize::MAX { Source::Listener(usize::MAX - 1 - token) } else { Source::Waker }
}

impl Mio {
    /// Creates a selector that fetches at most `events` events per turn.
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
            Event {
                readable: has_special_bits || event.is_readable(),
                writable: has_special_bits || event.is_writable(),
                is_plain: EPOLL && !has_special_bits,
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
        // ANCHOR: backlog
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
        // An urgent byte ends a read early. A short read means an empty stream only if the selector
        // reports urgent bytes.
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

/// Lends the selector's descriptor. An outer loop polls it, and calls
/// [`Reactor::turn`](crate::Reactor::turn) when it is readable or when
/// [`Reactor::timeout`](crate::Reactor::timeout) has passed.
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
    /// std sends with `MSG_NOSIGNAL`, which prevents SIGPIPE whatever its disposition is. A vectored
    /// write would not prevent it.
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
        // ANCHOR: reset
        // With a linger time of zero, the drop that follows resets the connection (socket(7)). If
        // this call fails, the drop closes it in order.
        let _ = SockRef::from(&self.0).set_linger(Some(Duration::ZERO));
    }

    #[cfg(target_os = "linux")]
    fn write_last(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // MSG_MORE makes the kernel hold an incomplete segment back, so the last bytes and the FIN
        // share one segment. The call bypasses mio's write: `try_io` lets the selectors other than
        // epoll watch the socket again after `WouldBlock`.
        let flags = libc::MSG_NOSIGNAL | libc::MSG_MORE;
        self.0.try_io(|| SockRef::from(&self.0).send_with_flags(bytes, flags))
    }

    fn connected(&mut self) -> io::Result<bool> {
        // A writable event can be spurious. So `take_error` reports a failure, and only a peer address
        // proves a connection; mio requires both checks.
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
