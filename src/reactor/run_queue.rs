//! The run queue: connections that run in this turn, and leftovers that wait for a later one.

use std::collections::VecDeque;

use slab::Slab;

use crate::connection::{Connection, Queued};

/// Connections with work to do. Each is queued at most once, as its `queued` says.
#[derive(Debug, Default)]
pub(super) struct RunQueue {
    /// Connections with a new event. All of them run in the next batch.
    fresh: Vec<usize>,
    /// Connections whose budget was spent before their work was done, oldest first. One of them runs
    /// in each batch.
    leftovers: VecDeque<usize>,
}

impl RunQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.fresh.is_empty() && self.leftovers.is_empty()
    }

    /// Queues a connection with a new event. A leftover keeps its place.
    pub(super) fn push<S>(&mut self, key: usize, connection: &mut Connection<S>) {
        if connection.queued == Queued::No {
            connection.queued = Queued::Fresh;
            self.fresh.push(key);
        }
    }

    /// Queues a connection that cannot wait for a place among the leftovers.
    pub(super) fn push_urgent<S>(&mut self, key: usize, connection: &mut Connection<S>) {
        self.remove_leftover(key, connection);
        self.push(key, connection);
    }

    /// Queues a connection whose budget is spent.
    pub(super) fn push_leftover<S>(&mut self, key: usize, connection: &mut Connection<S>) {
        connection.queued = Queued::Leftover;
        self.leftovers.push_back(key);
    }

    /// Takes a connection out of the leftovers. A closed one must not leave its place to the next
    /// connection of its slot.
    pub(super) fn remove_leftover<S>(&mut self, key: usize, connection: &mut Connection<S>) {
        if connection.queued == Queued::Leftover {
            connection.queued = Queued::No;
            self.leftovers.retain(|&leftover| leftover != key);
        }
    }

    /// Fills the empty `batch` with all fresh connections, then the oldest leftover, and returns how
    /// many are fresh. The swap lets both vectors keep their storage.
    pub(super) fn take<S>(
        &mut self,
        batch: &mut Vec<usize>,
        connections: &mut Slab<Connection<S>>,
    ) -> usize {
        std::mem::swap(&mut self.fresh, batch);
        let fresh = batch.len();
        if let Some(key) = self.leftovers.pop_front() {
            // It runs in this turn, even if another connection calls it meanwhile.
            if let Some(connection) = connections.get_mut(key) {
                connection.queued = Queued::Fresh;
            }
            batch.push(key);
        }
        fresh
    }
}
