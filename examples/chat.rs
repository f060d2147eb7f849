//! Connections that talk to each other: what one says, all others hear.
//!
//! Run it with `cargo run --example chat` and connect twice with `nc 127.0.0.1 7778`; another
//! address can be given as an argument. It serves until you stop it with Ctrl-C.
//!
//! Look at `Guest::on_data`: a protocol has no access to other connections, so it cannot break
//! them. It asks through the `Handle`, and what it asked is done in the next turn. All of it is one
//! thread: the list of guests is an `Rc`, and needs no lock.

use std::cell::RefCell;
use std::rc::Rc;

use campanile::{Accepted, CloseReason, ConnId, Handle, Outbox, Protocol, Reactor};

#[derive(Clone)]
struct Room {
    guests: Rc<RefCell<Vec<ConnId>>>,
    handle: Handle,
}

impl Room {
    fn tell_all_but(&self, speaker: ConnId, words: &[u8]) {
        for guest in self.guests.borrow().iter().filter(|guest| **guest != speaker) {
            if self.handle.send(*guest, words).is_err() {
                eprintln!("{guest} missed something: the mailbox is full");
            }
        }
    }
}

struct Guest {
    id: ConnId,
    room: Room,
}

impl Protocol for Guest {
    fn on_open(&mut self, out: &mut Outbox) {
        out.send(b"welcome; what you say, everybody hears\n");
        self.room.tell_all_but(self.id, format!("{} comes in\n", self.id).as_bytes());
        self.room.guests.borrow_mut().push(self.id);
    }

    fn on_data(&mut self, data: &[u8], _out: &mut Outbox) {
        let words = [format!("{}: ", self.id).as_bytes(), data].concat();
        self.room.tell_all_but(self.id, &words);
    }

    fn on_close(&mut self, reason: &CloseReason) {
        self.room.guests.borrow_mut().retain(|guest| *guest != self.id);
        self.room.tell_all_but(self.id, format!("{} is gone ({reason})\n", self.id).as_bytes());
    }
}

fn main() -> std::io::Result<()> {
    let addr = std::env::args().nth(1).unwrap_or("127.0.0.1:7778".into());
    let mut reactor = Reactor::new()?;
    let room = Room { guests: Rc::default(), handle: reactor.handle() };
    let addr =
        reactor.listen(addr, move |new: &Accepted| Guest { id: new.id, room: room.clone() })?;
    println!("chat {addr}");
    reactor.run()
}
