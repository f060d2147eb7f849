//! Measures the server against the least that can be done with epoll.
//!
//! ```text
//! cargo run --release -- all|cpu|calls|instructions|sizes [--quick] [--check]
//!                        [--program PATH | --library] [--keep]
//! ```
//!
//! `cpu` is the server's CPU time per unit of work as the kernel accounts it, with the server on one
//! CPU and the load on the other: rounds of the server and of a floor alternate, and the ratio is
//! the median of the rounds'. Ratios hold from machine to machine, nanoseconds do not. `calls` are
//! system calls as strace counts them, `instructions` those of user space as callgrind does: both
//! are differences of two runs of different length, so that starting and ending cost nothing. Runs
//! of one connection go in step with the server, which makes them the same every time; in runs of
//! many the server finds a batch of them in nearly every turn. `sizes` are those of the program and
//! of its start. The goals are those of the design; with `--check` a count that is over its goal
//! makes the exit code 1. A CPU time never does: it says something about the machine, too.
//!
//! Measured is the release build of the program, unless `--program` names another one that prints
//! the same address lines, or `--library` asks for the loop alone. With debug information
//! (`CARGO_PROFILE_RELEASE_DEBUG=true CARGO_PROFILE_RELEASE_STRIP=false`) and `--keep`, what
//! callgrind wrote can be read with `callgrind_annotate`.

mod floors;
mod load;
mod measure;
mod sizes;
mod sys;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use measure::{Bench, Subject, Unit, Work, median};

/// What a figure is held against.
enum Goal {
    /// At most so many times the floor.
    Ratio(f64),
    /// At most so many.
    Count(f64),
    /// None: it is told for comparison.
    Open,
}

/// One line of the table.
struct Row {
    name: String,
    figure: f64,
    floor: f64,
    ratio: f64,
    goal: Goal,
}

