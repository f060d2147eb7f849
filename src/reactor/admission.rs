//! How connections come in: listeners, newcomers, outgoing ones; a slot and a protocol for each.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{Reactor, enqueue};
use crate::connection::{Connection, Stream};
use crate::kernel::Kernel;
use crate::listener::{Listener, Maker, Outcome};
use crate::protocol::{Accepted, Address, CloseReason, ConnId, Protocol};

impl<K: Kernel> Reactor<K> {
    /// Binds a listener and makes a protocol for each connection it accepts. Port 0 takes any free
    /// port; the address that was bound is returned.
    ///
    /// # Errors
    /// If the address cannot be resolved or bound. Of several addresses the first that can be is.
    pub fn listen<P: Protocol + 'static>(
        &mut self,
        addr: impl ToSocketAddrs,
        make: impl FnMut(&Accepted) -> P + 'static,
    ) -> io::Result<SocketAddr> {
        let key = self.listeners.len();
        let mut failure = io::Error::new(io::ErrorKind::InvalidInput, "the name has no address");
        for addr in addr.to_socket_addrs()? {
            match self.kernel.listen(addr, key, &self.lent.limits) {
                Ok(listener) => return self.add_listener(listener, make),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// The same on a listener that somebody else has bound, for example a service manager.
    ///
    /// # Errors
    /// If it cannot be made non-blocking or registered.
    pub fn listen_on<P: Protocol + 'static>(
        &mut self,
        listener: std::net::TcpListener,
        make: impl FnMut(&Accepted) -> P + 'static,
    ) -> io::Result<SocketAddr> {
        let listener = self.kernel.adopt(listener, self.listeners.len())?;
        self.add_listener(listener, make)
    }

    fn add_listener<P: Protocol + 'static>(
        &mut self,
        listener: K::Listener,
        mut make: impl FnMut(&Accepted) -> P + 'static,
    ) -> io::Result<SocketAddr> {
        let local = self.kernel.local_addr(&listener)?;
        let Address::Inet(addr) = local;
        let make: Maker = Box::new(move |accepted| Box::new(make(accepted)));
        self.listeners.push(Some(Listener::new(listener, local, make)));
        Ok(addr)
    }

    /// Begins to connect. The protocol is opened once the connection stands; if it never does, it
    /// hears [`CloseReason::ConnectFailed`] without having been opened.
    ///
    /// # Errors
    /// If it fails at once: every slot is taken, no descriptor is left, there is no route. The
    /// protocol has heard of it, too.
    pub fn connect<P: Protocol + 'static>(
        &mut self,
        addr: SocketAddr,
        mut protocol: P,
    ) -> io::Result<ConnId> {
        match self.begin_connect(addr) {
            Ok((key, stream)) => {
                // Asked between two turns, which may be far apart: its time begins now.
                self.lent.begin_turn(self.kernel.now());
                self.stats.connecting += 1;
                let connection = Connection::connecting(stream, Box::new(protocol), &self.lent);
                let id = self.next_id(key);
                self.insert(id, connection);
                Ok(id)
            }
            Err(error) => {
                let told = io::Error::new(error.kind(), error.to_string());
                let told = CloseReason::ConnectFailed(told);
                let body = AssertUnwindSafe(move || protocol.on_close(&told));
                if let Err(panic) = catch_unwind(body) {
                    self.note_panic(panic);
                }
                Err(error)
            }
        }
    }

    fn begin_connect(&mut self, addr: SocketAddr) -> io::Result<(usize, K::Stream)> {
        if self.is_full() {
            let full = "every connection slot is taken: raise Limits::connections";
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, full));
        }
        let mut stream = self.kernel.connect(addr)?;
        let key = self.connections.vacant_key();
        self.kernel.register(&mut stream, key, true)?;
        Ok((key, stream))
    }

    /// Takes as many from one listener as its pressure says.
    pub(super) fn accept_some(&mut self, key: usize) {
        let (most, now) = (self.lent.limits.accepts, self.lent.millis);
        let saw_all = !self.was_full && !self.was_interrupted;
        let Some(listener) = &mut self.listeners[key] else {
            return;
        };
        let Some(burst) = listener.burst(most, now, saw_all) else {
            return;
        };
        for _ in 0..burst {
            if !self.accept_one(key) {
                return;
            }
        }
        // Stopped by its bound it stays ready, and goes on in the next turn.
        if burst < most {
            if let Some(listener) = &mut self.listeners[key] {
                listener.rearm(&mut self.kernel, key);
            }
        }
    }

    /// Asks one listener for one connection; false if it has none, or may not have one.
    fn accept_one(&mut self, key: usize) -> bool {
        let (now, is_full) = (self.lent.millis, self.is_full());
        let Some(listener) = &mut self.listeners[key] else {
            return false;
        };
        if !listener.is_accepting(now) {
            return false;
        }
        if is_full {
            listener.wait_for_a_slot();
            return false;
        }
        match listener.next(&mut self.kernel, now) {
            Outcome::Newcomer(stream, peer) => {
                self.admit(key, stream, peer);
                return true;
            }
            Outcome::Drained => return false,
            Outcome::Lost => {}
            Outcome::Exhausted => {
                self.stats.accept_errors += 1;
                return false;
            }
            Outcome::Broken(error) => {
                log::error!(
                    "the listener on {} is broken and was removed: {error}",
                    listener.local
                );
                self.listeners[key] = None;
                self.failure = Some(error);
            }
        }
        self.stats.accept_errors += 1;
        true
    }

    /// Gives a newcomer a protocol, a slot and a place on the run queue.
    fn admit(&mut self, listener: usize, mut stream: K::Stream, peer: Address) {
        let counted = self.lent.limits.per_peer.and_then(|max| Some((peer.ip()?, max)));
        if counted.is_some_and(|(ip, max)| !self.peers.admit(ip, max)) {
            self.stats.refused += 1;
            return;
        }
        let counted = counted.map(|(ip, _)| ip);
        let key = self.connections.vacant_key();
        let id = self.next_id(key);
        let Some(listener) = &mut self.listeners[listener] else {
            return;
        };
        let accepted = Accepted { id, peer, local: listener.local.clone() };
        let make = &mut listener.make;
        match catch_unwind(AssertUnwindSafe(|| make(&accepted))) {
            Ok(protocol) => {
                self.stats.accepted += 1;
                let mut connection = Connection::new(stream, protocol, &self.lent);
                if let Some(ip) = counted {
                    connection.set_peer(ip);
                }
                self.insert(id, connection);
            }
            Err(panic) => {
                stream.abort();
                self.note_panic(panic);
                if let Some(ip) = counted {
                    self.peers.forget(ip);
                }
            }
        }
    }

    /// An identity that nobody had before, whatever becomes of its connection.
    fn next_id(&mut self, key: usize) -> ConnId {
        self.ordinal += 1;
        ConnId { key: key as u32, ordinal: self.ordinal }
    }

    fn insert(&mut self, id: ConnId, mut connection: Connection<K::Stream>) {
        connection.ordinal = id.ordinal;
        // By an eighth, not by doubling: spare room is every idle connection's memory.
        if self.connections.len() == self.connections.capacity() {
            self.connections.reserve_exact(self.connections.len() / 8 + 8);
        }
        enqueue(id.key as usize, &mut connection, &mut self.runnable);
        let inserted = self.connections.insert(connection);
        debug_assert_eq!(inserted, id.key as usize);
    }

    fn is_full(&self) -> bool {
        self.connections.len() >= self.lent.limits.connections
    }
}

/// How many connections each address has. An address without one leaves no trace.
#[derive(Debug, Default)]
pub(super) struct Peers(HashMap<IpAddr, usize>);

impl Peers {
    /// Counts one more, unless that would be more than `max`.
    fn admit(&mut self, peer: IpAddr, max: usize) -> bool {
        let has_room = self.0.get(&peer).copied().unwrap_or(0) < max;
        if has_room {
            *self.0.entry(peer).or_default() += 1;
        }
        has_room
    }

    pub(super) fn forget(&mut self, peer: IpAddr) {
        if let Some(count) = self.0.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&peer);
            }
        }
    }
}
