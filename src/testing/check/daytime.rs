//! The rungs of a daytime server.

use std::time::Duration;

use super::caller::{Call, Client, End};
use super::lab::{Climbed, Lab, Trouble};
use crate::client::repr;

/// What depends on timing is tried as often.
const TRIES: usize = 30;
const MANY: usize = 100;
const RESETS: usize = 20;
/// Time for a server that is going to close too early to do so.
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

pub(super) fn one_line(lab: &mut Lab) -> Climbed {
    let end = ask(lab, Call::listening(b""))?;
    Ok(Some(format!("ends with {end}")))
}

/// A client that gets its line and a clean EOF, and leaves. Returns how the line ends.
fn ask(lab: &mut Lab, call: Call) -> Result<&'static str, Trouble> {
    let client = lab.meet(call)?;
    lab.ended(&client)?;
    let end = line_end(lab, &client)?;
    lab.part(&client)?;
    Ok(end)
}

/// How the line that came ends, if it is one.
fn line_end(lab: &Lab, client: &Client) -> Result<&'static str, Trouble> {
    let call = client.call();
    let wrong = |what: &str| {
        Err(Trouble::stopped(call.deeds(), format!("{}: {what}", call.came(lab.timeout))))
    };
    // NIST's servers begin with a line end, too.
    let line = call.heard.strip_prefix(b"\n").unwrap_or(&call.heard);
    let (text, end) = match line {
        [text @ .., b'\r', b'\n'] => (text, "CR LF"),
        [text @ .., b'\n'] => (text, "LF alone"),
        [] => return Err(lab.trouble(client)),
        _ => return wrong("a line without an end"),
    };
    if text.contains(&b'\n') {
        return wrong("more than one line");
    }
    match text.iter().find(|byte| !matches!(byte, b' '..=b'~')) {
        Some(byte) => wrong(&format!("{} is not printable", repr(&[*byte]))),
        None if text.is_empty() => wrong("an empty line"),
        None => Ok(end),
    }
}

pub(super) fn a_client_that_talks_first(lab: &mut Lab) -> Climbed {
    for round in 1..=TRIES {
        let told = format!("try {round} of {TRIES}");
        talk_first(lab, round).map_err(|trouble| trouble.after(&told))?;
    }
    Ok(None)
}

/// Half of them talk once more before they listen: that write finds out about a reset, and hides it
/// from the read.
fn talk_first(lab: &mut Lab, round: usize) -> Result<(), Trouble> {
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
    let crowd = lab.crowd(MANY, |_| Call::listening(b"").deaf())?;
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
    let count = crowd.len();
    Ok((count < MANY).then(|| format!("only {count}: this machine has no room for more")))
}

pub(super) fn resets(lab: &mut Lab) -> Climbed {
    let told = format!("{RESETS} clients had reset, closed or half-closed at once");
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
        let told = "another client had its line and did not close";
        ask(lab, Call::listening(b"")).map_err(|trouble| trouble.after(told))?;
    }
    lab.part(&rude).map(|()| None)
}
