//! What happens, as lines of JSON: one object a line, its keys only ever added.

use std::net::SocketAddr;
use std::time::Duration;

use campanile::testing::{Entry, Ledger, Side};

/// A line that begins with its version and its event.
#[derive(Debug)]
struct Line(String);

impl Line {
    fn new(event: &str) -> Line {
        Line(format!("{{\"v\":1,\"event\":\"{event}\""))
    }

    fn raw(mut self, key: &str, value: impl ToString) -> Line {
        self.0.push_str(&format!(",\"{key}\":{}", value.to_string()));
        self
    }

    fn text(self, key: &str, value: &str) -> Line {
        self.raw(key, string(value.as_bytes()))
    }

    fn end(mut self) -> String {
        self.0.push_str("}\n");
        self.0
    }
}

pub fn listening(service: &str, addr: SocketAddr, seed: u64) -> String {
    Line::new("listening")
        .text("service", service)
        .text("addr", &addr.to_string())
        .raw("seed", seed)
        .end()
}

pub fn stopped() -> String {
    Line::new("stopped").end()
}

/// A fault that was asked for is in force.
pub fn fault(fault: &str) -> String {
    Line::new("fault").text("fault", fault).end()
}

/// What was asked for is no fault.
pub fn wrong_fault(text: &str, error: &str) -> String {
    Line::new("wrong_fault").text("fault", text).text("error", error).end()
}

/// An entry of the book; `None` for kinds that are not told.
pub fn entry(entry: Entry<'_>) -> Option<String> {
    match entry {
        Entry::Accepted(ledger) => Some(whose("accepted", ledger).end()),
        Entry::Closed(ledger) => Some(closed(ledger)),
        Entry::AcceptError { service, error } => {
            Some(Line::new("accept_error").text("service", service).text("error", error).end())
        }
        _ => None,
    }
}

fn whose(event: &str, ledger: &Ledger) -> Line {
    Line::new(event)
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
        .raw("write_sizes", format!("[{}]", sizes.join(",")))
        .raw("short_writes", ledger.short_writes)
        .raw("blocked_writes", ledger.blocked_writes)
        .raw("blocked_reads", ledger.blocked_reads)
        .raw("first_end", side(ledger.first_end))
        .raw("reset_by", side(ledger.reset_by))
        .raw("faults", format!("[{}]", faults.join(",")))
        .end()
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

/// A string of JSON; what is not UTF-8 is replaced.
pub fn string(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for c in String::from_utf8_lossy(bytes).chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            c if c.is_control() => text.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => text.push(c),
        }
    }
    text.push('"');
    text
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
