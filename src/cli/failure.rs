//! The failure of a command: what was attempted, what to do next, and the exit code.

use std::fmt;

pub const FAILED: u8 = 1;
pub const USAGE: u8 = 2;
pub const DIFFERS: u8 = 3;
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

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}\n  {}\n", self.what, self.advice)
    }
}
