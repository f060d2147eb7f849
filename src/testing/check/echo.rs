//! The rungs of an echo server.

use std::time::Duration;

use super::caller::{Call, Client, End};
use super::lab::{Climbed, Lab, Trouble};
use super::memory::Memory;
use super::plan::Rule;
use super::{mebibytes, urgent};

const MIB: u64 = 1 << 20;
/// More than the kernels of both sides hold (4 and 6 MiB by default on Linux).
const FLOOD: u64 = 24 * MIB;
/// Enough that the memory of a server which keeps all of it grows visibly.
const DELUGE: u64 = 64 * MIB;
/// Growth that has other reasons.
const GROWTH: u64 = 16 * MIB;
const RESETS: usize = 20;
const IDLE: usize = 1000;
/// Time for bytes to arrive and for the server to react.
const MOMENT: Duration = Duration::from_millis(50);

static CROWD: Rule = Rule {
    number: "L5",
    says: "idle connections do not keep the server from serving other clients",
};

/// A client that gets its echo and leaves.
fn greet(lab: &mut Lab, text: &[u8]) -> Result<(), Trouble> {
    let client = lab.meet(Call::saying(text))?;
    lab.echoed(&client)?;
    lab.part(&client)
}

pub(super) fn one_client(lab: &mut Lab) -> Climbed {
    greet(lab, b"Hello, world").map(|()| None)
}

pub(super) fn the_next_client(lab: &mut Lab) -> Climbed {
    greet(lab, b"Hello again, world").map(|()| None)
}

pub(super) fn two_at_once(lab: &mut Lab) -> Climbed {
    let one = lab.meet(Call::saying(b"I was here first. "))?;
    lab.echoed(&one)?;
    let other = lab.meet(Call::saying(b"Am I alone here?"));
    let other = other.map_err(|trouble| trouble.after("while another client was connected"))?;
    lab.echoed(&other).map_err(|trouble| trouble.after("while another client was connected"))?;
    lab.tell(&one, |call| call.say(b"And I still am."));
    lab.echoed(&one).map_err(|trouble| trouble.after("while another client was connected"))?;
    lab.part(&one)?;
    lab.part(&other).map(|()| None)
}

pub(super) fn one_mebibyte(lab: &mut Lab) -> Climbed {
    let client = lab.meet(Call::pouring(MIB, lab.count))?;
    lab.echoed(&client)?;
    lab.part(&client).map(|()| None)
}

pub(super) fn a_slow_reader(lab: &mut Lab) -> Climbed {
    let client = lab.meet(Call::pouring(FLOOD, lab.count).deaf())?;
    lab.fill(&client)?;
    let taken = read_at_last(lab, &client, End::Not)?;
    lab.part(&client)?;
    Ok(Some(format!("the server took {} before the client read", mebibytes(taken))))
}

/// Lets a client that was deaf read everything, and returns how much it had sent.
fn read_at_last(lab: &mut Lab, client: &Client, end: End) -> Result<u64, Trouble> {
    lab.tell(client, |call| {
        call.stop_talking();
        call.end = end;
    });
    if end != End::Not {
        // The EOF must arrive while much is still queued.
        lab.wait(&[client], MOMENT, || false)?;
    }
    lab.tell(client, |call| call.is_deaf = false);
    lab.echoed(client)?;
    Ok(client.call().total)
}

pub(super) fn half_close(lab: &mut Lab) -> Climbed {
    let silent = lab.meet(Call::saying(b"").ending(End::HalfClose))?;
    lab.ended(&silent)?;
    // Once as much as the kernels hold, and once more than that.
    for total in [MIB, FLOOD] {
        let client = lab.meet(Call::pouring(total, lab.count).deaf())?;
        lab.fill(&client)?;
        read_at_last(lab, &client, End::HalfClose)?;
        lab.ended(&client)?;
    }
    Ok(None)
}

