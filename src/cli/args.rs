//! What can be said on the command line, and in the environment.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use campanile::testing::Fault;
use clap::builder::ArgPredicate;
use clap::{ArgAction, Args, Parser, Subcommand};

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
  campanile serve                                    127.0.0.1, ports 9999 and 12345
  campanile serve -d 0.0.0.0:13 -e off               daytime only, for everybody
  campanile serve -d 0 -e 0 --ready-file ready.txt   any free ports, told in a file
  campanile serve --clock 2014-01-29T19:14:15Z --zone utc
  campanile serve --fault 'echo 10%: reset after 5 bytes' --seed 7

An ADDR is a PORT (of loopback), IP:PORT, [IPV6]:PORT, HOST:PORT (every address it has) or off.
A T is a length of time such as 500ms, 2s or 5m.
A SPEC is SERVICE [every|once|#N|#N..M|P%]: EFFECT [after N [in]|after T|at eof|at write N].

Effects:
  delay T[+-T]  each answer waits           stall      nothing is said any more
  slice N[/T]   said in slivers of N bytes  deaf       nothing is read any more
  rate N/s      a trickle                   hold-open  EOF is not answered with EOF
  short N       our own writes are short    shut       our half ends early
  corrupt       one bit is wrong            close      the conversation ends early
  refuse        the port is closed          reset      the same, by RST
  never-accept  connected, and unheard

Events of --json: listening, accepted, closed (its whole ledger), accept_error, fault, wrong_fault,
lost (events that stdout had no room for) and stopped; their fields are in tests/schema/events.json
of the sources.

Each flag also comes from the environment: --ready-file as CAMPANILE_READY_FILE, and so on.
RUST_LOG is heard where neither -v nor -q is given.";

const DAYTIME_EXAMPLES: &str = "\
Examples:
  campanile daytime
  campanile daytime time.example.org:13 --timeout 3s";

const ECHO_EXAMPLES: &str = "\
Examples:
  campanile echo localhost:12345 -m 'Hello, world'
  head -c 8M /dev/urandom | campanile echo -m - | wc -c";

const CHECK_EXAMPLES: &str = "\
Examples:
  campanile check echo localhost:7777      any server, in any language, or a proxy before one
  campanile check daytime 13
  campanile check echo --rung 1 7777       an exercise: climb only up to rung 1, then up to rung 2 ...

The climb ends at the first rung that is not reached, and the table says what was sent, what came and
which rule that breaks.
Exit code: 0 if every rung was reached, or every rung up to --rung; 3 if one was not; 1 if nobody is there.";

const CHECK_ECHO_RUNGS: &str = "\
Rungs:
  1 one client       2 the next client      3 two at once     4 1 MiB
  5 a slow reader    6 half-close           7 a client that never reads
  8 resets, an urgent byte, 1,000 idle

Exit code: 0 if every rung up to --rung was reached, 3 if one was not, 1 if nobody is there.";

const CHECK_DAYTIME_RUNGS: &str = "\
Rungs:
  1 said without being asked    2 one line, then EOF    3 a client that talks first
  4 many at once                5 resets                6 a client that never closes

Exit code: 0 if every rung up to --rung was reached, 3 if one was not, 1 if nobody is there.";

/// Tells the time (RFC 867) and gives back the echo (RFC 862)
#[derive(Debug, Parser)]
#[command(name = "campanile", version, after_help = EXAMPLES)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve daytime and echo from one loop
    Serve(Box<Serve>),
    /// Ask a daytime server for the time
    Daytime(Daytime),
    /// Send to an echo server and compare what comes back
    Echo(Echo),
    /// Put any server on the ladder: which rules does it keep, and where does it stop?
    #[command(subcommand, arg_required_else_help = true)]
    Check(Check),
}

#[derive(Debug, Args)]
#[command(after_help = SERVE_EXAMPLES)]
pub struct Serve {
    /// Where to serve daytime
    #[arg(short, long, value_name = "ADDR", num_args = 1.., value_delimiter = ',')]
    #[arg(default_value = "9999", default_value_if("pipe", ArgPredicate::IsPresent, "0"))]
    #[arg(value_parser = address::listening)]
    #[arg(env = "CAMPANILE_DAYTIME", hide_env = true, help_heading = "Listen")]
    pub daytime: Vec<Place>,

    /// Where to serve echo
    #[arg(short, long, value_name = "ADDR", num_args = 1.., value_delimiter = ',')]
    #[arg(default_value = "12345", default_value_if("pipe", ArgPredicate::IsPresent, "0"))]
    #[arg(value_parser = address::listening)]
    #[arg(env = "CAMPANILE_ECHO", hide_env = true, help_heading = "Listen")]
    pub echo: Vec<Place>,

    /// Clients that may wait to be accepted
    #[arg(long, value_name = "N", default_value = "4096", value_parser = values::count_u32)]
    #[arg(env = "CAMPANILE_BACKLOG", hide_env = true, help_heading = "Listen")]
    pub backlog: u32,

    /// Write the address lines here once all are bound
    #[arg(long, value_name = "PATH")]
    #[arg(env = "CAMPANILE_READY_FILE", hide_env = true, help_heading = "Listen")]
    pub ready_file: Option<PathBuf>,

    /// Connections at once; beyond it clients wait [default: 10000]
    #[arg(long, value_name = "N", value_parser = values::count)]
    #[arg(env = "CAMPANILE_MAX_CONNECTIONS", hide_env = true, help_heading = "Bound")]
    pub max_connections: Option<usize>,

