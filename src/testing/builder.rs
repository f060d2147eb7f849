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
use crate::services::{Clock, Zone, daytime, echo};

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
        let Builder { faults, services, .. } = self;
        let book = if keeps_received { Book::with_received(KEPT) } else { Book::new(KEPT) };
        let plan = if ignores_probes { Plan::ignoring_probes(seed) } else { Plan::new(seed) };
        let manual_clock = is_manual.then(ManualClock::new);
        let mut listens: Vec<(String, Listen)> = vec![
            ("daytime".into(), Box::new(move |reactor| on_any_port(reactor, daytime(clock)))),
            ("echo".into(), Box::new(|reactor| on_any_port(reactor, echo()))),
        ];
        for (name, listen) in services {
            let is_taken = listens.iter().any(|(taken, _)| *taken == name);
            assert!(!is_taken, "two services are named {name:?}: choose another name for yours");
            listens.push((name, listen));
        }
        let make = {
            let (plan, book, manual_clock) = (plan.clone(), book.clone(), manual_clock.clone());
            move || {
                let timed = Timed::new(Mio::new(limits.events)?, manual_clock);
                let kernel = Faulty::new(Logged::new(timed, &book), &plan, &book);
                Ok(Reactor::with_kernel(kernel, limits))
            }
        };
        let naming = book.clone();
        let started = Background::start_on(make, move |reactor| {
            let bind = |(name, listen): (String, Listen)| {
                naming.serving(&name);
                Ok((name, listen(reactor)?))
            };
            listens.into_iter().map(bind).collect::<io::Result<Vec<_>>>()
        });
        match started {
            Ok((background, places)) => {
                let (handle, expected) = (background.handle().clone(), Mutex::default());
                let background = Some(background);
                let server =
                    TestServer { background, handle, plan, book, manual_clock, places, expected };
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

fn on_any_port<P: Protocol>(
    reactor: &mut Reactor<TestKernel>,
    make: impl FnMut(&Accepted) -> P + 'static,
) -> io::Result<Address> {
    reactor.listen((Ipv4Addr::LOCALHOST, 0), make).map(Address::from)
}
