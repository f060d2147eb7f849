//! The rungs of a daytime server (RFC 867).

mod many_at_once;
mod never_closes;
mod one_line;
mod resets;
mod sends_first;
mod unasked;

use super::{Conversation, Rung, RungError, TestClient, TestSetup};
use crate::client::one_line;

/// The lowest first.
pub(super) static RUNGS: [Rung; 6] = [
    unasked::RUNG,
    one_line::RUNG,
    sends_first::RUNG,
    many_at_once::RUNG,
    resets::RUNG,
    never_closes::RUNG,
];

/// A client that receives its line and EOF, and closes. Returns how the line ends.
fn ask(setup: &mut TestSetup, state: Conversation) -> Result<&'static str, RungError> {
    let client = setup.connect(state)?;
    setup.expect_eof(&client)?;
    let end = line_end(setup, &client)?;
    setup.close(&client)?;
    Ok(end)
}

/// Returns how the line ends, if the reply is one line with an end. Without that end, a line could not
/// be told from the beginning of one.
fn line_end(setup: &TestSetup, client: &TestClient) -> Result<&'static str, RungError> {
    let state = client.state();
    if state.reply.is_empty() {
        return Err(setup.error_of(client));
    }
    let why = match one_line(&state.reply) {
        Ok((_, "")) => "a line without an end".into(),
        Ok((_, end)) => return Ok(end),
        Err(why) => why,
    };
    let received = format!("{}: {why}", state.describe_received(Some(setup.timeout)));
    Err(RungError::stopped(state.describe_sent(), received))
}
