//! The parts that `other_servers` and `through_a_proxy` share.

mod foreign;
mod recipe;
mod table;
mod urgent;

pub use foreign::Foreign;
pub use recipe::Recipe;
pub use table::{Climb, Row, print};

/// The version of campanile, for the tables.
pub fn version() -> &'static str {
    let manifest = include_str!("../../../Cargo.toml");
    let line = manifest.lines().find_map(|line| line.strip_prefix("version = "));
    line.unwrap_or("?").trim_matches('"')
}
