//! Rung 2: the next client.

use super::exchange;
use crate::ladder::{Climbed, Rule, Rung, TestSetup};

pub(super) const RUNG: Rung = Rung {
    name: "the next client",
    rule: Rule {
        number: "L1",
        text: "after a client has left, the server serves the next one",
        why: "a server that accepts once serves one client in its life",
        source: "accept(2): each call accepts one connection",
    },
    chapter: "src/guide/02_busy.md",
    climb,
};

fn climb(setup: &mut TestSetup) -> Climbed {
    exchange(setup, b"Hello, world")?;
    exchange(setup, b"Hello again, world").map(|()| None)
}
