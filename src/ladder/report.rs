//! The result of a climb.

use std::fmt;
use std::time::Duration;

use super::rung::{Rule, Rung};
use super::setup::RUNG_BOUND;
use crate::protocol::Address;

/// The result of every rung. Displayed, it is a table of the rungs that the climb began, with a summary
/// below it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Report {
    /// `echo` or `daytime`.
    pub service: &'static str,
    /// The address as it was given.
    pub addr: String,
    /// The address that accepted the connection.
    pub at: Address,
    /// The rungs to climb, the lowest first.
    pub rungs: Vec<RungReport>,
}

/// The result of one rung. Displayed, it is a row of the table.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RungReport {
    /// Position in the ladder, counted from 1.
    pub number: usize,
    /// The rung itself.
    pub rung: &'static Rung,
    /// The result.
    pub outcome: Outcome,
    /// How long the rung took.
    pub took: Duration,
}

/// The result of trying a rung.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The climb did not begin it, or has not finished it.
    Untried,
    /// The server kept the rule.
    Reached {
        /// An observation worth knowing.
        note: Option<String>,
    },
    /// The server broke a rule. The climb ends here.
    Stopped(Failure),
    /// A bound of the check ended the rung before the server was done. The climb ends here.
    TimedOut {
        /// The bytes that the client sent.
        sent: String,
        /// The bytes that it received, and how the connection ended.
        received: String,
        /// The bound.
        bound: Bound,
    },
    /// This machine cannot make enough connections. The climb goes on.
    NotTried {
        /// The resource that this machine lacks.
        reason: String,
        /// The next step.
        advice: &'static str,
    },
}

/// A time bound of the check, which the server need not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Bound {
    /// One rung takes at most ten times the [timeout](super::Ladder::timeout).
    Rung { timeout: Duration },
    /// The climb takes at most its [deadline](super::Ladder::deadline).
    Climb { deadline: Duration },
}

/// How the server broke a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// The bytes that the client sent.
    pub sent: String,
    /// The bytes that it received, and how the connection ended.
    pub received: String,
    /// The broken rule. The last rung of echo checks several.
    pub rule: &'static Rule,
}

impl Report {
    /// The number of rungs reached.
    pub fn reached(&self) -> usize {
        self.count(|outcome| matches!(outcome, Outcome::Reached { .. }))
    }

    /// The number of rungs that this machine cannot try.
    pub fn not_tried(&self) -> usize {
        self.count(|outcome| matches!(outcome, Outcome::NotTried { .. }))
    }

    fn count(&self, is_so: impl Fn(&Outcome) -> bool) -> usize {
        self.rungs.iter().filter(|rung| is_so(&rung.outcome)).count()
    }

    /// Whether the server reached every rung that was to be climbed.
    pub fn is_well(&self) -> bool {
        self.reached() == self.rungs.len()
    }

    /// The rung at which the server broke a rule, and how.
    pub fn stopped(&self) -> Option<(&RungReport, &Failure)> {
        self.rungs.iter().find_map(|rung| match &rung.outcome {
            Outcome::Stopped(failure) => Some((rung, failure)),
            _ => None,
        })
    }

    /// The last line of the table: how many rungs were reached.
    pub fn summary(&self) -> String {
        let (reached, all) = (self.reached(), self.rungs.len());
        let mut text = format!("{} {}: {reached} of {all} rungs", self.service, self.addr);
        if self.not_tried() > 0 {
            text += &format!(", {} not tried", self.not_tried());
        }
        text
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let begun = self.rungs.iter().filter(|rung| rung.outcome != Outcome::Untried);
        begun.into_iter().try_for_each(|rung| writeln!(f, "{rung}"))?;
        writeln!(f, "{}", self.summary())
    }
}

impl fmt::Display for RungReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>3}  {:<32}  ", self.number, self.rung.name)?;
        match &self.outcome {
            Outcome::Untried => f.write_str("-"),
            Outcome::Reached { note: None } => f.write_str("reached"),
            Outcome::Reached { note: Some(note) } => write!(f, "reached, {note}"),
            Outcome::Stopped(Failure { sent, received, rule }) => {
                f.write_str("STOPPED")?;
                detail(f, "sent", sent)?;
                detail(f, "received", received)?;
                detail(f, "rule", &format!("{}: {}", rule.number, rule.text))?;
                detail(f, "why", rule.why)?;
                detail(f, "source", rule.source)?;
                detail(f, "read", self.rung.chapter)
            }
            Outcome::TimedOut { sent, received, bound } => {
                f.write_str("TIMED OUT")?;
                detail(f, "sent", sent)?;
                detail(f, "received", received)?;
                detail(f, "bound", &bound.to_string())
            }
            Outcome::NotTried { reason, .. } => write!(f, "not tried, {reason}"),
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bound::Rung { timeout } => {
                let whole = timeout.saturating_mul(RUNG_BOUND);
                write!(f, "{whole:?} for one rung, {RUNG_BOUND} times the timeout of {timeout:?}")
            }
            Bound::Climb { deadline } => write!(f, "{deadline:?} for the whole check"),
        }
    }
}

/// Writes a detail in lines that fit a terminal; cuts a very long one.
fn detail(f: &mut fmt::Formatter<'_>, name: &str, text: &str) -> fmt::Result {
    const MOST: usize = 300;
    const WIDTH: usize = 62;
    write!(f, "\n       {name:<9}")?;
    let beginning: String = text.chars().take(MOST).collect();
    let more = if beginning.len() < text.len() { "..." } else { "" };
    let mut column = 0;
    for word in beginning.split(' ') {
        if column > 0 && column + word.len() > WIDTH {
            write!(f, "\n{:16}", "")?;
            column = 0;
        }
        write!(f, " {word}")?;
        column += word.len() + 1;
    }
    f.write_str(more)
}
