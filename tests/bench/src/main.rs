//! Measures the server against the least that epoll allows, and against tokio.
//!
//! ```text
//! cargo run --release -- all|cpu|latency|calls|instructions|sizes|budgets [--quick] [--check]
//!                        [--program PATH | --library] [--against PATH] [--keep]
//! ```
//!
//! - `cpu`: the server's CPU time per unit of work, as the kernel accounts it.
//! - `latency`: echoes of 64 bytes at 1,000 a second, timed from the planned send, beside 16 endless
//!   streams.
//! - `calls`: system calls, counted by strace.
//! - `instructions`: instructions in user space, counted by callgrind.
//! - `sizes`: the size of the program and the time it takes to start.
//! - `budgets`: latency and CPU time of the library with several values of `Limits::fresh_budget` and
//!   `Limits::leftover_budget`. Not part of `all`; takes ten minutes, or two with `--quick`.
//!
//! The server is pinned to one CPU and the load to the other. Rounds of the server and of the floors
//! alternate, and a ratio is the median of the rounds' ratios: ratios hold from machine to machine,
//! nanoseconds do not. `latency` needs an idle machine: p99 shows each time that another process ran
//! in between. Counts are differences of two runs of different length, so that starting and
//! ending cost nothing. Runs with one connection wait for the server to sleep before each step, which
//! makes every run the same; with many connections the server finds several ready in most turns.
//!
//! The goals are those of the design. With `--check`, a count that misses its goal makes the exit code
//! 1. A ratio of times never does, because it depends on the machine too.
//!
//! The bench builds and measures the release program. `--program` measures another one that prints
//! the same address lines, `--library` the loop alone. `--against` measures another program in place
//! of the epoll floors. With debug information (`CARGO_PROFILE_RELEASE_DEBUG=true
//! CARGO_PROFILE_RELEASE_STRIP=false`) and `--keep`, `callgrind_annotate` reads the files of callgrind.

mod floors;
mod latency;
mod load;
mod measure;
mod sizes;
mod sys;
mod table;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use measure::{Bench, Subject, Unit, Work};
use table::{Goal, Row, ratio};

const USAGE: &str = "usage: bench all|cpu|latency|calls|instructions|sizes|budgets [--quick] [--check] \
    [--program PATH | --library] [--against PATH] [--keep]";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        ["floor", "plain"] => floors::plain().map(|()| false),
        ["floor", "lingering"] => floors::lingering().map(|()| false),
        ["floor", "tokio"] => floors::tokio().map(|()| false),
        ["serve-library", ref budgets @ ..] => serve_library(budgets).map(|()| false),
        [
            what @ ("all" | "cpu" | "latency" | "calls" | "instructions" | "sizes" | "budgets"),
            ref options @ ..,
        ] => bench(what, options),
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

