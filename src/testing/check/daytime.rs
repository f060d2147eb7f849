//! The rungs of a daytime server.

use std::time::Duration;

use super::caller::{Call, Client, End};
use super::lab::{Climbed, Lab, Trouble};
use crate::client::one_line;

/// Number of tries, because the outcome depends on timing.
const TRIES: usize = 30;
const MANY: usize = 100;
const RESETS: usize = 20;
/// Time in which a server that closes too early does so.
const MOMENT: Duration = Duration::from_millis(5);

pub(super) fn unasked(lab: &mut Lab) -> Climbed {
    let client = lab.meet(Call::listening(b""))?;
    lab.wait(&[&client], lab.timeout, || {
        client.call().received > 0 || client.call().is_done_for()
    })?;
    if client.call().received == 0 {
        return Err(lab.trouble(&client));
    }
    lab.part(&client).map(|()| None)
}

pub(super) fn a_line(lab: &mut Lab) -> Climbed {
    let end = ask(lab, Call::listening(b""))?;
    Ok(Some(format!("ends with {end}")))
}

/// A client that gets its line and EOF, and leaves. Returns how the line ends.
fn ask(lab: &mut Lab, call: Call) -> Result<&'static str, Trouble> {
    let client = lab.meet(call)?;
    lab.ended(&client)?;
    let end = line_end(lab, &client)?;
    lab.part(&client)?;
    Ok(end)
}

/// Returns how the line ends, if the reply is one line with an end. Without that end, a line could not
/// be told from the beginning of one.
fn line_end(lab: &Lab, client: &Client) -> Result<&'static str, Trouble> {
    let call = client.call();
    if call.heard.is_empty() {
        return Err(lab.trouble(client));
    }
    let why = match one_line(&call.heard) {
        Ok((_, "")) => "a line without an end".into(),
        Ok((_, end)) => return Ok(end),
        Err(why) => why,
    };
    Err(Trouble::stopped(call.deeds(), format!("{}: {why}", call.came(Some(lab.timeout)))))
}

pub(super) fn a_client_that_sends_first(lab: &mut Lab) -> Climbed {
    for round in 1..=TRIES {
        let told = format!("try {round} of {TRIES}");
        send_first(lab, round).map_err(|trouble| trouble.after(&told))?;
    }
    Ok(None)
}

/// Every second client sends once more before it reads: that write reports a reset, and the read then
/// sees none.
fn send_first(lab: &mut Lab, round: usize) -> Result<(), Trouble> {
    let client = lab.meet(Call::listening(b"What time is it?\r\n").deaf())?;
    lab.wait(&[&client], MOMENT, || false)?;
    if round % 2 == 0 {
        lab.tell(&client, |call| call.say(b"Quick!\r\n"));
        lab.wait(&[&client], MOMENT, || false)?;
    }
    lab.tell(&client, |call| call.is_deaf = false);
    lab.ended(&client)?;
    line_end(lab, &client)?;
    lab.part(&client)
}

pub(super) fn many_at_once(lab: &mut Lab) -> Climbed {
    // `crowd` takes no fewer than this many.
    let (crowd, _) = lab.crowd(MANY, End::Not, |_| Call::listening(b"").deaf())?;
    for client in &crowd {
        lab.tell(client, |call| call.is_deaf = false);
    }
    for (at, client) in crowd.iter().enumerate() {
        let told = format!("client {} of {} at once", at + 1, crowd.len());
        lab.ended(client).map_err(|trouble| trouble.after(&told))?;
        line_end(lab, client).map_err(|trouble| trouble.after(&told))?;
    }
    for client in &crowd {
        lab.part(client)?;
    }
    Ok(None)
}

pub(super) fn resets(lab: &mut Lab) -> Climbed {
    let told = format!("after {RESETS} clients that reset, closed or half-closed at once");
    for round in 0..RESETS {
        let call = match round % 4 {
            0 => Call::listening(b"").ending(End::Reset),
            1 => Call::listening(b"What time is it?\r\n").ending(End::Reset),
            2 => Call::listening(b"").ending(End::Close),
            _ => Call::listening(b"").ending(End::HalfClose),
        };
        let client = lab.meet(call).map_err(|trouble| trouble.after(&told))?;
        lab.wait(&[&client], lab.timeout, || client.call().over.is_some())?;
    }
    for _ in 0..2 {
        let client = lab.meet(Call::listening(b"").rude());
        let client = client.map_err(|trouble| trouble.after(&told))?;
        lab.ended(&client).map_err(|trouble| trouble.after(&told))?;
        lab.tell(&client, |call| call.end = End::Reset);
        lab.wait(&[&client], lab.timeout, || client.call().over.is_some())?;
    }
    ask(lab, Call::listening(b"")).map_err(|trouble| trouble.after(&told))?;
    Ok(None)
}

pub(super) fn a_client_that_never_closes(lab: &mut Lab) -> Climbed {
    let rude = lab.meet(Call::listening(b"").rude())?;
    lab.ended(&rude)?;
    for _ in 0..3 {
        let told = "while another client had its line and did not close";
        ask(lab, Call::listening(b"")).map_err(|trouble| trouble.after(told))?;
    }
    lab.part(&rude).map(|()| None)
}
