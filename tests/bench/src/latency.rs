//! Echoes at a fixed rate: how long does a short message wait while other connections keep the
//! server busy?
//!
//! One thread is the whole load. It never sleeps: the load's CPU is its own, and the server pays for
//! no wake-up. The streams cost the load less than the server (the load copies no byte: it sends from a
//! file and drops in the kernel what it receives, so their bytes are counted and not compared), so that
//! the server is the limit; [`Latency::busy`] shows whether it was.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use crate::load::{Daytime, PATIENCE, connect, differs, progress};
use crate::measure::{BOTH, Bench, Subject, Work};
use crate::sys;
use crate::table::{Goal, Row};

const STREAMS: usize = 16;
/// The most that a stream writes, and reads, before the load looks after the echoes again.
const SLICE: usize = 32 << 10;
const SIZE: usize = 64;
const INTERVAL: Duration = Duration::from_millis(1);
const WARM_UP: Duration = Duration::from_millis(200);
/// 5,000 connections a second.
const CHURN: Duration = Duration::from_micros(200);
/// Connections of the churn that are open at a time.
const OPEN: usize = 40;

/// What the server does besides.
#[derive(Clone, Copy)]
pub struct Beside {
    pub streams: bool,
    pub churn: bool,
}

/// The figures of one round.
#[derive(Clone, Copy)]
pub struct Latency {
    /// Microseconds from the planned send of a message to the end of its echo.
    p50: f64,
    p99: f64,
    p999: f64,
    /// Bytes that the streams received, in GB/s.
    throughput: f64,
    /// The share of the round in which the server used its CPU.
    busy: f64,
}

/// Measures one server. If it is a relay, `behind` is the server behind it.
pub fn measure(
    addr: SocketAddr,
    pid: u32,
    beside: Beside,
    messages: usize,
    behind: Option<&mut Behind>,
) -> io::Result<Latency> {
    let mut others = Others {
        streams: Streams::connect(addr, if beside.streams { STREAMS } else { 0 })?,
        churn: None,
        behind,
    };
    // The server has accepted all of them once this one echoes.
    let first = Paced::begin(connect(addr)?, 1)?;
    let echoes = run(first, &mut others)?.stream;
    others.churn = beside.churn.then(|| Churn::begin(addr));
    let warm = Instant::now() + WARM_UP;
    while Instant::now() < warm {
        others.streams.progress()?;
        others.progress()?;
    }

    let (cpu, received) = (sys::cpu_time(pid)?, others.streams.received);
    let paced = run(Paced::begin(echoes, messages)?, &mut others)?;
    let lasted = paced.began.elapsed().as_secs_f64();
    let cpu = sys::cpu_time(pid)? - cpu;
    let mut latencies = paced.latencies;
    latencies.sort_by(f64::total_cmp);
    Ok(Latency {
        p50: latencies[messages / 2],
        p99: latencies[messages * 99 / 100],
        p999: latencies[messages * 999 / 1000],
        throughput: (others.streams.received - received) as f64 / 1e9 / lasted,
        busy: cpu.as_secs_f64() / lasted,
    })
}

/// Sends all planned messages and waits for their echoes, while the others go on.
fn run(mut paced: Paced, others: &mut Others) -> io::Result<Paced> {
    while paced.latencies.len() < paced.planned {
        for which in 0..others.streams.streams.len() {
            others.streams.progress_of(which)?;
            paced.progress()?;
        }
        paced.progress()?;
        others.progress()?;
    }
    Ok(paced)
}

/// What the load does besides sending messages.
struct Others<'a> {
    streams: Streams,
    churn: Option<Churn>,
    behind: Option<&'a mut Behind>,
}

impl Others<'_> {
    fn progress(&mut self) -> io::Result<()> {
        self.churn.as_mut().map_or(Ok(()), Churn::progress)?;
        self.behind.as_mut().map_or(Ok(()), |behind| behind.progress())
    }
}

/// The echo server behind a relay. The load's thread plays it, because it never sleeps: a process on
/// the same CPU would wait for it.
pub struct Behind {
    listener: TcpListener,
    /// Each with the bytes that the relay does not take yet.
    connections: Vec<(TcpStream, Vec<u8>)>,
}

