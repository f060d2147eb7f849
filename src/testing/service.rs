//! [`Service`]: one service of a test server, its faults and its ledgers.

use std::fmt;
use std::future::{Future, poll_fn};
use std::net::{SocketAddr, TcpStream};
use std::ops::{Bound, RangeBounds};
use std::sync::PoisonError;
use std::time::Duration;

use super::fault::{Fault, Who};
use super::guard::{Guard, Once};
use super::ledger::Ledger;
use super::server::{Expectation, PATIENCE, TestServer, or_panic};
use crate::protocol::Address;
use crate::record::UPSTREAM;

/// How long a client of [`Service::connect`] waits for a read or a write.
const DEADLINE: Duration = Duration::from_secs(30);

/// One service of a [`TestServer`].
#[derive(Debug, Clone, Copy)]
pub struct Service<'a> {
    pub(super) server: &'a TestServer,
    pub(super) name: &'a str,
    pub(super) addr: &'a Address,
}

impl<'a> Service<'a> {
    /// Returns the address at which it listens.
    ///
    /// # Panics
    /// If it listens on a Unix socket.
    #[track_caller]
    pub fn addr(&self) -> SocketAddr {
        let (name, addr) = (self.name, self.addr);
        match addr.inet() {
            Some(addr) => addr,
            None => {
                panic!("{name} listens on {addr}: connect to its path with UnixStream::connect")
            }
        }
    }

    /// Returns the server's side of a proxy: its faults are what the server experiences, and its ledgers
    /// have the ids of the clients'. Its address is that of the server.
    ///
    /// # Panics
    /// If this is not a proxy.
    #[track_caller]
    pub fn upstream(&self) -> Service<'a> {
        self.server.service(&format!("{}{UPSTREAM}", self.name))
    }

    /// Returns a client: a plain blocking socket that gives up after 30 seconds of silence.
    ///
    /// # Panics
    /// If it cannot connect, or if the service listens on a Unix socket.
    #[track_caller]
    pub fn connect(&self) -> TcpStream {
        let addr = self.addr();
        let connect = || {
            // `connect_timeout` reads SO_ERROR, and would report a reset that follows at once.
            let stream = TcpStream::connect(addr)?;
            stream.set_read_timeout(Some(DEADLINE))?;
            stream.set_write_timeout(Some(DEADLINE))?;
            std::io::Result::Ok(stream)
        };
        match connect() {
            Ok(stream) => stream,
            Err(error) => panic!("cannot connect to {}: {error}", self.name),
        }
    }

    /// Adds a fault for the next connection. Several such faults queue up, one per connection. A fault
    /// that no connection has got when the server is dropped fails the test.
    ///
    /// # Panics
    /// If the text is not a fault, or names connections.
    #[track_caller]
    #[doc(alias("enqueue", "willReturn"))]
    pub fn once<F: TryInto<Fault, Error: fmt::Display>>(&self, fault: F) -> Once<'a> {
        Once { server: self.server, id: self.add(fault, Who::Once) }
    }

    /// Adds a fault for every connection, open ones too, until the guard is dropped. When this returns,
    /// the fault acts on each connection that is open. If its protocol has paused reading, the fault
    /// acts at the next read or write.
    ///
    /// A connection that the fault has slowed or silenced goes on when the guard is dropped.
    ///
    /// # Panics
    /// If the text is not a fault, or names connections.
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

    /// Waits for the next connection to end, and returns its ledger. Each is returned once, in the
    /// order in which they ended.
    ///
    /// # Panics
    /// If none ends within 5 seconds. The message lists the connections, those that are open too, the
    /// faults, and the next step.
    #[track_caller]
    #[doc(alias("takeRequest", "verify"))]
    pub fn ended(&self) -> Ledger {
        self.ended_within(PATIENCE)
    }

    /// Like [`ended`](Service::ended), with another limit on the wait.
    ///
    /// # Panics
    /// If none ends within `limit`.
    #[track_caller]
    pub fn ended_within(&self, limit: Duration) -> Ledger {
        if let Some(ledger) = self.server.book.next_ended(self.name, limit) {
            return ledger;
        }
        let (advice, table) = (self.server.advice(self.name), self.server.table());
        panic!("no connection to {} ended within {limit:?}: {advice}\n{table}", self.name)
    }

    /// Like [`ended`](Service::ended), without waiting: returns `None` if no other connection has
    /// ended.
    pub fn try_ended(&self) -> Option<Ledger> {
        self.server.book.next_ended(self.name, Duration::ZERO)
    }

    /// Like [`ended`](Service::ended), as a future that any runtime can poll.
    ///
    /// It has no limit of its own: wrap it in the timeout of your runtime. It does not keep the server:
    /// if the server is dropped and all its ledgers were returned, the future stays pending.
    pub fn ended_async(&self) -> impl Future<Output = Ledger> + Send + use<> {
        let (book, name) = (self.server.book.clone(), self.name.to_owned());
        poll_fn(move |cx| book.poll_ended(&name, cx))
    }

    /// Returns the ledgers of the connections that are open, as of now, by id.
    pub fn open(&self) -> Vec<Ledger> {
        let mut open = self.server.book.open();
        open.retain(|ledger| ledger.service == self.name);
        open
    }

    /// Returns how many connections were accepted so far.
    #[doc(alias("getRequestCount", "requestCount"))]
    pub fn accepted(&self) -> u64 {
        self.server.book.accepted(self.name)
    }

    /// Expects this many connections by the time the server is dropped.
    ///
    /// The drop panics if there were fewer or more.
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
