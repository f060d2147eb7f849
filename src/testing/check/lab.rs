//! What the rungs share: clients on one reactor, waited for one after the other.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::caller::{Call, Client, End, Over};
use super::plan::Rule;
use super::report::Failure;
use crate::limits::Limits;
use crate::reactor::Reactor;

/// A client that has said everything, and a server that takes no more, are still for so long.
pub(super) const STILL: Duration = Duration::from_millis(250);
/// A rung may take so many times the timeout, however steadily something trickles.
pub(super) const PATIENCE: u32 = 10;
/// Connections that are being made at once: fewer than the smallest usual backlog (5).
const BATCH: usize = 4;

/// Why a rung was not reached.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The server broke a rule: its rung's, unless another is named.
    Stopped { sent: String, came: String, rule: Option<&'static Rule> },
    /// Nobody could be connected to.
    Absent(String),
    /// Our own loop failed.
    Loop(io::Error),
}

impl Trouble {
    pub(super) fn stopped(sent: impl Into<String>, came: impl Into<String>) -> Trouble {
        Trouble::Stopped { sent: sent.into(), came: came.into(), rule: None }
    }

    /// The same, told of another rule than that of its rung.
    pub(super) fn breaking(self, other: &'static Rule) -> Trouble {
        match self.told() {
            Ok((sent, came, _)) => Trouble::Stopped { sent, came, rule: Some(other) },
            Err(error) => Trouble::Loop(error),
        }
    }

    /// The same, with what was done besides.
    pub(super) fn after(self, what: &str) -> Trouble {
        match self.told() {
            Ok((sent, came, rule)) => {
                Trouble::Stopped { sent: format!("{sent}; {what}"), came, rule }
            }
            Err(error) => Trouble::Loop(error),
        }
    }

    pub(super) fn into_failure(self, own: &'static Rule) -> io::Result<Failure> {
        let (sent, came, other) = self.told()?;
        let rule = other.unwrap_or(own);
        Ok(Failure { sent, came, rule: rule.number, says: rule.says })
    }

    /// What was sent, what came, and the rule if it is not the rung's own. Our own trouble is an
    /// error.
    fn told(self) -> io::Result<(String, String, Option<&'static Rule>)> {
        match self {
            Trouble::Stopped { sent, came, rule } => Ok((sent, came, rule)),
            Trouble::Absent(error) => {
                Ok(("nothing".into(), format!("no connection: {error}"), None))
            }
            Trouble::Loop(error) => Err(error),
        }
    }
}

/// What a rung says of how it went, if there is something to say.
pub(super) type Climbed = Result<Option<String>, Trouble>;

/// Our side: one reactor, and how long it waits.
#[derive(Debug)]
pub(super) struct Lab {
    reactor: Reactor,
    pub(super) addr: SocketAddr,
    pub(super) timeout: Duration,
    /// When the rung must have been climbed.
    until: Instant,
    /// Clients so far.
    pub(super) count: u64,
}

impl Lab {
    pub(super) fn new(addr: SocketAddr, timeout: Duration) -> io::Result<Lab> {
        // Silence is judged by the rungs: only they know who owes something to whom.
        let limits = Limits {
            connecting: timeout,
            idle: None,
            stall: None,
            mailbox: 4096,
            ..Limits::default()
        };
        let reactor = Reactor::with_limits(limits)?;
        Ok(Lab { reactor, addr, timeout, until: Instant::now(), count: 0 })
    }

    /// The time of a rung begins.
    pub(super) fn begin(&mut self) {
        self.until = Instant::now() + self.timeout * PATIENCE;
    }

    /// Begins to connect. The error is our own machine's: no descriptor, no port is left.
    pub(super) fn call(&mut self, call: Call) -> io::Result<Client> {
        self.count += 1;
        let (mut client, caller) = Client::new(call);
        match self.reactor.connect(self.addr, caller) {
            Ok(id) => client.id = Some(id),
            Err(error) if is_exhausted(&error) => return Err(error),
            // The client has heard of it.
            Err(_) => {}
        }
        Ok(client)
    }

    /// A client whose connection stands.
    pub(super) fn meet(&mut self, call: Call) -> Result<Client, Trouble> {
        let client = self.call(call).map_err(Trouble::Loop)?;
        self.wait(&[&client], self.timeout, || {
            let call = client.call();
            call.is_open || call.over.is_some()
        })?;
        if let Some(Over::NotConnected(error)) = &client.call().over {
            return Err(Trouble::Absent(error.clone()));
        }
        if !client.call().is_open && client.call().over.is_none() {
            return Err(Trouble::Absent("timed out".into()));
        }
        Ok(client)
    }