pub(super) fn a_client_that_never_reads(lab: &mut Lab) -> Climbed {
    let memory = Memory::of(lab.addr);
    let before = memory.resident();
    let deaf = lab.meet(Call::pouring(DELUGE, lab.count).deaf())?;
    lab.fill(&deaf)?;
    let taken = deaf.call().queued;
    let told = format!("while another client had sent {} and read nothing", mebibytes(taken));
    for text in [&b"Is anybody there?"[..], b"And still there?"] {
        greet(lab, text).map_err(|trouble| trouble.after(&told))?;
    }
    let grown = match (before, memory.resident()) {
        (Ok(before), Ok(after)) => Ok(after.saturating_sub(before)),
        (Err(why), _) | (_, Err(why)) => Err(why),
    };
    let unbounded = match grown {
        Ok(grown) if grown > GROWTH => {
            Some(format!("the server took all of it, and its memory grew by {}", mebibytes(grown)))
        }
        // More than two kernels hold, so another process keeps it, such as a child of the server.
        Ok(_) if taken == DELUGE => Some("the server took all of it, without a bound".into()),
        _ => None,
    };
    if let Some(came) = unbounded {
        return Err(Trouble::stopped(format!("{} and read nothing", mebibytes(taken)), came));
    }
    read_at_last(lab, &deaf, End::Not)?;
    lab.part(&deaf)?;
    let memory = match grown {
        Ok(grown) => format!("memory grew by {}", mebibytes(grown)),
        Err(why) => format!("memory not measured: {why}"),
    };
    Ok(Some(format!("the server took {}; {memory}", mebibytes(taken))))
}

pub(super) fn a_rough_crowd(lab: &mut Lab) -> Climbed {
    resets(lab)?;
    urgent::exchange(lab)?;
    idle(lab).map_err(|trouble| trouble.breaking(&CROWD))
}

fn resets(lab: &mut Lab) -> Result<(), Trouble> {
    for round in 0..RESETS {
        let call = match round % 2 {
            0 => Call::saying(b""),
            // The reset arrives while the server has unread bytes.
            _ => Call::pouring(MIB / 8, lab.count).deaf(),
        };
        let client = lab.meet(call.ending(End::Reset));
        let client = client
            .map_err(|trouble| trouble.after("after clients that reset their connections"))?;
        lab.wait(&[&client], lab.timeout, || client.call().over.is_some())?;
    }
    let told = format!("after {RESETS} clients that reset their connections");
    let client = lab.meet(Call::saying(b"Did you survive that?"));
    let client = client.map_err(|trouble| trouble.after(&told))?;
    lab.echoed(&client).map_err(|trouble| trouble.after(&told))?;
    // A server that the resets end may take a moment to end.
    lab.wait(&[&client], MOMENT, || false)?;
    lab.part(&client)?;
    greet(lab, b"And are you still well?").map_err(|trouble| trouble.after(&told))
}

/// Connects idle clients. Returns a note if this machine has no room for all of them.
fn idle(lab: &mut Lab) -> Climbed {
    let (crowd, lack) = lab.crowd(IDLE, End::Reset, |_| Call::saying(b"Pay no heed to me"))?;
    let client = lab.meet(Call::pouring(MIB / 16, lab.count));
    let told = format!("while {} idle clients were connected", crowd.len());
    let client = client.map_err(|trouble| trouble.after(&told))?;
    lab.echoed(&client).map_err(|trouble| trouble.after(&told))?;
    lab.part(&client)?;
    if let Some(lost) = crowd.iter().find(|client| client.call().is_done_for()) {
        return Err(lab.trouble(lost).after(&told));
    }
    for (at, client) in crowd.iter().enumerate() {
        let end = if at % 2 == 0 { End::Close } else { End::Reset };
        lab.tell(client, |call| call.end = end);
    }
    let all: Vec<_> = crowd.iter().collect();
    lab.wait(&all, lab.timeout, || crowd.iter().all(|client| client.call().over.is_some()))?;
    let told = format!("after {} idle clients left, half of them with a reset", crowd.len());
    greet(lab, b"All gone, are you there?").map_err(|trouble| trouble.after(&told))?;
    Ok(lack.map(|why| format!("with {} of 1,000 idle clients: {why}", crowd.len())))
}
