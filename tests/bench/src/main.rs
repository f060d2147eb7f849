//! Measures the server against the least that epoll allows, and against other libraries.
//!
//! ```text
//! cargo run --release -- WHAT [--quick] [--check] [--json FILE] [--keep]
//!                        [--program PATH | --library] [--against PATH]
//! ```
//!
//! WHAT is one of:
//! - `all`: everything from `sizes` to `test-server` below. `--quick` takes less than three minutes if
//!   the machine is idle.
//! - `sizes`: the size of the program and the time it takes to start.
//! - `instructions`: instructions in user space, counted by callgrind.
//! - `calls`: system calls, counted by strace.
//! - `cpu`: the server's CPU time per unit of work, as the kernel accounts it.
//! - `latency`: echoes of 64 bytes at 1,000 a second, timed from the planned send: alone, beside 16
//!   endless streams, beside 5,000 new connections a second, and beside both.
//! - `many`: 10,000 idle connections, 100 active ones among idle ones, storms of 4,000 connects.
//! - `relay`: `campanile proxy` beside a raw epoll relay.
//! - `faults`, `recording`: the cost of each effect, and of `--record`.
//! - `test-server`: a `TestServer` from its start to its drop.
//! - `splice`: echo by splice(2) beside recv and send, both on raw epoll.
//! - `build`: a cold release build of the library alone, and its size.
//! - `peers`: the programs that are installed here, with the loads of `cpu` and `relay`.
//! - `limits [READ/FRESH/LEFTOVER ...]`: CPU time and latency of the library with several values, in
//!   KiB, of `Limits::read_buffer`, `fresh_budget` and `leftover_budget`.
//! - `publish`: `all`, `build`, `splice` and `peers`, saved in `results/`.
//! - `render`: the tables of `src/guide/cost.md` and the charts of the README, from `results/`.
//!
//! The server is pinned to one CPU and the load to the other. Rounds of the server and of the floors
//! alternate, and a ratio is the median of the rounds' ratios, with a 95 % interval: ratios hold from
//! machine to machine, nanoseconds do not. The load compares every byte with what it sent, but for the
//! streams beside which latency is measured: it counts those. The program runs with `-q`: it logs
//! errors only. `latency` needs an idle machine: p99 shows each time that another process ran in
//! between. Counts are differences of two runs of different length, so that starting and ending cost
//! nothing. Runs with one connection wait for the server to sleep before each step, which makes every
//! run the same; with many connections the server finds several ready in most turns.
//!
//! The goals are those of the design. With `--check`, a count that misses its goal makes the exit code
//! 1, and so does a ratio of CPU times whose whole interval is 10 % above its goal. A ratio of latencies
//! never does.
//!
//! The bench builds and measures the release program. `--program` measures another one that prints
//! the same address lines, `--library` the loop alone. `--against` measures another program in place
//! of the epoll floors. With debug information (`CARGO_PROFILE_RELEASE_DEBUG=true
//! CARGO_PROFILE_RELEASE_STRIP=false`) and `--keep`, `callgrind_annotate` reads the files of callgrind.

mod cpu;
mod extras;
mod floors;
mod latency;
mod libraries;
mod load;
mod many;
mod measure;
mod peers;
mod progress;
mod relay;
mod render;
mod results;
mod sizes;
mod sys;
mod table;

use std::cell::Cell;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use measure::Bench;
use progress::Progress;
use results::Results;
use table::Row;

const USAGE: &str = "usage: bench all|sizes|instructions|calls|cpu|latency|many|relay|faults|recording|\
    test-server|build|splice|peers|publish|limits|render [--quick] [--check] [--json FILE] [--keep] \
    [--program PATH | --library] [--against PATH]\n\
    The head of tests/bench/src/main.rs describes each of them.";

