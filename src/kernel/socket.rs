//! The sockets of [`Mio`](super::Mio): TCP everywhere, Unix sockets on Unix.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use mio::event::Source;
use mio::net::{TcpListener, TcpStream};
use socket2::{Domain, SockRef, Type};

#[cfg(unix)]
use self::unix::{UnixListener, UnixStream};
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
    Unix(UnixStream),
}

/// A listening socket that never blocks. One on a Unix socket removes its path when it is dropped.
#[derive(Debug)]
pub struct Passive(Listening);

#[derive(Debug)]
enum Listening {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(UnixListener),
}

/// Sets the options of a connection's socket. Connections inherit them from their listener, which
/// saves the calls per connection.
fn configure(socket: SockRef<'_>, is_tcp: bool, limits: &Limits) -> io::Result<()> {
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
                let listener = UnixListener::bind(path, backlog(limits))?;
                configure(listener.as_ref(), false, limits)?;
                Ok(Passive(Listening::Unix(listener)))
            }
            #[cfg(not(unix))]
            Address::Unix(_) => Err(ErrorKind::Unsupported.into()),
        }
    }

    pub(super) fn adopt(listener: std::net::TcpListener, limits: &Limits) -> io::Result<Passive> {
        configure(SockRef::from(&listener), true, limits)?;
        listener.set_nonblocking(true)?;
        Ok(Passive(Listening::Tcp(TcpListener::from_std(listener))))
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

    pub(super) fn source(&mut self) -> &mut dyn Source {
        match &mut self.0 {
            Listening::Tcp(listener) => listener,
            #[cfg(unix)]
            Listening::Unix(listener) => listener.source(),
        }
    }
}

fn backlog(limits: &Limits) -> i32 {
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
                let stream = UnixStream::connect(path)?;
                configure(stream.as_ref(), false, limits)?;
                Ok(Socket(Inner::Unix(stream)))
            }
            #[cfg(not(unix))]
            Address::Unix(_) => Err(ErrorKind::Unsupported.into()),
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
            Inner::Unix(stream) => stream.source(),
        }
    }

    fn as_ref(&self) -> SockRef<'_> {
        match &self.0 {
            Inner::Tcp(stream) => SockRef::from(stream),
            #[cfg(unix)]
            Inner::Unix(stream) => stream.as_ref(),
        }
    }
}

impl Read for Socket {
    #[inline]
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
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Inner::Tcp(stream) => stream.write(bytes),
            #[cfg(unix)]
            Inner::Unix(stream) => stream.write(bytes),
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
            Inner::Unix(stream) => stream.shutdown_write(),
        }
    }

    fn abort(&mut self) {
        // ANCHOR: reset
        // With a linger time of zero, the drop that follows resets the connection (socket(7)). If
        // this call fails, the drop closes it in order. A Unix socket has no reset.
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
            Inner::Unix(stream) => Ok(stream.local_addr()),
        }
    }
}

/// Whether both name the same TCP socket, whatever flow they belong to.
fn is_same(one: Option<SocketAddr>, other: Option<SocketAddr>) -> bool {
    one.is_some()
        && one.map(|addr| (addr.ip(), addr.port())) == other.map(|addr| (addr.ip(), addr.port()))
}

#[cfg(unix)]
mod unix {
    //! Unix sockets, unix(7). A path stays when its server ends, so binding has rules of its own.

    use std::fs;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    use std::io::Write;
    use std::io::{self, ErrorKind, Read};
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    use std::path::Path;
    use std::sync::Arc;

    use mio::event::Source;
    use socket2::{Domain, SockAddr, SockRef, Socket, Type};

    use crate::protocol::Address;

    #[derive(Debug)]
    pub(super) struct UnixStream(mio::net::UnixStream);

    #[derive(Debug)]
    pub(super) struct UnixListener {
        inner: mio::net::UnixListener,
        path: Arc<Path>,
        /// The device and inode of the path, which shows at the end whether it is still ours.
        file: (u64, u64),
    }

    impl UnixListener {
        /// Binds to `path`. Takes over a socket without a server; refuses any other file.
        pub(super) fn bind(path: &Arc<Path>, backlog: i32) -> io::Result<UnixListener> {
            remove_stale(path)?;
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            socket.bind(&SockAddr::unix(path)?)?;
            socket.listen(backlog)?;
            socket.set_nonblocking(true)?;
            let file = fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))?;
            let inner = std::os::unix::net::UnixListener::from(std::os::fd::OwnedFd::from(socket));
            let inner = mio::net::UnixListener::from_std(inner);
            Ok(UnixListener { inner, path: Arc::clone(path), file })
        }

        pub(super) fn accept(&self) -> io::Result<(UnixStream, Address)> {
            let (stream, peer) = self.inner.accept()?;
            Ok((UnixStream(stream), address(peer.as_pathname())))
        }

        pub(super) fn local_addr(&self) -> Address {
            Address::Unix(Arc::clone(&self.path))
        }

        pub(super) fn as_ref(&self) -> SockRef<'_> {
            SockRef::from(&self.inner)
        }

        pub(super) fn source(&mut self) -> &mut dyn Source {
            &mut self.inner
        }
    }

    impl Drop for UnixListener {
        fn drop(&mut self) {
            let file = fs::symlink_metadata(&self.path);
            if file.is_ok_and(|file| (file.dev(), file.ino()) == self.file) {
                // If it fails, the next server finds a stale socket and takes it over.
                let _ = fs::remove_file(&self.path);
            }
        }
    }

    /// Removes a socket that no server listens on any more.
    fn remove_stale(path: &Path) -> io::Result<()> {
        let Ok(file) = fs::symlink_metadata(path) else {
            return Ok(());
        };
        let refused = |text: &str| {
            let path = path.display();
            Err(io::Error::new(ErrorKind::AddrInUse, format!("cannot listen on {path}: {text}")))
        };
        if !file.file_type().is_socket() {
            return refused("a file of another kind is there; remove it, or choose another path");
        }
        let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // A server with a full backlog would block the connect.
        probe.set_nonblocking(true)?;
        match probe.connect(&SockAddr::unix(path)?) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                refused("the socket there belongs to another user; choose another path")
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            _ => refused("a server listens there; stop it, or choose another path"),
        }
    }

    fn address(path: Option<&Path>) -> Address {
        path.unwrap_or(Path::new("")).into()
    }

    impl UnixStream {
        pub(super) fn connect(path: &Path) -> io::Result<UnixStream> {
            mio::net::UnixStream::connect(path).map(UnixStream)
        }

        pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(buffer)
        }

        /// std's write does not set `MSG_NOSIGNAL` in every version: SIGPIPE would end the process.
        pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            #[cfg(any(target_os = "linux", target_os = "android"))]
            return self
                .0
                .try_io(|| SockRef::from(&self.0).send_with_flags(bytes, libc::MSG_NOSIGNAL));
            #[cfg(not(any(target_os = "linux", target_os = "android")))]
            self.0.write(bytes)
        }

        pub(super) fn shutdown_write(&self) -> io::Result<()> {
            self.0.shutdown(std::net::Shutdown::Write)
        }

        pub(super) fn local_addr(&self) -> Address {
            let addr = self.0.local_addr().ok();
            address(addr.as_ref().and_then(|addr| addr.as_pathname()))
        }

        pub(super) fn as_ref(&self) -> SockRef<'_> {
            SockRef::from(&self.0)
        }

        pub(super) fn source(&mut self) -> &mut dyn Source {
            &mut self.0
        }
    }
}
