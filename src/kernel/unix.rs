//! Unix sockets, unix(7). A path stays when its server ends, so binding has rules of its own.

use std::fs;
use std::io::{self, ErrorKind};
use std::mem::offset_of;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{self, Path, PathBuf};
use std::sync::Arc;

use mio::event::Source;
use mio::net::UnixStream;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use super::socket::{backlog, configure};
use crate::limits::Limits;
use crate::protocol::Address;

/// The longest path in bytes; the kernel wants a NUL behind it.
const LONGEST: usize = size_of::<libc::sockaddr_un>() - offset_of!(libc::sockaddr_un, sun_path) - 1;

#[derive(Debug)]
pub(super) struct UnixListener {
    /// Before `inner`, because fields are dropped in this order: see [`BoundPath`]. `None` if another
    /// process has bound the path, which may hand it to the next server, too.
    _path: Option<BoundPath>,
    local: Address,
    inner: mio::net::UnixListener,
    limits: Box<Limits>,
}

/// The path of a bound socket. Its drop removes the file, unless another file has replaced it. It must
/// be dropped before the socket is closed: until then, no other file can get the same inode.
#[derive(Debug)]
struct BoundPath {
    /// The working directory may change before the drop.
    absolute: PathBuf,
    /// Device and inode.
    file: (u64, u64),
}

impl BoundPath {
    fn new(path: &Path) -> io::Result<BoundPath> {
        let absolute = path::absolute(path)?;
        Ok(BoundPath { file: file(&absolute)?, absolute })
    }
}

impl Drop for BoundPath {
    fn drop(&mut self) {
        if file(&self.absolute).is_ok_and(|file| file == self.file) {
            // If it fails, the next server finds a stale socket and takes it over.
            let _ = fs::remove_file(&self.absolute);
        }
    }
}

fn file(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

impl UnixListener {
    /// Binds to `path`. Takes over a socket without a server; refuses any other file.
    pub(super) fn bind(path: &Arc<Path>, limits: &Limits) -> io::Result<UnixListener> {
        UnixListener::try_bind(path, limits).map_err(|error| {
            let (shown, advice) = (path.display(), advice(error.kind()));
            io::Error::new(
                error.kind(),
                format!("cannot listen on unix:{shown}: {error}; {advice}"),
            )
        })
    }

    fn try_bind(path: &Arc<Path>, limits: &Limits) -> io::Result<UnixListener> {
        let addr = to_address(path)?;
        remove_stale(path, &addr)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        configure(SockRef::from(&socket), false, limits)?;
        socket.set_nonblocking(true)?;
        socket.bind(&addr)?;
        let _path = Some(BoundPath::new(path)?);
        socket.listen(backlog(limits))?;
        let inner = std::os::unix::net::UnixListener::from(std::os::fd::OwnedFd::from(socket));
        let inner = mio::net::UnixListener::from_std(inner);
        let local = Address::Unix(Arc::clone(path));
        Ok(UnixListener { _path, local, inner, limits: limits.clone().into() })
    }

    /// Takes over a listener that another process has bound.
    pub(super) fn adopt(
        listener: std::os::unix::net::UnixListener,
        limits: &Limits,
    ) -> io::Result<UnixListener> {
        configure(SockRef::from(&listener), false, limits)?;
        listener.set_nonblocking(true)?;
        let local = from_address(listener.local_addr()?.as_pathname());
        let inner = mio::net::UnixListener::from_std(listener);
        Ok(UnixListener { _path: None, local, inner, limits: limits.clone().into() })
    }

    pub(super) fn accept(&self) -> io::Result<(UnixStream, Address)> {
        let (stream, peer) = self.inner.accept()?;
        // Linux lets no connection inherit the buffer sizes of a Unix listener. A failure would have
        // failed the bind already, unless the peer has closed: then the sizes do not matter.
        let _ = configure(SockRef::from(&stream), false, &self.limits);
        Ok((stream, from_address(peer.as_pathname())))
    }

    pub(super) fn local_addr(&self) -> Address {
        self.local.clone()
    }

    pub(super) fn source(&mut self) -> &mut dyn Source {
        &mut self.inner
    }
}

/// Removes a socket without a server. Two servers that find one stale path at the same moment can both
/// bind it; clients then reach the later one.
fn remove_stale(path: &Path, addr: &SockAddr) -> io::Result<()> {
    // If the folder cannot be searched, bind(2) reports it.
    let Ok(found) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    let refused = |kind, text| Err(io::Error::new(kind, text));
    if !found.file_type().is_socket() {
        return refused(ErrorKind::AlreadyExists, "a file that is not a socket is there");
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // The connect must not wait for a server with a full backlog. Linux reports it as `EAGAIN`; other
    // systems refuse the connect, so that such a server is not told from a stale socket.
    probe.set_nonblocking(true)?;
    let Err(error) = probe.connect(addr) else {
        return refused(ErrorKind::AddrInUse, "a server listens there");
    };
    match error.kind() {
        ErrorKind::ConnectionRefused => match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        },
        ErrorKind::NotFound => Ok(()),
        ErrorKind::PermissionDenied => {
            refused(ErrorKind::PermissionDenied, "the socket there does not let this user connect")
        }
        _ => refused(ErrorKind::AddrInUse, "a server listens there"),
    }
}

/// The next step after a failed bind.
fn advice(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::AddrInUse => "stop that server, or choose another path",
        ErrorKind::AlreadyExists => "move that file away, or choose another path",
        ErrorKind::InvalidInput => "choose a shorter path, or a relative one",
        ErrorKind::NotFound => "create the folder of this path, or choose another path",
        ErrorKind::PermissionDenied => "choose a path in a folder that this user may write to",
        _ => "choose another path, in a folder on a local disk",
    }
}