impl Row {
    fn is_over(&self) -> bool {
        match self.goal {
            Goal::Ratio(most) => self.ratio > most,
            // A run in step may begin or end one step off.
            Goal::Count(most) => self.figure > most + 0.01,
            Goal::Open => false,
        }
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        ["floor", "plain"] => floors::plain().map(|()| false),
        ["floor", "lingering"] => floors::lingering().map(|()| false),
        ["serve-library"] => serve_library().map(|()| false),
        [what @ ("all" | "cpu" | "calls" | "instructions" | "sizes"), ref options @ ..] => {
            bench(what, options)
        }
        _ => {
            eprintln!(
                "usage: bench all|cpu|calls|instructions|sizes [--quick] [--check] [--program PATH | --library] [--keep]"
            );
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(over) => ExitCode::from(u8::from(over)),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Measures, prints, and says whether a count is over its goal where that matters.
fn bench(what: &str, options: &[&str]) -> io::Result<bool> {
    let has = |option| options.contains(&option);
    let directory = std::env::temp_dir().join(format!("bench-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let bench = Bench { ours: server(options)?, quick: has("--quick"), directory };
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
    if matches!(what, "all" | "cpu") {
        rows.extend(cpu(&bench)?);
    }
    print(&rows);
    if has("--keep") {
        println!("\nkept: {}", bench.directory.display());
    } else {
        std::fs::remove_dir_all(&bench.directory)?;
    }
    let over = |row: &Row| matches!(row.goal, Goal::Count(_)) && row.is_over();
    Ok(has("--check") && rows.iter().any(over))
}

/// The command that starts the measured server.
fn server(options: &[&str]) -> io::Result<Vec<String>> {
    if options.contains(&"--library") {
        return Ok(vec![measure::this_program(), "serve-library".into()]);
    }
    let mut after = options.iter().skip_while(|option| **option != "--program");
    let program = match after.nth(1) {
        Some(path) => PathBuf::from(path),
        None => build()?,
    };
    let mut words = vec![program.to_string_lossy().into()];
    words.extend(["serve", "-d", "0", "-e", "0", "-q"].map(String::from));
    Ok(words)
}

fn build() -> io::Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Apart from the build of this program: two profiles in one place would rebuild in turn.
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
        return Err(io::Error::other("the program does not build"));
    }
    Ok(target.join("release/campanile"))
}

/// The loop with its two services and nothing around it.
fn serve_library() -> io::Result<()> {
    let mut reactor = campanile::Reactor::new()?;
    let clock = campanile::Clock::system();
    let daytime = reactor.listen("127.0.0.1:0", campanile::daytime(clock))?;
    let echo = reactor.listen("127.0.0.1:0", campanile::echo())?;
    println!("daytime {daytime}\necho {echo}");
    io::stdout().flush()?;
    reactor.run()
}

/// Says that a table is left out, in the list of skipped tests too if `CAMPANILE_SKIPS` names one.
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
            Goal::Count(250.0),
        ),
        ("instructions, echo 1 x 64 B", Unit::Message, "echo-one", plain, Goal::Open),
        (
            "instructions, daytime, 16",
            Unit::ConnectionOfMany,
            "daytime-many",
            lingering,
            Goal::Count(1500.0),
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

/// The calls that are a connection's own: not the sleeps, and not what ends a batch of accepting, an
/// accept in vain or the question for the next event. Of these many connections share one, if they
/// come together.
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
    let echo =
        |connections, flight, size, messages| Work::Echo { connections, flight, size, messages };
    let mut rows = Vec::new();
    for (name, work, unit, goal) in [
        ("ns, echo 100 x 64 B", echo(100, 1, 64, 60_000), 1.0, 1.03),
        ("ns, the same, 16 in flight", echo(100, 16, 64, 960_000), 1.0, 1.05),
        ("ns, echo 16 x 16 KiB", echo(16, 1, 16 << 10, 30_000), 1.0, 1.03),
        ("ms, stream of 1 GB", Work::Stream { bytes: 500_000_000 }, 1e-3, 1.03),
    ] {
        let rounds = bench.cpu(&[Subject::Ours, Subject::Plain], work)?;
        rows.push(ratio(name, &rounds, 1, unit, goal));
    }
    let work = Work::Daytime { connections: 8_000 };
    let rounds = bench.cpu(&[Subject::Ours, Subject::Plain, Subject::Lingering], work)?;
    rows.push(ratio("us, daytime / write and close", &rounds, 1, 1e3, 1.15));
    rows.push(ratio("us, daytime / lingering", &rounds, 2, 1e3, 1.05));
    Ok(rows)
}

/// The first figure of each round against another of the same round.
fn ratio(name: &str, rounds: &[Vec<f64>], floor: usize, unit: f64, goal: f64) -> Row {
    let of = |what: &dyn Fn(&Vec<f64>) -> f64| median(rounds.iter().map(what).collect());
    Row {
        name: name.into(),
        figure: of(&|round| round[0]) / unit,
        floor: of(&|round| round[floor]) / unit,
        ratio: of(&|round| round[0] / round[floor]),
        goal: Goal::Ratio(goal),
    }
}

fn print(rows: &[Row]) {
    println!("\n{:<32}{:>10}{:>10}{:>8}{:>10}", "", "figure", "floor", "ratio", "goal");
    for row in rows {
        let goal = match row.goal {
            Goal::Ratio(most) => format!("x {most:.2}"),
            Goal::Count(most) => format!("{most:.0}"),
            Goal::Open => "-".into(),
        };
        let verdict = match row.goal {
            Goal::Open => "",
            _ if row.is_over() => "over",
            _ => "ok",
        };
        let ratio = match row.floor {
            0.0 => "-".into(),
            _ => format!("{:.2}", row.ratio),
        };
        println!(
            "{:<32}{:>10.1}{:>10.1}{:>8}{:>10}  {}",
            row.name, row.figure, row.floor, ratio, goal, verdict
        );
    }
}
