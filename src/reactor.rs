//! The loop. Read [`Reactor::turn`] first: it is the list of what happens, in order.

mod admission;
mod commands;
mod embedding;
mod run_queue;
mod shutdown;

use std::any::Any;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;

use self::admission::Peers;
use self::run_queue::RunQueue;
use self::shutdown::Shutdown;
use crate::connection::{Connection, Next, Queued};
use crate::control::Command;
use crate::kernel::{Kernel, Mio, Phase, Source};
use crate::limits::{Context, Limits};
use crate::listener::Listener;
use crate::mailbox::Mailbox;
use crate::protocol::{CloseReason, discard};
use crate::stats::Stats;
use crate::timers::{Millis, Timers};

/// A later deadline is armed at this distance, and checked again then.
const HORIZON: Millis = 1 << 30;

/// Listeners, connections and the loop that turns them: single-threaded, and without a lock.
///
/// It is neither `Send` nor `Sync`, because its protocols need not be: create it on the thread that
/// runs it, or use [`Background`](crate::Background). Dropping it resets the connections and calls
/// [`on_close`](crate::Protocol::on_close) of each one. The [crate documentation](crate) has an example.
pub struct Reactor<K: Kernel = Mio> {
    kernel: K,
    cx: Context,
    /// By key; a listener that is gone leaves its place empty.
    listeners: Vec<Option<Box<Listener<K::Listener>>>>,
    /// The key of the listener that accepts first in the next turn. If no listener has this key, key
    /// 0 is next.
    first_listener: usize,
    connections: Slab<Connection<K::Stream>>,
    run_queue: RunQueue,
    /// The connections of the current batch; its storage serves every turn.
    batch: Vec<usize>,
    /// Closed, and to be dropped at the end of the turn.
    closed: VecDeque<(usize, CloseReason)>,
    timers: Timers,
    mailbox: Arc<Mailbox<Command>>,
    was_full: bool,
    was_interrupted: bool,
    peers: Peers,
    ordinal: u64,
    shutdown: Shutdown,
    failure: Option<io::Error>,
    panic: Option<Box<dyn Any + Send>>,
    stats: Stats,
}

impl<K: Kernel> std::fmt::Debug for Reactor<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reactor")
            .field("listeners", &self.listeners.iter().flatten().count())
            .field("connections", &self.connections.len())
            .field("shutdown", &self.shutdown)
            .finish_non_exhaustive()
    }
}

impl Reactor {
    /// Creates a reactor with [`Limits::default`].
    ///
    /// # Errors
    /// Fails if the selector cannot be created.
    pub fn new() -> io::Result<Reactor> {
        Reactor::with_limits(Limits::default())
    }

    /// Creates a reactor with other limits.
    ///
    /// # Errors
    /// As [`new`](Reactor::new).
    pub fn with_limits(limits: Limits) -> io::Result<Reactor> {
        Ok(Reactor::with_kernel(Mio::new(limits.events)?, limits))
    }
}

impl<K: Kernel> Reactor<K> {
    /// Creates a reactor on another kernel than the real one.
    pub fn with_kernel(kernel: K, limits: Limits) -> Reactor<K> {
        let mailbox = Mailbox::new(limits.mailbox, kernel.waker());
        Reactor {
            cx: Context::new(limits, kernel.now()),
            kernel,
            listeners: Vec::new(),
            first_listener: 0,
            connections: Slab::new(),
            run_queue: RunQueue::default(),
            batch: Vec::new(),
            closed: VecDeque::new(),
            timers: Timers::default(),
            mailbox,
            was_full: false,
            was_interrupted: false,
            peers: Peers::default(),
            ordinal: 0,
            shutdown: Shutdown::No,
            failure: None,
            panic: None,
            stats: Stats::default(),
        }
    }

    /// One turn of the loop: sleeps for at most `timeout`, then does everything that can be done
    /// without blocking. `None` sleeps until something happens or a deadline comes.
    ///
    /// # Errors
    /// Only if the kernel's poll fails for good. An error of a connection ends that connection. An
    /// error of a listener pauses or removes that listener.
    // ANCHOR: turn
    pub fn turn(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.sleep(timeout)?;
        self.note_readiness();
        self.obey_commands();
        self.fire_timers();
        self.accept();
        self.run_connections();
        self.reap();
        Ok(())
    }
    // ANCHOR_END: turn

    /// Turns until nothing is left to do: after a
    /// [`Handle::shutdown`](crate::Handle::shutdown), or when there is neither a
    /// listener nor a connection.
    ///
    /// # Errors
    /// As [`turn`](Reactor::turn); and if the last listener broke.
    pub fn run(&mut self) -> io::Result<()> {
        while !self.is_finished() {
            self.turn(None)?;
        }
        self.outcome()
    }

