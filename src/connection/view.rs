//! A connection's state as data, for whoever watches the loop.

use std::time::Duration;

use super::{Connection, Input, Output, Stream};
use crate::limits::Workspace;

/// A connection's state after a run, as data.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct View {
    /// What the peer may still say.
    pub input: Input,
    /// What we may still say.
    pub output: Output,
    /// Readiness: a read may give something.
    pub readable: bool,
    /// Readiness: a write may be taken.
    pub writable: bool,
    /// Interest: the next bytes are wanted.
    pub wants_read: bool,
    /// Interest: bytes are owed.
    pub wants_write: bool,
    /// Too much is owed to read on.
    pub congested: bool,
    /// Bytes owed.
    pub unsent: usize,
    /// When the connection is looked at without an event, since the reactor began.
    pub deadline: Option<Duration>,
}

impl<S: Stream> Connection<S> {
    /// The state as data, for whoever watches the loop.
    pub fn view(&self, lent: &Workspace) -> View {
        View {
            input: self.halves.input,
            output: self.halves.output,
            readable: self.ready.is_readable(),
            writable: self.ready.is_writable(),
            wants_read: self.wants_read(lent),
            wants_write: self.wants_write(),
            congested: self.halves.congested,
            unsent: self.owed.len(),
            deadline: self.deadline(lent).map(Duration::from_millis),
        }
    }
}
