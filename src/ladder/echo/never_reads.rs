//! Rung 7: a client that sends and never reads.

use super::{MIB, exchange, read_late};
use crate::ladder::memory::Memory;
use crate::ladder::{Climbed, Conversation, End, Rule, Rung, RungError, TestSetup, mebibytes};

pub(super) const RUNG: Rung = Rung {
    name: "a client that never reads",
    rule: Rule {
        number: "E3",
        text: "the server bounds what it keeps for a client that does not read, and serves the \
              others",
        why: "one client that does not read fills the memory of the server, or blocks it for all \
              others",
        source: "RFC 9293, section 3.8.6: the window bounds what a sender may send",
    },
    chapter: "src/guide/07_back_pressure.md",
    climb,
};

/// Enough that the memory of a server which keeps all of it grows visibly.
const DELUGE: u64 = 64 * MIB;
/// Growth that has other reasons.
const GROWTH: u64 = 16 * MIB;

fn climb(setup: &mut TestSetup) -> Climbed {
    let memory = Memory::of(&setup.addr);
    let before = memory.resident();
    let client = setup.connect(Conversation::streaming(DELUGE, setup.count).paused())?;
    setup.fill(&client)?;
    let taken = client.state().queued;
    let context = format!("while another client had sent {} and read nothing", mebibytes(taken));
    for text in [&b"Is the server there?"[..], b"And still there?"] {
        exchange(setup, text).map_err(|error| error.context(&context))?;
    }
    let grown = before.and_then(|before| Ok(memory.resident()?.saturating_sub(before)));
    let unbounded = match grown {
        Ok(grown) if grown > GROWTH => {
            Some(format!("the server took all of it, and its memory grew by {}", mebibytes(grown)))
        }
        // More than two kernels hold, so another process keeps it, such as a child of the server.
        Ok(_) if taken == DELUGE => Some("the server took all of it, without a bound".into()),
        _ => None,
    };
    if let Some(received) = unbounded {
        return Err(RungError::stopped(format!("{} and read nothing", mebibytes(taken)), received));
    }
    read_late(setup, &client, End::Not)?;
    setup.close(&client)?;
    let memory = match grown {
        Ok(grown) => format!("memory grew by {}", mebibytes(grown)),
        Err(why) => format!("memory not measured: {why}"),
    };
    Ok(Some(format!("the server took {}; {memory}", mebibytes(taken))))
}
