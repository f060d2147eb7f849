//! Servers as child processes, and the figures that the kernel, strace and callgrind give for them.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::load::{self, PATIENCE};
use crate::progress::Progress;
use crate::sys;

const SERVER_CPU: usize = 0;
const LOAD_CPU: usize = 1;

/// A server that is measured: its name in the tables, and how it is started.
#[derive(Clone)]
pub struct Subject {
    pub name: String,
    command: Vec<String>,
    ports: Ports,
}

/// How a server's addresses become known.
#[derive(Clone, Copy)]
enum Ports {
    /// It prints `NAME ADDR` lines in this order.
    Printed(&'static [&'static str]),
    /// It was started with the address of its one service, and takes connections once it is ready.
    Given(SocketAddr),
}

impl Subject {
    pub fn new(name: &str, command: Vec<String>, prints: &'static [&'static str]) -> Subject {
        Subject { name: name.into(), command, ports: Ports::Printed(prints) }
    }

    /// Creates a subject with one service. `command` makes its command from a free port.
    pub fn at_a_port(name: &str, command: impl FnOnce(u16) -> Vec<String>) -> io::Result<Subject> {
        let addr = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let ports = Ports::Given(addr);
        Ok(Subject { name: name.into(), command: command(addr.port()), ports })
    }

    pub fn at_this_port(name: &str, port: u16, command: Vec<String>) -> Subject {
        let ports = Ports::Given(SocketAddr::from(([127, 0, 0, 1], port)));
        Subject { name: name.into(), command, ports }
    }

    /// Creates a subject that this program serves: `bench floor WORDS`.
    pub fn floor(name: &str, words: &[&str], prints: &'static [&'static str]) -> Subject {
        let words = words.iter().map(|word| word.to_string()).collect();
        Subject::new(name, [vec![this_program(), "floor".into()], words].concat(), prints)
    }
}

pub const BOTH: &[&str] = &["daytime", "echo"];

/// How the servers are started. The floors are this program itself.
pub struct Bench {
    pub ours: Vec<String>,
    /// Measured in place of the floors, if there is one.
    pub against: Option<Vec<String>>,
    pub quick: bool,
    pub directory: PathBuf,
    pub progress: Progress,
    /// How often each subject is measured under each load. Odd, so that one of the values is the median.
    pub rounds: Cell<usize>,
}

/// A running server. Dropping it ends the process.
pub struct Server {
    child: Child,
    stdout: Option<BufReader<ChildStdout>>,
    addrs: Vec<(&'static str, SocketAddr)>,
}

impl Server {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the address of a service.
    pub fn addr(&self, service: &str) -> io::Result<SocketAddr> {
        let found = self.addrs.iter().find(|(name, _)| {
            // A relay, and a server with one service, have one address for each load.
            *name == service || ["given", "proxy", "relay"].contains(name)
        });
        found.map(|(_, addr)| *addr).ok_or_else(|| {
            io::Error::other(format!("this server has no {service}: measure another load with it"))
        })
    }

    /// Returns the resident memory in KiB.
    pub fn resident(&self) -> io::Result<f64> {
        status_field(self.pid(), "VmRSS:")
    }

    /// Returns how often the server has gone to sleep.
    pub fn sleeps(&self) -> io::Result<f64> {
        status_field(self.pid(), "voluntary_ctxt_switches:")
    }
}

impl Bench {
    pub fn ours(&self) -> Subject {
        self.ours_with("campanile", &[])
    }

    /// The measured program with further options.
    pub fn ours_with(&self, name: &str, options: &[&str]) -> Subject {
        let options = options.iter().map(|word| word.to_string()).collect();
        Subject::new(name, [self.ours.clone(), options].concat(), BOTH)
    }

    pub fn plain(&self) -> Subject {
        match &self.against {
            Some(against) => Subject::new("other program", against.clone(), BOTH),
            None => Subject::floor("epoll", &["plain"], BOTH),
        }
    }

