//! Binds the addresses of a service: every address of a name, each once.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
#[cfg(unix)]
use std::os::unix::net::UnixListener;
use std::path::Path;

use campanile::{Accepted, Address, ListenOptions, Protocol, Reactor, sys::Kernel};
use socket2::{Domain, Socket, Type};

use super::address::Place;
use super::failure::{FAILED, Failure};
#[cfg(unix)]
use super::inherited::{Inherited, Passed};

/// How listeners get their sockets.
pub struct Sockets {
    #[cfg(unix)]
    pub inherited: Inherited,
    /// The backlog of listeners that share their ports with other processes.
    pub shared: Option<u32>,
}

/// Creates a protocol for each connection.
pub type Make<P> = Box<dyn FnMut(&Accepted) -> P>;

/// A reactor on any kernel. The program has three kinds, and `listen` is compiled once for all of them.
pub trait Binder<P> {
    fn bind(&mut self, addr: SocketAddr, make: Make<P>) -> io::Result<SocketAddr>;
    fn bind_path(&mut self, path: &Path, make: Make<P>) -> io::Result<()>;
    fn adopt(&mut self, listener: TcpListener, make: Make<P>) -> io::Result<SocketAddr>;
    #[cfg(unix)]
    fn adopt_unix(&mut self, listener: UnixListener, make: Make<P>) -> io::Result<()>;
    /// Returns the addresses of its listeners.
    fn bound(&self) -> Vec<Address>;
}

impl<K: Kernel, P: Protocol + 'static> Binder<P> for Reactor<K> {
    fn bind(&mut self, addr: SocketAddr, make: Make<P>) -> io::Result<SocketAddr> {
        self.listen(addr, make)
    }

    fn bind_path(&mut self, path: &Path, make: Make<P>) -> io::Result<()> {
        self.listen_with(path, ListenOptions::default(), make).map(drop)
    }

    fn adopt(&mut self, listener: TcpListener, make: Make<P>) -> io::Result<SocketAddr> {
        self.listen_on(listener, make)
    }

    #[cfg(unix)]
    fn adopt_unix(&mut self, listener: UnixListener, make: Make<P>) -> io::Result<()> {
        self.listen_on_unix(listener, make).map(drop)
    }

    fn bound(&self) -> Vec<Address> {
        self.listeners().map(|(_, addr)| addr.clone()).collect()
    }
}

/// Listens on every address of one service, and returns them with the ports that were chosen.
pub fn listen<P: Protocol + 'static>(
    reactor: &mut dyn Binder<P>,
    sockets: &mut Sockets,
    service: &str,
    places: &[Place],
    make: &dyn Fn() -> Make<P>,
) -> Result<Vec<String>, Failure> {
    let (mut bound, mut shown) = (Vec::new(), Vec::new());
    for place in places {
        match place {
            Place::Unix(path) => {
                if !shown.contains(&place.to_string()) {
                    listen_at_path(reactor, service, path, make())?;
                    shown.push(place.to_string());
                }
            }
            #[cfg(unix)]
            Place::Fd(name) => {
                shown.extend(listen_on_passed(reactor, sockets, service, name, make)?);
            }
            _ => {
                let new = listen_at_each(reactor, sockets, service, place, &bound, make)?;
                shown.extend(new.iter().map(|addr| place.show(*addr)));
                bound.extend(new);
            }
        }
    }
    Ok(shown)
}

