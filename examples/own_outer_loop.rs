//! The reactor inside an event loop of your own: here a bare mio loop with a timer.
//!
//! Run it with `cargo run --example own_outer_loop`. It serves a few messages to itself, prints each
//! event and exits. Unix only.
//!
//! Look at `as_raw_fd` and `timeout`, which belong together. The descriptor becomes readable when the
//! reactor has events. `timeout()` says when the reactor needs a turn without one: for a timer, or for
//! work that is left over. An outer loop that ignores either one delays messages.

use std::time::{Duration, Instant};

use campanile::{Outbox, Protocol, Reactor, echo};

/// Sends its counter, adds one to each echo, and closes at ten.
struct Counter(u8);

impl Protocol for Counter {
    fn on_open(&mut self, out: &mut Outbox) {
        out.send(&[self.0]);
    }

    fn on_data(&mut self, data: &[u8], out: &mut Outbox) {
        self.0 = data[0] + 1;
        println!("reactor: received {}", data[0]);
        if self.0 < 10 { out.send(&[self.0]) } else { out.close() }
    }
}

#[cfg(all(unix, not(mio_unsupported_force_poll_poll)))]
fn main() -> std::io::Result<()> {
    use std::os::fd::AsRawFd;

    let mut reactor = Reactor::new()?;
    let addr = reactor.listen("127.0.0.1:0", echo())?;
    reactor.connect(addr, Counter(0));

    let mut poll = mio::Poll::new()?;
    let mut events = mio::Events::with_capacity(8);
    let fd = reactor.as_raw_fd();
    let interest = mio::Interest::READABLE;
    poll.registry().register(&mut mio::unix::SourceFd(&fd), mio::Token(0), interest)?;

    let mut tick = Instant::now();
    while reactor.connections() > 0 {
        let until_tick = tick.saturating_duration_since(Instant::now());
        let timeout = reactor.timeout().map_or(until_tick, |timeout| timeout.min(until_tick));
        poll.poll(&mut events, Some(timeout))?;
        reactor.turn(Some(Duration::ZERO))?;
        if Instant::now() >= tick {
            println!("outer loop: its own timer");
            tick += Duration::from_millis(1);
        }
    }
    Ok(())
}

#[cfg(not(all(unix, not(mio_unsupported_force_poll_poll))))]
fn main() {
    println!("on this system the reactor has no descriptor to wait for");
}
