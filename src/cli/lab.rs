//! What `serve` needs to go wrong and to be watched: a plan, a book, and whoever talks on stdin.

use std::io::{self, BufRead};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use campanile::testing::{Book, Fault, Faulty, Logged, Plan};
use campanile::{Handle, Limits, Mio, Reactor};

use super::args::Serve;
use super::events;
use super::output::{Output, Sink};

/// How long a fault of a listener may take to be in force.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whoever makes the loop go wrong, and tells what happens.
#[derive(Debug, Clone)]
pub struct Lab {
    plan: Plan,
    book: Book,
    output: Output,
    is_json: bool,
}

impl Lab {
    /// Whether any of it was asked for; if not, none of it is there.
    pub fn is_wanted(args: &Serve) -> bool {
        !args.fault.is_empty() || args.json || args.pipe
    }

    /// The faults asked for, in force before anybody is served.
    pub fn new(args: &Serve, output: &Output) -> Result<Lab, String> {
        let is_json = args.json || args.pipe;
        let plan = Plan::new(args.seed.unwrap_or_else(any_seed));
        for fault in &args.fault {
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
            log::info!("what is left to chance is drawn from --seed {}", plan.seed());
        }
        Ok(Lab { plan, book, output: output.clone(), is_json })
    }

    pub fn reactor(&self, limits: Limits) -> io::Result<Reactor<Faulty<Logged<Mio>>>> {
        let logged = Logged::new(Mio::new(limits.events)?, &self.book);
        Ok(Reactor::with_kernel(Faulty::new(logged, &self.plan, &self.book), limits))
    }

    /// What is bound from now on is this service.
    pub fn serving(&self, service: &str) {
        self.book.serving(service);
    }

    /// How the addresses are said, if not in plain lines.
    pub fn listening(&self, bound: &[(&str, SocketAddr)]) -> Option<String> {
        let line = |(service, addr): &(&str, SocketAddr)| {
            events::listening(service, *addr, self.plan.seed())
        };
        self.is_json.then(|| bound.iter().map(line).collect())
    }

    pub fn stopped(&self) {
        if self.is_json {
            self.output.say(Sink::Stdout, events::stopped());
        }
    }

    /// Reads a fault from each line of stdin, on a thread of its own; ends the loop when stdin ends,
    /// so that nothing outlives a test that crashed.
    pub fn obey_stdin(&self, handle: Handle) -> io::Result<()> {
        let lab = self.clone();
        let obey = move || {
            for line in io::stdin().lock().lines() {
                let Ok(line) = line else { break };
                let answer = match lab.obey(&line) {
                    Ok(fault) => events::fault(&fault.to_string()),
                    Err(error) => events::wrong_fault(&line, &error),
                };
                lab.output.say(Sink::Stdout, answer);
            }
            handle.shutdown(Duration::ZERO);
        };
        std::thread::Builder::new().name("stdin".into()).spawn(obey).map(drop)
    }

    fn obey(&self, line: &str) -> Result<Fault, String> {
        let fault = fault(line)?;
        self.plan.add(fault.clone())?;
        if self.plan.settle(PATIENCE) { Ok(fault) } else { Err("the loop does not turn".into()) }
    }
}

/// A fault of one of the two services.
pub fn fault(text: &str) -> Result<Fault, String> {
    let fault: Fault = text.parse().map_err(|error| format!("{error}"))?;
    fault.check_service(&["daytime", "echo"]).map_err(|error| error.to_string())?;
    Ok(fault)
}

/// Another one each time; short, since it is to be typed.
fn any_seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::from(now.subsec_nanos() ^ std::process::id().rotate_left(16)) % 1_000_000
}
