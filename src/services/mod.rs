//! The two services, [`daytime`] (RFC 867) and [`echo`] (RFC 862), and the [`Clock`].

mod clock;
mod daytime;
mod echo;

#[cfg(feature = "local-time")]
pub use clock::ZoneError;
pub use clock::{Clock, Zone};
pub use daytime::{Daytime, daytime};
pub use echo::{Echo, echo};
