//! How connections, errors, addresses, limits and outboxes show themselves.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use campanile::{Address, ConnId, Limits, sys::Context};

use super::serving;
use super::sim::fake::{World, settle};

#[test]
fn connections_are_numbered_from_one() {
    let world = World::new();
    let ids = Rc::new(RefCell::new(Vec::<ConnId>::new()));
    let kept = ids.clone();
    let mut reactor = serving(&world, Limits::default(), move |new| {
        kept.borrow_mut().push(new.id);
        assert_eq!(new.local.to_string(), "127.0.0.1:1000");
        campanile::services::Echo
    });
    (0..3).for_each(|_| drop(world.connect(0)));
    settle(&mut reactor);
    let told: Vec<_> = ids.borrow().iter().map(|id| (id.to_string(), id.ordinal())).collect();
    assert_eq!(told, [("#1".into(), 1), ("#2".into(), 2), ("#3".into(), 3)]);
    assert_eq!(reactor.ids().collect::<Vec<_>>(), *ids.borrow());
}

#[test]
fn an_address_is_its_socket_address_and_a_mapped_one_counts_as_version_four() {
    let plain: SocketAddr = "192.0.2.7:9999".parse().unwrap();
    let mapped: SocketAddr = "[::ffff:192.0.2.7]:9999".parse().unwrap();
    assert_eq!(Address::from(plain).inet(), Some(plain));
    assert_eq!(Address::from(mapped).ip(), Some(plain.ip()));
    assert_eq!(Address::from(mapped).inet(), Some(mapped));
    assert_eq!(Address::from(plain).to_string(), "192.0.2.7:9999");
}

#[test]
fn limits_of_zero_that_would_stop_everything_count_as_one() {
    let zero = Limits::default()
        .high_water(0)
        .low_water(9)
        .leftover_budget(0)
        .max_accepts_per_turn(0)
        .events(0)
        .read_buffer(0);
    let lent = Context::new(zero, Instant::now());
    let limits = lent.limits();
    let least = [
        limits.high_water,
        limits.leftover_budget,
        limits.max_accepts_per_turn,
        limits.events,
        limits.read_buffer,
    ];
    assert_eq!((least, limits.low_water), ([1; 5], 0));
}
