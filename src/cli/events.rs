//! What happens, as lines of JSON: one object a line, its keys only ever added.

use std::net::SocketAddr;
use std::time::Duration;

use campanile::testing::{Entry, Ledger, Side};

use super::json::{Object, list, string};

fn event(name: &str) -> Object {
    Object::new().raw("v", 1).text("event", name)
}

pub fn listening(service: &str, addr: SocketAddr, seed: u64) -> String {
    event("listening")
        .text("service", service)
        .text("addr", &addr.to_string())
        .raw("seed", seed)
        .line()
}

pub fn stopped() -> String {
    event("stopped").line()
}

/// A fault that was asked for is in force.
pub fn fault(fault: &str) -> String {
    event("fault").text("fault", fault).line()
}

/// What was asked for is no fault.
pub fn wrong_fault(text: &str, error: &str) -> String {
    event("wrong_fault").text("fault", text).text("error", error).line()
}

/// An entry of the book; `None` for kinds that are not told.
pub fn entry(entry: Entry<'_>) -> Option<String> {
    match entry {
        Entry::Accepted(ledger) => Some(whose("accepted", ledger).line()),
        Entry::Closed(ledger) => Some(closed(ledger)),
        Entry::AcceptError { service, error } => {
            Some(event("accept_error").text("service", service).text("error", error).line())
        }
        _ => None,
    }
}

fn whose(name: &str, ledger: &Ledger) -> Object {
    event(name)
        .text("service", &ledger.service)
        .raw("id", ledger.number)
        .text("peer", &ledger.peer.to_string())
}

fn closed(ledger: &Ledger) -> String {
    let sizes: Vec<_> = ledger.write_sizes.iter().map(ToString::to_string).collect();
    let faults: Vec<_> =
        ledger.faults.iter().map(|fault| string(fault.to_string().as_bytes())).collect();
    whose("closed", ledger)
        .raw("bytes_in", ledger.bytes_in)
        .raw("bytes_out", ledger.bytes_out)
        .text("reason", &ledger.reason)
        .raw("opened_us", micros(ledger.opened))
        .raw("closed_us", micros(ledger.closed.unwrap_or(ledger.opened)))
        .raw("unread_us", micros(ledger.unread))
        .raw("writes", ledger.writes)
        .raw("write_sizes", list(&sizes))
        .raw("short_writes", ledger.short_writes)
        .raw("blocked_writes", ledger.blocked_writes)
        .raw("blocked_reads", ledger.blocked_reads)
        .raw("first_end", side(ledger.first_end))
        .raw("reset_by", side(ledger.reset_by))
        .raw("faults", list(&faults))
        .line()
}

fn side(side: Option<Side>) -> &'static str {
    match side {
        None => "null",
        Some(Side::We) => "\"we\"",
        Some(Side::Peer) => "\"peer\"",
    }
}

/// Since the loop began.
fn micros(time: Duration) -> u128 {
    time.as_micros()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_told_as_a_string_whatever_is_in_it() {
        let line = entry(Entry::AcceptError { service: "echo", error: "\"too\" many\n\\" });
        let expected =
            r#"{"v":1,"event":"accept_error","service":"echo","error":"\"too\" many\u000a\\"}"#;
        assert_eq!(line.as_deref(), Some(&*format!("{expected}\n")));
    }
}
