//! A key/value server with replies of any length, and notices that never cut into a reply.
//!
//! Run it with `cargo run --example kv` and `nc 127.0.0.1 7780`: `set KEY VALUE` and `get KEY`. Its
//! tests, `cargo test --example kv`, need no socket. It serves until you stop it with Ctrl-C.
//!
//! Look at `pump`: a long reply is sent in pieces until the outbox is congested, and continues in
//! `on_drain`. Look at `on_message`: a notice waits until the reply is complete.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use campanile::{Handle, Outbox, Protocol, Reactor};

const PIECE: usize = 16 << 10;
const NOTICES_MAX: usize = 64 << 10;
const COMMAND_MAX: usize = 8 << 20;

type Store = Rc<RefCell<HashMap<Vec<u8>, Rc<[u8]>>>>;

#[derive(Default)]
struct Client {
    store: Store,
    /// For notices to all clients.
    handle: Option<Handle>,
    /// Commands not obeyed yet.
    input: Vec<u8>,
    has_ended: bool,
    /// The reply in progress, and the number of bytes sent.
    reply: Option<(Rc<[u8]>, usize)>,
    notices: Vec<u8>,
}

impl Client {
    fn reply_to(&self, command: &[u8]) -> Rc<[u8]> {
        let mut words = command.splitn(3, |byte| *byte == b' ');
        match (words.next(), words.next(), words.next()) {
            (Some(b"set"), Some(key), Some(value)) => {
                self.store.borrow_mut().insert(key.into(), [value, b"\n"].concat().into());
                let notice = [b"changed ", key, b"\n"].concat();
                // A full mailbox loses a notice and no value.
                let _ = self.handle.as_ref().map(|handle| handle.broadcast(None, notice));
                Rc::from(*b"ok\n")
            }
            (Some(b"get"), Some(key), None) if self.store.borrow().contains_key(key) => {
                self.store.borrow()[key].clone()
            }
            _ => Rc::from(*b"error: unknown key or command\n"),
        }
    }

    /// Sends replies until the outbox is congested or no command is left.
    fn pump(&mut self, out: &mut Outbox) {
        while !out.is_congested() && !out.is_closed() {
            if let Some((reply, sent)) = &mut self.reply {
                let end = reply.len().min(*sent + PIECE);
                out.send(&reply[std::mem::replace(sent, end)..end]);
                if end == reply.len() {
                    self.reply = None;
                    out.send(&std::mem::take(&mut self.notices));
                }
            } else if let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.input.drain(..=end).collect();
                self.reply = Some((self.reply_to(&line[..end]), 0));
            } else {
                return if self.has_ended {
                    out.close()
                };
            }
        }
    }
}

impl Protocol for Client {
    fn on_data(&mut self, data: &[u8], out: &mut Outbox) {
        self.input.extend_from_slice(data);
        if data.contains(&b'\n') {
            self.pump(out);
        } else if self.input.len() > COMMAND_MAX {
            out.abort();
        }
    }
    fn on_eof(&mut self, out: &mut Outbox) {
        self.has_ended = true;
        self.pump(out);
    }
    fn on_drain(&mut self, out: &mut Outbox) {
        self.pump(out);
    }
    fn on_message(&mut self, notice: &[u8], out: &mut Outbox) {
        self.notices.extend_from_slice(notice);
        if self.reply.is_none() {
            out.send(&std::mem::take(&mut self.notices));
        } else if self.notices.len() > NOTICES_MAX {
            out.abort();
        }
    }
}

fn main() -> std::io::Result<()> {
    let (mut reactor, store) = (Reactor::new()?, Store::default());
    let handle = reactor.handle();
    let addr = reactor.listen("127.0.0.1:7780", move |_| {
        let (store, handle) = (store.clone(), Some(handle.clone()));
        Client { store, handle, ..Client::default() }
    })?;
    println!("kv {addr}");
    reactor.run()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reply_is_sent_in_pieces_and_a_notice_and_the_end_wait_for_it() {
        let (mut client, mut out) = (Client::default(), Outbox::new(std::time::Instant::now()));
        let value = "x".repeat(5 << 20);
        client.on_data(format!("set key {value}\nget key\nget none\n").as_bytes(), &mut out);
        client.on_message(b"changed other\n", &mut out);
        client.on_eof(&mut out);
        let mut received = Vec::new();
        while out.unsent() > 0 {
            assert!(out.unsent() < 100 << 10);
            received.extend_from_slice(out.queued());
            if out.drain(usize::MAX) {
                client.on_drain(&mut out);
            }
        }
        let replies = format!("ok\n{value}\nchanged other\nerror: unknown key or command\n");
        assert!(received == replies.as_bytes() && out.is_closed());
    }

    #[test]
    fn a_client_that_does_not_read_is_reset_once_too_many_notices_wait() {
        let (mut client, mut out) = (Client::default(), Outbox::new(std::time::Instant::now()));
        client.reply = Some((Rc::from(*b"a reply"), 0));
        client.on_message(&[b'n'; NOTICES_MAX], &mut out);
        assert!(!out.is_aborted());
        client.on_message(b"n", &mut out);
        assert!(out.is_aborted());
    }
}
