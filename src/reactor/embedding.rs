//! The interface for the program around a reactor: its handle, its descriptor, its timeout, its counts.

use std::any::Any;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::{Reactor, Shutdown};
use crate::handle::Handle;
use crate::kernel::Kernel;
use crate::protocol::ConnId;
use crate::stats::Stats;

impl<K: Kernel> Reactor<K> {
    /// Returns a handle, with which other threads shut the reactor down and send on its connections.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle::new(Arc::clone(&self.mailbox))
    }

    /// Returns how long an outer loop may sleep before it calls [`turn`](Reactor::turn), if the
    /// reactor's descriptor has no event; `None` means any time. Call it before every sleep, because
    /// there is no event for work that is left over. [`as_fd`](Reactor#impl-AsFd-for-Reactor)
    /// returns the descriptor.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        let now = self.cx.deadline(self.kernel.now()).saturating_sub(1).max(self.cx.millis);
        self.next_timeout(now)
    }

    /// Returns whether neither a listener nor a connection is left.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.connections.is_empty() && self.listeners.iter().all(Option::is_none)
    }

    /// Returns the result that [`run`](Reactor::run) would return, for a program that calls
    /// [`turn`](Reactor::turn) itself. Call it once the reactor is finished.
    ///
    /// # Errors
    /// If the last listener failed for good.
    pub fn outcome(&mut self) -> io::Result<()> {
        match self.failure.take() {
            Some(error) if self.shutdown == Shutdown::No => Err(error),
            _ => Ok(()),
        }
    }

    /// Makes the loop turn when `fd` can be read, for example the pipe of a signal handler.
    ///
    /// After a turn, read `fd` until `WouldBlock` and watch it again. Keep it open as long as the loop
    /// turns.
    ///
    /// ```
    /// use std::io::Write;
    /// use std::os::unix::net::UnixStream;
    ///
    /// let mut reactor = campanile::Reactor::new()?;
    /// let (ours, mut theirs) = UnixStream::pair()?;
    /// reactor.watch(&ours)?;
    /// theirs.write_all(b"!")?;
    /// reactor.turn(None)?; // returns at once
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// If `fd` cannot be watched, for example a regular file.
    #[cfg(unix)]
    pub fn watch(&mut self, fd: impl std::os::fd::AsFd) -> io::Result<()> {
        self.kernel.watch(fd.as_fd())
    }

    /// Returns the number of connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Returns the ids of the connections, for a [`Handle`].
    pub fn ids(&self) -> impl Iterator<Item = ConnId> {
        self.connections.iter().map(|(key, connection)| connection.id(key))
    }

    /// Returns the counts so far.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Returns the kernel of the loop.
    #[must_use]
    pub fn kernel(&self) -> &K {
        &self.kernel
    }

    /// Removes the payload of the first panic of a protocol and returns it, so that the program can
    /// raise it again.
    #[must_use]
    pub fn take_panic(&mut self) -> Option<Box<dyn Any + Send>> {
        self.panic.take()
    }
}

/// The descriptor of the selector, for an outer loop. It can be read while the reactor has an event, so
/// wait for readability, edge-triggered or level-triggered. A poller that reports a descriptor once, as
/// that of the crate `polling` does, has to be armed again after each turn. Wait no longer than
/// [`timeout`](Reactor::timeout), and then call `turn(Some(Duration::ZERO))`.
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