fn to_address(path: &Path) -> io::Result<SockAddr> {
    let bytes = path.as_os_str().as_bytes();
    // Linux would take an empty path, or one with a NUL in front, for a name without a file.
    if (1..=LONGEST).contains(&bytes.len()) && !bytes.contains(&0) {
        return SockAddr::unix(path);
    }
    let text = format!(
        "the path has {} bytes, and a Unix socket takes 1 to {LONGEST} bytes without a NUL",
        bytes.len()
    );
    Err(io::Error::new(ErrorKind::InvalidInput, text))
}

fn from_address(path: Option<&Path>) -> Address {
    path.unwrap_or(Path::new("")).into()
}

pub(super) fn connect(path: &Path, limits: &Limits) -> io::Result<UnixStream> {
    to_address(path)?;
    let stream = UnixStream::connect(path).map_err(|error| match error.kind() {
        // No event reports room in the backlog, so the attempt cannot wait.
        ErrorKind::WouldBlock => io::Error::new(
            ErrorKind::WouldBlock,
            "the backlog of the server is full; connect again later",
        ),
        _ => error,
    })?;
    configure(SockRef::from(&stream), false, limits)?;
    Ok(stream)
}

/// Writes without SIGPIPE, which would end the process. Not every version of std prevents it. Apple's
/// systems have no `MSG_NOSIGNAL`: mio and socket2 set `SO_NOSIGPIPE` there.
pub(super) fn write(stream: &UnixStream, bytes: &[u8]) -> io::Result<usize> {
    #[cfg(target_vendor = "apple")]
    return io::Write::write(&mut &*stream, bytes);
    #[cfg(not(target_vendor = "apple"))]
    stream.try_io(|| SockRef::from(stream).send_with_flags(bytes, libc::MSG_NOSIGNAL))
}

pub(super) fn local_addr(stream: &UnixStream) -> Address {
    let addr = stream.local_addr().ok();
    from_address(addr.as_ref().and_then(|addr| addr.as_pathname()))
}
