//! A recording as text: one line for each event and call, below its turn and its phase.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, BufRead, Write};
use std::time::Duration;

use campanile::record::base64;

use super::recording::{Record, Recording, Wrong};

/// Bytes of payload that a line shows.
const SHOWN: usize = 24;

/// Why a timeline is not printed to its end.
#[derive(Debug)]
pub enum Stopped {
    Wrong(Wrong),
    Output(io::Error),
}

/// How a part of a line stands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Plain,
    Dim,
    Bold,
    Yellow,
    Red,
}

/// Sums for the last line.
#[derive(Debug, Default)]
struct Sums {
    turns: u64,
    connections: u64,
    bytes_in: u64,
    bytes_out: u64,
    short_writes: u64,
    blocked: u64,
    errors: u64,
    faults: u64,
    missing: u64,
}

/// What earlier records say about an open connection.
#[derive(Debug, Default)]
struct Known {
    /// The faults in force.
    faults: Vec<String>,
    unsent: u64,
}

struct Timeline<W> {
    out: W,
    has_colour: bool,
    /// The phase that has begun and has no line yet.
    phase: Option<String>,
    sums: Sums,
    open: HashMap<u64, Known>,
}

/// Prints the timeline of a recording.
pub fn print<R: BufRead>(
    recording: &mut Recording<R>,
    out: impl Write,
    has_colour: bool,
) -> Result<(), Stopped> {
    let (phase, sums, open) = (None, Sums::default(), HashMap::new());
    let mut timeline = Timeline { out, has_colour, phase, sums, open };
    let version = recording.header("version").unwrap_or("unknown");
    let mut first = format!("campanile {version}: {}", recording.services().join(", "));
    for key in ["title", "text"] {
        let text = recording.header(key).unwrap_or_default();
        first += if first.is_empty() || text.is_empty() { "" } else { "; " };
        first += text;
    }
    writeln!(timeline.out, "{}", printable(&first)).map_err(Stopped::Output)?;
    let outcome = loop {
        match recording.next() {
            Ok(Some(record)) => timeline.record(&record).map_err(Stopped::Output)?,
            Ok(None) => break Ok(()),
            Err(wrong) => break Err(Stopped::Wrong(wrong)),
        }
    };
    timeline.end().map_err(Stopped::Output)?;
    outcome
}

impl<W: Write> Timeline<W> {
    fn record(&mut self, record: &Record) -> io::Result<()> {
        match &*record.kind {
            "turn" => {
                self.sums.turns += 1;
                self.phase = None;
                let number = record.number("n").unwrap_or(self.sums.turns);
                self.line(Some(record.time), 0, Style::Bold, &format!("turn {number}"))
            }
            "phase" => {
                self.phase = record.text("p").map(printable);
                Ok(())
            }
            _ => {
                self.count(record);
                let Some((style, mut text)) = describe(record) else { return Ok(()) };
                text += &self.remember(record);
                if let Some(phase) = self.phase.take() {
                    self.line(None, 1, Style::Dim, &phase)?;
                }
                self.line(Some(record.time), 2, style, &text)
            }
        }
    }

    fn count(&mut self, record: &Record) {
        let sums = &mut self.sums;
        let count = record.number("n").unwrap_or(0);
        match (&*record.kind, record.text("f")) {
            ("call", Some("accept" | "connect")) => {
                sums.connections += u64::from(record.number("c").is_some());
            }
            ("call", Some("read")) => sums.bytes_in = sums.bytes_in.saturating_add(count),
            ("call", Some("write" | "write_last")) => {
                sums.bytes_out = sums.bytes_out.saturating_add(count);
                sums.short_writes += u64::from(record.is_short_write());
            }
            ("fault", _) => sums.faults += 1,
            ("gap", _) => {
                sums.missing = sums.missing.saturating_add(record.number("records").unwrap_or(0));
                sums.bytes_in = sums.bytes_in.saturating_add(record.number("bin").unwrap_or(0));
                sums.bytes_out = sums.bytes_out.saturating_add(record.number("bout").unwrap_or(0));
            }
            _ => {}
        }
        match record.text("e") {
            Some("EAGAIN") => sums.blocked += 1,
            Some(_) => sums.errors += 1,
            None => {}
        }
    }

