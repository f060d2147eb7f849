//! [`Handle`], which drives a reactor from other threads.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::mailbox::{Command, Mailbox};
use crate::protocol::ConnId;

/// Drives a reactor from other threads. Every call wakes the loop and takes effect in its next turn.
///
/// A handle may outlive its reactor; then its calls do nothing.
#[derive(Clone)]
pub struct Handle {
    mailbox: Arc<Mailbox>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

impl Handle {
    pub(crate) fn new(mailbox: Arc<Mailbox>) -> Handle {
        Handle { mailbox }
    }

    /// Shuts the reactor down: it accepts the clients that are already waiting, closes its listeners
    /// and gives all connections `grace` to finish. If it is called more than once, the shortest
    /// grace counts.
    pub fn shutdown(&self, grace: Duration) {
        self.mailbox.shutdown(grace);
    }

    /// Sends bytes on a connection, as its protocol would. If the connection is gone, has closed or
    /// is still connecting, the bytes are dropped and [`Stats::gone`](crate::Stats::gone) counts them
    /// as one command.
    ///
    /// # Errors
    /// If the mailbox is full, because the loop is busy or does not turn. Nothing was sent; try
    /// again.
    pub fn send(&self, id: ConnId, bytes: impl Into<Vec<u8>>) -> Result<(), MailboxFull> {
        self.post(Command::Send(id, bytes.into()))
    }

    /// Closes a connection after everything queued on it has been sent, as its protocol would.
    ///
    /// # Errors
    /// If the mailbox is full; try again.
    pub fn close(&self, id: ConnId) -> Result<(), MailboxFull> {
        self.post(Command::Close(id))
    }

    /// Ends the reactor without any grace: closes its listeners and resets its connections.
    pub(crate) fn stop(&self) {
        self.mailbox.stop();
    }

    /// Calls [`on_wake`](crate::Protocol::on_wake) of a connection's protocol, for example after
    /// another thread has produced data for it.
    ///
    /// # Errors
    /// If the mailbox is full; try again.
    pub fn wake_connection(&self, id: ConnId) -> Result<(), MailboxFull> {
        self.post(Command::Wake(id))
    }

    /// Makes the loop turn once.
    pub fn wake(&self) {
        self.mailbox.post(|_| ());
    }

    fn post(&self, command: Command) -> Result<(), MailboxFull> {
        if self.mailbox.push(command) { Ok(()) } else { Err(MailboxFull) }
    }
}

/// The error of a mailbox that already holds [`Limits::mailbox`](crate::Limits::mailbox) commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MailboxFull;

impl fmt::Display for MailboxFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "cannot post to the reactor: its mailbox is full; try again after its next turn",
        )
    }
}

impl std::error::Error for MailboxFull {}
