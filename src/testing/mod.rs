//! A test server that misbehaves on request, and records what it did.
#![doc = include_str!("guide.md")]

mod builder;
mod entry;
mod fault;
mod faulty;
mod guard;
mod ledger;
mod logged;
mod manual;
mod parse;
mod plan;
mod random;
mod server;
mod service;
mod table;

pub use builder::Builder;
pub use entry::Entry;
pub use fault::{Effect, Fault, When, Who, Whom};
pub use faulty::{Faulty, FaultyListener, FaultyStream};
pub use guard::{Guard, Once};
pub use ledger::{Book, Ledger, Side};
pub use logged::{Logged, LoggedListener, LoggedStream};
pub use manual::{ManualClock, Timed};
pub use parse::FaultError;
pub use plan::Plan;
pub use server::{TestKernel, TestServer};
pub use service::Service;