    /// Keeps what a record says about its connection. Returns what the earlier ones add to its line.
    fn remember(&mut self, record: &Record) -> String {
        let Some(id) = record.number("c") else { return String::new() };
        let known = self.open.entry(id).or_default();
        let fault = record.text("fault").map(printable);
        let (offered, moved) = (record.number("len").unwrap_or(0), record.number("n"));
        match (&*record.kind, record.text("f")) {
            ("fault", _) => known.faults.extend(fault),
            ("heal", _) => known.faults.retain(|known| Some(known) != fault.as_ref()),
            ("state", _) => known.unsent = record.number("unsent").unwrap_or(0),
            ("end", _) => {
                let unsent = self.open.remove(&id).map_or(0, |known| known.unsent);
                return if unsent > 0 { format!(", {unsent} never sent") } else { String::new() };
            }
            ("call", Some("write" | "write_last")) => {
                let rest = offered.saturating_sub(moved.unwrap_or(0));
                known.unsent = rest.max(known.unsent.saturating_sub(moved.unwrap_or(0)));
                let is_by_fault = matches!(record.text("e"), None | Some("EAGAIN"));
                if rest > 0 && is_by_fault && !known.faults.is_empty() {
                    return format!("  under {}", known.faults.join(", "));
                }
            }
            ("call", Some("read")) if moved == Some(0) && known.unsent > 0 => {
                return format!(", {} bytes unsent", known.unsent);
            }
            _ => {}
        }
        String::new()
    }

    fn line(
        &mut self,
        time: Option<u64>,
        depth: usize,
        style: Style,
        text: &str,
    ) -> io::Result<()> {
        let time = time.map(|time| format!("{}.{:06}", time / 1_000_000, time % 1_000_000));
        let (time, indent) = (time.unwrap_or_default(), "  ".repeat(depth));
        let code = match style {
            _ if !self.has_colour => "",
            Style::Plain => "",
            Style::Dim => "\x1b[2m",
            Style::Bold => "\x1b[1m",
            Style::Yellow => "\x1b[33m",
            Style::Red => "\x1b[31m",
        };
        let end = if code.is_empty() { "" } else { "\x1b[0m" };
        writeln!(self.out, "{time:>13}  {indent}{code}{text}{end}")
    }

    fn end(&mut self) -> io::Result<()> {
        let Sums { turns, connections, bytes_in, bytes_out, .. } = self.sums;
        let Sums { short_writes, blocked, errors, faults, missing, .. } = self.sums;
        let mut text = format!(
            "{turns} turns, {connections} connections, {bytes_in} bytes in, {bytes_out} bytes out; \
             {short_writes} short writes, {blocked} calls that would block, {errors} errors, \
             {faults} faults"
        );
        if missing > 0 {
            let _ = write!(text, "; {missing} records are missing, because the disk was too slow");
        }
        writeln!(self.out, "{text}")?;
        self.out.flush()
    }
}

/// Returns the line of a record, and how it stands out; `None` for kinds that have none.
fn describe(record: &Record) -> Option<(Style, String)> {
    let place = match (record.number("c"), record.number("l")) {
        (Some(id), _) => format!("#{id} "),
        (None, Some(key)) => format!("listener {key} "),
        (None, None) => String::new(),
    };
    let text = |key| record.text(key).map(printable).unwrap_or_default();
    let number = |key| record.number(key).unwrap_or(0);
    Some(match &*record.kind {
        "poll" => {
            let timeout = record.number("timeout").map_or("none".into(), duration);
            outcome(record, format!("epoll_wait(timeout {timeout})"), Some(number("events")))
        }
        "event" => (Style::Plain, event(record, &place)),
        "call" => {
            let (style, line) = call(record);
            (style, place + &line)
        }
        "state" => (Style::Dim, place + &state(record)),
        "fault" => (Style::Red, format!("{place}fault begins: {}", text("fault"))),
        "heal" => (Style::Plain, format!("{place}fault ends: {}", text("fault"))),
        "end" => {
            let (bytes_in, bytes_out) = (number("bin"), number("bout"));
            let reason = text("reason");
            (Style::Bold, format!("{place}ended: {reason}; {bytes_in} bytes in, {bytes_out} out"))
        }
        "gap" => {
            let (records, calls) = (number("records"), number("calls"));
            (Style::Red, format!("{records} records are missing here, {calls} of them calls"))
        }
        _ => return None,
    })
}

