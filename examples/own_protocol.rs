//! A protocol of your own: lines in, answers out, a timer, a refusal. And its client.
//!
//! Run it with `cargo run --example own_protocol`. It plays both sides, prints what was said and
//! ends by itself; `cargo run --example own_protocol -- 7777` serves on a port until Ctrl-C.
//!
//! Look at `on_data`: TCP has no messages, so a protocol keeps what is not a line yet. And at
//! `timer_after`: one deadline per connection, moved with every line.

use std::time::Duration;

use campanile::{Accepted, Outbox, Protocol, Reactor};

const PATIENCE: Duration = Duration::from_millis(300);
const LINE_MAX: usize = 80;

/// Answers each line with its length; hangs up on whoever says nothing or too much.
#[derive(Default)]
struct Measure {
    line: Vec<u8>,
}

impl Protocol for Measure {
    fn on_open(&mut self, out: &mut Outbox) {
        out.send(b"say a line\n");
        out.timer_after(PATIENCE);
    }

    fn on_data(&mut self, data: &[u8], out: &mut Outbox) {
        for byte in data {
            if *byte == b'\n' {
                out.send(format!("{} bytes\n", self.line.len()).as_bytes());
                self.line.clear();
                out.timer_after(PATIENCE);
            } else if self.line.len() == LINE_MAX {
                out.send(b"too long, goodbye\n");
                return out.close();
            } else {
                self.line.push(*byte);
            }
        }
    }

    fn on_timer(&mut self, out: &mut Outbox) {
        out.send(b"too slow, goodbye\n");
        out.close();
    }
}

/// Says its lines, in pieces that do not care for lines, and prints the answers.
struct Talker(&'static [&'static str]);

impl Protocol for Talker {
    fn on_open(&mut self, out: &mut Outbox) {
        for piece in self.0 {
            out.send(piece.as_bytes());
        }
    }

    fn on_data(&mut self, data: &[u8], _out: &mut Outbox) {
        print!("{}", String::from_utf8_lossy(data));
    }
}

fn main() -> std::io::Result<()> {
    let port = std::env::args().nth(1);
    let mut reactor = Reactor::new()?;
    let addr = format!("127.0.0.1:{}", port.as_deref().unwrap_or("0"));
    let addr = reactor.listen(addr, |_: &Accepted| Measure::default())?;
    if port.is_some() {
        println!("measure {addr}");
        return reactor.run();
    }
    for words in [&["hel", "lo\nwor", "ld\n"][..], &["and then silence\n"], &["long"; 30]] {
        println!("-- a client says {words:?}");
        reactor.connect(addr, Talker(words));
        while reactor.connections() > 0 {
            reactor.turn(None)?;
        }
    }
    Ok(())
}
