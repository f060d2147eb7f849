//! [`Handle`], which drives a reactor from other threads.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::control::{Command, Control};
use crate::mailbox::{Mailbox, SendError};
use crate::protocol::{ConnId, ListenerId};

/// Drives a reactor from other threads. Every call takes effect in the loop's next turn, also a call
/// on the thread of the loop. A call wakes the loop only if no wake-up is pending.
///
/// A handle may outlive its reactor. Then its calls fail with [`SendError::Closed`], which gives the
/// content back. It is `Send` and `Sync`.
#[derive(Clone)]
pub struct Handle {
    mailbox: Arc<Mailbox<Command>>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

impl Handle {
    pub(crate) fn new(mailbox: Arc<Mailbox<Command>>) -> Handle {
        Handle { mailbox }
    }

    /// Shuts the reactor down: it accepts the clients that are already waiting, closes its listeners
    /// and gives all connections `grace` to finish. If it is called more than once, the shortest
    /// grace counts.
    pub fn shutdown(&self, grace: Duration) {
        self.mailbox.shutdown(grace);
    }

    /// Passes bytes to a connection's protocol, in one call of
    /// [`on_message`](crate::Protocol::on_message). Its default sends them to the peer. If the
    /// connection is gone, has closed or is still connecting, the bytes are dropped and
    /// [`Stats::gone`](crate::Stats::gone) counts them as one command.
    ///
    /// # Errors
    /// Fails if the mailbox is full or the reactor is gone. The error holds the bytes.
    ///
    /// ```
    /// # use campanile::{Outbox, Reactor};
    /// let reactor = Reactor::new()?;
    /// let handle = reactor.handle();
    /// drop(reactor);
    /// # let id = Outbox::new(std::time::Instant::now()).id();
    /// // The reactor is gone; the bytes are not.
    /// let error = handle.send(id, b"late").unwrap_err();
    /// assert_eq!(error.into_inner(), b"late");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn send(&self, id: ConnId, bytes: impl Into<Vec<u8>>) -> Result<(), SendError> {
        let refused = |command| match command {
            Command::Message(_, bytes) => bytes,
            _ => Vec::new(),
        };
        self.mailbox.push(Command::Message(id, bytes.into())).map_err(|error| error.map(refused))
    }

    /// Passes bytes to the protocol of every open connection, or of every one that the listener `to`
    /// has accepted. It takes one place in the mailbox, and all calls share the bytes.
    ///
    /// # Errors
    /// Fails if the mailbox is full or the reactor is gone. The error holds the bytes.
    ///
    /// ```
    /// use campanile::{Limits, Reactor, SendError};
    ///
    /// let reactor = Reactor::with_limits(Limits::default().mailbox(1))?;
    /// let handle = reactor.handle();
    /// assert_eq!(handle.broadcast(None, *b"to all connections"), Ok(()));
    /// // Full until the next turn. Other threads may keep the bytes and try again.
    /// match handle.broadcast(None, *b"later") {
    ///     Err(SendError::Full(bytes)) => assert_eq!(&*bytes, b"later"),
    ///     other => panic!("the mailbox is not full: {other:?}"),
    /// }
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn broadcast(
        &self,
        to: impl Into<Option<ListenerId>>,
        bytes: impl Into<Arc<[u8]>>,
    ) -> Result<(), SendError<Arc<[u8]>>> {
        let bytes = bytes.into();
        let command = Command::Broadcast(to.into(), Arc::clone(&bytes));
        self.mailbox.push(command).map_err(|error| error.map(|_| bytes))
    }

    /// Closes a connection after everything queued on it has been sent, as its protocol would.
    ///
    /// # Errors
    /// Fails if the mailbox is full or the reactor is gone.
    pub fn close(&self, id: ConnId) -> Result<(), SendError<()>> {
        self.post(Command::Close(id))
    }

    /// Drops the unsent bytes of a connection and resets it, as its protocol would.
    ///
    /// # Errors
    /// Fails if the mailbox is full or the reactor is gone.
    pub fn abort(&self, id: ConnId) -> Result<(), SendError<()>> {
        self.post(Command::Abort(id))
    }

    /// Calls [`on_wake`](crate::Protocol::on_wake) of a connection's protocol, for example after
    /// another thread has produced data for it.
    ///
    /// # Errors
    /// Fails if the mailbox is full or the reactor is gone.
    pub fn wake_connection(&self, id: ConnId) -> Result<(), SendError<()>> {
        self.post(Command::Wake(id))
    }

    /// Runs a closure on the loop's thread: it can connect, listen and reach the state of a protocol.
    /// If it panics, the panic counts as that of a protocol.
    ///
    /// # Errors
    /// Fails if the mailbox is full or the reactor is gone. The closure is dropped.
    ///
    /// ```
    /// # use campanile::{Background, Limits, Outbox, Protocol};
    /// struct Counter(usize);
    ///
    /// impl Protocol for Counter {
    ///     fn on_data(&mut self, data: &[u8], _: &mut Outbox) {
    ///         self.0 += data.len();
    ///     }
    /// }
    ///
    /// let (server, addr) = Background::start(Limits::default(), |reactor| {
    ///     reactor.listen("127.0.0.1:0", |_| Counter(0))
    /// })?;
    /// let (total, totals) = std::sync::mpsc::channel();
    /// server.handle().run(move |control| {
    ///     let mut sum = 0;
    ///     for id in control.ids() {
    ///         sum += control.with(id, |counter: &mut Counter, _| counter.0).unwrap_or(0);
    ///     }
    ///     let _ = total.send(sum);
    /// }).unwrap();
    /// assert_eq!(totals.recv(), Ok(0));
    /// # let _ = addr;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn run(
        &self,
        what: impl FnOnce(&mut Control<'_>) + Send + 'static,
    ) -> Result<(), SendError<()>> {
        self.post(Command::Run(Box::new(what)))
    }

    /// Makes the loop turn once.
    pub fn wake(&self) {
        self.mailbox.post(|_| ());
    }

    /// Returns whether the reactor is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.mailbox.is_closed()
    }

    /// Ends the reactor without any grace: closes its listeners and resets its connections.
    pub(crate) fn stop(&self) {
        self.mailbox.stop();
    }

    fn post(&self, command: Command) -> Result<(), SendError<()>> {
        self.mailbox.push(command).map_err(|error| error.map(drop))
    }
}
