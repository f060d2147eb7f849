//! The `relay` example with a CONNECT request (RFC 9110, 9.3.6): accepts here, sends the request to
//! a proxy there, then passes every byte both ways. Without a request it is that relay.

#[allow(dead_code)]
#[path = "../../../../../examples/relay.rs"]
mod relay;

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use campanile::{Accepted, CloseReason, Handle, Limits, Outbox, Protocol, Reactor};
use relay::{Pipe, Side};

/// The connection from the relay to the proxy.
struct Asking {
    side: Side,
    /// The CONNECT request; empty if there is none, and once it is sent.
    question: String,
    /// The bytes of the answer received so far; `None` once the proxy has accepted the request.
    answer: Option<Vec<u8>>,
}

impl Asking {
    /// Consumes the proxy's answer and returns the bytes after it, which the target has sent.
    fn listen_to_the_proxy(&mut self, out: &mut Outbox, data: &[u8]) -> Option<Vec<u8>> {
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
        out.send(std::mem::take(&mut self.question).as_bytes());
        self.on_wake(out);
    }

    fn on_data(&mut self, data: &[u8], out: &mut Outbox) {
        let Some(data) = self.listen_to_the_proxy(out, data) else { return };
        self.side.on_data(&data, out);
        self.on_wake(out);
    }

    fn on_eof(&mut self, out: &mut Outbox) {
        self.side.on_eof(out);
    }

    fn on_drain(&mut self, out: &mut Outbox) {
        self.on_wake(out);
    }

    fn on_wake(&mut self, out: &mut Outbox) {
        // Nothing is sent to the target before the proxy has accepted the request.
        if self.answer.is_none() {
            self.side.on_wake(out);
        }
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
        let (tell, told) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut reactor =
                Reactor::with_limits(Limits::default().mailbox(100_000))?;
            let newcomers = Rc::new(RefCell::new(Vec::new()));
            let (waiting, handle) = (newcomers.clone(), reactor.handle());
            let addr = reactor.listen("127.0.0.1:0", move |new: &Accepted| {
                let (up, down, far) = (Rc::<Pipe>::default(), Rc::<Pipe>::default(), Rc::default());
                let (handle, near) = (handle.clone(), Rc::new(Cell::new(Some(new.id))));
                waiting.borrow_mut().push((down.clone(), up.clone(), near, Rc::clone(&far)));
                Side { heard: up, to_say: down, other: far, handle }
            })?;
            let _ = tell.send((addr, reactor.handle()));
            while !reactor.is_finished() {
                reactor.turn(None)?;
                for (heard, to_say, other, far) in newcomers.take() {
                    let line = |at| format!("CONNECT {at} HTTP/1.1\r\nHost: {at}\r\n\r\n");
                    let question = target.map(line).unwrap_or_default();
                    let side = Side { heard, to_say, other, handle: reactor.handle() };
                    let asking = Asking { side, question, answer: target.map(|_| Vec::new()) };
                    far.set(Some(reactor.connect(there, asking)));
                }
            }
            Ok(())
        });
        let (addr, handle) = told.recv().map_err(io::Error::other)?;
        Ok(Relay { handle, thread: Some(thread), addr })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.handle.shutdown(Duration::ZERO);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
