//! The test server and what it is made of: the fault language, every effect, ledgers.
#![cfg(feature = "testing")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../sim/mod.rs"]
mod sim;

mod effects;
mod language;
mod ledgers;
mod live;
mod on_the_fake_kernel;
mod proxies;
mod recipes;
mod resets;
mod seeds;
mod servers;
mod waiting;
