//! The side of the check: clients on one reactor, and waits with a bound.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::slice::from_ref;
use std::time::{Duration, Instant};

use super::client::{Closed, Conversation, End, TestClient};
use super::error::RungError;
use super::report::Bound;
use crate::limits::Limits;
use crate::protocol::Address;
use crate::reactor::Reactor;

/// Without any progress for this long, a client has sent all that the server takes.
const STILL: Duration = Duration::from_millis(500);
/// Bound of one rung as a multiple of the timeout, for a server that makes steady progress.
pub(super) const RUNG_BOUND: u32 = 10;
/// Connections made at once: fewer than the smallest usual backlog (5).
const BATCH: usize = 4;
/// Smallest number of clients at once that still checks the rule.
const ENOUGH: usize = 100;

/// Clients that are connected at once; if this machine has no room for all of them, also why.
pub(super) type Crowd = (Vec<TestClient>, Option<String>);

/// The clients' reactor, and the bounds of the check.
#[derive(Debug)]
pub(super) struct TestSetup {
    reactor: Reactor,
    pub(super) addr: Address,
    pub(super) timeout: Duration,
    /// The end of the rung.
    until: Instant,
    /// The end of the climb and its bound, if it has one.
    deadline: Option<(Instant, Duration)>,
    /// Number of clients so far.
    pub(super) count: u64,
}

impl TestSetup {
    pub(super) fn new(
        addr: Address,
        timeout: Duration,
        deadline: Option<(Instant, Duration)>,
    ) -> io::Result<TestSetup> {
        // Only the rungs know which side has to send, so they bound the silence.
        let limits = Limits::default()
            .connect_timeout(timeout)
            .idle_timeout(None)
            .write_timeout(None)
            .mailbox(4096);
        let reactor = Reactor::with_limits(limits)?;
        Ok(TestSetup { reactor, addr, timeout, until: Instant::now(), deadline, count: 0 })
    }

