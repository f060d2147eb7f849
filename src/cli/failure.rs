//! The failure of a command: what was attempted, what to do next, and the exit code.

use std::fmt;
use std::time::Duration;

pub const FAILED: u8 = 1;
pub const USAGE: u8 = 2;
pub const DIFFERS: u8 = 3;
/// This machine has too few ports or descriptors.
pub const NOT_TRIED: u8 = 4;
/// The exit code of timeout(1).
pub const TIMED_OUT: u8 = 124;

#[derive(Debug)]
pub struct Failure {
    pub code: u8,
    what: String,
    advice: String,
}

impl Failure {
    pub fn new(code: u8, what: impl Into<String>, advice: impl Into<String>) -> Failure {
        Failure { code, what: what.into(), advice: advice.into() }
    }
}

/// Three times this bound, as a flag takes it.
pub fn longer(bound: Duration) -> String {
    let bound = bound.saturating_mul(3);
    match (bound.subsec_nanos(), bound.subsec_nanos() % 1_000_000) {
        (0, _) => format!("{}s", bound.as_secs()),
        (_, 0) => format!("{}ms", bound.as_millis()),
        _ => format!("{}ns", bound.as_nanos()),
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}\n  {}\n", self.what, self.advice)
    }
}
