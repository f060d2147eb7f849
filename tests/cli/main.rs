//! The program, run as its users run it: every transcript, every wrong word, every way it ends.
#![cfg(all(feature = "cli", unix))]

#[path = "../common/mod.rs"]
mod common;
mod program;

mod activation;
mod asking;
mod blocked_sinks;
mod commands;
mod connection_lines;
mod echoing;
mod ending;
mod faults;
mod listening;
mod nonblocking;
#[cfg(target_os = "linux")]
mod notify;
mod pipe;
mod proxying;
mod ready_file;
mod recording;
mod schema;
mod signals;
mod unix;
mod wrong_words;
mod zones;
