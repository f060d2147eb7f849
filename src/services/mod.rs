//! The services: [`daytime`] (RFC 867), [`echo`] (RFC 862) and [`relay`]; and the [`Clock`].

mod clock;
mod daytime;
mod echo;
mod relay;

#[cfg(feature = "local-time")]
pub use clock::ZoneError;
pub use clock::{Clock, Zone};
pub use daytime::{Daytime, daytime};
pub use echo::{Echo, echo};
pub use relay::{Relay, Upstream, relay};
