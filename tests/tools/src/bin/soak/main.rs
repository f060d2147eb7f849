//! Loads a server with every kind of client at once and checks every byte, for as long as you like.
//!
//! Run it with `cargo run --release --bin soak -- --minutes 60` in `tests/tools/`. It starts a
//! server and its clients as separate processes on loopback, and ends with a table and a chart. The
//! exit code is 1 if a byte differed, or if the server kept a descriptor, a thread or memory. Linux
//! only.
//!
//! Look at `guests`: every kind of client, each comparing its bytes. At `trouble`, which runs once a
//! second: it kills a client, stops and continues the server, or sends it signals. At `serve`, which
//! contains nothing special for any of this. And at `Report::verdict`: how a leak shows.
#[cfg(target_os = "linux")]
mod chart;
#[cfg(target_os = "linux")]
#[path = "../../../../figures/guests.rs"]
mod guests;
#[cfg(target_os = "linux")]
#[allow(dead_code)]
#[path = "../../../../sim/random.rs"]
mod random;
#[cfg(target_os = "linux")]
mod report;
#[cfg(target_os = "linux")]
mod roles;
#[cfg(target_os = "linux")]
mod soak;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    soak::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("soak reads /proc and sends signals, so it runs on Linux only");
}
