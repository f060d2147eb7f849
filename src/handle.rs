//! The loop's mailbox, and the [`Handle`] through which other threads use it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

#[cfg(loom)]
use loom::sync::{Mutex, MutexGuard, atomic::AtomicBool, atomic::Ordering};
#[cfg(not(loom))]
use std::sync::{Mutex, MutexGuard, atomic::AtomicBool, atomic::Ordering};

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
    /// Whether there is mail, for a loop that looks in every turn. The waker only ends a sleep: a
    /// selector that is told of a new socket may swallow a wake-up that nobody has slept through
    /// (mio's poll(2) does).
    has_mail: AtomicBool,
    capacity: usize,
    waker: Arc<dyn Wake>,
}

impl Mailbox {
    pub(crate) fn new(capacity: usize, waker: Arc<dyn Wake>) -> Arc<Mailbox> {
        let (mail, has_mail) = (Mutex::new(Mail::default()), AtomicBool::new(false));
        Arc::new(Mailbox { mail, has_mail, capacity, waker })
    }

    pub(crate) fn has_mail(&self) -> bool {
        self.has_mail.load(Ordering::Acquire)
    }

    /// Takes everything that was asked.
    pub(crate) fn take(&self) -> Mail {
        let mut mail = self.lock();
        self.has_mail.store(false, Ordering::Release);
        std::mem::take(&mut *mail)
    }

    /// Adds to the mail, unless `add` finds no room, and wakes the loop in either case.
    fn post(&self, add: impl FnOnce(&mut Mail) -> bool) -> bool {
        let mut mail = self.lock();
        let is_added = add(&mut mail);
        self.has_mail.store(true, Ordering::Release);
        drop(mail);
        self.wake();
        is_added
    }

    fn lock(&self) -> MutexGuard<'_, Mail> {
        // Nothing panics while the lock is held; a poisoned mailbox holds whole commands all the same.
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Without this every call would wait for the next event by chance.
    fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            log::error!("cannot wake the loop: {error}; it continues with its next event");
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
        self.mailbox.post(|mail| {
            mail.shutdown = Some(mail.shutdown.map_or(grace, |before| before.min(grace)));
            true
        });
    }

    /// Sends bytes on a connection, as its protocol would. One that is gone, has closed or is still
    /// being made is counted in [`Stats::gone`](crate::Stats::gone), nothing more.
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
        self.mailbox.post(|mail| {
            mail.stop = true;
            true
        });
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
        self.mailbox.post(|_| true);
    }

    fn post(&self, command: Command) -> Result<(), MailboxFull> {
        let capacity = self.mailbox.capacity;
        let is_added = self.mailbox.post(|mail| {
            let has_room = mail.commands.len() < capacity;
            if has_room {
                mail.commands.push_back(command);
            }
            has_room
        });
        if is_added { Ok(()) } else { Err(MailboxFull) }
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

/// Every interleaving of two posters and the loop: `RUSTFLAGS="--cfg loom" cargo test --lib loom`.
#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::{Condvar, Mutex};
    use loom::thread;

    /// A poll and its waker: wake-ups are merged, as an eventfd merges them.
    struct Bell(Mutex<bool>, Condvar);

    impl Bell {
        fn sleep(&self) {
            let mut rung = self.0.lock().unwrap();
            while !*rung {
                rung = self.1.wait(rung).unwrap();
            }
            *rung = false;
        }
    }

    impl Wake for Bell {
        fn wake(&self) -> std::io::Result<()> {
            *self.0.lock().unwrap() = true;
            self.1.notify_one();
            Ok(())
        }
    }

    #[test]
    fn loom_no_command_and_no_shutdown_waits_for_an_event_by_chance() {
        loom::model(|| {
            let bell = Arc::new(Bell(Mutex::new(false), Condvar::new()));
            let mailbox = Mailbox::new(8, bell.clone());
            let id = ConnId { key: 0, ordinal: 1 };
            let posters = [true, false].map(|ends| {
                let handle = Handle::new(mailbox.clone());
                thread::spawn(move || {
                    if ends {
                        handle.shutdown(Duration::ZERO);
                    } else {
                        handle.send(id, *b"x").unwrap();
                    }
                })
            });
            let (mut commands, mut shutdown) = (0, false);
            while commands < 1 || !shutdown {
                // As the loop does: it looks before it sleeps.
                if !mailbox.has_mail() {
                    bell.sleep();
                }
                let mail = mailbox.take();
                commands += mail.commands.len();
                shutdown |= mail.shutdown.is_some();
            }
            let _ = posters.map(|poster| poster.join().unwrap());
        });
    }

    #[test]
    fn loom_of_two_that_race_for_the_last_place_one_is_told() {
        loom::model(|| {
            let bell = Arc::new(Bell(Mutex::new(false), Condvar::new()));
            let mailbox = Mailbox::new(1, bell);
            let id = ConnId { key: 0, ordinal: 1 };
            let posters = [0; 2].map(|_| {
                let handle = Handle::new(mailbox.clone());
                thread::spawn(move || handle.close(id).is_ok())
            });
            let taken = posters.map(|poster| poster.join().unwrap());
            assert_eq!(taken.iter().filter(|taken| **taken).count(), 1);
            assert_eq!(mailbox.take().commands.len(), 1);
        });
    }
}