type Section = (&'static str, fn(&Bench) -> io::Result<Vec<Row>>);

/// The sections of `all`, in their order.
const ALL: [Section; 9] = [
    ("sizes", sizes::sizes),
    ("instructions", cpu::instructions),
    ("calls", cpu::calls),
    ("cpu", own_cpu),
    ("latency", latency::latency),
    ("many", many::many),
    ("relay", own_relay),
    ("faults", extras::faults),
    ("recording", extras::recording),
];
/// The sections of `publish` besides.
const LAST: [Section; 4] = [
    ("test-server", extras::test_servers),
    ("build", extras::build),
    ("splice", cpu::splice),
    ("peers", all_peers),
];

fn own_cpu(bench: &Bench) -> io::Result<Vec<Row>> {
    bench.progress.section(if bench.quick { 50.0 } else { 330.0 }, cpu::LOADS.len() + 1);
    let mut rows = cpu::cpu(bench, "cpu", cpu::libraries())?;
    rows.extend(cpu::daytime(bench)?);
    Ok(rows)
}

fn own_relay(bench: &Bench) -> io::Result<Vec<Row>> {
    bench.progress.section(if bench.quick { 25.0 } else { 150.0 }, 6);
    bench.at_most(9);
    relay::relay(bench, "relay", |_, _| Ok(Vec::new()))
}

fn all_peers(bench: &Bench) -> io::Result<Vec<Row>> {
    bench.progress.section(if bench.quick { 110.0 } else { 480.0 }, cpu::LOADS.len() + 6);
    bench.at_most(if bench.quick { 3 } else { 5 });
    let mut rows = cpu::cpu(bench, "other echo servers", peers::echo(bench)?)?;
    rows.extend(relay::relay(bench, "other relays", peers::relays)?);
    Ok(rows)
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = |outcome: io::Result<()>| outcome.map(|()| false);
    let outcome = match words[..] {
        ["floor", ref words @ ..] => done(floor(words)),
        ["serve-library", ref values @ ..] => done(serve_library(values)),
        ["test-servers", count] => done(extras::many_test_servers(count.parse().unwrap_or(1))),
        ["render"] => done(render::render()),
        [what, ref options @ ..] if is_section(what) => bench(what, options),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(has_missed) => ExitCode::from(u8::from(has_missed)),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn is_section(what: &str) -> bool {
    let named = ALL.iter().chain(&LAST).any(|(name, _)| *name == what);
    named || matches!(what, "all" | "publish" | "limits")
}

/// Serves as one of the floors.
fn floor(words: &[&str]) -> io::Result<()> {
    match words {
        ["plain"] => floors::plain(),
        ["splice"] => floors::splice(),
        ["lingering"] => floors::lingering(),
        ["relay", upstream] => floors::relay(upstream.parse().map_err(io::Error::other)?),
        ["mio", mode] => libraries::mio(*mode == "lingers"),
        ["tokio", mode] => libraries::tokio(*mode == "lingers"),
        ["smol"] => libraries::smol(),
        _ => Err(io::Error::other(USAGE)),
    }
}

/// Measures and prints. Returns whether a row fails the check, if `--check` is among the options.
fn bench(what: &str, options: &[&str]) -> io::Result<bool> {
    sys::raise_open_files()?;
    let has = |option| options.contains(&option);
    let quick = has("--quick");
    let directory = std::env::temp_dir().join(format!("bench-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let against = path_after("--against", options).map(serve);
    let runs = |name: &str| {
        name == what
            || what == "publish"
            || what == "all" && !matches!(name, "build" | "splice" | "peers")
    };
    // A section is about as long as the others of its kind: see `Progress::section`.
    let total = match (what, quick) {
        ("publish", true) => 460.0,
        ("publish", false) => 1530.0,
        ("all", true) => 190.0,
        ("all", false) => 1070.0,
        (_, true) => 60.0,
        (_, false) => 300.0,
    };
    let progress = Progress::new(total);
    let (ours, rounds) = (server(options)?, Cell::new(if quick { 5 } else { 15 }));
    let bench = Bench { ours, against, quick, directory, progress, rounds };
    let mut rows = Vec::new();
    let save = |name: &str, rows: &mut Vec<Row>| match what {
        "publish" => {
            let results = Results::now(quick, std::mem::take(rows));
            table::print(&results.rows);
            results.save(&results::folder().join(name))
        }
        _ => Ok(()),
    };
    if what == "limits" {
        rows.extend(latency::limits(&bench, &candidates(options))?);
    }
    for (name, section) in ALL.iter().chain(&LAST).filter(|(name, _)| runs(name)) {
        if *name == "peers" {
            save("comparison.json", &mut rows)?;
        }
        rows.extend(section(&bench)?);
    }
    bench.progress.end();
    save("peers.json", &mut rows)?;
    table::print(&rows);
    if let Some(path) = path_after("--json", options) {
        Results::now(quick, rows.clone()).save(&path)?;
    }
    if has("--keep") {
        println!("\nkept: {}", bench.directory.display());
    } else {
        std::fs::remove_dir_all(&bench.directory)?;
    }
    for row in &rows {
        for cheaper in row.cheaper().iter().filter(|_| row.table == "cpu") {
            println!("{}, {}: {cheaper} is cheaper", row.table, row.load);
        }
    }
    Ok(has("--check") && rows.iter().any(Row::fails_the_check))
}

/// The words `READ/FRESH/LEFTOVER` among the options, in KiB.
fn candidates(options: &[&str]) -> Vec<[usize; 3]> {
    let parse = |word: &&str| -> Option<[usize; 3]> {
        let values: Vec<usize> =
            word.split('/').map(|it| it.parse().ok()).collect::<Option<_>>()?;
        values.try_into().ok()
    };
    options.iter().filter_map(parse).collect()
}

/// Returns the command that starts the measured server.
fn server(options: &[&str]) -> io::Result<Vec<String>> {
    if options.contains(&"--library") {
        return Ok(vec![measure::this_program(), "serve-library".into()]);
    }
    match path_after("--program", options) {
        Some(path) => Ok(serve(path)),
        None => build().map(serve),
    }
}

fn path_after(option: &str, options: &[&str]) -> Option<PathBuf> {
    options.iter().skip_while(|word| **word != option).nth(1).map(PathBuf::from)
}

fn serve(program: PathBuf) -> Vec<String> {
    let mut words = vec![program.to_string_lossy().into()];
    words.extend(["serve", "-d", "0", "-e", "0", "-q"].map(String::from));
    words
}

fn build() -> io::Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    // A folder of its own: in one folder, each of the two builds would discard the other's work.
    let target = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => PathBuf::from(directory).join("program"),
        None => here.join("target/program"),
    };
    let status = Command::new("cargo")
        .args(["build", "--release", "--quiet", "--bin", "campanile", "--manifest-path"])
        .arg(here.join("../../Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .status()?;
    if !status.success() {
        return Err(io::Error::other("cargo could not build the program; its messages are above"));
    }
    Ok(target.join("release/campanile"))
}

/// Serves with the loop and its two services alone. `values` are empty or three numbers of KiB.
fn serve_library(values: &[&str]) -> io::Result<()> {
    let mut limits = campanile::Limits::default();
    if let [read, fresh, leftover] = values {
        let kib = |word: &str| word.parse::<usize>().map_err(io::Error::other);
        limits.read_buffer = kib(read)? << 10;
        limits.fresh_budget = kib(fresh)? << 10;
        limits.leftover_budget = kib(leftover)? << 10;
    }
    let mut reactor = campanile::Reactor::with_limits(limits)?;
    let clock = campanile::Clock::system();
    let daytime = reactor.listen("127.0.0.1:0", campanile::daytime(clock))?;
    let echo = reactor.listen("127.0.0.1:0", campanile::echo())?;
    println!("daytime {daytime}\necho {echo}");
    io::stdout().flush()?;
    reactor.run()
}

/// Prints the reason for leaving out a table. If `CAMPANILE_SKIPS` names a file, adds the reason to it.
pub fn skip(reason: &str) -> io::Result<()> {
    eprintln!("SKIPPED: {reason}");
    let Some(list) = std::env::var_os("CAMPANILE_SKIPS") else { return Ok(()) };
    let mut list = std::fs::OpenOptions::new().create(true).append(true).open(list)?;
    list.write_all(format!("tests/bench {reason}\n").as_bytes())
}
