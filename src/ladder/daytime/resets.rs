//! Rung 5: clients that reset, close or half-close at once.

use super::ask;
use crate::ladder::{Climbed, Conversation, End, Rule, Rung, RungError, TestSetup};

pub(super) const RUNG: Rung = Rung {
    name: "resets",
    rule: Rule {
        number: "D4",
        text: "a client that resets, closes or half-closes at once does not affect the others",
        why: "if one reset ends the server, one client disconnects all others",
        source: "RFC 9293, section 3.5.3: a reset aborts its connection",
    },
    chapter: "src/guide/08_linger.md",
    climb,
};

const RESETS: usize = 20;

fn climb(setup: &mut TestSetup) -> Climbed {
    let context = format!("after {RESETS} clients that reset, closed or half-closed at once");
    let context = |error: RungError| error.context(&context);
    for round in 0..RESETS {
        let state = match round % 4 {
            0 => Conversation::receiving(b"").ending(End::Reset),
            1 => Conversation::receiving(b"What time is it?\r\n").ending(End::Reset),
            2 => Conversation::receiving(b"").ending(End::Close),
            _ => Conversation::receiving(b"").ending(End::HalfClose),
        };
        let client = setup.connect(state).map_err(context)?;
        setup.wait_until_closed(&[client])?;
    }
    for _ in 0..2 {
        let client = setup.connect(Conversation::receiving(b"").staying_open()).map_err(context)?;
        setup.expect_eof(&client).map_err(context)?;
        setup.update(&client, |state| state.end = End::Reset);
        setup.wait_until_closed(&[client])?;
    }
    ask(setup, Conversation::receiving(b"")).map_err(context)?;
    Ok(None)
}
