//! Echo or the chat of `examples/chat.rs` behind TLS, with a certificate made at start.
//!
//! Run it with `cargo run --manifest-path examples/tls/Cargo.toml -- echo`, or `-- chat`, and then
//! `openssl s_client -quiet -connect 127.0.0.1:8443`. Another address can be given as a second
//! argument. It serves until you stop it with Ctrl-C.
//!
//! Look at `serve`: neither protocol knows that there is TLS.

use std::sync::Arc;

use campanile::services::Echo;
use campanile::{Accepted, Protocol, Reactor};
use rustls::ServerConnection;
use tls::{Tls, configs};

#[allow(dead_code)]
#[path = "../../chat.rs"]
mod chat;

/// Listens with a TLS connection around each protocol that `make` creates.
fn serve<P: Protocol>(
    reactor: &mut Reactor,
    addr: &str,
    mut make: impl FnMut(&Accepted) -> P + 'static,
) -> Result<(), Box<dyn std::error::Error>> {
    let (config, _) = configs()?;
    let addr = reactor.listen(addr, move |new: &Accepted| {
        let connection = ServerConnection::new(Arc::clone(&config));
        Tls::new(connection.expect("rustls accepts a default configuration"), make(new))
    })?;
    println!("tls {addr}");
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (service, addr) = (std::env::args().nth(1), std::env::args().nth(2));
    let addr = addr.as_deref().unwrap_or("127.0.0.1:8443");
    let mut reactor = Reactor::with_limits(chat::limits())?;
    let handle = reactor.handle();
    match service.as_deref() {
        Some("echo") => serve(&mut reactor, addr, |_| Echo)?,
        Some("chat") => serve(&mut reactor, addr, move |new| chat::Member::new(new, &handle))?,
        _ => return Err("name a service: tls echo [ADDRESS], or tls chat [ADDRESS]".into()),
    }
    Ok(reactor.run()?)
}
