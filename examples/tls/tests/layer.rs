//! The layer without sockets: a rustls client on one side of an outbox.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::rc::Rc;
use std::time::{Duration, Instant};

use campanile::{CloseReason, Outbox, Protocol};
use rustls::{ClientConnection, ServerConnection};
use tls::{HANDSHAKE_TIMEOUT, Tls, configs};

/// Records its calls, and does what the data says.
#[derive(Default)]
struct Probe {
    calls: Rc<RefCell<Vec<String>>>,
    pauses_at_open: bool,
}

impl Probe {
    fn record(&self, call: impl Into<String>) {
        self.calls.borrow_mut().push(call.into());
    }
}

impl Protocol for Probe {
    fn on_open(&mut self, out: &mut Outbox) {
        self.record("open");
        if self.pauses_at_open {
            out.pause();
        }
    }

    fn on_data(&mut self, data: &[u8], out: &mut Outbox) {
        self.record(format!("data {}", String::from_utf8_lossy(data)));
        match data {
            b"reply with 500 KiB" => out.send(&vec![b'x'; 500 << 10]),
            b"reply until congested" => {
                while !out.is_congested() {
                    out.send(&[b'x'; 1000]);
                }
            }
            b"request" => {
                out.timer_after(Duration::from_secs(1));
                out.message(out.id(), b"for another");
            }
            b"half-close" => out.half_close(),
            b"close" => {
                out.send(b"bye");
                out.close();
            }
            b"abort" => out.abort(),
            _ => {}
        }
    }

    fn on_eof(&mut self, _: &mut Outbox) {
        self.record("eof");
    }

    fn on_drain(&mut self, _: &mut Outbox) {
        self.record("drain");
    }

    fn on_timer(&mut self, _: &mut Outbox) {
        self.record("timer");
    }

    fn on_wake(&mut self, out: &mut Outbox) {
        self.record("wake");
        out.resume();
    }

    fn on_message(&mut self, bytes: &[u8], out: &mut Outbox) {
        self.record("message");
        out.send(bytes);
    }

    fn on_close(&mut self, reason: &CloseReason) {
        self.record(format!("close: {reason}"));
    }
}

struct Pair {
    client: ClientConnection,
    server: Tls<Probe>,
    out: Outbox,
    calls: Rc<RefCell<Vec<String>>>,
    /// The decrypted bytes that the client has received.
    received: Vec<u8>,
    /// The server's close_notify has arrived.
    is_closed: bool,
}

impl Pair {
    /// Creates a pair whose handshake has not begun.
    fn new(high_water: usize, pauses_at_open: bool) -> Pair {
        let (server, client) = configs().unwrap();
        let probe = Probe { pauses_at_open, ..Probe::default() };
        let calls = Rc::clone(&probe.calls);
        let mut out = Outbox::with_high_water(Instant::now(), high_water);
        let mut server = Tls::new(ServerConnection::new(server).unwrap(), probe);
        server.on_open(&mut out);
        let client = ClientConnection::new(client, "localhost".try_into().unwrap()).unwrap();
        Pair { client, server, out, calls, received: Vec::new(), is_closed: false }
    }

    /// Creates a pair whose handshake is complete.
    fn open() -> Pair {
        let mut pair = Pair::new(64 << 10, false);
        pair.exchange();
        assert_eq!(pair.take_calls(), ["open"]);
        pair
    }

    fn carry_to_server(&mut self) {
        let mut bytes = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut bytes).unwrap();
        }
        if !bytes.is_empty() {
            self.server.on_data(&bytes, &mut self.out);
        }
    }

    fn carry_to_client(&mut self) {
        let bytes = self.out.queued().to_vec();
        if self.out.drain(bytes.len()) {
            self.server.on_drain(&mut self.out);
        }
        let mut bytes = &bytes[..];
        while !bytes.is_empty() && self.client.read_tls(&mut bytes).unwrap() > 0 {
            self.is_closed |= self.client.process_new_packets().unwrap().peer_has_closed();
            let _ = self.client.reader().read_to_end(&mut self.received);
        }
    }

    /// Passes bytes on until both sides are silent.
    fn exchange(&mut self) {
        while self.client.wants_write() || self.out.unsent() > 0 {
            self.carry_to_server();
            self.carry_to_client();
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.client.writer().write_all(bytes).unwrap();
        self.carry_to_server();
    }

    fn take_calls(&mut self) -> Vec<String> {
        self.calls.take()
    }
}

#[test]
fn data_and_eof_are_held_while_the_protocol_is_paused() {
    let mut pair = Pair::new(64 << 10, true);
    // With the last message of the handshake come data and close_notify.
    pair.client.writer().write_all(b"early").unwrap();
    pair.carry_to_server();
    pair.carry_to_client();
    pair.client.send_close_notify();
    pair.carry_to_server();
    assert_eq!(pair.take_calls(), ["open"]);
    assert!(pair.out.is_paused());
    pair.server.on_wake(&mut pair.out);
    assert_eq!(pair.take_calls(), ["wake", "data early", "eof"]);
    assert!(!pair.out.is_paused());
}

