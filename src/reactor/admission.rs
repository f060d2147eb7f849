//! How connections begin: listeners, accepted connections, outgoing ones. Each connection gets a slot
//! and a protocol.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Reactor;
use super::shutdown::Shutdown;
use crate::connection::{Connection, Stream};
use crate::kernel::Kernel;
use crate::listener::{Listener, Outcome, ProtocolFactory};
use crate::protocol::{Accepted, Address, CloseReason, ConnId, Protocol};

impl<K: Kernel> Reactor<K> {
    /// Binds a listener, makes a protocol for each connection that it accepts, and returns the bound
    /// address. Port 0 takes any free port.
    ///
    /// If a name has several addresses, the first one that can be bound is used. A listener on an IPv6
    /// address accepts IPv6 connections only, so `0.0.0.0` and `[::]` can listen on the same port.
    ///
    /// # Errors
    /// Fails if the address cannot be resolved or bound.
    pub fn listen<P: Protocol + 'static>(
        &mut self,
        addr: impl ToSocketAddrs,
        make: impl FnMut(&Accepted) -> P + 'static,
    ) -> io::Result<SocketAddr> {
        let key = self.listeners.len();
        let mut failure = io::Error::new(io::ErrorKind::InvalidInput, "the name has no address");
        for addr in addr.to_socket_addrs()? {
            match self.kernel.listen(addr, key, &self.cx.limits) {
                Ok(listener) => return self.add_listener(listener, make),
                Err(error) => failure = error,
            }
        }
        Err(failure)
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
    pub fn listen_on<P: Protocol + 'static>(
        &mut self,
        listener: std::net::TcpListener,
        make: impl FnMut(&Accepted) -> P + 'static,
    ) -> io::Result<SocketAddr> {
        let listener = self.kernel.adopt(listener, self.listeners.len(), &self.cx.limits)?;
        self.add_listener(listener, make)
    }

    fn add_listener<P: Protocol + 'static>(
        &mut self,
        listener: K::Listener,
        mut make: impl FnMut(&Accepted) -> P + 'static,
    ) -> io::Result<SocketAddr> {
        let local = self.kernel.local_addr(&listener)?;
        let Address::Inet(addr) = local;
        let factory: ProtocolFactory = Box::new(move |accepted| Box::new(make(accepted)));
        self.listeners.push(Some(Box::new(Listener::new(listener, local, factory))));
        Ok(addr)
    }

    /// Begins to connect. [`Protocol::on_open`] is called once the connection is established. If it
    /// never is, [`Protocol::on_close`] is called with [`CloseReason::ConnectFailed`] instead.
    ///
    /// # Errors
    /// Fails if every slot is taken, no descriptor is left, or there is no route. `on_close` has been
    /// called by then.
    pub fn connect<P: Protocol + 'static>(
        &mut self,
        addr: SocketAddr,
        mut protocol: P,
    ) -> io::Result<ConnId> {
        match self.begin_connect(addr) {
            Ok((key, stream)) => {
                // The last turn may be long ago: the connection's time begins now.
                self.cx.begin_turn(self.kernel.now());
                self.stats.connecting += 1;
                let connection = Connection::connecting(stream, Box::new(protocol), &self.cx);
                let id = self.next_id(key);
                self.insert(id, connection);
                Ok(id)
            }
            Err(error) => {
                let reason = io::Error::new(error.kind(), error.to_string());
                let reason = CloseReason::ConnectFailed(reason);
                let body = AssertUnwindSafe(move || protocol.on_close(&reason));
                if let Err(panic) = catch_unwind(body) {
                    self.record_panic(panic);
                }
                Err(error)
            }
        }
    }

    fn begin_connect(&mut self, addr: SocketAddr) -> io::Result<(usize, K::Stream)> {
        if self.is_full() {
            let full = "cannot connect: every connection slot is taken; raise Limits::connections";
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, full));
        }
        let mut stream = self.kernel.connect(addr, &self.cx.limits)?;
        let key = self.connections.vacant_key();
        self.kernel.register(&mut stream, key, true)?;
        Ok((key, stream))
    }

    /// Accepts a burst of connections from one listener. The caller has taken it out of `listeners`;
    /// this puts it back, unless it is broken or, in a shutdown, drained.
    pub(super) fn accept_burst(&mut self, key: usize, mut listener: Box<Listener<K::Listener>>) {
        let (most, now) = (self.cx.limits.accepts, self.cx.millis);
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
                    self.admit(&mut listener, stream, peer);
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
        // After a burst of `Limits::accepts`, more clients probably wait: the listener stays ready and
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
        listener: &mut Listener<K::Listener>,
        mut stream: K::Stream,
        peer: Address,
    ) {
        let key = self.connections.vacant_key();
        if let (Some(max), Some(ip)) = (self.cx.limits.per_peer, peer.ip()) {
            if !self.peers.admit(key, ip, max) {
                self.stats.refused += 1;
                return;
            }
        }
        let id = self.next_id(key);
        let accepted = Accepted { id, peer, local: listener.local.clone() };
        let factory = &mut listener.factory;
        match catch_unwind(AssertUnwindSafe(|| factory(&accepted))) {
            Ok(protocol) => {
                self.stats.accepted += 1;
                self.insert(id, Connection::new(stream, protocol, &self.cx));
            }
            Err(panic) => {
                stream.abort();
                self.record_panic(panic);
                self.peers.forget(key);
            }
        }
    }

    /// Returns an identity that no connection had before.
    fn next_id(&mut self, key: usize) -> ConnId {
        self.ordinal += 1;
        ConnId { key: key as u32, ordinal: self.ordinal }
    }

    fn insert(&mut self, id: ConnId, mut connection: Connection<K::Stream>) {
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
        self.connections.len() >= self.cx.limits.connections
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
