//! The ladder: checks which rules a server keeps, as its clients see them, and where it stops.
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
//! Each rung is a small conversation, or several at once. The climb ends at the first rung that fails,
//! because the higher rungs depend on the lower ones.
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
pub use self::report::{Bound, Failure, Outcome, Report, Rung};

/// A ladder for one server: eight rungs for echo, six for daytime.
#[derive(Debug)]
pub struct Ladder {
    service: &'static str,
    plans: &'static [Plan],
    addr: String,
    found: io::Result<Vec<SocketAddr>>,
    timeout: Duration,
    deadline: Option<Duration>,
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
        let timeout = Duration::from_secs(10);
        Ladder { service, plans, addr, found, timeout, deadline: None, goal }
    }

    /// Bounds connecting, and the silence of a server that still has to send something. A whole rung
    /// takes at most ten times as long. Default: 10 seconds.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Ladder {
        self.timeout = timeout.clamp(Duration::from_millis(1), Duration::from_secs(86_400));
        self
    }

    /// Bounds the whole climb. Default: off.
    #[must_use]
    pub fn deadline(mut self, deadline: Option<Duration>) -> Ladder {
        self.deadline = deadline;
        self
    }

    /// Climbs no higher than this rung; at least one.
    #[must_use]
    pub fn up_to(mut self, rung: usize) -> Ladder {
        self.goal = rung.clamp(1, self.plans.len());
        self
    }

    /// Climbs until a rung is not reached. `watch` sees each rung twice: when it begins, still
    /// [`Untried`](Outcome::Untried), and with its outcome.
    ///
    /// # Errors
    /// If the server accepts no connection at all, or if this machine cannot run the check.
    pub fn climb(self, mut watch: impl FnMut(&Rung)) -> Result<Report, Error> {
        let Ladder { service, plans, addr, found, timeout, deadline, goal } = self;
        let found = match found {
            Ok(found) => found,
            Err(error) => return Err(Error::NotFound { addr, error }),
        };
        let deadline = deadline.and_then(|bound| Some((Instant::now().checked_add(bound)?, bound)));
        let mut absence = "the name has no address".to_owned();
        let mut addresses = found.into_iter().peekable();
        while let Some(at) = addresses.next() {
            let mut lab = Lab::new(at, timeout, deadline).map_err(Error::Loop)?;
            let mut rungs: Vec<Rung> = (1..).zip(plans).map(|(n, plan)| plan.rung(n)).collect();
            for (rung, plan) in rungs.iter_mut().zip(plans).take(goal) {
                watch(rung);
                let began = Instant::now();
                lab.begin();
                let outcome = (plan.climb)(&mut lab);
                rung.took = began.elapsed();
                rung.outcome = match outcome {
                    Ok(note) => Outcome::Reached { note },
                    // The first client finds out whether the address works at all.
                    Err(Trouble::Absent(error)) if rung.number == 1 => {
                        absence = error;
                        break;
                    }
                    Err(Trouble::Exhausted { .. })
                        if rung.number == 1 && addresses.peek().is_some() =>
                    {
                        break;
                    }
                    Err(trouble) => {
                        trouble.into_outcome(&plan.rule, lab.bound()).map_err(Error::Loop)?
                    }
                };
                watch(rung);
                if matches!(rung.outcome, Outcome::Stopped(_) | Outcome::TimedOut { .. }) {
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

/// Why a server could not be checked. [`advice`](Error::advice) says what to do next.
#[derive(Debug)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Error {
    /// The address cannot be parsed, or the name cannot be resolved.
    NotFound { addr: String, error: io::Error },
    /// No address accepted the connection: refused, unreachable, or no answer.
    Absent { addr: String, error: String },
    /// This machine cannot run the check, for example for lack of descriptors.
    Loop(io::Error),
}

impl Error {
    /// Returns what to do next.
    pub fn advice(&self) -> &'static str {
        match self {
            Error::NotFound { .. } => {
                "check the spelling, or give an IP address and port, such as 127.0.0.1:12345"
            }
            Error::Absent { .. } => {
                "check the address and the port, and start the server that is to be checked"
            }
            Error::Loop(_) => {
                "close other programs, or raise the limit of open files: ulimit -n 4096"
            }
        }
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NotFound { addr, error } => write!(f, "cannot find {addr}: {error}"),
            Error::Absent { addr, error } => write!(f, "cannot connect to {addr}: {error}"),
            Error::Loop(error) => write!(f, "cannot run the check: {error}"),
        }
    }
}

impl std::error::Error for Error {}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
