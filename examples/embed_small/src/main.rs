//! Daytime, echo and a protocol of your own in a program of a few hundred kilobytes.
//!
//! Run it with `cargo run --release --manifest-path examples/embed_small/Cargo.toml`. It prints its
//! addresses and its own size, and serves until you stop it with Ctrl-C. With `--once` it exits after
//! it has printed them.

use campanile::{Clock, Outbox, Protocol, Reactor, daytime, echo};

struct Shout;

impl Protocol for Shout {
    fn on_data(&mut self, data: &[u8], out: &mut Outbox) {
        out.send(&data.to_ascii_uppercase());
    }
}

fn main() -> std::io::Result<()> {
    let mut reactor = Reactor::new()?;
    println!("daytime {}", reactor.listen("127.0.0.1:0", daytime(Clock::system()))?);
    println!("echo {}", reactor.listen("127.0.0.1:0", echo())?);
    println!("shout {}", reactor.listen("127.0.0.1:0", |_| Shout)?);
    println!("size {}", std::env::current_exe()?.metadata()?.len());
    if std::env::args().nth(1).as_deref() == Some("--once") {
        return Ok(());
    }
    reactor.run()
}
