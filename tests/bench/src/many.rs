//! Many connections: what the idle ones cost, and a storm of new ones.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use crate::load::{self, Daytime, PATIENCE};
use crate::measure::{Bench, Server, Subject};
use crate::sys;
use crate::table::{Goal, Row, Summary};

const IDLE: usize = 10_000;
const STORM: usize = 4_000;

fn subjects(bench: &Bench) -> Vec<Subject> {
    // One more than the connections of the largest load.
    let ours = bench.ours_with("campanile", &["--max-connections", "19000"]);
    [vec![ours, bench.plain()], crate::cpu::libraries()].concat()
}

pub fn many(bench: &Bench) -> io::Result<Vec<Row>> {
    let all = subjects(bench);
    let names: Vec<String> = all.iter().map(|subject| subject.name.clone()).collect();
    bench.progress.section(if bench.quick { 35.0 } else { 170.0 }, 3);
    bench.progress.load("10,000 idle connections");
    let wait = Duration::from_secs(if bench.quick { 1 } else { 5 });
    let rounds = bench.some_rounds(1, &all, |server| idle(&server, wait))?;
    let cells = |figure: fn(&(f64, f64)) -> f64| -> Vec<(&str, f64)> {
        names.iter().map(String::as_str).zip(rounds[0].iter().map(figure)).collect()
    };
    let mut rows = vec![
        Row::counts(
            "many connections",
            "10,000 idle: resident memory",
            "bytes each",
            &cells(|it| it.0),
            Goal::Open,
        ),
        Row::counts(
            "many connections",
            "10,000 idle: wake-ups",
            "a minute",
            &cells(|it| it.1),
            Goal::Count(60.0),
        ),
    ];
    rows.extend(active_among_idle(bench, &all[..2])?);
    rows.extend(storms(bench, &all)?);
    Ok(rows)
}

/// Returns the resident bytes of an idle connection, and how often the server wakes in a minute.
fn idle(server: &Server, wait: Duration) -> io::Result<(f64, f64)> {
    // The first connections fill the free lists and grow the tables that any server has.
    let _first = load::Echo::connect(server.addr("echo")?, 100, 64)?;
    let before = server.resident()?;
    let mut clients = load::Echo::connect(server.addr("echo")?, IDLE, 64)?;
    // Each connection has carried one message, so that buffers that are made for it are there.
    clients.run(IDLE)?;
    let bytes = (server.resident()? - before) * 1024.0 / IDLE as f64;
    // Wake-ups that belong to the messages are over.
    std::thread::sleep(Duration::from_millis(200));
    let sleeps = server.sleeps()?;
    std::thread::sleep(wait);
    Ok((bytes, (server.sleeps()? - sleeps) * 60.0 / wait.as_secs_f64()))
}

