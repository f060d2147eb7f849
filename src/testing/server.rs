//! [`TestServer`]: both services, and yours, on a thread of their own, as bad as asked.

use std::fmt::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::{Bound, RangeBounds};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::builder::{Builder, Recording};
use super::fault::{Fault, Who};
use super::faulty::Faulty;
use super::ledger::{Book, Ledger};
use super::logged::Logged;
use super::manual::{Hand, Timed};
use super::plan::Plan;
use crate::background::Background;
use crate::handle::Handle;
use crate::kernel::Mio;
use crate::protocol::Address;
use crate::record::{Recorded, Recorder};

/// How long a test waits for the loop at most.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a client of [`Service::connect`] waits at most.
const DEADLINE: Duration = Duration::from_secs(30);
/// Rows of the table of a failed test.
const ROWS: usize = 50;

/// The kernel of a [`TestServer`].
pub type TestKernel = Recorded<Faulty<Logged<Timed<Mio>>>>;

/// Daytime and echo on free ports of 127.0.0.1, for one test.
///
/// It runs on a thread of its own, needs no runtime and shares nothing with other servers.
/// Dropping it aborts what is open, joins, and closes the ports. A panic of a protocol, and an
/// expectation that was not met, panic there; unless the test panics already, a table of the
/// connections and the seed is printed with them, and it is printed then, too.
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
    pub(super) hand: Option<Hand>,
    pub(super) places: Vec<(String, Address)>,
    pub(super) expected: Mutex<Vec<Expectation>>,
    pub(super) recording: Option<(Recording, Recorder)>,
}

#[derive(Debug)]
pub(super) struct Expectation {
    service: String,
    least: u64,
    most: u64,
}

impl TestServer {
    /// Starts a server. When this returns, its ports are bound. Its clock stands at
    /// 2014-01-29T19:14:15Z.
    ///
    /// # Panics
    /// If that fails.
    pub fn start() -> TestServer {
        TestServer::builder().start()
    }

