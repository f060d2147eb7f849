//! A protocol's requests last until it makes others; what it sends keeps its order.

use campanile::{Limits, Outbox, Protocol};

use super::sim::fake::World;
use super::{seconds, serving, turns};

type Wish = fn(&mut Outbox);

#[test]
fn a_request_for_a_wake_up_changes_nothing_about_reading() {
    /// Makes its own request first, and later asks for nothing but a wake-up.
    struct Steady(Wish);
    impl Protocol for Steady {
        fn on_open(&mut self, out: &mut Outbox) {
            out.send(&[0; 100]);
            (self.0)(out);
        }
        fn on_data(&mut self, _: &[u8], _: &mut Outbox) {}
        fn on_wake(&mut self, out: &mut Outbox) {
            out.timer_after(seconds(60));
        }
    }
    let hearings: [(Wish, usize); 2] = [(|_| {}, 4), (|out| out.read_while_congested(true), 0)];
    for (hearing, unread) in hearings {
        let world = World::new();
        let limits = Limits::default().high_water(10);
        let mut reactor = serving(&world, limits, move |_| Steady(hearing));
        let client = world.connect(0);
        client.make_room(0);
        turns(&mut reactor, 2);
        reactor.handle().wake_connection(reactor.ids().next().unwrap()).unwrap();
        turns(&mut reactor, 2);
        client.send(b"word");
        turns(&mut reactor, 2);
        assert_eq!(client.unread(), unread);
        client.make_room(usize::MAX);
        turns(&mut reactor, 2);
        assert_eq!(client.received(), [0; 100]);
    }
}

#[test]
fn a_paused_connection_stays_paused_after_another_request() {
    /// Pauses reading from the beginning.
    struct Deaf;
    impl Protocol for Deaf {
        fn on_open(&mut self, out: &mut Outbox) {
            out.pause();
        }
        fn on_data(&mut self, _: &[u8], _: &mut Outbox) {
            unreachable!("a paused connection is not read");
        }
        fn on_wake(&mut self, out: &mut Outbox) {
            assert!(out.is_paused());
            out.timer_after(seconds(60));
        }
    }
    let world = World::new();
    let mut reactor = serving(&world, Limits::default(), |_| Deaf);
    let client = world.connect(0);
    client.send(b"word");
    turns(&mut reactor, 2);
    reactor.handle().wake_connection(reactor.ids().next().unwrap()).unwrap();
    turns(&mut reactor, 2);
    assert_eq!(client.unread(), 4);
}

#[test]
fn bytes_of_the_protocol_follow_the_data_sent_before_them() {
    /// Sends back what it receives, and as many bytes of its own.
    struct Chorus;
    impl Protocol for Chorus {
        fn on_data(&mut self, data: &[u8], out: &mut Outbox) {
            out.send(data);
            out.send(&vec![b'!'; data.len()]);
        }
    }
    let world = World::new();
    let mut reactor = serving(&world, Limits::default(), |_| Chorus);
    let client = world.connect(0);
    client.send(b"bim");
    turns(&mut reactor, 2);
    assert_eq!(client.received(), b"bim!!!");
}
