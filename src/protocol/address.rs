//! [`Address`], one end of a connection, and [`Accepted`], which has both ends.

use std::fmt;
use std::net::{AddrParseError, IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use super::{ConnId, ListenerId};

/// One end of a connection.
///
/// ```
/// use campanile::Address;
///
/// let inet = Address::from(std::net::SocketAddr::from(([127, 0, 0, 1], 12345)));
/// let unix = Address::from(std::path::Path::new("/run/echo.sock"));
/// assert_eq!((inet.to_string(), unix.to_string()), ("127.0.0.1:12345".into(), "unix:/run/echo.sock".into()));
/// assert_eq!((inet.path(), unix.ip()), (None, None));
/// ```
///
/// Text, for example from a configuration file, is parsed. It names no host, because the call does not
/// ask a name server:
///
/// ```
/// # use campanile::Address;
/// let unix: Address = "unix:/run/echo.sock".parse()?;
/// let inet: Address = "[::1]:7".parse()?;
/// assert!(unix.path().is_some() && inet.inet().is_some());
/// assert!("localhost:7".parse::<Address>().is_err());
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// An IP address and a port.
    Inet(SocketAddr),
    /// The path of a Unix socket. It is empty for a socket without a name, as that of most clients is.
    Unix(Arc<Path>),
}

impl Address {
    /// Returns the IP address. An IPv4 address that is mapped into IPv6 becomes IPv4.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.inet().map(|addr| addr.ip().to_canonical())
    }

    /// Returns the socket address if it is an IP address and a port.
    #[must_use]
    pub fn inet(&self) -> Option<SocketAddr> {
        match self {
            Address::Inet(addr) => Some(*addr),
            Address::Unix(_) => None,
        }
    }

    /// Returns the path if it is that of a Unix socket.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Address::Inet(_) => None,
            Address::Unix(path) => Some(path),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(addr: SocketAddr) -> Address {
        Address::Inet(addr)
    }
}

impl From<&Path> for Address {
    fn from(path: &Path) -> Address {
        Address::Unix(path.into())
    }
}

impl From<&PathBuf> for Address {
    fn from(path: &PathBuf) -> Address {
        path.as_path().into()
    }
}

impl From<PathBuf> for Address {
    fn from(path: PathBuf) -> Address {
        Address::Unix(path.into())
    }
}

/// Parses the form that `Display` writes.
impl FromStr for Address {
    type Err = AddrParseError;

    fn from_str(text: &str) -> Result<Address, AddrParseError> {
        match text.strip_prefix("unix:") {
            Some(path) => Ok(Path::new(path).into()),
            None => text.parse().map(Address::Inet),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Inet(addr) => addr.fmt(f),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A connection that was just accepted, for the closure that creates its protocol.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Accepted {
    /// The id of the connection, for a [`Handle`](crate::Handle).
    pub id: ConnId,
    /// The listener that accepted it, for [`Handle::broadcast`](crate::Handle::broadcast).
    pub listener: ListenerId,
    /// The address of the peer.
    pub peer: Address,
    /// The address of the listener, which can be the unspecified address.
    pub local: Address,
}

impl Accepted {
    /// Creates the value that a listener on `local` would pass on, to unit-test a protocol's constructor.
    /// `listener` is the id of the reactor's first listener.
    ///
    /// ```
    /// # use campanile::{Accepted, Outbox};
    /// # use std::net::SocketAddr;
    /// let out = Outbox::new(std::time::Instant::now());
    /// let (peer, local) = (SocketAddr::from(([192, 0, 2, 1], 50000)), SocketAddr::from(([0; 4], 7)));
    /// let accepted = Accepted::new(out.id(), peer, local);
    /// assert_eq!(accepted.peer.inet(), Some(peer));
    /// ```
    #[must_use]
    pub fn new(id: ConnId, peer: impl Into<Address>, local: impl Into<Address>) -> Accepted {
        Accepted { id, listener: ListenerId(0), peer: peer.into(), local: local.into() }
    }
}
