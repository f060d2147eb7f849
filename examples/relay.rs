//! Accept here, connect there: every byte of one connection goes out on the other, both ways.
//!
//! Run it with `cargo run --example relay -- 127.0.0.1:7779 127.0.0.1:12345` in front of
//! `echo_server`. It serves until you stop it with Ctrl-C.
//!
//! Look at `Pipe`: one side fills it and pauses when it is full, the other empties it as its peer
//! reads: back-pressure goes through. At `resume`, which also means: hear the peer though it does
//! not read; two who wait for each other would wait for ever. And at `half_close`: the end of one
//! direction is not that of the other. Connecting is done between two turns.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use campanile::{Accepted, CloseReason, ConnId, Handle, Limits, Outbox, Protocol, Reactor};

const FULL: usize = 64 * 1024;

/// What one side has heard and the other has not said yet.
#[derive(Default)]
pub struct Pipe {
    bytes: RefCell<Vec<u8>>,
    has_ended: Cell<bool>,
}

/// One of two connections that belong together.
pub struct Side {
    pub heard: Rc<Pipe>,
    pub to_say: Rc<Pipe>,
    pub other: Rc<Cell<Option<ConnId>>>,
    pub handle: Handle,
}

impl Side {
    /// The mailbox is large enough for a few commands per connection and turn: see `main`.
    fn wake_other(&self) {
        let _ = self.other.get().map(|id| self.handle.wake_connection(id));
    }
}

impl Protocol for Side {
    fn on_open(&mut self, out: &mut Outbox) {
        self.on_wake(out);
    }
    fn on_data(&mut self, data: &[u8], out: &mut Outbox) {
        self.heard.bytes.borrow_mut().extend_from_slice(data);
        if self.heard.bytes.borrow().len() >= FULL {
            out.pause();
        }
        self.wake_other();
    }
    fn on_eof(&mut self, _out: &mut Outbox) {
        self.heard.has_ended.set(true);
        self.wake_other();
    }
    fn on_drain(&mut self, out: &mut Outbox) {
        self.on_wake(out);
    }
    /// Says what there is to say, as far as the peer reads, and hears on if there is room.
    fn on_wake(&mut self, out: &mut Outbox) {
        if !out.is_congested() && !self.to_say.bytes.borrow().is_empty() {
            out.send(&self.to_say.bytes.take());
            self.wake_other();
        }
        if self.to_say.has_ended.get() && self.to_say.bytes.borrow().is_empty() {
            out.half_close();
        }
        if self.heard.bytes.borrow().len() < FULL {
            out.resume();
        }
    }

    fn on_close(&mut self, reason: &CloseReason) {
        if !matches!(reason, CloseReason::Finished) {
            let _ = self.other.get().map(|id| self.handle.close(id));
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [here, there] = &args[..] else { return Err("say: relay HERE THERE".into()) };
    let mut reactor = Reactor::with_limits(Limits::default().mailbox(100_000))?;
    let (handle, newcomers) = (reactor.handle(), Rc::new(RefCell::new(Vec::new())));
    let waiting = newcomers.clone();
    let here = reactor.listen(here, move |new: &Accepted| {
        let (up, down, far) = (Rc::<Pipe>::default(), Rc::<Pipe>::default(), Rc::default());
        let (handle, near) = (handle.clone(), Rc::new(Cell::new(Some(new.id))));
        waiting.borrow_mut().push((down.clone(), up.clone(), near, Rc::clone(&far)));
        Side { heard: up, to_say: down, other: far, handle }
    })?;
    println!("relay {here}");
    while !reactor.is_finished() {
        reactor.turn(None)?;
        for (heard, to_say, other, far) in newcomers.take() {
            let side = Side { heard, to_say, other, handle: reactor.handle() };
            far.set(Some(reactor.connect(there.parse::<std::net::SocketAddr>()?, side)));
        }
    }
    Ok(())
}