#[test]
fn messages_are_encrypted_and_dropped_before_the_handshake() {
    let mut pair = Pair::new(64 << 10, false);
    pair.server.on_message(b"too early", &mut pair.out);
    pair.exchange();
    pair.server.on_message(b"a broadcast", &mut pair.out);
    assert!(pair.out.unsent() > 11);
    assert!(!pair.out.queued().windows(11).any(|bytes| bytes == b"a broadcast"), "not encrypted");
    pair.exchange();
    assert_eq!(pair.received, b"a broadcast");
    assert_eq!(pair.take_calls(), ["open", "message"]);
}

#[test]
fn timer_wake_and_requests_pass_through() {
    let mut pair = Pair::open();
    assert_eq!(pair.out.timer(), None, "the handshake's timer is cancelled");
    pair.send(b"request");
    assert_eq!(pair.out.timer(), Some(pair.out.now() + Duration::from_secs(1)));
    let messages: Vec<_> = pair.out.messages().collect();
    assert_eq!(messages, [(pair.out.id(), &b"for another"[..])]);
    pair.server.on_timer(&mut pair.out);
    pair.server.on_wake(&mut pair.out);
    assert_eq!(pair.take_calls(), ["data request", "timer", "wake"]);
}

#[test]
fn back_pressure_passes_through() {
    let mut pair = Pair::new(10_000, false);
    pair.exchange();
    pair.send(b"reply until congested");
    assert!(pair.out.is_congested());
    assert!((10_000..12_000).contains(&pair.out.unsent()), "{}", pair.out.unsent());
    // The protocol does not see room that the outer queue does not have.
    pair.server.call(&mut pair.out, |_, out| assert!(out.is_congested()));
    pair.exchange();
    assert_eq!(pair.take_calls(), ["open", "data reply until congested", "drain"]);
    assert_eq!(pair.received.len(), 10_000);
}

#[test]
fn a_reply_longer_than_the_buffer_of_rustls_is_complete() {
    let mut pair = Pair::open();
    pair.send(b"reply with 500 KiB");
    pair.exchange();
    assert_eq!(pair.received.len(), 500 << 10);
}

#[test]
fn half_close_sends_close_notify_and_data_still_arrives() {
    let mut pair = Pair::open();
    pair.send(b"half-close");
    assert!(pair.out.is_half_closed() && !pair.out.is_closed());
    pair.exchange();
    assert!(pair.is_closed);
    pair.send(b"more");
    pair.client.send_close_notify();
    pair.carry_to_server();
    pair.server.on_eof(&mut pair.out);
    assert_eq!(pair.take_calls(), ["data half-close", "data more", "eof"]);
    assert_eq!(pair.out.unsent(), 0, "nothing follows our close_notify");
}

#[test]
fn close_sends_what_is_queued_and_close_notify_and_abort_resets() {
    let mut pair = Pair::open();
    pair.send(b"close");
    pair.exchange();
    assert!(pair.out.is_closed() && !pair.out.is_aborted() && pair.is_closed);
    assert_eq!(pair.received, b"bye");
    pair.server.on_close(&CloseReason::Finished);
    assert_eq!(pair.take_calls(), ["data close", "close: finished"]);
    let mut pair = Pair::open();
    pair.send(b"abort");
    assert!(pair.out.is_aborted());
}

#[test]
fn a_fin_without_close_notify_is_a_failure() {
    let mut pair = Pair::open();
    pair.server.on_eof(&mut pair.out);
    assert!(pair.out.is_closed());
    pair.server.on_close(&CloseReason::Finished);
    let text =
        "close: failed: the peer ended the connection without close_notify: data may be missing";
    assert_eq!(pair.take_calls(), [text]);
}

#[test]
fn an_invalid_record_is_answered_with_an_alert() {
    let mut pair = Pair::new(64 << 10, false);
    pair.server.on_data(b"GET / HTTP/1.1\r\n\r\n", &mut pair.out);
    assert!(pair.out.is_closed());
    assert_eq!(pair.out.queued()[0], 21, "the type of an alert");
    pair.server.on_close(&CloseReason::Finished);
    let calls = pair.take_calls();
    assert!(calls.len() == 1 && calls[0].starts_with("close: failed: "), "{calls:?}");
}

#[test]
fn a_handshake_that_takes_too_long_is_ended() {
    let mut pair = Pair::new(64 << 10, false);
    assert_eq!(pair.out.timer(), Some(pair.out.now() + HANDSHAKE_TIMEOUT));
    pair.server.on_timer(&mut pair.out);
    assert!(pair.out.is_closed());
    pair.server.on_close(&CloseReason::Finished);
    assert_eq!(pair.take_calls(), ["close: failed: the TLS handshake took longer than 10s"]);
}
