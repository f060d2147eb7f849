//! Echoes at a fixed rate beside endless streams: how long does a short message wait while other
//! connections keep the server busy?
//!
//! One thread is the whole load. It never sleeps: the load's CPU is its own, and the server pays for
//! no wake-up. The streams cost the load less than the server (the load copies no byte: it sends from a
//! file and drops in the kernel what it receives), so that the server is the limit; [`Latency::busy`] shows whether it was.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use crate::load::{PATIENCE, connect, progress};
use crate::measure::{Bench, Subject, Work};
use crate::sys;
use crate::table::{Goal, Row, median, ratio};

const STREAMS: usize = 16;
/// The most that a stream writes, and reads, before the load looks after the echoes again.
const SLICE: usize = 32 << 10;
const SIZE: usize = 64;
const INTERVAL: Duration = Duration::from_millis(1);
const MESSAGES: usize = 500;
const WARM_UP: Duration = Duration::from_millis(200);

/// The figures of one round.
#[derive(Clone, Copy)]
pub struct Latency {
    /// Microseconds from the planned send of a message to the end of its echo.
    p50: f64,
    p99: f64,
    /// Bytes that the streams received, in GB/s.
    throughput: f64,
    /// The share of the round in which the server used its CPU.
    busy: f64,
}

/// Measures one server.
pub fn measure(addr: SocketAddr, pid: u32) -> io::Result<Latency> {
    let mut streams = Streams::connect(addr)?;
    let mut echoes = connect(addr)?;
    // The server has accepted all of them once this one echoes.
    echoes.write_all(&[0; SIZE])?;
    echoes.read_exact(&mut [0; SIZE])?;
    let warm = Instant::now() + WARM_UP;
    while Instant::now() < warm {
        for which in 0..STREAMS {
            streams.progress(which)?;
        }
    }

    let (cpu, received) = (sys::cpu_time(pid)?, streams.received);
    let mut paced = Paced::begin(echoes)?;
    while paced.latencies.len() < MESSAGES {
        for which in 0..STREAMS {
            streams.progress(which)?;
            paced.progress()?;
        }
    }
    let lasted = paced.began.elapsed().as_secs_f64();
    let cpu = sys::cpu_time(pid)? - cpu;
    let mut latencies = paced.latencies;
    latencies.sort_by(f64::total_cmp);
    Ok(Latency {
        p50: latencies[MESSAGES / 2],
        p99: latencies[MESSAGES * 99 / 100],
        throughput: (streams.received - received) as f64 / 1e9 / lasted,
        busy: cpu.as_secs_f64() / lasted,
    })
}

/// Connections that write and read as fast as they can.
struct Streams {
    streams: Vec<TcpStream>,
    file: File,
    received: u64,
}

impl Streams {
    fn connect(addr: SocketAddr) -> io::Result<Streams> {
        let mut streams = Vec::new();
        for _ in 0..STREAMS {
            let stream = connect(addr)?;
            stream.set_nonblocking(true)?;
            streams.push(stream);
        }
        Ok(Streams { streams, file: sys::memory_file(SLICE)?, received: 0 })
    }

    fn progress(&mut self, which: usize) -> io::Result<()> {
        let stream = self.streams[which].as_raw_fd();
        progress(sys::send_file(stream, &self.file, SLICE))?;
        match progress(sys::recv_and_drop(stream, SLICE))? {
            Some(0) => return Err(ErrorKind::UnexpectedEof.into()),
            count => self.received += count.unwrap_or(0) as u64,
        }
        Ok(())
    }
}

/// Messages with a planned time each. Latency counts from that time, so that a message that is sent
/// late, because an earlier echo kept the load waiting, shows the whole delay.
struct Paced {
    stream: TcpStream,
    began: Instant,
    sent: usize,
    received: usize,
    latencies: Vec<f64>,
}

impl Paced {
    fn begin(stream: TcpStream) -> io::Result<Paced> {
        stream.set_nonblocking(true)?;
        let latencies = Vec::with_capacity(MESSAGES);
        Ok(Paced { stream, began: Instant::now(), sent: 0, received: 0, latencies })
    }

