//! What a user writes: [`Protocol`], one side of a conversation, and [`CloseReason`], how one ended.

use std::net::{IpAddr, SocketAddr};
use std::{fmt, io};

use crate::outbox::Outbox;

/// One side of a conversation, called by the loop when something happened.
///
/// The calls follow this grammar:
///
/// ```text
/// open (data | drain | wake)* eof? (drain | wake)* (close | panic)
/// ```
///
/// Nothing but [`on_close`](Protocol::on_close) follows [`Outbox::close`] or [`Outbox::abort`];
/// after [`Outbox::half_close`] the peer is still heard. A
/// connection that could not be made is closed without having been opened. A protocol that panics
/// is not called again: its connection is reset and every other one goes on.
///
/// ```
/// use campanile::{Outbox, Protocol};
///
/// struct Shout;
///
/// impl Protocol for Shout {
///     fn on_data(&mut self, data: &[u8], out: &mut Outbox) {
///         out.send(&data.to_ascii_uppercase());
///     }
/// }
/// ```
#[allow(unused_variables)]
pub trait Protocol {
    /// The peer is connected; protocols that speak first speak here.
    fn on_open(&mut self, out: &mut Outbox) {}

    /// Bytes arrived, in order, in pieces of any size: a piece is not a message. The slice is lent
    /// for the call. The only method that must be written.
    fn on_data(&mut self, data: &[u8], out: &mut Outbox);

    /// The peer will send no more; it may still read. By default our half ends too, after
    /// everything queued is delivered.
    fn on_eof(&mut self, out: &mut Outbox) {
        out.close();
    }

    /// The outbox was congested and has fallen to the low-water mark: produce again.
    fn on_drain(&mut self, out: &mut Outbox) {}

    /// The deadline asked for with [`Outbox::wake_at`] has come, and is spent; or somebody asked for
    /// it with [`Handle::wake_connection`](crate::Handle::wake_connection).
    fn on_wake(&mut self, out: &mut Outbox) {}

    /// The conversation is over. Comes exactly once, on every path but a panic of this protocol.
    fn on_close(&mut self, reason: &CloseReason) {}
}

/// Why a connection ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum CloseReason {
    /// Both halves ended in order and everything was delivered to the kernel.
    Finished,
    /// The protocol, or a [`Handle`](crate::Handle), asked for a reset.
    Aborted,
    /// No byte moved in either direction for [`Limits::idle`](crate::Limits::idle).
    Idle,
    /// The peer did not read what it is owed for [`Limits::stall`](crate::Limits::stall).
    Stalled,
    /// Everything was sent and our half ended, but the peer's did not within
    /// [`Limits::linger`](crate::Limits::linger) or its bound of discarded bytes.
    Lingered,
    /// The connection reached [`Limits::lifetime`](crate::Limits::lifetime).
    Expired,
    /// More than [`Limits::unsent`](crate::Limits::unsent) bytes were owed to the peer.
    Overflow,
    /// The reactor was shut down and the grace was over.
    Shutdown,
    /// The protocol panicked.
    Panicked,
    /// An outgoing connection could not be made; it was never opened.
    ConnectFailed(io::Error),
    /// The kernel reported an error: the peer reset the connection, or the network failed.
    Failed(io::Error),
}

impl CloseReason {
    /// Whether what is left is to be dropped with a reset, so that the kernel frees its buffers.
    pub(crate) fn wants_reset(&self) -> bool {
        use CloseReason::*;
        !matches!(self, Finished | ConnectFailed(_) | Failed(_))
    }

    /// Whether the peer reset the connection.
    pub(crate) fn is_peer_reset(&self) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionReset};
        matches!(self, CloseReason::Failed(error) if matches!(error.kind(), ConnectionReset | BrokenPipe))
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CloseReason::Finished => f.write_str("finished"),
            CloseReason::Aborted => f.write_str("aborted"),
            CloseReason::Idle => f.write_str("idle for too long"),
            CloseReason::Stalled => f.write_str("peer does not read"),
            CloseReason::Lingered => f.write_str("peer did not close"),
            CloseReason::Expired => f.write_str("lived for too long"),
            CloseReason::Overflow => f.write_str("too much unsent"),
            CloseReason::Shutdown => f.write_str("shut down"),
            CloseReason::Panicked => f.write_str("protocol panicked"),
            CloseReason::ConnectFailed(error) => write!(f, "cannot connect: {error}"),
            CloseReason::Failed(error) => write!(f, "failed: {error}"),
        }
    }
}

/// Which connection: its slot, and the ordinal of its making, which never repeats. So an identity
/// that is kept for too long names nobody, and never a stranger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnId {
    pub(crate) key: u32,
    pub(crate) ordinal: u64,
}

impl ConnId {
    /// Sequence number within its reactor, counted from 1.
    pub fn ordinal(&self) -> u64 {
        self.ordinal
    }
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.ordinal)
    }
}

/// One end of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// An IP address and a port.
    Inet(SocketAddr),
}

impl Address {
    /// The address if it is one of IP, with IPv4 for what is mapped into IPv6.
    pub fn ip(&self) -> Option<IpAddr> {
        let Address::Inet(addr) = self;
        Some(addr.ip().to_canonical())
    }

    /// The socket address if it is one of IP.
    pub fn inet(&self) -> Option<SocketAddr> {
        let Address::Inet(addr) = self;
        Some(*addr)
    }
}

impl From<SocketAddr> for Address {
    fn from(addr: SocketAddr) -> Address {
        Address::Inet(addr)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Address::Inet(addr) = self;
        addr.fmt(f)
    }
}

/// A connection that was just accepted, as its protocol's maker sees it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Accepted {
    /// Its identity, for a [`Handle`](crate::Handle).
    pub id: ConnId,
    /// The far end.
    pub peer: Address,
    /// Where the listener is bound, which may be all addresses of the machine.
    pub local: Address,
}
