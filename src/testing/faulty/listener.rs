//! [`FaultyListener`]: a listener that can be closed, left alone or filled, and opened again.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::Faulty;
use crate::connection::Stream;
use crate::kernel::Kernel;
use crate::limits::Limits;
use crate::protocol::Address;
use crate::testing::fault::{Effect, Fault};
use crate::testing::plan::ListenerState;

/// A listener that can be closed and opened again.
#[derive(Debug)]
pub struct FaultyListener<L> {
    pub(super) inner: Option<L>,
    key: usize,
    pub(super) local: Address,
    pub(super) limits: Limits,
}

/// What the kernel knows of a listener, which itself belongs to the reactor.
#[derive(Debug)]
pub(super) struct Managed<S> {
    service: Arc<str>,
    wanted: ListenerState,
    state: ListenerState,
    /// The connection that fills the backlog.
    filler: Option<S>,
}

impl<S> Managed<S> {
    pub(super) fn is_moving(&self) -> bool {
        self.wanted != self.state
    }
}

impl<K: Kernel> Faulty<K> {
    pub(super) fn wrap(
        &mut self,
        inner: K::Listener,
        key: usize,
        limits: &Limits,
    ) -> io::Result<FaultyListener<K::Listener>> {
        let local = self.inner.local_addr(&inner)?;
        if key >= self.listeners.len() {
            self.listeners.resize_with(key + 1, || None);
        }
        let (service, open) = (self.book.service(), ListenerState::Accepting);
        self.listeners[key] = Some(Managed { service, wanted: open, state: open, filler: None });
        // The next poll asks the plan whether its faults change with time.
        self.next_change = Some(self.now());
        let mut listener =
            FaultyListener { inner: Some(inner), key, local, limits: limits.clone() };
        // A fault from the start acts before the address is known: no early client is accepted.
        match self.move_listener(&mut listener) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ => Ok(listener),
        }
    }

    /// Asks the plan about each listener. One that must change gets an event: only while it is asked for
    /// a connection can it be changed.
    pub(super) fn check_listeners(&mut self) {
        self.next_change = None;
        for listener in self.listeners.iter_mut().flatten() {
            let (wanted, change) = self.plan.listener_state(&listener.service, self.turn.now.get());
            listener.wanted = wanted;
            self.next_change = self.next_change.into_iter().chain(change).min();
        }
    }

    /// Reports the faults of listeners that the reactor has not asked for a connection in the last turn.
    pub(super) fn report_unmoved(&self) {
        for managed in self.listeners.iter().flatten().filter(|managed| managed.is_moving()) {
            let text = format!(
                "cannot change the listener of {}, because the server accepts no connection now: close \
                 a client, or raise the maximum of connections",
                managed.service
            );
            self.plan.fail(&managed.service, Fault::is_of_listener, &text);
        }
    }

    /// Changes a listener to what the plan wants, and returns its socket and its service if it accepts.
    pub(super) fn move_listener<'a>(
        &mut self,
        listener: &'a mut FaultyListener<K::Listener>,
    ) -> io::Result<(&'a mut K::Listener, Arc<str>)> {
        let place = self.listeners.get_mut(listener.key);
        let mut managed = place.and_then(Option::take).ok_or(ErrorKind::InvalidInput)?;
        managed.wanted = self.plan.listener_state(&managed.service, self.turn.now.get()).0;
        let changed = self.change(&mut managed, listener);
        let (state, service) = (managed.state, Arc::clone(&managed.service));
        self.listeners[listener.key] = Some(managed);
        changed?;
        match &mut listener.inner {
            Some(socket) if state == ListenerState::Accepting => Ok((socket, service)),
            _ => Err(ErrorKind::WouldBlock.into()),
        }
    }

    fn change(
        &mut self,
        managed: &mut Managed<K::Stream>,
        listener: &mut FaultyListener<K::Listener>,
    ) -> io::Result<()> {
        let FaultyListener { inner, key, local, limits } = listener;
        let wanted = managed.wanted;
        if wanted == ListenerState::Closed {
            *inner = None;
        } else if inner.is_none() {
            self.book.serving(&managed.service);
            // If another process has taken the port meanwhile, this fails, and is tried again.
            *inner = Some(self.inner.listen(local, *key, limits)?);
        }
        let filler = managed.filler.take_if(|_| wanted != ListenerState::Full);
        if let (Some(mut filler), Some(socket)) = (filler, &*inner) {
            let is_queued = filler.connected().unwrap_or(false);
            if let (false, Ok(addr)) = (is_queued, filler.local_addr()) {
                self.book.is_our_own(&addr);
            }
            self.inner.set_backlog(socket, limits.backlog)?;
        }
        if let (ListenerState::Full, None, Some(socket)) = (wanted, &managed.filler, &*inner) {
            match self.fill(socket, local, limits) {
                Ok(filler) => managed.filler = Some(filler),
                Err(error) => {
                    let text = format!(
                        "cannot make {local} unreachable: {error}; the fault needs TCP on Linux: use \
                         `refuse` or `never-accept` instead"
                    );
                    log::error!("{text}");
                    let is_meant = |fault: &Fault| fault.effect == Effect::Unreachable;
                    self.plan.fail(&managed.service, is_meant, &text);
                }
            }
        }
        self.book.listener_changed(&managed.service, managed.state, wanted);
        managed.state = wanted;
        Ok(())
    }

    /// Fills the backlog with one connection of our own. The kernel then drops every SYN, and the
    /// connect of a client times out.
    fn fill(
        &mut self,
        socket: &K::Listener,
        local: &Address,
        limits: &Limits,
    ) -> io::Result<K::Stream> {
        // A backlog of 0 holds one connection.
        self.inner.set_backlog(socket, 0)?;
        let filler = self.inner.connect(&reachable(local), limits, None)?;
        self.book.add_filler(filler.local_addr()?);
        Ok(filler)
    }
}

/// Returns an address at which a listener on any address can be reached.
fn reachable(local: &Address) -> Address {
    match local.inet() {
        Some(addr) if addr.ip().is_unspecified() && addr.is_ipv4() => {
            SocketAddr::from((Ipv4Addr::LOCALHOST, addr.port())).into()
        }
        Some(addr) if addr.ip().is_unspecified() => {
            SocketAddr::from((Ipv6Addr::LOCALHOST, addr.port())).into()
        }
        _ => local.clone(),
    }
}