/// Listens on every address of a name but those that are `bound`, and returns what it has bound.
fn listen_at_each<P>(
    reactor: &mut dyn Binder<P>,
    sockets: &Sockets,
    service: &str,
    place: &Place,
    bound: &[SocketAddr],
    make: &dyn Fn() -> Make<P>,
) -> Result<Vec<SocketAddr>, Failure> {
    let (mut new, mut skipped) = (Vec::new(), None);
    // If a name has port 0, its first address chooses the port for all its addresses.
    let mut chosen = 0;
    for mut addr in resolve(place, service)? {
        if addr.port() == 0 {
            addr.set_port(chosen);
        }
        if addr.port() != 0 && (bound.contains(&addr) || new.contains(&addr)) {
            continue;
        }
        match listen_at(reactor, sockets, addr, make()) {
            Ok(local) => {
                chosen = local.port();
                new.push(local);
            }
            Err(error) if is_family_missing(addr, &error) => skipped = Some((addr, error)),
            Err(error) => {
                let (bound, is_alone) = (reactor.bound(), sockets.shared.is_none());
                return Err(cannot_listen(&bound, service, place, addr, &error, is_alone));
            }
        }
    }
    match skipped {
        Some((addr, error)) if new.is_empty() => {
            return Err(cannot_listen(&reactor.bound(), service, place, addr, &error, true));
        }
        Some((addr, error)) => {
            let (ip, family) = (addr.ip(), family(addr));
            log::warn!(
                "skipped the address {ip} of {place}, because this machine has no {family}: {error}; to avoid this warning, give the other addresses instead of the name"
            );
        }
        None => {}
    }
    Ok(new)
}

fn listen_at<P>(
    reactor: &mut dyn Binder<P>,
    sockets: &Sockets,
    addr: SocketAddr,
    make: Make<P>,
) -> io::Result<SocketAddr> {
    match sockets.shared {
        None => reactor.bind(addr, make),
        Some(backlog) => reactor.adopt(bind_shared(&reactor.bound(), addr, backlog)?, make),
    }
}

/// Serves every socket of this name, and returns their addresses.
#[cfg(unix)]
fn listen_on_passed<P>(
    reactor: &mut dyn Binder<P>,
    sockets: &mut Sockets,
    service: &str,
    name: &str,
    make: &dyn Fn() -> Make<P>,
) -> Result<Vec<String>, Failure> {
    let failed = |what: &dyn std::fmt::Display, advice: &str| {
        Failure::new(FAILED, format!("cannot listen on fd:{name} for {service}: {what}"), advice)
    };
    let passed = sockets.inherited.take(name, service);
    let passed = passed.map_err(|(what, advice)| failed(&what, &advice))?;
    let listen = |socket| match socket {
        Passed::Tcp(tcp) => reactor.adopt(tcp, make()).map(|addr| addr.to_string()),
        Passed::Unix(unix) => {
            let path = unix.local_addr()?.as_pathname().map(Address::from);
            reactor.adopt_unix(unix, make())?;
            Ok(path.map_or_else(|| format!("fd:{name}"), |path| path.to_string()))
        }
    };
    let shown: io::Result<Vec<_>> = passed.into_iter().map(listen).collect();
    shown.map_err(|error| failed(&error, "start the socket unit again, and then the program"))
}

/// Binds an address with SO_REUSEPORT, unless this process has it already: then the services would
/// share it.
fn bind_shared(bound: &[Address], addr: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let mut own = bound.iter().filter_map(Address::inet);
    if own.any(|own| is_shared(own, addr)) {
        return Err(ErrorKind::AddrInUse.into());
    }
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    share_port(&socket)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&addr.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

#[cfg(unix)]
fn share_port(socket: &Socket) -> io::Result<()> {
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)
}

#[cfg(not(unix))]
fn share_port(_: &Socket) -> io::Result<()> {
    Err(io::Error::new(ErrorKind::Unsupported, "this system has no SO_REUSEPORT"))
}

fn listen_at_path<P>(
    reactor: &mut dyn Binder<P>,
    service: &str,
    path: &Path,
    make: Make<P>,
) -> Result<(), Failure> {
    let is_own = reactor.bound().contains(&Address::from(path));
    let failed = |error: io::Error| {
        let text = error.to_string();
        let (what, advice) = text.rsplit_once("; ").unwrap_or((&text, "choose another path"));
        let own = "this command already listens there; give each service a path of its own";
        let advice = if is_own { own } else { advice };
        Failure::new(FAILED, format!("{what} (for {service})"), advice)
    };
    reactor.bind_path(path, make).map_err(failed)
}

