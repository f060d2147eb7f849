//! The size of the program, and the time from its start to its first listener.

use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::measure::{Bench, Subject};
use crate::table::{Goal, Row, median};

/// The number of starts; the table shows the median.
const STARTS: usize = 31;

pub fn sizes(bench: &Bench) -> io::Result<Vec<Row>> {
    let program = Path::new(&bench.ours[0]);
    let (mut memory, mut starts) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let began = Instant::now();
        let server = bench.start(Subject::Ours, &[])?;
        starts.push(began.elapsed().as_secs_f64() * 1e3);
        memory.push(resident(server.pid())?);
    }
    let row = |name: &str, figure, most| Row {
        name: name.into(),
        figure,
        floor: 0.0,
        ratio: 0.0,
        goal: Goal::Count(most),
    };
    Ok(vec![
        row("crates of the program", crates()?, 50.0),
        row("program, KB", program.metadata()?.len() as f64 / 1e3, 1850.0),
        row("memory at start, KiB", median(memory), 3584.0),
        row("start to listening, ms", median(starts), 5.0),
    ])
}

fn resident(pid: u32) -> io::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
        .ok_or_else(|| io::Error::other("/proc/PID/status has no line VmRSS in kB"))
}

fn crates() -> io::Result<f64> {
    let output = Command::new("cargo")
        .args(["tree", "--edges", "normal,build", "--prefix", "none", "--locked"])
        .args(["--target", "x86_64-unknown-linux-gnu", "--manifest-path"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.toml"))
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut names: Vec<_> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    names.sort_unstable();
    names.dedup();
    Ok(names.iter().filter(|name| !name.is_empty()).count() as f64)
}
