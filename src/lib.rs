//! Tells the time and gives back the echo, from one single-threaded readiness loop.
#![forbid(unsafe_code)]
#![deny(missing_docs, missing_debug_implementations)]

mod background;
pub mod client;
mod clock;
mod connection;
mod handle;
mod kernel;
mod limits;
mod listener;
mod outbox;
mod protocol;
mod reactor;
pub mod services;
mod timers;

pub use background::Background;
#[cfg(feature = "local-time")]
pub use clock::ZoneError;
pub use clock::{Clock, Zone};
pub use connection::{Connection, Input, Next, Output, Stream, View};
pub use handle::{Handle, MailboxFull};
pub use kernel::{Event, Kernel, Mio, Phase, Source, Tcp, Wake};
pub use limits::{Limits, Workspace};
pub use outbox::Outbox;
pub use protocol::{Accepted, Address, CloseReason, ConnId, Protocol};
pub use reactor::{Reactor, Stats};
pub use services::{daytime, echo};
