//! Rung 1: one client.

use super::exchange;
use crate::ladder::{Climbed, Rule, Rung, TestSetup};

pub(super) const RUNG: Rung = Rung {
    name: "one client",
    rule: Rule {
        number: "E1",
        text: "the server returns every byte at once and in order: it sends no greeting, and does \
              not wait for the end of a line",
        why: "a client that waits for its echo before it sends more waits for ever",
        source: "RFC 862",
    },
    chapter: "src/guide/01_blocking.md",
    climb,
};

fn climb(setup: &mut TestSetup) -> Climbed {
    exchange(setup, b"Hello, world").map(|()| None)
}
