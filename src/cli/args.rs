//! The command line and the environment.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use campanile::testing::Fault;
use clap::builder::ArgPredicate;
use clap::{Arg, ArgAction, Args, CommandFactory, Error, FromArgMatches, Parser, Subcommand};

use super::address::{self, Place};
use super::proxy::{self, Route};
use super::test_setup;
use super::values::{self, FrozenTime, OrOff, ZoneChoice};

/// Tells the time (RFC 867) and gives back the echo (RFC 862)
#[derive(Debug, Parser)]
#[command(name = "campanile", version, after_help = include_str!("help/campanile.txt"))]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// Returns the commands and their arguments.
    pub fn definition() -> clap::Command {
        Cli::command()
            .mut_subcommand("serve", |serve| serve.mut_args(or_from_environment))
            .mut_subcommand("proxy", |proxy| proxy.mut_args(of_proxy))
    }

    /// Parses the command line. Flags of `serve` that it does not set come from the environment.
    pub fn from_args_and_env() -> Result<Cli, Error> {
        let mut command = Cli::definition();
        let matches = command.try_get_matches_from_mut(env::args_os())?;
        Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
    }
}

/// Lets the environment set a flag: `--ready-file` comes from `CAMPANILE_READY_FILE`. An empty value
/// counts as unset.
fn or_from_environment(flag: Arg) -> Arg {
    let Some(name) = flag.get_long() else { return flag };
    let variable = format!("CAMPANILE_{}", name.to_uppercase().replace('-', "_"));
    match env::var_os(&variable) {
        Some(value) if !value.is_empty() => flag.env(variable).hide_env(true),
        _ => flag,
    }
}

/// The flags of `serve` as `proxy` has them: it hides and refuses those of the other services.
fn of_proxy(flag: Arg) -> Arg {
    let fault = "Misbehave on request: 'proxy #3: reset after 5 bytes'";
    let pipe = "Like --json. Each line of stdin adds a fault;\nthe proxy exits when stdin closes";
    let flag = match flag.get_id().as_str() {
        "daytime" | "echo" | "clock" | "zone" | "proxy" => {
            return flag.hide(true).conflicts_with("routes");
        }
        "fault" => flag.help(fault),
        "pipe" => flag.help(pipe),
        // The connections of a client's pool stay open for hours.
        "idle" => flag.default_value("off"),
        _ => flag,
    };
    or_from_environment(flag)
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve daytime and echo from one loop
    Serve(Box<Serve>),
    /// Pass connections on to your server, with faults on request
    Proxy(Box<Proxy>),
    /// Ask a daytime server for the time
    Daytime(Daytime),
    /// Send to an echo server and compare what comes back
    Echo(Echo),
    /// Check any echo or daytime server, rung by rung
    #[command(subcommand, arg_required_else_help = true)]
    Check(Check),
    /// Step through a recording
    Play(Play),
}

#[derive(Debug, Args)]
#[command(after_help = include_str!("help/serve.txt"))]
pub struct Serve {
    /// Serve daytime at these addresses
    #[arg(short, long, value_name = "ADDR", num_args = 1.., value_delimiter = ',')]
    #[arg(default_value = "9999", default_value_if("pipe", ArgPredicate::IsPresent, "0"))]
    #[arg(value_parser = address::listening, help_heading = "Listen")]
    pub daytime: Vec<Place>,

    /// Serve echo at these addresses
    #[arg(short, long, value_name = "ADDR", num_args = 1.., value_delimiter = ',')]
    #[arg(default_value = "12345", default_value_if("pipe", ArgPredicate::IsPresent, "0"))]
    #[arg(value_parser = address::listening, help_heading = "Listen")]
    pub echo: Vec<Place>,

    /// Pass connections on: 'db=6380>127.0.0.1:6379'
    #[arg(long, value_name = "ROUTE", num_args = 1.., value_parser = proxy::route)]
    #[arg(help_heading = "Listen")]
    pub proxy: Vec<Route>,

