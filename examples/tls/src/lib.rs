//! [`Tls`], which wraps TLS around any [`Protocol`].
//!
//! Look at [`Tls::call`]: the inner protocol gets an outbox of its own, [`Outbox::nested`]. Its bytes
//! are encrypted into the outer outbox, and [`Outbox::adopt`] applies everything else that it requests:
//! its timer, its timeouts, its messages, a pause, the end of its half. Because the loop passes messages
//! and broadcasts to the protocol and not to the socket, they are encrypted as well.
//!
//! | the inner protocol | on the wire |
//! |---|---|
//! | `on_open` | the handshake is complete |
//! | `on_eof` | the peer has sent close_notify |
//! | `half_close`, `close` | close_notify, then our FIN |
//! | `abort` | a reset |
//! | `on_close` with [`CloseReason::Failed`] | TLS has failed, or the peer's FIN came without close_notify |
//!
//! The inner protocol is congested when the outer outbox is, so back-pressure reaches the peer. While
//! the inner protocol is paused, the loop reads nothing. What one read has decrypted already is held:
//! at most [`Limits::read_buffer`](campanile::Limits::read_buffer) bytes and one TLS record, 16 KiB.
//!
//! Until the handshake is complete, messages for the inner protocol are dropped, as they are while a
//! connection is being made. `Handle::close` ends a connection without the layer, so without
//! close_notify: use [`Tls::call`] from `Handle::run`, or a message that the inner protocol answers with
//! `out.close()`.

mod certificate;

use std::io::{self, ErrorKind, Read, Write};
use std::time::Duration;

use campanile::{CloseReason, Outbox, Protocol};
use rustls::Connection;

pub use certificate::configs;

/// How long a handshake may take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Wraps a protocol and encrypts its bytes.
#[derive(Debug)]
pub struct Tls<P> {
    connection: Connection,
    inner: P,
    is_open: bool,
    /// Decrypted bytes that the inner protocol has not received yet.
    received: Vec<u8>,
    /// The peer has sent close_notify, and the inner protocol has not been told yet.
    has_eof: bool,
    /// Why TLS has failed.
    error: Option<io::Error>,
}

/// An outbox that TLS records are written to.
struct Wire<'a>(&'a mut Outbox);

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<P: Protocol> Tls<P> {
    /// Wraps either side of a TLS connection, a [`ServerConnection`](rustls::ServerConnection) or a
    /// [`ClientConnection`](rustls::ClientConnection), around `inner`.
    pub fn new(connection: impl Into<Connection>, inner: P) -> Tls<P> {
        let mut connection = connection.into();
        // rustls would take only a part of a longer reply. The send queue has its own bound.
        connection.set_buffer_limit(None);
        let received = Vec::new();
        Tls { connection, inner, is_open: false, received, has_eof: false, error: None }
    }

    /// Calls the inner protocol with an outbox of its own, encrypts what it sends, and applies what it
    /// requests. Does nothing before the handshake is complete.
    pub fn call(&mut self, out: &mut Outbox, what: impl FnOnce(&mut P, &mut Outbox)) {
        if !self.is_open {
            return;
        }
        let mut inner = out.nested();
        what(&mut self.inner, &mut inner);
        if let Err(error) = self.connection.writer().write_all(inner.queued()) {
            return self.fail(error, out);
        }
        if inner.is_half_closed() && !out.is_half_closed() {
            self.connection.send_close_notify();
        }
        self.flush(out);
        out.adopt(inner);
        self.deliver(out);
    }

    /// Passes on what was received, as far as the inner protocol reads.
    fn deliver(&mut self, out: &mut Outbox) {
        if out.is_paused() || out.is_closed() {
            return;
        }
        if !self.received.is_empty() {
            let data = std::mem::take(&mut self.received);
            self.call(out, |inner, out| inner.on_data(&data, out));
        } else if std::mem::take(&mut self.has_eof) {
            self.call(out, |inner, out| inner.on_eof(out));
        }
    }

    fn flush(&mut self, out: &mut Outbox) {
        while self.connection.wants_write() {
            // An outbox takes everything.
            let Ok(_) = self.connection.write_tls(&mut Wire(out)) else { return };
        }
    }

    /// Decrypts `data`, which completes the handshake or adds to what was received.
    fn decrypt(&mut self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() && self.connection.read_tls(&mut data)? > 0 {
            let invalid = |error| io::Error::new(ErrorKind::InvalidData, error);
            self.has_eof |=
                self.connection.process_new_packets().map_err(invalid)?.peer_has_closed();
            match self.connection.reader().read_to_end(&mut self.received) {
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Sends the alert that rustls has queued, and closes.
    fn fail(&mut self, error: io::Error, out: &mut Outbox) {
        self.error = Some(error);
        self.flush(out);
        out.close();
    }
}

impl<P: Protocol> Protocol for Tls<P> {
    fn on_open(&mut self, out: &mut Outbox) {
        out.timer_after(HANDSHAKE_TIMEOUT);
        self.flush(out);
    }

    fn on_data(&mut self, data: &[u8], out: &mut Outbox) {
        if let Err(error) = self.decrypt(data) {
            return self.fail(error, out);
        }
        self.flush(out);
        if !self.is_open && !self.connection.is_handshaking() {
            self.is_open = true;
            out.cancel_timer();
            self.call(out, |inner, out| inner.on_open(out));
        } else {
            self.deliver(out);
        }
    }

    fn on_eof(&mut self, out: &mut Outbox) {
        let state = self.connection.process_new_packets();
        if !state.is_ok_and(|state| state.peer_has_closed()) {
            let text = "the peer ended the connection without close_notify: data may be missing";
            self.fail(io::Error::new(ErrorKind::UnexpectedEof, text), out);
        }
    }

    fn on_drain(&mut self, out: &mut Outbox) {
        self.call(out, |inner, out| inner.on_drain(out));
    }

    fn on_timer(&mut self, out: &mut Outbox) {
        if !self.is_open {
            let text = format!("the TLS handshake took longer than {HANDSHAKE_TIMEOUT:?}");
            return self.fail(io::Error::new(ErrorKind::TimedOut, text), out);
        }
        self.call(out, |inner, out| inner.on_timer(out));
    }

    fn on_wake(&mut self, out: &mut Outbox) {
        self.call(out, |inner, out| inner.on_wake(out));
    }

    fn on_message(&mut self, bytes: &[u8], out: &mut Outbox) {
        self.call(out, |inner, out| inner.on_message(bytes, out));
    }

    fn on_close(&mut self, reason: &CloseReason) {
        match self.error.take() {
            Some(error) => self.inner.on_close(&CloseReason::Failed(error)),
            None => self.inner.on_close(reason),
        }
    }
}
