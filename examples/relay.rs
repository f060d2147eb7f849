//! A relay: accepts a client, connects to a server for it, and passes every byte on, both ways.
//!
//! Run it with `cargo run --example relay -- 127.0.0.1:7779 127.0.0.1:12345` in front of
//! `echo_server`. It serves until you stop it with Ctrl-C.
//!
//! Look at `src/services/relay.rs`: the two connections of a conversation share two pipes, one for each
//! direction, and `out.wake` is all that passes between them.

use campanile::services::Upstream;
use campanile::{Reactor, relay};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [here, there] = &args[..] else {
        return Err("name two addresses: relay LISTEN_ON CONNECT_TO".into());
    };
    let mut reactor = Reactor::new()?;
    let here = reactor.listen(here, relay(Upstream::resolve(there)?))?;
    println!("relay {here}");
    Ok(reactor.run()?)
}
