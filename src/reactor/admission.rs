//! How connections begin: listeners, accepted connections, outgoing ones. Each connection gets a slot
//! and a protocol.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Reactor;
use super::shutdown::Shutdown;
use crate::connection::{Connection, Stream};
use crate::control::{Driver, boxed};
use crate::kernel::Kernel;
use crate::limits::Origin;
use crate::listener::{ListenOptions, Listener, Outcome, ProtocolFactory};
use crate::protocol::{Accepted, Address, ConnId, ListenerId, Protocol};

impl<K: Kernel> Reactor<K> {
    /// Binds a TCP listener, creates a protocol for each connection that it accepts, and returns the
    /// bound address. Port 0 takes any free port.
    ///
    /// If a name has several addresses, the first one that can be bound is used. A listener on an IPv6
    /// address accepts IPv6 connections only, so `0.0.0.0` and `[::]` can listen on the same port. For a
    /// Unix socket, or to close the listener later, call [`listen_with`](Reactor::listen_with).
    ///
    /// A closure that is kept in a variable names the type of its argument, `|_: &Accepted|`. Otherwise
    /// the compiler reports that it is "not general enough":
    ///
    /// ```
    /// use std::{cell::Cell, rc::Rc};
    /// use campanile::{Accepted, Outbox, Protocol, Reactor};
    ///
    /// /// Sends the total number of bytes that both listeners have received.
    /// struct Total(Rc<Cell<usize>>);
    ///
    /// impl Protocol for Total {
    ///     fn on_data(&mut self, data: &[u8], out: &mut Outbox) {
    ///         self.0.set(self.0.get() + data.len());
    ///         out.send(format!("{}\n", self.0.get()).as_bytes());
    ///     }
    /// }
    ///
    /// let total = Rc::new(Cell::new(0));
    /// let make = move |_: &Accepted| Total(Rc::clone(&total));
    /// let mut reactor = Reactor::new()?;
    /// let first = reactor.listen("127.0.0.1:0", make.clone())?;
    /// let second = reactor.listen("127.0.0.1:0", make)?;
    /// # assert_ne!(first, second);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// Fails if the address cannot be resolved or bound, or if the reactor shuts down.
    pub fn listen<P: Protocol>(
        &mut self,
        addr: impl ToSocketAddrs,
        make: impl FnMut(&Accepted) -> P + 'static,
    ) -> io::Result<SocketAddr> {
        let mut failure = io::Error::new(io::ErrorKind::InvalidInput, "the name has no address");
        let resolved = addr.to_socket_addrs().map_err(|error| {
            let advice = "write HOST:PORT, or call `listen_with` for the path of a Unix socket";
            io::Error::new(error.kind(), format!("cannot resolve the address: {error}; {advice}"))
        })?;
        let options = ListenOptions::default();
        for addr in resolved {
            match self.bind(&addr.into(), &options) {
                Ok(listener) => {
                    let id = self.add_listener(listener, &options, boxed(make))?;
                    return self.inet_addr(id);
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Binds a listener on an IP address or a Unix socket, with options of its own. The address is a
    /// `SocketAddr`, a `Path`, or text that was parsed as an [`Address`].
    ///
    /// A Unix socket without a server is taken over. If a server listens on it, or the path is a file
    /// of another kind, the call fails. The path is removed when the listener closes, unless another
    /// file has replaced it. The umask sets the mode of the socket: clients need write permission.
    /// [`Limits::max_per_peer`](crate::Limits::max_per_peer) does not apply to its connections, and a
    /// reset reaches the peer as EOF.
    ///
    /// # Errors
    /// Fails if the address cannot be bound, if the reactor shuts down, or after 65,534 listeners. The
    /// error of a Unix socket names the path and the next step; its kind is `AddrInUse` for a live
    /// server and `AlreadyExists` for another file.
    ///
    /// ```
    /// # #[cfg(unix)] {
    /// use campanile::{ListenOptions, Reactor, echo};
    ///
    /// let path = std::env::temp_dir().join(format!("campanile-doc-{}", std::process::id()));
    /// let mut reactor = Reactor::new()?;
    /// let id = reactor.listen_with(path.clone(), ListenOptions::default(), echo())?;
    /// assert!(path.exists());
    /// reactor.close_listener(id);
    /// assert!(!path.exists());
    /// # }
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn listen_with<P: Protocol>(
        &mut self,
        addr: impl Into<Address>,
        options: ListenOptions,
        make: impl FnMut(&Accepted) -> P + 'static,
    ) -> io::Result<ListenerId> {
        Driver::listen(self, addr.into(), options, boxed(make))
    }

    /// Serves a listener that is already bound, for example by a service manager.
    ///
    /// Its connections get the same socket options as those of [`listen`](Reactor::listen):
    /// `TCP_NODELAY`, [`Limits::send_buffer`](crate::Limits::send_buffer) and
    /// [`Limits::receive_buffer`](crate::Limits::receive_buffer). Its backlog stays as it is, and an
    /// IPv6 listener that also accepts IPv4 connections goes on doing so.
    ///
    /// # Errors
    /// Fails if the listener cannot be configured or registered.
    pub fn listen_on<P: Protocol>(
        &mut self,
        listener: std::net::TcpListener,
        make: impl FnMut(&Accepted) -> P + 'static,
    ) -> io::Result<SocketAddr> {
        let listener = self.kernel.adopt(listener, self.listeners.len(), &self.cx.limits)?;
        let id = self.add_listener(listener, &ListenOptions::default(), boxed(make))?;
        self.inet_addr(id)
    }

    /// Serves a Unix listener that is already bound. Its path and its backlog stay as they are, also
    /// when the listener closes.
    ///
    /// # Errors
    /// Fails if the listener cannot be configured or registered.
    #[cfg(unix)]
    pub fn listen_on_unix<P: Protocol>(
        &mut self,
        listener: std::os::unix::net::UnixListener,
        make: impl FnMut(&Accepted) -> P + 'static,
    ) -> io::Result<ListenerId> {
        let listener = self.kernel.adopt_unix(listener, self.listeners.len(), &self.cx.limits)?;
        self.add_listener(listener, &ListenOptions::default(), boxed(make))
    }

    /// Closes a listener; its connections stay. Returns false if it was closed already.
    pub fn close_listener(&mut self, id: ListenerId) -> bool {
        self.listeners.get_mut(id.0).is_some_and(|place| place.take().is_some())
    }

    /// Returns the address of a listener, or `None` if it is closed.
    #[must_use]
    pub fn local_addr(&self, id: ListenerId) -> Option<&Address> {
        Some(&self.listeners.get(id.0)?.as_ref()?.local)
    }

    /// Returns the open listeners and their addresses, in the order of their creation.
    pub fn listeners(&self) -> impl Iterator<Item = (ListenerId, &Address)> {
        let listeners = self.listeners.iter().enumerate();
        listeners.filter_map(|(key, listener)| Some((ListenerId(key), &listener.as_ref()?.local)))
    }

    pub(super) fn bind(
        &mut self,
        addr: &Address,
        options: &ListenOptions,
    ) -> io::Result<K::Listener> {
        let limits = options.limits.as_ref().unwrap_or(&self.cx.limits);
        self.kernel.listen(addr, self.listeners.len(), limits)
    }

    pub(super) fn add_listener(
        &mut self,
        listener: K::Listener,
        options: &ListenOptions,
        factory: ProtocolFactory,
    ) -> io::Result<ListenerId> {
        if self.shutdown != Shutdown::No {
            let text = "cannot listen: the reactor shuts down; create another one";
            return Err(io::Error::other(text));
        }
        let id = ListenerId(self.listeners.len());
        if !self.cx.add_bounds(options.limits.as_ref()) {
            let text = "cannot listen: the reactor has had 65,534 listeners; create another one";
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, text));
        }
        let local = self.kernel.local_addr(&listener)?;
        self.listeners.push(Some(Box::new(Listener::new(listener, local, factory))));
        Ok(id)
    }

    fn inet_addr(&self, id: ListenerId) -> io::Result<SocketAddr> {
        self.local_addr(id).and_then(Address::inet).ok_or(io::ErrorKind::AddrNotAvailable.into())
    }

    /// Begins to connect, and returns the id of the new connection. [`Protocol::on_open`] is called
    /// once the connection is established. If it never is, [`Protocol::on_close`] is called instead,
    /// with [`ConnectFailed`](crate::CloseReason::ConnectFailed). That is during this call if no slot or
    /// no descriptor is left or there is no route; then the id belongs to no connection.
    ///
    /// ```
    /// use campanile::{CloseReason, Outbox, Protocol, Reactor};
    ///
    /// struct Asker;
    ///
    /// impl Protocol for Asker {
    ///     fn on_open(&mut self, out: &mut Outbox) {
    ///         out.send(b"what time is it?");
    ///     }
    ///     fn on_data(&mut self, _: &[u8], out: &mut Outbox) {
    ///         out.close();
    ///     }
    ///     fn on_close(&mut self, reason: &CloseReason) {
    ///         assert!(matches!(reason, CloseReason::ConnectFailed(_)));
    ///     }
    /// }
    ///
    /// # let closed = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    /// let mut reactor = Reactor::new()?;
    /// reactor.connect(closed, Asker); // no server listens there
    /// reactor.run()?;
    /// assert_eq!(reactor.stats().closed, 1);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn connect(&mut self, addr: impl Into<Address>, protocol: impl Protocol) -> ConnId {
        Driver::connect(self, addr.into(), Box::new(protocol), None)
    }

    pub(super) fn begin_connect(
        &mut self,
        addr: &Address,
        parent: Option<ConnId>,
    ) -> io::Result<(usize, K::Stream)> {
        if self.is_full() {
            let full =
                "cannot connect: every connection slot is taken; raise Limits::max_connections";
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, full));
        }
        let mut stream = self.kernel.connect(addr, &self.cx.limits, parent)?;
        let key = self.connections.vacant_key();
        self.kernel.register(&mut stream, key, true)?;
        Ok((key, stream))
    }

    /// Accepts a burst of connections from one listener. The caller has taken it out of `listeners`;
    /// this puts it back, unless it is broken or, in a shutdown, drained.
    pub(super) fn accept_burst(&mut self, key: usize, mut listener: Box<Listener<K::Listener>>) {
        let (most, now) = (self.cx.limits.max_accepts_per_turn, self.cx.millis);
        let burst = listener.burst(most);
        let mut left = burst;
        while left > 0 {
            if self.is_full() {
                listener.wait_for_a_slot();
                break;
            }
            match listener.next(&mut self.kernel, now) {
                Outcome::Accepted(stream, peer) => {
                    self.first_listener = key + 1;
                    self.admit(key, &mut listener, stream, peer);
                }
                Outcome::Drained => break,
                Outcome::Lost => self.stats.accept_errors += 1,
                Outcome::Paused => {
                    self.stats.accept_errors += 1;
                    break;
                }
                Outcome::Broken(error) => {
                    self.stats.accept_errors += 1;
                    self.failure = Some(error);
                    return;
                }
            }
            left -= 1;
        }
        // After a burst of `Limits::max_accepts_per_turn`, more clients probably wait: the listener stays ready and
        // accepts in the next turn. After a smaller one, a rearm costs less than an accept(2) that
        // finds no client.
        if left == 0 && burst < most {
            listener.rearm(&mut self.kernel, key);
        }
        if self.shutdown == Shutdown::No || !listener.is_drained() {
            self.listeners[key] = Some(listener);
        }
    }

    /// Gives a new connection a protocol, a slot and a place on the run queue.
    fn admit(
        &mut self,
        listener_key: usize,
        listener: &mut Listener<K::Listener>,
        mut stream: K::Stream,
        peer: Address,
    ) {
        let key = self.connections.vacant_key();
        let limit = self.cx.limits.max_per_peer;
        if let Some((max, ip)) = limit.and_then(|max| Some((max, peer.ip()?))) {
            if !self.peers.admit(key, ip, max) {
                self.stats.refused += 1;
                return;
            }
        }
        let id = self.next_id(key);
        let from = ListenerId(listener_key);
        let accepted = Accepted { id, listener: from, peer, local: listener.local.clone() };
        let factory = &mut listener.factory;
        match catch_unwind(AssertUnwindSafe(|| factory(&accepted))) {
            Ok(protocol) => {
                self.stats.accepted += 1;
                let origin = Origin::listener(from);
                self.cx.select_bounds(origin);
                let mut connection = Connection::new(stream, protocol, &self.cx);
                connection.origin = origin;
                self.insert(id, connection);
            }
            Err(panic) => {
                stream.abort();
                self.record_panic(panic);
                self.peers.forget(key);
            }
        }
    }

    /// Returns an identity that no connection had before.
    pub(super) fn next_id(&mut self, key: usize) -> ConnId {
        self.ordinal += 1;
        ConnId { key: key as u32, ordinal: self.ordinal }
    }

    pub(super) fn insert(&mut self, id: ConnId, mut connection: Connection<K::Stream>) {
        connection.ordinal = id.ordinal;
        // Grows by an eighth, not by doubling: spare room counts as memory per idle connection.
        if self.connections.len() == self.connections.capacity() {
            self.connections.reserve_exact(self.connections.len() / 8 + 8);
        }
        self.run_queue.push(id.key as usize, &mut connection);
        let inserted = self.connections.insert(connection);
        debug_assert_eq!(inserted, id.key as usize);
    }

    fn is_full(&self) -> bool {
        self.connections.len() >= self.cx.limits.max_connections
    }
}

