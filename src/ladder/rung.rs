//! A rung is data and one function. Each has a file of its own in `echo` or `daytime`, where the
//! array `RUNGS` lists them.

use super::error::RungError;
use super::setup::TestSetup;

/// A rung of a ladder.
#[derive(Debug)]
#[non_exhaustive]
pub struct Rung {
    /// The conversation with the server, such as `half-close`.
    pub name: &'static str,
    /// The rule that it checks.
    pub rule: Rule,
    /// The chapter of the guide that shows how to keep the rule: a file of the source, and a module of
    /// `guide` in the documentation.
    pub chapter: &'static str,
    pub(super) climb: Climb,
}

/// A rule that a client can check.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rule {
    /// Its number, such as `E1`.
    pub number: &'static str,
    /// The obligation of the server.
    pub text: &'static str,
    /// The harm to the clients of a server that breaks it.
    pub why: &'static str,
    /// The standard or the manual page that it comes from.
    pub source: &'static str,
}

/// The function of a rung.
pub(super) type Climb = fn(&mut TestSetup) -> Climbed;

/// A note on a rung that was reached, or why it was not.
pub(super) type Climbed = Result<Option<String>, RungError>;