    /// Sends the messages that are due and reads the echoes that have arrived.
    fn progress(&mut self) -> io::Result<()> {
        let elapsed = self.began.elapsed();
        while self.sent < MESSAGES && INTERVAL * self.sent as u32 <= elapsed {
            self.stream.write_all(&[self.sent as u8; SIZE])?;
            self.sent += 1;
        }
        if self.received == self.sent * SIZE {
            return Ok(());
        }
        if elapsed > PATIENCE {
            return Err(ErrorKind::TimedOut.into());
        }
        let mut reply = [0; 16 * SIZE];
        let count = match progress(self.stream.read(&mut reply))? {
            Some(0) => return Err(ErrorKind::UnexpectedEof.into()),
            count => count.unwrap_or(0),
        };
        let elapsed = self.began.elapsed();
        for byte in &reply[..count] {
            let message = self.received / SIZE;
            if *byte != message as u8 {
                return Err(io::Error::other("the server's echo differs from the bytes sent"));
            }
            self.received += 1;
            if self.received / SIZE > message {
                let latency = elapsed - INTERVAL * message as u32;
                self.latencies.push(latency.as_secs_f64() * 1e6);
            }
        }
        Ok(())
    }
}

/// The rows of the table: ours against the floor and against tokio.
pub fn latency(bench: &Bench) -> io::Result<Vec<Row>> {
    let subjects = [Subject::Ours, Subject::Plain, Subject::Tokio];
    let rounds = bench.rounds(&subjects, |server| server.latency())?;
    let of = |figure: fn(&Latency) -> f64| -> Vec<Vec<f64>> {
        rounds.iter().map(|round| round.iter().map(figure).collect()).collect()
    };
    let (p50, p99) = (of(|it| it.p50), of(|it| it.p99));
    let (throughput, busy) = (of(|it| it.throughput), of(|it| it.busy * 100.0));
    let third = Goal::Ratio(0.33);
    Ok(vec![
        ratio("us, p50 beside 16 streams", &p50, 1, 1.0, third),
        ratio("us, p99 beside 16 streams", &p99, 1, 1.0, third),
        ratio("us, p50 / tokio", &p50, 2, 1.0, Goal::Open),
        ratio("us, p99 / tokio", &p99, 2, 1.0, Goal::Ratio(0.2)),
        ratio("GB/s, the 16 streams", &throughput, 1, 1.0, Goal::AtLeast(1.0)),
        ratio("GB/s, the same / tokio", &throughput, 2, 1.0, Goal::Open),
        ratio("% of its CPU, server / floor", &busy, 1, 1.0, Goal::Open),
        ratio("% of its CPU, server / tokio", &busy, 2, 1.0, Goal::Open),
    ])
}

/// Compares pairs of budgets, in KiB, in the library: one line a pair, with ratios to the floor.
pub fn budgets(bench: &Bench) -> io::Result<()> {
    let mut subjects = vec![Subject::Plain];
    for fresh in [32, 64, 128] {
        subjects.extend([128, 256, 512].map(|leftover| Subject::Budgets { fresh, leftover }));
    }
    let latency = bench.rounds(&subjects, |server| server.latency())?;
    let works = [
        Work::echo(100, 1, 64 << 10, 6_000),
        Work::echo(50, 1, 256 << 10, 2_500),
        Work::echo(1000, 1, 40_000, 8_000),
        Work::Stream { bytes: 500_000_000 },
    ];
    let mut loads = Vec::new();
    for work in works {
        loads.push(bench.cpu(&subjects, work)?);
    }
    println!("\n{:>9}{:>8}{:>8}{:>8}   ratios to the floor:", "KiB", "p50 us", "p99 us", "GB/s");
    println!(
        "{:>9}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}",
        "", "", "", "", "p50", "p99", "GB/s", "64 KiB", "256 KiB", "40 KB", "stream"
    );
    for (at, subject) in subjects.iter().enumerate() {
        let name = match subject {
            Subject::Budgets { fresh, leftover } => format!("{fresh}/{leftover}"),
            _ => "floor".into(),
        };
        print!("{name:>9}");
        let figures: [fn(&Latency) -> f64; 3] = [|it| it.p50, |it| it.p99, |it| it.throughput];
        for (which, figure) in figures.into_iter().enumerate() {
            let value = median(latency.iter().map(|round| figure(&round[at])).collect());
            print!("{value:>8.*}", if which < 2 { 0 } else { 2 });
        }
        for figure in figures {
            let ratio = |round: &Vec<Latency>| figure(&round[at]) / figure(&round[0]);
            print!("{:>8.2}", median(latency.iter().map(ratio).collect()));
        }
        for rounds in &loads {
            let ratio = |round: &Vec<f64>| round[at] / round[0];
            print!("{:>8.2}", median(rounds.iter().map(ratio).collect()));
        }
        println!();
    }
    Ok(())
}
