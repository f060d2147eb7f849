//! [`Limits`], and the [`Workspace`] that all connections of a reactor share.

use std::any::Any;
use std::time::{Duration, Instant};

use crate::outbox::Outbox;
use crate::timers::{Millis, millis};

/// Bounds of a reactor and of each of its connections.
///
/// A duration of 49 days or more never ends, and neither does `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Open connections. More clients wait in the backlog. Default: 10,000.
    pub connections: usize,
    /// Open connections from one address. More are closed at once. Default: no bound.
    pub per_peer: Option<usize>,
    /// Resets a connection that moves no byte in either direction for this long. May act up to a
    /// fifth of the time later, and at most an hour, so that many idle connections share wake-ups.
    /// Default: 5 minutes.
    pub idle: Option<Duration>,
    /// Resets a connection that has queued bytes and can send none for this long. Default: `idle`.
    pub stall: Option<Duration>,
    /// How long a peer may take to end its half after we have ended ours. Default: 2 seconds.
    pub linger: Duration,
    /// How many bytes are read and discarded while lingering. Default: 1 MiB.
    pub linger_bytes: usize,
    /// Resets a connection that is open for this long, whatever it sends or receives. Without it, a
    /// client that sends a byte now and then keeps its slot for ever. Default: off.
    pub lifetime: Option<Duration>,
    /// How long an outgoing connection may take to be made. Default: 10 seconds.
    pub connecting: Duration,
    /// Bytes in the send queue of a connection. More reset it with
    /// [`CloseReason::Overflow`](crate::CloseReason::Overflow). Default: 1 MiB.
    pub unsent: usize,
    // ANCHOR: water-marks
    /// Bytes in the send queue at which the loop stops reading from the peer. Default: 64 KiB.
    pub high_water: usize,
    /// Bytes in the send queue at which the loop reads from the peer again. Default: 16 KiB.
    pub low_water: usize,
    /// Bytes read, and bytes written, for a connection with work left over, in its turn. Each turn
    /// serves one such connection, the oldest. Default: 256 KiB.
    pub budget: usize,
    /// Bytes read, and bytes written, for a connection with a new event, in one turn; at most
    /// `budget`. A connection with more work then waits until it is the oldest. Default: 64 KiB.
    pub fresh_budget: usize,
    /// Connections accepted from one listener in one turn, at most. A listener accepts one per turn
    /// until clients have been waiting in several turns in a row. Default: 256.
    pub accepts: usize,
    /// Readiness events taken from the kernel in one turn. Default: 1024.
    pub events: usize,
    /// Size of the buffer into which all connections read. Default: 32 KiB.
    pub scratch: usize,
    /// The kernel's send buffer per connection (`SO_SNDBUF`). Default: the system's default.
    pub send_buffer: Option<usize>,
    /// The kernel's receive buffer per connection (`SO_RCVBUF`). Default: the system's default.
    pub receive_buffer: Option<usize>,
    /// Connections that may wait to be accepted (`listen(2)`). Default: 4096.
    pub backlog: u32,
    /// Commands that may wait in the mailbox of a [`Handle`](crate::Handle). Default: 1024.
    pub mailbox: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 10_000,
            per_peer: None,
            idle: Some(Duration::from_secs(300)),
            stall: None,
            linger: Duration::from_secs(2),
            linger_bytes: 1 << 20,
            lifetime: None,
            connecting: Duration::from_secs(10),
            unsent: 1 << 20,
            high_water: 64 << 10,
            low_water: 16 << 10,
            budget: 256 << 10,
            fresh_budget: 64 << 10,
            accepts: 256,
            events: 1024,
            scratch: 32 << 10,
            send_buffer: None,
            receive_buffer: None,
            backlog: 4096,
            mailbox: 1024,
        }
    }
}

/// The state that all connections of a reactor share, one at a time: the read buffer, the outbox,
/// the limits and the time of the turn.
#[derive(Debug)]
pub struct Workspace {
    pub(crate) limits: Limits,
    pub(crate) idle: Option<u32>,
    pub(crate) stall: Option<u32>,
    pub(crate) linger: Option<u32>,
    pub(crate) lifetime: Option<u32>,
    pub(crate) connecting: Option<u32>,
    began: Instant,
    pub(crate) now: Instant,
    pub(crate) millis: Millis,
    /// When `millis` next changes.
    next_milli: Instant,
    pub(crate) scratch: Box<[u8]>,
    pub(crate) outbox: Outbox,
    pub(crate) panics: Vec<Box<dyn Any + Send>>,
    /// The budget of each run of a connection.
    pub(crate) budget: usize,
    /// How many bytes may still be read, and written, in this run.
    pub(crate) read_budget: usize,
    pub(crate) write_budget: usize,
}

impl Workspace {
    /// Creates a workspace whose time begins at `now`. A limit of zero that would stop the loop
    /// becomes one.
    pub fn new(limits: Limits, now: Instant) -> Workspace {
        let limits = Limits {
            high_water: limits.high_water.max(1),
            low_water: limits.low_water.min(limits.high_water.max(1) - 1),
            budget: limits.budget.max(1),
            fresh_budget: limits.fresh_budget.clamp(1, limits.budget.max(1)),
            accepts: limits.accepts.max(1),
            events: limits.events.max(1),
            scratch: limits.scratch.max(1),
            ..limits
        };
        let scratch: Box<[u8]> = vec![0; limits.scratch].into();
        Workspace {
            idle: limits.idle.and_then(millis),
            stall: limits.stall.or(limits.idle).and_then(millis),
            linger: millis(limits.linger),
            lifetime: limits.lifetime.and_then(millis),
            connecting: millis(limits.connecting),
            began: now,
            now,
            millis: 0,
            next_milli: now,
            outbox: Outbox::over(now, limits.high_water, &scratch),
            scratch,
            panics: Vec::new(),
            budget: limits.budget,
            read_budget: limits.budget,
            write_budget: limits.budget,
            limits,
        }
    }

    /// Begins a turn at `now`. If `now` is in the past, the time stays as it was.
    pub fn begin_turn(&mut self, now: Instant) {
        self.now = self.now.max(now);
        self.outbox.now = self.now;
        // A busy loop turns many times in a millisecond: it computes `millis` once in each.
        if self.now >= self.next_milli {
            self.begin_milli();
        }
    }

    fn begin_milli(&mut self) {
        let since = self.now.duration_since(self.began);
        self.millis = since.as_secs() * 1000 + u64::from(since.subsec_millis());
        self.next_milli = self.began + Duration::from_millis(self.millis + 1);
    }

    pub(crate) fn renew_budget(&mut self) {
        self.read_budget = self.budget;
        self.write_budget = self.budget;
    }

    /// Returns the limits in force.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Removes the oldest panic of a protocol and returns its payload.
    pub fn take_panic(&mut self) -> Option<Box<dyn Any + Send>> {
        (!self.panics.is_empty()).then(|| self.panics.remove(0))
    }

    /// Converts `at` to milliseconds since the reactor was created, rounded up.
    pub(crate) fn deadline(&self, at: Instant) -> Millis {
        let since = at.saturating_duration_since(self.began);
        let rounded = since.saturating_add(Duration::from_nanos(999_999));
        rounded.as_secs().saturating_mul(1000).saturating_add(u64::from(rounded.subsec_millis()))
    }
}