    // ANCHOR: sleep
    /// The only place that blocks. Reads the time of the turn after the poll. Only `connect` and
    /// `timeout` read the clock besides, because the last turn may be long ago.
    fn sleep(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.kernel.phase(Phase::Sleep);
        let next = self.next_timeout(self.cx.millis);
        let outcome = self.kernel.poll(match (next, timeout) {
            (Some(next), Some(timeout)) => Some(next.min(timeout)),
            (next, timeout) => next.or(timeout),
        });
        self.cx.begin_turn(self.kernel.now());
        self.stats.turns += 1;
        // A signal interrupted the poll, so the batch is empty. The next turn computes its timeout
        // again.
        self.was_interrupted =
            outcome.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::Interrupted);
        if self.was_interrupted { Ok(()) } else { outcome }
    }

    /// Events become bits before any slot is freed or given out, so none outlives its connection.
    #[inline(never)] // saves 15 instructions an echo
    fn note_readiness(&mut self) {
        self.kernel.phase(Phase::NoteReadiness);
        let mut count = 0;
        for event in self.kernel.events() {
            count += 1;
            match event.source {
                // The waker only ends `poll`.
                Source::Waker => {}
                Source::Listener(key) => {
                    if let Some(Some(listener)) = self.listeners.get_mut(key) {
                        listener.set_ready();
                    }
                }
                Source::Connection(key) => {
                    if let Some(connection) = self.connections.get_mut(key) {
                        connection.on_event(event.readable, event.writable, event.data_only);
                        self.run_queue.push(key, connection);
                    }
                }
            }
        }
        // After an interrupted poll, a full batch may still have left events behind.
        // ANCHOR: full-batch
        self.was_full = count == self.kernel.capacity() || (self.was_interrupted && self.was_full);
    }

    fn obey_commands(&mut self) {
        self.kernel.phase(Phase::ObeyCommands);
        // First what was asked in an earlier turn: even without a grace, a shutdown has one turn to
        // serve the backlog.
        match self.shutdown {
            Shutdown::Grace { until } if until <= self.cx.millis => self.start_draining(),
            Shutdown::Draining { until } if until <= self.cx.millis => self.stop(),
            _ => {}
        }
        if self.has_mail() {
            self.read_mail();
        }
    }

    fn read_mail(&mut self) {
        self.deliver();
        let mail = self.mailbox.take();
        for command in mail.commands {
            self.obey(command);
        }
        self.deliver();
        if mail.stop {
            // After the commands, which may have begun to listen or to connect.
            self.stop();
        }
        if let Some(grace) = mail.shutdown {
            self.begin_shutdown(grace);
        }
    }

    // ANCHOR: timers
    /// Queues each connection whose deadline has come for this turn, even one that waits as a leftover.
    /// Its run does the IO first and then checks the deadline, so bytes that have arrived count as
    /// activity.
    fn fire_timers(&mut self) {
        self.kernel.phase(Phase::FireTimers);
        while let Some(key) = self.timers.pop_due(self.cx.millis) {
            if let Some(connection) = self.connections.get_mut(key) {
                connection.on_deadline();
                // ANCHOR: due-leftover
                self.run_queue.push_urgent(key, connection);
            }
        }
    }

    /// Accepts connections. All events of this batch are stored by now, so none can be taken for theirs.
    ///
    /// The listener after the one that accepted last goes first. So at the connection limit, or out of
    /// descriptors, each listener has its turn, however rarely a slot comes free.
    fn accept(&mut self) {
        self.kernel.phase(Phase::Accept);
        let (now, saw_all) = (self.cx.millis, !self.was_full && !self.was_interrupted);
        let mut key = self.first_listener;
        for _ in 0..self.listeners.len() {
            if key >= self.listeners.len() {
                key = 0;
            }
            let place = &mut self.listeners[key];
            if let Some(listener) = place.take_if(|listener| listener.begin_turn(now, saw_all)) {
                self.accept_burst(key, listener);
            }
            key += 1;
        }
    }

    // ANCHOR: fresh-first
    /// Runs each connection with a new event, with a small budget, so that none waits for another
    /// one's stream. Then runs the oldest leftover with the full budget: with `k` leftovers each has
    /// its turn within `k` turns.
    #[inline(never)] // saves 11 instructions an echo
    fn run_connections(&mut self) {
        self.kernel.phase(Phase::RunConnections);
        let mut batch = std::mem::take(&mut self.batch);
        // Taken before any of them runs: work that they leave over waits for a later turn.
        let fresh = self.run_queue.take(&mut batch, &mut self.connections);
        for (at, &key) in batch.iter().enumerate() {
            let limits = &self.cx.limits;
            let budget = if at < fresh { limits.fresh_budget } else { limits.leftover_budget };
            self.run_connection(key, budget);
            if self.cx.outbox.has_mail() {
                self.deliver();
            }
        }
        batch.clear();
        self.batch = batch;
    }

    fn run_connection(&mut self, key: usize, budget: usize) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        connection.queued = Queued::No;
        if connection.is_closed() {
            return;
        }
        self.cx.budget = budget;
        let (is_new, id) = (connection.is_new(), connection.id(key));
        self.cx.begin_run(id, connection.origin);
        let mut outcome = connection.run(&mut self.cx);
        if is_new && outcome.is_ok() {
            // Only after its first run: a connection that closed in it needs no events.
            let writes = connection.may_write();
            if let Err(error) = self.kernel.register(&mut connection.stream, key, writes) {
                outcome = Err(CloseReason::Failed(error));
            }
        }
        self.kernel.observe(id, || connection.view(&self.cx));
        match outcome {
            Ok(Next { has_work, deadline }) => {
                if has_work && !self.cx.outbox.has_lent() {
                    self.run_queue.push_leftover(key, connection);
                } else if has_work {
                    // A loan has ended the run, and not the budget: it runs again in the next turn.
                    self.run_queue.push(key, connection);
                }
                self.arm(key, deadline);
            }
            Err(reason) => close(key, connection, reason, &mut self.closed),
        }
    }

    fn arm(&mut self, key: usize, deadline: Option<Millis>) {
        if let Some(deadline) = deadline {
            self.timers.arm(key, deadline.min(self.cx.millis + HORIZON));
        }
    }

    // ANCHOR: reap
    /// Drops the closed connections; their slots are free from the next turn on.
    fn reap(&mut self) {
        self.kernel.phase(Phase::Reap);
        if !self.closed.is_empty() {
            self.drop_closed();
        }
    }

    fn drop_closed(&mut self) {
        while let Some((key, reason)) = self.closed.pop_front() {
            let mut connection = self.connections.remove(key);
            self.run_queue.remove_leftover(key, &mut connection);
            let (bytes_in, bytes_out) = connection.bytes();
            log::debug!(
                "#{} closed: {reason}; {bytes_in} bytes in, {bytes_out} out",
                connection.ordinal
            );
            self.stats.count(&reason, bytes_in, bytes_out);
            if self.cx.limits.max_per_peer.is_some() {
                self.peers.forget(key);
            }
            self.cx.begin_run(connection.id(key), connection.origin);
            connection.end(reason, &mut self.cx);
        }
        while let Some(panic) = self.cx.take_panic() {
            self.record_panic(panic);
        }
        for listener in self.listeners.iter_mut().flatten() {
            listener.resume();
        }
    }

    fn record_panic(&mut self, panic: Box<dyn Any + Send>) {
        self.stats.panics += 1;
        log::error!("a protocol panicked: its connection is reset, the others go on");
        if self.panic.is_none() {
            self.panic = Some(panic);
        } else {
            discard(panic);
        }
    }

    /// Returns whether commands or requests wait for the next turn.
    fn has_mail(&self) -> bool {
        self.mailbox.has_mail() || self.cx.outbox.has_mail()
    }

    /// Returns the time until the next scheduled work.
    fn next_timeout(&self, now: Millis) -> Option<Duration> {
        // ANCHOR: zero-timeout
        // After a full batch, a nested selector may not report the remaining events. Between two turns,
        // `with` may have closed a connection.
        let has_work = !self.run_queue.is_empty() || !self.closed.is_empty();
        if has_work || self.was_full || self.has_mail() {
            return Some(Duration::ZERO);
        }
        let mut next = self.timers.next().unwrap_or(Millis::MAX);
        if let Shutdown::Grace { until } | Shutdown::Draining { until } = self.shutdown {
            // A reactor that has ended has nothing left to wait for.
            next = if self.is_finished() { next } else { next.min(until) };
        }
        for listener in self.listeners.iter().flatten() {
            next = next.min(listener.next_try().unwrap_or(Millis::MAX));
        }
        (next < Millis::MAX).then(|| Duration::from_millis(next.saturating_sub(now)))
    }
}

/// Closes a connection, once; it keeps its slot until the end of the turn.
fn close<S>(
    key: usize,
    connection: &mut Connection<S>,
    reason: CloseReason,
    closed: &mut VecDeque<(usize, CloseReason)>,
) {
    if connection.mark_closed() {
        closed.push_back((key, reason));
    }
}
