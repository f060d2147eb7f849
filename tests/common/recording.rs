//! Reads a recording and checks what must hold of any.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use serde_json::Value;

/// A file in memory.
#[derive(Debug, Clone, Default)]
pub struct Paper(Arc<Mutex<Vec<u8>>>);

impl Paper {
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const PHASES: [&str; 7] = [
    "sleep",
    "note_readiness",
    "obey_commands",
    "fire_timers",
    "accept",
    "run_connections",
    "reap",
];

/// Bytes of one connection, in and out.
pub type Bytes = (u64, u64);

/// What a recording adds up to.
#[derive(Debug, Default)]
pub struct Totals {
    /// Bytes of all calls, and of all gaps.
    pub bytes: Bytes,
    /// Of each connection that has an `end`, what that says.
    pub ended: BTreeMap<u64, Bytes>,
    /// Of each connection whose accept was recorded, its service.
    pub accepted: BTreeMap<u64, String>,
    pub turns: u64,
    pub gaps: u64,
    /// Records that are there and, by the gaps, those that are not.
    pub records: u64,
}

pub fn records(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

fn number(record: &Value, key: &str) -> u64 {
    record[key].as_u64().unwrap_or(0)
}

/// Checks that times never decrease, that phases nest in turns in their order, that events and calls
/// stand in their phase, that nothing follows the end of a connection, and that its bytes add up.
pub fn check(text: &str) -> Totals {
    let all = records(text);
    assert_eq!((&all[0]["recording"], number(&all[0], "v")), (&"campanile".into(), 1));
    let (mut totals, mut calls) = (Totals::default(), BTreeMap::<u64, Bytes>::new());
    let (mut time, mut phase, mut is_lost, mut has_failed) = (0, 7, false, false);
    let mut over = BTreeSet::new();
    for record in &all[1..] {
        totals.records += 1;
        assert!(number(record, "t") >= time, "time runs backwards at {record}");
        time = number(record, "t");
        let id = record["c"].as_u64();
        assert!(id.is_none_or(|id| !over.contains(&id)), "after its end: {record}");
        let kind = record["k"].as_str().unwrap();
        let stands_in = |wanted| assert!(is_lost || phase == wanted, "in phase {phase}: {record}");
        match kind {
            "turn" => {
                assert!(is_lost || phase == 7 || has_failed, "in phase {phase}: {record}");
                let next = totals.turns + 1;
                assert!(number(record, "n") == next || (is_lost && number(record, "n") > next));
                (totals.turns, phase, is_lost) = (number(record, "n"), 0, false);
            }
            "phase" => {
                let at = PHASES.iter().position(|name| record["p"] == *name).unwrap();
                stands_in(at);
                phase = at + 1;
            }
            "poll" => {
                stands_in(1);
                has_failed = record["e"].is_string();
            }
            "event" => stands_in(2),
            "call" => {
                let count = number(record, "n");
                let of = calls.entry(id.unwrap_or(0)).or_default();
                match record["f"].as_str().unwrap() {
                    "read" => (of.0, totals.bytes.0) = (of.0 + count, totals.bytes.0 + count),
                    "write" | "write_last" => {
                        (of.1, totals.bytes.1) = (of.1 + count, totals.bytes.1 + count);
                        assert!(count <= number(record, "len"), "{record}");
                    }
                    "accept" if record["e"].is_null() => {
                        let service = record["service"].as_str().unwrap_or("none");
                        assert_eq!(totals.accepted.insert(id.unwrap(), service.into()), None);
                    }
                    _ => {}
                }
            }
            "end" => {
                let (id, bytes) = (id.unwrap(), (number(record, "bin"), number(record, "bout")));
                let counted = calls.get(&id).copied().unwrap_or_default();
                assert!(totals.gaps > 0 || counted == bytes, "{counted:?} differs from {record}");
                totals.ended.insert(id, bytes);
                over.insert(id);
            }
            "gap" => {
                totals.bytes.0 += number(record, "bin");
                totals.bytes.1 += number(record, "bout");
                totals.records += number(record, "records") - 1;
                (totals.gaps, is_lost) = (totals.gaps + 1, true);
            }
            _ => {}
        }
    }
    totals
}
