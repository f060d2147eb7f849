//! A listener: how many to accept at a time; pause and resume; what each accept error means.

use std::io::{self, ErrorKind};

use crate::kernel::Kernel;
use crate::protocol::{Accepted, Address, Protocol};
use crate::timers::Millis;

/// How long to wait before trying again when descriptors or memory have run out.
const RETRY: Millis = 100;
/// At most one warning in this time; the next one says how many it stands for.
const QUIET: Millis = 1000;
/// How many turns in a row somebody must have waited before more than one is taken in a turn.
const PATIENCE: u32 = 4;

pub(crate) type Maker = Box<dyn FnMut(&Accepted) -> Box<dyn Protocol>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pause {
    No,
    /// The reactor is full: somebody has to go first.
    Full,
    /// Descriptors or memory have run out: somebody has to go first, here or elsewhere.
    Exhausted {
        until: Millis,
    },
}

/// A passive socket and the maker of its protocols.
pub(crate) struct Listener<L> {
    inner: L,
    pub(crate) local: Address,
    pub(crate) make: Maker,
    /// Cleared by `WouldBlock` or a rearm only: mio promises another event only after one of them.
    ready: bool,
    /// In how many turns in a row somebody has waited; less, where too many were taken.
    pressure: u32,
    pause: Pause,
    warned: Option<Millis>,
    unsaid: u64,
}

/// What came of asking for the next connection.
pub(crate) enum Outcome<S> {
    Newcomer(S, Address),
    /// That peer is gone; the next one may be fine.
    Lost,
    /// Nobody waits.
    Drained,
    /// We pause.
    Exhausted,
    /// This listener will never accept again.
    Broken(io::Error),
}

impl<L> Listener<L> {
    pub(crate) fn new(inner: L, local: Address, make: Maker) -> Listener<L> {
        Listener {
            inner,
            local,
            make,
            ready: true,
            pressure: 0,
            pause: Pause::No,
            warned: None,
            unsaid: 0,
        }
    }

    pub(crate) fn note_ready(&mut self) {
        self.ready = true;
    }

    /// Whether to accept now.
    pub(crate) fn is_accepting(&self, now: Millis) -> bool {
        self.next_try().is_some_and(|at| at <= now)
    }

    /// Whether nobody waits in the backlog, as far as is known.
    pub(crate) fn is_drained(&self) -> bool {
        !self.ready
    }

    /// When to try without an event; at once, if we stopped by choice.
    pub(crate) fn next_try(&self) -> Option<Millis> {
        match self.pause {
            _ if !self.ready => None,
            Pause::No => Some(0),
            Pause::Full => None,
            Pause::Exhausted { until } => Some(until),
        }
    }

    /// The reactor has no slot: clients wait in the backlog.
    pub(crate) fn wait_for_a_slot(&mut self) {
        self.pause = Pause::Full;
    }

    /// A connection has gone, and with it a slot and a descriptor. No edge will tell.
    pub(crate) fn resume(&mut self) {
        self.pause = Pause::No;
    }

    /// How many to take in this turn, if anybody waits: one, and under pressure twice as many each
    /// time. `saw_all` is whether the batch told of all that was ready.
    pub(crate) fn burst(&mut self, most: usize, now: Millis, saw_all: bool) -> Option<usize> {
        if !self.ready && saw_all {
            self.pressure = 0;
        }
        if !self.is_accepting(now) {
            return None;
        }
        self.pressure = self.pressure.saturating_add(1);
        Some(most.min(1 << self.pressure.saturating_sub(PATIENCE).min(usize::BITS - 1)))
    }

    /// Takes until `WouldBlock` from now on, at once and without asking.
    pub(crate) fn drain(&mut self) {
        (self.ready, self.pressure, self.pause) = (true, u32::MAX, Pause::No);
    }

    /// A burst is taken. Whether more wait, the kernel is to say: an accept(2) that finds nobody has
    /// made a file for the newcomer before it looks, and costs ten times as much as to ask.
    pub(crate) fn rearm<K: Kernel<Listener = L>>(&mut self, kernel: &mut K, key: usize) {
        // If it cannot be asked, we find out ourselves.
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
                return Outcome::Newcomer(stream, peer);
            }
            Err(error) => error,
        };
        match class(&error) {
            Class::Drained => {
                self.ready = false;
                self.pressure = self.pressure.saturating_sub(PATIENCE);
                self.pause = Pause::No;
                Outcome::Drained
            }
            Class::Peer => {
                log::debug!(
                    "a connection to {} was lost before it was accepted: {error}",
                    self.local
                );
                Outcome::Lost
            }
            Class::Resources => {
                self.exhausted(&error, now);
                Outcome::Exhausted
            }
            Class::Broken => Outcome::Broken(error),
        }
    }

    /// Pauses: an edge-triggered listener gets no new edge when descriptors come free.
    fn exhausted(&mut self, error: &io::Error, now: Millis) {
        let transition = self.pause == Pause::No;
        self.pause = Pause::Exhausted { until: now + RETRY };
        if !transition || self.warned.is_some_and(|warned| now - warned < QUIET) {
            self.unsaid += 1;
            return;
        }
        self.warned = Some(now);
        let unsaid = std::mem::take(&mut self.unsaid);
        log::warn!(
            "cannot accept on {}: {error}; clients wait until a descriptor is free ({unsaid} more such failures since the last warning)",
            self.local
        );
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Drained,
    Peer,
    Resources,
    Broken,
}

/// What an error of accept(2) means. Its page lists network errors that are already pending on the
/// new socket and asks to treat them as `WouldBlock` by trying again: they are one peer's.
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
    // EMFILE, ENFILE, ENOBUFS, ENOMEM; and what nobody has named, for which a pause is harmless
    // while trying at once could spin.
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
