//! The public API, as an embedder meets it. Most tests run on a kernel without sockets.

#[path = "../common/mod.rs"]
mod common;
#[path = "../sim/mod.rs"]
mod sim;

mod control;
mod ending;
mod handles;
mod layers;
mod listeners;
mod outbox;
mod requests;
mod types;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use campanile::{CloseReason, ConnId, Outbox, Protocol, Reactor};
use common::each::{Call, Each};
use sim::fake::{Client, Fake, World, settle};

const NOW: Option<Duration> = Some(Duration::ZERO);

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn nowhere() -> SocketAddr {
    ([127, 0, 0, 1], 1).into()
}

/// Lines of what happened, shared by the protocols of a test.
#[derive(Debug, Clone, Default)]
struct Log(Rc<RefCell<Vec<String>>>);

impl Log {
    fn add(&self, line: impl ToString) {
        self.0.borrow_mut().push(line.to_string());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.borrow_mut())
    }
}

/// Logs its close, with its name.
struct Ends(&'static str, Log);

impl Protocol for Ends {
    fn on_open(&mut self, out: &mut Outbox) {
        self.1.add(format!("{} open {}", self.0, out.id()));
    }
    fn on_data(&mut self, _: &[u8], _: &mut Outbox) {}
    fn on_close(&mut self, reason: &CloseReason) {
        self.1.add(format!("{} closed: {reason}", self.0));
    }
}

/// Connects a client to the first listener, and returns it with the id of its connection.
fn join(world: &World, reactor: &mut Reactor<Fake>) -> (Client, ConnId) {
    let client = world.connect(0);
    settle(reactor);
    let id = reactor.ids().max_by_key(ConnId::ordinal).unwrap();
    (client, id)
}
