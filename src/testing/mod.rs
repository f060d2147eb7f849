//! A server for tests: exactly as badly behaved as you ask.
#![doc = include_str!("guide.md")]

mod builder;
mod fault;
mod faulty;
mod ledger;
mod logged;
mod manual;
mod parse;
mod plan;
mod server;

pub use builder::Builder;
pub use fault::{Effect, Fault, When, Who, Whom};
pub use faulty::{Faulty, FaultyListener, FaultyStream};
pub use ledger::{Book, Entry, Ledger, Side};
pub use logged::{Logged, LoggedListener, LoggedStream};
pub use manual::Timed;
pub use parse::FaultError;
pub use plan::Plan;
pub use server::{Guard, Service, TestKernel, TestServer};