/// Measures and prints. Returns whether a count misses its goal, if `--check` is among the options.
fn bench(what: &str, options: &[&str]) -> io::Result<bool> {
    sys::raise_open_files()?;
    let has = |option| options.contains(&option);
    let directory = std::env::temp_dir().join(format!("bench-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let against = path_after("--against", options).map(serve);
    let bench = Bench { ours: server(options)?, against, quick: has("--quick"), directory };
    if what == "budgets" {
        latency::budgets(&bench)?;
    }
    let mut rows = Vec::new();
    if matches!(what, "all" | "sizes") {
        rows.extend(sizes::sizes(&bench)?);
    }
    if matches!(what, "all" | "instructions") {
        rows.extend(instructions(&bench)?);
    }
    if matches!(what, "all" | "calls") {
        rows.extend(calls(&bench)?);
    }
    if matches!(what, "all" | "latency") {
        rows.extend(latency::latency(&bench)?);
    }
    if matches!(what, "all" | "cpu") {
        rows.extend(cpu(&bench)?);
    }
    if !rows.is_empty() {
        table::print(&rows);
    }
    if has("--keep") {
        println!("\nkept: {}", bench.directory.display());
    } else {
        std::fs::remove_dir_all(&bench.directory)?;
    }
    let misses = |row: &Row| matches!(row.goal, Goal::Count(_)) && row.misses_its_goal();
    Ok(has("--check") && rows.iter().any(misses))
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

/// Serves with the loop and its two services alone. `budgets` are empty or two numbers of KiB.
fn serve_library(budgets: &[&str]) -> io::Result<()> {
    let mut limits = campanile::Limits::default();
    if let [fresh, leftover] = budgets {
        let kib = |word: &str| word.parse::<usize>().map_err(io::Error::other);
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
fn skip(reason: &str) -> io::Result<()> {
    eprintln!("SKIPPED: {reason}");
    let Some(list) = std::env::var_os("CAMPANILE_SKIPS") else { return Ok(()) };
    let mut list = std::fs::OpenOptions::new().create(true).append(true).open(list)?;
    list.write_all(format!("tests/bench {reason}\n").as_bytes())
}

fn instructions(bench: &Bench) -> io::Result<Vec<Row>> {
    if !measure::has("valgrind") {
        skip("instructions: valgrind is not installed")?;
        return Ok(Vec::new());
    }
    let mut rows = Vec::new();
    let (plain, lingering) = (Subject::Plain, Subject::Lingering);
    for (name, unit, file, floor, goal) in [
        (
            "instructions, echo 100 x 64 B",
            Unit::MessageOfMany,
            "echo-many",
            plain,
            Goal::Count(330.0),
        ),
        ("instructions, echo 1 x 64 B", Unit::Message, "echo-one", plain, Goal::Open),
        (
            "instructions, daytime, 16",
            Unit::ConnectionOfMany,
            "daytime-many",
            lingering,
            Goal::Count(1700.0),
        ),
        ("instructions, daytime, 1", Unit::Connection, "daytime-one", lingering, Goal::Open),
    ] {
        let figure = bench.instructions(Subject::Ours, unit, file)?;
        let floor = bench.instructions(floor, unit, "floor")?;
        rows.push(Row { name: name.into(), figure, floor, ratio: figure / floor, goal });
    }
    Ok(rows)
}

fn calls(bench: &Bench) -> io::Result<Vec<Row>> {
    if !measure::has("strace") {
        skip("calls: strace is not installed")?;
        return Ok(Vec::new());
    }
    let daytime = bench.calls(Subject::Ours, Unit::Connection)?;
    let daytime_floor = bench.calls(Subject::Lingering, Unit::Connection)?;
    let echo = bench.calls(Subject::Ours, Unit::Message)?;
    let echo_floor = bench.calls(Subject::Plain, Unit::Message)?;
    println!("a daytime connection: {}", list(&daytime));
    println!("an echoed message: {}", list(&echo));
    let controls = |calls: &measure::Calls| calls.get("epoll_ctl").map_or(0.0, |count| count.0);
    let row = |name: &str, figure, floor: f64, goal| Row {
        name: name.into(),
        figure,
        floor,
        ratio: figure / floor,
        goal: Goal::Count(goal),
    };
    Ok(vec![
        row("calls, daytime", own(&daytime), own(&daytime_floor), 6.0),
        row("epoll_ctl, echo", controls(&echo), controls(&echo_floor), 0.0),
    ])
}

/// Sums the calls that each connection needs. Sleeping, a failed accept and re-arming the listener are
/// left out: connections that arrive together share them.
fn own(calls: &measure::Calls) -> f64 {
    calls
        .iter()
        .map(|(name, (count, errors))| match name.as_str() {
            "epoll_wait" | "epoll_pwait" | measure::REARM => 0.0,
            "accept4" => count - errors,
            _ => *count,
        })
        .sum()
}

fn list(calls: &measure::Calls) -> String {
    let listed = calls.iter().filter(|(_, (count, _))| *count >= 0.01);
    let words: Vec<String> = listed
        .map(|(name, (count, errors))| match errors {
            ..0.005 => format!("{name} {count:.2}"),
            _ => format!("{name} {count:.2} (failed {errors:.2})"),
        })
        .collect();
    words.join(", ")
}

fn cpu(bench: &Bench) -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    let most = Goal::Ratio(1.02);
    for (name, work, unit, goal) in [
        ("ns, echo 100 x 64 B", Work::echo(100, 1, 64, 60_000), 1.0, most),
        ("ns, the same, 16 in flight", Work::echo(100, 16, 64, 960_000), 1.0, most),
        ("ns, echo 16 x 16 KiB", Work::echo(16, 1, 16 << 10, 30_000), 1.0, most),
        ("ms, stream of 1 GB", Work::Stream { bytes: 500_000_000 }, 1e-3, most),
        ("us, echo 100 x 64 KiB", Work::echo(100, 1, 64 << 10, 6_000), 1e3, Goal::Open),
        ("us, echo 50 x 256 KiB", Work::echo(50, 1, 256 << 10, 2_500), 1e3, Goal::Open),
        ("us, echo 1000 x 40 KB", Work::echo(1000, 1, 40_000, 8_000), 1e3, Goal::Open),
    ] {
        let rounds = bench.cpu(&[Subject::Ours, Subject::Plain], work)?;
        rows.push(ratio(name, &rounds, 1, unit, goal));
    }
    let work = Work::Daytime { connections: 8_000 };
    let rounds = bench.cpu(&[Subject::Ours, Subject::Plain, Subject::Lingering], work)?;
    rows.push(ratio("us, daytime / write and close", &rounds, 1, 1e3, Goal::Ratio(1.15)));
    rows.push(ratio("us, daytime / lingering", &rounds, 2, 1e3, Goal::Ratio(1.06)));
    Ok(rows)
}
