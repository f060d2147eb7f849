//! Rung 8: resets, urgent data and a thousand idle clients.

use super::{MIB, MOMENT, exchange, urgent};
use crate::ladder::{Climbed, Conversation, End, Rule, Rung, RungError, TestSetup};

pub(super) const RUNG: Rung = Rung {
    name: "resets, urgent data, 1,000 idle",
    rule: Rule {
        number: "E6",
        text: "a reset ends that connection and no other",
        why: "if one reset ends the server, one client disconnects all others",
        source: "RFC 9293, section 3.5.3: a reset aborts its connection",
    },
    chapter: "src/guide/08_linger.md",
    climb,
};

static CROWD: Rule = Rule {
    number: "L5",
    text: "idle connections do not keep the server from serving other clients",
    why: "a table of fixed size locks new clients out while idle ones fill it",
    source: "getrlimit(2): RLIMIT_NOFILE bounds the connections of a process",
};

const RESETS: usize = 20;
const IDLE: usize = 1000;

fn climb(setup: &mut TestSetup) -> Climbed {
    resets(setup)?;
    let has_urgent = urgent::exchange(setup)?;
    let note = idle(setup).map_err(|error| error.with_rule(&CROWD))?;
    let lack = (!has_urgent).then(|| "without urgent data, which a Unix socket lacks".to_owned());
    Ok(note.or(lack))
}

fn resets(setup: &mut TestSetup) -> Result<(), RungError> {
    for round in 0..RESETS {
        let state = match round % 2 {
            0 => Conversation::sending(b""),
            // The reset arrives while the server has unread bytes.
            _ => Conversation::streaming(MIB / 8, setup.count).paused(),
        };
        let client = setup.connect(state.ending(End::Reset));
        let client =
            client.map_err(|error| error.context("after clients that reset their connections"))?;
        setup.wait_until_closed(&[client])?;
    }
    let context = format!("after {RESETS} clients that reset their connections");
    let context = |error: RungError| error.context(&context);
    let client = setup.connect(Conversation::sending(b"Did you survive that?")).map_err(context)?;
    setup.expect_echo(&client).map_err(context)?;
    // A server that the resets end may take a moment to end.
    setup.pause(&client, MOMENT)?;
    setup.close(&client)?;
    exchange(setup, b"And are you still well?").map_err(context)
}

/// Connects idle clients. Returns a note if this machine has no room for all of them.
fn idle(setup: &mut TestSetup) -> Climbed {
    let idle = |_| Conversation::sending(b"Pay no heed to me");
    let (crowd, lack) = setup.connect_many(IDLE, End::Reset, idle)?;
    let count = crowd.len();
    let context = format!("while {count} idle clients were connected");
    let context = |error: RungError| error.context(&context);
    let client = setup.connect(Conversation::streaming(MIB / 16, setup.count)).map_err(context)?;
    setup.expect_echo(&client).map_err(context)?;
    setup.close(&client)?;
    if let Some(lost) = crowd.iter().find(|client| client.state().is_over()) {
        return Err(context(setup.error_of(lost)));
    }
    for (at, client) in crowd.iter().enumerate() {
        let end = if at % 2 == 0 { End::Close } else { End::Reset };
        setup.update(client, |state| state.end = end);
    }
    setup.wait_until_closed(&crowd)?;
    let context = format!("after {count} idle clients left, half of them with a reset");
    exchange(setup, b"Are you there?").map_err(|error| error.context(&context))?;
    Ok(lack.map(|why| format!("with {count} of 1,000 idle clients: {why}")))
}
