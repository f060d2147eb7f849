//! What a [`TestServer`] is to be like.

use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Mutex;

use super::fault::Fault;
use super::faulty::Faulty;
use super::ledger::Book;
use super::logged::Logged;
use super::manual::{Hand, Timed};
use super::plan::Plan;
use super::server::{TestKernel, TestServer, or_panic};
use crate::background::Background;
use crate::kernel::Mio;
use crate::limits::Limits;
use crate::listener::ListenOptions;
use crate::protocol::{Accepted, Address, Protocol};
use crate::reactor::Reactor;
use crate::record::{Recorded, Recorder};
use crate::services::{Clock, Zone, daytime, echo};

/// The second of the tutorial that the two services come from: Wed Jan 29 19:14:15 2014.
const TUTORIAL: i64 = 1_391_022_855;
/// Ledgers that a server keeps.
const KEPT: usize = 10_000;

type Listen = Box<dyn FnOnce(&mut Reactor<TestKernel>) -> io::Result<Address> + Send>;

/// Makes a [`TestServer`]: see [`TestServer::builder`].
#[must_use = "nothing is served before start()"]
pub struct Builder {
    clock: Clock,
    seed: u64,
    limits: Limits,
    keeps_received: bool,
    is_manual: bool,
    faults: Vec<Fault>,
    services: Vec<(String, Listen)>,
    recording: Option<Recording>,
}

/// Where a recording goes.
#[derive(Debug)]
pub(super) struct Recording {
    pub(super) path: PathBuf,
    pub(super) bytes: usize,
    /// It is removed unless the test fails.
    pub(super) only_on_failure: bool,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("clock", &self.clock)
            .field("seed", &self.seed)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Builder {
    pub(super) fn new() -> Builder {
        Builder {
            clock: Clock::fixed(TUTORIAL),
            seed: 0,
            limits: Limits::default(),
            keeps_received: false,
            is_manual: false,
            faults: Vec::new(),
            services: Vec::new(),
            recording: None,
        }
    }

    /// The clock that daytime tells. It stands at 2014-01-29T19:14:15Z unless set.
    pub fn clock(self, clock: Clock) -> Builder {
        Builder { clock, ..self }
    }

    /// The zone that daytime tells; UTC unless set.
    pub fn zone(self, zone: Zone) -> Builder {
        Builder { clock: self.clock.in_zone(zone), ..self }
    }

    /// What chances and jitter are drawn from; 0 unless set. It is printed when a test fails.
    pub fn seed(self, seed: u64) -> Builder {
        Builder { seed, ..self }
    }

    /// The bounds of the loop.
    pub fn limits(self, limits: Limits) -> Builder {
        Builder { limits, ..self }
    }

    /// Keeps what clients send in the ledgers.
    pub fn keep_received(self) -> Builder {
        Builder { keeps_received: true, ..self }
    }

    /// Lets time pass only on [`TestServer::advance`]: delays, gaps, timeouts. What waits for the
    /// network does not wait for time.
    #[doc(alias("virtual time", "fake clock"))]
    pub fn manual_time(self) -> Builder {
        Builder { is_manual: true, ..self }
    }

    /// Records what the loop does into this file, for `campanile play`.
    pub fn record(self, path: impl Into<PathBuf>) -> Builder {
        let recording = Some(Recording { path: path.into(), bytes: 0, only_on_failure: false });
        Builder { recording, ..self }
    }

    /// Records what the loop does into this file, and removes the file unless the test fails. The path
    /// is printed with the table of a failed test.
    ///
    /// ```
    /// use campanile::testing::TestServer;
    ///
    /// let path = std::env::temp_dir().join("a_test_of_mine.jsonl");
    /// let server = TestServer::builder().record_on_failure(&path).start();
    /// drop(server);
    /// assert!(!path.exists());
    /// ```
    pub fn record_on_failure(self, path: impl Into<PathBuf>) -> Builder {
        let recording = Some(Recording { path: path.into(), bytes: 0, only_on_failure: true });
        Builder { recording, ..self }
    }

    /// Records the first `count` bytes of each connection in each direction, too. Follows `record` or
    /// `record_on_failure`.
    ///
    /// # Panics
    /// If it follows neither.
    pub fn record_bytes(mut self, count: usize) -> Builder {
        match &mut self.recording {
            Some(recording) => recording.bytes = count,
            None => panic!("record_bytes records nothing by itself; call record(path) before it"),
        }
        self
    }

    /// A fault that is there from the start: `echo #3: reset after 5 bytes`.
    ///
    /// # Panics
    /// If the text is no fault.
    pub fn fault<F: TryInto<Fault, Error: fmt::Display>>(mut self, fault: F) -> Builder {
        self.faults.push(or_panic(fault.try_into()));
        self
    }

    /// Serves a protocol of your own, too, on a port of its own.
    pub fn service<P: Protocol + 'static>(
        mut self,
        name: impl Into<String>,
        make: impl FnMut(&Accepted) -> P + Send + 'static,
    ) -> Builder {
        self.services.push((name.into(), Box::new(|reactor| on_any_port(reactor, make))));
        self
    }

