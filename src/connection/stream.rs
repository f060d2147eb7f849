//! What a connection reads from and writes to.

use std::io::{self, Read, Write};
use std::time::Instant;

use crate::outbox::Output;
use crate::protocol::{Address, CloseReason};

/// What a connection needs of a byte stream that never blocks.
///
/// A TCP socket is one; so is a script in a test, or a wrapper that makes another stream slow.
pub trait Stream: Read + Write {
    /// Ends our half: the peer reads EOF after what was written (a FIN, in TCP).
    fn shutdown_write(&mut self) -> io::Result<()>;

    /// Makes the coming drop a reset instead of an orderly end.
    fn abort(&mut self);

    /// Writes bytes that the end of our half follows at once: a hint that lets TCP send the last
    /// bytes and the FIN as one segment.
    fn write_last(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write(bytes)
    }

    /// For an outgoing stream that was reported writable: whether it is connected by now.
    fn connected(&mut self) -> io::Result<bool> {
        Ok(true)
    }

    /// Returns the address of this end of the stream.
    ///
    /// # Errors
    /// If the stream has no address, or does not know it.
    fn local_addr(&self) -> io::Result<Address> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Until when the stream is blocked for a reason that no event will announce.
    fn retry_at(&self) -> Option<Instant> {
        None
    }

    /// The connection ended; comes once, before the stream is dropped.
    fn ended(&mut self, _reason: &CloseReason) {}
}

/// A stream to write to, with the hint whether these are the last bytes.
pub(super) struct Writer<'a, S> {
    to: &'a mut S,
    last: bool,
}

impl<'a, S> Writer<'a, S> {
    #[inline]
    pub(super) fn new(to: &'a mut S, output: Output) -> Writer<'a, S> {
        Writer { to, last: output == Output::Flushing }
    }
}

impl<S: Stream> Write for Writer<'_, S> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.last { self.to.write_last(bytes) } else { self.to.write(bytes) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
