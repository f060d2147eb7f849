//! Connecting, on a blocking socket.

use std::fmt::{self, Display};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use super::{Error, broken};

/// How long an address may be silent before the next one is tried beside it.
const HEAD_START: Duration = Duration::from_millis(250);

/// An address of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Server {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Server::Tcp(addr) => addr.fmt(f),
            Server::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A value that names a server: whatever std resolves to IP addresses, or a [`Server`].
pub trait ToServers: Display {
    /// Returns the addresses of the server.
    ///
    /// # Errors
    /// If the name cannot be resolved.
    fn to_servers(&self) -> io::Result<Vec<Server>>;
}

impl<T: ToSocketAddrs + Display> ToServers for T {
    fn to_servers(&self) -> io::Result<Vec<Server>> {
        Ok(self.to_socket_addrs()?.map(Server::Tcp).collect())
    }
}

impl ToServers for Server {
    fn to_servers(&self) -> io::Result<Vec<Server>> {
        Ok(vec![self.clone()])
    }
}

/// A connected TCP or Unix socket, which blocks.
#[derive(Debug)]
pub(super) struct Stream(Socket);

impl Stream {
    pub(super) fn try_clone(&self) -> io::Result<Stream> {
        self.0.try_clone().map(Stream)
    }

    pub(super) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.0.shutdown(how)
    }

    pub(super) fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.0.set_read_timeout(Some(at_least_a_moment(timeout)))
    }
}

impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.0).read(buffer)
    }
}

impl Write for &Stream {
    /// Writes without SIGPIPE. Systems without `MSG_NOSIGNAL` have no SIGPIPE, or an option of the
    /// socket that std and socket2 set.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        #[cfg(any(windows, target_vendor = "apple"))]
        let flags = 0;
        #[cfg(not(any(windows, target_vendor = "apple")))]
        let flags = libc::MSG_NOSIGNAL;
        self.0.send_with_flags(bytes, flags)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Connects to the address that accepts first, and sets the read timeout.
pub(super) fn connect(addr: &impl ToServers, timeout: Duration) -> Result<Stream, Error> {
    let found =
        addr.to_servers().map_err(|error| Error::NotFound { addr: addr.to_string(), error })?;
    let failure = match race(found, timeout) {
        Ok(stream) => return Ok(stream),
        Err(error) => error,
    };
    let addr = addr.to_string();
    Err(match failure.kind() {
        ErrorKind::TimedOut => Error::ConnectTimedOut { addr, timeout },
        // The connection was established, and reset before its options were set.
        ErrorKind::ConnectionReset => broken(addr, failure, timeout, 0),
        _ => Error::Connect { addr, error: failure },
    })
}

/// Tries the addresses in turn, as RFC 8305 says: while one is silent, the next one is tried beside it.
/// Returns the first connection. If none is made, returns the error of the last address.
fn race(servers: Vec<Server>, timeout: Duration) -> io::Result<Stream> {
    if let [only] = &servers[..] {
        return attempt(only, timeout);
    }
    let mut failure = (0, io::Error::new(ErrorKind::NotFound, "the name has no address"));
    let (sender, outcomes) = mpsc::channel();
    let (mut servers, mut under_way) = ((1..).zip(servers), 0);
    loop {
        let started = servers.next();
        if let Some((number, server)) = started {
            start(number, server, timeout, &sender);
            under_way += 1;
        } else if under_way == 0 {
            return Err(failure.1);
        }
        let outcome = match servers.size_hint() {
            (0, _) => outcomes.recv().ok(),
            _ => outcomes.recv_timeout(HEAD_START).ok(),
        };
        let Some((number, outcome)) = outcome else { continue };
        under_way -= 1;
        match outcome {
            Ok(stream) => return Ok(stream),
            Err(error) if number > failure.0 => failure = (number, error),
            Err(_) => {}
        }
    }
}

/// Begins an attempt on a thread of its own. Without a thread, it is made at once.
fn start(number: usize, server: Server, timeout: Duration, sender: &Sender<(usize, Attempt)>) {
    let (later, to) = (sender.clone(), server.clone());
    // Nothing receives an outcome that comes too late: its connection closes.
    let report = move || drop(later.send((number, attempt(&to, timeout))));
    if thread::Builder::new().name("connect".into()).spawn(report).is_err() {
        let _ = sender.send((number, attempt(&server, timeout)));
    }
}

type Attempt = io::Result<Stream>;

fn attempt(server: &Server, timeout: Duration) -> Attempt {
    let stream = Stream(match server {
        Server::Tcp(addr) => connect_to(*addr, timeout)?.into(),
        Server::Unix(path) => connect_unix(path, timeout)?,
    });
    stream.set_timeout(timeout)?;
    Ok(stream)
}

/// Connects to one address. A connection to itself counts as refused: TCP can connect a socket to
/// its own port (simultaneous open) if the kernel happens to choose that port, and no server is there.
pub(crate) fn connect_to(addr: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&addr, at_least_a_moment(timeout))?;
    if is_to_itself(&stream) {
        // The reset leaves no TIME_WAIT, which would block that port for a server.
        SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        return Err(io::Error::new(
            ErrorKind::ConnectionRefused,
            "Connection refused: the socket connected to itself",
        ));
    }
    Ok(stream)
}

/// Connects to a Unix socket. If its backlog is full, Linux waits for as long as a write may take, and
/// the other systems refuse.
fn connect_unix(path: &Path, timeout: Duration) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_write_timeout(Some(at_least_a_moment(timeout)))?;
    socket.connect(&SockAddr::unix(path)?).map_err(|error| match error.kind() {
        ErrorKind::WouldBlock => ErrorKind::TimedOut.into(),
        _ => error,
    })?;
    socket.set_write_timeout(None)?;
    Ok(socket)
}

/// A connection that the peer has reset already has no peer address; the next read reports the reset.
fn is_to_itself(stream: &TcpStream) -> bool {
    match (stream.local_addr(), stream.peer_addr()) {
        (Ok(local), Ok(peer)) => (local.ip(), local.port()) == (peer.ip(), peer.port()),
        _ => false,
    }
}

/// Whether this machine has no local port, descriptor or memory left for another connection.
pub(crate) fn is_exhausted(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EADDRNOTAVAIL)
    )
}

/// std refuses a timeout of zero.
fn at_least_a_moment(timeout: Duration) -> Duration {
    timeout.max(Duration::from_millis(1))
}
