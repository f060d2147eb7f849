//! Starts the processes, disturbs them, samples the server and prints the verdict.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use crate::chart;
use crate::guests::{Circle, Services, Way, visit};
use crate::random::Random;
use crate::report::{Report, Sample};
use crate::roles::{self, Party};

/// Loads a server with every kind of client at once and checks every byte.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Args {
    /// How long to run
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// File for the chart of memory and descriptors [default: soak.svg beside this program]
    #[arg(long)]
    svg: Option<PathBuf>,
    /// Seed of all random choices: the same seed makes the same choices
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(subcommand)]
    role: Option<Role>,
}

/// The roles of the processes that the soak starts.
#[derive(Subcommand)]
#[command(hide = true)]
enum Role {
    #[command(hide = true)]
    Serve,
    #[command(hide = true)]
    Guests { party: Party, daytime: std::net::SocketAddr, echo: std::net::SocketAddr, seed: u64 },
}

pub fn main() -> ExitCode {
    let args = Args::parse();
    let done = match args.role {
        None => soak(&args),
        Some(Role::Serve) => roles::serve().map(|()| true).map_err(Into::into),
        Some(Role::Guests { party, daytime, echo, seed }) => {
            let at = Services { daytime, echo };
            roles::be_guests(party, at, seed).map(|()| true).map_err(Into::into)
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

const TENTH: Duration = Duration::from_millis(100);
/// Tenths of a second to wait for a process before giving up.
const TENTHS: u32 = 300;

/// A process of this program in another role. Dropping it kills the process if it still runs.
struct Player {
    child: Child,
    reader: Option<JoinHandle<()>>,
}

impl Player {
    fn start(words: &[String]) -> std::io::Result<(Player, BufReader<ChildStdout>)> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        Ok((Player { child, reader: None }, stdout))
    }

    fn guests(
        party: Party,
        at: Services,
        seed: u64,
        news: &Sender<String>,
    ) -> std::io::Result<Player> {
        let name = party.to_possible_value().expect("a name").get_name().to_owned();
        let words =
            ["guests".into(), name, at.daytime.to_string(), at.echo.to_string(), seed.to_string()];
        let (mut player, stdout) = Player::start(&words)?;
        let news = news.clone();
        player.reader = Some(thread::spawn(move || {
            stdout.lines().map_while(Result::ok).for_each(|line| drop(news.send(line)));
        }));
        Ok(player)
    }

    fn signal(&self, signal: i32) {
        // SAFETY: kill(2) reads its two numbers and nothing else.
        unsafe { libc::kill(self.child.id() as libc::pid_t, signal) };
    }

    /// Closes the stdin of the process and returns whether it then exits with 0.
    fn end(mut self) -> std::io::Result<bool> {
        drop(self.child.stdin.take());
        for _ in 0..TENTHS {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status.success());
            }
            thread::sleep(TENTH);
        }
        Ok(false)
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = self.reader.take().map(JoinHandle::join);
    }
}

/// The server process and its stdout.
struct Server {
    player: Player,
    said: BufReader<ChildStdout>,
    at: Services,
}

impl Server {
    fn start() -> Result<Server, Box<dyn Error>> {
        let (player, mut said) = Player::start(&["serve".into()])?;
        let mut line = String::new();
        said.read_line(&mut line)?;
        let (daytime, echo) = line
            .trim()
            .split_once(' ')
            .ok_or("no address from the server: run `soak serve` to see why")?;
        let at = Services { daytime: daytime.parse()?, echo: echo.parse()? };
        // Descriptors that the server opens once are open after the first conversations.
        for way in [Way::Ask, Way::Talk] {
            visit(way, at, &mut Random::new(0), &Circle::new())?;
        }
        Ok(Server { player, said, at })
    }

    fn sample(&self, second: u64) -> std::io::Result<Sample> {
        Sample::of(self.player.child.id(), second)
    }

    /// Waits until no client is connected and takes a sample. `None` if a connection stays open.
    fn at_rest(&mut self, second: u64) -> Result<Option<Sample>, Box<dyn Error>> {
        for _ in 0..TENTHS {
            self.player.child.stdin.as_mut().ok_or("no stdin")?.write_all(b"?\n")?;
            let mut line = String::new();
            self.said.read_line(&mut line)?;
            if line.trim() == "0 0 0" {
                return Ok(Some(self.sample(second)?));
            }
            thread::sleep(TENTH);
        }
        Ok(None)
    }
}

