//! Reads a recording, line by line. Any file may be given, so every line may be wrong.

use std::fmt;
use std::io::{self, BufRead, Read};

use serde_json::{Map, Value};

/// The version of the format that this program reads.
const VERSION: u64 = 1;
/// The longest line that is read. One line holds at most the payload of one call.
const LONGEST: u64 = 64 << 20;

/// Why a file, or the rest of it, cannot be played.
#[derive(Debug)]
pub enum Wrong {
    Unreadable(io::Error),
    /// The first line is no header of a recording.
    NoRecording(String),
    OtherVersion(u64),
    /// This line is no record.
    Damaged {
        line: u64,
        what: String,
    },
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wrong::Unreadable(error) => write!(f, "{error}"),
            Wrong::NoRecording(what) => write!(f, "it is not a recording: {what}"),
            Wrong::OtherVersion(version) => {
                write!(f, "it has version {version} of the format; this program reads {VERSION}")
            }
            Wrong::Damaged { line, what } => write!(f, "line {line} is damaged: {what}"),
        }
    }
}

impl Wrong {
    /// What to do next.
    pub fn advice(&self) -> &'static str {
        match self {
            Wrong::Unreadable(_) => "name a file that campanile serve --record has written",
            Wrong::NoRecording(_) => "record one: campanile serve --record FILE",
            Wrong::OtherVersion(_) => "play it with the version of campanile that recorded it",
            Wrong::Damaged { .. } => "remove that line and those behind it, or record again",
        }
    }
}

/// One record, or the header.
#[derive(Debug)]
pub struct Record {
    /// Microseconds since the recording began. It never decreases.
    pub time: u64,
    pub kind: String,
    fields: Map<String, Value>,
}

impl Record {
    pub fn number(&self, key: &str) -> Option<u64> {
        self.fields.get(key)?.as_u64()
    }

    pub fn text(&self, key: &str) -> Option<&str> {
        self.fields.get(key)?.as_str()
    }

    pub fn is(&self, key: &str) -> bool {
        self.fields.get(key).and_then(Value::as_bool).unwrap_or(false)
    }

    /// Returns whether the kernel took less than was offered.
    pub fn is_short_write(&self) -> bool {
        matches!(self.text("f"), Some("write" | "write_last"))
            && self.number("n").is_some_and(|count| Some(count) < self.number("len"))
    }
}

/// A recording that is read.
#[derive(Debug)]
pub struct Recording<R> {
    lines: R,
    line: Vec<u8>,
    count: u64,
    time: u64,
    /// The bytes of the whole lines that were read.
    length: usize,
    is_cut: bool,
    header: Map<String, Value>,
}

impl<R: BufRead> Recording<R> {
    /// Reads the header.
    pub fn open(lines: R) -> Result<Recording<R>, Wrong> {
        let (line, header) = (Vec::new(), Map::new());
        let mut recording =
            Recording { lines, line, count: 0, time: 0, length: 0, is_cut: false, header };
        let header = match recording.object() {
            Ok(Some(header)) => header,
            Ok(None) => return Err(Wrong::NoRecording("it has no whole line".into())),
            Err(Wrong::Damaged { what, .. }) => return Err(Wrong::NoRecording(what)),
            Err(wrong) => return Err(wrong),
        };
        if header.get("recording").and_then(Value::as_str) != Some("campanile") {
            return Err(Wrong::NoRecording("its first line is no header".into()));
        }
        match header.get("v").and_then(Value::as_u64) {
            Some(VERSION) => {}
            Some(version) => return Err(Wrong::OtherVersion(version)),
            None => return Err(Wrong::NoRecording("its header has no version".into())),
        }
        recording.header = header;
        Ok(recording)
    }

    /// Returns a text of the header.
    pub fn header(&self, key: &str) -> Option<&str> {
        self.header.get(key)?.as_str()
    }

    /// Returns the names of the services.
    pub fn services(&self) -> Vec<&str> {
        let services = self.header.get("services").and_then(Value::as_array);
        services.into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// Returns whether the file ends in the middle of a line, as that of a killed process does. That
    /// line is left out.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Returns the line that was read last, which is JSON.
    pub fn line(&self) -> &str {
        std::str::from_utf8(&self.line).unwrap_or("null")
    }

    /// Returns how many bytes the whole lines have that were read.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Reads the next record; `None` at the end.
    pub fn next(&mut self) -> Result<Option<Record>, Wrong> {
        let Some(mut fields) = self.object()? else { return Ok(None) };
        let time = fields.remove("t").and_then(|time| time.as_u64());
        let (Some(time), Some(Value::String(kind))) = (time, fields.remove("k")) else {
            let what = "it lacks a time \"t\" or a kind \"k\"".into();
            return Err(Wrong::Damaged { line: self.count, what });
        };
        self.time = self.time.max(time);
        Ok(Some(Record { time: self.time, kind, fields }))
    }

    /// Reads a line; `None` at the end, or if the line has none.
    fn object(&mut self) -> Result<Option<Map<String, Value>>, Wrong> {
        self.line.clear();
        let mut part = (&mut self.lines).take(LONGEST);
        let length = part.read_until(b'\n', &mut self.line).map_err(Wrong::Unreadable)?;
        if length == 0 {
            return Ok(None);
        }
        self.count += 1;
        let damaged = |what: String| Wrong::Damaged { line: self.count, what };
        let is_whole = self.line.last() == Some(&b'\n');
        match serde_json::from_slice(&self.line) {
            Ok(Value::Object(fields)) => {
                self.length += length;
                Ok(Some(fields))
            }
            _ if length as u64 == LONGEST => {
                Err(damaged(format!("it is longer than {LONGEST} bytes")))
            }
            _ if !is_whole && self.count > 1 => {
                self.is_cut = true;
                Ok(None)
            }
            Ok(_) => Err(damaged("it is no JSON object".into())),
            Err(error) => {
                // Its text ends in a line and a column; the line is ours to count.
                let text = error.to_string();
                let what = text.split(" at line ").next().unwrap_or(&text);
                Err(damaged(format!("{what} at column {}", error.column())))
            }
        }
    }
}
