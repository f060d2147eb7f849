//! Addresses as they are written on the command line.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::{fmt, io};

use campanile::client::{Server, ToServers};

/// An address to listen on or to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Off,
    Addr(SocketAddr),
    Name(String, u16),
    /// A link-local address and the name of its interface: `fe80::1%eth0`.
    Zoned(String, u16),
    /// The path of a Unix socket.
    Unix(PathBuf),
    /// The name of the sockets that a service manager passes.
    Fd(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Off => f.write_str("off"),
            Place::Addr(addr) => addr.fmt(f),
            Place::Name(name, port) => write!(f, "{name}:{port}"),
            Place::Zoned(name, port) => write!(f, "[{name}]:{port}"),
            Place::Unix(path) => write!(f, "unix:{}", path.display()),
            Place::Fd(name) => write!(f, "fd:{name}"),
        }
    }
}

impl Place {
    /// One of its socket addresses, with the interface as it was written.
    pub fn show(&self, addr: SocketAddr) -> String {
        match self {
            Place::Zoned(name, _) => Place::Zoned(name.clone(), addr.port()).to_string(),
            _ => addr.to_string(),
        }
    }

    /// Asks the system for the addresses of a name, and for the number of an interface.
    pub fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        let found = match self {
            Place::Off | Place::Unix(_) | Place::Fd(_) => return Ok(Vec::new()),
            Place::Addr(addr) => return Ok(vec![*addr]),
            Place::Name(name, port) => (name.as_str(), *port).to_socket_addrs()?,
            Place::Zoned(name, port) => (name.as_str(), *port).to_socket_addrs().map_err(|_| {
                let interface = name.split_once('%').map_or("", |(_, interface)| interface);
                let what = format!("this machine has no interface {interface}");
                io::Error::new(io::ErrorKind::NotFound, what)
            })?,
        };
        Ok(found.collect())
    }
}

impl ToServers for &Place {
    fn to_servers(&self) -> io::Result<Vec<Server>> {
        match self {
            Place::Unix(path) => Ok(vec![Server::Unix(path.clone())]),
            _ => Ok(self.resolve()?.into_iter().map(Server::Tcp).collect()),
        }
    }
}

/// Parses an address to listen on, or `off`. Port 0 takes any free port.
pub fn listening(text: &str) -> Result<Place, String> {
    match (text, text.strip_prefix("fd:")) {
        ("off", _) => Ok(Place::Off),
        (_, Some(name)) => passed(name),
        _ => place(text),
    }
}

/// The name of a socket as systemd.socket(5) allows it.
fn passed(name: &str) -> Result<Place, String> {
    let is_name = (1..=255).contains(&name.len())
        && name.chars().all(|c| (c.is_ascii_graphic() || c == ' ') && c != ':');
    match is_name {
        _ if cfg!(not(unix)) => Err("this system passes no sockets; use ip:port".into()),
        true => Ok(Place::Fd(name.to_owned())),
        false => Err("the name is missing or has a character that systemd does not allow; use the FileDescriptorName= of the socket unit, as in fd:echo".into()),
    }
}

/// Parses an address to connect to.
pub fn server(text: &str) -> Result<Place, String> {
    if text.starts_with("fd:") {
        return Err(
            "a passed socket can only be listened on; give the address of the server".into()
        );
    }
    match place(text)? {
        Place::Addr(addr) if addr.port() == 0 => Err(NO_PORT_0.into()),
        Place::Name(_, 0) | Place::Zoned(_, 0) => Err(NO_PORT_0.into()),
        place => Ok(place),
    }
}

const NO_PORT_0: &str =
    "port 0 cannot be connected to; give the port of the server, as in 127.0.0.1:9999";
const EXPECTED: &str = "expected a port (9999), ip:port (127.0.0.1:9999), [ipv6]:port ([::1]:9999 or \
                        [fe80::1%eth0]:9999), host:port (localhost:9999) or unix:path \
                        (unix:/run/echo.sock)";

fn place(text: &str) -> Result<Place, String> {
    match text.strip_prefix("unix:") {
        Some("") => return Err("the path is missing; use unix:/run/echo.sock".into()),
        // Each address is one line of the output and of the ready file.
        Some(path) if path.contains(char::is_control) => {
            return Err("the path has a control character; use a path without it".into());
        }
        Some(path) => return Ok(Place::Unix(path.into())),
        None => {}
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(Place::Addr(SocketAddr::from((Ipv4Addr::LOCALHOST, port(text)?))));
    }
    if let Ok(addr) = text.parse() {
        return Ok(Place::Addr(addr));
    }
    match text.parse() {
        Ok(IpAddr::V4(ip)) => return Err(format!("the port is missing; use {ip}:9999")),
        Ok(IpAddr::V6(ip)) => return Err(format!("the port is missing; use [{ip}]:9999")),
        Err(_) => {}
    }
    let (host, number) = text.rsplit_once(':').ok_or(EXPECTED)?;
    let number = port(number)?;
    if host.is_empty() {
        // In some programs it means every address of the machine, in others loopback.
        return Err(format!(
            "the address is missing; use 127.0.0.1:{number} (loopback) or 0.0.0.0:{number} (all of IPv4)"
        ));
    }
    if let Some(zoned) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return zone(zoned, number);
    }
    let is_name = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    if !host.chars().all(is_name) {
        return Err(EXPECTED.into());
    }
    Ok(Place::Name(host.to_owned(), number))
}

