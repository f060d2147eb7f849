//! Rung 6: a client that ends its side before it reads.

use super::{FLOOD, MIB, read_late};
use crate::ladder::{Climbed, Conversation, End, Rule, Rung, TestSetup};

pub(super) const RUNG: Rung = Rung {
    name: "half-close",
    rule: Rule {
        number: "E2",
        text: "after the client's EOF the server sends everything that is pending, and only then \
              its own EOF",
        why: "a client that marks the end of its request by EOF loses the end of the reply",
        source: "RFC 9293, section 3.6: a user that closes may still receive",
    },
    chapter: "src/guide/07_back_pressure.md",
    climb,
};

fn climb(setup: &mut TestSetup) -> Climbed {
    let silent = setup.connect(Conversation::sending(b"").ending(End::HalfClose))?;
    setup.expect_eof(&silent)?;
    // Once as much as the kernels hold, and once more than that.
    for total in [MIB, FLOOD] {
        let client = setup.connect(Conversation::streaming(total, setup.count).paused())?;
        setup.fill(&client)?;
        read_late(setup, &client, End::HalfClose)?;
        setup.expect_eof(&client)?;
    }
    Ok(None)
}
