//! Example 7. Back-pressure: while we owe, we do not read. Then the peer's own kernel holds it up,
//! our memory is bounded, and its EOF waits in line behind what it has said.
//!
//! Run it with `cargo run --example 07_back_pressure`, or let it serve: `-- 127.0.0.1:0`. Look at
//! `is_empty` in `run`. It reaches rung 7 of the echo ladder, half-close included.

mod tour;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use tour::{BOTH, Listener, SendBuffer, Stream};

const LISTENER: Token = Token(usize::MAX);

struct Connection {
    stream: Stream,
    owed: SendBuffer,
}

impl Connection {
    /// Reads as long as all can be given back; returns whether that was the end.
    fn run(&mut self) -> io::Result<bool> {
        let mut data = [0; 4096];
        self.owed.flush(&mut self.stream)?;
        // An event that says there is room leads here, too: what was left unread then needs no
        // event of its own, and would get none.
        while self.owed.is_empty() {
            match self.stream.try_read(&mut data)? {
                None => break,
                Some(0) => return Ok(true),
                Some(count) => self.owed.append(&data[..count]),
            }
            self.owed.flush(&mut self.stream)?;
        }
        Ok(false)
    }
}

fn serve(mut listener: Listener, conversations: usize) -> io::Result<()> {
    let mut over = 0;
    let mut connections: Slab<Connection> = Slab::new();
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(128);
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    while over < conversations {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                for mut stream in listener.accept_all()? {
                    let entry = connections.vacant_entry();
                    poll.registry().register(&mut stream, Token(entry.key()), BOTH)?;
                    entry.insert(Connection { stream, owed: SendBuffer::default() });
                }
                continue;
            }
            let Some(connection) = connections.get_mut(event.token().0) else { continue };
            if connection.run()? {
                connections.remove(event.token().0);
                over += 1;
            }
        }
    }
    Ok(())
}

/// Sends until nothing is taken any more, while another client is served; then reads everything.
/// Returns how many bytes were sent and how many came back.
fn clients(addr: SocketAddr) -> io::Result<(usize, usize)> {
    let mut deaf = TcpStream::connect(addr)?;
    deaf.set_write_timeout(Some(Duration::from_millis(200)))?;
    let mut sent = 0;
    while let Ok(count) = deaf.write(&[b'x'; 64 * 1024]) {
        sent += count;
    }
    let mut other = TcpStream::connect(addr)?;
    other.write_all(b"Hello, world")?;
    other.read_exact(&mut [0; 12])?;
    deaf.shutdown(std::net::Shutdown::Write)?;
    let mut heard = Vec::new();
    deaf.read_to_end(&mut heard)?;
    Ok((sent, heard.len()))
}

fn main() -> io::Result<()> {
    let (listener, addr) = tour::listen()?;
    let Some(addr) = addr else { return serve(listener, usize::MAX) };
    let clients = thread::spawn(move || clients(addr));
    serve(listener, 2)?;
    let (sent, heard) = clients.join().expect("the clients do not panic")?;
    let story = tour::story();
    println!("bytes taken before any was read: {sent}; bytes got back: {heard}");
    println!("short writes: {}; WouldBlock: {}", story.short_writes.len(), story.would_blocks);
    println!("bytes owed at once, at most: {}, and others were served", story.most_owed);
    println!("this is rung 7 of the echo ladder: a client that never reads");
    Ok(())
}
