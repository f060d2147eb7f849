//! How a reactor ends: it serves the backlog, lets connections finish, and resets the rest.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::{Reactor, close};
use crate::connection::Connection;
use crate::kernel::Kernel;
use crate::protocol::{Call, CloseReason, discard};
use crate::timers::{Millis, millis};

/// How long a peer may take, after the grace, to end its half of a connection with nothing queued.
const DRAINING: Millis = 1000;

/// How far the end of the reactor has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shutdown {
    No,
    /// The clients in the backlogs are served, and connections finish.
    Grace {
        until: Millis,
    },
    /// The grace is over. Connections with nothing queued were sent a FIN.
    Draining {
        until: Millis,
    },
}

impl<K: Kernel> Reactor<K> {
    // ANCHOR: shutdown
    pub(super) fn begin_shutdown(&mut self, grace: Duration) {
        let until = self.cx.millis + millis(grace).map_or(Millis::MAX / 2, Millis::from);
        self.shutdown = match self.shutdown {
            Shutdown::No => Shutdown::Grace { until },
            Shutdown::Grace { until: before } => Shutdown::Grace { until: before.min(until) },
            draining => draining,
        };
        // Each listener accepts until WouldBlock: a client that is connected by now is served.
        for listener in self.listeners.iter_mut().flatten() {
            listener.drain();
        }
    }

    /// Ends the grace: sends a FIN on connections with nothing queued, and resets the others.
    pub(super) fn start_draining(&mut self) {
        self.listeners.clear();
        self.end_all(|connection| connection.wants_write());
        self.command_all(|_| true, Call::Close);
        self.shutdown = Shutdown::Draining { until: self.cx.millis + DRAINING };
    }

    /// Ends everything at once.
    pub(super) fn stop(&mut self) {
        self.listeners.clear();
        self.end_all(|_| true);
        self.drop_requests();
    }

    fn end_all(&mut self, which: impl Fn(&Connection<K::Stream>) -> bool) {
        for (key, connection) in &mut self.connections {
            if which(connection) {
                close(key, connection, CloseReason::Shutdown, &mut self.closed);
            }
        }
    }
}

/// Every open connection gets its `on_close`; the handles learn that the reactor is gone.
impl<K: Kernel> Drop for Reactor<K> {
    fn drop(&mut self) {
        for command in self.mailbox.close() {
            let dropped = catch_unwind(AssertUnwindSafe(|| drop(command)));
            dropped.unwrap_or_else(|panic| self.record_panic(panic));
        }
        self.stop();
        self.drop_closed();
        self.panic.take().into_iter().for_each(discard);
    }
}
