//! What came of a climb.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// How far a server came, rung by rung. Displayed it is a table.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Report {
    /// `echo` or `daytime`.
    pub service: &'static str,
    /// The address as it was given.
    pub addr: String,
    /// The address that was connected to.
    pub at: SocketAddr,
    /// Every rung of the ladder, the lowest first.
    pub rungs: Vec<Rung>,
    /// How far it was to be climbed.
    pub goal: usize,
}

/// A rung of the ladder.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Rung {
    /// From 1 on.
    pub number: usize,
    /// What happens there.
    pub name: &'static str,
    /// The rule it stands for.
    pub rule: &'static str,
    /// The chapter of the guide that shows how it is done right: a file of the source, and in the
    /// documentation a module of `guide`.
    pub chapter: Option<&'static str>,
    /// Whether it was reached.
    pub outcome: Outcome,
    /// How long it took.
    pub took: Duration,
}

/// What became of a rung.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It was not tried, or not yet.
    Untried,
    /// The server did as the rule says; `note` is what was seen besides.
    Reached {
        /// Something worth knowing.
        note: Option<String>,
    },
    /// The server did not.
    Stopped(Failure),
}

/// Why a rung was not reached.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// What we sent.
    pub sent: String,
    /// What came.
    pub came: String,
    /// The number of the rule that was broken.
    pub rule: &'static str,
    /// What that rule says.
    pub says: &'static str,
}

impl Report {
    /// How many rungs were reached.
    pub fn reached(&self) -> usize {
        let is_reached = |rung: &&Rung| matches!(rung.outcome, Outcome::Reached { .. });
        self.rungs.iter().take_while(is_reached).count()
    }

    /// Whether all were that were to be tried.
    pub fn is_well(&self) -> bool {
        self.reached() >= self.goal
    }

    /// The rung where the climb stopped, and why.
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
        writeln!(f, "{} {}: {reached} of {goal} rungs", self.service, self.addr)?;
        for rung in self.rungs.iter().take(goal) {
            writeln!(f, "{rung}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, note) = match &self.outcome {
            Outcome::Untried => ("-", None),
            Outcome::Reached { note } => ("reached", note.as_deref()),
            Outcome::Stopped(_) => ("STOPPED", None),
        };
        write!(f, "{:>3}  {:<34}  {word}", self.number, self.name)?;
        if let Some(note) = note {
            write!(f, "  {note}")?;
        }
        if let Outcome::Stopped(failure) = &self.outcome {
            let Failure { sent, came, rule, says } = failure;
            tell(f, "sent", sent)?;
            tell(f, "came", came)?;
            tell(f, "rule", &format!("{rule}: {says}"))?;
            if let Some(chapter) = self.chapter {
                tell(f, "read", chapter)?;
            }
        }
        Ok(())
    }
}

/// Writes a text in lines that a terminal shows whole, and of a very long one the beginning.
fn tell(f: &mut fmt::Formatter<'_>, what: &str, text: &str) -> fmt::Result {
    const MOST: usize = 300;
    const WIDTH: usize = 66;
    write!(f, "\n       {what} ")?;
    let beginning: String = text.chars().take(MOST).collect();
    let more = if beginning.len() < text.len() { "..." } else { "" };
    let mut column = 0;
    for word in beginning.split(' ') {
        if column > 0 && column + word.len() > WIDTH {
            write!(f, "\n            ")?;
            column = 0;
        }
        write!(f, " {word}")?;
        column += word.len() + 1;
    }
    f.write_str(more)
}
