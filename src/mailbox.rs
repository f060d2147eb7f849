//! The loop's mailbox: the commands that other threads have posted.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

#[cfg(loom)]
use loom::sync::{Mutex, MutexGuard, atomic::AtomicBool, atomic::Ordering};
#[cfg(not(loom))]
use std::sync::{Mutex, MutexGuard, atomic::AtomicBool, atomic::Ordering};

use crate::kernel::Wake;
use crate::protocol::ConnId;

/// A command for one connection.
#[derive(Debug)]
pub(crate) enum Command {
    Send(ConnId, Vec<u8>),
    Close(ConnId),
    Wake(ConnId),
}

/// Everything posted since the loop last emptied the mailbox.
#[derive(Debug, Default)]
pub(crate) struct Mail {
    pub(crate) commands: VecDeque<Command>,
    /// The shortest grace of all shutdowns. It is not a command in the queue, because a shutdown
    /// succeeds even if the queue is full.
    pub(crate) shutdown: Option<Duration>,
    /// Reset every connection at once.
    pub(crate) stop: bool,
}

pub(crate) struct Mailbox {
    mail: Mutex<Mail>,
    /// Whether there is mail. The loop checks it in every turn and does not rely on the waker, which
    /// only ends a sleep: mio's poll(2) selector can lose a wake-up that comes while a socket is
    /// registered.
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

    /// Empties the mailbox and returns its contents.
    pub(crate) fn take(&self) -> Mail {
        let mut mail = self.lock();
        self.has_mail.store(false, Ordering::Release);
        std::mem::take(&mut *mail)
    }

    /// Adds a command and wakes the loop. Returns false if the mailbox is full.
    pub(crate) fn push(&self, command: Command) -> bool {
        self.post(|mail| {
            let has_room = mail.commands.len() < self.capacity;
            if has_room {
                mail.commands.push_back(command);
            }
            has_room
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
    /// Changes the mail and wakes the loop, even if a full mailbox stays as it is.
    pub(crate) fn post<T>(&self, change: impl FnOnce(&mut Mail) -> T) -> T {
        let mut mail = self.lock();
        let outcome = change(&mut mail);
        self.has_mail.store(true, Ordering::Release);
        drop(mail);
        if let Err(error) = self.waker.wake() {
            log::error!("cannot wake the loop: {error}; commands wait for its next event or timer");
        }
        outcome
    }

    fn lock(&self) -> MutexGuard<'_, Mail> {
        // No code panics while it holds the lock; a poisoned mailbox would still hold whole commands.
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every interleaving of two posters and the loop: `RUSTFLAGS="--cfg loom" cargo test --lib loom`.
#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::{Condvar, Mutex};
    use loom::thread;

    /// A poll and its waker, which merges wake-ups as an eventfd does.
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

    const ID: ConnId = ConnId { key: 0, ordinal: 1 };

    #[test]
    fn loom_every_command_and_every_shutdown_ends_the_sleep() {
        loom::model(|| {
            let bell = Arc::new(Bell(Mutex::new(false), Condvar::new()));
            let mailbox = Mailbox::new(8, bell.clone());
            let posters = [true, false].map(|ends| {
                let mailbox = mailbox.clone();
                thread::spawn(move || {
                    if ends {
                        mailbox.shutdown(Duration::ZERO);
                    } else {
                        assert!(mailbox.push(Command::Send(ID, b"x".to_vec())));
                    }
                })
            });
            let (mut commands, mut shutdown) = (0, false);
            while commands < 1 || !shutdown {
                // The loop checks the mailbox before it sleeps.
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
    fn loom_one_of_two_commands_gets_the_last_place() {
        loom::model(|| {
            let bell = Arc::new(Bell(Mutex::new(false), Condvar::new()));
            let mailbox = Mailbox::new(1, bell);
            let posters = [0; 2].map(|_| {
                let mailbox = mailbox.clone();
                thread::spawn(move || mailbox.push(Command::Close(ID)))
            });
            let taken = posters.map(|poster| poster.join().unwrap());
            assert_eq!(taken.iter().filter(|taken| **taken).count(), 1);
            assert_eq!(mailbox.take().commands.len(), 1);
        });
    }
}
