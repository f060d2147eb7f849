//! The ladder: which rules anybody's server keeps, seen from outside, and where it stops.
//!
//! ```
//! use campanile::testing::{TestServer, check::Ladder};
//!
//! let server = TestServer::start();
//! server.fault("echo: corrupt after 1000 bytes");
//! let report = Ladder::echo(server.echo().addr()).climb(|_| {})?;
//! assert_eq!(report.reached(), 3);
//! let (rung, failure) = report.stopped().unwrap();
//! assert_eq!((rung.name, failure.rule), ("1 MiB", "E1"));
//! println!("{report}");
//! # Ok::<(), campanile::testing::check::Error>(())
//! ```
//!
//! Each rung is a small conversation, or some at once, and the climb ends at the first that goes
//! wrong: the rungs above stand on those below.
//!
#![doc = include_str!("check/tables.md")]

mod caller;
mod daytime;
mod echo;
mod lab;
mod memory;
mod plan;
mod report;
mod urgent;

use std::fmt::{self, Display};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use self::lab::{Lab, Trouble};
use self::plan::{DAYTIME, ECHO, Plan};
pub use self::report::{Failure, Outcome, Report, Rung};

/// A ladder at somebody's server: eight rungs for echo, six for daytime.
#[derive(Debug)]
pub struct Ladder {
    service: &'static str,
    plans: &'static [Plan],
    addr: String,
    found: io::Result<Vec<SocketAddr>>,
    timeout: Duration,
    goal: usize,
}

impl Ladder {
    /// For an echo server (RFC 862).
    pub fn echo(addr: impl ToSocketAddrs + Display) -> Ladder {
        Ladder::new("echo", &ECHO, &addr)
    }

    /// For a daytime server (RFC 867).
    pub fn daytime(addr: impl ToSocketAddrs + Display) -> Ladder {
        Ladder::new("daytime", &DAYTIME, &addr)
    }

    fn new(
        service: &'static str,
        plans: &'static [Plan],
        addr: &(impl ToSocketAddrs + Display),
    ) -> Ladder {
        let found = addr.to_socket_addrs().map(Iterator::collect);
        let (addr, goal) = (addr.to_string(), plans.len());
        Ladder { service, plans, addr, found, timeout: Duration::from_secs(10), goal }
    }

    /// How long connecting may take, and a server that owes us something may be silent; 10 seconds
    /// unless set. A rung as a whole may take ten times as long.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Ladder {
        self.timeout = timeout.clamp(Duration::from_millis(1), Duration::from_secs(86_400));
        self
    }

    /// Climbs no higher than this rung; there is always one to climb.
    #[must_use]
    pub fn up_to(mut self, rung: usize) -> Ladder {
        self.goal = rung.clamp(1, self.plans.len());
        self
    }

    /// Climbs until a rung is not reached. `watch` sees each rung twice: when it is begun, still
    /// [`Untried`](Outcome::Untried), and when it is known how it went.
    ///
    /// # Errors
    /// If nobody is there, which is no fault of a server's.
    pub fn climb(self, mut watch: impl FnMut(&Rung)) -> Result<Report, Error> {
        let Ladder { service, plans, addr, found, timeout, goal } = self;
        let mut absence = "the name has no address".to_owned();
        let found = match found {
            Ok(found) => found,
            Err(error) => return Err(Error::NotFound { addr, error }),
        };
        for at in found {
            let mut lab = Lab::new(at, timeout).map_err(Error::Loop)?;
            let mut rungs: Vec<Rung> = (1..).zip(plans).map(|(n, plan)| plan.rung(n)).collect();
            for (rung, plan) in rungs.iter_mut().zip(plans).take(goal) {
                watch(rung);
                let began = Instant::now();
                lab.begin();
                let outcome = (plan.climb)(&mut lab);
                rung.took = began.elapsed();
                rung.outcome = match outcome {
                    Ok(note) => Outcome::Reached { note },
                    // The first client is the one who finds out whether anybody is there.
                    Err(Trouble::Absent(error)) if rung.number == 1 => {
                        absence = error;
                        break;
                    }
                    Err(trouble) => {
                        Outcome::Stopped(trouble.into_failure(&plan.rule).map_err(Error::Loop)?)
                    }
                };
                watch(rung);
                if matches!(rung.outcome, Outcome::Stopped(_)) {
                    break;
                }
            }
            if rungs.iter().any(|rung| rung.outcome != Outcome::Untried) {
                return Ok(Report { service, addr, at, rungs, goal });
            }
        }
        Err(Error::Absent { addr, error: absence })
    }
}

impl Plan {
    fn rung(&self, number: usize) -> Rung {
        let Plan { name, rule, chapter, .. } = self;
        let (rule, chapter, outcome) = (rule.number, Some(*chapter), Outcome::Untried);
        Rung { number, name, rule, chapter, outcome, took: Duration::ZERO }
    }
}

/// Why a ladder could not be put to a server. [`advice`](Error::advice) says what to do next.
#[derive(Debug)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Error {
    /// The address cannot be understood, or its name is not known.
    NotFound { addr: String, error: io::Error },
    /// Nobody could be connected to: refused, unreachable, no answer.
    Absent { addr: String, error: String },
    /// Our own side failed.
    Loop(io::Error),
}

impl Error {
    /// What to do next.
    pub fn advice(&self) -> &'static str {
        match self {
            Error::NotFound { .. } => {
                "check the spelling, or give the address itself, such as 127.0.0.1:12345"
            }
            Error::Absent { .. } => {
                "check address and port, and that the server runs: campanile serve"
            }
            Error::Loop(_) => "close other programs, or raise the limit of open files: ulimit -n",
        }
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NotFound { addr, error } => write!(f, "cannot find {addr}: {error}"),
            Error::Absent { addr, error } => write!(f, "cannot connect to {addr}: {error}"),
            Error::Loop(error) => write!(f, "cannot go on checking: {error}"),
        }
    }
}

impl std::error::Error for Error {}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