    /// Connections at once of one address; beyond it that peer is refused
    #[arg(long, value_name = "N", default_value = "off", value_parser = values::count_or_off)]
    #[arg(env = "CAMPANILE_MAX_PER_PEER", hide_env = true, help_heading = "Bound")]
    pub max_per_peer: OrOff<usize>,

    /// Reset who moves no byte for this long, or off
    #[arg(long, value_name = "T", default_value = "5m", value_parser = values::length_or_off)]
    #[arg(env = "CAMPANILE_IDLE", hide_env = true, help_heading = "Bound")]
    pub idle: OrOff<Duration>,

    /// Wait this long for a client to end its half after ours
    #[arg(long, value_name = "T", default_value = "2s", value_parser = values::length)]
    #[arg(env = "CAMPANILE_LINGER", hide_env = true, help_heading = "Bound")]
    pub linger: Duration,

    /// Time for conversations to finish after a signal; 0 for none
    #[arg(long, value_name = "T", default_value = "5s", value_parser = values::length_or_zero)]
    #[arg(env = "CAMPANILE_GRACE", hide_env = true, help_heading = "Bound")]
    pub grace: Duration,

    /// Go wrong as asked: 'echo #3: reset after 5 bytes'; several are separated by ;
    #[arg(long, value_name = "SPEC", num_args = 1.., value_delimiter = ';')]
    #[arg(value_parser = lab::fault)]
    #[arg(env = "CAMPANILE_FAULT", hide_env = true, help_heading = "Break")]
    pub fault: Vec<Fault>,

    /// Draw what is left to chance from this number [default: any]
    #[arg(long, value_name = "N")]
    #[arg(env = "CAMPANILE_SEED", hide_env = true, help_heading = "Break")]
    pub seed: Option<u64>,

    /// Let the wall clock stand still, as at 2014-01-29T19:14:15Z
    #[arg(long, value_name = "TIME", value_parser = values::frozen_time)]
    #[arg(env = "CAMPANILE_CLOCK", hide_env = true, help_heading = "Time")]
    pub clock: Option<FrozenTime>,

    /// The zone of the time told: local, utc, +HH:MM or -HH:MM
    #[arg(long, default_value = "local", value_parser = values::zone, allow_hyphen_values = true)]
    #[arg(env = "CAMPANILE_ZONE", hide_env = true, help_heading = "Time")]
    pub zone: ZoneChoice,

    /// Tell what happens on stdout, one JSON object a line
    #[arg(long, value_parser = values::yes_or_no)]
    #[arg(env = "CAMPANILE_JSON", hide_env = true, help_heading = "Watch")]
    pub json: bool,

    /// The same on any free ports; take a SPEC from each line of stdin, and end when it ends
    #[arg(long, value_parser = values::yes_or_no)]
    #[arg(env = "CAMPANILE_PIPE", hide_env = true, help_heading = "Watch")]
    pub pipe: bool,

    /// Say more: every connection's end, twice: everything
    #[arg(short, long, action = ArgAction::Count, value_parser = values::verbosity)]
    #[arg(env = "CAMPANILE_VERBOSE", hide_env = true, help_heading = "Watch")]
    pub verbose: u8,

    /// Say errors only
    #[arg(short, long, value_parser = values::yes_or_no)]
    #[arg(env = "CAMPANILE_QUIET", hide_env = true, help_heading = "Watch")]
    pub quiet: bool,
}

/// What the clients know, and a check.
#[derive(Debug, Args)]
pub struct Client {
    /// For connecting, and for the server's silence
    #[arg(long, value_name = "T", default_value = "10s", value_parser = values::length)]
    pub timeout: Duration,

    /// Print one JSON object instead
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = DAYTIME_EXAMPLES)]
pub struct Daytime {
    /// PORT (of loopback), IP:PORT, [IPV6]:PORT or HOST:PORT
    #[arg(value_name = "ADDR", default_value = "127.0.0.1:9999", value_parser = address::server)]
    pub addr: Place,

    #[command(flatten)]
    pub client: Client,
}

#[derive(Debug, Args)]
#[command(after_help = ECHO_EXAMPLES)]
pub struct Echo {
    /// PORT (of loopback), IP:PORT, [IPV6]:PORT or HOST:PORT
    #[arg(value_name = "ADDR", default_value = "127.0.0.1:12345", value_parser = address::server)]
    pub addr: Place,

    /// What to send; - streams stdin to stdout
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
    Echo(CheckEcho),
    /// A daytime server (RFC 867): six rungs
    Daytime(CheckDaytime),
}

#[derive(Debug, Args)]
#[command(after_help = CHECK_ECHO_RUNGS)]
pub struct CheckEcho {
    /// PORT (of loopback), IP:PORT, [IPV6]:PORT or HOST:PORT
    #[arg(value_name = "ADDR", default_value = "127.0.0.1:12345", value_parser = address::server)]
    pub addr: Place,

    /// Climb only up to this rung, from 1 to 8
    #[arg(long, value_name = "N", value_parser = values::rung::<8>)]
    pub rung: Option<usize>,

    #[command(flatten)]
    pub client: Client,
}

#[derive(Debug, Args)]
#[command(after_help = CHECK_DAYTIME_RUNGS)]
pub struct CheckDaytime {
    /// PORT (of loopback), IP:PORT, [IPV6]:PORT or HOST:PORT
    #[arg(value_name = "ADDR", default_value = "127.0.0.1:9999", value_parser = address::server)]
    pub addr: Place,

    /// Climb only up to this rung, from 1 to 6
    #[arg(long, value_name = "N", value_parser = values::rung::<6>)]
    pub rung: Option<usize>,

    #[command(flatten)]
    pub client: Client,
}
