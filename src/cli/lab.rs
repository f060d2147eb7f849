//! What `serve` needs for faults and events: a plan, a book, and the commands of the pipe.

use std::io::{self, BufReader};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use campanile::testing::{Book, Fault, Faulty, Logged, Plan};
use campanile::{Handle, Limits, Reactor, sys::Mio};

use super::args::Serve;
use super::events;
use super::failure::{FAILED, Failure};
use super::lines::{Lines, WrongLine};
use super::output::{Output, Sink};
use super::stdio::Blocking;

/// How long the loop may take to apply a fault of a listener.
const PATIENCE: Duration = Duration::from_secs(10);

/// The faults of the loop, and the events that report what happens.
#[derive(Debug, Clone)]
pub struct Lab {
    plan: Plan,
    book: Book,
    output: Output,
    is_json: bool,
    /// The names that a fault may name.
    services: Vec<&'static str>,
    /// Why the commands of the pipe ended before stdin did.
    broken_stdin: Arc<OnceLock<io::Error>>,
}

impl Lab {
    /// Whether a flag asks for any of this. If not, the program runs on the plain kernel.
    pub fn is_wanted(args: &Serve) -> bool {
        !args.fault.is_empty() || args.json || args.pipe
    }

    /// Adds the faults of the command line, before any connection is served.
    pub fn new(args: &Serve, output: &Output) -> Result<Lab, String> {
        let is_json = args.json || args.pipe;
        let plan = Plan::new(args.seed.unwrap_or_else(any_seed));
        let services = args.services();
        for fault in &args.fault {
            fault
                .check_service(&services)
                .map_err(|error| format!("--fault '{fault}': {error}"))?;
            plan.add(fault.clone())?;
        }
        let book = if is_json {
            let output = output.clone();
            Book::read_by(move |entry| {
                if let Some(line) = events::entry(entry) {
                    output.say(Sink::Stdout, line);
                }
            })
        } else {
            Book::new(0)
        };
        if !args.fault.is_empty() && args.seed.is_none() {
            log::info!("the faults draw their random numbers from --seed {}", plan.seed());
        }
        let broken_stdin = Arc::default();
        Ok(Lab { plan, book, output: output.clone(), is_json, services, broken_stdin })
    }

    pub fn reactor(&self, limits: Limits) -> io::Result<Reactor<Faulty<Logged<Mio>>>> {
        let logged = Logged::new(Mio::new(limits.events)?, &self.book);
        Ok(Reactor::with_kernel(Faulty::new(logged, &self.plan, &self.book), limits))
    }

    /// Names the service of the listeners that are bound from now on.
    pub fn serving(&self, service: &str) {
        self.book.serving(service);
    }

    /// The addresses as events, if stdout carries events.
    pub fn listening(&self, bound: &[(&str, String)]) -> Option<String> {
        let line =
            |(service, addr): &(&str, String)| events::listening(service, addr, self.plan.seed());
        self.is_json.then(|| bound.iter().map(line).collect())
    }

    /// Reports the end of the loop.
    ///
    /// # Errors
    /// If reading the commands failed, and that ended the loop.
    pub fn stopped(&self) -> Result<(), Failure> {
        if self.is_json {
            self.output.say(Sink::Stdout, events::stopped());
        }
        let Some(error) = self.broken_stdin.get() else { return Ok(()) };
        let advice = "give --pipe a pipe that stays open, or use --json, which reads no commands";
        Err(Failure::new(FAILED, format!("cannot read commands from stdin: {error}"), advice))
    }

    /// Adds the fault on each line of stdin, on a thread of its own. Ends the loop when stdin ends,
    /// so that the program does not outlive a test that crashed.
    pub fn obey_stdin(&self, handle: Handle) -> io::Result<()> {
        let lab = self.clone();
        let obey = move || {
            for line in Lines::new(BufReader::new(Blocking(io::stdin()))) {
                match line {
                    Ok(line) => lab.output.say(Sink::Stdout, lab.answer(line)),
                    Err(error) => {
                        let _ = lab.broken_stdin.set(error);
                        break;
                    }
                }
            }
            handle.shutdown(Duration::ZERO);
        };
        std::thread::Builder::new().name("stdin".into()).spawn(obey).map(drop)
    }

    /// Obeys a line; the event that answers it.
    fn answer(&self, line: Result<String, WrongLine>) -> String {
        let obey = |text: String| self.obey(&text).map_err(|error| WrongLine { text, error });
        match line.and_then(obey) {
            Ok(fault) => events::fault(&fault.to_string()),
            Err(WrongLine { text, error }) => events::wrong_fault(&text, &error),
        }
    }

    fn obey(&self, line: &str) -> Result<Fault, String> {
        let fault = fault(line)?;
        fault.check_service(&self.services).map_err(|error| error.to_string())?;
        self.plan.add(fault.clone())?;
        if self.plan.settle(PATIENCE) {
            Ok(fault)
        } else {
            Err(format!("the loop did not apply the fault within {PATIENCE:?}: send it again"))
        }
    }
}

/// Parses a fault. The names of the services are known once all arguments are parsed.
pub fn fault(text: &str) -> Result<Fault, String> {
    text.parse().map_err(|error| format!("{error}"))
}

/// A seed that differs from start to start, and is short enough to type.
fn any_seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::from(now.subsec_nanos() ^ std::process::id().rotate_left(16)) % 1_000_000
}
