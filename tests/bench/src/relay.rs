//! The relay, `campanile proxy`, beside a raw epoll relay with a buffer of the same size.
//!
//! For CPU time, the server behind it is the plain floor. It runs on the CPU of the load, so that the
//! figures are those of the relay alone. For latency, the load itself is the server behind.

use std::io;
use std::net::SocketAddr;

use crate::latency::{self, Behind};
use crate::measure::{Bench, Subject, Work};
use crate::table::{Goal, Row};

#[rustfmt::skip]
const LOADS: [(&str, Work, &str, f64); 4] = [
    ("64 B there and back on 100 connections", Work::echo(100, 1, 64, 20_000), "us", 1e3),
    ("16 KiB there and back on 16", Work::echo(16, 1, 16 << 10, 10_000), "us", 1e3),
    ("a stream, there and back", Work::Stream { bytes: 500_000_000 }, "ms per GB", 1e-3),
    ("a connection with one message", Work::Connections { count: 3_000 }, "us", 1e3),
];

/// `others` makes further relays for the address of a server.
pub fn relay(
    bench: &Bench,
    table: &str,
    others: fn(&Bench, SocketAddr) -> io::Result<Vec<Subject>>,
) -> io::Result<Vec<Row>> {
    let floor = Subject::floor("epoll", &["plain"], crate::measure::BOTH);
    let behind = bench.start_beside_the_load(&floor)?;
    let upstream = behind.addr("echo")?;
    let subjects = [relays(bench, upstream), others(bench, upstream)?].concat();
    let names: Vec<String> = subjects.iter().map(|subject| subject.name.clone()).collect();
    let mut rows = Vec::new();
    for (name, work, unit, scale) in LOADS {
        bench.progress.load(&format!("{table}, {name}"));
        let rounds = bench.cpu(&subjects, work)?;
        rows.push(Row::of_rounds((table, name, unit, scale), &names, &rounds, 1, Goal::Open));
    }
    drop(behind);
    let mut behind = Behind::new()?;
    let upstream = behind.addr()?;
    let subjects = [relays(bench, upstream), others(bench, upstream)?].concat();
    rows.extend(latency::of_relays(bench, &format!("{table}, latency"), &subjects, &mut behind)?);
    Ok(rows)
}

/// Ours and the floor.
fn relays(bench: &Bench, upstream: SocketAddr) -> Vec<Subject> {
    let to = upstream.to_string();
    let proxy = ["proxy", "0", &to, "-q", "--idle", "5m"].map(String::from);
    let ours = [vec![bench.ours[0].clone()], proxy.into()].concat();
    vec![
        Subject::new("campanile proxy", ours, &["proxy"]),
        Subject::floor("epoll relay", &["relay", &to], &["relay"]),
    ]
}
