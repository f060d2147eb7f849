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

use common::fake::{serving, turns};

const NOW: Option<Duration> = Some(Duration::ZERO);

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}
