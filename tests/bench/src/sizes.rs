//! The size of the program, and the time from its start to its first listener.

use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::measure::Bench;
use crate::table::{Cell, Goal, Row, Summary};

/// The number of starts; the table shows the median.
const STARTS: usize = 31;

pub fn sizes(bench: &Bench) -> io::Result<Vec<Row>> {
    bench.progress.section(2.0, 1);
    bench.progress.load("sizes");
    let program = Path::new(&bench.ours[0]);
    let (mut memory, mut starts) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let began = Instant::now();
        let server = bench.start(&bench.ours(), &[])?;
        starts.push(began.elapsed().as_secs_f64() * 1e3);
        memory.push(server.resident()?);
    }
    let row = |load: &str, unit: &str, figure: Summary, most| Row {
        cells: vec![Cell { subject: "campanile".into(), figure, ratio: None }],
        ..Row::counts("the program", load, unit, &[("campanile", 0.0)], Goal::Count(most))
    };
    let size = program.metadata()?.len() as f64 / 1e3;
    Ok(vec![
        row("crates", "", Summary::exactly(crates(&[])?), 50.0),
        row("size", "KB", Summary::exactly(size), 2600.0),
        row("memory at start", "KiB", Summary::of(memory), 4200.0),
        row("start to listening", "ms", Summary::of(starts), 5.0),
    ])
}

/// Counts the crates that the package needs with these features.
pub fn crates(features: &[&str]) -> io::Result<f64> {
    let output = Command::new("cargo")
        .args(["tree", "--edges", "normal,build", "--prefix", "none", "--locked"])
        .args(["--target", "x86_64-unknown-linux-gnu", "--manifest-path"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.toml"))
        .args(features)
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    // The first line is the package itself.
    let mut names: Vec<_> =
        text.lines().skip(1).filter_map(|line| line.split(' ').next()).collect();
    names.sort_unstable();
    names.dedup();
    Ok(names.iter().filter(|name| !name.is_empty()).count() as f64)
}
