//! The tutorial's fourth program: sends `Hello, world` and shows what comes back.
//!
//! Run it with `cargo run --example echo_client [ADDR]` against `echo_server`. It ends by itself.
//!
//! Look at `on_data`: the answer may come in pieces, so it is counted and not taken for granted.

use campanile::{CloseReason, Outbox, Protocol, Reactor};

const MESSAGE: &[u8] = b"Hello, world";

#[derive(Default)]
struct Asker(Vec<u8>);

impl Protocol for Asker {
    fn on_open(&mut self, out: &mut Outbox) {
        out.send(MESSAGE);
    }

    fn on_data(&mut self, data: &[u8], out: &mut Outbox) {
        self.0.extend_from_slice(data);
        if self.0.len() >= MESSAGE.len() {
            out.close();
        }
    }

    fn on_close(&mut self, reason: &CloseReason) {
        match reason {
            CloseReason::Finished => println!("Received {:?}", String::from_utf8_lossy(&self.0)),
            _ => eprintln!("no echo from the server: {reason}"),
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let addr = std::env::args().nth(1).unwrap_or("127.0.0.1:12345".into());
    let mut reactor = Reactor::new()?;
    reactor.connect(addr.parse::<std::net::SocketAddr>()?, Asker::default());
    Ok(reactor.run()?)
}
