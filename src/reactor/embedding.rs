//! What the program around a reactor asks of it: its handle, its descriptor, when to turn, how it is.

use std::any::Any;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::{Reactor, Shutdown, Stats};
use crate::handle::Handle;
use crate::kernel::Kernel;
use crate::protocol::{Address, ConnId};

impl<K: Kernel> Reactor<K> {
    /// For other threads: shuts the reactor down, sends on a connection, closes one.
    pub fn handle(&self) -> Handle {
        Handle::new(Arc::clone(&self.mailbox))
    }

    /// How long somebody else's loop may sleep before it calls [`turn`](Reactor::turn) without an
    /// event of our descriptor; `None` for as long as it likes. Ask before every sleep: work that
    /// is left over has no event.
    pub fn timeout(&self) -> Option<Duration> {
        let now = self.cx.deadline(self.kernel.now()).saturating_sub(1).max(self.cx.millis);
        self.rest(now)
    }

    /// Whether neither a listener nor a connection is left.
    pub fn is_finished(&self) -> bool {
        self.connections.is_empty() && self.listeners.iter().all(Option::is_none)
    }

    /// How it went, once it is finished: what [`run`](Reactor::run) returns, for whoever turns it.
    ///
    /// # Errors
    /// If the last listener broke.
    pub fn outcome(&mut self) -> io::Result<()> {
        match self.failure.take() {
            Some(error) if self.shutdown == Shutdown::No => Err(error),
            _ => Ok(()),
        }
    }

    /// Makes the loop turn once `fd` can be read, too: a descriptor of your own, looked at after
    /// each turn, such as that of a signal. Read it until `WouldBlock` and watch it again for the
    /// next time, and keep it open as long as the loop turns.
    ///
    /// ```
    /// use std::io::Write;
    /// use std::os::unix::net::UnixStream;
    ///
    /// let mut reactor = campanile::Reactor::new()?;
    /// let (ours, mut theirs) = UnixStream::pair()?;
    /// reactor.watch(&ours)?;
    /// theirs.write_all(b"!")?;
    /// reactor.turn(None)?; // comes back at once
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// If it cannot be watched: a regular file cannot.
    #[cfg(unix)]
    pub fn watch(&mut self, fd: impl std::os::fd::AsFd) -> io::Result<()> {
        self.kernel.watch(fd.as_fd())
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// The identities of the connections, for a [`Handle`].
    pub fn ids(&self) -> impl Iterator<Item = ConnId> {
        self.connections
            .iter()
            .map(|(key, connection)| ConnId { key: key as u32, ordinal: connection.ordinal })
    }

    /// Where the listeners are bound, in the order they were made.
    pub fn local_addrs(&self) -> impl Iterator<Item = &Address> {
        self.listeners.iter().flatten().map(|listener| &listener.local)
    }

    /// What was done so far.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The kernel beneath the loop.
    pub fn kernel(&self) -> &K {
        &self.kernel
    }

    /// What the first protocol that panicked panicked with, to be raised where somebody sees it.
    pub fn take_panic(&mut self) -> Option<Box<dyn Any + Send>> {
        self.panic.take()
    }
}

#[cfg(all(unix, not(mio_unsupported_force_poll_poll)))]
impl std::os::fd::AsFd for Reactor {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.kernel.as_fd()
    }
}

#[cfg(all(unix, not(mio_unsupported_force_poll_poll)))]
impl std::os::fd::AsRawFd for Reactor {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        std::os::fd::AsFd::as_fd(self).as_raw_fd()
    }
}
