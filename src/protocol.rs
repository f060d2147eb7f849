//! [`Protocol`], the trait that a user implements, its [`Outbox`], and the [`CloseReason`].

mod address;
mod layer;
mod outbox;
mod requests;
mod state;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::{fmt, io};

pub use self::address::{Accepted, Address};
pub use self::outbox::Outbox;
pub(crate) use self::requests::{Request, Requests, Timeouts};
pub(crate) use self::state::State;
pub use self::state::{Input, Output};

/// One side of a conversation. The loop calls it for every event of its connection.
///
/// The calls follow this grammar:
///
/// ```text
/// open (data | other)* eof? other* (close | panic)
/// other = drain | timer | wake | message
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
pub trait Protocol: AsAny {
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

    /// The time set with [`Outbox::timer_at`] or [`Outbox::timer_after`] has come, which clears it.
    fn on_timer(&mut self, out: &mut Outbox) {}

    /// Another thread has called [`Handle::wake_connection`](crate::Handle::wake_connection), or another
    /// connection [`Outbox::wake`].
    fn on_wake(&mut self, out: &mut Outbox) {}

    /// Bytes from [`Handle::send`](crate::Handle::send), [`Handle::broadcast`](crate::Handle::broadcast)
    /// or another connection's [`Outbox::message`]: all the bytes of one such call. The default sends
    /// them to the peer. A protocol with frames, or with a reply in progress, decides here where they go:
    ///
    /// ```
    /// # use campanile::{Outbox, Protocol};
    /// /// Sends a message as a frame, with its length before it.
    /// struct Framed;
    ///
    /// impl Protocol for Framed {
    ///     # fn on_data(&mut self, _: &[u8], _: &mut Outbox) {}
    ///     fn on_message(&mut self, bytes: &[u8], out: &mut Outbox) {
    ///         out.send(&(bytes.len() as u32).to_be_bytes());
    ///         out.send(bytes);
    ///     }
    /// }
    /// ```
    fn on_message(&mut self, bytes: &[u8], out: &mut Outbox) {
        out.send(bytes);
    }

    /// The connection is closed. Called exactly once, unless this protocol has panicked.
    fn on_close(&mut self, reason: &CloseReason) {}

    /// The same with an outbox, for a protocol that must inform another connection. The loop calls this
    /// method, and the default calls [`on_close`](Protocol::on_close). Only the requests
    /// [`message`](Outbox::message), [`wake`](Outbox::wake) and [`connect`](Outbox::connect) have an
    /// effect, and none has if the reactor is dropped.
    fn on_close_with(&mut self, reason: &CloseReason, out: &mut Outbox) {
        self.on_close(reason);
    }
}

impl<P: Protocol + ?Sized> Protocol for Box<P> {
    fn on_open(&mut self, out: &mut Outbox) {
        (**self).on_open(out);
    }
    fn on_data(&mut self, data: &[u8], out: &mut Outbox) {
        (**self).on_data(data, out);
    }
    fn on_eof(&mut self, out: &mut Outbox) {
        (**self).on_eof(out);
    }
    fn on_drain(&mut self, out: &mut Outbox) {
        (**self).on_drain(out);
    }
    fn on_timer(&mut self, out: &mut Outbox) {
        (**self).on_timer(out);
    }
    fn on_wake(&mut self, out: &mut Outbox) {
        (**self).on_wake(out);
    }
    fn on_message(&mut self, bytes: &[u8], out: &mut Outbox) {
        (**self).on_message(bytes, out);
    }
    fn on_close(&mut self, reason: &CloseReason) {
        (**self).on_close(reason);
    }
    fn on_close_with(&mut self, reason: &CloseReason, out: &mut Outbox) {
        (**self).on_close_with(reason, out);
    }
}

mod sealed {
    /// Every `'static` type has it. It lets [`Reactor::with`](crate::Reactor::with) find a protocol by
    /// its type.
    pub trait AsAny: std::any::Any {
        #[doc(hidden)]
        fn as_any_mut(&mut self) -> &mut dyn std::any::Any;
    }

    impl<T: std::any::Any> AsAny for T {
        fn as_any_mut(&mut self) -> &mut dyn std::any::Any {
            self
        }
    }
}
use sealed::AsAny;

/// Finds a protocol of type `P`, also inside boxes.
pub(crate) fn downcast<P: Protocol>(protocol: &mut dyn Protocol) -> Option<&mut P> {
    // On a `Box<dyn Protocol>`, the call would find the box and not what is inside.
    let any: &mut dyn Any = protocol.as_any_mut();
    if any.is::<Box<dyn Protocol>>() {
        return downcast(&mut **any.downcast_mut::<Box<dyn Protocol>>()?);
    }
    if any.is::<Box<P>>() {
        return any.downcast_mut::<Box<P>>().map(|boxed| &mut **boxed);
    }
    any.downcast_mut()
}

/// The payload of a panic.
pub(crate) type Panic = Box<dyn Any + Send>;

/// Calls `on_close_with`, unless the protocol has panicked before, and drops the protocol. Returns the
/// panic of a protocol that has not panicked before; a second panic in its drop belongs to the first.
pub(crate) fn end(
    mut protocol: Box<dyn Protocol>,
    reason: &CloseReason,
    out: &mut Outbox,
) -> Option<Panic> {
    let has_panicked = matches!(reason, CloseReason::Panicked);
    out.begin_last_call();
    let closed = catch_unwind(AssertUnwindSafe(|| {
        if !has_panicked {
            protocol.on_close_with(reason, out);
        }
    }));
    let mut first = closed.err();
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(protocol))) {
        if has_panicked || first.is_some() {
            discard(panic);
        } else {
            first = Some(panic);
        }
    }
    first
}

/// Drops the payload of a panic, which may panic again. The payload of that panic is leaked, because
/// its drop could go on like that for ever.
pub(crate) fn discard(panic: Panic) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(again);
    }
}

/// A call of a connection's protocol without data.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Call<'a> {
    Open,
    Eof,
    Drain,
    Timer,
    Wake,
    Message(&'a [u8]),
    /// The next two are calls of its outbox, on behalf of a [`Handle`](crate::Handle).
    Close,
    Abort,
}

impl Call<'_> {
    pub(crate) fn make(self, protocol: &mut dyn Protocol, out: &mut Outbox) {
        match self {
            Call::Open => protocol.on_open(out),
            Call::Eof => protocol.on_eof(out),
            Call::Drain => protocol.on_drain(out),
            Call::Timer => protocol.on_timer(out),
            Call::Wake => protocol.on_wake(out),
            Call::Message(bytes) => protocol.on_message(bytes, out),
            Call::Close => out.close(),
            Call::Abort => out.abort(),
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
    /// No byte was received or sent for [`Limits::idle_timeout`](crate::Limits::idle_timeout).
    Idle,
    /// Bytes were queued, and none could be sent for [`Limits::write_timeout`](crate::Limits::write_timeout).
    Stalled,
    /// Everything was sent and our half ended, but the peer did not end its half within
    /// [`Limits::linger_timeout`](crate::Limits::linger_timeout), or sent more than
    /// [`Limits::linger_bytes`](crate::Limits::linger_bytes) meanwhile.
    Lingered,
    /// The connection was open for [`Limits::max_lifetime`](crate::Limits::max_lifetime).
    Expired,
    /// More than [`Limits::max_send_queue`](crate::Limits::max_send_queue) bytes were queued for the peer.
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
    #[must_use]
    pub fn ordinal(&self) -> u64 {
        self.ordinal
    }
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.ordinal)
    }
}

/// Identifies a listener within its reactor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ListenerId(pub(crate) usize);