    /// Starts the clock of a rung.
    pub(super) fn start_rung(&mut self) {
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
    pub(super) fn time_left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// Starts to connect. Fails if this machine has no descriptor or port left.
    fn start_client(&mut self, state: Conversation) -> io::Result<TestClient> {
        self.count += 1;
        let (mut client, protocol) = TestClient::new(state);
        client.id = Some(self.reactor.connect(self.addr.clone(), protocol));
        let exhausted = client.state_mut().exhausted.take();
        match exhausted {
            Some(error) if self.addr.inet().is_none_or(is_reachable) => Err(error),
            _ => Ok(client),
        }
    }

    /// Connects a client.
    pub(super) fn connect(&mut self, state: Conversation) -> Result<TestClient, RungError> {
        let client = self.start_client(state).map_err(|error| RungError::exhausted(&error))?;
        self.wait_until(from_ref(&client), self.timeout, || {
            let state = client.state();
            state.is_open || state.closed.is_some()
        })?;
        if let Some(Closed::NotConnected(error)) = &client.state().closed {
            return Err(RungError::Absent(error.clone()));
        }
        if !client.state().is_open && client.state().closed.is_none() {
            return Err(match self.time_left() {
                Duration::ZERO => self.error_of(&client),
                _ => RungError::Absent("timed out".into()),
            });
        }
        Ok(client)
    }

    /// Connects a client that sends nothing, and closes.
    pub(super) fn probe(&mut self) -> Result<(), RungError> {
        let client = self.connect(Conversation::receiving(b""))?;
        self.close(&client)
    }

    /// Connects `size` clients, and waits for the echoes of those that send something. If this machine
    /// has no room for all of them, returns fewer, but at least 100. The others make room for further
    /// clients: they end as `end` says, or at the server's EOF.
    pub(super) fn connect_many(
        &mut self,
        size: usize,
        end: End,
        mut make: impl FnMut(usize) -> Conversation,
    ) -> Result<Crowd, RungError> {
        let mut crowd: Vec<TestClient> = Vec::with_capacity(size);
        let mut lack = None;
        while lack.is_none() && crowd.len() < size {
            let (first, mut batch) = (crowd.len(), Vec::new());
            for at in first..(first + BATCH).min(size) {
                match self.start_client(make(at)) {
                    Ok(client) => batch.push(client),
                    Err(error) => lack = Some(error),
                }
            }
            self.expect_answers(&batch).map_err(|(lost, error)| {
                error.context(&format!("client {} of {size} at once", first + lost + 1))
            })?;
            crowd.extend(batch);
        }
        let Some(error) = lack else {
            return Ok((crowd, None));
        };
        let count = crowd.len();
        let kept = Some(count.saturating_sub(BATCH)).filter(|kept| *kept >= ENOUGH);
        self.end_all(&crowd.split_off(kept.unwrap_or(0)), end)?;
        match (RungError::exhausted(&error), kept) {
            (RungError::Exhausted { why, .. }, Some(_)) => Ok((crowd, Some(why))),
            (RungError::Exhausted { why, advice }, None) => {
                let why = format!("{why} after {count} clients of {size} (at least {ENOUGH})");
                Err(RungError::Exhausted { why, advice })
            }
            (error, _) => Err(error),
        }
    }

    /// Waits until these clients are connected, and answered if they sent something. The error names
    /// the first that is not.
    fn expect_answers(&mut self, batch: &[TestClient]) -> Result<(), (usize, RungError)> {
        let is_well = |client: &TestClient| client.state().is_open && client.state().is_echoed();
        self.wait_until(batch, self.timeout, || {
            batch.iter().all(|client| is_well(client) || client.state().is_over())
        })
        .map_err(|error| (0, error))?;
        match batch.iter().position(|client| !is_well(client)) {
            Some(lost) => Err((lost, self.error_of(&batch[lost]))),
            None => Ok(()),
        }
    }

    /// Ends these conversations and waits until their connections are closed.
    fn end_all(&mut self, clients: &[TestClient], end: End) -> Result<(), RungError> {
        for client in clients {
            self.update(client, |state| {
                state.is_paused = false;
                state.end = end;
            });
        }
        self.wait_until_closed(clients)
    }

    /// Waits until the connections of these clients are closed.
    pub(super) fn wait_until_closed(&mut self, clients: &[TestClient]) -> Result<(), RungError> {
        let is_closed = || clients.iter().all(|client| client.state().closed.is_some());
        self.wait_until(clients, self.timeout, is_closed)
    }

    /// Changes what a client does.
    pub(super) fn update(&mut self, client: &TestClient, change: impl FnOnce(&mut Conversation)) {
        change(&mut client.state_mut());
        if let Some(id) = client.id {
            // The mailbox has room for all clients.
            let _ = self.reactor.handle().wake_connection(id);
        }
    }

    /// Turns the loop until `is_so`, or until these connections make no progress for `silence`, or until
    /// the bound of the rung.
    fn wait_until(
        &mut self,
        clients: &[TestClient],
        silence: Duration,
        mut is_so: impl FnMut() -> bool,
    ) -> Result<(), RungError> {
        let progress = || clients.iter().map(|client| client.state().progress()).sum::<u64>();
        let (mut seen, mut deadline) = (progress(), Instant::now() + silence);
        while !is_so() {
            let now = Instant::now();
            if progress() != seen {
                (seen, deadline) = (progress(), now + silence);
            }
            let left = deadline.min(self.until).saturating_duration_since(now);
            if left.is_zero() {
                break;
            }
            self.reactor.turn(Some(left)).map_err(RungError::Loop)?;
        }
        Ok(())
    }

    /// Turns the loop for this long, so that bytes arrive and the server reacts.
    pub(super) fn pause(&mut self, client: &TestClient, time: Duration) -> Result<(), RungError> {
        self.wait_until(from_ref(client), time, || false)
    }

    /// Describes why this client did not get what it waited for.
    pub(super) fn error_of(&self, client: &TestClient) -> RungError {
        let state = client.state();
        let sent = state.describe_sent();
        if self.time_left().is_zero() && !state.is_over() {
            return RungError::TimedOut { sent, received: state.describe_received(None) };
        }
        RungError::stopped(sent, state.describe_received(Some(self.timeout)))
    }

    /// Waits until the server has returned everything that this client sent.
    pub(super) fn expect_echo(&mut self, client: &TestClient) -> Result<(), RungError> {
        self.expect(client, Conversation::is_echoed)
    }

    /// Waits for the server's EOF, before which nothing may be missing and nothing left over.
    pub(super) fn expect_eof(&mut self, client: &TestClient) -> Result<(), RungError> {
        self.expect(client, Conversation::has_ended_well)
    }

    /// Waits until `is_so`, or until the conversation is over without it.
    pub(super) fn expect(
        &mut self,
        client: &TestClient,
        is_so: impl Fn(&Conversation) -> bool,
    ) -> Result<(), RungError> {
        self.wait_until(from_ref(client), self.timeout, || {
            is_so(&client.state()) || client.state().is_over()
        })?;
        if is_so(&client.state()) { Ok(()) } else { Err(self.error_of(client)) }
    }

    /// Sends without reading, until everything is sent or the server takes no more.
    pub(super) fn fill(&mut self, client: &TestClient) -> Result<(), RungError> {
        self.wait_until(from_ref(client), STILL.min(self.timeout), || {
            let state = client.state();
            state.queued == state.total || state.closed.is_some()
        })
    }

    /// Closes a conversation, and gives the server time to close its side.
    pub(super) fn close(&mut self, client: &TestClient) -> Result<(), RungError> {
        self.update(client, |state| {
            state.is_paused = false;
            state.stop_sending();
            state.end = End::Close;
        });
        self.wait_until(from_ref(client), STILL, || client.state().closed.is_some())
    }
}

/// Whether this machine has an address that can reach `addr`. If it has none, connect(2) fails with the
/// error of a machine without a free port.
fn is_reachable(addr: SocketAddr) -> bool {
    let any = if addr.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let probe = UdpSocket::bind(any).and_then(|socket| socket.connect(addr));
    !probe.is_err_and(|error| error.kind() == ErrorKind::AddrNotAvailable)
}