impl Behind {
    pub fn new() -> io::Result<Behind> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        Ok(Behind { listener, connections: Vec::new() })
    }

    pub fn addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    fn progress(&mut self) -> io::Result<()> {
        if let Ok((stream, _)) = self.listener.accept() {
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            self.connections.push((stream, Vec::new()));
        }
        // A connection of an earlier round ends here.
        self.connections.retain_mut(|(stream, unsent)| echo(stream, unsent).unwrap_or(false));
        Ok(())
    }
}

/// Returns false at the end of the connection.
fn echo(stream: &mut TcpStream, unsent: &mut Vec<u8>) -> io::Result<bool> {
    let mut scratch = [0; SLICE];
    if unsent.is_empty() {
        match progress(stream.read(&mut scratch))? {
            Some(0) => return Ok(false),
            count => unsent.extend_from_slice(&scratch[..count.unwrap_or(0)]),
        }
    }
    if !unsent.is_empty() {
        let sent = progress(stream.write(unsent))?.unwrap_or(0);
        unsent.drain(..sent);
    }
    Ok(true)
}

/// Connections that come at planned times, stay for a while, and leave.
struct Churn {
    clients: Daytime,
    open: VecDeque<TcpStream>,
    began: Instant,
    made: u32,
}

impl Churn {
    fn begin(addr: SocketAddr) -> Churn {
        let clients = Daytime::new(addr);
        Churn { clients, open: VecDeque::new(), began: Instant::now(), made: 0 }
    }

    fn progress(&mut self) -> io::Result<()> {
        if CHURN * self.made <= self.began.elapsed() {
            self.open.push_back(self.clients.begin()?);
            self.made += 1;
            if self.open.len() > OPEN {
                self.open.pop_front();
            }
        }
        Ok(())
    }
}

/// Connections that write and read as fast as they can.
struct Streams {
    streams: Vec<TcpStream>,
    file: File,
    received: u64,
}

impl Streams {
    fn connect(addr: SocketAddr, count: usize) -> io::Result<Streams> {
        let mut streams = Vec::new();
        for _ in 0..count {
            let stream = connect(addr)?;
            stream.set_nonblocking(true)?;
            streams.push(stream);
        }
        Ok(Streams { streams, file: sys::memory_file(SLICE)?, received: 0 })
    }

    fn progress(&mut self) -> io::Result<()> {
        (0..self.streams.len()).try_for_each(|which| self.progress_of(which))
    }

    fn progress_of(&mut self, which: usize) -> io::Result<()> {
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
    planned: usize,
    sent: usize,
    received: usize,
    latencies: Vec<f64>,
}

impl Paced {
    fn begin(stream: TcpStream, planned: usize) -> io::Result<Paced> {
        stream.set_nonblocking(true)?;
        let latencies = Vec::with_capacity(planned);
        Ok(Paced { stream, began: Instant::now(), planned, sent: 0, received: 0, latencies })
    }

