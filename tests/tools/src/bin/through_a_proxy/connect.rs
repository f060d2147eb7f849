//! A relay with a CONNECT request (RFC 9110, 9.3.6): accepts here, sends the request to a proxy there,
//! then passes every byte both ways. Without a request it is `campanile::relay`.

use std::io;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use campanile::{Accepted, CloseReason, Handle, Outbox, Protocol, Reactor};

use crate::side::Side;

/// The connection from the relay to the proxy.
struct Asking {
    side: Side,
    /// The CONNECT request; empty once it is sent.
    request: String,
    /// The bytes of the answer received so far; `None` once the proxy has accepted the request.
    answer: Option<Vec<u8>>,
}

impl Asking {
    /// Consumes the proxy's answer and returns the bytes after it, which the target has sent.
    fn read_answer(&mut self, out: &mut Outbox, data: &[u8]) -> Option<Vec<u8>> {
        let Some(answer) = &mut self.answer else { return Some(data.to_vec()) };
        answer.extend_from_slice(data);
        let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
        if answer.get(8..12) != Some(b" 200") {
            out.abort();
            return None;
        }
        let rest = answer.split_off(end + 4);
        self.answer = None;
        Some(rest)
    }
}

impl Protocol for Asking {
    fn on_open(&mut self, out: &mut Outbox) {
        // The client is read once the proxy has accepted the request.
        out.send(std::mem::take(&mut self.request).as_bytes());
    }

    fn on_data(&mut self, data: &[u8], out: &mut Outbox) {
        let is_waiting = self.answer.is_some();
        let Some(data) = self.read_answer(out, data) else { return };
        if is_waiting {
            self.side.on_open(out);
        }
        if !data.is_empty() {
            self.side.on_data(&data, out);
        }
    }

    fn on_eof(&mut self, out: &mut Outbox) {
        match self.answer {
            Some(_) => out.abort(),
            None => self.side.on_eof(out),
        }
    }

    fn on_drain(&mut self, out: &mut Outbox) {
        self.side.on_drain(out);
    }

    fn on_wake(&mut self, out: &mut Outbox) {
        self.side.on_wake(out);
    }

    fn on_message(&mut self, bytes: &[u8], out: &mut Outbox) {
        self.side.on_message(bytes, out);
    }

    fn on_close(&mut self, reason: &CloseReason) {
        self.side.on_close(reason);
    }
}

/// A relay on its own thread. Dropping it ends the thread.
pub struct Relay {
    handle: Handle,
    thread: Option<JoinHandle<io::Result<()>>>,
    pub addr: SocketAddr,
}

impl Relay {
    /// Starts a relay to `there`. With a `target`, `there` is a proxy and gets a request for it.
    pub fn start(there: SocketAddr, target: Option<SocketAddr>) -> io::Result<Relay> {
        let (started, start) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut reactor = Reactor::new()?;
            let handle = reactor.handle();
            let addr = match target {
                None => reactor.listen("127.0.0.1:0", campanile::relay(there))?,
                Some(at) => {
                    let connect = move |side, out: &mut Outbox| {
                        let request = format!("CONNECT {at} HTTP/1.1\r\nHost: {at}\r\n\r\n");
                        out.connect(there, Asking { side, request, answer: Some(Vec::new()) });
                    };
                    let make = move |_: &Accepted| Side::new(&handle, connect);
                    reactor.listen("127.0.0.1:0", make)?
                }
            };
            let _ = started.send((addr, reactor.handle()));
            reactor.run()
        });
        let (addr, handle) = start.recv().map_err(io::Error::other)?;
        Ok(Relay { handle, thread: Some(thread), addr })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.handle.shutdown(Duration::ZERO);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
