//! The tutorial's second program: asks for the time. The same trait as a server's, the other way.
//!
//! Run it with `cargo run --example daytime_client [ADDR]` against `daytime_server`. It ends by
//! itself.
//!
//! Look at `on_close`: the server has said everything when it closes, not when the first piece
//! arrives.

use campanile::{CloseReason, Outbox, Protocol, Reactor};

struct Asker(Vec<u8>);

impl Protocol for Asker {
    fn on_data(&mut self, data: &[u8], _out: &mut Outbox) {
        // A piece is not a message: the line is whole at EOF.
        self.0.extend_from_slice(data);
    }

    fn on_close(&mut self, reason: &CloseReason) {
        match reason {
            CloseReason::Finished => {
                let line = String::from_utf8_lossy(&self.0);
                println!("The time got from the server is {}", line.trim_end());
            }
            _ => eprintln!("no time from the server: {reason}"),
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let addr = std::env::args().nth(1).unwrap_or("127.0.0.1:9999".into());
    let mut reactor = Reactor::new()?;
    reactor.connect(addr.parse::<std::net::SocketAddr>()?, Asker(Vec::new()));
    Ok(reactor.run()?)
}
