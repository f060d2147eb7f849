//! A protocol of your own: framing, a timer, a limit, and messages from other threads. And its client.
//!
//! Run it with `cargo run --example own_protocol`. It plays both sides, prints the conversations and
//! exits; `cargo run --example own_protocol -- 7777` serves on a port until you stop it with Ctrl-C.
//!
//! Look at `on_data`: TCP has no messages, so the protocol keeps a line until it is complete. Look at
//! `timer_after`: a connection has one timer, and each line sets it again. And look at `on_message`:
//! the bytes of a `Handle` go to the protocol, which frames them.

use std::time::Duration;

use campanile::{ListenOptions, Outbox, Protocol, Reactor};

const LINE_TIMEOUT: Duration = Duration::from_millis(300);
const LINE_MAX: usize = 80;

/// Answers each line with its length. Closes a connection that sends no line in time, or too long a
/// line.
#[derive(Default)]
struct Measure {
    line: Vec<u8>,
}

impl Protocol for Measure {
    fn on_open(&mut self, out: &mut Outbox) {
        out.send(b"send a line\n");
        out.timer_after(LINE_TIMEOUT);
    }

    fn on_data(&mut self, data: &[u8], out: &mut Outbox) {
        for byte in data {
            if *byte == b'\n' {
                out.send(format!("{} bytes\n", self.line.len()).as_bytes());
                self.line.clear();
                out.timer_after(LINE_TIMEOUT);
            } else if self.line.len() == LINE_MAX {
                out.send(b"closed: the line is longer than 80 bytes\n");
                return out.close();
            } else {
                self.line.push(*byte);
            }
        }
    }

    fn on_timer(&mut self, out: &mut Outbox) {
        out.send(b"closed: no line within 300 ms\n");
        out.close();
    }

    fn on_message(&mut self, notice: &[u8], out: &mut Outbox) {
        out.send(&[b"notice: ", notice, b"\n"].concat());
    }
}

/// Sends its pieces, which are not lines, and prints the answers.
struct Client(&'static [&'static str]);

impl Protocol for Client {
    fn on_open(&mut self, out: &mut Outbox) {
        for piece in self.0 {
            out.send(piece.as_bytes());
        }
    }

    fn on_data(&mut self, data: &[u8], _out: &mut Outbox) {
        print!("{}", String::from_utf8_lossy(data));
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port = std::env::args().nth(1);
    let mut reactor = Reactor::new()?;
    let addr: std::net::SocketAddr =
        format!("127.0.0.1:{}", port.as_deref().unwrap_or("0")).parse()?;
    let listener = reactor.listen_with(addr, ListenOptions::default(), |_| Measure::default())?;
    let addr = reactor.local_addr(listener).cloned().ok_or("the listener is closed")?;
    if port.is_some() {
        println!("measure {addr}");
        return Ok(reactor.run()?);
    }
    let handle = reactor.handle();
    for pieces in [&["hel", "lo\nwor", "ld\n"][..], &["long"; 30], &[]] {
        println!("-- a client sends {pieces:?}");
        reactor.connect(addr.clone(), Client(pieces));
        let mut is_silent = pieces.is_empty();
        while reactor.connections() > 0 {
            reactor.turn(None)?;
            // Once the listener has accepted the client, there are two connections.
            if reactor.connections() == 2 && std::mem::take(&mut is_silent) {
                handle.broadcast(listener, *b"the server stops at noon")?;
            }
        }
    }
    Ok(())
}
