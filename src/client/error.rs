//! Errors of the clients.

use std::fmt::{self, Display};
use std::io;
use std::time::Duration;

use super::{is_exhausted, repr};

/// An error of a client. [`advice`](Error::advice) says what to do next.
#[derive(Debug)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Error {
    /// The address cannot be parsed, or the name cannot be resolved.
    NotFound { addr: String, error: io::Error },
    /// No address accepted the connection: refused, unreachable, or no local port left.
    Connect { addr: String, error: io::Error },
    /// No address answered in time.
    ConnectTimedOut { addr: String, timeout: Duration },
    /// The server sent nothing for the timeout, although its reply was not complete.
    Silent { addr: String, timeout: Duration, received: u64 },
    /// The connection failed before the reply was complete, for example by a reset.
    Broken { addr: String, error: io::Error, received: u64 },
    /// The server closed the connection without sending anything.
    Empty { addr: String },
    /// The server sent more than `max` bytes.
    TooLong { addr: String, max: usize },
    /// The server did not send one line of printable ASCII.
    Garbage { addr: String, line: Vec<u8> },
    /// The reply differs from the message, from the byte at `offset` on.
    Mismatch { addr: String, offset: u64, kind: Mismatch },
    /// No thread can be started.
    Thread(io::Error),
    /// The input cannot be read.
    Input(io::Error),
    /// The output cannot be written.
    Output(io::Error),
}

/// How a reply differs from what was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Mismatch {
    /// A byte differs.
    Differs { sent: u8, got: u8 },
    /// The reply ends early.
    Truncated,
    /// The reply continues after the whole message.
    Surplus,
}

impl Error {
    /// Returns what to do next.
    pub fn advice(&self) -> &'static str {
        match self {
            Error::Thread(_) => "the limit of processes may be reached; raise it: ulimit -u",
            Error::NotFound { .. } => {
                "check the spelling, or give an IP address and port, such as 127.0.0.1:9999"
            }
            Error::Connect { error, .. } if is_exhausted(error) => {
                "this machine has no free local port or descriptor: close other connections, or try \
                 again in a minute"
            }
            Error::Connect { addr, error } if addr.starts_with("unix:") => match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    "clients need write permission on the socket: ask its owner, or change its mode"
                }
                io::ErrorKind::InvalidInput => "choose a shorter path, or a relative one",
                _ => "check the path, and start the server; ours is: campanile serve -e unix:PATH",
            },
            Error::Connect { .. } => {
                "check the address and the port, and start the server; ours is: campanile serve"
            }
            Error::ConnectTimedOut { addr, .. } if addr.starts_with("unix:") => {
                "the server accepts no clients: restart it, or set a longer --timeout"
            }
            Error::ConnectTimedOut { .. } => {
                "check the address and any firewall on the way, or set a longer --timeout"
            }
            Error::Silent { .. } => {
                "check that this is the port of the right service, or set a longer --timeout"
            }
            Error::Broken { .. } => "try again; if it fails again, read the log of the server",
            Error::Empty { .. } | Error::TooLong { .. } | Error::Garbage { .. } => {
                "check that this is the port of a daytime service (RFC 867)"
            }
            Error::Mismatch { .. } => {
                "check that this is the port of an echo service (RFC 862), and check any proxy on the \
                 way"
            }
            Error::Input(_) => "check the file or program that stdin comes from",
            Error::Output(_) => "check the file or program that stdout goes to",
        }
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Thread(error) => write!(f, "cannot start a thread: {error}"),
            Error::NotFound { addr, error } => write!(f, "cannot find {addr}: {error}"),
            Error::Connect { addr, error } => write!(f, "cannot connect to {addr}: {error}"),
            Error::ConnectTimedOut { addr, timeout } => {
                write!(f, "cannot connect to {addr}: no answer within {timeout:?}")
            }
            Error::Silent { addr, timeout, received } => {
                write!(f, "{addr} sent nothing for {timeout:?}, after {received} bytes")
            }
            Error::Broken { addr, error, received } => {
                write!(f, "the connection to {addr} failed after {received} bytes: {error}")
            }
            Error::Empty { addr } => {
                write!(f, "{addr} closed the connection without sending anything")
            }
            Error::TooLong { addr, max } => {
                write!(f, "{addr} sent more than one line may have: over {max} bytes")
            }
            Error::Garbage { addr, line } => {
                let (start, dots) = match line.get(..60) {
                    Some(start) if line.len() > 60 => (start, "..."),
                    _ => (&line[..], ""),
                };
                write!(f, "{addr} sent something else than one line of text: {}{dots}", repr(start))
            }
            Error::Mismatch { addr, offset, kind } => {
                write!(f, "the reply of {addr} differs from what was sent: ")?;
                match kind {
                    Mismatch::Differs { sent, got } => {
                        write!(f, "byte {offset} was {sent:#04x} and came back as {got:#04x}")
                    }
                    Mismatch::Truncated => write!(f, "it ends early, after {offset} bytes"),
                    Mismatch::Surplus => {
                        write!(f, "it continues after the {offset} bytes of the message")
                    }
                }
            }
            Error::Input(error) => write!(f, "cannot read the input: {error}"),
            Error::Output(error) => write!(f, "cannot write the output: {error}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::NotFound { error, .. }
            | Error::Connect { error, .. }
            | Error::Broken { error, .. }
            | Error::Input(error)
            | Error::Output(error) => Some(error),
            _ => None,
        }
    }
}
