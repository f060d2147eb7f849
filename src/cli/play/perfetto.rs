//! A recording as trace events, which <https://ui.perfetto.dev> and chrome://tracing open.

use std::collections::HashMap;
use std::io::{BufRead, Write};

use serde_json::{Value, json};

use super::recording::{Record, Recording};
use super::timeline::Stopped;

/// Writes trace events. Invariant: the slices of the loop nest, and each that begins ends.
struct Trace<W> {
    out: W,
    is_first: bool,
    /// The slices of the loop that are open: a turn, and a phase in it.
    turn: bool,
    phase: bool,
    /// The names of the open connections.
    open: HashMap<u64, String>,
    unsent: HashMap<u64, u64>,
    last: u64,
}

/// Writes the trace of a recording.
pub fn write<R: BufRead>(recording: &mut Recording<R>, out: impl Write) -> Result<(), Stopped> {
    let mut trace = Trace {
        out,
        is_first: true,
        turn: false,
        phase: false,
        open: HashMap::new(),
        unsent: HashMap::new(),
        last: 0,
    };
    let outcome = trace.write_all(recording);
    // What was read until then is a whole trace.
    trace.end().map_err(Stopped::Output)?;
    outcome
}

impl<W: Write> Trace<W> {
    fn write_all<R: BufRead>(&mut self, recording: &mut Recording<R>) -> Result<(), Stopped> {
        self.begin().map_err(Stopped::Output)?;
        while let Some(record) = recording.next().map_err(Stopped::Wrong)? {
            self.last = record.time;
            self.record(record).map_err(Stopped::Output)?;
        }
        Ok(())
    }

    fn begin(&mut self) -> std::io::Result<()> {
        self.out.write_all(b"{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n")?;
        for (kind, name) in [("process_name", "campanile"), ("thread_name", "loop")] {
            self.put("M", json!({ "name": kind, "args": { "name": name } }))?;
        }
        Ok(())
    }

    fn record(&mut self, record: Record) -> std::io::Result<()> {
        match &*record.kind {
            "turn" => {
                self.close_phase()?;
                if std::mem::replace(&mut self.turn, true) {
                    self.put("E", json!({}))?;
                }
                let name = format!("turn {}", record.number("n").unwrap_or(0));
                self.put("B", json!({ "name": name, "cat": "turn" }))
            }
            "phase" => {
                self.close_phase()?;
                self.phase = true;
                let name = record.text("p").unwrap_or("phase").to_owned();
                self.put("B", json!({ "name": name, "cat": "phase" }))
            }
            "state" => self.unsent(&record),
            "end" => self.instant("end".into(), record.number("c"), record),
            "call" => {
                let name = record.text("f").unwrap_or("call").to_owned();
                self.arrive(&record, &name)?;
                self.instant(name, None, record)
            }
            "poll" | "event" | "fault" | "heal" | "gap" => {
                self.instant(record.kind.clone(), None, record)
            }
            _ => Ok(()),
        }
    }

    fn unsent(&mut self, record: &Record) -> std::io::Result<()> {
        let (Some(id), Some(unsent)) = (record.number("c"), record.number("unsent")) else {
            return Ok(());
        };
        if self.unsent.insert(id, unsent).unwrap_or(0) == unsent {
            return Ok(());
        }
        self.put("C", json!({ "name": format!("unsent #{id}"), "args": { "bytes": unsent } }))
    }

    /// A connection has a track of its own from its accept, or its connect, to its end.
    fn arrive(&mut self, record: &Record, call: &str) -> std::io::Result<()> {
        let (Some(id), "accept" | "connect") = (record.number("c"), call) else { return Ok(()) };
        if self.open.contains_key(&id) {
            return Ok(());
        }
        let name = format!("#{id} {}", record.text("peer").unwrap_or_default());
        self.open.insert(id, name.clone());
        self.put("b", json!({ "name": name, "cat": "connection", "id": id }))
    }

    /// Writes a point in the loop's slices, with everything that the record says.
    fn instant(&mut self, name: String, ends: Option<u64>, record: Record) -> std::io::Result<()> {
        let args = Value::Object(record.into_fields());
        self.put("i", json!({ "name": name, "s": "t", "args": args }))?;
        let Some((id, name)) = ends.and_then(|id| Some((id, self.open.remove(&id)?))) else {
            return Ok(());
        };
        self.put("e", json!({ "name": name, "cat": "connection", "id": id }))
    }

    fn close_phase(&mut self) -> std::io::Result<()> {
        if std::mem::take(&mut self.phase) { self.put("E", json!({})) } else { Ok(()) }
    }

    fn end(&mut self) -> std::io::Result<()> {
        self.close_phase()?;
        if std::mem::take(&mut self.turn) {
            self.put("E", json!({}))?;
        }
        for (id, name) in std::mem::take(&mut self.open) {
            self.put("e", json!({ "name": name, "cat": "connection", "id": id }))?;
        }
        self.out.write_all(b"\n]}\n")?;
        self.out.flush()
    }

    fn put(&mut self, phase: &str, mut event: Value) -> std::io::Result<()> {
        for (key, value) in
            [("ph", json!(phase)), ("ts", json!(self.last)), ("pid", json!(1)), ("tid", json!(1))]
        {
            event[key] = value;
        }
        let comma = if std::mem::take(&mut self.is_first) { "" } else { ",\n" };
        write!(self.out, "{comma}{event}")
    }
}
