//! Addresses as they are written on the command line.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// A place to listen at, or to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Off,
    Addr(SocketAddr),
    Name(String, u16),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Off => f.write_str("off"),
            Place::Addr(addr) => addr.fmt(f),
            Place::Name(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

/// A place to listen at, or `off`; port 0 takes any.
pub fn listening(text: &str) -> Result<Place, String> {
    if text == "off" { Ok(Place::Off) } else { place(text) }
}

/// A place to connect to.
pub fn server(text: &str) -> Result<Place, String> {
    match place(text)? {
        Place::Addr(addr) if addr.port() == 0 => Err(NO_PORT_0.into()),
        Place::Name(_, 0) => Err(NO_PORT_0.into()),
        place => Ok(place),
    }
}

const NO_PORT_0: &str = "nobody can be reached at port 0; say the port, as in 127.0.0.1:9999";
const EXPECTED: &str = "expected a port (9999), ip:port (127.0.0.1:9999), [ipv6]:port ([::1]:9999) \
                        or host:port (localhost:9999)";

fn place(text: &str) -> Result<Place, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(Place::Addr(SocketAddr::from((Ipv4Addr::LOCALHOST, port(text)?))));
    }
    if let Ok(addr) = text.parse() {
        return Ok(Place::Addr(addr));
    }
    match text.parse() {
        Ok(IpAddr::V4(ip)) => return Err(format!("the port is missing; say {ip}:9999")),
        Ok(IpAddr::V6(ip)) => return Err(format!("the port is missing; say [{ip}]:9999")),
        Err(_) => {}
    }
    let (host, number) = text.rsplit_once(':').ok_or(EXPECTED)?;
    let number = port(number)?;
    if host.is_empty() {
        // To some it means every address of the machine, to others loopback.
        return Err(format!("say 127.0.0.1:{number} or 0.0.0.0:{number}"));
    }
    let is_name = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    if !host.chars().all(is_name) {
        return Err(EXPECTED.into());
    }
    Ok(Place::Name(host.to_owned(), number))
}

fn port(text: &str) -> Result<u16, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(EXPECTED.into());
    }
    text.parse().map_err(|_| format!("{text} is no port; ports go from 0 to 65535"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_written_in_one_of_five_ways() {
        for (text, shown) in [
            ("9999", "127.0.0.1:9999"),
            ("0", "127.0.0.1:0"),
            ("0.0.0.0:9999", "0.0.0.0:9999"),
            ("[::1]:9999", "[::1]:9999"),
            ("localhost:12345", "localhost:12345"),
            ("time-a.example.org:13", "time-a.example.org:13"),
            ("off", "off"),
        ] {
            assert_eq!(listening(text).map(|place| place.to_string()), Ok(shown.to_owned()));
        }
    }

    #[test]
    fn a_wrong_place_is_refused_with_the_right_word() {
        for (text, word) in [
            (":9999", "say 127.0.0.1:9999 or 0.0.0.0:9999"),
            ("127.0.0.1", "say 127.0.0.1:9999"),
            ("::1", "say [::1]:9999"),
            ("::1:9999", "say [::1:9999]:9999"),
            ("65536", "ports go from 0 to 65535"),
            ("localhost:99999", "ports go from 0 to 65535"),
            ("localhost:-1", "expected a port"),
            ("localhost:", "expected a port"),
            ("localhost", "expected a port"),
            ("http://localhost:80", "expected a port"),
            ("a b:80", "expected a port"),
            ("", "expected a port"),
            ("OFF", "expected a port"),
        ] {
            let error = listening(text).unwrap_err();
            assert!(error.contains(word), "{text:?}: {error}");
        }
        assert!(server("off").is_err());
        assert_eq!(server("localhost:0"), Err(NO_PORT_0.into()));
        assert_eq!(server("0"), Err(NO_PORT_0.into()));
    }
}
