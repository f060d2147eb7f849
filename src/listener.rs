//! A listener: how many connections to accept in a turn, when to pause, what each accept error means.

use std::io::{self, ErrorKind};

use crate::kernel::Kernel;
use crate::limits::Limits;
use crate::protocol::{Accepted, Address, Protocol};
use crate::timers::Millis;

/// How long a listener pauses after an error that an immediate retry would repeat.
const RETRY: Millis = 100;
/// At most one warning in this time. The next warning says how many failures were not logged.
const QUIET: Millis = 1000;
/// For how many turns in a row clients must wait before a turn accepts more than one.
const PRESSURE_FOR_BURSTS: u32 = 16;
/// How often the same error may come, without a connection in between, before the listener pauses.
const REPEATS: u32 = 16;

/// How a listener serves its connections, for [`Reactor::listen_with`](crate::Reactor::listen_with).
///
/// ```
/// use std::time::Duration;
/// use campanile::{Limits, ListenOptions, Reactor, echo};
///
/// let mut reactor = Reactor::new()?;
/// let patient = Limits::default().idle_timeout(Duration::from_secs(3600));
/// let id = reactor.listen_with(
///     std::net::SocketAddr::from(([127, 0, 0, 1], 0)),
///     ListenOptions::default().limits(patient),
///     echo(),
/// )?;
/// assert!(reactor.local_addr(id).is_some());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
#[must_use]
pub struct ListenOptions {
    /// The limits of its connections. Those of the whole reactor have no effect here:
    /// `max_connections`, `max_per_peer`, `max_accepts_per_turn`, `leftover_budget`, `fresh_budget`,
    /// `events`, `read_buffer` and `mailbox`. Default: the limits of the reactor.
    pub limits: Option<Limits>,
}

impl ListenOptions {
    /// Sets [`limits`](ListenOptions::limits).
    pub fn limits(self, limits: impl Into<Option<Limits>>) -> ListenOptions {
        ListenOptions { limits: limits.into() }
    }
}

pub(crate) type ProtocolFactory = Box<dyn FnMut(&Accepted) -> Box<dyn Protocol>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pause {
    No,
    /// Every slot of the reactor is taken. The pause ends when a connection closes.
    Full,
    /// Descriptors or memory have run out, or an error stays. The pause ends at `until`, or when a
    /// connection closes.
    Exhausted {
        until: Millis,
    },
}

/// A passive socket and the factory of its protocols.
pub(crate) struct Listener<L> {
    inner: L,
    pub(crate) local: Address,
    pub(crate) factory: ProtocolFactory,
    /// Cleared by `WouldBlock` or a rearm only: mio promises another event only after one of them.
    ready: bool,
    /// For how many turns in a row clients have waited; less after a turn that found none.
    pressure: u32,
    pause: Pause,
    last_error: Option<i32>,
    /// How often `last_error` came since the last connection.
    repeats: u32,
    last_warning: Option<Millis>,
    /// Failures since the last warning.
    suppressed: u64,
}

/// The result of an attempt to accept.
pub(crate) enum Outcome<S> {
    Accepted(S, Address),
    /// One connection failed; the next one may be fine.
    Lost,
    /// No client waits.
    Drained,
    /// The listener pauses.
    Paused,
    /// This listener can never accept again.
    Broken(io::Error),
}

impl<L> Listener<L> {
    pub(crate) fn new(inner: L, local: Address, factory: ProtocolFactory) -> Listener<L> {
        Listener {
            inner,
            local,
            factory,
            ready: true,
            pressure: 0,
            pause: Pause::No,
            last_error: None,
            repeats: 0,
            last_warning: None,
            suppressed: 0,
        }
    }

    pub(crate) fn set_ready(&mut self) {
        self.ready = true;
    }

    /// Whether the backlog is empty, as far as is known.
    pub(crate) fn is_drained(&self) -> bool {
        !self.ready
    }

    /// When to accept without an event: at once, unless the listener pauses.
    pub(crate) fn next_try(&self) -> Option<Millis> {
        match self.pause {
            _ if !self.ready => None,
            Pause::No => Some(0),
            Pause::Full => None,
            // ANCHOR: retry
            Pause::Exhausted { until } => Some(until),
        }
    }

    /// The reactor has no slot: clients wait in the backlog.
    pub(crate) fn wait_for_a_slot(&mut self) {
        self.pause = Pause::Full;
    }

    /// Ends a pause: a connection has closed, and its slot and its descriptor are free. No event
    /// reports this.
    pub(crate) fn resume(&mut self) {
        self.pause = Pause::No;
    }

    /// Begins a turn, and returns whether to accept in it. `saw_all` is whether the batch of events
    /// held everything that was ready.
    pub(crate) fn begin_turn(&mut self, now: Millis, saw_all: bool) -> bool {
        if !self.ready && saw_all {
            self.pressure = 0;
        }
        self.next_try().is_some_and(|at| at <= now)
    }

    /// How many connections to accept in this turn: one, and under pressure twice as many each time.
    pub(crate) fn burst(&mut self, most: usize) -> usize {
        self.pressure = self.pressure.saturating_add(1);
        most.min(1 << self.pressure.saturating_sub(PRESSURE_FOR_BURSTS).min(usize::BITS - 1))
    }

    /// Accepts until `WouldBlock` from now on, without a rearm in between.
    pub(crate) fn drain(&mut self) {
        (self.ready, self.pressure, self.pause) = (true, u32::MAX, Pause::No);
    }

