//! [`Builder`]: configures and starts a [`TestServer`].

use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Mutex;

use super::fault::Fault;
use super::faulty::Faulty;
use super::ledger::Book;
use super::logged::Logged;
use super::manual::{ManualClock, Timed};
use super::plan::Plan;
use super::server::{TestKernel, TestServer, or_panic};
use crate::background::Background;
use crate::kernel::Mio;
use crate::limits::Limits;
use crate::listener::ListenOptions;
use crate::protocol::{Accepted, Address, Protocol};
use crate::reactor::Reactor;
use crate::record::{Recorded, Recorder, UPSTREAM};
use crate::services::{Clock, Upstream, Zone, daytime, echo, relay};

/// The second of the tutorial that the two services come from: Wed Jan 29 19:14:15 2014.
const TUTORIAL: i64 = 1_391_022_855;
/// How many ledgers of ended connections a server keeps.
const KEPT: usize = 10_000;

type Listen = Box<dyn FnOnce(&mut Reactor<TestKernel>) -> io::Result<Address> + Send>;

/// Configures a [`TestServer`]: see [`TestServer::builder`].
#[must_use = "nothing is served before start()"]
pub struct Builder {
    clock: Clock,
    seed: u64,
    limits: Limits,
    keeps_received: bool,
    is_manual: bool,
    ignores_probes: bool,
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
            ignores_probes: false,
            faults: Vec::new(),
            services: Vec::new(),
            recording: None,
        }
    }

    /// Sets the clock of daytime. Default: one that stands still at 2014-01-29T19:14:15Z.
    pub fn clock(self, clock: Clock) -> Builder {
        Builder { clock, ..self }
    }

    /// Sets the time zone of daytime. Default: UTC.
    pub fn zone(self, zone: Zone) -> Builder {
        Builder { clock: self.clock.in_zone(zone), ..self }
    }

    /// Sets the seed of all random choices, such as `10%` and jitter. Default: 0. A failed test prints
    /// it.
    pub fn seed(self, seed: u64) -> Builder {
        Builder { seed, ..self }
    }

    /// Sets the limits of the loop.
    pub fn limits(self, limits: Limits) -> Builder {
        Builder { limits, ..self }
    }

    /// Keeps the bytes that clients send in [`Ledger::received`](super::Ledger::received).
    pub fn keep_received(self) -> Builder {
        Builder { keeps_received: true, ..self }
    }

    /// Lets the time of delays, gaps and timeouts pass only in [`TestServer::advance`]. Bytes that no
    /// fault holds back are served without it.
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

    /// Gives a fault for one connection to a connection only with its first byte in either direction. A
    /// readiness probe that connects and closes then takes none.
    pub fn ignore_probes(self) -> Builder {
        Builder { ignores_probes: true, ..self }
    }

    /// Adds a fault that is in force from the start: `echo #3: reset after 5 bytes`.
    ///
    /// # Panics
    /// If the text is not a fault.
    #[track_caller]
    pub fn fault<F: TryInto<Fault, Error: fmt::Display>>(mut self, fault: F) -> Builder {
        self.faults.push(or_panic(fault.try_into()));
        self
    }

    /// Also serves a protocol of your own, on a free port.
    pub fn service<P: Protocol + 'static>(
        self,
        name: impl Into<String>,
        make: impl FnMut(&Accepted) -> P + Send + 'static,
    ) -> Builder {
        self.service_with(name, || make)
    }

    /// Like [`service`](Builder::service), with a factory that `build` creates on the server's thread.
    ///
    /// The connections can share what is not `Send`, such as an `Rc`:
    ///
    /// ```
    /// use std::{cell::Cell, io::Read, rc::Rc};
    /// use campanile::testing::TestServer;
    /// use campanile::{Accepted, Outbox, Protocol};
    ///
    /// struct Counter(Rc<Cell<u8>>);
    ///
    /// impl Protocol for Counter {
    ///     fn on_open(&mut self, out: &mut Outbox) {
    ///         self.0.set(self.0.get() + 1);
    ///         out.send(&[self.0.get()]);
    ///         out.close();
    ///     }
    ///     fn on_data(&mut self, _: &[u8], _: &mut Outbox) {}
    /// }
    ///
    /// let server = TestServer::builder()
    ///     .service_with("counter", || {
    ///         let count = Rc::new(Cell::new(0));
    ///         move |_: &Accepted| Counter(Rc::clone(&count))
    ///     })
    ///     .start();
    /// for expected in 1..=2 {
    ///     let mut byte = [0];
    ///     server.service("counter").connect().read_exact(&mut byte)?;
    ///     assert_eq!(byte, [expected]);
    /// }
    /// # std::io::Result::Ok(())
    /// ```
    pub fn service_with<P: Protocol + 'static, F: FnMut(&Accepted) -> P + 'static>(
        mut self,
        name: impl Into<String>,
        build: impl FnOnce() -> F + Send + 'static,
    ) -> Builder {
        self.services.push((name.into(), Box::new(|reactor| on_any_port(reactor, build()))));
        self
    }

    /// Also serves a proxy in front of a server of your own, on a free port.
    ///
    /// Its faults act on the client's side, `server.proxy("db").once("reset after 5 bytes")`, or on the
    /// server's: `server.proxy("db").upstream().always("deaf")`. Each side has its ledgers, and both
    /// sides of one conversation have the same id.
    ///
    /// ```
    /// use std::io::{Read, Write};
    /// use campanile::testing::TestServer;
    ///
    /// let database = TestServer::start(); // a server of your own
    /// let server = TestServer::builder().proxy("db", database.echo().addr()).start();
    /// server.proxy("db").upstream().once("deaf after 5 bytes in");
    ///
    /// let mut client = server.proxy("db").connect();
    /// client.write_all(b"query")?;
    /// client.read_exact(&mut [0; 5])?;
    /// client.write_all(b"another")?;
    /// client.set_read_timeout(Some(std::time::Duration::from_millis(50)))?;
    /// assert!(client.read(&mut [0]).is_err(), "its answer stays in the server");
    ///
    /// let (client_side, server_side) = (server.proxy("db").open(), server.proxy("db").upstream().open());
    /// assert_eq!((client_side[0].id, server_side[0].id), (1, 1));
    /// assert_eq!((client_side[0].bytes_out, server_side[0].bytes_in), (5, 5));
    /// # std::io::Result::Ok(())
    /// ```
    ///
    /// # Panics
    /// If the upstream has no address.
    pub fn proxy(self, name: impl Into<String>, upstream: impl Into<Upstream>) -> Builder {
        let (name, upstream) = (name.into(), upstream.into());
        let Some(addr) = upstream.addrs().first().cloned() else {
            panic!("the upstream of {name} has no address: give it one")
        };
        let mut builder = self.service_with(name.clone(), move || relay(upstream));
        // Faults and ledgers name it, but nothing listens there.
        builder.services.push((name + UPSTREAM, Box::new(|_| Ok(addr))));
        builder
    }

    /// Also serves a protocol of your own on a Unix socket. A client connects to its path with
    /// `UnixStream::connect`.
    ///
    /// A `reset` needs TCP: on a Unix socket the client reads EOF. On Linux it gets `ECONNRESET` if the
    /// server has left some of its bytes unread. `refuse` removes the path, so its clients get `ENOENT`.
    /// `unreachable` needs TCP.
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
    /// If a port cannot be bound, the thread cannot be created, two services have the same name, or a fault
    /// names a service that this server does not have.
    #[track_caller]
    pub fn start(self) -> TestServer {
        let Builder { clock, seed, limits, keeps_received, is_manual, ignores_probes, .. } = self;
        let Builder { faults, services, recording, .. } = self;
        let plan = if ignores_probes { Plan::ignoring_probes(seed) } else { Plan::new(seed) };
        let manual_clock = is_manual.then(ManualClock::new);
        let listens = all_services(clock, services);
        let names: Vec<&str> = listens.iter().map(|(name, _)| &**name).collect();
        let recorder = recording.as_ref().map(|recording| recording.begin(&names));
        let recording = recording.zip(recorder.clone());
        let book = book(keeps_received, recorder.clone());
        let make = {
            let (plan, book, manual_clock) = (plan.clone(), book.clone(), manual_clock.clone());
            let recorder = recorder.clone();
            move || {
                let timed = Timed::new(Mio::new(limits.events)?, manual_clock);
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
                let server = TestServer {
                    background,
                    handle,
                    plan,
                    book,
                    manual_clock,
                    places,
                    expected,
                    recording,
                };
                // No client knows the ports yet.
                for fault in faults {
                    server.fault(fault);
                }
                server
            }
            Err(error) => {
                panic!("cannot start the test server: {error}; see ulimit -n and ulimit -u")
            }
        }
    }
}

/// Returns both services and those of the test. Panics if two have the same name.
#[track_caller]
fn all_services(clock: Clock, own: Vec<(String, Listen)>) -> Vec<(String, Listen)> {
    let mut all: Vec<(String, Listen)> = vec![
        ("daytime".into(), Box::new(move |reactor| on_any_port(reactor, daytime(clock)))),
        ("echo".into(), Box::new(|reactor| on_any_port(reactor, echo()))),
    ];
    for (name, listen) in own {
        let is_taken = all.iter().any(|(taken, _)| *taken == name);
        assert!(!is_taken, "two services are named {name:?}: choose another name for yours");
        all.push((name, listen));
    }
    all
}

/// Creates the book. If the server is recorded, the faults in it are, too.
fn book(keeps_received: bool, recorder: Option<Recorder>) -> Book {
    match recorder {
        Some(recorder) => {
            Book::and_read_by(KEPT, keeps_received, move |entry| entry.record(&recorder))
        }
        None if keeps_received => Book::with_received(KEPT),
        None => Book::new(KEPT),
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
