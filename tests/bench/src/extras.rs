//! The cost of the faults, of recording, of a `TestServer`, and of a build.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use campanile::testing::TestServer;

use crate::measure::{Bench, Work, this_program};
use crate::sys;
use crate::table::{Goal, Row};

/// Compares the program with itself: with options and without.
fn against_itself(
    bench: &Bench,
    table: &str,
    cases: &[(&str, &[&str], Work)],
) -> io::Result<Vec<Row>> {
    bench.at_most(9);
    let mut rows = Vec::new();
    for (name, options, work) in cases {
        let unit = match work {
            Work::Daytime { .. } => "us a connection",
            _ => "us a message",
        };
        bench.progress.load(&format!("{table}, {name}"));
        let subjects = [bench.ours_with(name, options), bench.ours_with("without", &[])];
        let rounds = bench.cpu(&subjects, *work)?;
        let names = [name.to_string(), "without".into()];
        rows.push(Row::of_rounds((table, name, unit, 1e3), &names, &rounds, 1, Goal::Open));
    }
    Ok(rows)
}

/// Each effect on all connections. An effect that ends a connection is measured per connection, the
/// others per message of 64 B on 100 connections. An effect on a listener is measured by the connections
/// of the other service.
pub fn faults(bench: &Bench) -> io::Result<Vec<Row>> {
    const MESSAGE: Work = Work::echo(100, 1, 64, 30_000);
    const SLOW: Work = Work::echo(100, 1, 64, 10_000);
    const CONNECTION: Work = Work::Daytime { connections: 4_000 };
    let cases: &[(&str, &[&str], Work)] = &[
        ("one that never applies", &["--fault", "echo #4000000: reset"], MESSAGE),
        ("delay 1ms", &["--fault", "echo: delay 1ms"], SLOW),
        ("slice 32/1ms", &["--fault", "echo: slice 32/1ms"], SLOW),
        ("rate 1MiB/s", &["--fault", "echo: rate 1MiB/s"], SLOW),
        ("short 32", &["--fault", "echo: short 32"], MESSAGE),
        ("corrupt after 1000MiB", &["--fault", "echo: corrupt after 1000MiB"], MESSAGE),
        ("stall after 1000MiB", &["--fault", "echo: stall after 1000MiB"], MESSAGE),
        ("deaf after 1000MiB", &["--fault", "echo: deaf after 1000MiB"], MESSAGE),
        ("reset after 1000MiB", &["--fault", "echo: reset after 1000MiB"], MESSAGE),
        ("hold-open after 1000MiB", &["--fault", "echo: hold-open after 1000MiB"], MESSAGE),
        ("refuse, of echo", &["--fault", "echo: refuse"], CONNECTION),
        ("unreachable, of echo", &["--fault", "echo: unreachable"], CONNECTION),
        ("never-accept, of echo", &["--fault", "echo: never-accept"], CONNECTION),
        ("shut after 26 bytes", &["--fault", "daytime: shut after 26 bytes"], CONNECTION),
        ("close after 26 bytes", &["--fault", "daytime: close after 26 bytes"], CONNECTION),
    ];
    bench.progress.section(if bench.quick { 25.0 } else { 130.0 }, cases.len());
    against_itself(bench, "each fault's own cost", cases)
}

pub fn recording(bench: &Bench) -> io::Result<Vec<Row>> {
    let file = bench.directory.join("run.jsonl");
    let file = file.to_str().ok_or_else(|| io::Error::other("TMPDIR is not UTF-8: set another"))?;
    let with_bytes = ["--record", file, "--record-bytes", "64"];
    let cases: &[(&str, &[&str], Work)] = &[
        ("--record", &["--record", file], Work::echo(100, 1, 64, 30_000)),
        ("--record --record-bytes 64", &with_bytes, Work::echo(100, 1, 64, 30_000)),
        ("--record, daytime", &["--record", file], Work::Daytime { connections: 4_000 }),
    ];
    bench.progress.section(if bench.quick { 10.0 } else { 40.0 }, cases.len());
    against_itself(bench, "recording's own cost", cases)
}

/// The floor of a `TestServer`: a thread, a listener, a connection, a reply.
fn thread_floor() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    let server = std::thread::spawn(move || -> io::Result<()> {
        let (mut client, _) = listener.accept()?;
        let mut bytes = [0; 64];
        client.read_exact(&mut bytes)?;
        client.write_all(&bytes)
    });
    exchange(&mut TcpStream::connect(addr)?)?;
    server.join().map_err(|_| io::Error::other("the floor's thread has panicked"))?
}

