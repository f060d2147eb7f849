//! [`TestSetup`]: the faults and the time of a server under test, and the events that it prints.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use campanile::record::{Recorded, Recorder};
use campanile::testing::{
    Book, Effect, Fault, Faulty, Logged, ManualClock, Plan, TestKernel, Timed,
};
use campanile::{Limits, Reactor, sys::Mio};

use super::args::Serve;
use super::events;
use super::failure::{FAILED, Failure};
use super::output::{Output, Sink};

/// The faults of the loop, and the events that report what happens.
#[derive(Debug, Clone)]
pub struct TestSetup {
    pub plan: Plan,
    pub book: Book,
    /// Moves the time of the loop, if that is manual.
    pub clock: Option<ManualClock>,
    output: Output,
    is_json: bool,
    /// The names that a fault may name.
    services: Vec<&'static str>,
    /// The services whose listeners cannot be closed.
    shared: Vec<&'static str>,
    /// The error of the read that ended the commands of the pipe.
    broken_stdin: Arc<OnceLock<io::Error>>,
}

impl TestSetup {
    /// Returns whether a flag asks for any of this. If not, the program runs on the plain kernel.
    pub fn is_wanted(args: &Serve) -> bool {
        !args.fault.is_empty() || args.json || args.pipe
    }

    /// Adds the faults of the command line, before any connection is served.
    pub fn new(
        args: &Serve,
        output: &Output,
        recorder: Option<&Recorder>,
    ) -> Result<TestSetup, String> {
        let is_json = args.json || args.pipe;
        let seed = args.seed.unwrap_or_else(any_seed);
        let plan = if args.ignore_probes { Plan::ignoring_probes(seed) } else { Plan::new(seed) };
        let (services, shared) = (args.services(), args.shared_services());
        for fault in &args.fault {
            check(fault, &services, &shared)
                .map_err(|error| format!("--fault '{fault}': {error}"))?;
            plan.add(fault.clone())?;
        }
        let (printer, recorder) = (is_json.then(|| output.clone()), recorder.cloned());
        let book = Book::read_by(move |entry| {
            if let Some(recorder) = &recorder {
                entry.record(recorder);
            }
            if let Some(output) = &printer {
                events::entry(entry).into_iter().for_each(|line| output.say(Sink::Stdout, line));
            }
        });
        if !args.fault.is_empty() && args.seed.is_none() {
            log::info!("the faults draw their random numbers from --seed {}", plan.seed());
        }
        let (clock, broken_stdin) = (args.manual_time.then(ManualClock::new), Arc::default());
        let output = output.clone();
        Ok(TestSetup { plan, book, clock, output, is_json, services, shared, broken_stdin })
    }

    pub fn reactor(
        &self,
        limits: Limits,
        recorder: Option<&Recorder>,
    ) -> io::Result<Reactor<TestKernel>> {
        let timed = Timed::new(Mio::new(limits.events)?, self.clock.clone());
        let logged = Logged::new(timed, &self.book);
        let faulty = Faulty::new(logged, &self.plan, &self.book);
        let kernel = Recorded::new(faulty, recorder.cloned(), &limits)?;
        Ok(Reactor::with_kernel(kernel, limits))
    }

    /// Names the service of the listeners that are bound from now on.
    pub fn serving(&self, service: &str) {
        self.book.serving(service);
    }

    /// Checks that a fault names one of the services, and that its effect is possible there.
    pub fn check_service(&self, fault: &Fault) -> Result<(), String> {
        check(fault, &self.services, &self.shared)
    }

    /// Returns the addresses as events, if stdout carries events.
    pub fn listening(&self, bound: &[(&str, String)]) -> Option<String> {
        let line =
            |(service, addr): &(&str, String)| events::listening(service, addr, self.plan.seed());
        self.is_json.then(|| bound.iter().map(line).collect())
    }

    /// Lets manual time pass by itself, because the end begins: it is bounded by time.
    pub fn release_time(&self) {
        self.clock.iter().for_each(ManualClock::release);
    }

    /// Prints events.
    pub fn say(&self, lines: String) {
        self.output.say(Sink::Stdout, lines);
    }

    /// Keeps the error that ended the commands of the pipe, for [`stopped`](TestSetup::stopped).
    pub fn stdin_failed(&self, error: io::Error) {
        let _ = self.broken_stdin.set(error);
    }

    /// Reports the end of the loop.
    ///
    /// # Errors
    /// If reading the commands failed, and that ended the loop.
    pub fn stopped(&self) -> Result<(), Failure> {
        if self.is_json {
            self.say(events::stopped());
        }
        let Some(error) = self.broken_stdin.get() else { return Ok(()) };
        let advice = "give --pipe a pipe that stays open, or use --json, which reads no commands";
        Err(Failure::new(FAILED, format!("cannot read commands from stdin: {error}"), advice))
    }
}

/// Parses a fault. The names of the services are known once all arguments are parsed.
pub fn fault(text: &str) -> Result<Fault, String> {
    text.parse().map_err(|error| format!("{error}"))
}

/// Returns a seed that differs from start to start, and is short enough to type.
fn any_seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::from(now.subsec_nanos() ^ std::process::id().rotate_left(16)) % 1_000_000
}

fn check(fault: &Fault, services: &[&str], shared: &[&str]) -> Result<(), String> {
    fault.check_service(services).map_err(|error| error.to_string())?;
    let is_shared = fault.whom.as_ref().is_some_and(|whom| shared.contains(&&*whom.service));
    if is_shared && fault.effect == Effect::Refuse {
        return Err(
            "another process holds this address open, so it cannot refuse; use never-accept, or \
                    an address without fd: and --reuse-port"
                .to_owned(),
        );
    }
    Ok(())
}
