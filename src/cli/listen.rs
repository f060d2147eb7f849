//! Binds what was asked for: every address of a name, each once.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};

use campanile::{Accepted, Kernel, Protocol, Reactor};

use super::address::Place;
use super::failure::{FAILED, Failure};

/// Listens at every place for one service, and returns where that is.
pub fn listen<K: Kernel, P: Protocol + 'static>(
    reactor: &mut Reactor<K>,
    service: &str,
    places: &[Place],
    make: impl FnMut(&Accepted) -> P + Clone + 'static,
) -> Result<Vec<SocketAddr>, Failure> {
    let mut bound = Vec::new();
    for place in places {
        let bound_before = bound.len();
        let mut lacking = None;
        // Of a name with port 0, the first address chooses the port for all.
        let mut chosen = 0;
        for mut addr in resolve(place, service)? {
            if addr.port() == 0 {
                addr.set_port(chosen);
            }
            if addr.port() != 0 && bound.contains(&addr) {
                continue;
            }
            match reactor.listen(addr, make.clone()) {
                Ok(local) => {
                    chosen = local.port();
                    bound.push(local);
                }
                Err(error) if is_family_lacking(addr, &error) => lacking = Some((addr, error)),
                Err(error) => return Err(cannot_listen(reactor, service, addr, &error)),
            }
        }
        match lacking {
            Some((addr, error)) if bound.len() == bound_before => {
                return Err(cannot_listen(reactor, service, addr, &error));
            }
            Some((addr, error)) => {
                let ip = addr.ip();
                log::warn!("{place}: {ip} was skipped, this machine lacks its kind: {error}");
            }
            None => {}
        }
    }
    Ok(bound)
}

fn resolve(place: &Place, service: &str) -> Result<Vec<SocketAddr>, Failure> {
    let (name, port) = match place {
        Place::Off => return Ok(Vec::new()),
        Place::Addr(addr) => return Ok(vec![*addr]),
        Place::Name(name, port) => (name, *port),
    };
    let found = (name.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<_>>);
    let error = match found {
        Ok(found) if !found.is_empty() => return Ok(found),
        Ok(_) => io::Error::new(ErrorKind::NotFound, "the name has no address"),
        Err(error) => error,
    };
    Err(Failure::new(
        FAILED,
        format!("cannot listen on {place} for {service}: {error}"),
        format!("check the name, or give the address itself: --{service} 127.0.0.1:{port}"),
    ))
}

/// Whether this machine has no IPv6, or no IPv4, at all.
fn is_family_lacking(addr: SocketAddr, error: &io::Error) -> bool {
    let is_address = matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL));
    let loopback: SocketAddr = match addr {
        SocketAddr::V4(_) => (Ipv4Addr::LOCALHOST, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::LOCALHOST, 0).into(),
    };
    is_address && TcpListener::bind(loopback).is_err()
}

fn cannot_listen<K: Kernel>(
    reactor: &Reactor<K>,
    service: &str,
    addr: SocketAddr,
    error: &io::Error,
) -> Failure {
    let port = addr.port();
    let is_own = reactor.local_addrs().any(|local| local.inet().is_some_and(|a| a.port() == port));
    let advice = match error.kind() {
        ErrorKind::AddrInUse if is_own => {
            format!("this very command has it already; try --{service} 0 to take any free port")
        }
        ErrorKind::AddrInUse => {
            format!("another process has it; try --{service} 0 to take any free port")
        }
        ErrorKind::PermissionDenied => format!(
            "ports below 1024 are for the privileged; try --{service} {}, or grant CAP_NET_BIND_SERVICE",
            10_000 + u32::from(port)
        ),
        ErrorKind::AddrNotAvailable => format!(
            "this machine has no such address; try --{service} 127.0.0.1:{port} or 0.0.0.0:{port}"
        ),
        _ if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
            format!("this machine has no addresses of that kind; try --{service} 127.0.0.1:{port}")
        }
        _ if error.raw_os_error() == Some(libc::EMFILE) => {
            "this process may not open more files; raise the limit: ulimit -n 1024".into()
        }
        _ => format!("try another address, such as --{service} 127.0.0.1:0"),
    };
    Failure::new(FAILED, format!("cannot listen on {addr} for {service}: {error}"), advice)
}
