//! [`Turn`]: what the streams of one kernel share.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::time::Instant;

use super::unacked::Unacked;
use crate::kernel::Source;

/// The turn under way, and the events that the faults need. Connections are named by slab key.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) now: Cell<Instant>,
    pub(super) number: Cell<u64>,
    /// The changes of the plan that the turn acts on.
    pub(super) changes: Cell<u64>,
    pub(super) open: RefCell<BTreeSet<usize>>,
    /// The planned events in order.
    planned: RefCell<BTreeSet<(Instant, usize)>>,
    /// The connections that wait for acknowledgements: they run in the next turn.
    pub(super) waiting: RefCell<BTreeSet<usize>>,
    pub(super) unacked: RefCell<Unacked>,
}

impl Turn {
    pub(super) fn new(now: Instant) -> Turn {
        Turn {
            now: Cell::new(now),
            number: Cell::new(1),
            changes: Cell::new(0),
            open: RefCell::default(),
            planned: RefCell::default(),
            waiting: RefCell::default(),
            unacked: RefCell::default(),
        }
    }

    /// Returns the time of the first planned event.
    pub(super) fn next_event(&self) -> Option<Instant> {
        self.planned.borrow().first().map(|(at, _)| *at)
    }

    /// Plans the next event of a connection, in place of the one `before`, which may have come.
    pub(super) fn plan_event(&self, key: usize, before: Option<Instant>, next: Option<Instant>) {
        let mut planned = self.planned.borrow_mut();
        if let Some(at) = before {
            planned.remove(&(at, key));
        }
        planned.extend(next.map(|at| (at, key)));
    }

    /// Adds the events of this turn: of all connections if the plan has changed.
    pub(super) fn add_events(&self, has_news: bool, events: &mut Vec<Source>) {
        let (open, mut planned) = (self.open.borrow(), self.planned.borrow_mut());
        // A connection that waits is added again by its next call. One that the protocol has paused
        // makes none, and must not keep the loop awake.
        let waiting = self.waiting.take();
        if has_news {
            events.extend(open.iter().map(|&key| Source::Connection(key)));
        } else {
            events.extend(waiting.into_iter().map(Source::Connection));
        }
        while let Some((at, key)) = planned.pop_first() {
            if at > self.now.get() {
                planned.insert((at, key));
                break;
            }
            events.push(Source::Connection(key));
        }
    }

    /// Forgets a connection that is dropped.
    pub(super) fn forget(&self, key: usize, planned: Option<Instant>) {
        self.plan_event(key, planned, None);
        self.open.borrow_mut().remove(&key);
        self.waiting.borrow_mut().remove(&key);
    }
}
