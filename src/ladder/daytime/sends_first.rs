//! Rung 3: a client that sends before it reads.

use std::time::Duration;

use super::line_end;
use crate::ladder::{Climbed, Conversation, Rule, Rung, RungError, TestSetup};

pub(super) const RUNG: Rung = Rung {
    name: "a client that sends first",
    rule: Rule {
        number: "D3",
        text: "the server reads and discards what the client sends: closing with unread bytes \
              resets the connection, and that can destroy the line",
        why: "the client gets a reset in place of the line",
        source: "RFC 867: any data received is thrown away; RFC 1122, section 4.2.2.13",
    },
    chapter: "src/guide/08_linger.md",
    climb,
};

/// Number of tries, because the outcome depends on timing.
const TRIES: usize = 30;
/// Time in which a server that closes too early does so.
const MOMENT: Duration = Duration::from_millis(5);

fn climb(setup: &mut TestSetup) -> Climbed {
    for round in 1..=TRIES {
        let context = format!("try {round} of {TRIES}");
        send_first(setup, round).map_err(|error| error.context(&context))?;
    }
    Ok(None)
}

/// Every second client sends once more before it reads: that write reports a reset, and the read then
/// sees none.
fn send_first(setup: &mut TestSetup, round: usize) -> Result<(), RungError> {
    let client = setup.connect(Conversation::receiving(b"What time is it?\r\n").paused())?;
    setup.pause(&client, MOMENT)?;
    if round % 2 == 0 {
        setup.update(&client, |state| state.send(b"Quick!\r\n"));
        setup.pause(&client, MOMENT)?;
    }
    setup.update(&client, |state| state.is_paused = false);
    setup.expect_eof(&client)?;
    line_end(setup, &client)?;
    setup.close(&client)
}