/// An IPv6 address with the name of an interface. With its number it has been parsed by now.
fn zone(text: &str, port: u16) -> Result<Place, String> {
    let (ip, interface) = text.split_once('%').ok_or(EXPECTED)?;
    let ip: Ipv6Addr = ip.parse().map_err(|_| EXPECTED)?;
    if interface.is_empty() || interface.contains(char::is_whitespace) {
        return Err(EXPECTED.into());
    }
    if !ip.is_unicast_link_local() {
        return Err(format!("only a link-local address has an interface; use [{ip}]:{port}"));
    }
    Ok(Place::Zoned(text.to_owned(), port))
}

fn port(text: &str) -> Result<u16, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(EXPECTED.into());
    }
    text.parse().map_err(|_| format!("{text} is not a port; ports go from 0 to 65535"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_as_it_was_written() {
        for (text, shown) in [
            ("9999", "127.0.0.1:9999"),
            ("0", "127.0.0.1:0"),
            ("0.0.0.0:9999", "0.0.0.0:9999"),
            ("[::1]:9999", "[::1]:9999"),
            ("[fe80::1%3]:7", "[fe80::1%3]:7"),
            ("[fe80::1%lo]:7", "[fe80::1%lo]:7"),
            ("[FE80::ABCD%br-lan.7]:0", "[FE80::ABCD%br-lan.7]:0"),
            ("localhost:12345", "localhost:12345"),
            ("time-a.example.org:13", "time-a.example.org:13"),
            ("unix:/run/my echo:7.sock", "unix:/run/my echo:7.sock"),
            ("unix:echo.sock", "unix:echo.sock"),
            ("fd:my echo.socket", "fd:my echo.socket"),
            ("off", "off"),
        ] {
            assert_eq!(listening(text).map(|place| place.to_string()), Ok(shown.to_owned()));
        }
    }

    #[test]
    fn a_wrong_address_is_refused_with_the_right_one() {
        for (text, word) in [
            (":9999", "use 127.0.0.1:9999 (loopback) or 0.0.0.0:9999 (all of IPv4)"),
            ("127.0.0.1", "use 127.0.0.1:9999"),
            ("::1", "use [::1]:9999"),
            ("[::1%lo]:7", "only a link-local address has an interface; use [::1]:7"),
            ("[127.0.0.1%lo]:7", "expected a port"),
            ("[fe80::1%]:7", "expected a port"),
            ("[fe80::1%lo]", "expected a port"),
            ("[fe80::1%lo]:x", "expected a port"),
            ("[%lo]:7", "expected a port"),
            ("[fe80::1%e th]:7", "expected a port"),
            ("fe80::1%lo:7", "expected a port"),
            ("::1:9999", "use [::1:9999]:9999"),
            ("65536", "ports go from 0 to 65535"),
            ("localhost:99999", "ports go from 0 to 65535"),
            ("localhost:-1", "expected a port"),
            ("localhost:", "expected a port"),
            ("localhost", "expected a port"),
            ("http://localhost:80", "expected a port"),
            ("a b:80", "expected a port"),
            ("", "expected a port"),
            ("OFF", "expected a port"),
            ("unix:", "the path is missing; use unix:/run/echo.sock"),
            ("unix:a\nb", "the path has a control character"),
            ("fd:", "the name is missing"),
            ("fd:a:b", "a character that systemd does not allow"),
            ("fd:\u{e9}", "a character that systemd does not allow"),
            ("unix", "unix:path (unix:/run/echo.sock)"),
        ] {
            let error = listening(text).unwrap_err();
            assert!(error.contains(word), "{text:?}: {error}");
        }
        assert!(server("off").is_err());
        assert!(server("fd:echo").unwrap_err().contains("give the address of the server"));
        assert_eq!(server("localhost:0"), Err(NO_PORT_0.into()));
        assert_eq!(server("0"), Err(NO_PORT_0.into()));
        assert_eq!(server("[fe80::1%lo]:0"), Err(NO_PORT_0.into()));
    }
}
