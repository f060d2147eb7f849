//! Details that no larger test covers. Each test was written for a mutant that survived the others.

#[path = "../common/mod.rs"]
mod common;
#[path = "../sim/mod.rs"]
mod sim;

mod counts;
mod hearing;
mod listening;
mod names;
mod room;
mod streams;
mod time;
mod waking;

use std::time::Duration;

use sim::fake::{NOW, serving, turns};

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}
