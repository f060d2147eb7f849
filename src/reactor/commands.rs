//! Commands: what other threads and other connections ask of a connection.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{Reactor, close};
use crate::connection::{Connection, Queued, What};
use crate::control::{self, Command, Control, Driver};
use crate::kernel::Kernel;
use crate::limits::Origin;
use crate::listener::{ListenOptions, ProtocolFactory};
use crate::protocol::{
    self, Address, Call, CloseReason, ConnId, ListenerId, Outbox, Protocol, Request, Requests,
};
use crate::stats::Stats;

impl<K: Kernel> Reactor<K> {
    /// Calls `what` with a connection's protocol, if it is a `P`, and with its outbox. Returns `None`
    /// if it is of another type, or if the connection is gone, has closed or is still connecting.
    ///
    /// The closure names the type of the protocol, `|counter: &mut Counter, out|`, or the call does:
    /// `with::<Counter, _>`. A protocol that was given to the reactor in a box is found as well. One
    /// that is wrapped in a layer is not: name the type of the layer, and reach the protocol through
    /// it. If `what` panics, the connection is reset, as for a panic of its protocol.
    ///
    /// ```
    /// use campanile::{ConnId, Outbox, Protocol, Reactor};
    ///
    /// struct Counter(usize);
    ///
    /// impl Protocol for Counter {
    ///     fn on_data(&mut self, data: &[u8], _: &mut Outbox) {
    ///         self.0 += data.len();
    ///     }
    /// }
    ///
    /// fn reset_counter(reactor: &mut Reactor, id: ConnId) -> Option<usize> {
    ///     reactor.with(id, |counter: &mut Counter, out| {
    ///         out.send(b"reset\r\n");
    ///         std::mem::take(&mut counter.0)
    ///     })
    /// }
    /// # assert_eq!(reset_counter(&mut Reactor::new()?, Outbox::new(std::time::Instant::now()).id()), None);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn with<P: Protocol, R>(
        &mut self,
        id: ConnId,
        what: impl FnOnce(&mut P, &mut Outbox) -> R,
    ) -> Option<R> {
        control::with(self, id, what)
    }

    pub(super) fn obey(&mut self, command: Command) {
        match command {
            Command::Message(id, bytes) => self.command(id, Call::Message(&bytes)),
            Command::Broadcast(to, bytes) => self.broadcast(to, &bytes),
            Command::Close(id) => self.command(id, Call::Close),
            Command::Abort(id) => self.command(id, Call::Abort),
            Command::Wake(id) => self.command(id, Call::Wake),
            Command::Run(what) => {
                // Unwind-safe: the reactor's own code does not panic between two of its states.
                let body = AssertUnwindSafe(|| what(&mut Control(self)));
                if let Err(panic) = catch_unwind(body) {
                    self.record_panic(panic);
                }
            }
        }
    }

    /// Applies the requests of protocols for other connections. The requests that these make in turn
    /// wait for the next time, so that two that answer each other do not hold the loop.
    pub(super) fn deliver(&mut self) {
        let Requests { mut list, mut bytes } = std::mem::take(&mut self.cx.outbox.requests);
        let mut start = 0;
        for request in list.drain(..) {
            match request {
                Request::Message(id, length) => {
                    self.command(id, Call::Message(&bytes[start..start + length]));
                    start += length;
                }
                Request::Lent(id, part) => {
                    self.call(id, &mut |it, read, out| it.on_message(&read[part.clone()], out));
                }
                Request::Wake(id) => self.command(id, Call::Wake),
                Request::Connect(addr, protocol, parent) => {
                    Driver::connect(self, addr, protocol, Some(parent));
                }
            }
        }
        if self.cx.outbox.requests.list.is_empty() {
            // The storage serves the next requests.
            bytes.clear();
            bytes.shrink_to(self.cx.limits.high_water);
            self.cx.outbox.requests = Requests { list, bytes };
        }
    }

    /// Ends a connection that was asked for and is not made. It has no id: what it requests counts as
    /// requested by its parent.
    fn end_unmade(
        &mut self,
        protocol: Box<dyn Protocol>,
        reason: &CloseReason,
        parent: Option<ConnId>,
    ) {
        self.cx.outbox.id = parent.unwrap_or(ConnId { key: u32::MAX, ordinal: 0 });
        if let Some(panic) = protocol::end(protocol, reason, &mut self.cx.outbox) {
            self.record_panic(panic);
        }
    }

    /// Drops what protocols have asked of other connections, at the end of the reactor.
    pub(super) fn drop_requests(&mut self) {
        for request in std::mem::take(&mut self.cx.outbox.requests).list {
            if let Request::Connect(_, protocol, parent) = request {
                self.end_unmade(protocol, &CloseReason::Shutdown, Some(parent));
            }
        }
    }

    fn command(&mut self, id: ConnId, call: Call<'_>) {
        self.call(id, &mut |protocol, _, out| call.make(protocol, out));
    }

    /// Calls a connection's protocol for a reason that is not an event, and lends it the read buffer.
    /// Returns false if it may not be called.
    fn call(&mut self, id: ConnId, what: What<'_>) -> bool {
        let key = id.key as usize;
        match self.connections.get_mut(key) {
            // ANCHOR: ordinal
            Some(connection) if connection.ordinal == id.ordinal && connection.is_talking() => {
                self.cx.begin_run(id, connection.origin);
                self.cx.budget = self.cx.limits.fresh_budget;
                let outcome = connection.command(&mut self.cx, what);
                self.kernel.observe(id, || connection.view(&self.cx));
                match outcome {
                    Ok(has_work) => {
                        // Without work left, it must not keep a place among the leftovers.
                        self.run_queue.remove_leftover(key, connection);
                        if has_work {
                            self.run_queue.push(key, connection);
                        } else if connection.queued == Queued::No {
                            // Otherwise it runs in this turn, and then judges a deadline that is due.
                            let deadline = connection.plan_deadline(&self.cx);
                            self.arm(key, deadline);
                        }
                    }
                    Err(reason) => close(key, connection, reason, &mut self.closed),
                }
                true
            }
            _ => {
                self.stats.gone += 1;
                false
            }
        }
    }

    fn broadcast(&mut self, to: Option<ListenerId>, bytes: &[u8]) {
        let to = to.map(Origin::listener);
        self.command_all(|origin| to.is_none_or(|to| to == origin), Call::Message(bytes));
    }

    /// Calls the protocols of all connections of some origin.
    pub(super) fn command_all(&mut self, is_meant: impl Fn(Origin) -> bool, call: Call<'_>) {
        let all = self.connections.iter();
        let meant = all.filter(|(_, to)| to.is_talking() && is_meant(to.origin));
        let meant: Vec<_> = meant.map(|(key, connection)| connection.id(key)).collect();
        for id in meant {
            self.command(id, call);
        }
    }
}

