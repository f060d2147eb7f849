//! The command line and the environment.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use campanile::testing::Fault;
use clap::builder::ArgPredicate;
use clap::{Arg, ArgAction, Args, CommandFactory, Error, FromArgMatches, Parser, Subcommand};

use super::address::{self, Place};
use super::lab;
use super::values::{self, FrozenTime, OrOff, ZoneChoice};

const EXAMPLES: &str = "\
Examples:
  campanile serve                          both services on loopback
  campanile echo -m 'Hello, world'         send it, compare what comes back
  campanile help serve                     every flag of a command";

const SERVE_EXAMPLES: &str = "\
Examples:
  campanile serve                                   loopback, 9999 and 12345
  campanile serve -d 0.0.0.0:13 -e off              daytime, on all of IPv4
  campanile serve -d 0 -e 0 --ready-file ready.txt  free ports, named in a file
  campanile serve -d off -e unix:/run/echo.sock     a Unix socket
  campanile serve --clock 2014-01-29T19:14:15Z --zone utc
  campanile serve --fault 'echo 10%: reset after 5 bytes' --seed 7

ADDR is PORT (on loopback), IP:PORT, [IPV6]:PORT, [IPV6%INTERFACE]:PORT,
HOST:PORT (every address of the name), unix:PATH or off. Port 0 takes any free
port. A Unix socket without a server is taken over, and PATH is removed at the
end. The umask sets its mode: clients need write permission. --max-per-peer does
not apply to its clients, and a reset reaches them as EOF.
T is a duration such as 500ms, 2s or 5m. --idle and --lifetime also take off.
SPEC is SERVICE [every|once|#N|#N..M|P%]: EFFECT [WHEN]. A ; separates several.
WHEN is after N [in], after T, at eof or at write N. Default: at once.

Effects:
  delay T[+-T]  hold each answer back         stall      stop writing
  slice N[/T]   write N bytes, then wait T    deaf       stop reading
  rate N/s      write no faster than that     hold-open  ignore the client's FIN
  short N       write at most N at a time     shut       end our half early
  corrupt       flip one bit                  close      close early, with FIN
  refuse        close the listener            reset      close early, with RST
  never-accept  leave clients in the backlog

--json prints these events: listening, accepted, closed (with all that happened
on the connection), accept_error, fault, wrong_fault, lost (events that stdout
had no room for) and stopped. The sources describe their fields in
tests/schema/events.json.

Every flag can be set in the environment: --ready-file by CAMPANILE_READY_FILE.
An empty value counts as unset. Without -v and -q, RUST_LOG sets the log level.";

const DAYTIME_EXAMPLES: &str = "\
Examples:
  campanile daytime
  campanile daytime time.example.org:13 --timeout 3s
  campanile daytime unix:/run/daytime.sock";

const ECHO_EXAMPLES: &str = "\
Examples:
  campanile echo localhost:12345 -m 'Hello, world'
  head -c 8M /dev/urandom | campanile echo -m - | wc -c";

const CHECK_EXAMPLES: &str = "\
Examples:
  campanile check echo localhost:7777   any server, or a proxy in front of one
  campanile check daytime 13
  campanile check echo --rung 1 7777    rung 1 alone, as the first exercise
  campanile check echo --junit echo.xml 7777

A rung is a small conversation that checks one rule. The rungs are run in order,
up to the first that the server does not reach. Each prints a line when it is
done. The line of a rung that is not reached shows what the client sent, what it
received, which rule the server broke, why that rule matters and its source.

--json prints these events: rung (one each), then checked or check_failed. The
sources describe their fields in tests/schema/events.json.

Exit codes:
  0    every rung reached; with --rung, that rung
  1    cannot connect, or cannot write the results
  3    a rung not reached
  4    a rung not tried: this machine has too few local ports or descriptors
  124  a rung took ten times --timeout, or the whole check took --deadline";

const CHECK_ECHO_RUNGS: &str = "\
Rungs:
  1 one client        4 1 MiB            7 a client that never reads
  2 the next client   5 a slow reader    8 resets, urgent data, 1,000 idle
  3 two at once       6 half-close

'campanile check --help' lists the exit codes.";

const CHECK_DAYTIME_RUNGS: &str = "\
Rungs:
  1 a client that sends nothing    4 100 clients at once
  2 one line, then EOF             5 resets
  3 a client that sends first      6 a client that never closes

'campanile check --help' lists the exit codes.";

/// Tells the time (RFC 867) and gives back the echo (RFC 862)
#[derive(Debug, Parser)]
#[command(name = "campanile", version, after_help = EXAMPLES)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// Parses the command line. Flags of `serve` that it does not set come from the environment.
    pub fn from_args_and_env() -> Result<Cli, Error> {
        let mut command =
            Cli::command().mut_subcommand("serve", |serve| serve.mut_args(or_from_environment));
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

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve daytime and echo from one loop
    Serve(Box<Serve>),
    /// Ask a daytime server for the time
    Daytime(Daytime),
    /// Send to an echo server and compare what comes back
    Echo(Echo),
    /// Check any echo or daytime server, rung by rung
    #[command(subcommand, arg_required_else_help = true)]
    Check(Check),
}

#[derive(Debug, Args)]
#[command(after_help = SERVE_EXAMPLES)]
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

    /// Let N clients wait to be accepted
    #[arg(long, value_name = "N", default_value = "4096", value_parser = values::count_u32)]
    #[arg(help_heading = "Listen")]
    pub backlog: u32,

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
    #[arg(value_parser = lab::fault, help_heading = "Faults")]
    pub fault: Vec<Fault>,

    /// Repeat an earlier run's random choices [default: any]
    #[arg(long, value_name = "N", help_heading = "Faults")]
    pub seed: Option<u64>,

    /// Stop the clock, as at 2014-01-29T19:14:15Z
    #[arg(long, value_name = "TIME", value_parser = values::frozen_time)]
    #[arg(help_heading = "Faults")]
    pub clock: Option<FrozenTime>,

    /// Time zone: local, utc, +HH:MM, -HH:MM
    #[arg(long, default_value = "local", value_parser = values::zone, allow_hyphen_values = true)]
    #[arg(help_heading = "Faults")]
    pub zone: ZoneChoice,

    /// Print events to stdout, one JSON object per line
    #[arg(long, value_parser = values::yes_or_no, help_heading = "Watch")]
    pub json: bool,

    /// Like --json, on free ports. Each line of stdin adds a fault;
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
#[command(after_help = DAYTIME_EXAMPLES)]
pub struct Daytime {
    /// PORT, IP:PORT, [IPV6]:PORT, HOST:PORT or unix:PATH
    #[arg(value_name = "ADDR", default_value = "127.0.0.1:9999", value_parser = address::server)]
    pub addr: Place,

    #[command(flatten)]
    pub client: Client,
}

#[derive(Debug, Args)]
#[command(after_help = ECHO_EXAMPLES)]
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
#[command(after_help = CHECK_EXAMPLES)]
pub enum Check {
    /// An echo server (RFC 862): eight rungs
    #[command(after_help = CHECK_ECHO_RUNGS)]
    Echo(CheckServer<12345, 8>),
    /// A daytime server (RFC 867): six rungs
    #[command(after_help = CHECK_DAYTIME_RUNGS)]
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
