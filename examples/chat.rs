//! A chat room: each line that a member sends goes to every other member.
//!
//! Run it with `cargo run --example chat` and connect twice with `nc 127.0.0.1 7778`. Another address
//! can be given as an argument. It serves until you stop it with Ctrl-C.
//!
//! Look at `Handle::broadcast`: it takes one place in the mailbox for any number of members, which
//! share the bytes. Each member's protocol gets them in `on_message` and decides whether to send them.
//! And look at `limits`: a member that does not read is reset, and no other member waits for it.

use std::time::Duration;

use campanile::{Accepted, CloseReason, Handle, Limits, Outbox, Protocol, Reactor};

const LINE_MAX: usize = 4096;

pub struct Member {
    /// The beginning of each of its messages. The numbers of connections never repeat.
    name: String,
    /// The beginning of a line.
    line: Vec<u8>,
    room: Handle,
}

impl Member {
    pub fn new(new: &Accepted, room: &Handle) -> Member {
        Member { name: format!("{}: ", new.id), line: Vec::new(), room: room.clone() }
    }

    fn broadcast(&self, message: Vec<u8>) {
        if let Err(error) = self.room.broadcast(None, message) {
            eprintln!("{}cannot pass a message on: {error}", self.name);
        }
    }
}

impl Protocol for Member {
    fn on_open(&mut self, out: &mut Outbox) {
        out.send(b"Welcome. Each line that you send goes to all other members.\n");
        self.broadcast(format!("{}joined\n", self.name).into_bytes());
    }

    fn on_data(&mut self, data: &[u8], out: &mut Outbox) {
        // TCP has no messages: the lines that have ended are passed on, and the rest is kept.
        self.line.extend_from_slice(data);
        let end = self.line.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let rest = self.line.split_off(end);
        let lines = std::mem::replace(&mut self.line, rest);
        if !lines.is_empty() {
            let named = lines.split_inclusive(|byte| *byte == b'\n');
            self.broadcast(named.flat_map(|line| [self.name.as_bytes(), line].concat()).collect());
        }
        if self.line.len() > LINE_MAX {
            out.send(b"Closed: a line may have 4096 bytes.\n");
            out.close();
        }
    }

    fn on_message(&mut self, message: &[u8], out: &mut Outbox) {
        if !message.starts_with(self.name.as_bytes()) {
            out.send(message);
        }
    }

    fn on_close(&mut self, reason: &CloseReason) {
        self.broadcast(format!("{}left: {reason}\n", self.name).into_bytes());
    }
}

/// A member is reset once 256 KiB wait for it, or once it takes no byte for 10 seconds.
pub fn limits() -> Limits {
    Limits::default().max_send_queue(256 << 10).write_timeout(Duration::from_secs(10))
}

fn main() -> std::io::Result<()> {
    let addr = std::env::args().nth(1).unwrap_or("127.0.0.1:7778".into());
    let mut reactor = Reactor::with_limits(limits())?;
    let room = reactor.handle();
    let addr = reactor.listen(addr, move |new: &Accepted| Member::new(new, &room))?;
    println!("chat {addr}");
    reactor.run()
}
