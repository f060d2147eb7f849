//! What the rungs share: clients on one reactor, and waits with a bound.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use super::caller::{Call, Client, End, Over, plain};
use super::plan::Rule;
use super::report::{Bound, Failure, Outcome};
use crate::client::is_exhausted;
use crate::limits::Limits;
use crate::reactor::Reactor;

/// Without any progress for this long, a client has sent all that the server takes.
pub(super) const STILL: Duration = Duration::from_millis(500);
/// Bound of one rung as a multiple of the timeout, for a server that makes steady progress.
pub(super) const RUNG_BOUND: u32 = 10;
/// Connections made at once: fewer than the smallest usual backlog (5).
const BATCH: usize = 4;
/// Smallest crowd that still checks the rule.
const ENOUGH: usize = 100;

/// Why a rung was not reached.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The server broke a rule: its rung's, unless another is named.
    Stopped { sent: String, came: String, rule: Option<&'static Rule> },
    /// A bound of ours ended the rung before the server was done.
    TimedOut { sent: String, came: String },
    /// The server accepts no connection.
    Absent(String),
    /// This machine cannot make another connection.
    Exhausted { why: String, advice: &'static str },
    /// Our own loop failed.
    Loop(io::Error),
}

impl Trouble {
    pub(super) fn stopped(sent: impl Into<String>, came: impl Into<String>) -> Trouble {
        Trouble::Stopped { sent: sent.into(), came: came.into(), rule: None }
    }

    /// This machine has no local port, descriptor or memory left.
    pub(super) fn exhausted(error: &io::Error) -> Trouble {
        let (why, advice) = match error.raw_os_error() {
            Some(libc::EADDRNOTAVAIL) => (
                "no free local port".into(),
                "wait a minute until used ports become free, or widen the range: \
                 sysctl net.ipv4.ip_local_port_range",
            ),
            Some(libc::EMFILE) => {
                ("no free file descriptor".into(), "raise the limit of open files: ulimit -n 4096")
            }
            _ => (plain(error), "close other programs on this machine"),
        };
        Trouble::Exhausted { why, advice }
    }

    /// Names another rule than that of the rung.
    pub(super) fn breaking(self, other: &'static Rule) -> Trouble {
        match self.with_absence_told() {
            Trouble::Stopped { sent, came, .. } => {
                Trouble::Stopped { sent, came, rule: Some(other) }
            }
            trouble => trouble,
        }
    }

    /// Adds what happened before.
    pub(super) fn after(self, what: &str) -> Trouble {
        match self.with_absence_told() {
            Trouble::Stopped { sent, came, rule } => {
                Trouble::Stopped { sent: format!("{sent}; {what}"), came, rule }
            }
            Trouble::TimedOut { sent, came } => {
                Trouble::TimedOut { sent: format!("{sent}; {what}"), came }
            }
            trouble => trouble,
        }
    }

    fn with_absence_told(self) -> Trouble {
        match self {
            Trouble::Absent(error) => Trouble::stopped("nothing", no_connection(&error)),
            trouble => trouble,
        }
    }

    /// Converts into what the report says of a rung with this rule and this bound.
    pub(super) fn into_outcome(self, own: &'static Rule, bound: Bound) -> io::Result<Outcome> {
        match self.with_absence_told() {
            Trouble::Stopped { sent, came, rule } => {
                let rule = rule.unwrap_or(own);
                let failure = Failure { sent, came, rule: rule.number, says: rule.says };
                Ok(Outcome::Stopped(failure))
            }
            Trouble::TimedOut { sent, came } => Ok(Outcome::TimedOut { sent, came, bound }),
            Trouble::Exhausted { why, advice } => Ok(Outcome::NotTried { why, advice }),
            Trouble::Absent(error) => Err(io::Error::other(error)),
            Trouble::Loop(error) => Err(error),
        }
    }
}

/// A crowd of clients; if this machine has no room for all of them, also why.
pub(super) type Crowd = (Vec<Client>, Option<String>);

/// A note on a rung that was reached, or why it was not.
pub(super) type Climbed = Result<Option<String>, Trouble>;

/// Our side: one reactor and its bounds.
#[derive(Debug)]
pub(super) struct Lab {
    reactor: Reactor,
    pub(super) addr: SocketAddr,
    pub(super) timeout: Duration,
    /// The end of the rung.
    until: Instant,
    /// The end of the climb and its bound, if it has one.
    deadline: Option<(Instant, Duration)>,
    /// Number of clients so far.
    pub(super) count: u64,
}

impl Lab {
    pub(super) fn new(
        addr: SocketAddr,
        timeout: Duration,
        deadline: Option<(Instant, Duration)>,
    ) -> io::Result<Lab> {
        // The rungs judge silence: only they know which side has to send.
        let limits = Limits {
            connecting: timeout,
            idle: None,
            stall: None,
            mailbox: 4096,
            ..Limits::default()
        };
        let reactor = Reactor::with_limits(limits)?;
        Ok(Lab { reactor, addr, timeout, until: Instant::now(), deadline, count: 0 })
    }

    /// Starts the clock of a rung.
    pub(super) fn begin(&mut self) {
        let until = Instant::now() + self.timeout * RUNG_BOUND;
        self.until = self.deadline.map_or(until, |(deadline, _)| until.min(deadline));
    }

    /// The bound that ends the current rung.
    pub(super) fn bound(&self) -> Bound {
        match self.deadline {
            Some((at, deadline)) if at <= self.until => Bound::Climb { deadline },
            _ => Bound::Rung { timeout: self.timeout },
        }
    }

    /// Time left for the current rung.
    pub(super) fn rest(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// Starts to connect. Fails if this machine has no descriptor or port left.
    fn call(&mut self, call: Call) -> io::Result<Client> {
        self.count += 1;
        let (mut client, caller) = Client::new(call);
        match self.reactor.connect(self.addr, caller) {
            Ok(id) => client.id = Some(id),
            Err(error) if is_exhausted(&error) && is_reachable(self.addr) => return Err(error),
            // The reactor has passed the error to the client.
            Err(_) => {}
        }
        Ok(client)
    }

    /// Connects a client.
    pub(super) fn meet(&mut self, call: Call) -> Result<Client, Trouble> {
        let client = self.call(call).map_err(|error| Trouble::exhausted(&error))?;
        self.wait(&[&client], self.timeout, || {
            let call = client.call();
            call.is_open || call.over.is_some()
        })?;
        if let Some(Over::NotConnected(error)) = &client.call().over {
            return Err(Trouble::Absent(error.clone()));
        }
        if !client.call().is_open && client.call().over.is_none() {
            return Err(match self.rest() {
                Duration::ZERO => self.trouble(&client),
                _ => Trouble::Absent("timed out".into()),
            });
        }
        Ok(client)
    }

    /// Connects `size` clients, and waits for the answers to those that send something. If this
    /// machine has no room for all of them, returns fewer, but at least 100. The others make room for
    /// further clients: they end as `leaving` says, or at the server's EOF.
    pub(super) fn crowd(
        &mut self,
        size: usize,
        leaving: End,
        mut make: impl FnMut(usize) -> Call,
    ) -> Result<Crowd, Trouble> {
        let mut crowd: Vec<Client> = Vec::with_capacity(size);
        let mut lack = None;
        while lack.is_none() && crowd.len() < size {
            let (begin, mut batch) = (crowd.len(), Vec::new());
            for at in begin..(begin + BATCH).min(size) {
                match self.call(make(at)) {
                    Ok(client) => batch.push(client),
                    Err(error) => lack = Some(error),
                }
            }
            self.settle(&batch).map_err(|(lost, trouble)| {
                trouble.after(&format!("client {} of {size} at once", begin + lost + 1))
            })?;
            crowd.extend(batch);
        }
        let Some(error) = lack else {
            return Ok((crowd, None));
        };
        let count = crowd.len();
        let stay = Some(count.saturating_sub(BATCH)).filter(|stay| *stay >= ENOUGH);
        self.leave(&crowd.split_off(stay.unwrap_or(0)), leaving)?;
        match (Trouble::exhausted(&error), stay) {
            (Trouble::Exhausted { why, .. }, Some(_)) => Ok((crowd, Some(why))),
            (Trouble::Exhausted { why, advice }, None) => {
                let why = format!("{why} after {count} clients of {size} (at least {ENOUGH})");
                Err(Trouble::Exhausted { why, advice })
            }
            (trouble, _) => Err(trouble),
        }
    }

    /// Waits until these clients are connected, and answered if they sent something. The error names
    /// the first that is not.
    fn settle(&mut self, batch: &[Client]) -> Result<(), (usize, Trouble)> {
        let is_well = |client: &Client| client.call().is_open && client.call().is_echoed();
        let all: Vec<_> = batch.iter().collect();
        self.wait(&all, self.timeout, || {
            all.iter().all(|client| is_well(client) || client.call().is_done_for())
        })
        .map_err(|trouble| (0, trouble))?;
        match batch.iter().position(|client| !is_well(client)) {
            Some(lost) => Err((lost, self.trouble(&batch[lost]))),
            None => Ok(()),
        }
    }

    /// Ends these conversations and waits until they are over.
    fn leave(&mut self, clients: &[Client], end: End) -> Result<(), Trouble> {
        for client in clients {
            self.tell(client, |call| {
                call.is_deaf = false;
                call.end = end;
            });
        }
        let all: Vec<_> = clients.iter().collect();
        let is_over = || clients.iter().all(|client| client.call().over.is_some());
        self.wait(&all, self.timeout, is_over).map(drop)
    }

    /// Changes what a client does.
    pub(super) fn tell(&mut self, client: &Client, change: impl FnOnce(&mut Call)) {
        change(&mut client.call_mut());
        if let Some(id) = client.id {
            // The mailbox has room for all clients.
            let _ = self.reactor.handle().wake_connection(id);
        }
    }

    /// Turns the loop until `is_so`, or until these connections make no progress for `silence`, or until
    /// the bound of the rung. Returns whether `is_so`.
    pub(super) fn wait(
        &mut self,
        clients: &[&Client],
        silence: Duration,
        mut is_so: impl FnMut() -> bool,
    ) -> Result<bool, Trouble> {
        let moves = || clients.iter().map(|client| client.call().moves()).sum::<u64>();
        let (mut seen, mut deadline) = (moves(), Instant::now() + silence);
        loop {
            if is_so() {
                return Ok(true);
            }
            let now = Instant::now();
            if moves() != seen {
                (seen, deadline) = (moves(), now + silence);
            }
            let rest = deadline.min(self.until).saturating_duration_since(now);
            if rest.is_zero() {
                return Ok(false);
            }
            self.reactor.turn(Some(rest)).map_err(Trouble::Loop)?;
        }
    }

    /// Why this client did not get what it waited for.
    pub(super) fn trouble(&self, client: &Client) -> Trouble {
        let call = client.call();
        if self.rest().is_zero() && !call.is_done_for() {
            return Trouble::TimedOut { sent: call.deeds(), came: call.came(None) };
        }
        Trouble::stopped(call.deeds(), call.came(Some(self.timeout)))
    }

    /// Waits until the server has returned everything that this client sent.
    pub(super) fn echoed(&mut self, client: &Client) -> Result<(), Trouble> {
        self.wait(&[client], self.timeout, || {
            let call = client.call();
            call.is_echoed() || call.is_done_for()
        })?;
        if client.call().is_echoed() { Ok(()) } else { Err(self.trouble(client)) }
    }

    /// Waits for the server's EOF, after which nothing may be missing or left over.
    pub(super) fn ended(&mut self, client: &Client) -> Result<(), Trouble> {
        self.wait(&[client], self.timeout, || client.call().is_done_for())?;
        let is_well = {
            let call = client.call();
            call.has_eof && !call.is_wrong() && !matches!(call.over, Some(Over::Broken(_)))
        };
        if is_well { Ok(()) } else { Err(self.trouble(client)) }
    }

    /// Sends without reading, until everything is sent or the server takes no more.
    pub(super) fn fill(&mut self, client: &Client) -> Result<(), Trouble> {
        self.wait(&[client], STILL.min(self.timeout), || {
            let call = client.call();
            call.queued == call.total || call.over.is_some()
        })
        .map(drop)
    }

    /// Closes a conversation, and gives the server a moment to close its side.
    pub(super) fn part(&mut self, client: &Client) -> Result<(), Trouble> {
        self.tell(client, |call| {
            call.is_deaf = false;
            call.stop_talking();
            call.end = End::Close;
        });
        self.wait(&[client], STILL, || client.call().over.is_some()).map(drop)
    }
}

/// Whether this machine has an address that can reach `addr`. If it has none, the error of connect(2)
/// is that of a machine without a free port.
fn is_reachable(addr: SocketAddr) -> bool {
    let any = if addr.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let probe = UdpSocket::bind(any).and_then(|socket| socket.connect(addr));
    !probe.is_err_and(|error| error.kind() == ErrorKind::AddrNotAvailable)
}

pub(super) fn no_connection(error: &str) -> String {
    format!("no connection: {error}")
}