fn soak(args: &Args) -> Result<bool, Box<dyn Error>> {
    let mut server = Server::start()?;
    let mut report = Report { before: server.at_rest(0)?, ..Report::default() };
    watch(args, &server, &mut report)?;
    report.after = server.at_rest(report.samples.len() as u64)?;
    if !server.player.end()? {
        report.wrong.push("the server did not exit with 0 after EOF".into());
    }
    let beside = || std::env::current_exe().map(|program| program.with_file_name("soak.svg"));
    let svg = args.svg.clone().map_or_else(beside, Ok)?;
    chart::draw(&report.samples, &svg)?;
    println!("{report}\nchart            {}", svg.display());
    let verdict = report.verdict();
    verdict.iter().for_each(|wrong| println!("WRONG: {wrong}"));
    Ok(verdict.is_empty())
}

/// Starts the clients. Then, every second, disturbs a process and samples the server.
fn watch(args: &Args, server: &Server, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let (news, lines) = mpsc::channel();
    let mut random = Random::new(args.seed);
    let parties =
        [Party::Churn, Party::Churn, Party::Firehoses, Party::SlowReaders, Party::Pingers];
    let start = |party, seed| Player::guests(party, server.at, seed, &news);
    let mut players = Vec::new();
    for party in parties {
        players.push(start(party, random.next())?);
    }
    let seconds = (args.minutes * 60.0).ceil().max(1.0) as u64;
    let style = "{bar:30} {elapsed}/{eta} {wide_msg}";
    let bar = ProgressBar::new(seconds).with_style(ProgressStyle::with_template(style)?);
    let began = Instant::now();
    for second in 1..=seconds {
        // A killed process is started again.
        if let Some(victim) = trouble(server, &mut random, report) {
            players[victim] = start(parties[victim], random.next())?;
        }
        thread::sleep(
            (began + Duration::from_secs(second)).saturating_duration_since(Instant::now()),
        );
        let sample = server.sample(second)?;
        report.samples.push(sample);
        tally(&lines, report);
        let (connections, gibibytes) = (report.connections(), report.gibibytes());
        bar.set_message(format!(
            "{connections} connections, {gibibytes:.1} GiB, RSS {} KiB, {} descriptors",
            sample.rss_kib, sample.descriptors
        ));
        bar.inc(1);
        if !report.wrong.is_empty() {
            break;
        }
    }
    bar.finish_and_clear();
    for player in players {
        if !player.end()? {
            report.wrong.push("a client did not exit with 0 after EOF".into());
        }
    }
    tally(&lines, report);
    Ok(())
}

fn tally(lines: &Receiver<String>, report: &mut Report) {
    for line in lines.try_iter() {
        let mut words = line.split(' ');
        let way = words.next().unwrap_or_default();
        if way == "wrong" {
            report.wrong.push(line);
            continue;
        }
        // The last line of a killed process can be incomplete.
        let mut number = || words.next()?.parse::<u64>().ok();
        if let (Some(visits), Some(bytes)) = (number(), number()) {
            let sum = report.visits.entry(way.to_owned()).or_default();
            *sum = (sum.0 + visits, sum.1 + bytes);
        }
    }
}

/// The disturbance of one second. Returns the process to kill, if it is a kill.
fn trouble(server: &Server, random: &mut Random, report: &mut Report) -> Option<usize> {
    let (name, victim) = match random.below(4) {
        0 => {
            server.player.signal(libc::SIGSTOP);
            thread::sleep(Duration::from_millis(random.below(300) as u64));
            server.player.signal(libc::SIGCONT);
            ("stopped, went on", None)
        }
        1 => {
            for _ in 0..500 {
                server.player.signal(random.pick(&[libc::SIGUSR1, libc::SIGWINCH, libc::SIGCHLD]));
            }
            ("signal storms", None)
        }
        2 => ("guests killed", Some(random.below(4))),
        _ => ("quiet seconds", None),
    };
    *report.trouble.entry(name).or_default() += 1;
    victim
}
