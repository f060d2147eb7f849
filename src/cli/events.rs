//! The events of `serve --json`: one JSON object a line. Keys are only ever added.

use std::time::Duration;

use campanile::testing::{Entry, Fault, Ledger, Side};

use super::json::{Object, list, string};

/// Characters of a wrong line that its answer quotes.
const QUOTED: usize = 1000;

fn event(name: &str) -> Object {
    Object::new().raw("v", 1).text("event", name)
}

pub fn listening(service: &str, addr: &str, seed: u64) -> String {
    event("listening").text("service", service).text("addr", addr).raw("seed", seed).line()
}

pub fn stopped() -> String {
    event("stopped").line()
}

/// So many lines are missing where this one stands.
pub fn lost(count: u64) -> String {
    event("lost").raw("count", count).line()
}

/// A fault that a command added is in force.
pub fn fault(id: u64, fault: &Fault) -> String {
    event("fault").raw("id", id).text("fault", &fault.to_string()).line()
}

/// A command ended a fault.
pub fn fault_ended(id: u64, fault: &Fault) -> String {
    event("fault_ended").raw("id", id).text("fault", &fault.to_string()).line()
}

/// The answer to `clear` is complete: it has ended so many faults.
pub fn cleared(count: usize) -> String {
    event("cleared").raw("count", count).line()
}

/// The answer to `connections`: the ledgers so far, and their number.
pub fn connections(ledgers: &[&Ledger]) -> String {
    let mut lines: String = ledgers.iter().map(|open| ledger("open", open)).collect();
    lines += &event("listed").raw("count", ledgers.len()).line();
    lines
}

/// Manual time has passed, and everything that was due is done.
pub fn advanced(by: Duration, now: Duration) -> String {
    event("advanced").raw("by_us", by.as_micros()).raw("now_us", now.as_micros()).line()
}

/// A line of the pipe is no fault and no command, and changed nothing. Long texts are cut, so that the answers
/// that wait for a slow reader stay small.
pub fn wrong_fault(text: &str, error: &str) -> String {
    event("wrong_fault").text("fault", beginning(text)).text("error", beginning(error)).line()
}

/// The first characters of a text.
fn beginning(text: &str) -> &str {
    text.char_indices().nth(QUOTED).map_or(text, |(end, _)| &text[..end])
}

/// An entry of the book as an event; `None` for kinds that are not reported.
pub fn entry(entry: Entry<'_>) -> Option<String> {
    match entry {
        Entry::Connecting(ledger) => Some(about("connecting", ledger).line()),
        Entry::Accepted(ledger) => Some(about("accepted", ledger).line()),
        Entry::Closed(closed) => Some(ledger("closed", closed)),
        Entry::AcceptError { service, error } => {
            Some(event("accept_error").text("service", service).text("error", error).line())
        }
        _ => None,
    }
}

fn about(name: &str, ledger: &Ledger) -> Object {
    event(name)
        .text("service", &ledger.service)
        .raw("id", ledger.id)
        .text("peer", &ledger.peer.to_string())
}

/// Writes a ledger. That of an open connection has no reason and no time of its close.
fn ledger(name: &str, ledger: &Ledger) -> String {
    let sizes: Vec<_> = ledger.write_sizes.iter().map(ToString::to_string).collect();
    let texts = |faults: &[Fault]| -> String {
        let texts = faults.iter().map(|fault| string(fault.to_string().as_bytes()));
        list(&texts.collect::<Vec<_>>())
    };
    let mut object =
        about(name, ledger).raw("bytes_in", ledger.bytes_in).raw("bytes_out", ledger.bytes_out);
    if let Some(closed) = ledger.closed {
        object = object.text("reason", &ledger.reason).raw("closed_us", closed.as_micros());
    }
    object
        .raw("opened_us", ledger.opened.as_micros())
        .raw("unread_us", ledger.unread.as_micros())
        .raw("writes", ledger.writes)
        .raw("write_sizes", list(&sizes))
        .raw("short_writes", ledger.short_writes)
        .raw("blocked_writes", ledger.blocked_writes)
        .raw("blocked_reads", ledger.blocked_reads)
        .raw("first_end", side(ledger.first_end))
        .raw("reset_by", side(ledger.reset_by))
        .raw("faults", texts(&ledger.faults))
        .raw("healed", texts(&ledger.healed))
        .line()
}

fn side(side: Option<Side>) -> &'static str {
    match side {
        None => "null",
        Some(Side::We) => "\"we\"",
        Some(Side::Peer) => "\"peer\"",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_text_is_escaped_as_a_json_string() {
        let line = entry(Entry::AcceptError { service: "echo", error: "\"too\" many\n\\" });
        let expected =
            r#"{"v":1,"event":"accept_error","service":"echo","error":"\"too\" many\u000a\\"}"#;
        assert_eq!(line.as_deref(), Some(&*format!("{expected}\n")));
    }

    #[test]
    fn the_answer_to_a_wrong_line_quotes_its_first_thousand_characters() {
        let short = "\u{e9}".repeat(QUOTED);
        let answer = wrong_fault(&format!("{short}x"), &format!("{short}y"));
        assert_eq!(answer, wrong_fault(&short, &short));
        assert!(answer.contains(&short), "{answer}");
    }
}
