//! Why a client failed, in words that say what to do next.

use std::fmt::{self, Display};
use std::io;
use std::time::Duration;

use super::repr;

/// Why a client did not get what it asked for. [`advice`](Error::advice) says what to do next.
#[derive(Debug)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Error {
    /// The address cannot be understood, or its name is not known.
    NotFound { addr: String, error: io::Error },
    /// Nobody could be connected to: refused, unreachable.
    Connect { addr: String, error: io::Error },
    /// No address answered in time.
    ConnectTimedOut { addr: String, patience: Duration },
    /// The server owed us something and said nothing for too long.
    Silent { addr: String, patience: Duration, received: u64 },
    /// The connection broke in the middle, for example by a reset.
    Broken { addr: String, error: io::Error, received: u64 },
    /// The server ended without a word.
    Empty { addr: String },
    /// The server said more than a line with the time can have.
    TooLong { addr: String, max: usize },
    /// What the server said is not a line of printable text.
    Garbage { addr: String, line: Vec<u8> },
    /// What came back is not what was sent, from the byte at `offset` on.
    Mismatch { addr: String, offset: u64, kind: Mismatch },
    /// The input could not be read.
    Input(io::Error),
    /// The output could not be written.
    Output(io::Error),
}

/// How a reply differs from what was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Mismatch {
    /// Another byte.
    Differs { sent: u8, got: u8 },
    /// It ends before everything came back.
    Truncated,
    /// It goes on where nothing more was sent.
    Surplus,
}

impl Error {
    /// What to do next.
    pub fn advice(&self) -> &'static str {
        match self {
            Error::NotFound { .. } => {
                "check the spelling, or give the address itself, such as 127.0.0.1:9999"
            }
            Error::Connect { .. } => {
                "check address and port, and that the server runs: campanile serve"
            }
            Error::ConnectTimedOut { .. } => {
                "check the address, or whether a firewall is in between; or allow more with --timeout 30s"
            }
            Error::Silent { .. } => {
                "check that the port is that of the right service; or allow more with --timeout 30s"
            }
            Error::Broken { .. } => "try again; if it happens again, the server's log may say why",
            Error::Empty { .. } | Error::TooLong { .. } | Error::Garbage { .. } => {
                "check that the port is that of a daytime service (RFC 867)"
            }
            Error::Mismatch { .. } => {
                "check that the port is that of an echo service (RFC 862), and what is in between"
            }
            Error::Input(_) => "check where the input comes from",
            Error::Output(_) => "check where the output goes",
        }
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NotFound { addr, error } => write!(f, "cannot find {addr}: {error}"),
            Error::Connect { addr, error } => write!(f, "cannot connect to {addr}: {error}"),
            Error::ConnectTimedOut { addr, patience } => {
                write!(f, "cannot connect to {addr}: no answer for {patience:?}")
            }
            Error::Silent { addr, patience, received } => {
                write!(f, "{addr} was silent for {patience:?}, after {received} bytes")
            }
            Error::Broken { addr, error, received } => {
                write!(f, "the connection to {addr} broke after {received} bytes: {error}")
            }
            Error::Empty { addr } => write!(f, "{addr} ended without a word"),
            Error::TooLong { addr, max } => {
                write!(f, "{addr} said more than a line: over {max} bytes")
            }
            Error::Garbage { addr, line } => {
                let (start, dots) = match line.get(..60) {
                    Some(start) if line.len() > 60 => (start, "..."),
                    _ => (&line[..], ""),
                };
                write!(f, "{addr} did not say a line of text, but {}{dots}", repr(start))
            }
            Error::Mismatch { addr, offset, kind } => {
                write!(f, "the reply of {addr} differs from what was sent: ")?;
                match kind {
                    Mismatch::Differs { sent, got } => {
                        write!(f, "byte {offset} was {sent:#04x} and came back as {got:#04x}")
                    }
                    Mismatch::Truncated => write!(f, "it ends after {offset} bytes, too early"),
                    Mismatch::Surplus => write!(f, "it goes on after {offset} bytes"),
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