/// A call as strace shows it.
fn call(record: &Record) -> (Style, String) {
    let length = record.number("len").map_or(String::new(), |length| format!("{length} bytes"));
    let text = |key| record.text(key).map(printable).unwrap_or_default();
    let mut name = match record.text("f").unwrap_or_default() {
        "accept" => "accept4()".into(),
        "read" => format!("recvfrom({length})"),
        "write" => format!("sendto({length})"),
        "write_last" => format!("sendto({length}, MSG_MORE)"),
        "shutdown" => "shutdown(SHUT_WR)".into(),
        "reset" => "setsockopt(SO_LINGER, 0)".into(),
        "close" => "close()".into(),
        "register" => "epoll_ctl(EPOLL_CTL_ADD)".into(),
        "rearm" => "epoll_ctl(EPOLL_CTL_MOD)".into(),
        "listen" => format!("listen({})", text("addr")),
        "connect" => format!("connect({})", text("peer")),
        "connected" => "getsockopt(SO_ERROR)".into(),
        other => format!("{}()", printable(other)),
    };
    if let (Some("accept"), Some(peer)) = (record.text("f"), record.text("peer")) {
        name = format!("accept4({})", printable(peer));
    }
    let result = match record.text("f") {
        Some("accept") => record.number("c"),
        _ => record.number("n"),
    };
    let (mut style, mut line) = outcome(record, name, result);
    match (record.text("f"), record.text("service"), record.number("parent")) {
        (Some("accept" | "listen"), Some(service), _) => {
            let _ = write!(line, "  {}", printable(service));
        }
        (Some("connect"), _, Some(parent)) => {
            let _ = write!(line, "  for #{parent}");
        }
        _ => {}
    }
    if record.is_short_write() {
        (style, line) = (Style::Yellow, line + "  short write");
    }
    if record.text("f") == Some("read") && record.number("n") == Some(0) {
        line += "  end of input";
    }
    if let Some(bytes) = record.text("data").and_then(base64::decode) {
        let cut = if bytes.len() > SHOWN { "..." } else { "" };
        let shown = bytes.get(..SHOWN).unwrap_or(&bytes);
        let _ = write!(line, "  {}{cut}", campanile::client::repr(shown));
    }
    (style, line)
}

fn outcome(record: &Record, call: String, result: Option<u64>) -> (Style, String) {
    match record.text("e") {
        Some("EAGAIN") => (Style::Yellow, call + " = -1 EAGAIN"),
        Some(error) => (Style::Red, format!("{call} = -1 {}", printable(error))),
        None => (Style::Plain, format!("{call} = {}", result.unwrap_or(0))),
    }
}

fn event(record: &Record, place: &str) -> String {
    let mut ready = Vec::new();
    for (key, word) in [("r", "readable"), ("w", "writable")] {
        if record.is(key) {
            ready.push(word);
        }
    }
    let place = if place.is_empty() { "waker " } else { place };
    format!("{place}event {}", ready.join(", "))
}

fn state(record: &Record) -> String {
    let mut text = String::from("state:");
    for (key, half) in [("in", "input"), ("out", "output")] {
        let _ = write!(text, " {half} {},", printable(record.text(key).unwrap_or("unknown")));
    }
    for (key, word) in [
        ("closed", "closed by the protocol"),
        ("paused", "paused"),
        ("congested", "congested"),
        ("r", "readable"),
        ("w", "writable"),
        ("wr", "wants to read"),
        ("ww", "wants to write"),
    ] {
        if record.is(key) {
            let _ = write!(text, " {word},");
        }
    }
    let _ = write!(text, " {} unsent", record.number("unsent").unwrap_or(0));
    text
}

fn duration(micros: u64) -> String {
    if micros == 0 { "0".into() } else { format!("{:?}", Duration::from_micros(micros)) }
}

/// A text without characters that move the cursor, colour the terminal or turn the line around.
pub fn printable(text: &str) -> String {
    let mut shown = String::new();
    for c in text.chars() {
        if c.is_control() || is_invisible(c) {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Line separators, marks of the writing direction, and characters without width.
pub fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}
