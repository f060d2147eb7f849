//! The loop's mailbox, and the [`Handle`] through which other threads use it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::kernel::Wake;
use crate::protocol::ConnId;

/// Something asked of the loop from elsewhere.
#[derive(Debug)]
pub(crate) enum Command {
    Send(ConnId, Vec<u8>),
    Close(ConnId),
    Wake(ConnId),
}

/// What was asked since the loop last looked.
#[derive(Debug, Default)]
pub(crate) struct Mail {
    pub(crate) commands: VecDeque<Command>,
    /// The shortest grace asked for. Not a command in the queue: it must fit when that is full.
    pub(crate) shutdown: Option<Duration>,
    /// Abort everything at once.
    pub(crate) stop: bool,
}

pub(crate) struct Mailbox {
    mail: Mutex<Mail>,
    capacity: usize,
    waker: Arc<dyn Wake>,
}

impl Mailbox {
    pub(crate) fn new(capacity: usize, waker: Arc<dyn Wake>) -> Arc<Mailbox> {
        Arc::new(Mailbox { mail: Mutex::default(), capacity, waker })
    }

    /// Takes everything that was asked.
    pub(crate) fn take(&self) -> Mail {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Mail> {
        // Nothing panics while the lock is held; a poisoned mailbox holds whole commands all the same.
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Without this every call would wait for the next event by chance.
    fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            log::error!("cannot wake the loop: {error}");
        }
    }
}

/// Drives a reactor from other threads: every call wakes the loop and is in force in its next turn.
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

    /// Ends the reactor: who waits to be accepted is served, then the listeners close and
    /// conversations have `grace` to finish. Of several calls the shortest grace counts.
    pub fn shutdown(&self, grace: Duration) {
        let mut mail = self.mailbox.lock();
        mail.shutdown = Some(mail.shutdown.map_or(grace, |before| before.min(grace)));
        drop(mail);
        self.mailbox.wake();
    }

    /// Sends bytes on a connection, as its protocol would. A connection that is gone is counted in
    /// [`Stats::gone`](crate::Stats::gone), nothing more.
    ///
    /// # Errors
    /// The mailbox is full: the loop is busy, or does not turn. Nothing was sent; try again.
    pub fn send(&self, id: ConnId, bytes: impl Into<Vec<u8>>) -> Result<(), MailboxFull> {
        self.post(Command::Send(id, bytes.into()))
    }

    /// Closes a connection after everything queued on it is delivered, as its protocol would.
    ///
    /// # Errors
    /// The mailbox is full; try again.
    pub fn close(&self, id: ConnId) -> Result<(), MailboxFull> {
        self.post(Command::Close(id))
    }

    /// Ends the reactor without any grace: listeners close, connections are reset.
    pub(crate) fn stop(&self) {
        self.mailbox.lock().stop = true;
        self.mailbox.wake();
    }

    /// Calls [`on_wake`](crate::Protocol::on_wake) of a connection's protocol, so that it can do what
    /// somebody else made possible.
    ///
    /// # Errors
    /// The mailbox is full; try again.
    pub fn wake_connection(&self, id: ConnId) -> Result<(), MailboxFull> {
        self.post(Command::Wake(id))
    }

    /// Makes the loop turn once.
    pub fn wake(&self) {
        self.mailbox.wake();
    }

    fn post(&self, command: Command) -> Result<(), MailboxFull> {
        let mut mail = self.mailbox.lock();
        if mail.commands.len() >= self.mailbox.capacity {
            drop(mail);
            // Full or not, the loop should look.
            self.mailbox.wake();
            return Err(MailboxFull);
        }
        mail.commands.push_back(command);
        drop(mail);
        self.mailbox.wake();
        Ok(())
    }
}

/// The mailbox holds as many commands as [`Limits::mailbox`](crate::Limits::mailbox) allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MailboxFull;

impl fmt::Display for MailboxFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the reactor's mailbox is full: it is busy or does not turn; try again")
    }
}

impl std::error::Error for MailboxFull {}
