//! Rung 4: 1 MiB of every byte value.

use super::MIB;
use crate::ladder::{Climbed, Conversation, Rule, Rung, TestSetup};

pub(super) const RUNG: Rung = Rung {
    name: "1 MiB",
    rule: Rule {
        number: "E1",
        text: "the server returns every byte, whatever its value, in order",
        why: "a server that decodes text, or takes one read for one message, changes or loses \
              bytes",
        source: "RFC 862",
    },
    chapter: "src/guide/04_drain.md",
    climb,
};

fn climb(setup: &mut TestSetup) -> Climbed {
    let client = setup.connect(Conversation::streaming(MIB, setup.count))?;
    setup.expect_echo(&client)?;
    setup.close(&client).map(|()| None)
}
