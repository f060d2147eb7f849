//! Requests of other threads reach the loop, whether it sleeps or not.

use campanile::{Limits, Reactor, echo};

use super::sim::fake::World;
use super::{NOW, serving, turns};

#[test]
#[cfg(all(unix, not(mio_unsupported_force_poll_poll)))]
fn a_wake_makes_the_descriptor_of_the_loop_readable_in_an_outer_loop() {
    use std::os::fd::AsRawFd;

    let mut reactor = Reactor::new().unwrap();
    let mut poll = mio::Poll::new().unwrap();
    let mut events = mio::Events::with_capacity(1);
    let fd = reactor.as_raw_fd();
    let mut source = mio::unix::SourceFd(&fd);
    poll.registry().register(&mut source, mio::Token(0), mio::Interest::READABLE).unwrap();
    poll.poll(&mut events, NOW).unwrap();
    assert!(events.is_empty());
    reactor.handle().wake();
    poll.poll(&mut events, NOW).unwrap();
    assert!(!events.is_empty());
    reactor.turn(NOW).unwrap();
}

#[test]
fn a_wake_is_one_turn() {
    let world = World::new();
    let mut reactor = serving(&world, Limits::default(), echo());
    turns(&mut reactor, 2);
    assert_eq!(reactor.timeout(), None);
    reactor.handle().wake();
    assert_eq!(reactor.timeout(), NOW);
    turns(&mut reactor, 1);
    assert_eq!(reactor.timeout(), None);
}
