//! The requests of a protocol that the reactor or the connection applies after the call.

use std::time::Duration;

use super::{Address, ConnId, Protocol};

/// The requests of a protocol that concern other connections.
#[derive(Default)]
pub(crate) struct Requests {
    pub(crate) list: Vec<Request>,
    /// The bytes of all messages, one after the other.
    pub(crate) bytes: Vec<u8>,
}

pub(crate) enum Request {
    /// This many bytes for that connection.
    Message(ConnId, usize),
    Wake(ConnId),
    Connect(Address, Box<dyn Protocol>),
}

impl std::fmt::Debug for Requests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Requests").field("count", &self.list.len()).finish_non_exhaustive()
    }
}

impl Requests {
    /// Adds the requests of `other`, and empties it.
    pub(super) fn append(&mut self, other: &mut Requests) {
        self.list.append(&mut other.list);
        self.bytes.append(&mut other.bytes);
    }
}

/// The timeouts that a protocol has set for its own connection. The outer `None` is the listener's or
/// the reactor's limit, the inner one is no timeout.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timeouts {
    pub(crate) idle: Option<Option<Duration>>,
    pub(crate) write: Option<Option<Duration>>,
    pub(crate) linger: Option<Option<Duration>>,
}

impl Timeouts {
    /// Takes over what `newer` sets.
    pub(crate) fn update(&mut self, newer: Timeouts) {
        self.idle = newer.idle.or(self.idle);
        self.write = newer.write.or(self.write);
        self.linger = newer.linger.or(self.linger);
    }
}
