//! The ladder: ours reaches every rung, and for every rung there is a server that stops exactly there.
#![cfg(all(feature = "cli", unix))]

#[path = "../common/mod.rs"]
mod common;
mod own;
#[allow(dead_code)]
#[path = "../cli/program.rs"]
mod program;
#[path = "../cli/schema.rs"]
mod schema;
mod stops;
mod words;
mod wrong;
