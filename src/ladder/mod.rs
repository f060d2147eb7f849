//! The ladder: checks which rules a server keeps, as its clients see them, and where it stops.
//!
//! ```
//! use campanile::{ladder::Ladder, testing::TestServer};
//!
//! let server = TestServer::start();
//! server.fault("echo: corrupt after 1000 bytes");
//! let report = Ladder::echo(server.echo().addr()).climb(|_| {})?;
//! assert_eq!(report.reached(), 3);
//! let (stop, failure) = report.stopped().unwrap();
//! assert_eq!((stop.rung.name, failure.rule.number), ("1 MiB", "E1"));
//! println!("{report}");
//! # Ok::<(), campanile::ladder::Error>(())
//! ```
//!
//! Each rung is a small conversation, or several at once. The climb ends at the first rung that is not
//! reached, because the higher rungs depend on the lower ones. [`Ladder::only`] climbs one rung alone,
//! as an exercise.
//!
//! To add a rung, write a file in `src/ladder/echo/` or `src/ladder/daytime/`: a constant [`Rung`] (its
//! name, its [`Rule`], why the rule matters and where it comes from) and the function that checks a
//! server. Then add the constant to the array `RUNGS` of that folder.
//!
//! The page [`last_bytes`](crate::guide::last_bytes) lists other proxies and servers: how far each one
//! climbs, and the line of its source that decides.

mod client;
mod daytime;
mod echo;
mod error;
mod memory;
mod report;
mod rung;
mod setup;

use std::io;
use std::time::{Duration, Instant};

use self::client::{Conversation, End, TestClient};
pub use self::error::Error;
use self::error::RungError;
pub use self::report::{Bound, Failure, Outcome, Report, RungReport};
use self::rung::Climbed;
pub use self::rung::{Rule, Rung};
use self::setup::TestSetup;
use crate::client::{Server, ToServers};
use crate::protocol::Address;

/// A ladder for one server: eight rungs for echo, six for daytime.
#[derive(Debug)]
pub struct Ladder {
    service: &'static str,
    rungs: &'static [Rung],
    addr: String,
    found: io::Result<Vec<Server>>,
    timeout: Duration,
    deadline: Option<Duration>,
    only: Option<usize>,
}

impl Ladder {
    /// For an echo server (RFC 862).
    pub fn echo(addr: impl ToServers) -> Ladder {
        Ladder::new("echo", &echo::RUNGS, &addr)
    }

    /// For a daytime server (RFC 867).
    pub fn daytime(addr: impl ToServers) -> Ladder {
        Ladder::new("daytime", &daytime::RUNGS, &addr)
    }

    fn new(service: &'static str, rungs: &'static [Rung], addr: &impl ToServers) -> Ladder {
        let found = addr.to_servers();
        let (addr, timeout) = (addr.to_string(), Duration::from_secs(10));
        Ladder { service, rungs, addr, found, timeout, deadline: None, only: None }
    }

    /// Returns all rungs of this ladder, the lowest first.
    pub fn rungs(&self) -> &'static [Rung] {
        self.rungs
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

    /// Climbs this rung alone, counted from 1; the nearest if the ladder has no such rung. Default: all.
    #[must_use]
    pub fn only(mut self, rung: usize) -> Ladder {
        self.only = Some(rung.clamp(1, self.rungs.len()));
        self
    }

    /// Climbs until a rung is not reached. `watch` sees each rung twice: when it begins, still
    /// [`Untried`](Outcome::Untried), and with its outcome.
    ///
    /// # Errors
    /// If the server accepts no connection at all, or if this machine cannot run the check.
    pub fn climb(mut self, mut watch: impl FnMut(&RungReport)) -> Result<Report, Error> {
        let addr = self.addr.clone();
        let found = std::mem::replace(&mut self.found, Ok(Vec::new()));
        let found = found.map_err(|error| Error::NotFound { addr: addr.clone(), error })?;
        let bound = self.deadline;
        let deadline = bound.and_then(|bound| Some((Instant::now().checked_add(bound)?, bound)));
        let mut absence = "the name has no address".to_owned();
        let mut addresses = found.into_iter().peekable();
        while let Some(at) = addresses.next() {
            let at: Address = match at {
                Server::Tcp(addr) => addr.into(),
                Server::Unix(path) => path.into(),
            };
            let mut setup =
                TestSetup::new(at.clone(), self.timeout, deadline).map_err(Error::Loop)?;
            match self.climb_at(&mut setup, addresses.peek().is_none(), &mut watch) {
                Ok(rungs) => return Ok(Report { service: self.service, addr, at, rungs }),
                Err(RungError::Loop(error)) => return Err(Error::Loop(error)),
                Err(RungError::Absent(error)) => absence = error,
                // This machine cannot try the first rung here: perhaps it can at the next address.
                Err(_) => {}
            }
        }
        Err(Error::Absent { addr, error: absence })
    }

    fn climb_at(
        &self,
        setup: &mut TestSetup,
        is_last: bool,
        mut watch: impl FnMut(&RungReport),
    ) -> Result<Vec<RungReport>, RungError> {
        let rungs =
            (1..).zip(self.rungs).filter(|(number, _)| self.only.is_none_or(|n| n == *number));
        let new = |(number, rung)| RungReport {
            number,
            rung,
            outcome: Outcome::Untried,
            took: Duration::ZERO,
        };
        let mut rungs: Vec<_> = rungs.map(new).collect();
        if self.only.is_some_and(|number| number > 1) {
            // Tells an address without a server from a server that breaks the rule.
            setup.start_rung();
            if let Err(error @ RungError::Absent(_)) = setup.probe() {
                return Err(error);
            }
        }
        for step in &mut rungs {
            watch(step);
            let began = Instant::now();
            setup.start_rung();
            let result = (step.rung.climb)(setup);
            step.took = began.elapsed();
            step.outcome = match result {
                Ok(note) => Outcome::Reached { note },
                // The first client finds out whether the address works at all.
                Err(error @ RungError::Absent(_)) if step.number == 1 => return Err(error),
                Err(error @ RungError::Exhausted { .. }) if step.number == 1 && !is_last => {
                    return Err(error);
                }
                Err(error) => error.into_outcome(&step.rung.rule, setup.bound())?,
            };
            watch(step);
            if matches!(step.outcome, Outcome::Stopped(_) | Outcome::TimedOut { .. }) {
                break;
            }
        }
        Ok(rungs)
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
