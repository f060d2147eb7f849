//! The tutorial's first program: tells the time to whoever connects.
//!
//! Run it with `cargo run --example daytime_server`, then `nc 127.0.0.1 9999`. Another port can be
//! given as an argument. It serves until you stop it with Ctrl-C.
//!
//! Look at the factory: it is called once per connection, and says who came.

use campanile::services::Daytime;
use campanile::{Accepted, Clock, Reactor};

fn main() -> std::io::Result<()> {
    let addr = std::env::args().nth(1).unwrap_or("127.0.0.1:9999".into());
    let mut reactor = Reactor::new()?;
    let service = Daytime::new(Clock::system());
    let addr = reactor.listen(addr, move |new: &Accepted| {
        println!("Got a connection from {}", new.peer);
        service.clone()
    })?;
    println!("daytime {addr}");
    reactor.run()
}
