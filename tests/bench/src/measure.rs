//! Servers as child processes, and what the kernel, strace and callgrind say of them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::Instant;

use crate::load::{self, PATIENCE};
use crate::sys;

const SERVER_CPU: usize = 0;
const LOAD_CPU: usize = 1;

/// Whom we measure.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    Ours,
    Plain,
    Lingering,
}

/// How our server is started; the floors are this program itself.
pub struct Bench {
    pub ours: Vec<String>,
    pub quick: bool,
    pub directory: PathBuf,
}

/// A running server. It ends with its owner.
pub struct Server {
    child: Child,
    stdout: Option<BufReader<ChildStdout>>,
    pub daytime: SocketAddr,
    pub echo: Option<SocketAddr>,
}

impl Server {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Bench {
    fn command(&self, subject: Subject) -> Vec<String> {
        let floor = |which: &str| vec![this_program(), "floor".into(), which.into()];
        match subject {
            Subject::Ours => self.ours.clone(),
            Subject::Plain => floor("plain"),
            Subject::Lingering => floor("lingering"),
        }
    }

    /// Starts a server under a tool, or under none, and learns its addresses from its first lines.
    pub fn start(&self, subject: Subject, tool: &[String]) -> io::Result<Server> {
        let words = [tool, &self.command(subject)].concat();
        // A child inherits where its parent may run.
        sys::pin(SERVER_CPU)?;
        let child = Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn();
        sys::pin(LOAD_CPU)?;
        let mut child = child?;
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let daytime = address(&mut stdout, "daytime ");
        let echo = match subject {
            Subject::Lingering => Ok(None),
            _ => address(&mut stdout, "echo ").map(Some),
        };
        match (daytime, echo) {
            (Ok(daytime), Ok(echo)) => Ok(Server { child, stdout: Some(stdout), daytime, echo }),
            (Err(error), _) | (_, Err(error)) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(io::Error::other(format!("{}: {error}", words.join(" "))))
            }
        }
    }

    /// Server CPU in nanoseconds per unit of work, for each subject in each round. Rounds are short
    /// and many, because other work on the machine comes and goes; every other one goes backwards,
    /// so that nobody always comes first.
    pub fn cpu(&self, subjects: &[Subject], work: Work) -> io::Result<Vec<Vec<f64>>> {
        let rounds = if self.quick { 5 } else { 25 };
        let mut figures = vec![vec![0.0; subjects.len()]; rounds];
        for (at, round) in figures.iter_mut().enumerate() {
            for turn in 0..subjects.len() {
                let which = if at % 2 == 0 { turn } else { subjects.len() - 1 - turn };
                round[which] = self.start(subjects[which], &[])?.cpu_of(work)?;
            }
        }
        Ok(figures)
    }

    /// Which system calls, and how many of them failed, more of the same unit of work brings: the
    /// difference of two runs, for one unit.
    pub fn calls(&self, subject: Subject, unit: Unit) -> io::Result<Calls> {
        let (few, many) = (100, 1100);
        let mut counts = Vec::new();
        for count in [few, many] {
            let file = self.directory.join(format!("calls.{count}"));
            // Left over from an earlier run.
            let _ = fs::remove_file(&file);
            // As a grandchild (-D) strace leaves the server our child, which we may signal.
            let mut tool: Vec<String> = ["strace", "-D", "-f", "-o"].map(String::from).into();
            tool.push(file.to_string_lossy().into());
            let server = self.start(subject, &tool)?;
            let pid = server.pid();
            server.step(unit, count)?;
            counts.push(await_calls(&file, pid)?);
        }
        let mut calls = counts.pop().unwrap_or_default();
        for (name, before) in counts.pop().unwrap_or_default() {
            let now = calls.entry(name).or_default();
            now.0 -= before.0;
            now.1 -= before.1;
        }
        for count in calls.values_mut() {
            count.0 /= f64::from(many as u32 - few as u32);
            count.1 /= f64::from(many as u32 - few as u32);
        }
        Ok(calls)
    }

    /// User-space instructions of one more unit of work: the difference of two runs.
    pub fn instructions(&self, subject: Subject, unit: Unit, name: &str) -> io::Result<f64> {
        let lengths = if self.quick { [500, 2500] } else { [2000, 12_000] };
        let mut totals = Vec::new();
        for count in lengths {
            let file = self.directory.join(format!("callgrind.{name}.{count}"));
            let tool = [
                "valgrind".into(),
                "--quiet".into(),
                "--tool=callgrind".into(),
                format!("--callgrind-out-file={}", file.display()),
            ];
            self.start(subject, &tool)?.step(unit, count)?;
            totals.push(parse_total(&file)?);
        }
        Ok((totals[1] - totals[0]) / (lengths[1] - lengths[0]) as f64)
    }
}

/// A load, with its amount.
#[derive(Clone, Copy)]
pub enum Work {
    Echo {
        connections: usize,
        /// Messages in flight on each connection, written at once.
        flight: usize,
        size: usize,
        messages: usize,
    },
    Stream {
        bytes: usize,
    },
    Daytime {
        connections: usize,
    },
}

impl Work {
    fn units(&self) -> usize {
        match *self {
            Work::Echo { messages: amount, .. }
            | Work::Stream { bytes: amount }
            | Work::Daytime { connections: amount } => amount,
        }
    }
}

