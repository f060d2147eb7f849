//! Rung 3: two clients at once.

use crate::ladder::{Climbed, Conversation, Rule, Rung, RungError, TestSetup};

pub(super) const RUNG: Rung = Rung {
    name: "two at once",
    rule: Rule {
        number: "L1",
        text: "the server serves each client, also while another one is connected and silent",
        why: "one client that is connected and silent makes all others wait",
        source: "poll(2): one call waits for many connections",
    },
    chapter: "src/guide/04_drain.md",
    climb,
};

fn climb(setup: &mut TestSetup) -> Climbed {
    let context = |error: RungError| error.context("while another client was connected");
    let first = setup.connect(Conversation::sending(b"I was here first. "))?;
    setup.expect_echo(&first)?;
    let second = setup.connect(Conversation::sending(b"Am I alone here?")).map_err(context)?;
    setup.expect_echo(&second).map_err(context)?;
    setup.update(&first, |state| state.send(b"And I still am."));
    setup.expect_echo(&first).map_err(context)?;
    setup.close(&first)?;
    setup.close(&second).map(|()| None)
}
