//! Rung 4: a hundred clients at once.

use super::line_end;
use crate::ladder::{Climbed, Conversation, End, Rule, Rung, RungError, TestSetup};

pub(super) const RUNG: Rung = Rung {
    name: "100 clients at once",
    rule: Rule {
        number: "L1",
        text: "the server serves every client, however many connect at once",
        why: "a server that leaks one descriptor or table entry a client serves the first few only",
        source: "close(2): a descriptor stays in use until it is closed",
    },
    chapter: "src/guide/04_drain.md",
    climb,
};

const MANY: usize = 100;

fn climb(setup: &mut TestSetup) -> Climbed {
    // `connect_many` returns no fewer than this many.
    let paused = |_| Conversation::receiving(b"").paused();
    let (crowd, _) = setup.connect_many(MANY, End::Not, paused)?;
    for client in &crowd {
        setup.update(client, |state| state.is_paused = false);
    }
    for (at, client) in crowd.iter().enumerate() {
        let context = format!("client {} of {} at once", at + 1, crowd.len());
        let context = |error: RungError| error.context(&context);
        setup.expect_eof(client).map_err(context)?;
        line_end(setup, client).map_err(context)?;
    }
    for client in &crowd {
        setup.close(client)?;
    }
    Ok(None)
}
