//! Example 9. Stale events, and no descriptor left. The server handles the whole batch of events
//! before it accepts, so no event reaches the next owner of a slot. Without a free descriptor it
//! goes on serving and tries again later: no second event reports a client that waits.
//!
//! Run it with `cargo run --example 09_descriptors`, or let it serve: `-- 127.0.0.1:0`. Look at the
//! order in `serve`. It reaches rung 8 of the echo ladder, the last.

mod tour;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use tour::{BOTH, Listener, SendBuffer, Stream};

const LISTENER: Token = Token(usize::MAX);
/// The pause before the next accept after descriptors have run out.
const RETRY: Duration = Duration::from_millis(100);

struct Connection {
    stream: Stream,
    unsent: SendBuffer,
    eof_read: bool,
}

impl Connection {
    /// Returns whether the conversation has ended: EOF is read and nothing is unsent.
    fn run(&mut self) -> io::Result<bool> {
        let mut data = [0; 4096];
        self.unsent.flush(&mut self.stream)?;
        while self.unsent.is_empty() && !self.eof_read {
            match self.stream.try_read(&mut data)? {
                None => break,
                Some(0) => self.eof_read = true,
                Some(count) => self.unsent.append(&data[..count]),
            }
            self.unsent.flush(&mut self.stream)?;
        }
        Ok(self.eof_read)
    }
}

/// Returns the number of slots that were needed.
fn serve(mut poll: Poll, mut listener: Listener, conversations: usize) -> io::Result<usize> {
    let (mut over, mut slots, mut exhausted) = (0, 0, false);
    let mut connections: Slab<Connection> = Slab::new();
    let mut events = Events::with_capacity(128);
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    while over < conversations {
        poll.poll(&mut events, exhausted.then_some(RETRY))?;
        let mut may_accept = exhausted;
        for event in &events {
            may_accept |= event.token() == LISTENER;
            let key = event.token().0;
            let Some(connection) = connections.get_mut(key) else { continue };
            if connection.run().unwrap_or(true) {
                connections.remove(key);
                over += 1;
            }
        }
        // Not in the loop above: there, a new client could get a slot that a later event means.
        if may_accept {
            exhausted = accept(&listener, &poll, &mut connections)?;
            slots = slots.max(connections.len());
        }
    }
    Ok(slots)
}

/// Accepts until `WouldBlock`, or until no descriptor is left. Returns true if none is left.
fn accept(listener: &Listener, poll: &Poll, to: &mut Slab<Connection>) -> io::Result<bool> {
    loop {
        match listener.accept() {
            Ok(mut stream) => {
                let entry = to.vacant_entry();
                poll.registry().register(&mut stream, Token(entry.key()), BOTH)?;
                entry.insert(Connection { stream, unsent: SendBuffer::default(), eof_read: false });
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            // EMFILE or a similar error. It does not concern the connected clients.
            Err(_) => return Ok(true),
        }
    }
}

fn main() -> io::Result<()> {
    let (listener, addr) = tour::listen()?;
    let poll = Poll::new()?;
    let Some(addr) = addr else { return serve(poll, listener, usize::MAX).map(|_| ()) };
    let clients = (0..8).map(|_| TcpStream::connect(addr)).collect::<io::Result<Vec<_>>>()?;
    // A new descriptor gets the lowest free number, so this limit leaves three.
    let next = std::fs::File::open("/dev/null")?.as_raw_fd() as u64;
    let (_, most) = rlimit::Resource::NOFILE.get()?;
    rlimit::Resource::NOFILE.set(next + 3, most)?;
    let clients = thread::spawn(move || {
        let mut back = Vec::new();
        for mut client in &clients {
            client.write_all(b"Hello, world")?;
            client.shutdown(Shutdown::Write)?;
            client.read_to_end(&mut back)?;
        }
        // The clients keep their descriptors until here.
        Ok::<_, io::Error>((clients.len(), back.len() / 12))
    });
    let slots = serve(poll, listener, 8)?;
    let (clients, served) = clients.join().expect("the clients do not panic")?;
    let tour::Counts { accepts, exhausted, .. } = tour::counts();
    println!("clients at once: {clients}, descriptors for them: 3");
    println!("server: accepts: {accepts}, accepts that found no descriptor: {exhausted}");
    println!("clients served: {served}, slots used: {slots}");
    println!("this is rung 8 of the echo ladder: resets, urgent data, 1,000 idle");
    Ok(())
}
