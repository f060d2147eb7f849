//! `campanile proxy`, and `serve --proxy`: connections that are passed on to the user's own server.

use std::fmt;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::ExitCode;

use campanile::services::{Relay, Upstream};
use campanile::{Reactor, relay, sys::Kernel};

use super::address::{self, Place};
use super::args::{Proxy, Serve};
use super::connections_log::ConnectionsLog;
use super::failure::{FAILED, Failure, USAGE};
use super::listen::{Make, Sockets, listen};
use super::{serve, stdio};

/// The name of a proxy that is given as two addresses.
const UNNAMED: &str = "proxy";
const EXPECTED: &str = "expected 'NAME=LISTEN>UPSTREAM', as in 'db=6380>127.0.0.1:6379'";

/// A proxy: its name, the address at which it listens, and the server to which it connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// It is the service of a fault. It lives as long as the program.
    pub name: &'static str,
    /// The service of a fault on the server's side.
    upstream_name: &'static str,
    listen: Place,
    upstream: Place,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}={}>{}'", self.name, self.listen, self.upstream)
    }
}

pub fn proxy(args: Proxy) -> ExitCode {
    let routes = match &args.routes[..] {
        [listen, upstream] if !listen.contains('>') && !upstream.contains('>') => {
            one(UNNAMED, listen, upstream).map(|route| vec![route])
        }
        texts => texts.iter().map(|text| named(text)).collect(),
    };
    match routes {
        Ok(proxy) => {
            let off = || vec![Place::Off];
            serve::serve(&Serve { daytime: off(), echo: off(), proxy, ..args.serve })
        }
        Err(failure) => {
            stdio::print_error(&failure.to_string());
            ExitCode::from(failure.code)
        }
    }
}

fn named(text: &str) -> Result<Route, Failure> {
    route(text).map_err(|error| {
        let advice = "give one LISTEN and one UPSTREAM, or routes as 'NAME=LISTEN>UPSTREAM', quoted because of the >";
        Failure::new(USAGE, format!("'{text}' is no route: {error}"), advice)
    })
}

fn one(name: &'static str, listen: &str, upstream: &str) -> Result<Route, Failure> {
    let wrong = |what: &str, text: &str, error: String| {
        let advice = "write it as in campanile proxy 127.0.0.1:6380 127.0.0.1:6379";
        Failure::new(USAGE, format!("'{text}' is no {what}: {error}"), advice)
    };
    let listen = place(listen).map_err(|error| wrong("address to listen on", listen, error))?;
    let to = address::server(upstream);
    let upstream = to.map_err(|error| wrong("address of an upstream", upstream, error))?;
    Ok(Route { name, upstream_name: "proxy upstream", listen, upstream })
}

fn place(text: &str) -> Result<Place, String> {
    match address::listening(text)? {
        Place::Off => Err("a proxy cannot be off; remove it".into()),
        place => Ok(place),
    }
}

/// Parses `NAME=LISTEN>UPSTREAM`.
pub fn route(text: &str) -> Result<Route, String> {
    let (name, rest) = text.split_once('=').ok_or(EXPECTED)?;
    let (listen, upstream) = rest.split_once('>').ok_or(EXPECTED)?;
    let is_name = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_');
    if !is_name {
        return Err(format!(
            "the name {name:?} is not usable in a fault; use small letters, digits, - and _, beginning with a letter"
        ));
    }
    let listen = place(listen).map_err(|error| format!("{listen}: {error}"))?;
    let to = address::server(upstream).map_err(|error| format!("{upstream}: {error}"))?;
    // A few bytes, once: names stay as long as the program runs.
    let leak = |name: String| &*String::leak(name);
    let upstream_name = leak(format!("{name} upstream"));
    Ok(Route { name: leak(name.to_owned()), upstream_name, listen, upstream: to })
}

impl Serve {
    /// Returns the names that a fault may name.
    pub fn services(&self) -> Vec<&'static str> {
        let is_proxy = self.daytime == [Place::Off] && self.echo == [Place::Off];
        let own: &[&str] = if is_proxy { &[] } else { &["daytime", "echo"] };
        let sides = self.proxy.iter().flat_map(|route| [route.name, route.upstream_name]);
        own.iter().copied().chain(sides).collect()
    }
}

impl Serve {
    /// Returns the services whose addresses other processes hold open, too: closing ours refuses nothing.
    pub fn shared_services(&self) -> Vec<&'static str> {
        let is_passed = |place: &Place| matches!(place, Place::Fd(_));
        let is_shared = |places: &[Place]| self.reuse_port || places.iter().any(is_passed);
        let own = [("daytime", &self.daytime), ("echo", &self.echo)];
        let own = own.into_iter().map(|(name, places)| (name, &places[..]));
        let proxies =
            self.proxy.iter().map(|route| (route.name, std::slice::from_ref(&route.listen)));
        own.chain(proxies).filter(|(_, places)| is_shared(places)).map(|(name, _)| name).collect()
    }
}