fn resolve(place: &Place, service: &str) -> Result<Vec<SocketAddr>, Failure> {
    let error = match place.resolve() {
        Ok(found) if !found.is_empty() || *place == Place::Off => return Ok(found),
        Ok(_) => io::Error::new(ErrorKind::NotFound, "the name has no address"),
        Err(error) => error,
    };
    let flag = flag(service);
    let advice = match place {
        Place::Zoned(..) => "list the interfaces with: ip link".into(),
        Place::Name(_, port) => {
            format!("check the name, or give an address: {flag} 127.0.0.1:{port}")
        }
        _ => format!("give an address: {flag} 127.0.0.1:0"),
    };
    Err(Failure::new(FAILED, format!("cannot listen on {place} for {service}: {error}"), advice))
}

/// Returns the argument that sets the address of a service.
fn flag(service: &str) -> &'static str {
    match service {
        "daytime" => "--daytime",
        "echo" => "--echo",
        _ => "LISTEN",
    }
}

fn family(addr: SocketAddr) -> &'static str {
    if addr.is_ipv6() { "IPv6" } else { "IPv4" }
}

/// Whether this machine has no IPv6, or no IPv4, at all.
fn is_family_missing(addr: SocketAddr, error: &io::Error) -> bool {
    let is_address = matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL));
    let loopback: SocketAddr = match addr {
        SocketAddr::V4(_) => (Ipv4Addr::LOCALHOST, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::LOCALHOST, 0).into(),
    };
    is_address && TcpListener::bind(loopback).is_err()
}

/// Whether this address means nothing without an interface, and has none.
fn is_unzoned(addr: SocketAddr) -> bool {
    matches!(addr, SocketAddr::V6(addr) if addr.ip().is_unicast_link_local() && addr.scope_id() == 0)
}

fn cannot_listen(
    bound: &[Address],
    service: &str,
    place: &Place,
    addr: SocketAddr,
    error: &io::Error,
    is_alone: bool,
) -> Failure {
    let (port, flag) = (addr.port(), flag(service));
    let is_own = bound.iter().filter_map(Address::inet).any(|own| is_shared(own, addr));
    let any_port = format!("use another port, or {flag} 0 for any free port");
    let advice = match error.kind() {
        _ if is_unzoned(addr) => {
            format!("a link-local address needs its interface: {flag} [{}%eth0]:{port}", addr.ip())
        }
        ErrorKind::AddrInUse if is_own => {
            format!("this command already listens on that address; {any_port}")
        }
        ErrorKind::AddrInUse if !is_alone => format!(
            "a process of another user, or one without --reuse-port, listens on that address; {any_port}"
        ),
        ErrorKind::AddrInUse => format!("another process listens on that address; {any_port}"),
        ErrorKind::PermissionDenied => format!(
            "ports below 1024 need a privilege; use {flag} {}, or grant CAP_NET_BIND_SERVICE",
            SocketAddr::new(addr.ip(), port.checked_add(10_000).unwrap_or(port))
        ),
        ErrorKind::AddrNotAvailable => format!(
            "this machine does not have that address; use {flag} 127.0.0.1:{port} or 0.0.0.0:{port}"
        ),
        _ if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
            let family = family(addr);
            format!("this machine has no {family}; use {flag} 127.0.0.1:{port} or [::1]:{port}")
        }
        _ if error.raw_os_error() == Some(libc::EMFILE) => {
            "the limit of open files is reached; raise the hard limit: ulimit -Hn, LimitNOFILE="
                .into()
        }
        _ => format!("use another address, such as {flag} 127.0.0.1:0"),
    };
    let addr = place.show(addr);
    Failure::new(FAILED, format!("cannot listen on {addr} for {service}: {error}"), advice)
}

/// Whether two listeners cannot have these addresses at the same time. A listener on every address of
/// IPv6 leaves those of IPv4 free.
fn is_shared(one: SocketAddr, other: SocketAddr) -> bool {
    let is_same =
        one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && one.is_ipv6() == other.is_ipv6() && is_same
}
