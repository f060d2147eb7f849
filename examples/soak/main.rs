//! Everything at once, for as long as you like: does it leak, does a byte differ?
//!
//! Run it with `cargo run --release --example soak -- --minutes 60`. It starts a server and its
//! guests as processes of their own, all on loopback, and ends with a table and a chart; with 1, if
//! a byte differed or something was left behind. Linux only.
//!
//! Look at `guests`: visits of every kind, each compared. At `trouble`, which comes every second:
//! guests are killed in the middle, the server is stopped and goes on, or is hit by signals. At
//! `serve`: nothing there knows of all this. And at `Report::verdict`: what a leak would look like.
#[cfg(target_os = "linux")]
mod chart;
#[cfg(target_os = "linux")]
mod guests;
#[cfg(target_os = "linux")]
#[allow(dead_code)]
#[path = "../../tests/sim/random.rs"]
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
    println!("the soak reads /proc and sends signals: it is for Linux");
}
