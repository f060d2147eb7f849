//! The result of a climb.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::lab::RUNG_BOUND;

/// The result of every rung. Displayed, it is a table.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Report {
    /// `echo` or `daytime`.
    pub service: &'static str,
    /// The address as it was given.
    pub addr: String,
    /// The address that accepted the connection.
    pub at: SocketAddr,
    /// Every rung of the ladder, the lowest first.
    pub rungs: Vec<Rung>,
    /// The highest rung to climb.
    pub goal: usize,
}

/// A rung of the ladder.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Rung {
    /// Counted from 1.
    pub number: usize,
    /// What its clients do.
    pub name: &'static str,
    /// The number of its rule.
    pub rule: &'static str,
    /// The chapter of the guide that shows how to keep the rule: a file of the source, and a module of
    /// `guide` in the documentation.
    pub chapter: Option<&'static str>,
    /// What became of it.
    pub outcome: Outcome,
    /// How long it took.
    pub took: Duration,
}

/// What became of a rung.
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
        /// What the client sent.
        sent: String,
        /// What it received.
        came: String,
        /// The bound.
        bound: Bound,
    },
    /// This machine cannot make enough connections. The climb goes on.
    NotTried {
        /// What is missing.
        why: String,
        /// What to do next.
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

/// Why a rung was not reached.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// What the client sent.
    pub sent: String,
    /// What it received.
    pub came: String,
    /// The number of the broken rule.
    pub rule: &'static str,
    /// The text of that rule.
    pub says: &'static str,
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

    /// Whether the server reached every rung up to the goal.
    pub fn is_well(&self) -> bool {
        self.reached() >= self.goal
    }

    /// The rung at which the server broke a rule, and how.
    pub fn stopped(&self) -> Option<(&Rung, &Failure)> {
        self.rungs.iter().find_map(|rung| match &rung.outcome {
            Outcome::Stopped(failure) => Some((rung, failure)),
            _ => None,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (reached, goal) = (self.reached(), self.goal);
        write!(f, "{} {}: {reached} of {goal} rungs", self.service, self.addr)?;
        match self.not_tried() {
            0 => writeln!(f)?,
            count => writeln!(f, ", {count} not tried")?,
        }
        for rung in self.rungs.iter().take(goal) {
            writeln!(f, "{rung}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>3}  {:<32}  ", self.number, self.name)?;
        match &self.outcome {
            Outcome::Untried => f.write_str("-"),
            Outcome::Reached { note: None } => f.write_str("reached"),
            Outcome::Reached { note: Some(note) } => write!(f, "reached, {note}"),
            Outcome::Stopped(Failure { sent, came, rule, says }) => {
                f.write_str("STOPPED")?;
                detail(f, "sent", sent)?;
                detail(f, "received", came)?;
                detail(f, "rule", &format!("{rule}: {says}"))?;
                self.chapter.map_or(Ok(()), |chapter| detail(f, "read", chapter))
            }
            Outcome::TimedOut { sent, came, bound } => {
                f.write_str("TIMED OUT")?;
                detail(f, "sent", sent)?;
                detail(f, "received", came)?;
                detail(f, "bound", &bound.to_string())
            }
            Outcome::NotTried { why, .. } => write!(f, "not tried, {why}"),
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
