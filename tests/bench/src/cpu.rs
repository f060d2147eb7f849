//! The server's CPU time, its instructions and its system calls, per unit of work.

use std::io;

use crate::measure::{BOTH, Bench, Calls, REARM, Subject, Unit, Work, has};
use crate::table::{Goal, Row};

type Load = (&'static str, Work, &'static str, f64);

/// The loads of echo. Their goals are those of [`goal`].
#[rustfmt::skip]
pub const LOADS: [Load; 8] = [
    ("64 B on 100 connections", Work::echo(100, 1, 64, 40_000), "ns", 1.0),
    ("64 B on 100 connections, 16 in flight", Work::echo(100, 16, 64, 640_000), "ns", 1.0),
    ("16 KiB on 16", Work::echo(16, 1, 16 << 10, 20_000), "ns", 1.0),
    ("33 KB on 200", Work::echo(200, 1, 33_000, 8_000), "us", 1e3),
    ("40 KB on 1,000", Work::echo(1000, 1, 40_000, 8_000), "us", 1e3),
    ("64 KiB on 100", Work::echo(100, 1, 64 << 10, 6_000), "us", 1e3),
    ("256 KiB on 50", Work::echo(50, 1, 256 << 10, 2_500), "us", 1e3),
    ("a stream of 2 GB", Work::Stream { bytes: 2_000_000_000 }, "ms per GB", 1e-3),
];

fn goal(load: &str) -> Goal {
    match load {
        "33 KB on 200" | "40 KB on 1,000" | "64 KiB on 100" | "256 KiB on 50" => Goal::Open,
        _ => Goal::Cpu(1.02),
    }
}

fn names(subjects: &[Subject]) -> Vec<String> {
    subjects.iter().map(|subject| subject.name.clone()).collect()
}

/// `others` are measured in the same rounds, for instance the peers.
pub fn cpu(bench: &Bench, table: &str, others: Vec<Subject>) -> io::Result<Vec<Row>> {
    let subjects = [vec![bench.ours(), bench.plain()], others].concat();
    let mut rows = Vec::new();
    for (name, work, unit, scale) in LOADS {
        bench.progress.load(&format!("{table}, {name}"));
        let rounds = bench.cpu(&subjects, work)?;
        rows.push(Row::of_rounds(
            (table, name, unit, scale),
            &names(&subjects),
            &rounds,
            1,
            goal(name),
        ));
    }
    Ok(rows)
}

pub fn libraries() -> Vec<Subject> {
    let library = |name| Subject::floor(name, &[name, "lingers"], BOTH);
    vec![library("mio"), library("tokio")]
}

/// Echo by splice(2) beside recv and send, both on raw epoll.
pub fn splice(bench: &Bench) -> io::Result<Vec<Row>> {
    let subjects = [Subject::floor("splice", &["splice"], &["echo"]), bench.plain()];
    let loads = [LOADS[0], LOADS[2], LOADS[7]];
    bench.progress.section(if bench.quick { 8.0 } else { 60.0 }, loads.len());
    let mut rows = Vec::new();
    for (name, work, unit, scale) in loads {
        bench.progress.load(&format!("splice, {name}"));
        let rounds = bench.cpu(&subjects, work)?;
        let what = ("splice", name, unit, scale);
        rows.push(Row::of_rounds(what, &names(&subjects), &rounds, 1, Goal::Open));
    }
    Ok(rows)
}

/// Daytime, with and without linger.
pub fn daytime(bench: &Bench) -> io::Result<Vec<Row>> {
    let mut subjects = vec![bench.ours(), bench.lingering()];
    for library in ["mio", "tokio"] {
        subjects.push(Subject::floor(&format!("{library}, lingers"), &[library, "lingers"], BOTH));
    }
    let closes = |name: &str, words: &[&str]| {
        Subject::floor(&format!("{name}, writes and closes"), words, BOTH)
    };
    subjects.push(closes("epoll", &["plain"]));
    subjects.push(closes("mio", &["mio", "closes"]));
    subjects.push(closes("tokio", &["tokio", "closes"]));
    bench.progress.load("daytime");
    let rounds = bench.cpu(&subjects, Work::Daytime { connections: 6_000 })?;
    let what = ("cpu", "a daytime connection", "us", 1e3);
    Ok(vec![Row::of_rounds(what, &names(&subjects), &rounds, 1, Goal::Cpu(1.06))])
}

pub fn instructions(bench: &Bench) -> io::Result<Vec<Row>> {
    bench.progress.section(if bench.quick { 25.0 } else { 60.0 }, 4);
    if !has("valgrind") {
        crate::skip("instructions: valgrind is not installed")?;
        return Ok(Vec::new());
    }
    let mut rows = Vec::new();
    for (load, unit, file, goal) in [
        ("64 B on 100 connections", Unit::MessageOfMany, "echo-many", Goal::Count(330.0)),
        ("64 B on one connection", Unit::Message, "echo-one", Goal::Open),
        ("a daytime connection of 16", Unit::ConnectionOfMany, "daytime-many", Goal::Count(1700.0)),
        ("the only daytime connection", Unit::Connection, "daytime-one", Goal::Open),
    ] {
        bench.progress.load(&format!("instructions, {load}"));
        let floor = if file.starts_with("echo") { bench.plain() } else { bench.lingering() };
        let mut cells = Vec::new();
        let mut all = vec![bench.ours(), floor];
        if !bench.quick {
            all.extend(libraries());
        }
        for subject in &all {
            cells.push((subject.name.as_str(), bench.instructions(subject, unit, file)?));
        }
        rows.push(Row::counts("instructions in user space", load, "", &cells, goal));
    }
    Ok(rows)
}

pub fn calls(bench: &Bench) -> io::Result<Vec<Row>> {
    bench.progress.section(if bench.quick { 10.0 } else { 15.0 }, 2);
    if !has("strace") {
        crate::skip("calls: strace is not installed")?;
        return Ok(Vec::new());
    }
    let mut rows = Vec::new();
    for (load, unit, floor, most) in [
        ("a daytime connection", Unit::Connection, bench.lingering(), 6.0),
        ("64 B on one connection", Unit::Message, bench.plain(), 2.0),
    ] {
        bench.progress.load(&format!("calls, {load}"));
        let mut cells = Vec::new();
        let all = [vec![bench.ours(), floor], libraries()].concat();
        for (at, subject) in all.iter().enumerate() {
            let calls = bench.calls(subject, unit)?;
            if at == 0 {
                println!("{load}: {}", list(&calls));
            }
            cells.push((subject.name.as_str(), own(&calls)));
        }
        rows.push(Row::counts("system calls", load, "besides waiting", &cells, Goal::Count(most)));
    }
    Ok(rows)
}

/// Sums the calls that each connection needs. Sleeping, a failed accept and re-arming the listener are
/// left out: connections that arrive together share them.
fn own(calls: &Calls) -> f64 {
    calls
        .iter()
        .map(|(name, (count, errors))| match name.as_str() {
            "epoll_wait" | "epoll_pwait" | REARM => 0.0,
            "accept4" => count - errors,
            _ => *count,
        })
        .sum()
}

fn list(calls: &Calls) -> String {
    let listed = calls.iter().filter(|(_, (count, _))| *count >= 0.01);
    let words: Vec<String> = listed
        .map(|(name, (count, errors))| match errors {
            ..0.005 => format!("{name} {count:.2}"),
            _ => format!("{name} {count:.2} (failed {errors:.2})"),
        })
        .collect();
    words.join(", ")
}