    /// Serves a protocol of your own on a Unix socket. A client connects to its path with
    /// `UnixStream::connect`.
    ///
    /// A `reset` needs TCP: here its client reads EOF. `refuse` removes the path, so its clients get
    /// `ENOENT`.
    pub fn service_at<P: Protocol>(
        mut self,
        name: impl Into<String>,
        path: impl Into<PathBuf>,
        make: impl FnMut(&Accepted) -> P + Send + 'static,
    ) -> Builder {
        let addr = Address::from(path.into());
        let listen: Listen = Box::new(move |reactor| {
            reactor.listen_with(addr.clone(), ListenOptions::default(), make).map(|_| addr)
        });
        self.services.push((name.into(), listen));
        self
    }

    /// Starts the server. When this returns, every port is bound.
    ///
    /// # Panics
    /// If that fails, or a fault is for a service that is not there.
    pub fn start(self) -> TestServer {
        let Builder { clock, seed, limits, keeps_received, is_manual, faults, services, recording } =
            self;
        let plan = Plan::new(seed);
        let hand = is_manual.then(Hand::new);
        let mut listens: Vec<(String, Listen)> = vec![
            ("daytime".into(), Box::new(move |reactor| on_any_port(reactor, daytime(clock)))),
            ("echo".into(), Box::new(|reactor| on_any_port(reactor, echo()))),
        ];
        listens.extend(services);
        let names: Vec<&str> = listens.iter().map(|(name, _)| &**name).collect();
        let recording = recording.map(|recording| {
            let recorder = recording.begin(&names);
            (recording, recorder)
        });
        let recorder = recording.as_ref().map(|(_, recorder)| recorder.clone());
        let book = match recorder.clone() {
            Some(recorder) => {
                Book::and_read_by(KEPT, keeps_received, move |entry| entry.record(&recorder))
            }
            None if keeps_received => Book::with_received(KEPT),
            None => Book::new(KEPT),
        };
        for fault in faults {
            or_panic(fault.check_service(&names));
            or_panic(plan.add(fault));
        }
        let make = {
            let (plan, book, hand) = (plan.clone(), book.clone(), hand.clone());
            let recorder = recorder.clone();
            move || {
                let timed = Timed::new(Mio::new(limits.events)?, hand);
                let kernel = Faulty::new(Logged::new(timed, &book), &plan, &book);
                Ok(Reactor::with_kernel(Recorded::new(kernel, recorder, &limits)?, limits))
            }
        };
        let naming = book.clone();
        let started = Background::start_on(make, move |reactor| {
            let bind = |(name, listen): (String, Listen)| {
                naming.serving(&name);
                recorder.iter().for_each(|recorder| recorder.serving(&name));
                Ok((name, listen(reactor)?))
            };
            listens.into_iter().map(bind).collect::<io::Result<Vec<_>>>()
        });
        match started {
            Ok((background, places)) => {
                let (handle, expected) = (background.handle().clone(), Mutex::default());
                let background = Some(background);
                TestServer { background, handle, plan, book, hand, places, expected, recording }
            }
            Err(error) => {
                panic!("cannot start the test server: {error}; see ulimit -n and ulimit -u")
            }
        }
    }
}

impl Recording {
    /// Creates the file.
    fn begin(&self, services: &[&str]) -> Recorder {
        let recorder = Recorder::create(&self.path).unwrap_or_else(|error| {
            panic!(
                "cannot create the recording {}: {error}; name a file in a directory that exists",
                self.path.display()
            )
        });
        recorder.record_bytes(self.bytes).services(services.iter().copied())
    }
}

fn on_any_port<P: Protocol>(
    reactor: &mut Reactor<TestKernel>,
    make: impl FnMut(&Accepted) -> P + 'static,
) -> io::Result<Address> {
    reactor.listen((Ipv4Addr::LOCALHOST, 0), make).map(Address::from)
}
