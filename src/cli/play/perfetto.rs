//! A recording as trace events, which <https://ui.perfetto.dev> and chrome://tracing open.

use std::collections::HashMap;
use std::io::{self, BufRead, Write};

use super::json::Object;
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
    time: u64,
}

/// Writes the trace of a recording.
pub fn write<R: BufRead>(recording: &mut Recording<R>, out: impl Write) -> Result<(), Stopped> {
    let (open, unsent) = (HashMap::new(), HashMap::new());
    let (is_first, turn, phase, time) = (true, false, false, 0);
    let mut trace = Trace { out, is_first, turn, phase, open, unsent, time };
    let outcome = trace.write_all(recording);
    // What was read until then is a whole trace.
    trace.end().map_err(Stopped::Output)?;
    outcome
}

impl<W: Write> Trace<W> {
    fn write_all<R: BufRead>(&mut self, recording: &mut Recording<R>) -> Result<(), Stopped> {
        self.begin().map_err(Stopped::Output)?;
        while let Some(record) = recording.next().map_err(Stopped::Wrong)? {
            self.time = record.time;
            self.record(&record, recording.line()).map_err(Stopped::Output)?;
        }
        Ok(())
    }

    fn begin(&mut self) -> io::Result<()> {
        self.out.write_all(b"{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n")?;
        for (kind, name) in [("process_name", "campanile"), ("thread_name", "loop")] {
            self.put("M", kind, |event| event.raw("args", Object::new().text("name", name).end()))?;
        }
        Ok(())
    }

    fn record(&mut self, record: &Record, line: &str) -> io::Result<()> {
        match &*record.kind {
            "turn" => {
                self.end_phase()?;
                self.end_turn()?;
                self.turn = true;
                self.begin_slice(&format!("turn {}", record.number("n").unwrap_or(0)), "turn")
            }
            "phase" => {
                self.end_phase()?;
                self.phase = true;
                self.begin_slice(record.text("p").unwrap_or("phase"), "phase")
            }
            "state" => self.unsent(record),
            "call" => {
                let name = record.text("f").unwrap_or("call");
                self.arrive(record, name)?;
                self.instant(name, line)
            }
            "end" => {
                self.instant("end", line)?;
                let open = record.number("c").and_then(|id| Some((id, self.open.remove(&id)?)));
                open.map_or(Ok(()), |(id, name)| self.connection("e", id, &name))
            }
            kind @ ("poll" | "event" | "fault" | "heal" | "gap") => self.instant(kind, line),
            _ => Ok(()),
        }
    }

    /// A counter for each connection with unsent bytes.
    fn unsent(&mut self, record: &Record) -> io::Result<()> {
        let (Some(id), Some(unsent)) = (record.number("c"), record.number("unsent")) else {
            return Ok(());
        };
        if self.unsent.insert(id, unsent).unwrap_or(0) == unsent {
            return Ok(());
        }
        let bytes = Object::new().raw("bytes", unsent).end();
        self.put("C", &format!("unsent #{id}"), |event| event.raw("args", bytes))
    }

    /// A connection has a track of its own from its accept, or its connect, to its end.
    fn arrive(&mut self, record: &Record, call: &str) -> io::Result<()> {
        let (Some(id), "accept" | "connect") = (record.number("c"), call) else { return Ok(()) };
        if self.open.contains_key(&id) {
            return Ok(());
        }
        let parent = record.number("parent").map(|parent| format!("for #{parent} "));
        let (parent, peer) = (parent.unwrap_or_default(), record.text("peer").unwrap_or_default());
        let name = format!("#{id} {parent}{peer}");
        self.connection("b", id, &name)?;
        self.open.insert(id, name);
        Ok(())
    }

    fn connection(&mut self, phase: &str, id: u64, name: &str) -> io::Result<()> {
        self.put(phase, name, |event| event.text("cat", "connection").raw("id", id))
    }

    /// A point in the loop's slices, with its line of the recording, which is JSON.
    fn instant(&mut self, name: &str, line: &str) -> io::Result<()> {
        self.put("i", name, |event| event.text("s", "t").raw("args", line.trim_end()))
    }

    fn begin_slice(&mut self, name: &str, category: &str) -> io::Result<()> {
        self.put("B", name, |event| event.text("cat", category))
    }

    fn end_phase(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.phase) { self.put("E", "", |event| event) } else { Ok(()) }
    }

    fn end_turn(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.turn) { self.put("E", "", |event| event) } else { Ok(()) }
    }

    fn end(&mut self) -> io::Result<()> {
        self.end_phase()?;
        self.end_turn()?;
        for (id, name) in std::mem::take(&mut self.open) {
            self.connection("e", id, &name)?;
        }
        self.out.write_all(b"\n]}\n")?;
        self.out.flush()
    }

    fn put(
        &mut self,
        phase: &str,
        name: &str,
        more: impl FnOnce(Object) -> Object,
    ) -> io::Result<()> {
        let event =
            Object::new().text("ph", phase).raw("ts", self.time).raw("pid", 1).raw("tid", 1);
        let event = more(if name.is_empty() { event } else { event.text("name", name) }).end();
        let comma = if std::mem::take(&mut self.is_first) { "" } else { ",\n" };
        write!(self.out, "{comma}{event}")
    }
}
