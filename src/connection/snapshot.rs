//! A connection's state as plain data, for observers of the loop.

use std::time::Duration;

use super::{Connection, Input, Output, Stream};
use crate::limits::Context;

/// A connection's state after a run, as plain data.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Whether the peer may still send.
    pub input: Input,
    /// Whether we may still send.
    pub output: Output,
    /// The protocol has closed: incoming bytes are discarded.
    pub closed: bool,
    /// The protocol has paused reading.
    pub paused: bool,
    /// The protocol bounds by itself what it reads.
    pub reads_while_congested: bool,
    /// The send queue has reached high water, and not fallen to low water since.
    pub congested: bool,
    /// Readiness: a read may return bytes.
    pub readable: bool,
    /// Readiness: a write may be taken.
    pub writable: bool,
    /// Interest: the next bytes are wanted.
    pub wants_read: bool,
    /// Interest: bytes are queued.
    pub wants_write: bool,
    /// The number of unsent bytes.
    pub unsent: usize,
    /// The time of the next check without an event, since the reactor began.
    pub deadline: Option<Duration>,
}

impl<S: Stream> Connection<S> {
    /// Returns the state as plain data.
    pub fn view(&self, cx: &Context) -> Snapshot {
        Snapshot {
            input: self.state.input,
            output: self.state.output,
            closed: self.state.closed,
            paused: self.state.paused,
            reads_while_congested: self.state.reads_while_congested,
            congested: self.state.congested,
            readable: self.ready.is_readable(),
            writable: self.ready.is_writable(),
            wants_read: self.wants_read(cx),
            wants_write: self.wants_write(),
            unsent: self.send_queue.len(),
            deadline: self.deadline(cx).map(Duration::from_millis),
        }
    }
}