    /// Sends the messages that are due and reads the echoes that have arrived.
    fn progress(&mut self) -> io::Result<()> {
        let elapsed = self.began.elapsed();
        while self.sent < self.planned && INTERVAL * self.sent as u32 <= elapsed {
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
                return Err(differs());
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

/// Ours beside the floor, a bare mio loop and tokio.
pub fn latency(bench: &Bench) -> io::Result<Vec<Row>> {
    let subjects = [vec![bench.ours(), bench.plain()], crate::cpu::libraries()].concat();
    bench.progress.section(if bench.quick { 45.0 } else { 350.0 }, 4);
    let loads = [
        ("alone", Beside { streams: false, churn: false }),
        ("beside 16 streams", Beside { streams: true, churn: false }),
        ("beside 5,000 connections a second", Beside { streams: false, churn: true }),
        ("beside both", Beside { streams: true, churn: true }),
    ];
    rows(bench, "latency", &subjects, &loads, None)
}

/// The latency through relays. The first subject is ours, the second the floor.
pub fn of_relays(
    bench: &Bench,
    table: &str,
    subjects: &[Subject],
    behind: &mut Behind,
) -> io::Result<Vec<Row>> {
    let loads = [
        ("alone", Beside { streams: false, churn: false }),
        ("beside 16 streams", Beside { streams: true, churn: false }),
    ];
    rows(bench, table, subjects, &loads, Some(behind))
}

fn rows(
    bench: &Bench,
    table: &str,
    subjects: &[Subject],
    loads: &[(&str, Beside)],
    mut behind: Option<&mut Behind>,
) -> io::Result<Vec<Row>> {
    let names: Vec<String> = subjects.iter().map(|subject| subject.name.clone()).collect();
    let (messages, rounds) = if bench.quick { (500, 3) } else { (2000, 9) };
    let is_relayed = behind.is_some();
    let mut rows = Vec::new();
    for &(name, beside) in loads {
        bench.progress.load(&format!("{table}, {name}"));
        let figures = bench.some_rounds(rounds, subjects, |server| {
            let addr = server.addr("echo")?;
            measure(addr, server.pid(), beside, messages, behind.as_deref_mut())
        })?;
        let mut add = |what: &str, unit, figure: fn(&Latency) -> f64, goal| {
            let of: Vec<Vec<f64>> =
                figures.iter().map(|round| round.iter().map(figure).collect()).collect();
            let load = format!("{what}{name}");
            let goal = if is_relayed { Goal::Open } else { goal };
            rows.push(Row::of_rounds((table, &load, unit, 1.0), &names, &of, 1, goal));
        };
        let is_alone = !beside.streams && !beside.churn;
        let third = if is_alone { Goal::Open } else { Goal::Ratio(0.33) };
        add("p50, ", "us", |it| it.p50, third);
        add("p99, ", "us", |it| it.p99, third);
        add("p99.9, ", "us", |it| it.p999, if is_alone { Goal::Open } else { Goal::Ratio(1.0) });
        if beside.streams {
            add("the streams together, ", "GB/s", |it| it.throughput, Goal::AtLeast(1.0));
        }
        // socat does its work in other processes.
        if !is_relayed {
            add("the server's share of its CPU, ", "%", |it| it.busy * 100.0, Goal::Open);
        }
    }
    Ok(rows)
}

/// Compares values of `Limits` in the library: `read_buffer`, `fresh_budget` and `leftover_budget`, in
/// KiB.
pub fn limits(bench: &Bench, candidates: &[[usize; 3]]) -> io::Result<Vec<Row>> {
    let mut subjects = vec![bench.plain()];
    for values in candidates {
        let words: Vec<String> = values.iter().map(usize::to_string).collect();
        let name = format!("read {} KiB, budgets {} and {} KiB", values[0], values[1], values[2]);
        let command =
            [vec![crate::measure::this_program(), "serve-library".into()], words].concat();
        subjects.push(Subject::new(&name, command, BOTH));
    }
    let names: Vec<String> = subjects.iter().map(|subject| subject.name.clone()).collect();
    let mut rows = Vec::new();
    bench.progress.section(if bench.quick { 60.0 } else { 400.0 }, 10);
    // A message a little larger than the buffer.
    let above = ("50 KB on 200", Work::echo(200, 1, 50_000, 6_000), "us", 1e3);
    for (name, work, unit, scale) in crate::cpu::LOADS.iter().chain([&above]) {
        bench.progress.load(name);
        let rounds = bench.cpu(&subjects, *work)?;
        rows.push(Row::of_rounds(("limits", name, unit, *scale), &names, &rounds, 0, Goal::Open));
    }
    bench.progress.load("latency beside 16 streams");
    let beside = Beside { streams: true, churn: false };
    let figures = bench.rounds(&subjects, |server| {
        measure(server.addr("echo")?, server.pid(), beside, 500, None)
    })?;
    for (load, unit, figure) in [
        ("p50 beside 16 streams", "us", (|it| it.p50) as fn(&Latency) -> f64),
        ("p99 beside 16 streams", "us", |it| it.p99),
        ("the streams together", "GB/s", |it| it.throughput),
    ] {
        let of: Vec<Vec<f64>> =
            figures.iter().map(|round| round.iter().map(figure).collect()).collect();
        rows.push(Row::of_rounds(("limits", load, unit, 1.0), &names, &of, 0, Goal::Open));
    }
    Ok(rows)
}
