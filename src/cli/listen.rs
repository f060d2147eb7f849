//! Binds the addresses of a service: every address of a name, each once.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};

use campanile::{Accepted, Kernel, Protocol, Reactor};

use super::address::Place;
use super::failure::{FAILED, Failure};

/// Listens on every address of one service, and returns them with the ports that were chosen.
pub fn listen<K: Kernel, P: Protocol + 'static>(
    reactor: &mut Reactor<K>,
    service: &str,
    places: &[Place],
    make: impl FnMut(&Accepted) -> P + Clone + 'static,
) -> Result<Vec<String>, Failure> {
    let (mut bound, mut shown) = (Vec::new(), Vec::new());
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
                    shown.push(place.show(local));
                }
                Err(error) if is_family_lacking(addr, &error) => lacking = Some((addr, error)),
                Err(error) => return Err(cannot_listen(reactor, service, place, addr, &error)),
            }
        }
        match lacking {
            Some((addr, error)) if bound.len() == bound_before => {
                return Err(cannot_listen(reactor, service, place, addr, &error));
            }
            Some((addr, error)) => {
                let ip = addr.ip();
                log::warn!("{place}: {ip} was skipped, this machine lacks its kind: {error}");
            }
            None => {}
        }
    }
    Ok(shown)
}

fn resolve(place: &Place, service: &str) -> Result<Vec<SocketAddr>, Failure> {
    let error = match place.to_socket_addrs() {
        Ok(found) if found.len() > 0 || *place == Place::Off => return Ok(found.collect()),
        Ok(_) => io::Error::new(ErrorKind::NotFound, "the name has no address"),
        Err(error) => error,
    };
    let advice = match place {
        Place::Zoned(..) => "list the interfaces with: ip link".into(),
        Place::Name(_, port) => {
            format!("check the name, or give an address: --{service} 127.0.0.1:{port}")
        }
        _ => format!("give an address: --{service} 127.0.0.1:0"),
    };
    Err(Failure::new(FAILED, format!("cannot listen on {place} for {service}: {error}"), advice))
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

/// Whether this address means nothing without an interface, and has none.
fn is_unzoned(addr: SocketAddr) -> bool {
    matches!(addr, SocketAddr::V6(addr) if addr.ip().is_unicast_link_local() && addr.scope_id() == 0)
}

fn cannot_listen<K: Kernel>(
    reactor: &Reactor<K>,
    service: &str,
    place: &Place,
    addr: SocketAddr,
    error: &io::Error,
) -> Failure {
    let port = addr.port();
    let is_own = reactor.local_addrs().any(|local| local.inet().is_some_and(|a| a.port() == port));
    let advice = match error.kind() {
        _ if is_unzoned(addr) => format!(
            "a link-local address needs its interface: --{service} [{}%eth0]:{port}",
            addr.ip()
        ),
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
    let addr = place.show(addr);
    Failure::new(FAILED, format!("cannot listen on {addr} for {service}: {error}"), advice)
}
