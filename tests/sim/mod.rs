//! A world without sockets: a kernel played from one seed, peers that misbehave, and a model that
//! knows at every moment what may have been said to whom.
#![allow(dead_code)]

#[macro_use]
#[path = "../../src/record/forward.rs"]
mod forward;

pub mod check;
pub mod contract;
pub mod fake;
pub mod faults;
pub mod kernel;
pub mod plan;
pub mod random;
pub mod relayed;
pub mod run;
pub mod socket;
pub mod traced;
pub mod witness;
pub mod world;
