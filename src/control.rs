//! [`Control`]: what a closure that runs on the loop's thread can do with its reactor.

use std::io;
use std::sync::Arc;

use crate::listener::{ListenOptions, ProtocolFactory};
use crate::protocol::{Accepted, Address, ConnId, ListenerId, Outbox, Protocol, downcast};
use crate::stats::Stats;

/// A command that another thread has posted.
pub(crate) enum Command {
    Message(ConnId, Vec<u8>),
    /// For all connections, or for those of one listener.
    Broadcast(Option<ListenerId>, Arc<[u8]>),
    Close(ConnId),
    Abort(ConnId),
    Wake(ConnId),
    Run(Box<dyn FnOnce(&mut Control<'_>) + Send>),
}

/// A reactor of any kernel.
pub(crate) trait Driver {
    fn connect(
        &mut self,
        addr: Address,
        protocol: Box<dyn Protocol>,
        parent: Option<ConnId>,
    ) -> ConnId;
    fn listen(
        &mut self,
        addr: Address,
        options: ListenOptions,
        factory: ProtocolFactory,
    ) -> io::Result<ListenerId>;
    fn close_listener(&mut self, id: ListenerId) -> bool;
    fn local_addr(&self, id: ListenerId) -> Option<Address>;
    fn ids(&self) -> Vec<ConnId>;
    fn stats(&self) -> &Stats;
    /// Returns false if the connection is gone, has closed or is still connecting.
    fn with(&mut self, id: ConnId, what: &mut dyn FnMut(&mut dyn Protocol, &mut Outbox)) -> bool;
}

/// The reactor, for a closure that [`Handle::run`](crate::Handle::run) runs on the loop's thread.
///
/// It has no type parameter, so it works with a reactor on any kernel, and with a `TestServer`. It is
/// neither `Send` nor `Sync`: results leave the closure through a channel.
///
/// ```
/// use std::sync::mpsc;
/// use campanile::{Background, Limits, ListenOptions, echo};
///
/// let (server, addr) =
///     Background::start(Limits::default(), |reactor| reactor.listen("127.0.0.1:0", echo()))?;
/// let (sender, receiver) = mpsc::channel();
/// server.handle().run(move |control| {
///     let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
///     let second = control.listen_with(any, ListenOptions::default(), echo());
///     let _ = sender.send(second.map(|id| control.local_addr(id)));
/// }).expect("the reactor runs");
/// let second = receiver.recv().expect("the closure runs")?;
/// assert_ne!(second.and_then(|second| second.inet()), Some(addr));
/// # std::io::Result::Ok(())
/// ```
pub struct Control<'a>(pub(crate) &'a mut dyn Driver);

impl std::fmt::Debug for Control<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}

impl Control<'_> {
    /// Begins to connect, as [`Reactor::connect`](crate::Reactor::connect) does.
    pub fn connect(&mut self, addr: impl Into<Address>, protocol: impl Protocol) -> ConnId {
        self.0.connect(addr.into(), Box::new(protocol), None)
    }

    /// Binds a listener, as [`Reactor::listen_with`](crate::Reactor::listen_with) does.
    ///
    /// # Errors
    /// Fails if the address cannot be bound, or if the reactor shuts down.
    pub fn listen_with<P: Protocol>(
        &mut self,
        addr: impl Into<Address>,
        options: ListenOptions,
        make: impl FnMut(&Accepted) -> P + 'static,
    ) -> io::Result<ListenerId> {
        self.0.listen(addr.into(), options, boxed(make))
    }

    /// Closes a listener, as [`Reactor::close_listener`](crate::Reactor::close_listener) does.
    pub fn close_listener(&mut self, id: ListenerId) -> bool {
        self.0.close_listener(id)
    }

    /// Returns the address of a listener, or `None` if it is closed.
    #[must_use]
    pub fn local_addr(&self, id: ListenerId) -> Option<Address> {
        self.0.local_addr(id)
    }

    /// Returns the ids of the connections.
    #[must_use]
    pub fn ids(&self) -> Vec<ConnId> {
        self.0.ids()
    }

    /// Returns the counts so far.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        self.0.stats()
    }

    /// Calls `what` with the protocol of a connection, as
    /// [`Reactor::with`](crate::Reactor::with) does. The closure names the type of the protocol,
    /// `|counter: &mut Counter, out|`, or the call does: `with::<Counter, _>`.
    pub fn with<P: Protocol, R>(
        &mut self,
        id: ConnId,
        what: impl FnOnce(&mut P, &mut Outbox) -> R,
    ) -> Option<R> {
        with(self.0, id, what)
    }
}

/// Calls `what` with a connection's protocol, if it is a `P`.
pub(crate) fn with<P: Protocol, R>(
    driver: &mut dyn Driver,
    id: ConnId,
    what: impl FnOnce(&mut P, &mut Outbox) -> R,
) -> Option<R> {
    let (mut what, mut result) = (Some(what), None);
    driver.with(id, &mut |protocol, out| {
        if let Some((protocol, what)) = downcast(protocol).zip(what.take()) {
            result = Some(what(protocol, out));
        }
    });
    result
}

pub(crate) fn boxed<P: Protocol>(
    mut make: impl FnMut(&Accepted) -> P + 'static,
) -> ProtocolFactory {
    Box::new(move |accepted| Box::new(make(accepted)))
}