    /// A server with another clock, seed, limits, faults or services.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// The echo service.
    pub fn echo(&self) -> Service<'_> {
        self.service("echo")
    }

    /// The daytime service.
    pub fn daytime(&self) -> Service<'_> {
        self.service("daytime")
    }

    /// The service with this name.
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

    /// Returns the handle of its reactor, for messages, broadcasts and closures on the loop's thread.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Adds a fault that names its service: `echo 10%: reset after 5 bytes`. It is in force when this
    /// returns, for as long as the server lives.
    ///
    /// # Panics
    /// If the text is no fault, or for nobody here.
    #[track_caller]
    pub fn fault<F: TryInto<Fault, Error: fmt::Display>>(&self, fault: F) {
        let fault = or_panic(fault.try_into());
        or_panic(fault.check_service(&self.names()));
        self.add(fault);
    }

    /// Lets time pass, at once, and returns when everything that was due is done.
    ///
    /// # Panics
    /// If the time is not manual: see [`Builder::manual_time`]. If the sum of all advances is more
    /// than 30 years. If the loop still has something to do after 5 seconds.
    #[track_caller]
    pub fn advance(&self, by: Duration) {
        let Some(hand) = &self.hand else {
            panic!(
                "cannot advance the clock, which runs by itself; start the server with \
                 TestServer::builder().manual_time()"
            );
        };
        if let Err(error) = hand.advance(by, PATIENCE) {
            panic!("cannot advance the clock by {by:?}: {error}\n{}", self.table());
        }
    }

    /// What chances and jitter are drawn from.
    pub fn seed(&self) -> u64 {
        self.plan.seed()
    }

    /// The ledgers of the connections that ended, in that order.
    #[doc(alias("getAllServeEvents", "requests"))]
    pub fn ledgers(&self) -> Vec<Ledger> {
        self.book.ended()
    }

    fn names(&self) -> Vec<&str> {
        self.places.iter().map(|(name, _)| &**name).collect()
    }

    #[track_caller]
    fn add(&self, fault: Fault) -> u64 {
        let is_of_listener = fault.is_of_listener();
        let id = or_panic(self.plan.add(fault));
        if is_of_listener {
            self.settle();
        }
        id
    }

    #[track_caller]
    fn settle(&self) {
        let is_settled = self.plan.settle(PATIENCE);
        assert!(
            is_settled || thread::panicking(),
            "the loop has not acknowledged the fault within {PATIENCE:?}; a protocol may block it\n{}",
            self.table()
        );
    }

    /// The connections that ended and the seed, as text.
    fn table(&self) -> String {
        let ended = self.book.ended();
        let mut text = format!("campanile test server, seed {}\n", self.plan.seed());
        let skipped = ended.len().saturating_sub(ROWS);
        if skipped > 0 {
            let _ = writeln!(text, "  ({skipped} earlier connections)");
        }
        for ledger in &ended[skipped..] {
            let _ = writeln!(text, "  {ledger}");
        }
        for fault in self.plan.faults() {
            let _ = writeln!(text, "  in force: {fault}");
        }
        text
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

    /// What was expected and did not happen.
    fn unmet(&self) -> Vec<String> {
        let expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        let unmet = expected.iter().filter_map(|Expectation { service, least, most }| {
            let count = self.book.accepted(service);
            let is_met = (*least..=*most).contains(&count);
            let most = if *most == u64::MAX { "any".to_owned() } else { most.to_string() };
            (!is_met).then(|| format!("{service}: {count} connections, expected {least} to {most}"))
        });
        unmet.collect()
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

/// The fault, or whatever else adding it has returned.
#[track_caller]
pub(super) fn or_panic<T>(outcome: Result<T, impl fmt::Display>) -> T {
    outcome.unwrap_or_else(|error| panic!("cannot add the fault: {error}"))
}

/// One service of a [`TestServer`].
#[derive(Debug, Clone, Copy)]
pub struct Service<'a> {
    server: &'a TestServer,
    name: &'a str,
    addr: &'a Address,
}

impl<'a> Service<'a> {
    /// Returns the address at which it listens.
    ///
    /// # Panics
    /// If it listens on a Unix socket.
    #[track_caller]
    pub fn addr(&self) -> SocketAddr {
        let (name, addr) = (self.name, self.addr);
        addr.inet().unwrap_or_else(|| {
            panic!("{name} listens on {addr}: connect to its path with UnixStream::connect")
        })
    }

    /// Returns a client: a plain blocking socket that gives up after 30 seconds of silence.
    ///
    /// # Panics
    /// If it cannot connect, or if the service listens on a Unix socket.
    #[track_caller]
    pub fn connect(&self) -> TcpStream {
        let addr = self.addr();
        let connect = || {
            // With a time-out it would ask for errors, and find a reset that came at once.
            let stream = TcpStream::connect(addr)?;
            stream.set_read_timeout(Some(DEADLINE))?;
            stream.set_write_timeout(Some(DEADLINE))?;
            std::io::Result::Ok(stream)
        };
        connect().unwrap_or_else(|error| panic!("cannot connect to {}: {error}", self.name))
    }

    /// Does this to the next connection. Several queue up, one a connection, in order.
    ///
    /// # Panics
    /// If the text is no fault, or says whose.
    #[track_caller]
    #[doc(alias("enqueue", "willReturn"))]
    pub fn once<F: TryInto<Fault, Error: fmt::Display>>(&self, fault: F) {
        self.add(fault, Who::Once);
    }

    /// Does this to every connection from now on, until the guard is dropped.
    ///
    /// # Panics
    /// If the text is no fault, or says whose.
    #[track_caller]
    #[doc(alias("addToxic", "toxics"))]
    pub fn always<F: TryInto<Fault, Error: fmt::Display>>(&self, fault: F) -> Guard<'a> {
        Guard { server: self.server, id: self.add(fault, Who::Every) }
    }

    #[track_caller]
    fn add<F: TryInto<Fault, Error: fmt::Display>>(&self, fault: F, who: Who) -> u64 {
        let fault: Fault = or_panic(fault.try_into());
        assert!(fault.whom.is_none(), "`{fault}` names a service; add it with TestServer::fault");
        self.server.add(fault.of(self.name, who))
    }

    /// What happened on the next connection that ends, each once and in that order; waits for it.
    ///
    /// # Panics
    /// If none ends within 5 seconds.
    #[track_caller]
    #[doc(alias("takeRequest", "verify"))]
    pub fn ended(&self) -> Ledger {
        let ledger = self.server.book.next_ended(self.name, PATIENCE);
        ledger.unwrap_or_else(|| {
            panic!("no connection to {} ended within 5 s\n{}", self.name, self.server.table())
        })
    }

    /// How many connections were accepted so far.
    #[doc(alias("getRequestCount", "requestCount"))]
    pub fn accepted(&self) -> u64 {
        self.server.book.accepted(self.name)
    }

    /// Expects so many connections by the time the server is dropped.
    #[doc(alias("expect", "times"))]
    pub fn expect_connections(&self, range: impl RangeBounds<u64>) {
        let least = match range.start_bound() {
            Bound::Included(least) => *least,
            Bound::Excluded(below) => below.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let most = match range.end_bound() {
            Bound::Included(most) => *most,
            Bound::Excluded(above) => above.saturating_sub(1),
            Bound::Unbounded => u64::MAX,
        };
        let expectation = Expectation { service: self.name.to_owned(), least, most };
        let mut expected = self.server.expected.lock().unwrap_or_else(PoisonError::into_inner);
        expected.push(expectation);
    }
}

/// A fault is in force until this is dropped.
#[must_use = "the fault ends as soon as this is dropped"]
#[derive(Debug)]
#[doc(alias("removeToxic"))]
pub struct Guard<'a> {
    server: &'a TestServer,
    id: u64,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.server.plan.remove(self.id);
        self.server.settle();
    }
}
