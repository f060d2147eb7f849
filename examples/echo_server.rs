//! The tutorial's third program: gives back every byte, to any number of clients at once.
//!
//! Run it with `cargo run --example echo_server`, then `nc 127.0.0.1 12345`. Another address can be
//! given as an argument. It serves until you stop it with Ctrl-C.
//!
//! Look at what is not here: partial writes, back-pressure and half-close are the loop's work.

use campanile::{Accepted, Outbox, Protocol, Reactor};

struct Echo;

impl Protocol for Echo {
    fn on_data(&mut self, data: &[u8], out: &mut Outbox) {
        out.send(data);
    }
}

fn main() -> std::io::Result<()> {
    let addr = std::env::args().nth(1).unwrap_or("127.0.0.1:12345".into());
    let mut reactor = Reactor::new()?;
    let addr = reactor.listen(addr, |new: &Accepted| {
        println!("Connected by {}", new.peer);
        Echo
    })?;
    println!("echo {addr}");
    reactor.run()
}
