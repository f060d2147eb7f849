//! The requests of a protocol that the reactor or the connection applies after the call.

use std::ops::Range;
use std::time::Duration;

use super::{Address, ConnId, Outbox, Protocol};

/// The requests of a protocol that concern other connections.
#[derive(Default)]
pub(crate) struct Requests {
    pub(crate) list: Vec<Request>,
    /// The bytes of all messages that are copied, one after the other.
    pub(crate) bytes: Vec<u8>,
}

pub(crate) enum Request {
    /// This many bytes for that connection.
    Message(ConnId, usize),
    /// This part of the read buffer for that connection.
    Lent(ConnId, Range<usize>),
    Wake(ConnId),
    /// The connection that asks is the parent of the new one.
    Connect(Address, Box<dyn Protocol>, ConnId),
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

impl Outbox {
    /// Sets this connection's [`Limits::idle_timeout`](crate::Limits::idle_timeout).
    pub fn set_idle_timeout(&mut self, timeout: Option<Duration>) {
        self.set_timeouts(Timeouts { idle: Some(timeout), ..Timeouts::default() });
    }

    /// Sets this connection's [`Limits::write_timeout`](crate::Limits::write_timeout).
    pub fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.set_timeouts(Timeouts { write: Some(timeout), ..Timeouts::default() });
    }

    /// Sets this connection's [`Limits::linger_timeout`](crate::Limits::linger_timeout).
    pub fn set_linger_timeout(&mut self, timeout: Duration) {
        self.set_timeouts(Timeouts { linger: Some(Some(timeout)), ..Timeouts::default() });
    }

    pub(super) fn set_timeouts(&mut self, timeouts: Timeouts) {
        self.timeouts.get_or_insert_default().update(timeouts);
        self.has_requests = true;
    }

    /// Passes `bytes` to the protocol of another connection of this reactor, which is called with
    /// [`on_message`](crate::Protocol::on_message) after this call, usually in the same turn. If that
    /// connection is gone, the bytes are dropped and [`Stats::gone`](crate::Stats::gone) counts them.
    ///
    /// Messages and wake-ups of one connection arrive in their order. The id may be this connection's
    /// own. Nothing bounds the bytes of one call; the receiver's
    /// [`Limits::max_send_queue`](crate::Limits::max_send_queue) bounds those that it sends on. Data
    /// that [`on_data`](crate::Protocol::on_data) passes on as it came is written from the read buffer,
    /// and only what the kernel does not take is copied; the sender then reads on in the next turn.
    /// Less than an eighth of [`Limits::read_buffer`](crate::Limits::read_buffer) is copied.
    ///
    /// ```
    /// use std::{cell::RefCell, rc::Rc};
    /// use campanile::{ConnId, Outbox, Protocol};
    ///
    /// /// A member of a chat. The members share the list without a lock: one thread runs them all.
    /// struct Member(Rc<RefCell<Vec<ConnId>>>);
    ///
    /// impl Protocol for Member {
    ///     fn on_open(&mut self, out: &mut Outbox) {
    ///         self.0.borrow_mut().push(out.id());
    ///     }
    ///     fn on_data(&mut self, data: &[u8], out: &mut Outbox) {
    ///         for &member in self.0.borrow().iter() {
    ///             out.message(member, data); // to `on_message`, whose default sends it
    ///         }
    ///     }
    /// }
    ///
    /// let mut out = Outbox::new(std::time::Instant::now());
    /// let mut member = Member(Rc::default());
    /// member.on_open(&mut out);
    /// member.on_data(b"hello", &mut out);
    /// assert_eq!(out.messages().collect::<Vec<_>>(), [(out.id(), &b"hello"[..])]);
    /// ```
    pub fn message(&mut self, id: ConnId, bytes: &[u8]) {
        if let Some(part) = self.lend(bytes) {
            return self.requests.list.push(Request::Lent(id, part));
        }
        self.requests.bytes.extend_from_slice(bytes);
        self.requests.list.push(Request::Message(id, bytes.len()));
    }

    /// Requests a call of [`on_wake`](crate::Protocol::on_wake) of another connection's protocol, after
    /// this call. If that connection is gone, [`Stats::gone`](crate::Stats::gone) counts the request.
    pub fn wake(&mut self, id: ConnId) {
        self.requests.list.push(Request::Wake(id));
    }

    /// Begins to connect to `addr` after this call, as
    /// [`Reactor::connect`](crate::Reactor::connect) does. The new protocol learns its id in
    /// [`on_open`](crate::Protocol::on_open). If the connection cannot be made, its
    /// [`on_close`](crate::Protocol::on_close) is called, and nothing else.
    ///
    /// Each side of a relay leaves its id where the other one finds it:
    ///
    /// ```
    /// use std::{cell::Cell, net::SocketAddr, rc::Rc};
    /// use campanile::{ConnId, Outbox, Protocol};
    ///
    /// type Place = Rc<Cell<Option<ConnId>>>;
    ///
    /// struct Side { own: Place, other: Place, server: SocketAddr }
    ///
    /// impl Protocol for Side {
    ///     fn on_open(&mut self, out: &mut Outbox) {
    ///         self.own.set(Some(out.id()));
    ///         if let Some(client) = self.other.get() {
    ///             return out.wake(client);
    ///         }
    ///         out.pause(); // until the server is connected
    ///         let (own, other) = (self.other.clone(), self.own.clone());
    ///         out.connect(self.server, Side { own, other, server: self.server });
    ///     }
    ///     fn on_wake(&mut self, out: &mut Outbox) {
    ///         out.resume();
    ///     }
    ///     fn on_data(&mut self, data: &[u8], out: &mut Outbox) {
    ///         if let Some(other) = self.other.get() {
    ///             out.message(other, data);
    ///         }
    ///     }
    /// }
    /// ```
    pub fn connect(&mut self, addr: impl Into<Address>, protocol: impl Protocol) {
        self.requests.list.push(Request::Connect(addr.into(), Box::new(protocol), self.id));
    }

    /// Returns the messages for other connections that were not passed on yet, for assertions in a unit
    /// test. During a call of the loop, those that are still in its read buffer are not among them.
    pub fn messages(&self) -> impl Iterator<Item = (ConnId, &[u8])> {
        let mut start = 0;
        self.requests.list.iter().filter_map(move |request| {
            let Request::Message(id, length) = request else {
                return None;
            };
            start += length;
            Some((*id, &self.requests.bytes[start - length..start]))
        })
    }
}
