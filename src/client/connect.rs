//! Connecting, on a blocking socket.

use std::fmt::Display;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use socket2::SockRef;

use super::{Error, broken, set_timeout};

/// Connects to the first address that accepts, and sets the read timeout.
pub(super) fn connect(
    addr: &(impl ToSocketAddrs + Display),
    timeout: Duration,
) -> Result<TcpStream, Error> {
    let found = addr
        .to_socket_addrs()
        .map_err(|error| Error::NotFound { addr: addr.to_string(), error })?;
    let mut failure = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for one in found {
        let connected = connect_to(one, timeout)
            .and_then(|stream| set_timeout(&stream, timeout).map(|()| stream));
        match connected {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    let addr = addr.to_string();
    Err(match failure.kind() {
        ErrorKind::TimedOut => Error::ConnectTimedOut { addr, timeout },
        // The connection was established, and reset before its options were set.
        ErrorKind::ConnectionReset => broken(addr, failure, timeout, 0),
        _ => Error::Connect { addr, error: failure },
    })
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
pub(super) fn at_least_a_moment(timeout: Duration) -> Duration {
    timeout.max(Duration::from_millis(1))
}
