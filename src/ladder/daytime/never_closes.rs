//! Rung 6: a client that never closes.

use super::ask;
use crate::ladder::{Climbed, Conversation, Rule, Rung, TestSetup};

pub(super) const RUNG: Rung = Rung {
    name: "a client that never closes",
    rule: Rule {
        number: "D3",
        text: "the server serves the others while a client does not close its side",
        why: "one client that stays connected keeps the time from all others",
        source: "RFC 9293, section 3.6: each side closes on its own",
    },
    chapter: "src/guide/10_timers_and_signals.md",
    climb,
};

fn climb(setup: &mut TestSetup) -> Climbed {
    let open = setup.connect(Conversation::receiving(b"").staying_open())?;
    setup.expect_eof(&open)?;
    for _ in 0..3 {
        let context = "while another client had its line and did not close";
        ask(setup, Conversation::receiving(b"")).map_err(|error| error.context(context))?;
    }
    setup.close(&open).map(|()| None)
}
