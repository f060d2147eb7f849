//! [`Limits`], and the [`Context`] that all connections of a reactor share.

use std::any::Any;
use std::time::{Duration, Instant};

use crate::protocol::{ConnId, ListenerId, Outbox};
use crate::timers::{Millis, SLOTS_MAX, millis};

/// Bounds of a reactor and of each of its connections.
///
/// Start from the defaults and change what you need. A duration of 49 days or more never ends, and
/// neither does `None`.
///
/// ```
/// use std::time::Duration;
/// use campanile::Limits;
///
/// let limits = Limits::default().idle_timeout(Duration::from_secs(30)).max_connections(500);
/// assert_eq!(limits.max_connections, 500);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct Limits {
    /// Open connections. More clients wait in the backlog. Default: 10,000.
    pub max_connections: usize,
    /// Open connections from one address. More are closed at once. Connections on Unix sockets do not
    /// count. Default: no bound.
    pub max_per_peer: Option<usize>,
    /// Resets a connection that moves no byte in either direction for this long. May act up to a
    /// fifth of the time later, and at most an hour, so that many idle connections share wake-ups.
    /// Default: 5 minutes.
    pub idle_timeout: Option<Duration>,
    /// Resets a connection that has queued bytes and can send none for this long. Default:
    /// `idle_timeout`.
    pub write_timeout: Option<Duration>,
    /// How long a peer may take to end its half after we have ended ours. Default: 2 seconds.
    pub linger_timeout: Duration,
    /// How many bytes are read and discarded while lingering. Default: 1 MiB.
    pub linger_bytes: usize,
    /// Resets a connection that is open for this long, whatever it sends or receives. Without it, a
    /// client that sends a byte now and then keeps its slot for ever. Default: off.
    pub max_lifetime: Option<Duration>,
    /// How long an outgoing connection may take to be made. Default: 10 seconds.
    pub connect_timeout: Duration,
    /// Bytes in the send queue of a connection. More reset it with
    /// [`CloseReason::Overflow`](crate::CloseReason::Overflow). Default: 1 MiB.
    pub max_send_queue: usize,
    // ANCHOR: water-marks
    /// Bytes in the send queue at which the loop stops reading from the peer. Default: 64 KiB.
    pub high_water: usize,
    /// Bytes in the send queue at which the loop reads from the peer again. Default: 16 KiB.
    pub low_water: usize,
    /// Bytes read, and bytes written, for a connection with work left over, in its turn. Each turn
    /// serves one such connection, the oldest. Default: 256 KiB.
    pub leftover_budget: usize,
    /// Bytes read, and bytes written, for a connection with a new event, in one turn; at most
    /// `leftover_budget`. A connection with more work then waits until it is the oldest. Default:
    /// 72 KiB.
    pub fresh_budget: usize,
    /// Connections accepted from one listener in one turn, at most. A listener accepts one per turn
    /// until clients have been waiting in several turns in a row. Default: 256.
    pub max_accepts_per_turn: usize,
    /// Readiness events taken from the kernel in one turn. Default: 1024.
    pub events: usize,
    /// Size of the buffer into which all connections read. Default: 48 KiB.
    pub read_buffer: usize,
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
            max_connections: 10_000,
            max_per_peer: None,
            idle_timeout: Some(Duration::from_secs(300)),
            write_timeout: None,
            linger_timeout: Duration::from_secs(2),
            linger_bytes: 1 << 20,
            max_lifetime: None,
            connect_timeout: Duration::from_secs(10),
            max_send_queue: 1 << 20,
            high_water: 64 << 10,
            low_water: 16 << 10,
            leftover_budget: 256 << 10,
            // More than 64 KiB, so that the last read of such a message is short and saves a turn.
            fresh_budget: 72 << 10,
            max_accepts_per_turn: 256,
            events: 1024,
            read_buffer: 48 << 10,
            send_buffer: None,
            receive_buffer: None,
            backlog: 4096,
            mailbox: 1024,
        }
    }
}

macro_rules! setters {
    ($($field:ident: $type:ty),* $(,)?) => {
        impl Limits {
            $(
                #[doc = concat!("Sets [`", stringify!($field), "`](Limits::", stringify!($field), ").")]
                pub fn $field(self, $field: $type) -> Limits {
                    Limits { $field: $field.into(), ..self }
                }
            )*
        }
    };
}

setters! {
    max_connections: usize,
    max_per_peer: Option<usize>,
    idle_timeout: impl Into<Option<Duration>>,
    write_timeout: impl Into<Option<Duration>>,
    linger_timeout: Duration,
    linger_bytes: usize,
    max_lifetime: impl Into<Option<Duration>>,
    connect_timeout: Duration,
    max_send_queue: usize,
    high_water: usize,
    low_water: usize,
    leftover_budget: usize,
    fresh_budget: usize,
    max_accepts_per_turn: usize,
    events: usize,
    read_buffer: usize,
    send_buffer: Option<usize>,
    receive_buffer: Option<usize>,
    backlog: u32,
    mailbox: usize,
}

