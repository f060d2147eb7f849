//! Accept here, ask a proxy there by CONNECT (RFC 9110, 9.3.6), then pass every byte both ways: the
//! `relay` example with one question more. Without a question it is that relay.

#[allow(dead_code)]
#[path = "../relay.rs"]
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

/// The relay's side that faces the proxy.
struct Asking {
    side: Side,
    /// Whom to ask for, if anybody; empty once it is asked.
    question: String,
    /// What the proxy has answered so far; `None` once it has agreed.
    answer: Option<Vec<u8>>,
}

impl Asking {
    /// Takes the answer away from what came; what follows it is the target's.
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
        // Until it has agreed, nothing is the target's to hear.
        if self.answer.is_none() {
            self.side.on_wake(out);
        }
    }

    fn on_close(&mut self, reason: &CloseReason) {
        self.side.on_close(reason);
    }
}

/// The relay on a thread of its own, until it is dropped.
pub struct Relay {
    handle: Handle,
    thread: Option<JoinHandle<io::Result<()>>>,
    pub addr: SocketAddr,
}

impl Relay {
    /// In front of `there`, a proxy that is asked for `target`, if there is one.
    pub fn start(there: SocketAddr, target: Option<SocketAddr>) -> io::Result<Relay> {
        let (tell, told) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut reactor =
                Reactor::with_limits(Limits { mailbox: 100_000, ..Limits::default() })?;
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
                    far.set(reactor.connect(there, asking).ok());
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
