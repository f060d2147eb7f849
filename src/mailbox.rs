//! The loop's mailbox: the commands that other threads have posted.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

#[cfg(campanile_loom)]
use loom::sync::{Mutex, MutexGuard, atomic::AtomicBool, atomic::Ordering};
#[cfg(not(campanile_loom))]
use std::sync::{Mutex, MutexGuard, atomic::AtomicBool, atomic::Ordering};

use crate::kernel::Wake;

/// Everything posted since the loop last emptied the mailbox.
#[derive(Debug)]
pub(crate) struct Mail<C> {
    pub(crate) commands: VecDeque<C>,
    /// The shortest grace of all shutdowns. It is not a command in the queue, because a shutdown
    /// succeeds even if the queue is full.
    pub(crate) shutdown: Option<Duration>,
    /// Reset every connection at once.
    pub(crate) stop: bool,
    /// The loop is gone, and will not read any more.
    closed: bool,
}

impl<C> Default for Mail<C> {
    fn default() -> Mail<C> {
        Mail { commands: VecDeque::new(), shutdown: None, stop: false, closed: false }
    }
}

/// Why a command was not posted. It holds what was to be posted, as
/// [`TrySendError`](std::sync::mpsc::TrySendError) does.
///
/// ```
/// use campanile::{Handle, SendError};
///
/// /// Returns the bytes to try again with.
/// fn publish(handle: &Handle, news: Vec<u8>) -> Option<std::sync::Arc<[u8]>> {
///     match handle.broadcast(None, news) {
///         Ok(()) => None,
///         Err(SendError::Full(news)) => Some(news),
///         Err(_) => None, // the reactor is gone
///     }
/// }
/// # let handle = campanile::Reactor::new()?.handle();
/// # assert_eq!(publish(&handle, b"news".to_vec()), None);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError<T = Vec<u8>> {
    /// The mailbox holds [`Limits::mailbox`](crate::Limits::mailbox) commands, because the loop is busy
    /// or does not turn. Try again after its next turn.
    Full(T),
    /// The reactor is gone.
    Closed(T),
}

impl<T> SendError<T> {
    /// Returns what was not posted.
    #[must_use]
    pub fn into_inner(self) -> T {
        match self {
            SendError::Full(content) | SendError::Closed(content) => content,
        }
    }

    pub(crate) fn map<U>(self, change: impl FnOnce(T) -> U) -> SendError<U> {
        match self {
            SendError::Full(content) => SendError::Full(change(content)),
            SendError::Closed(content) => SendError::Closed(change(content)),
        }
    }
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SendError::Full(_) => {
                "cannot post to the reactor: its mailbox is full; try again after its next turn"
            }
            SendError::Closed(_) => {
                "cannot post to the reactor: it is gone; create a new one, or drop its handles"
            }
        })
    }
}

impl<T: fmt::Debug> std::error::Error for SendError<T> {}

/// A bounded queue of commands of any kind, and the waker of the loop that reads it.
pub(crate) struct Mailbox<C> {
    mail: Mutex<Mail<C>>,
    /// Whether there is mail. The loop checks it in every turn and does not rely on the waker, which
    /// only ends a sleep: mio's poll(2) selector can lose a wake-up that comes while a socket is
    /// registered.
    has_mail: AtomicBool,
    capacity: usize,
    waker: Arc<dyn Wake>,
}

impl<C> Mailbox<C> {
    pub(crate) fn new(capacity: usize, waker: Arc<dyn Wake>) -> Arc<Mailbox<C>> {
        let (mail, has_mail) = (Mutex::new(Mail::default()), AtomicBool::new(false));
        Arc::new(Mailbox { mail, has_mail, capacity, waker })
    }

    pub(crate) fn has_mail(&self) -> bool {
        self.has_mail.load(Ordering::Acquire)
    }

    /// Empties the mailbox and returns its contents.
    pub(crate) fn take(&self) -> Mail<C> {
        let mut mail = self.lock();
        self.has_mail.store(false, Ordering::Release);
        let closed = mail.closed;
        std::mem::replace(&mut *mail, Mail { closed, ..Mail::default() })
    }