impl<K: Kernel> Driver for Reactor<K> {
    fn connect(
        &mut self,
        addr: Address,
        protocol: Box<dyn Protocol>,
        parent: Option<ConnId>,
    ) -> ConnId {
        match self.begin_connect(&addr, parent) {
            Ok((key, stream)) => {
                self.stats.connecting += 1;
                // The last turn may be long ago: the connection's time begins now.
                self.cx.begin_turn(self.kernel.now());
                self.cx.select_bounds(Origin::default());
                let id = self.next_id(key);
                self.insert(id, Connection::connecting(stream, protocol, &self.cx));
                id
            }
            Err(error) => {
                self.end_unmade(protocol, &CloseReason::ConnectFailed(error), parent);
                self.next_id(u32::MAX as usize)
            }
        }
    }

    fn listen(
        &mut self,
        addr: Address,
        options: ListenOptions,
        factory: ProtocolFactory,
    ) -> io::Result<ListenerId> {
        let listener = self.bind(&addr, &options)?;
        self.add_listener(listener, &options, factory)
    }

    fn close_listener(&mut self, id: ListenerId) -> bool {
        Reactor::close_listener(self, id)
    }

    fn local_addr(&self, id: ListenerId) -> Option<Address> {
        Reactor::local_addr(self, id).cloned()
    }

    fn ids(&self) -> Vec<ConnId> {
        Reactor::ids(self).collect()
    }

    fn stats(&self) -> &Stats {
        Reactor::stats(self)
    }

    fn with(&mut self, id: ConnId, what: &mut dyn FnMut(&mut dyn Protocol, &mut Outbox)) -> bool {
        // The last turn may be long ago: timers of the protocol count from now.
        self.cx.begin_turn(self.kernel.now());
        self.call(id, &mut |protocol, _, out| what(protocol, out))
    }
}
