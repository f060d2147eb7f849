//! How a reactor ends: who waits is served, conversations finish, what is left is reset.

use std::time::Duration;

use super::{Reactor, close, enqueue};
use crate::connection::Connection;
use crate::kernel::Kernel;
use crate::protocol::CloseReason;
use crate::timers::{Millis, millis};

/// After the grace, who owes nothing has this long to end its half.
const FAREWELL: Millis = 1000;

/// How far the end of the reactor has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shutdown {
    No,
    /// Who waits in a backlog is served, conversations finish.
    Grace {
        until: Millis,
    },
    /// Whoever owed nothing was sent a FIN.
    Farewell {
        until: Millis,
    },
}

impl<K: Kernel> Reactor<K> {
    pub(super) fn begin_shutdown(&mut self, grace: Duration) {
        let until = self.cx.millis + millis(grace).map_or(Millis::MAX / 2, Millis::from);
        self.shutdown = match self.shutdown {
            Shutdown::No => Shutdown::Grace { until },
            Shutdown::Grace { until: before } => Shutdown::Grace { until: before.min(until) },
            farewell => farewell,
        };
        // Once more, to WouldBlock: whoever is connected by now is served, not reset.
        for listener in self.listeners.iter_mut().flatten() {
            listener.drain();
        }
    }

    /// The grace is over: who owes nothing gets a FIN and a moment, the rest is reset.
    pub(super) fn say_farewell(&mut self) {
        self.listeners.clear();
        self.end_all(|connection| connection.wants_write());
        for (key, connection) in &mut self.connections {
            if connection.is_closed() {
                continue;
            }
            match connection.command(&mut self.cx, &mut |_, out| out.close()) {
                Ok(()) => enqueue(key, connection, &mut self.run_queue),
                Err(reason) => close(key, connection, reason, &mut self.closed),
            }
        }
        self.shutdown = Shutdown::Farewell { until: self.cx.millis + FAREWELL };
    }

    pub(super) fn end_all(&mut self, which: impl Fn(&Connection<K::Stream>) -> bool) {
        for (key, connection) in &mut self.connections {
            if which(connection) {
                close(key, connection, CloseReason::Shutdown, &mut self.closed);
            }
        }
    }
}
