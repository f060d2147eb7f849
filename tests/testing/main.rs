//! The test server and what it is made of: the fault language, every effect, ledgers.
#![cfg(feature = "testing")]

#[path = "../common/mod.rs"]
mod common;

mod effects;
mod language;
mod ledgers;
mod on_the_fake_kernel;
mod resets;
mod seeds;
mod servers;