    /// Let N clients wait to be accepted
    #[arg(long, value_name = "N", default_value = "4096", value_parser = values::count_u32)]
    #[arg(help_heading = "Listen")]
    pub backlog: u32,

    /// Share TCP ports with processes that set it, too
    #[arg(long, value_parser = values::yes_or_no, help_heading = "Listen")]
    pub reuse_port: bool,

    /// Write the addresses here once all of them are bound
    #[arg(long, value_name = "PATH", help_heading = "Listen")]
    pub ready_file: Option<PathBuf>,

    /// Open connections; more wait [default: 10000]
    #[arg(long, value_name = "N", value_parser = values::count, help_heading = "Limits")]
    pub max_connections: Option<usize>,

    /// Open connections from one IP address
    #[arg(long, value_name = "N", default_value = "off", value_parser = values::count_or_off)]
    #[arg(help_heading = "Limits")]
    pub max_per_peer: OrOff<usize>,

    /// Reset connections idle for T
    #[arg(long, value_name = "T", default_value = "5m", value_parser = values::length_or_off)]
    #[arg(help_heading = "Limits")]
    pub idle: OrOff<Duration>,

    /// Wait T for a client's FIN after ours
    #[arg(long, value_name = "T", default_value = "2s", value_parser = values::length)]
    #[arg(help_heading = "Limits")]
    pub linger: Duration,

    /// Reset connections open for T
    #[arg(long, value_name = "T", default_value = "off", value_parser = values::length_or_off)]
    #[arg(help_heading = "Limits")]
    pub lifetime: OrOff<Duration>,

    /// At the end, wait T for conversations
    #[arg(long, value_name = "T", default_value = "5s", value_parser = values::length_or_zero)]
    #[arg(help_heading = "Limits")]
    pub grace: Duration,

    /// Misbehave on request: 'echo #3: reset after 5 bytes'
    #[arg(long, value_name = "SPEC", num_args = 1.., value_delimiter = ';')]
    #[arg(value_parser = test_setup::fault, help_heading = "Faults")]
    pub fault: Vec<Fault>,

    /// Repeat an earlier run's random choices [default: any]
    #[arg(long, value_name = "N", help_heading = "Faults")]
    pub seed: Option<u64>,

    /// A `once` fault waits for the first byte of a connection
    #[arg(long, value_parser = values::yes_or_no, help_heading = "Faults")]
    pub ignore_probes: bool,

    /// Stop the clock, as at 2014-01-29T19:14:15Z
    #[arg(long, value_name = "TIME", value_parser = values::frozen_time)]
    #[arg(help_heading = "Faults")]
    pub clock: Option<FrozenTime>,

    /// Time zone: local, utc, +HH:MM, -HH:MM
    #[arg(long, default_value = "local", value_parser = values::zone, allow_hyphen_values = true)]
    #[arg(help_heading = "Faults")]
    pub zone: ZoneChoice,

    /// Let time pass only on the command `advance T` of --pipe
    #[arg(long, value_parser = values::yes_or_no, help_heading = "Faults")]
    pub manual_time: bool,
    /// Record what the loop does, for `campanile play FILE`
    #[arg(long, value_name = "FILE", help_heading = "Watch")]
    pub record: Option<PathBuf>,

    /// Record the first N bytes each way, too
    #[arg(long, value_name = "N", default_value = "off", value_parser = values::count_or_off)]
    #[arg(help_heading = "Watch")]
    pub record_bytes: OrOff<usize>,

    /// Print events to stdout, one JSON object per line
    #[arg(long, value_parser = values::yes_or_no, help_heading = "Watch")]
    pub json: bool,

    /// Like --json, on free ports. Takes commands on stdin;
    /// the server exits when stdin closes
    #[arg(long, value_parser = values::yes_or_no, help_heading = "Watch", verbatim_doc_comment)]
    pub pipe: bool,

