//! Serves daytime, echo and your own protocols from one single-threaded readiness loop.
//!
//! ```
//! use std::io::{Read, Write};
//! use campanile::{Background, Clock, Limits, daytime, echo};
//!
//! let (server, (time, voice)) = Background::start(Limits::default(), |reactor| {
//!     let clock = Clock::fixed(1_391_022_855);
//!     let time = reactor.listen("127.0.0.1:0", daytime(clock))?;
//!     Ok((time, reactor.listen("127.0.0.1:0", echo())?))
//! })?;
//!
//! let mut line = String::new();
//! std::net::TcpStream::connect(time)?.read_to_string(&mut line)?;
//! assert_eq!(line, "Wed Jan 29 19:14:15 2014\r\n");
//!
//! let mut client = std::net::TcpStream::connect(voice)?;
//! client.write_all(b"Hello, world")?;
//! client.shutdown(std::net::Shutdown::Write)?;
//! let mut back = String::new();
//! client.read_to_string(&mut back)?;
//! assert_eq!(back, "Hello, world");
//! # std::io::Result::Ok(())
//! ```
//!
//! # Where to begin
//!
//! - To serve a protocol of your own, write a [`Protocol`] and give it to [`Reactor::listen`].
//! - To connect to a server with the same trait, call [`Reactor::connect`].
//! - To run beside your own code, use [`Background`], or your own loop around [`Reactor::turn`] with
//!   [`Reactor::timeout`] and the reactor's descriptor.
//! - To drive a reactor from another thread, use its [`Handle`].
//! - To stand in front of another server, listen with [`relay`].
//! - To bound what it may use, set [`Limits`]; for one listener, set [`ListenOptions`].
//! - To test your client against a server that misbehaves, use the module `testing`.
//! - To check a server or a proxy rung by rung, use the module `ladder`.
//! - To learn how such a loop is built, read the [`guide`].
//!
//! # Features
//!
//! | feature | what it adds | crates |
//! |---|---|---|
//! | none | the library: the reactor, daytime, echo and the relay | eight on Linux |
//! | `record` | the module `record`, which records what a loop does | none |
//! | `testing` | the modules `testing` and `ladder`; it implies `record` | none |
//! | `local-time` | `Zone::local`, for daytime in local time | two |
//! | `cli` (default) | the program; it implies `testing` and `local-time` | 33 on Linux |
//!
//! To depend on the library alone, set `default-features = false`.
//!
//! # Threads
//!
//! A [`Reactor`] stays on the thread that creates it, because its protocols need not be `Send`. So
//! [`Reactor`], [`Control`] and [`Outbox`] are neither `Send` nor `Sync`. All other types of this list
//! are both: [`Handle`], [`Background`], [`Accepted`], [`Address`], [`ConnId`], [`ListenerId`],
//! [`CloseReason`], [`SendError`], [`Limits`], [`ListenOptions`], [`Stats`], [`Clock`], [`Zone`] and
//! `ZoneError`.
//!
//! # The map
//!
//! The source is meant to be read in this order. A layer imports only from layers above it in this
//! list; `send_queue`, `timers` and `client` import from none. `tests/lint.py` checks both.
//!
//! | file | what is in it |
//! |---|---|
//! | `send_queue.rs` | bytes and a cursor, which is how partial writes are kept |
//! | `timers.rs` | deadlines: when to check a connection again |
//! | `protocol.rs` | [`Protocol`] and the order of its calls, its [`Outbox`] with its requests, [`CloseReason`], [`ConnId`] |
//! | `limits.rs` | [`Limits`], and the [`Context`](sys::Context) that all connections share |
//! | `connection.rs` | [`Connection`](sys::Connection): its state, and one run, which reads, calls and writes; below it the calls and the loop that writes (`io`) and the timeouts (`deadline`) |
//! | `services/` | [`daytime`] (RFC 867), [`echo`] (RFC 862), [`relay`] to a server, and [`Clock`], the wall clock with its [`Zone`] |
//! | `kernel.rs` | [`Kernel`](sys::Kernel), the interface to an operating system, and [`Mio`](sys::Mio), which implements it, with its sockets (`socket`): the only files that import mio |
//! | `listener.rs` | [`ListenOptions`]; how many connections to accept per turn, when to pause, and the meaning of each accept error |
//! | `mailbox.rs` | the queue of what other threads have posted |
//! | `stats.rs` | [`Stats`]: the counts of a reactor |
//! | `control.rs` | the commands for a reactor of any kernel, and [`Control`] |
//! | `handle.rs` | [`Handle`], which posts them and wakes the loop |
//! | `reactor.rs` | [`Reactor`]: the turn, a list of phases; below it how connections begin (`admission`), how they are called by others (`commands`), how the reactor ends (`shutdown`), and the interface to the program around it (`embedding`) |
//! | `background.rs` | [`Background`]: a reactor on its own thread |
//! | `client/` | the two clients, with blocking sockets |
//! | `record/` | a kernel that wraps a kernel to record what the loop does, for `campanile play`; with the feature `record` |
//! | `testing/` | `TestServer`, with the faults that a test asks for: kernels that wrap a kernel to misbehave (`faulty`) and to record (`logged`), and the fault language (`fault`, `parse`); with the feature `testing` |
//! | `ladder/` | the ladder of `campanile check`: any server or proxy, rung by rung; a file for each rung; with the feature `testing` |
//! | [`guide`] | why the loop is as it is: chapters with an experiment each |
//!
//! # Two ideas
//!
//! *Readiness* is what the kernel has reported. It is stored: an event sets it, and `WouldBlock` clears
//! it, because an edge-triggered selector promises no other event before `WouldBlock`. *Interest* is
//! what the connection's state allows. It is computed and never stored. Work is their intersection.
//! Every loop of work has a budget. Work that is left over waits in the run queue, because no event
//! will report it.
//!
//! The loop reaches the operating system through two traits: [`Kernel`](sys::Kernel) and
//! [`Stream`](sys::Stream). With other implementations of them, the same loop runs without sockets.
//! Most of its tests do that.
//!
//! # What it costs
//!
//! Without default features, these are eight crates on Linux. No message allocates. An idle echo
//! connection takes at most 128 bytes of heap. An idle loop wakes up only to check timeouts, about
//! once a minute. What a new version may change is in [`guide::stability`].
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]
#![deny(missing_docs, missing_debug_implementations)]

