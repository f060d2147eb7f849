//! [`TestServer`]: both services, and yours, on a thread of their own, with faults on request.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::builder::{Builder, Recording};
use super::fault::Fault;
use super::faulty::Faulty;
use super::ledger::{Book, Ledger};
use super::logged::Logged;
use super::manual::{ManualClock, Timed};
use super::plan::Plan;
use super::service::Service;
use crate::background::Background;
use crate::handle::Handle;
use crate::kernel::Mio;
use crate::protocol::Address;
use crate::record::{Recorded, Recorder};

/// How long a test waits for the loop, and for a connection to end.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// The kernel of a [`TestServer`].
pub type TestKernel = Recorded<Faulty<Logged<Timed<Mio>>>>;

/// Daytime and echo on free ports of 127.0.0.1, for one test.
///
/// It runs on a thread of its own, needs no runtime and shares nothing with other servers. Dropping it
/// resets the open connections, closes the ports and joins the thread.
///
/// If a protocol has panicked, or an expectation was not met, the drop panics. A table of the
/// connections and the seed are printed with that panic, and with any other panic of the test.
///
/// ```
/// use std::io::Read;
/// use campanile::testing::TestServer;
///
/// let server = TestServer::start();
/// server.daytime().once("close after 10 bytes");
///
/// let mut line = String::new();
/// server.daytime().connect().read_to_string(&mut line)?;
/// assert_eq!(line, "Wed Jan 29");
/// assert_eq!(server.daytime().ended().bytes_out, 10);
///
/// line.clear();
/// server.daytime().connect().read_to_string(&mut line)?;
/// assert_eq!(line, "Wed Jan 29 19:14:15 2014\r\n");
/// # std::io::Result::Ok(())
/// ```
#[must_use = "the server ends as soon as this is dropped"]
#[derive(Debug)]
#[doc(alias("MockWebServer", "WireMockServer", "MockServer", "toxiproxy", "Proxy"))]
pub struct TestServer {
    /// `None` only while it is dropped.
    pub(super) background: Option<Background>,
    pub(super) handle: Handle,
    pub(super) plan: Plan,
    pub(super) book: Book,
    pub(super) manual_clock: Option<ManualClock>,
    pub(super) places: Vec<(String, Address)>,
    pub(super) expected: Mutex<Vec<Expectation>>,
    pub(super) recording: Option<(Recording, Recorder)>,
}

#[derive(Debug)]
pub(super) struct Expectation {
    pub(super) service: String,
    pub(super) least: u64,
    pub(super) most: u64,
}

impl TestServer {
    /// Starts a server. When this returns, its ports are bound. Its clock stands at
    /// 2014-01-29T19:14:15Z.
    ///
    /// # Panics
    /// If a port cannot be bound or the thread cannot be created.
    pub fn start() -> TestServer {
        TestServer::builder().start()
    }