    /// Refuses all commands from now on, and returns those that are left. The caller drops them while
    /// the lock is free, because the drop of a closure may post, too.
    pub(crate) fn close(&self) -> VecDeque<C> {
        let mut mail = self.lock();
        mail.closed = true;
        std::mem::take(&mut mail.commands)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Adds a command and wakes the loop.
    pub(crate) fn push(&self, command: C) -> Result<(), SendError<C>> {
        self.post(|mail| {
            if mail.closed {
                return Err(SendError::Closed(command));
            }
            if mail.commands.len() >= self.capacity {
                return Err(SendError::Full(command));
            }
            mail.commands.push_back(command);
            Ok(())
        })
    }

    pub(crate) fn shutdown(&self, grace: Duration) {
        self.post(|mail| {
            mail.shutdown = Some(mail.shutdown.map_or(grace, |before| before.min(grace)));
        });
    }

    pub(crate) fn stop(&self) {
        self.post(|mail| mail.stop = true);
    }

    // ANCHOR: mailbox
    /// Changes the mail and wakes the loop, even if a full mailbox stays as it is. While an earlier
    /// wake-up is pending, the loop will read this mail, too: no system call is needed.
    pub(crate) fn post<T>(&self, change: impl FnOnce(&mut Mail<C>) -> T) -> T {
        let mut mail = self.lock();
        let outcome = change(&mut mail);
        let is_closed = mail.closed;
        let is_pending = self.has_mail.swap(true, Ordering::AcqRel);
        drop(mail);
        if is_pending || is_closed {
            return outcome;
        }
        if let Err(error) = self.waker.wake() {
            log::error!("cannot wake the loop: {error}; commands wait for its next event or timer");
        }
        outcome
    }

    fn lock(&self) -> MutexGuard<'_, Mail<C>> {
        // No code panics while it holds the lock; a poisoned mailbox would still hold whole commands.
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every interleaving of two posters and the loop: `RUSTFLAGS="--cfg campanile_loom" cargo test --lib loom`.
#[cfg(all(test, campanile_loom))]
mod loom_tests {
    use super::*;
    use loom::sync::{Condvar, Mutex};
    use loom::thread;

    /// A poll and its waker, which merges wake-ups as an eventfd does and counts the calls.
    struct Bell(Mutex<(bool, usize)>, Condvar);

    impl Bell {
        fn sleep(&self) {
            let mut rung = self.0.lock().unwrap();
            while !rung.0 {
                rung = self.1.wait(rung).unwrap();
            }
            rung.0 = false;
        }
    }

    impl Wake for Bell {
        fn wake(&self) -> std::io::Result<()> {
            let mut rung = self.0.lock().unwrap();
            *rung = (true, rung.1 + 1);
            self.1.notify_one();
            Ok(())
        }
    }

    #[test]
    fn loom_every_command_and_every_shutdown_ends_the_sleep_with_one_wake_up_at_most() {
        loom::model(|| {
            let bell = Arc::new(Bell(Mutex::new((false, 0)), Condvar::new()));
            let mailbox = Mailbox::new(8, bell.clone());
            let posters = [true, false].map(|ends| {
                let mailbox = mailbox.clone();
                thread::spawn(move || {
                    if ends {
                        mailbox.shutdown(Duration::ZERO);
                    } else {
                        mailbox.push("command").unwrap();
                    }
                })
            });
            let (mut commands, mut shutdown, mut takes) = (0, false, 0);
            while commands < 1 || !shutdown {
                // The loop checks the mailbox before it sleeps.
                if !mailbox.has_mail() {
                    bell.sleep();
                }
                let mail = mailbox.take();
                takes += 1;
                commands += mail.commands.len();
                shutdown |= mail.shutdown.is_some();
            }
            let _ = posters.map(|poster| poster.join().unwrap());
            // A post calls the waker only if the loop has read the mail of the last call.
            assert!(bell.0.lock().unwrap().1 <= takes);
        });
    }

    #[test]
    fn loom_one_of_two_commands_gets_the_last_place() {
        loom::model(|| {
            let bell = Arc::new(Bell(Mutex::new((false, 0)), Condvar::new()));
            let mailbox = Mailbox::new(1, bell);
            let posters = [0; 2].map(|_| {
                let mailbox = mailbox.clone();
                thread::spawn(move || mailbox.push("command").is_ok())
            });
            let taken = posters.map(|poster| poster.join().unwrap());
            assert_eq!(taken.iter().filter(|taken| **taken).count(), 1);
            assert_eq!(mailbox.take().commands.len(), 1);
        });
    }
}
