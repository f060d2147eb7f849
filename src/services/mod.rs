//! The two services: [`daytime`] (RFC 867) and [`echo`] (RFC 862).

mod daytime;
mod echo;

pub use daytime::{Daytime, daytime};
pub use echo::{Echo, echo};