    // ANCHOR: rearm
    /// Asks for an event after a burst instead of accepting again: an accept(2) that finds no client
    /// has made a file for it before it looks, and costs ten times as much as the rearm.
    pub(crate) fn rearm<K: Kernel<Listener = L>>(&mut self, kernel: &mut K, key: usize) {
        // If the rearm fails, the next turn accepts again.
        self.ready = self.ready && kernel.rearm(&mut self.inner, key).is_err();
    }

    pub(crate) fn next<K: Kernel<Listener = L>>(
        &mut self,
        kernel: &mut K,
        now: Millis,
    ) -> Outcome<K::Stream> {
        let error = match kernel.accept(&mut self.inner) {
            Ok((stream, peer)) => {
                self.pause = Pause::No;
                self.repeats = 0;
                return Outcome::Accepted(stream, peer);
            }
            Err(error) => error,
        };
        match class(&error) {
            Class::Drained => {
                self.ready = false;
                self.pressure = self.pressure.saturating_sub(PRESSURE_FOR_BURSTS);
                self.pause = Pause::No;
                Outcome::Drained
            }
            Class::Peer if !self.is_repeated(&error) => {
                log::debug!(
                    "a connection to {} was lost before it was accepted: {error}",
                    self.local
                );
                Outcome::Lost
            }
            Class::Peer | Class::Resources => {
                self.exhausted(&error, now);
                Outcome::Paused
            }
            Class::Broken => {
                log::error!(
                    "the listener on {} is broken and was removed: {error}; to serve this address again, bind it again or restart the server",
                    self.local
                );
                Outcome::Broken(error)
            }
        }
    }

    /// Counts an error that should concern one connection only, and returns whether it comes too often
    /// for that: a firewall or a seccomp filter, for example, answers every accept(2) with `EPERM`.
    fn is_repeated(&mut self, error: &io::Error) -> bool {
        if self.last_error != error.raw_os_error() {
            self.last_error = error.raw_os_error();
            self.repeats = 0;
        }
        self.repeats = self.repeats.saturating_add(1);
        self.repeats >= REPEATS
    }

    // ANCHOR: emfile
    /// Pauses, and stays ready: an edge-triggered listener gets no new edge when descriptors come free.
    /// `next_try` makes the loop try again after `RETRY`. `Reactor::reap` ends the pause as soon as a
    /// connection closes.
    fn exhausted(&mut self, error: &io::Error, now: Millis) {
        let transition = self.pause == Pause::No;
        self.pause = Pause::Exhausted { until: now + RETRY };
        if !transition || self.last_warning.is_some_and(|warned| now - warned < QUIET) {
            self.suppressed += 1;
            return;
        }
        self.last_warning = Some(now);
        let suppressed = std::mem::take(&mut self.suppressed);
        log::warn!(
            "cannot accept connections on {}: {error}; clients wait in the backlog, and accepting is tried again every {RETRY} ms; {} ({suppressed} more such failures since the last warning)",
            self.local,
            advice(error)
        );
    }
}

/// The next step after an accept error that stays.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::PermissionDenied => {
            return "look for a firewall rule or a seccomp filter that forbids it";
        }
        ErrorKind::OutOfMemory => return "free memory, or lower the limit of connections",
        _ => {}
    }
    #[cfg(unix)]
    if let Some(libc::EMFILE | libc::ENFILE) = error.raw_os_error() {
        return "raise the limit of open files (ulimit -n), or lower the limit of connections";
    }
    "look this error up in the manual page of accept(2)"
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Drained,
    Peer,
    Resources,
    #[cfg_attr(not(unix), allow(dead_code))]
    Broken,
}

/// The meaning of an error of accept(2). Its manual page lists network errors that are already
/// pending on the new socket, and asks to try again after them: they concern one connection only.
fn class(error: &io::Error) -> Class {
    match error.kind() {
        ErrorKind::WouldBlock => return Class::Drained,
        ErrorKind::Interrupted | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset => {
            return Class::Peer;
        }
        _ => {}
    }
    #[cfg(unix)]
    match error.raw_os_error() {
        Some(
            libc::EPROTO
            | libc::ENETDOWN
            | libc::ENETUNREACH
            | libc::EHOSTDOWN
            | libc::EHOSTUNREACH
            | libc::ENOPROTOOPT
            | libc::EOPNOTSUPP
            | libc::ETIMEDOUT
            | libc::EPERM,
        ) => return Class::Peer,
        #[cfg(target_os = "linux")]
        Some(libc::ENONET) => return Class::Peer,
        Some(libc::EBADF | libc::EINVAL | libc::ENOTSOCK | libc::EFAULT) => return Class::Broken,
        _ => {}
    }
    // EMFILE, ENFILE, ENOBUFS, ENOMEM, and every error not named here: a pause is harmless, while
    // trying again at once could spin.
    Class::Resources
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn every_errno_has_its_class() {
        use Class::*;
        let table = [
            (Drained, &[libc::EAGAIN][..]),
            (
                Peer,
                &[
                    libc::EINTR,
                    libc::ECONNABORTED,
                    libc::EPROTO,
                    libc::ENETDOWN,
                    libc::ENETUNREACH,
                    libc::EHOSTDOWN,
                    libc::EHOSTUNREACH,
                    libc::EOPNOTSUPP,
                    libc::EPERM,
                ],
            ),
            (Resources, &[libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::EIO]),
            (Broken, &[libc::EBADF, libc::EINVAL, libc::ENOTSOCK]),
        ];
        for (expected, errnos) in table {
            for &errno in errnos {
                assert_eq!(class(&io::Error::from_raw_os_error(errno)), expected, "errno {errno}");
            }
        }
    }
}
