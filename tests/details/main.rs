//! Small things that nothing larger would miss: found by mutants, which lived until these were asked.

#[path = "../common/mod.rs"]
mod common;

mod counts;
mod hearing;
mod listening;
mod names;
mod room;
mod streams;
mod time;
mod waking;

use std::time::Duration;

use campanile::{Accepted, Limits, Protocol, Reactor};
use common::fake::{Fake, World};

const NOW: Option<Duration> = Some(Duration::ZERO);

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// A reactor that serves `make` and nothing else.
fn serving<P: Protocol + 'static>(
    world: &World,
    limits: Limits,
    make: impl FnMut(&Accepted) -> P + 'static,
) -> Reactor<Fake> {
    let mut reactor = Reactor::with_kernel(world.kernel(), limits);
    reactor.listen("127.0.0.1:0", make).unwrap();
    reactor
}

fn turns(reactor: &mut Reactor<Fake>, count: usize) {
    (0..count).for_each(|_| reactor.turn(NOW).unwrap());
}
