//! Rung 2: the line and its end.

use super::ask;
use crate::ladder::{Climbed, Conversation, Rule, Rung, TestSetup};

pub(super) const RUNG: Rung = Rung {
    name: "one line, then EOF",
    rule: Rule {
        number: "D1",
        text: "the server sends one line of printable text with a line end, and then EOF",
        why: "a client reads to EOF, because one read may return less than a line",
        source: "RFC 867: the service closes the connection",
    },
    chapter: "src/guide/08_linger.md",
    climb,
};

fn climb(setup: &mut TestSetup) -> Climbed {
    let end = ask(setup, Conversation::receiving(b""))?;
    Ok(Some(format!("ends with {end}")))
}
