//! Rung 1: a client that waits for the time.

use crate::ladder::{Climbed, Conversation, Rule, Rung, TestSetup};

pub(super) const RUNG: Rung = Rung {
    name: "a client that sends nothing",
    rule: Rule {
        number: "D1",
        text: "the server sends the time at once, without waiting for a request or for the client's \
              EOF",
        why: "a client of daytime sends nothing, so both sides would wait for ever",
        source: "RFC 867",
    },
    chapter: "src/guide/library.md",
    climb,
};

fn climb(setup: &mut TestSetup) -> Climbed {
    let client = setup.connect(Conversation::receiving(b""))?;
    setup.expect(&client, |state| state.received > 0)?;
    setup.close(&client).map(|()| None)
}