    pub fn lingering(&self) -> Subject {
        match &self.against {
            Some(against) => Subject::new("other program", against.clone(), BOTH),
            None => Subject::floor("epoll, lingers", &["lingering"], &["daytime"]),
        }
    }

    /// Starts a server under a tool, or under none, and reads its addresses from its first lines.
    pub fn start(&self, subject: &Subject, tool: &[String]) -> io::Result<Server> {
        self.start_on(SERVER_CPU, subject, tool)
    }

    /// Starts a server that is part of the load, and runs on its CPU.
    pub fn start_beside_the_load(&self, subject: &Subject) -> io::Result<Server> {
        self.start_on(LOAD_CPU, subject, &[])
    }

    fn start_on(&self, cpu: usize, subject: &Subject, tool: &[String]) -> io::Result<Server> {
        let words = [tool, &subject.command].concat();
        // A child inherits the CPUs of its parent.
        sys::pin(cpu)?;
        let child = Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn();
        sys::pin(LOAD_CPU)?;
        let failed = |error: io::Error| {
            io::Error::other(format!(
                "cannot measure {}: {}: {error}",
                subject.name,
                words.join(" ")
            ))
        };
        let mut child = child.map_err(failed)?;
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut server = Server { child, stdout: Some(stdout), addrs: Vec::new() };
        match subject.ports {
            Ports::Printed(names) => {
                for name in names {
                    let stdout = server.stdout.as_mut().expect("it was put there above");
                    let addr = address(stdout, name).map_err(failed)?;
                    server.addrs.push((name, addr));
                }
            }
            Ports::Given(addr) => {
                await_port(addr).map_err(failed)?;
                server.addrs.push(("given", addr));
            }
        }
        Ok(server)
    }

    /// Measures each subject in each round. Rounds are short and many, because the load of the
    /// machine changes; every second round goes backwards, so that no subject always comes first.
    pub fn rounds<T>(
        &self,
        subjects: &[Subject],
        measure: impl FnMut(Server) -> io::Result<T>,
    ) -> io::Result<Vec<Vec<T>>> {
        self.some_rounds(self.rounds.get(), subjects, measure)
    }

    /// Measures the rest of this run in at most `most` rounds a load.
    pub fn at_most(&self, most: usize) {
        self.rounds.set(self.rounds.get().min(most));
    }

    pub fn some_rounds<T>(
        &self,
        rounds: usize,
        subjects: &[Subject],
        mut measure: impl FnMut(Server) -> io::Result<T>,
    ) -> io::Result<Vec<Vec<T>>> {
        let mut figures = Vec::new();
        for at in 0..rounds {
            let is_backwards = at % 2 == 1;
            let mut order = subjects.to_vec();
            if is_backwards {
                order.reverse();
            }
            let mut round = Vec::new();
            for (done, subject) in order.iter().enumerate() {
                let done = (at * subjects.len() + done) as f64;
                self.progress.part(done / (rounds * subjects.len()) as f64);
                round.push(measure(self.start(subject, &[])?).map_err(|error| {
                    io::Error::other(format!("the load of {} failed: {error}", subject.name))
                })?);
            }
            if is_backwards {
                round.reverse();
            }
            figures.push(round);
        }
        Ok(figures)
    }

    /// Measures the server's CPU time in nanoseconds per unit of work.
    pub fn cpu(&self, subjects: &[Subject], work: Work) -> io::Result<Vec<Vec<f64>>> {
        let work = match work {
            Work::Stream { .. } if self.quick => work.scaled(0.15),
            _ if self.quick => work.scaled(0.5),
            _ => work,
        };
        self.rounds(subjects, |server| server.cpu_of(work))
    }

