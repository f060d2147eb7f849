//! The figures that are published: each is a count, and says by which sabotage it was seen to fail.
//!
//! `CAMPANILE_FIGURES=ci cargo test --test figures` does more of it, `=long` as much as is told, and
//! `CAMPANILE_SEED=S` the same once more. `tests/tools/` has `soak`, which runs
//! everything at once for an hour.
#![cfg(all(feature = "cli", target_os = "linux"))]

#[path = "../common/mod.rs"]
mod common;
#[allow(dead_code)]
mod guests;
#[allow(dead_code)]
#[path = "../cli/program.rs"]
mod program;
#[allow(dead_code)]
#[path = "../sim/random.rs"]
mod random;

mod amount;
mod conversations;
#[cfg(target_env = "gnu")]
mod ctime;
mod ending;

use std::hash::{BuildHasher, RandomState};

/// Another one each time, and printed.
fn seed() -> u64 {
    let seed = match std::env::var("CAMPANILE_SEED") {
        Ok(text) => text.parse().expect("a number"),
        Err(_) => RandomState::new().hash_one(0),
    };
    println!("CAMPANILE_SEED={seed}");
    seed
}