impl Limits {
    /// Returns these limits; one of zero that would stop the loop becomes one.
    pub(crate) fn clamped(self) -> Limits {
        let high_water = self.high_water.max(1);
        let leftover_budget = self.leftover_budget.max(1);
        Limits {
            max_connections: self.max_connections.clamp(1, SLOTS_MAX),
            high_water,
            low_water: self.low_water.min(high_water - 1),
            leftover_budget,
            fresh_budget: self.fresh_budget.clamp(1, leftover_budget),
            max_accepts_per_turn: self.max_accepts_per_turn.max(1),
            events: self.events.max(1),
            read_buffer: self.read_buffer.max(1),
            ..self
        }
    }
}

/// The listener that accepted a connection. The default is none: the connection is outgoing.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin(u16);

impl Origin {
    pub(crate) fn listener(id: ListenerId) -> Origin {
        // `Context::add_bounds` has refused a listener for which this does not fit.
        Origin(id.0 as u16 + 1)
    }
}

/// The bounds of one connection, with timeouts in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) connect: Option<u32>,
    pub(crate) idle: Option<u32>,
    pub(crate) write: Option<u32>,
    pub(crate) linger: Option<u32>,
    pub(crate) lifetime: Option<u32>,
    pub(crate) linger_bytes: usize,
    pub(crate) max_send_queue: usize,
    pub(crate) high_water: usize,
    pub(crate) low_water: usize,
}

impl Bounds {
    fn of(limits: &Limits) -> Bounds {
        Bounds {
            connect: millis(limits.connect_timeout),
            idle: limits.idle_timeout.and_then(millis),
            write: limits.write_timeout.or(limits.idle_timeout).and_then(millis),
            linger: millis(limits.linger_timeout),
            lifetime: limits.max_lifetime.and_then(millis),
            linger_bytes: limits.linger_bytes,
            max_send_queue: limits.max_send_queue,
            high_water: limits.high_water,
            low_water: limits.low_water,
        }
    }
}

/// The state that all connections of a reactor share, one at a time: the read buffer, the outbox,
/// the limits and the time of the turn.
#[derive(Debug)]
pub struct Context {
    pub(crate) limits: Limits,
    /// The bounds of the connection that is served now.
    pub(crate) bounds: Bounds,
    /// The origin of that connection.
    origin: Origin,
    /// The bounds of the reactor, and behind them those of each listener.
    table: Vec<Bounds>,
    began: Instant,
    pub(crate) now: Instant,
    pub(crate) millis: Millis,
    /// When `millis` next changes.
    next_milli: Instant,
    pub(crate) read_buffer: Box<[u8]>,
    pub(crate) outbox: Outbox,
    pub(crate) panics: Vec<Box<dyn Any + Send>>,
    /// The budget of each run of a connection.
    pub(crate) budget: usize,
    /// How many bytes may still be read, and written, in this run.
    pub(crate) read_budget: usize,
    pub(crate) write_budget: usize,
}

impl Context {
    /// Creates a context whose time begins at `now`. A limit of zero that would stop the loop becomes
    /// one.
    pub fn new(limits: Limits, now: Instant) -> Context {
        let limits = limits.clamped();
        let read_buffer: Box<[u8]> = vec![0; limits.read_buffer].into();
        let bounds = Bounds::of(&limits);
        let mut context = Context {
            bounds,
            origin: Origin::default(),
            table: vec![bounds],
            began: now,
            now,
            millis: 0,
            next_milli: now,
            outbox: Outbox::over(now, &read_buffer),
            read_buffer,
            panics: Vec::new(),
            budget: limits.leftover_budget,
            read_budget: limits.leftover_budget,
            write_budget: limits.leftover_budget,
            limits,
        };
        context.put_bounds_in_force();
        context
    }

    /// Adds the bounds of one more listener: those of `limits`, or the reactor's. Returns false if no
    /// origin is left for it.
    pub(crate) fn add_bounds(&mut self, limits: Option<&Limits>) -> bool {
        let has_room = self.table.len() < usize::from(u16::MAX);
        if has_room {
            let own = limits.map(|limits| Bounds::of(&limits.clone().clamped()));
            self.table.push(own.unwrap_or(self.table[0]));
        }
        has_room
    }

    /// Prepares for the connection that is served next.
    pub(crate) fn begin_run(&mut self, id: ConnId, origin: Origin) {
        self.outbox.id = id;
        self.select_bounds(origin);
    }

    pub(crate) fn select_bounds(&mut self, origin: Origin) {
        if origin != self.origin {
            self.origin = origin;
            self.bounds = self.table[usize::from(origin.0)];
            self.put_bounds_in_force();
        }
    }

    fn put_bounds_in_force(&mut self) {
        let (to, from) = (&mut self.outbox, &self.bounds);
        (to.high_water, to.low_water) = (from.high_water, from.low_water);
        to.max_send_queue = from.max_send_queue;
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
