//! The rungs of an echo server (RFC 862).

mod crowd;
mod half_close;
mod never_reads;
mod next_client;
mod one_client;
mod one_mebibyte;
mod slow_reader;
mod two_at_once;
mod urgent;

use std::time::Duration;

use super::{Conversation, End, Rung, RungError, TestClient, TestSetup};

/// The lowest first.
pub(super) static RUNGS: [Rung; 8] = [
    one_client::RUNG,
    next_client::RUNG,
    two_at_once::RUNG,
    one_mebibyte::RUNG,
    slow_reader::RUNG,
    half_close::RUNG,
    never_reads::RUNG,
    crowd::RUNG,
];

const MIB: u64 = 1 << 20;
/// More than the kernels of both sides hold (4 and 6 MiB by default on Linux).
const FLOOD: u64 = 24 * MIB;
/// Time for bytes to arrive and for the server to react.
const MOMENT: Duration = Duration::from_millis(50);

/// A client that sends `text`, receives its echo and closes.
fn exchange(setup: &mut TestSetup, text: &[u8]) -> Result<(), RungError> {
    let client = setup.connect(Conversation::sending(text))?;
    setup.expect_echo(&client)?;
    setup.close(&client)
}

/// Lets a paused client end its side and read everything. Returns how much it had sent.
fn read_late(setup: &mut TestSetup, client: &TestClient, end: End) -> Result<u64, RungError> {
    setup.update(client, |state| {
        state.stop_sending();
        state.end = end;
    });
    if end != End::Not {
        // The EOF must arrive while much is still queued.
        setup.pause(client, MOMENT)?;
    }
    setup.update(client, |state| state.is_paused = false);
    setup.expect_echo(client)?;
    Ok(client.state().total)
}
