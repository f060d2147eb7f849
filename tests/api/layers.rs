//! A protocol wrapped in another one, with `out.nested` and `out.adopt`.

use std::time::Instant;

use campanile::services::Echo;
use campanile::{CloseReason, Limits, Outbox, Protocol};

use super::sim::fake::{World, serving, settle};
use super::{Call, Each, Log, NOW, join, nowhere, seconds};

/// A stand-in for TLS: changes every byte, and ends with a byte of its own.
struct Layer<P>(P);

const GOODBYE: u8 = 0;

fn sealed(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|byte| byte ^ 0x80).collect()
}

impl<P: Protocol> Layer<P> {
    fn pass(&mut self, out: &mut Outbox, call: impl FnOnce(&mut P, &mut Outbox)) {
        let was_open = !out.is_half_closed();
        let mut inner = out.nested();
        call(&mut self.0, &mut inner);
        out.send(&sealed(inner.queued()));
        if was_open && inner.is_half_closed() && !inner.is_aborted() {
            out.send(&[GOODBYE]);
        }
        out.adopt(inner);
    }
}

impl<P: Protocol> Protocol for Layer<P> {
    fn on_open(&mut self, out: &mut Outbox) {
        self.pass(out, |inner, out| inner.on_open(out));
    }
    fn on_data(&mut self, data: &[u8], out: &mut Outbox) {
        self.pass(out, |inner, out| inner.on_data(&sealed(data), out));
    }
    fn on_eof(&mut self, out: &mut Outbox) {
        self.pass(out, |inner, out| inner.on_eof(out));
    }
    fn on_drain(&mut self, out: &mut Outbox) {
        self.pass(out, |inner, out| inner.on_drain(out));
    }
    fn on_timer(&mut self, out: &mut Outbox) {
        self.pass(out, |inner, out| inner.on_timer(out));
    }
    fn on_wake(&mut self, out: &mut Outbox) {
        self.pass(out, |inner, out| inner.on_wake(out));
    }
    fn on_message(&mut self, bytes: &[u8], out: &mut Outbox) {
        self.pass(out, |inner, out| inner.on_message(bytes, out));
    }
    fn on_close(&mut self, reason: &CloseReason) {
        self.0.on_close(reason);
    }
}

#[test]
fn data_messages_and_broadcasts_pass_the_layer_and_its_goodbye_comes_last() {
    let world = World::new();
    let mut reactor = serving(&world, Limits::default(), |_| Layer(Echo));
    let (client, id) = join(&world, &mut reactor);
    client.send(&sealed(b"data, "));
    settle(&mut reactor);
    reactor.handle().send(id, b"message, ").unwrap();
    reactor.handle().broadcast(None, *b"broadcast").unwrap();
    settle(&mut reactor);
    client.end();
    settle(&mut reactor);
    let expected = [sealed(b"data, message, broadcast"), vec![GOODBYE]].concat();
    assert_eq!((client.received(), client.saw_eof()), (expected, true));
}

#[test]
fn an_inner_protocol_feels_the_congestion_of_its_peer() {
    let world = World::new();
    let limits = Limits::default().high_water(1000).low_water(100);
    let mut reactor = serving(&world, limits, |_| {
        let mut left = 10_000;
        Layer(Each(move |call: Call<'_>, out: &mut Outbox| {
            if matches!(call, Call::Open | Call::Drain) {
                while left > 0 && !out.is_congested() {
                    out.send(&[b'x'; 100]);
                    left -= 100;
                }
                assert!(out.unsent() <= 1000);
            }
        }))
    });
    let (client, _) = join(&world, &mut reactor);
    client.make_room(0);
    settle(&mut reactor);
    client.make_room(usize::MAX);
    settle(&mut reactor);
    assert_eq!(client.received(), sealed(&[b'x'; 10_000]));
}

#[test]
fn every_request_of_an_inner_protocol_takes_effect() {
    let (world, log) = (World::new(), Log::default());
    let (far, kept) = (world.expect_connect(), log.clone());
    let limits = Limits::default().idle_timeout(seconds(10));
    let mut reactor = serving(&world, limits, move |_| {
        let log = kept.clone();
        Layer(Layer(Each(move |call: Call<'_>, out: &mut Outbox| match call {
            Call::Open => {
                out.timer_after(seconds(30));
                out.set_idle_timeout(None);
                out.connect(nowhere(), Echo);
                out.message(out.id(), b"own");
                out.pause();
            }
            Call::Message(_) => out.wake(out.id()),
            Call::Wake => log.add(format!("{} paused {}", out.id(), out.is_paused())),
            Call::Timer => {
                out.resume();
                log.add("timer");
            }
            Call::Data(_) => out.abort(),
            _ => {}
        })))
    });
    let (client, _) = join(&world, &mut reactor);
    assert_eq!(log.take(), ["#1 paused true"]);
    assert_eq!(reactor.stats().connecting, 1);
    far.refuse();
    client.send(b"abort");
    settle(&mut reactor);
    assert_eq!(client.unread(), 5);
    world.advance(seconds(15));
    settle(&mut reactor);
    assert!(!client.is_gone(), "it has no idle timeout");
    world.advance(seconds(15));
    settle(&mut reactor);
    assert_eq!(log.take(), ["timer"]);
    settle(&mut reactor);
    assert!(client.saw_reset() && reactor.timeout() != NOW);
}

#[test]
fn a_nested_outbox_begins_in_the_state_of_its_wrapper() {
    let mut out = Outbox::with_high_water(Instant::now(), 8);
    out.pause();
    out.timer_at(out.now() + seconds(1));
    out.send(b"12345678");
    let inner = out.nested();
    assert!(inner.is_paused() && inner.is_congested() && inner.queued().is_empty());
    assert_eq!((inner.id(), inner.now(), inner.timer()), (out.id(), out.now(), out.timer()));
    // Adopted as it is, it changes nothing.
    out.adopt(inner);
    assert!(out.is_paused() && !out.is_half_closed() && out.timer().is_some());
    // After its half-close, an inner protocol sends no more.
    let mut inner = out.nested();
    inner.half_close();
    inner.cancel_timer();
    inner.resume();
    out.adopt(inner);
    assert!(out.is_half_closed() && !out.is_closed() && !out.is_paused() && out.timer().is_none());
    let mut inner = out.nested();
    inner.send(b"too late");
    assert!(inner.is_half_closed() && inner.queued().is_empty());
}

#[test]
fn an_inner_send_larger_than_the_send_queue_resets_the_connection() {
    let (world, log) = (World::new(), Log::default());
    let kept = log.clone();
    let mut reactor = serving(&world, Limits::default().max_send_queue(1000), move |_| {
        Layer(super::Ends("peer", kept.clone()))
    });
    let (client, id) = join(&world, &mut reactor);
    log.take();
    reactor.handle().send(id, vec![7; 1001]).unwrap();
    settle(&mut reactor);
    assert_eq!(
        (log.take(), client.saw_reset()),
        (vec!["peer closed: too much unsent".to_owned()], true)
    );
}