/// CPU time of 64 B on 100 connections among 0, 1,000 and 18,000 idle ones, of the same process.
fn active_among_idle(bench: &Bench, subjects: &[Subject]) -> io::Result<Vec<Row>> {
    bench.progress.load("100 active among idle connections");
    let messages = if bench.quick { 10_000 } else { 40_000 };
    let rounds = bench.some_rounds(if bench.quick { 1 } else { 9 }, subjects, |server| {
        let addr = server.addr("echo")?;
        let mut active = load::Echo::connect(addr, 100, 64)?;
        active.run(messages / 10)?;
        let (mut idle, mut figures) = (Vec::new(), [0.0; 3]);
        for (figure, count) in figures.iter_mut().zip([0, 1000, 18_000]) {
            while idle.len() < count {
                idle.push(load::connect(addr)?);
            }
            // The server has accepted all of them once the last one echoes.
            if let Some(last) = idle.last_mut() {
                last.write_all(&[1; 64])?;
                last.read_exact(&mut [0; 64])?;
            }
            let before = sys::cpu_time(server.pid())?;
            active.run(messages)?;
            *figure = (sys::cpu_time(server.pid())? - before).as_nanos() as f64 / messages as f64;
        }
        Ok(figures)
    })?;
    let mut rows = Vec::new();
    for (at, load) in ["0 idle", "1,000 idle", "18,000 idle"].into_iter().enumerate() {
        let names: Vec<String> = subjects.iter().map(|subject| subject.name.clone()).collect();
        let of: Vec<Vec<f64>> =
            rounds.iter().map(|round| round.iter().map(|figures| figures[at]).collect()).collect();
        let goal = if at == 2 { Goal::Cpu(1.03) } else { Goal::Open };
        let what = ("many connections", format!("64 B on 100 connections, {load}"));
        let mut row = Row::of_rounds((what.0, &what.1, "ns", 1.0), &names, &of, 1, goal);
        // The ratio is that to the same process without idle connections.
        row.floor = Some("itself without idle ones".into());
        for (subject, cell) in row.cells.iter_mut().enumerate() {
            let ratios = rounds.iter().map(|round| round[subject][at] / round[subject][0]);
            cell.ratio = Some(Summary::of(ratios.collect()));
        }
        rows.push(row);
    }
    Ok(rows)
}

/// Many connects at once, each with a message: the time until all have their answer, and CPU time.
fn storms(bench: &Bench, subjects: &[Subject]) -> io::Result<Vec<Row>> {
    bench.progress.load("storms of 4,000 connects");
    let names: Vec<String> = subjects.iter().map(|subject| subject.name.clone()).collect();
    let rounds = bench.rounds(subjects, |server| {
        let before = sys::cpu_time(server.pid())?;
        let millis = storm(server.addr("echo")?)?;
        let cpu = sys::cpu_time(server.pid())? - before;
        Ok((millis, cpu.as_nanos() as f64 / 1e3 / STORM as f64))
    })?;
    let of = |figure: fn(&(f64, f64)) -> f64| -> Vec<Vec<f64>> {
        rounds.iter().map(|round| round.iter().map(figure).collect()).collect()
    };
    let table = "many connections";
    Ok(vec![
        Row::of_rounds(
            (table, "4,000 connects at once: all answered after", "ms", 1.0),
            &names,
            &of(|it| it.0),
            1,
            Goal::Open,
        ),
        Row::of_rounds(
            (table, "4,000 connects at once: CPU time", "us each", 1.0),
            &names,
            &of(|it| it.1),
            1,
            Goal::Open,
        ),
    ])
}

fn storm(addr: SocketAddr) -> io::Result<f64> {
    let mut clients = Daytime::new(addr);
    let epoll = sys::epoll()?;
    let began = Instant::now();
    let mut open = Vec::new();
    for mark in 0..STORM {
        let client = clients.begin()?;
        sys::watch_writing(&epoll, client.as_raw_fd(), mark as u64)?;
        open.push((client, 64));
    }
    let mut events = vec![sys::epoll_event { events: 0, u64: 0 }; STORM];
    let mut left = STORM;
    while left > 0 {
        let ready = sys::wait(&epoll, &mut events, PATIENCE.as_millis() as i32);
        if ready == 0 {
            return Err(ErrorKind::TimedOut.into());
        }
        for event in &events[..ready] {
            let mark = event.u64;
            let (client, missing) = &mut open[mark as usize];
            if event.events & sys::WRITABLE != 0 {
                client.write_all(&[mark as u8; 64])?;
                sys::rewatch(&epoll, client.as_raw_fd(), true, false, mark)?;
                continue;
            }
            let mut reply = [0; 64];
            let count = client.read(&mut reply[..*missing])?;
            if count == 0 || reply[..count].iter().any(|byte| *byte != mark as u8) {
                return Err(load::differs());
            }
            *missing -= count;
            left -= usize::from(*missing == 0);
        }
    }
    Ok(began.elapsed().as_secs_f64() * 1e3)
}