/// Checks the names, and that no proxy connects to itself.
pub fn check(args: &Serve) -> Result<(), Failure> {
    for (at, route) in args.proxy.iter().enumerate() {
        let is_taken = args.proxy[..at].iter().any(|other| other.name == route.name);
        if is_taken || ["daytime", "echo"].contains(&route.name) {
            let what = format!("two services are named {}", route.name);
            let advice = format!("give the proxy {route} another name: faults name a service");
            return Err(Failure::new(USAGE, what, advice));
        }
    }
    Ok(())
}

/// Resolves the upstreams, once, before anything is bound, and refuses a loop.
pub fn resolve(routes: &[Route]) -> Result<Vec<Upstream>, Failure> {
    let resolved: Vec<_> = routes.iter().map(upstream).collect::<Result<_, _>>()?;
    for start in 0..routes.len() {
        // The proxies that a connection to this one passes through.
        let (mut seen, mut next) = (vec![start], 0);
        while let Some(&at) = seen.get(next) {
            next += 1;
            for to in (0..routes.len()).filter(|&to| leads(&resolved[at], &routes[to].listen)) {
                if to == start {
                    return Err(looped(routes, start, at));
                }
                if !seen.contains(&to) {
                    seen.push(to);
                }
            }
        }
    }
    Ok(resolved)
}

fn looped(routes: &[Route], start: usize, last: usize) -> Failure {
    let Route { name, upstream, .. } = &routes[start];
    let what = if start == last {
        format!("the upstream {upstream} of {name} is {name} itself")
    } else {
        format!(
            "the upstream {upstream} of {name} leads back to {name}, through {}",
            routes[last].name
        )
    };
    Failure::new(USAGE, what, "give the address of your server as the upstream")
}

fn upstream(route: &Route) -> Result<Upstream, Failure> {
    if let Place::Unix(path) = &route.upstream {
        return Ok(Upstream::from(path));
    }
    let failed = |error: &dyn fmt::Display| {
        let Route { name, upstream, .. } = route;
        let what = format!("cannot resolve the upstream {upstream} of {name}: {error}");
        Failure::new(FAILED, what, "check the name, or give an address such as 127.0.0.1:6379")
    };
    match route.upstream.resolve() {
        Ok(addrs) if addrs.is_empty() => Err(failed(&"the name has no address")),
        Ok(addrs) => Ok(Upstream::new(addrs)),
        Err(error) => Err(failed(&error)),
    }
}

/// Whether a connection to `upstream` reaches a listener at `place`.
fn leads(upstream: &Upstream, place: &Place) -> bool {
    let is_path = |path: &Path| match place {
        Place::Unix(own) => own == path || is_same_file(own, path),
        _ => false,
    };
    let own = place.resolve().unwrap_or_default();
    upstream.addrs().iter().any(|addr| match (addr.inet(), addr.path()) {
        (Some(addr), _) => own.iter().any(|&own| reaches(addr, own)),
        (_, path) => path.is_some_and(is_path),
    })
}

/// Whether two paths that need not exist name the same file.
fn is_same_file(one: &Path, other: &Path) -> bool {
    let whole = |path: &Path| {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new(".")).canonicalize().ok()?;
        Some(folder.join(path.file_name()?))
    };
    whole(one).is_some_and(|one| whole(other) == Some(one))
}

fn reaches(addr: SocketAddr, own: SocketAddr) -> bool {
    let is_this_machine = |ip: IpAddr| UdpSocket::bind((ip, 0)).is_ok();
    let is_same_ip = match own.ip() {
        // The kernel connects to the unspecified address as to loopback.
        ip if ip.is_unspecified() => addr.is_ipv6() == own.is_ipv6() && is_this_machine(addr.ip()),
        ip => ip == addr.ip() || (addr.ip().is_unspecified() && ip.is_loopback()),
    };
    addr.port() == own.port() && is_same_ip
}

/// Binds every proxy and returns each address with its name.
pub fn bind<K: Kernel>(
    reactor: &mut Reactor<K>,
    routes: &[Route],
    upstreams: Vec<Upstream>,
    sockets: &mut Sockets,
    name_service: &dyn Fn(&str),
    connections_log: &ConnectionsLog,
) -> Result<Vec<(&'static str, String)>, Failure> {
    let mut all = Vec::new();
    for (route, upstream) in routes.iter().zip(upstreams) {
        let name = route.name;
        name_service(name);
        let relays = relay(upstream);
        let make = || -> Make<Relay> {
            let (log, mut relays) = (connections_log.clone(), relays.clone());
            Box::new(move |new| {
                log.add(name, "Relaying for", &new.peer);
                relays(new)
            })
        };
        let places = std::slice::from_ref(&route.listen);
        let bound = listen(reactor, sockets, name, places, &make)?;
        all.extend(bound.into_iter().map(|addr| (name, addr)));
    }
    Ok(all)
}
