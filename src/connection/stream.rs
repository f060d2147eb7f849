//! The stream under a connection.

use std::io::{self, Read, Write};

use crate::protocol::{Address, CloseReason};

/// A byte stream that never blocks.
///
/// A TCP socket is one; so is a script in a test, or a wrapper that makes another stream slow.
pub trait Stream: Read + Write {
    /// Ends our half: the peer reads EOF after the bytes that were written (a FIN, in TCP). After
    /// `WouldBlock` it is tried again with the next writable event.
    fn shutdown_write(&mut self) -> io::Result<()>;

    /// Makes the drop that follows a reset instead of an orderly end.
    fn abort(&mut self);

    /// Writes bytes that the end of our half follows at once: a hint that lets TCP send the last
    /// bytes and the FIN as one segment.
    fn write_last(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write(bytes)
    }

    /// Returns whether an outgoing stream that was reported writable is connected by now.
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

    /// Returns whether the owner of the stream holds it back, as a rate limiter does. While it is held,
    /// the idle and the write timeout stand still. Called after each run, but not before the stream is
    /// connected. An event must follow once the stream is free again.
    fn is_held(&self) -> bool {
        false
    }

    /// Called once with the reason, before the stream is dropped.
    fn ended(&mut self, _reason: &CloseReason) {}
}
