//! The recorder: what a recording says is what has happened.
#![cfg(feature = "testing")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../sim/mod.rs"]
mod sim;

mod conversations;
mod files;
mod stories;