    /// So many clients at once, all of them connected, and answered if they said something. Fewer if
    /// our own machine has no more room.
    pub(super) fn crowd(
        &mut self,
        size: usize,
        mut make: impl FnMut(usize) -> Call,
    ) -> Result<Vec<Client>, Trouble> {
        let mut crowd: Vec<Client> = Vec::with_capacity(size);
        let mut has_room = true;
        while has_room && crowd.len() < size {
            let (begin, mut batch) = (crowd.len(), Vec::new());
            for at in begin..(begin + BATCH).min(size) {
                match self.call(make(at)) {
                    Ok(client) => batch.push(client),
                    Err(_) => has_room = false,
                }
            }
            let is_well = |client: &Client| client.call().is_open && client.call().is_echoed();
            let settled = |client: &Client| is_well(client) || client.call().is_done_for();
            let all: Vec<_> = batch.iter().collect();
            self.wait(&all, self.timeout, || batch.iter().all(settled))?;
            if let Some(lost) = batch.iter().position(|client| !is_well(client)) {
                let which = format!("client {} of {size} at once", begin + lost + 1);
                return Err(self.trouble(&batch[lost]).after(&which));
            }
            crowd.extend(batch);
        }
        if !has_room {
            // Some make room for those who come to see whether they are served.
            for client in crowd.split_off(crowd.len().saturating_sub(BATCH)) {
                self.part(&client)?;
            }
        }
        Ok(crowd)
    }

    /// Changes what a client is to do.
    pub(super) fn tell(&mut self, client: &Client, change: impl FnOnce(&mut Call)) {
        change(&mut client.call_mut());
        if let Some(id) = client.id {
            // The mailbox has room for every client there is.
            let _ = self.reactor.handle().wake_connection(id);
        }
    }

    /// Turns until that is so, or nothing has moved on these connections for `patience`, or the
    /// time of the rung is over; returns whether it is so.
    pub(super) fn wait(
        &mut self,
        clients: &[&Client],
        patience: Duration,
        mut is_so: impl FnMut() -> bool,
    ) -> Result<bool, Trouble> {
        let moves = || clients.iter().map(|client| client.call().moves()).sum::<u64>();
        let (mut seen, mut deadline) = (moves(), Instant::now() + patience);
        loop {
            if is_so() {
                return Ok(true);
            }
            let now = Instant::now();
            if moves() != seen {
                (seen, deadline) = (moves(), now + patience);
            }
            let rest = deadline.min(self.until).saturating_duration_since(now);
            if rest.is_zero() {
                return Ok(false);
            }
            self.reactor.turn(Some(rest)).map_err(Trouble::Loop)?;
        }
    }

    /// Why this client did not get what it was owed.
    pub(super) fn trouble(&self, client: &Client) -> Trouble {
        let call = client.call();
        if Instant::now() >= self.until && !call.is_done_for() {
            let whole = self.timeout * PATIENCE;
            let came =
                call.came(whole).replace(", then silence for ", ", too slowly: not all after ");
            return Trouble::stopped(call.deeds(), came);
        }
        Trouble::stopped(call.deeds(), call.came(self.timeout))
    }

    /// Waits until everything this client has said has come back.
    pub(super) fn echoed(&mut self, client: &Client) -> Result<(), Trouble> {
        self.wait(&[client], self.timeout, || {
            let call = client.call();
            call.is_echoed() || call.is_done_for()
        })?;
        if client.call().is_echoed() { Ok(()) } else { Err(self.trouble(client)) }
    }

    /// Waits for the server's end, after which nothing may be missing or too much.
    pub(super) fn ended(&mut self, client: &Client) -> Result<(), Trouble> {
        self.wait(&[client], self.timeout, || client.call().is_done_for())?;
        let is_well = {
            let call = client.call();
            call.has_eof && !call.is_wrong() && !matches!(call.over, Some(Over::Broken(_)))
        };
        if is_well { Ok(()) } else { Err(self.trouble(client)) }
    }

    /// Says everything to a server whose answer nobody reads, until it takes no more.
    pub(super) fn fill(&mut self, client: &Client) -> Result<(), Trouble> {
        self.wait(&[client], STILL.min(self.timeout), || {
            let call = client.call();
            call.queued == call.total || call.over.is_some()
        })
        .map(drop)
    }

    /// Ends a conversation as one that is satisfied does, and gives the server a moment to agree.
    pub(super) fn part(&mut self, client: &Client) -> Result<(), Trouble> {
        self.tell(client, |call| {
            call.is_deaf = false;
            call.stop_talking();
            call.end = End::Close;
        });
        self.wait(&[client], STILL, || client.call().over.is_some()).map(drop)
    }
}

/// Whether it is our own machine that has no room, and not the server.
fn is_exhausted(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EADDRNOTAVAIL)
    ) || error.kind() == io::ErrorKind::QuotaExceeded
}
