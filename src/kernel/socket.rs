//! The sockets of [`Mio`](super::Mio): TCP everywhere, Unix sockets on Unix.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use mio::event::Source;
use mio::net::{TcpListener, TcpStream};
use socket2::{Domain, SockRef, Type};

#[cfg(unix)]
use super::unix::{self, UnixListener};
use crate::connection::Stream;
use crate::limits::Limits;
use crate::protocol::Address;

/// A connection that never blocks.
#[derive(Debug)]
pub struct Socket(Inner);

#[derive(Debug)]
enum Inner {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(mio::net::UnixStream),
}

/// A listening socket that never blocks. One that was bound to a path removes it when it is dropped.
#[derive(Debug)]
pub struct Passive(Listening);

#[derive(Debug)]
enum Listening {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(UnixListener),
}

/// Sets the options of a connection's socket. TCP connections inherit them from their listener, which
/// saves the calls per connection.
pub(super) fn configure(socket: SockRef<'_>, is_tcp: bool, limits: &Limits) -> io::Result<()> {
    if is_tcp {
        socket.set_tcp_nodelay(true)?;
    }
    limits.send_buffer.map_or(Ok(()), |size| socket.set_send_buffer_size(size))?;
    limits.receive_buffer.map_or(Ok(()), |size| socket.set_recv_buffer_size(size))
}

impl Passive {
    pub(super) fn bind(addr: &Address, limits: &Limits) -> io::Result<Passive> {
        match addr {
            Address::Inet(addr) => Passive::adopt(bind_tcp(*addr, limits)?, limits),
            #[cfg(unix)]
            Address::Unix(path) => {
                UnixListener::bind(path, limits).map(|listener| Passive(Listening::Unix(listener)))
            }
            #[cfg(not(unix))]
            Address::Unix(path) => Err(unsupported(path)),
        }
    }

    pub(super) fn adopt(listener: std::net::TcpListener, limits: &Limits) -> io::Result<Passive> {
        configure(SockRef::from(&listener), true, limits)?;
        listener.set_nonblocking(true)?;
        Ok(Passive(Listening::Tcp(TcpListener::from_std(listener))))
    }

    #[cfg(unix)]
    pub(super) fn adopt_unix(
        listener: std::os::unix::net::UnixListener,
        limits: &Limits,
    ) -> io::Result<Passive> {
        UnixListener::adopt(listener, limits).map(|listener| Passive(Listening::Unix(listener)))
    }

    pub(super) fn local_addr(&self) -> io::Result<Address> {
        match &self.0 {
            Listening::Tcp(listener) => listener.local_addr().map(Address::Inet),
            #[cfg(unix)]
            Listening::Unix(listener) => Ok(listener.local_addr()),
        }
    }

    pub(super) fn accept(&mut self) -> io::Result<(Socket, Address)> {
        match &self.0 {
            Listening::Tcp(listener) => {
                let (stream, peer) = listener.accept()?;
                Ok((Socket(Inner::Tcp(stream)), Address::Inet(peer)))
            }
            #[cfg(unix)]
            Listening::Unix(listener) => {
                let (stream, peer) = listener.accept()?;
                Ok((Socket(Inner::Unix(stream)), peer))
            }
        }
    }

    /// Only Linux accepts a second listen(2) that makes the backlog shorter.
    pub(super) fn set_backlog(&self, backlog: u32) -> io::Result<()> {
        match &self.0 {
            Listening::Tcp(listener) if cfg!(target_os = "linux") => {
                SockRef::from(listener).listen(i32::try_from(backlog).unwrap_or(i32::MAX))
            }
            _ => Err(ErrorKind::Unsupported.into()),
        }
    }

    pub(super) fn source(&mut self) -> &mut dyn Source {
        match &mut self.0 {
            Listening::Tcp(listener) => listener,
            #[cfg(unix)]
            Listening::Unix(listener) => listener.source(),
        }
    }
}

#[cfg(not(unix))]
fn unsupported(path: &std::path::Path) -> io::Error {
    let path = path.display();
    let text =
        format!("cannot use unix:{path}: this system has no Unix sockets; use a TCP address");
    io::Error::new(ErrorKind::Unsupported, text)
}

pub(super) fn backlog(limits: &Limits) -> i32 {
    i32::try_from(limits.backlog).unwrap_or(i32::MAX)
}

