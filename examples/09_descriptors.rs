//! Example 9. Stale tokens, and descriptors running out. A batch of events is worked off before
//! anybody new gets a slot, so no event hits the wrong one. Without a descriptor we go on, and try
//! again: those who wait are not announced twice.
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
/// When to try again.
const RETRY: Duration = Duration::from_millis(100);

struct Connection {
    stream: Stream,
    owed: SendBuffer,
    heard_eof: bool,
}

impl Connection {
    /// Returns whether that was the end: everything heard, everything said, and EOF after it.
    fn run(&mut self) -> io::Result<bool> {
        let mut data = [0; 4096];
        self.owed.flush(&mut self.stream)?;
        while self.owed.is_empty() && !self.heard_eof {
            match self.stream.try_read(&mut data)? {
                None => break,
                Some(0) => self.heard_eof = true,
                Some(count) => self.owed.append(&data[..count]),
            }
            self.owed.flush(&mut self.stream)?;
        }
        Ok(self.heard_eof)
    }
}

/// Returns how many slots all of them needed.
fn serve(mut poll: Poll, mut listener: Listener, conversations: usize) -> io::Result<usize> {
    let (mut over, mut slots, mut exhausted) = (0, 0, false);
    let mut connections: Slab<Connection> = Slab::new();
    let mut events = Events::with_capacity(128);
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    while over < conversations {
        poll.poll(&mut events, exhausted.then_some(RETRY))?;
        let mut is_awaited = exhausted;
        for event in &events {
            is_awaited |= event.token() == LISTENER;
            let key = event.token().0;
            let Some(connection) = connections.get_mut(key) else { continue };
            if connection.run().unwrap_or(true) {
                connections.remove(key);
                over += 1;
            }
        }
        // Only now: in the loop above, a newcomer could get a slot of which an event is to come.
        if is_awaited {
            exhausted = accept(&listener, &poll, &mut connections)?;
            slots = slots.max(connections.len());
        }
    }
    Ok(slots)
}

/// Accepts until `WouldBlock`, or until no descriptor is left, and returns whether it is so.
fn accept(listener: &Listener, poll: &Poll, to: &mut Slab<Connection>) -> io::Result<bool> {
    loop {
        match listener.accept() {
            Ok(mut stream) => {
                let entry = to.vacant_entry();
                poll.registry().register(&mut stream, Token(entry.key()), BOTH)?;
                entry.insert(Connection { stream, owed: SendBuffer::default(), heard_eof: false });
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            // EMFILE and its like. It is nobody's fault who is connected.
            Err(_) => return Ok(true),
        }
    }
}

fn main() -> io::Result<()> {
    let (listener, addr) = tour::listen()?;
    let poll = Poll::new()?;
    let Some(addr) = addr else { return serve(poll, listener, usize::MAX).map(|_| ()) };
    let clients = (0..8).map(|_| TcpStream::connect(addr)).collect::<io::Result<Vec<_>>>()?;
    // Descriptors are given out from the lowest, so this leaves three of them.
    let next = std::fs::File::open("/dev/null")?.as_raw_fd() as u64;
    let (_, most) = rlimit::Resource::NOFILE.get()?;
    rlimit::Resource::NOFILE.set(next + 3, most)?;
    let clients = thread::spawn(move || {
        let mut heard = Vec::new();
        for mut client in &clients {
            client.write_all(b"Hello, world")?;
            client.shutdown(Shutdown::Write)?;
            client.read_to_end(&mut heard)?;
        }
        // They keep their descriptors until now.
        Ok::<_, io::Error>((clients.len(), heard.len() / 12))
    });
    let slots = serve(poll, listener, 8)?;
    let (clients, served) = clients.join().expect("the clients do not panic")?;
    let story = tour::story();
    println!("clients at once: {clients}; descriptors left for them: 3");
    println!("accepts: {}; accepts that found no descriptor: {}", story.accepts, story.exhausted);
    println!("clients served: {served}; slots: {slots}, each used again in the turn it came free");
    println!("this is rung 8 of the echo ladder: resets, urgent data, 1,000 idle");
    Ok(())
}
