//! Rung 5: a client that reads late.

use super::{FLOOD, read_late};
use crate::ladder::{Climbed, Conversation, End, Rule, Rung, TestSetup, mebibytes};

pub(super) const RUNG: Rung = Rung {
    name: "a slow reader",
    rule: Rule {
        number: "E4",
        text: "if a write takes fewer bytes than offered, the server keeps the rest and sends it \
              later: send is not sendall",
        why: "the bytes that a write did not take are lost in the middle of the stream",
        source: "send(2): returns the number of bytes sent",
    },
    chapter: "src/guide/06_partial_writes.md",
    climb,
};

fn climb(setup: &mut TestSetup) -> Climbed {
    let client = setup.connect(Conversation::streaming(FLOOD, setup.count).paused())?;
    setup.fill(&client)?;
    let taken = read_late(setup, &client, End::Not)?;
    setup.close(&client)?;
    Ok(Some(format!("the server took {} before the client read", mebibytes(taken))))
}