/// How many connections each address has, and the address of each connection that counts. Both are
/// empty without a limit.
#[derive(Debug, Default)]
pub(super) struct Peers {
    counts: HashMap<IpAddr, usize>,
    addresses: HashMap<usize, IpAddr>,
}

impl Peers {
    /// Counts the connection `key` for `ip`, and returns true, unless that already has `max`.
    fn admit(&mut self, key: usize, ip: IpAddr, max: usize) -> bool {
        let count = self.counts.get(&ip).copied().unwrap_or(0);
        if count < max {
            self.counts.insert(ip, count + 1);
            self.addresses.insert(key, ip);
        }
        count < max
    }

    pub(super) fn forget(&mut self, key: usize) {
        let Some(ip) = self.addresses.remove(&key) else {
            return;
        };
        match self.counts.get_mut(&ip) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.counts.remove(&ip)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_forgotten_with_its_last_connection() {
        let (mut peers, ip) = (Peers::default(), IpAddr::from([127, 0, 0, 1]));
        assert!(peers.admit(1, ip, 2) && peers.admit(2, ip, 2));
        peers.forget(1);
        assert_eq!(peers.counts.get(&ip), Some(&1));
        peers.forget(2);
        assert!(peers.counts.is_empty() && peers.addresses.is_empty());
    }
}