    /// Counts the system calls of one unit of work, and how many of them failed: the difference of
    /// two runs, divided by the difference of their lengths.
    pub fn calls(&self, subject: &Subject, unit: Unit) -> io::Result<Calls> {
        let (few, many) = (100, 1100);
        let mut counts = Vec::new();
        for count in [few, many] {
            let file = self.directory.join(format!("calls.{count}"));
            // An earlier run may have left it.
            let _ = fs::remove_file(&file);
            // With -D, strace is the grandchild and the server stays our child, which we signal.
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

    /// Counts the user-space instructions of one unit of work: the difference of two runs, divided
    /// by the difference of their lengths.
    pub fn instructions(&self, subject: &Subject, unit: Unit, name: &str) -> io::Result<f64> {
        let lengths = if self.quick { [500, 2500] } else { [2000, 12_000] };
        let mut totals = Vec::new();
        for count in lengths {
            let file = self.directory.join(format!("callgrind.{}.{name}.{count}", subject.name));
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

/// A load and its amount.
#[derive(Clone, Copy)]
pub enum Work {
    Echo {
        connections: usize,
        /// Messages in flight on each connection, sent in one write.
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
    /// Connections to echo that carry one message each.
    Connections {
        count: usize,
    },
}

impl Work {
    pub const fn echo(connections: usize, flight: usize, size: usize, messages: usize) -> Work {
        Work::Echo { connections, flight, size, messages }
    }

    fn scaled(self, factor: f64) -> Work {
        let less = |amount: usize| (amount as f64 * factor) as usize;
        match self {
            Work::Echo { connections, flight, size, messages } => {
                Work::Echo { connections, flight, size, messages: less(messages) }
            }
            Work::Stream { bytes } => Work::Stream { bytes: less(bytes) },
            Work::Daytime { connections } => Work::Daytime { connections: less(connections) },
            Work::Connections { count } => Work::Connections { count: less(count) },
        }
    }

    pub fn units(&self) -> usize {
        match *self {
            Work::Echo { messages: amount, .. }
            | Work::Stream { bytes: amount }
            | Work::Daytime { connections: amount }
            | Work::Connections { count: amount } => amount,
        }
    }
}

/// The unit of work of a count.
#[derive(Clone, Copy)]
pub enum Unit {
    /// A message of 64 bytes on the only connection: it has a turn of the loop to itself.
    Message,
    /// A message of 64 bytes on one of 100 connections, which share their turns.
    MessageOfMany,
    /// The only daytime connection: it has two turns to itself.
    Connection,
    /// One of 16 daytime connections.
    ConnectionOfMany,
}

/// The name of an `epoll_ctl` that only re-arms a registration.
pub const REARM: &str = "epoll_ctl, again";

/// For each system call: the number of calls and the number of failed calls.
pub type Calls = BTreeMap<String, (f64, f64)>;

impl Server {
    /// Does a tenth of the work as a warm-up, then the work, and returns the CPU time of a unit.
    pub fn cpu_of(self, work: Work) -> io::Result<f64> {
        let mut run: Box<dyn FnMut(usize) -> io::Result<()>> = match work {
            Work::Echo { connections, flight, size, .. } => {
                let mut echo = load::Echo::connect(self.addr("echo")?, connections, flight * size)?;
                Box::new(move |messages| echo.run(messages / flight))
            }
            Work::Stream { .. } => {
                let mut stream = load::connect(self.addr("echo")?)?;
                Box::new(move |bytes| load::stream(&mut stream, bytes))
            }
            Work::Daytime { .. } => {
                let mut daytime = load::Daytime::new(self.addr("daytime")?);
                Box::new(move |count| daytime.run(count))
            }
            Work::Connections { .. } => {
                let mut daytime = load::Daytime::new(self.addr("echo")?);
                Box::new(move |count| daytime.run_echoes(count))
            }
        };
        run(work.units() / 10)?;
        let before = sys::cpu_time_of_all(self.pid())?;
        run(work.units())?;
        let spent = sys::cpu_time_of_all(self.pid())? - before;
        Ok(spent.as_nanos() as f64 / work.units() as f64)
    }

    /// Does `count` units of work, then ends the server with SIGTERM, so that its tool writes its
    /// results.
    fn step(mut self, unit: Unit, count: usize) -> io::Result<()> {
        match unit {
            Unit::Message => load::echo_in_step(self.addr("echo")?, count, self.child.id())?,
            Unit::MessageOfMany => load::Echo::connect(self.addr("echo")?, 100, 64)?.run(count)?,
            Unit::ConnectionOfMany => load::Daytime::new(self.addr("daytime")?).run(count)?,
            Unit::Connection => {
                load::Daytime::new(self.addr("daytime")?).run_in_step(count, self.child.id())?;
            }
        }
        sys::terminate(&self.child);
        // The server and the tool share the pipe: its end means that both have ended.
        let (done, ended) = mpsc::channel();
        let mut stdout = self.stdout.take().expect("it is taken only here");
        std::thread::spawn(move || done.send(stdout.read_to_end(&mut Vec::new())));
        match ended.recv_timeout(PATIENCE) {
            Ok(outcome) => outcome.map(|_| ()),
            Err(_) => Err(io::Error::other("the server still runs after SIGTERM")),
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
    let path =
        std::env::current_exe().expect("/proc is mounted, so the path of this program is known");
    path.to_string_lossy().into()
}

/// Returns whether a tool can be run.
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
    let addr = line.trim_end().strip_prefix(name).and_then(|addr| addr.trim_start().parse().ok());
    addr.ok_or_else(|| {
        io::Error::other(format!("expected a line '{name} ADDR', got '{}'", line.trim_end()))
    })
}

/// Waits until a server takes connections.
fn await_port(addr: SocketAddr) -> io::Result<()> {
    let began = Instant::now();
    loop {
        match TcpStream::connect(addr) {
            Ok(_) => return Ok(()),
            Err(error) if began.elapsed() > PATIENCE => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

pub fn status_field(pid: u32, name: &str) -> io::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
        .ok_or_else(|| io::Error::other(format!("/proc/PID/status has no number behind {name}")))
}

/// Waits until strace has written its last line. strace is no child of this process, so only its file
/// shows that it has ended.
fn await_calls(file: &Path, pid: u32) -> io::Result<Calls> {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        let log = fs::read_to_string(file).unwrap_or_default();
        if reports_the_end(&log, pid) {
            return Ok(count_calls(&log));
        }
        std::thread::yield_now();
    }
    Err(io::Error::other("strace has not reported the end of the server"))
}

/// Returns whether a whole line says that the process has exited or was killed. strace pads a short
/// process id with spaces.
fn reports_the_end(log: &str, pid: u32) -> bool {
    let pid = pid.to_string();
    let is_end = |line: &str| {
        let mut words = line.split_whitespace();
        words.next() == Some(pid.as_str()) && words.next() == Some("+++")
    };
    log.ends_with('\n') && log.lines().any(is_end)
}

/// Counts strace's lines: `pid name(...) = result`. A call that overlaps one of another thread has two
/// lines: `pid name(... <unfinished ...>` and `pid <... name resumed>...) = result`.
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
        // Re-arming a listener is counted apart from registering a connection.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_short_process_id_is_found() {
        for (log, pid) in [
            ("23401 +++ exited with 0 +++\n", 23401),
            ("1116  +++ exited with 0 +++\n", 1116),
            ("7     +++ killed by SIGTERM +++\n", 7),
            ("1116  close(3) = 0\n1116  +++ exited with 0 +++\n", 1116),
        ] {
            assert!(reports_the_end(log, pid), "{log}");
        }
    }

    #[test]
    fn an_unfinished_line_or_another_process_is_no_end() {
        for log in
            ["1116  +++ exited with 0 ++", "111   +++ exited with 0 +++\n", "1116  close(3) = 0\n"]
        {
            assert!(!reports_the_end(log, 1116), "{log}");
        }
    }

    #[test]
    fn a_call_that_another_thread_interrupts_counts_once() {
        let log =
            "1116  recvfrom(5,  <unfinished ...>\n1116  <... recvfrom resumed>) = -1 EAGAIN\n";
        assert_eq!(count_calls(log)["recvfrom"], (1.0, 1.0));
    }
}