fn exchange(client: &mut TcpStream) -> io::Result<()> {
    client.write_all(&[5; 64])?;
    let mut back = [0; 64];
    client.read_exact(&mut back)?;
    if back == [5; 64] { Ok(()) } else { Err(crate::load::differs()) }
}

fn test_server() -> io::Result<()> {
    let server = TestServer::start();
    exchange(&mut TcpStream::connect(server.echo().addr())?)
}

pub fn test_servers(bench: &Bench) -> io::Result<Vec<Row>> {
    const PAIRS: usize = 200;
    const AT_ONCE: usize = 3_000;
    bench.progress.section(6.0, 2);
    bench.progress.load("TestServer, start to first reply and drop");
    // The threads of a test run on any CPU.
    sys::unpin()?;
    let micros = |work: fn() -> io::Result<()>| {
        let began = Instant::now();
        work().map(|()| began.elapsed().as_secs_f64() * 1e6)
    };
    let mut pairs = Vec::new();
    for at in 0..PAIRS {
        let mut pair = match at % 2 {
            0 => [micros(test_server)?, micros(thread_floor)?],
            _ => [micros(thread_floor)?, micros(test_server)?],
        };
        if at % 2 == 1 {
            pair.reverse();
        }
        pairs.push(pair.to_vec());
    }
    let names = ["TestServer".to_string(), "thread, bind, connect".into()];
    let what = ("TestServer", "start, one reply, drop", "us", 1.0);
    let mut rows = vec![Row::of_rounds(what, &names, &pairs, 1, Goal::Ratio(3.0))];

    bench.progress.load("3,000 TestServers at once");
    // In a process of its own, whose memory is theirs alone.
    let output =
        Command::new(this_program()).args(["test-servers", &AT_ONCE.to_string()]).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let figures: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [started, dropped, bytes] = figures[..] else {
        let reason = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!("3,000 TestServers at once failed: {reason}")));
    };
    for (load, unit, figure) in [
        ("3,000 at once: start and one reply", "us each", started),
        ("3,000 at once: drop", "us each", dropped),
        ("3,000 at once: resident memory", "KiB each", bytes),
    ] {
        rows.push(Row::counts("TestServer", load, unit, &[("TestServer", figure)], Goal::Open));
    }
    sys::pin(1)?;
    Ok(rows)
}

/// Starts `count` test servers, gets a reply of each, and drops them. Prints microseconds and KiB.
pub fn many_test_servers(count: usize) -> io::Result<()> {
    let resident = || crate::measure::status_field(std::process::id(), "VmRSS:");
    let (before, began) = (resident()?, Instant::now());
    let servers: Vec<TestServer> = (0..count).map(|_| TestServer::start()).collect();
    for server in &servers {
        exchange(&mut TcpStream::connect(server.echo().addr())?)?;
    }
    let started = began.elapsed().as_secs_f64() * 1e6 / count as f64;
    let bytes = (resident()? - before) / count as f64;
    let began = Instant::now();
    drop(servers);
    let dropped = began.elapsed().as_secs_f64() * 1e6 / count as f64;
    println!("{started} {dropped} {bytes}");
    Ok(())
}

/// Builds `examples/embed_small` in an empty folder.
pub fn build(bench: &Bench) -> io::Result<Vec<Row>> {
    bench.progress.section(12.0, 1);
    bench.progress.load("a cold release build of embed_small");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = bench.directory.join("embed_small");
    let before = sys::cpu_time_of_children();
    sys::unpin()?;
    let status = Command::new("cargo")
        .args(["build", "--release", "--quiet", "--manifest-path"])
        .arg(root.join("examples/embed_small/Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .status();
    sys::pin(1)?;
    if !status?.success() {
        return Err(io::Error::other("cargo could not build embed_small; its messages are above"));
    }
    let seconds = (sys::cpu_time_of_children() - before).as_secs_f64();
    let size = target.join("release/embed_small").metadata()?.len() as f64 / 1e3;
    let crates = crate::sizes::crates(&["--no-default-features"])?;
    let row = |load, unit, figure, most| {
        Row::counts("the library alone", load, unit, &[("embed_small", figure)], Goal::Count(most))
    };
    Ok(vec![
        row("crates", "", crates, 8.0),
        row("size of the program", "KB", size, 450.0),
        // CPU time depends on the machine: no check.
        Row::counts(
            "the library alone",
            "cold release build",
            "s of CPU",
            &[("embed_small", seconds)],
            Goal::Open,
        ),
    ])
}
