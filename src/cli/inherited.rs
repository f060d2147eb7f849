//! `fd:NAME`: sockets that a service manager has bound and passed to this process, sd_listen_fds(3).

use std::env;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use listenfd::ListenFd;
use socket2::SockRef;

/// A socket that was passed.
#[derive(Debug)]
pub enum Passed {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A sentence about a socket that cannot be served, and the next step.
pub type Wrong = (String, String);

/// The passed sockets. Those that no address names stay open and unserved.
#[derive(Default)]
pub struct Inherited {
    /// The names, and the service that has taken each.
    sockets: Vec<(String, Option<String>)>,
    fds: Option<ListenFd>,
    /// Why there are no sockets.
    why_none: Option<Wrong>,
}

impl Inherited {
    /// Reads and removes the variables. Call it before any thread starts.
    pub fn from_env() -> Inherited {
        let variable = |name| env::var(name).unwrap_or_default();
        let (count, pid) = (variable("LISTEN_FDS"), variable("LISTEN_PID"));
        // It checks the process and the names, and marks the descriptors, which listenfd does not.
        let names = sd_notify::listen_fds_with_names()
            .map(|fds| fds.map(|(_, name)| (name, None)).collect::<Vec<_>>());
        let fds = Some(ListenFd::from_env());
        let own = std::process::id();
        let start = "start it by the socket unit, or with systemd-socket-activate";
        let why_none = match &names {
            Err(error) => Some((
                format!(
                    "LISTEN_FDS={count} and LISTEN_FDNAMES do not describe the sockets that were passed: {error}"
                ),
                format!("let the service manager set these variables: {start}"),
            )),
            Ok(names) if !names.is_empty() => None,
            Ok(_) if !count.is_empty() && pid != own.to_string() => Some((
                format!(
                    "the sockets are for the process LISTEN_PID={pid}, and this is process {own}"
                ),
                "start the program without another program in between, or let that program use exec"
                    .to_owned(),
            )),
            Ok(_) => Some(("no socket was passed to this process".to_owned(), start.to_owned())),
        };
        Inherited { sockets: names.unwrap_or_default(), fds, why_none }
    }

    /// Takes every socket of this name for a service.
    pub fn take(&mut self, name: &str, service: &str) -> Result<Vec<Passed>, Wrong> {
        if let Some(why) = &self.why_none {
            return Err(why.clone());
        }
        let mut taken = Vec::new();
        for (at, (other, user)) in self.sockets.iter_mut().enumerate() {
            if other != name {
                continue;
            }
            if let Some(user) = user.replace(service.to_owned()) {
                let what = format!("{user} listens on this socket already");
                return Err((what, "give each service a socket of its own".into()));
            }
            taken.extend(self.fds.as_mut().map(|fds| check(fds, at)).transpose()?);
        }
        if taken.is_empty() {
            let names: Vec<_> = self.sockets.iter().map(|(name, _)| &**name).collect();
            let what = format!("no socket has this name; passed are {}", names.join(", "));
            return Err((
                what,
                "use one of these names, or set FileDescriptorName= in the socket unit".into(),
            ));
        }
        Ok(taken)
    }

    /// Returns the names of the sockets that no service has taken.
    pub fn unused(&self) -> impl Iterator<Item = &str> {
        self.sockets.iter().filter(|(_, user)| user.is_none()).map(|(name, _)| &**name)
    }
}

/// Takes the socket with this index if it is a stream socket that listens.
fn check(fds: &mut ListenFd, at: usize) -> Result<Passed, Wrong> {
    let wrong = |what: &str, advice: &str| Err((what.to_owned(), advice.to_owned()));
    if let Ok(Some(tcp)) = fds.take_tcp_listener(at) {
        return does_listen(&SockRef::from(&tcp)).map(|()| Passed::Tcp(tcp));
    }
    if let Ok(Some(unix)) = fds.take_unix_listener(at) {
        does_listen(&SockRef::from(&unix))?;
        let addr = unix.local_addr().ok();
        addr.and_then(|addr| addr.as_pathname().map(is_reachable)).transpose()?;
        return Ok(Passed::Unix(unix));
    }
    let is_udp = matches!(fds.take_udp_socket(at), Ok(Some(_)));
    if is_udp || matches!(fds.take_unix_datagram(at), Ok(Some(_))) {
        let advice = "write ListenStream= instead of ListenDatagram= in the socket unit";
        return wrong("it is a datagram socket", advice);
    }
    let advice = "write ListenStream= in the socket unit";
    wrong("it is neither a TCP socket nor a Unix stream socket", advice)
}

fn does_listen(socket: &SockRef<'_>) -> Result<(), Wrong> {
    let is_connected = socket.peer_addr().is_ok();
    // Apple's systems do not tell a listening socket: the first accept reports the error there.
    #[cfg(target_vendor = "apple")]
    let listens = !is_connected;
    #[cfg(not(target_vendor = "apple"))]
    let listens = socket.is_listener().unwrap_or(false);
    if listens {
        return Ok(());
    }
    let what = if is_connected { "it is a connected socket" } else { "it does not listen" };
    Err((what.into(), "write ListenStream= and Accept=no in the socket unit".into()))
}

/// Whether clients that connect to the path reach the socket that was bound to it.
fn is_reachable(path: &Path) -> Result<(), Wrong> {
    let shown = path.display();
    let again = "start the socket unit again, which binds the path again";
    let wrong = |what: String| Err((what, again.to_owned()));
    match fs::symlink_metadata(path) {
        Err(error) => wrong(format!("clients cannot reach its path {shown}: {error}")),
        Ok(found) if !found.file_type().is_socket() => {
            wrong(format!("another file has replaced its path {shown}"))
        }
        Ok(_) if listeners_at(path) > 1 => {
            wrong(format!("another server has bound its path {shown}, too"))
        }
        Ok(_) => Ok(()),
    }
}

/// The number of sockets that listen at a path, by the table of the kernel; 0 where it has none.
fn listeners_at(path: &Path) -> usize {
    const LISTENS: &str = "00010000";
    let table = fs::read("/proc/net/unix").unwrap_or_default();
    let table = String::from_utf8_lossy(&table);
    let at = format!(" {}", path.display());
    table
        .lines()
        .filter(|line| line.split(' ').nth(3) == Some(LISTENS) && line.ends_with(&at))
        .count()
}