/// What is counted one by one.
#[derive(Clone, Copy)]
pub enum Unit {
    /// 64 bytes of the only connection: each has a turn of the loop to itself.
    Message,
    /// 64 bytes of one of a hundred connections, which share their turns.
    MessageOfMany,
    /// The only daytime connection, with two turns to itself.
    Connection,
    /// One of 16 daytime connections.
    ConnectionOfMany,
}

/// The name of an `epoll_ctl` that changes nothing, and is told of what is there already.
pub const REARM: &str = "epoll_ctl, again";

/// For each system call how often it was made, and how often it failed.
pub type Calls = BTreeMap<String, (f64, f64)>;

impl Server {
    fn echo(&self) -> io::Result<SocketAddr> {
        self.echo.ok_or_else(|| io::Error::other("this floor has no echo"))
    }

    /// Does a tenth of the work to get warm, then the work, and looks what that took.
    fn cpu_of(self, work: Work) -> io::Result<f64> {
        let mut run: Box<dyn FnMut(usize) -> io::Result<()>> = match work {
            Work::Echo { connections, flight, size, .. } => {
                let mut echo = load::Echo::connect(self.echo()?, connections, flight * size)?;
                Box::new(move |messages| echo.run(messages / flight))
            }
            Work::Stream { .. } => {
                let mut stream: TcpStream = load::connect_stream(self.echo()?)?;
                Box::new(move |bytes| load::stream(&mut stream, bytes))
            }
            Work::Daytime { .. } => {
                let mut daytime = load::Daytime::new(self.daytime);
                Box::new(move |count| daytime.run(count))
            }
        };
        run(work.units() / 10)?;
        let before = sys::cpu_time(self.child.id())?;
        run(work.units())?;
        let spent = sys::cpu_time(self.child.id())? - before;
        Ok(spent.as_nanos() as f64 / work.units() as f64)
    }

    /// Does units of work in step with the server, then ends it in order, so that its tool writes.
    fn step(mut self, unit: Unit, count: usize) -> io::Result<()> {
        match unit {
            Unit::Message => load::echo_in_step(self.echo()?, count, self.child.id())?,
            Unit::MessageOfMany => load::Echo::connect(self.echo()?, 100, 64)?.run(count)?,
            Unit::ConnectionOfMany => load::Daytime::new(self.daytime).run(count)?,
            Unit::Connection => {
                load::Daytime::new(self.daytime).run_in_step(count, self.child.id())?;
            }
        }
        sys::terminate(&self.child);
        // The end of its output is the end of the server and of the tool that shares it.
        let (done, ended) = mpsc::channel();
        let mut stdout = self.stdout.take().expect("it is taken only here");
        std::thread::spawn(move || done.send(stdout.read_to_end(&mut Vec::new())));
        match ended.recv_timeout(PATIENCE) {
            Ok(outcome) => outcome.map(|_| ()),
            Err(_) => Err(io::Error::other("the server does not end on SIGTERM")),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn this_program() -> String {
    let path = std::env::current_exe().expect("a program knows where it is");
    path.to_string_lossy().into()
}

/// Whether a tool can be run here.
pub fn has(tool: &str) -> bool {
    Command::new(tool)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn address(stdout: &mut impl BufRead, name: &str) -> io::Result<SocketAddr> {
    let mut line = String::new();
    stdout.read_line(&mut line)?;
    line.trim_end()
        .strip_prefix(name)
        .and_then(|addr| addr.parse().ok())
        .ok_or_else(|| io::Error::other(format!("no line '{name}ADDR' but '{}'", line.trim_end())))
}

/// Waits for all that strace has to say. It is nobody's child, so that its file must tell when it
/// is done.
fn await_calls(file: &Path, pid: u32) -> io::Result<Calls> {
    let began = Instant::now();
    let end = format!("{pid} +++ ");
    while began.elapsed() < PATIENCE {
        let log = fs::read_to_string(file).unwrap_or_default();
        if log.ends_with('\n') && log.lines().any(|line| line.starts_with(&end)) {
            return Ok(count_calls(&log));
        }
        std::thread::yield_now();
    }
    Err(io::Error::other("strace wrote no end"))
}

/// Counts strace's lines: `pid name(...) = result`. A call during which another thread made one has
/// two: `pid name(... <unfinished ...>` and `pid <... name resumed>...) = result`.
fn count_calls(log: &str) -> Calls {
    let mut calls = Calls::new();
    for line in log.lines() {
        let call = line.split_once(' ').map_or("", |(_, call)| call.trim_start());
        let (name, is_begun) = match call.strip_prefix("<... ") {
            Some(rest) => (rest.split(' ').next(), false),
            None => (call.split_once('(').map(|(name, _)| name), true),
        };
        let Some(name) = name else {
            continue;
        };
        // To ask anew for a listener's event is another thing than to register a connection.
        let is_rearm = name == "epoll_ctl" && call.contains("EPOLL_CTL_MOD");
        let name = if is_rearm { REARM } else { name };
        let counts = calls.entry(name.to_string()).or_default();
        counts.0 += f64::from(u8::from(is_begun));
        counts.1 += f64::from(u8::from(call.contains(" = -1 ")));
    }
    calls
}

fn parse_total(file: &Path) -> io::Result<f64> {
    let text = fs::read_to_string(file)?;
    text.lines()
        .find_map(|line| line.strip_prefix("summary: ").or(line.strip_prefix("totals: ")))
        .and_then(|total| total.trim().parse().ok())
        .ok_or_else(|| io::Error::other("callgrind wrote no summary"))
}

/// Half of the values are below, half above.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