mod background;
pub mod client;
mod connection;
mod control;
#[cfg(doc)]
pub mod guide;
mod handle;
mod kernel;
#[cfg(feature = "testing")]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
pub mod ladder;
mod limits;
mod listener;
mod mailbox;
mod protocol;
mod reactor;
#[cfg(feature = "record")]
#[cfg_attr(docsrs, doc(cfg(feature = "record")))]
#[macro_use]
pub mod record;
mod send_queue;
pub mod services;
mod stats;
#[cfg(feature = "testing")]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
pub mod testing;
mod timers;

pub use background::Background;
pub use control::Control;
pub use handle::Handle;
pub use limits::Limits;
pub use listener::ListenOptions;
pub use mailbox::SendError;
pub use protocol::{Accepted, Address, CloseReason, ConnId, ListenerId, Outbox, Protocol};
pub use reactor::Reactor;
#[cfg(feature = "local-time")]
pub use services::ZoneError;
pub use services::{Clock, Zone, daytime, echo, relay};
pub use stats::Stats;

/// The parts below the public API, for simulators and wrappers: another [`Kernel`](sys::Kernel), a
/// [`Connection`](sys::Connection) without a loop, and the kernels that wrap a kernel.
///
/// Semantic versioning does not cover this module: a minor version may change it.
pub mod sys {
    pub use crate::connection::{Connection, Next, Snapshot, Stream};
    pub use crate::kernel::{Event, Kernel, Mio, Passive, Phase, Socket, Source, Wake};
    pub use crate::limits::Context;
    pub use crate::protocol::{Input, Output};
    #[cfg(feature = "testing")]
    #[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
    pub use crate::testing::{Faulty, Logged};
}

/// The README's Rust blocks are tests, too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
