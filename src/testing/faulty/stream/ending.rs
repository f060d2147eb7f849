//! How a fault ends a connection.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::State;
use crate::connection::Stream;
use crate::testing::fault::{Effect, Fault};
use crate::testing::faulty::acts::{Act, Deadline};
use crate::testing::faulty::unacked::Turns;

/// The least time between the last byte and a reset. The client may still be in connect(2), or about to
/// end its half: an earlier reset makes these calls fail, and the client never reads the bytes.
const GRACE: Duration = Duration::from_millis(5);

/// The end of a connection by a fault.
#[derive(Debug)]
pub(super) enum Ending {
    No,
    /// Our half has ended. Incoming bytes are discarded until the peer's half has ended, or until `until`.
    /// To close at once could reset the connection and destroy what the peer has not read yet.
    Close {
        until: Deadline,
        fault: Fault,
    },
    /// The connection is reset once the peer has acknowledged everything, or at `until`.
    Reset {
        until: Deadline,
        fault: Fault,
        /// By the real clock.
        begun: Instant,
        /// Both ends, ours first, if they are known.
        ends: Option<(SocketAddr, SocketAddr)>,
    },
}

impl State {
    pub(super) fn begin_to_end(&mut self, inner: &mut impl Stream, fault: Fault) {
        if !matches!(self.ending, Ending::No) {
            return;
        }
        let until = Deadline::after(self.progress.now, self.around.linger);
        match fault.effect {
            Effect::Reset => {
                let local = inner.local_addr().ok().and_then(|local| local.inet());
                let ends = local.zip(self.around.peer);
                self.ending = Ending::Reset { until, fault, begun: Instant::now(), ends };
            }
            Effect::Close => {
                self.shut(inner);
                self.ending = Ending::Close { until, fault };
            }
            Effect::Shut => self.shut(inner),
            _ => {}
        }
    }

    pub(super) fn shut(&mut self, inner: &mut impl Stream) {
        if !std::mem::replace(&mut self.is_shut, true) {
            // If it fails, the peer is gone, and the next read reports it.
            let _ = inner.shutdown_write();
        }
    }

    /// Fails if a fault ends the connection now.
    pub(super) fn end(&mut self, inner: &mut impl Stream) -> io::Result<()> {
        let now = self.progress.now;
        match &self.ending {
            Ending::Reset { until, fault, begun, ends }
                if until.has_come(now) || self.is_acknowledged(*ends, *begun) =>
            {
                inner.abort();
                Err(match self.around.peer {
                    Some(_) => our_doing(fault, ""),
                    None => our_doing(fault, " (a Unix socket has no reset)"),
                })
            }
            Ending::Close { until, fault } if until.has_come(now) => Err(our_doing(fault, "")),
            _ => match self.abandoned() {
                Some((at, act)) if at.has_come(now) => {
                    inner.abort();
                    Err(our_doing(act.fault(), " (linger timeout after the client's EOF)"))
                }
                _ => Ok(()),
            },
        }
    }

    /// Returns until when a connection that ends, or that its client has left, is kept at most.
    pub(super) fn waits_until(&self) -> Option<Deadline> {
        match &self.ending {
            Ending::No => self.abandoned().map(|(until, _)| until),
            Ending::Close { until, .. } | Ending::Reset { until, .. } => Some(*until),
        }
    }

    /// Returns the stall that keeps a connection whose peer has ended its half, and until when it does:
    /// the peer may have closed.
    pub(super) fn abandoned(&self) -> Option<(Deadline, &Act)> {
        self.acts.iter().find_map(|act| {
            let since = act.stalls_since_eof(self.progress.eof)?;
            Some((Deadline::after(since, self.around.linger), act))
        })
    }

    pub(super) fn is_acknowledged(
        &self,
        ends: Option<(SocketAddr, SocketAddr)>,
        begun: Instant,
    ) -> bool {
        let turn = &self.around.turn;
        match ends {
            Some((local, peer)) if self.progress.sent > 0 => {
                let turns = Turns { now: turn.number.get(), wrote: self.wrote_in };
                begun.elapsed() >= GRACE
                    && turn.unacked.borrow_mut().of(local, peer, turns) == Some(0)
            }
            _ => true,
        }
    }
}

/// The reason of a connection that a fault ends. It is no error.
pub(super) fn our_doing(fault: &Fault, note: &str) -> io::Error {
    io::Error::new(ErrorKind::ConnectionAborted, format!("closed by fault: {fault}{note}"))
}