    /// Log the end of each connection; -vv logs everything
    #[arg(short, long, action = ArgAction::Count, value_parser = values::verbosity)]
    #[arg(help_heading = "Watch")]
    pub verbose: u8,

    /// Log errors only
    #[arg(short, long, value_parser = values::yes_or_no, help_heading = "Watch")]
    pub quiet: bool,
}

#[derive(Debug, Args)]
#[command(after_help = include_str!("help/proxy.txt"))]
pub struct Proxy {
    /// LISTEN UPSTREAM, or routes: 'NAME=LISTEN>UPSTREAM'
    #[arg(value_name = "ROUTE", num_args = 1.., required = true)]
    pub routes: Vec<String>,

    #[command(flatten)]
    pub serve: Serve,
}

/// Flags of the clients and of the check.
#[derive(Debug, Args)]
pub struct Client {
    /// Fail after T without an answer
    #[arg(long, value_name = "T", default_value = "10s", value_parser = values::length)]
    pub timeout: Duration,

    /// Fail after T in total [default: 60s; off for check, -m -]
    #[arg(long, value_name = "T", value_parser = values::length_or_off)]
    pub deadline: Option<OrOff<Duration>>,

    /// Print JSON instead of text, one object per line
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = include_str!("help/daytime.txt"))]
pub struct Daytime {
    /// PORT, IP:PORT, [IPV6]:PORT, HOST:PORT or unix:PATH
    #[arg(value_name = "ADDR", default_value = "127.0.0.1:9999", value_parser = address::server)]
    pub addr: Place,

    #[command(flatten)]
    pub client: Client,
}

#[derive(Debug, Args)]
#[command(after_help = include_str!("help/echo.txt"))]
pub struct Echo {
    /// PORT, IP:PORT, [IPV6]:PORT, HOST:PORT or unix:PATH
    #[arg(value_name = "ADDR", default_value = "127.0.0.1:12345", value_parser = address::server)]
    pub addr: Place,

    /// Send this; - for stdin to stdout
    #[arg(short, long, value_name = "TEXT", default_value = "Hello, world")]
    #[arg(allow_hyphen_values = true)]
    pub message: OsString,

    #[command(flatten)]
    pub client: Client,
}

#[derive(Debug, Subcommand)]
#[command(after_help = include_str!("help/check.txt"))]
pub enum Check {
    /// An echo server (RFC 862): eight rungs
    #[command(after_help = include_str!("help/check_echo.txt"))]
    Echo(CheckServer<12345, 8>),
    /// A daytime server (RFC 867): six rungs
    #[command(after_help = include_str!("help/check_daytime.txt"))]
    Daytime(CheckServer<9999, 6>),
}

/// A server at `PORT` unless an address is given, and a ladder with `RUNGS` rungs.
#[derive(Debug, Args)]
pub struct CheckServer<const PORT: u16, const RUNGS: usize> {
    /// PORT, IP:PORT, [IPV6]:PORT, HOST:PORT or unix:PATH
    #[arg(value_name = "ADDR", default_value = format!("127.0.0.1:{PORT}"))]
    #[arg(value_parser = address::server)]
    pub addr: Place,

    #[arg(long, value_name = "N", value_parser = values::rung::<RUNGS>)]
    #[arg(help = format!("Climb this rung alone, from 1 to {RUNGS}"))]
    pub rung: Option<usize>,

    /// Write the results to this file, as JUnit XML
    #[arg(long, value_name = "OUT")]
    pub junit: Option<PathBuf>,

    #[command(flatten)]
    pub client: Client,
}

#[derive(Debug, Args)]
#[command(after_help = include_str!("help/play.txt"))]
pub struct Play {
    /// A file that serve --record has written
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,

    /// Write a page for a browser; it can hold several files
    #[arg(long, value_name = "OUT")]
    pub html: Option<PathBuf>,

    /// Write a trace for ui.perfetto.dev
    #[arg(long, value_name = "OUT")]
    pub perfetto: Option<PathBuf>,
}