fn bind_tcp(addr: SocketAddr, limits: &Limits) -> io::Result<std::net::TcpListener> {
    let socket = socket2::Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    if addr.is_ipv6() {
        // The default differs between systems: leave the port free for a listener on IPv4.
        socket.set_only_v6(true)?;
    }
    // `adopt` does it again, but tcp(7) wants the size of the buffers before listen(2).
    configure(SockRef::from(&socket), true, limits)?;
    socket.bind(&addr.into())?;
    // ANCHOR: backlog
    // std and mio would listen with a backlog of 128, or 1024.
    socket.listen(backlog(limits))?;
    Ok(socket.into())
}

impl Socket {
    pub(super) fn connect(addr: &Address, limits: &Limits) -> io::Result<Socket> {
        match addr {
            Address::Inet(addr) => {
                let stream = TcpStream::connect(*addr)?;
                configure(SockRef::from(&stream), true, limits)?;
                Ok(Socket(Inner::Tcp(stream)))
            }
            #[cfg(unix)]
            Address::Unix(path) => {
                unix::connect(path, limits).map(|stream| Socket(Inner::Unix(stream)))
            }
            #[cfg(not(unix))]
            Address::Unix(path) => Err(unsupported(path)),
        }
    }

    /// Returns whether a short read can mean that the stream is empty. On a Unix socket a passed
    /// descriptor ends a read with bytes left behind it.
    pub(super) fn is_tcp(&self) -> bool {
        matches!(self.0, Inner::Tcp(_))
    }

    pub(super) fn source(&mut self) -> &mut dyn Source {
        match &mut self.0 {
            Inner::Tcp(stream) => stream,
            #[cfg(unix)]
            Inner::Unix(stream) => stream,
        }
    }

    fn as_ref(&self) -> SockRef<'_> {
        match &self.0 {
            Inner::Tcp(stream) => SockRef::from(stream),
            #[cfg(unix)]
            Inner::Unix(stream) => SockRef::from(stream),
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Inner::Tcp(stream) => stream.read(buffer),
            #[cfg(unix)]
            Inner::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Socket {
    /// std sends with `MSG_NOSIGNAL`, which prevents SIGPIPE whatever its disposition is. A vectored
    /// write would not prevent it.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Inner::Tcp(stream) => stream.write(bytes),
            #[cfg(unix)]
            Inner::Unix(stream) => unix::write(stream, bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Socket {
    fn shutdown_write(&mut self) -> io::Result<()> {
        match &self.0 {
            Inner::Tcp(stream) => stream.shutdown(std::net::Shutdown::Write),
            #[cfg(unix)]
            Inner::Unix(stream) => stream.shutdown(std::net::Shutdown::Write),
        }
    }

    fn abort(&mut self) {
        // ANCHOR: reset
        // With a linger time of zero, the drop that follows resets the connection (socket(7)). If
        // this call fails, the drop closes it in order. On a Unix socket it has no effect: the peer reads
        // EOF (on Linux `ECONNRESET` if we leave bytes unread).
        let _ = self.as_ref().set_linger(Some(Duration::ZERO));
    }

    #[cfg(target_os = "linux")]
    fn write_last(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Inner::Tcp(stream) = &self.0 else {
            return self.write(bytes);
        };
        // MSG_MORE makes the kernel hold an incomplete segment back, so the last bytes and the FIN
        // share one segment. The call bypasses mio's write: `try_io` lets the selectors other than
        // epoll watch the socket again after `WouldBlock`.
        let flags = libc::MSG_NOSIGNAL | libc::MSG_MORE;
        stream.try_io(|| SockRef::from(stream).send_with_flags(bytes, flags))
    }

    fn connected(&mut self) -> io::Result<bool> {
        // A writable event can be spurious. So `take_error` reports a failure, and only a peer address
        // proves a connection; mio requires both checks.
        if let Some(error) = self.as_ref().take_error()? {
            return Err(error);
        }
        match self.as_ref().peer_addr() {
            // TCP can connect a socket to itself (simultaneous open on a free port): no server is
            // there. The reset leaves no TIME_WAIT, which would block that port for a server.
            Ok(peer) if is_same(peer.as_socket(), self.as_ref().local_addr()?.as_socket()) => {
                self.abort();
                let text = "Connection refused: the socket connected to itself";
                Err(io::Error::new(ErrorKind::ConnectionRefused, text))
            }
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn local_addr(&self) -> io::Result<Address> {
        match &self.0 {
            Inner::Tcp(stream) => stream.local_addr().map(Address::Inet),
            #[cfg(unix)]
            Inner::Unix(stream) => Ok(unix::local_addr(stream)),
        }
    }
}

/// Whether both name the same TCP socket, whatever flow they belong to.
fn is_same(one: Option<SocketAddr>, other: Option<SocketAddr>) -> bool {
    one.is_some()
        && one.map(|addr| (addr.ip(), addr.port())) == other.map(|addr| (addr.ip(), addr.port()))
}
