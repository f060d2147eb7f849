//! [`Protocol`], the trait that a user implements, and [`CloseReason`], why a connection ended.

use std::net::{IpAddr, SocketAddr};
use std::{fmt, io};

use crate::outbox::Outbox;

/// One side of a conversation. The loop calls it for every event of its connection.
///
/// The calls follow this grammar:
///
/// ```text
/// open (data | drain | wake)* eof? (drain | wake)* (close | panic)
/// ```
///
/// After [`Outbox::close`] or [`Outbox::abort`], only [`on_close`](Protocol::on_close) follows. After
/// [`Outbox::half_close`], the peer's data still arrives. A connection that could not be made is
/// closed without having been opened. A protocol that panics is not called again: its connection is
/// reset, and the other connections continue.
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
    /// The peer is connected. A protocol that sends first sends here.
    fn on_open(&mut self, out: &mut Outbox) {}

    /// Bytes have arrived, in order and in pieces of any size: a piece is not a message. This is the
    /// only method without a default.
    fn on_data(&mut self, data: &[u8], out: &mut Outbox);

    /// The peer has ended its half; it may still read. The default ends our half, too, after
    /// everything queued has been sent.
    fn on_eof(&mut self, out: &mut Outbox) {
        out.close();
    }

    /// The send queue was congested and has fallen to the low-water mark: the protocol may send
    /// again.
    fn on_drain(&mut self, out: &mut Outbox) {}

    /// The deadline set with [`Outbox::wake_at`] has come, which clears it, or another thread has
    /// called [`Handle::wake_connection`](crate::Handle::wake_connection).
    fn on_wake(&mut self, out: &mut Outbox) {}

    /// The connection is closed. Called exactly once, unless this protocol has panicked.
    fn on_close(&mut self, reason: &CloseReason) {}
}

/// A call of a connection's protocol without data, or of its outbox on behalf of a
/// [`Handle`](crate::Handle).
#[derive(Debug, Clone, Copy)]
pub(crate) enum Call<'a> {
    Open,
    Eof,
    Drain,
    Wake,
    Send(&'a [u8]),
    Close,
}

impl Call<'_> {
    pub(crate) fn make(self, protocol: &mut dyn Protocol, out: &mut Outbox) {
        match self {
            Call::Open => protocol.on_open(out),
            Call::Eof => protocol.on_eof(out),
            Call::Drain => protocol.on_drain(out),
            Call::Wake => protocol.on_wake(out),
            Call::Send(bytes) => out.send(bytes),
            Call::Close => out.close(),
        }
    }
}

/// Why a connection ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum CloseReason {
    /// Both halves ended in order, and the kernel took every byte.
    Finished,
    /// The protocol called [`Outbox::abort`].
    Aborted,
    /// No byte was received or sent for [`Limits::idle`](crate::Limits::idle).
    Idle,
    /// Bytes were queued, and none could be sent for [`Limits::stall`](crate::Limits::stall).
    Stalled,
    /// Everything was sent and our half ended, but the peer did not end its half within
    /// [`Limits::linger`](crate::Limits::linger), or sent more than
    /// [`Limits::linger_bytes`](crate::Limits::linger_bytes) meanwhile.
    Lingered,
    /// The connection was open for [`Limits::lifetime`](crate::Limits::lifetime).
    Expired,
    /// More than [`Limits::unsent`](crate::Limits::unsent) bytes were queued for the peer.
    Overflow,
    /// The reactor ended first: the grace of a shutdown was over, or its
    /// [`Background`](crate::Background) was dropped.
    Shutdown,
    /// The protocol panicked.
    Panicked,
    /// The outgoing connection could not be made. Its protocol was never opened.
    ConnectFailed(io::Error),
    /// The kernel reported an error, for example that the peer reset the connection.
    Failed(io::Error),
}

impl CloseReason {
    /// Returns whether the connection ends with a reset, so that the kernel frees its buffers.
    pub(crate) fn wants_reset(&self) -> bool {
        use CloseReason::*;
        !matches!(self, Finished | ConnectFailed(_) | Failed(_))
    }

    /// Returns whether the peer reset the connection.
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

/// Identifies a connection within its reactor.
///
/// It holds the slot of the connection and a sequence number that never repeats. So the id of a
/// closed connection never identifies another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnId {
    pub(crate) key: u32,
    pub(crate) ordinal: u64,
}

impl ConnId {
    /// Returns the sequence number within the reactor, counted from 1.
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
    /// Returns the IP address. An IPv4 address that is mapped into IPv6 becomes IPv4.
    pub fn ip(&self) -> Option<IpAddr> {
        let Address::Inet(addr) = self;
        Some(addr.ip().to_canonical())
    }

    /// Returns the socket address if it is an IP address and a port.
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

/// A connection that was just accepted, for the closure that creates its protocol.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Accepted {
    /// The id of the connection, for a [`Handle`](crate::Handle).
    pub id: ConnId,
    /// The address of the peer.
    pub peer: Address,
    /// The address of the listener, which can be the unspecified address.
    pub local: Address,
}
