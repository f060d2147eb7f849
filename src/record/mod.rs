//! The recorder: writes what a loop does into a file, for `campanile play`.
#![doc = include_str!("format.md")]

#[macro_use]
mod forward;

#[doc(hidden)]
pub mod base64;
mod line;
mod places;
mod queue;
mod recorded;
mod recorder;

#[doc(hidden)]
pub use line::push_string;
pub(crate) use places::{UPSTREAM, upstream_of};
pub use recorded::{Recorded, RecordedListener, RecordedStream};
pub use recorder::Recorder;