    /// Returns a builder, for another clock, seed, limits, faults or services.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// Returns the echo service.
    pub fn echo(&self) -> Service<'_> {
        self.service("echo")
    }

    /// Returns the daytime service.
    pub fn daytime(&self) -> Service<'_> {
        self.service("daytime")
    }

    /// Returns the service with this name.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn service(&self, name: &str) -> Service<'_> {
        match self.places.iter().find(|(found, _)| found == name) {
            Some((name, addr)) => Service { server: self, name, addr },
            None => panic!(
                "no service is named {name:?}; this server has {}",
                self.names().join(" and ")
            ),
        }
    }

    /// Returns the proxy with this name: see [`Builder::proxy`].
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn proxy(&self, name: &str) -> Service<'_> {
        self.service(name)
    }

    /// Returns the handle of its reactor, for messages, broadcasts and closures on the loop's thread.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Adds a fault that names its service: `echo 10%: reset after 5 bytes`. It is in force when this
    /// returns, for as long as the server lives.
    ///
    /// # Panics
    /// If the text is not a fault, or names a service that this server does not have.
    #[track_caller]
    pub fn fault<F: TryInto<Fault, Error: fmt::Display>>(&self, fault: F) {
        let fault = or_panic(fault.try_into());
        or_panic(fault.check_service(&self.names()));
        self.add(fault);
    }

    /// Lets time pass at once, and returns when everything that was due on the way is done.
    ///
    /// # Panics
    /// If the time is not manual: see [`Builder::manual_time`]. If the sum of all advances is more
    /// than 30 years. If the loop still has something to do after 5 seconds.
    #[track_caller]
    pub fn advance(&self, by: Duration) {
        let Some(manual_clock) = &self.manual_clock else {
            panic!(
                "cannot advance the clock, which runs by itself; start the server with \
                 TestServer::builder().manual_time()"
            );
        };
        if let Err(error) = manual_clock.advance(by, PATIENCE) {
            panic!("cannot advance the clock by {by:?}: {error}\n{}", self.table());
        }
    }

    /// Returns the seed of all random choices, such as `10%` and jitter.
    pub fn seed(&self) -> u64 {
        self.plan.seed()
    }

    /// Returns the ledgers of the connections that ended, in that order.
    #[doc(alias("getAllServeEvents", "requests"))]
    pub fn ledgers(&self) -> Vec<Ledger> {
        self.book.ended()
    }

    fn names(&self) -> Vec<&str> {
        self.places.iter().map(|(name, _)| &**name).collect()
    }

    #[track_caller]
    pub(super) fn add(&self, fault: Fault) -> u64 {
        let id = or_panic(self.plan.add(fault));
        if !self.plan.settle(PATIENCE) {
            // A fault that was refused must not take effect later.
            let fault = self.plan.remove(id);
            panic!(
                "cannot add the fault{}: the loop has not acknowledged it within {PATIENCE:?}, because \
                 a protocol blocks it; let the callback return, then add the fault again\n{}",
                fault.map(|fault| format!(" `{fault}`")).unwrap_or_default(),
                self.table()
            );
        }
        if let Some(failure) = self.plan.failure(id) {
            self.plan.remove(id);
            panic!("cannot add the fault: {failure}");
        }
        id
    }

    /// Waits until the recording is written; returns a line that names it. If it is for a failure, and
    /// there is none, removes it instead.
    fn finish_recording(&self, has_failed: bool) -> String {
        let Some((recording, recorder)) = &self.recording else { return String::new() };
        let path = recording.path.display();
        let is_whole = recorder.finish(PATIENCE);
        if recording.only_on_failure && !has_failed {
            // Something else may have removed it.
            let _ = std::fs::remove_file(&recording.path);
            return String::new();
        }
        let cut = if is_whole { "" } else { " (it is cut short)" };
        format!("  recording: {path}{cut}; see it with `campanile play {path}`\n")
    }

    /// Returns a line for each expectation that is not met.
    fn unmet(&self) -> Vec<String> {
        let expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        let unmet = expected.iter().filter_map(|Expectation { service, least, most }| {
            let count = self.book.accepted(service);
            let is_met = (*least..=*most).contains(&count);
            let most = if *most == u64::MAX { "any".to_owned() } else { most.to_string() };
            (!is_met).then(|| format!("{service}: {count} connections, expected {least} to {most}"))
        });
        let unused = self.plan.unused().into_iter().map(|fault| {
            format!("no connection got the fault `{fault}`: connect, or call `optional()` on it")
        });
        unmet.chain(unused).collect()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        let background = self.background.take();
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(background)));
        let unmet = self.unmet();
        let has_failed = thread::panicking() || ended.is_err() || !unmet.is_empty();
        let note = self.finish_recording(has_failed);
        if thread::panicking() {
            eprint!("{}{note}", self.table());
            return;
        }
        if let Err(panic) = ended {
            eprint!("{}{note}", self.table());
            std::panic::resume_unwind(panic);
        }
        assert!(unmet.is_empty(), "{}\n{}{note}", unmet.join("\n"), self.table());
    }
}

/// Unwraps the outcome of adding a fault.
#[track_caller]
pub(super) fn or_panic<T>(outcome: Result<T, impl fmt::Display>) -> T {
    // A closure would make the panic name this line instead of the line of the test.
    match outcome {
        Ok(done) => done,
        Err(error) => panic!("cannot add the fault: {error}"),
    }
}
