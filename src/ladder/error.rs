//! Why a rung was not reached, and why a server cannot be checked.

use std::fmt::{self, Display};
use std::io;

use super::report::{Bound, Failure, Outcome};
use super::rung::Rule;

/// Why a server could not be checked. [`advice`](Error::advice) says what to do next.
#[derive(Debug)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Error {
    /// The address cannot be parsed, or the name cannot be resolved.
    NotFound { addr: String, error: io::Error },
    /// No address accepted the connection: refused, unreachable, or no answer.
    Absent { addr: String, error: String },
    /// This machine cannot run the check, for example for lack of descriptors.
    Loop(io::Error),
}

impl Error {
    /// Returns what to do next.
    pub fn advice(&self) -> &'static str {
        match self {
            Error::NotFound { .. } => {
                "check the spelling, or give an IP address and port, such as 127.0.0.1:12345"
            }
            Error::Absent { .. } => {
                "check the address and the port, and start the server that is to be checked"
            }
            Error::Loop(_) => {
                "close other programs, or raise the limit of open files: ulimit -n 4096"
            }
        }
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NotFound { addr, error } => write!(f, "cannot find {addr}: {error}"),
            Error::Absent { addr, error } => write!(f, "cannot connect to {addr}: {error}"),
            Error::Loop(error) => write!(f, "cannot run the check: {error}"),
        }
    }
}

impl std::error::Error for Error {}

/// Why a rung was not reached.
#[derive(Debug)]
pub(super) enum RungError {
    /// The server broke a rule: its rung's, unless another is named.
    Stopped { sent: String, received: String, rule: Option<&'static Rule> },
    /// A bound of the check ended the rung before the server was done.
    TimedOut { sent: String, received: String },
    /// The server accepts no connection.
    Absent(String),
    /// This machine cannot make another connection.
    Exhausted { why: String, advice: &'static str },
    /// The loop of the check failed.
    Loop(io::Error),
}

impl RungError {
    pub(super) fn stopped(sent: impl Into<String>, received: impl Into<String>) -> RungError {
        RungError::Stopped { sent: sent.into(), received: received.into(), rule: None }
    }

    /// This machine has no local port, descriptor or memory left.
    pub(super) fn exhausted(error: &io::Error) -> RungError {
        let (why, advice) = match error.raw_os_error() {
            Some(libc::EADDRNOTAVAIL) => (
                "no free local port".into(),
                "wait a minute until used ports become free, or widen the range: \
                 sysctl net.ipv4.ip_local_port_range",
            ),
            Some(libc::EMFILE) => {
                ("no free file descriptor".into(), "raise the limit of open files: ulimit -n 4096")
            }
            _ => (without_number(error), "close other programs on this machine"),
        };
        RungError::Exhausted { why, advice }
    }

    /// Names another rule than that of the rung.
    pub(super) fn with_rule(self, rule: &'static Rule) -> RungError {
        match self.or_stopped() {
            RungError::Stopped { sent, received, .. } => {
                RungError::Stopped { sent, received, rule: Some(rule) }
            }
            error => error,
        }
    }

    /// Adds what else the rung had done, as in "while another client was connected".
    pub(super) fn context(mut self, text: &str) -> RungError {
        self = self.or_stopped();
        if let RungError::Stopped { sent, .. } | RungError::TimedOut { sent, .. } = &mut self {
            *sent += &format!("; {text}");
        }
        self
    }

    /// A server that was there before and accepts no connection now has broken a rule.
    fn or_stopped(self) -> RungError {
        match self {
            RungError::Absent(error) => RungError::stopped("nothing", no_connection(&error)),
            error => error,
        }
    }

    /// Converts into the outcome of a rung with this rule and this bound.
    pub(super) fn into_outcome(
        self,
        own: &'static Rule,
        bound: Bound,
    ) -> Result<Outcome, RungError> {
        match self.or_stopped() {
            RungError::Stopped { sent, received, rule } => {
                let rule = rule.unwrap_or(own);
                Ok(Outcome::Stopped(Failure { sent, received, rule }))
            }
            RungError::TimedOut { sent, received } => {
                Ok(Outcome::TimedOut { sent, received, bound })
            }
            RungError::Exhausted { why, advice } => Ok(Outcome::NotTried { reason: why, advice }),
            error => Err(error),
        }
    }
}

/// Returns the text of the error without its number.
pub(super) fn without_number(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

pub(super) fn no_connection(error: &str) -> String {
    format!("no connection: {error}")
}
