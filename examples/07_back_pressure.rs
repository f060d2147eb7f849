//! Example 7. Back-pressure: while bytes for a peer are unsent, the server does not read from it. Then
//! the peer's kernel stops it, and the server's memory is bounded.
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
    unsent: SendBuffer,
}

impl Connection {
    /// Reads while nothing is unsent; returns whether the peer has ended.
    fn run(&mut self) -> io::Result<bool> {
        let mut data = [0; 4096];
        self.unsent.flush(&mut self.stream)?;
        // An event that reports room leads here, too. So the bytes that were left unread are read,
        // although no second event reports them.
        while self.unsent.is_empty() {
            match self.stream.try_read(&mut data)? {
                None => break,
                Some(0) => return Ok(true),
                Some(count) => self.unsent.append(&data[..count]),
            }
            self.unsent.flush(&mut self.stream)?;
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
                    entry.insert(Connection { stream, unsent: SendBuffer::default() });
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

/// Sends until the kernel takes no more, then lets a second client be served, then reads everything.
/// Returns the number of bytes sent and the number of bytes that came back.
fn clients(addr: SocketAddr) -> io::Result<(usize, usize)> {
    let mut stuck = TcpStream::connect(addr)?;
    stuck.set_write_timeout(Some(Duration::from_millis(200)))?;
    let mut sent = 0;
    while let Ok(count) = stuck.write(&[b'x'; 64 * 1024]) {
        sent += count;
    }
    let mut other = TcpStream::connect(addr)?;
    other.write_all(b"Hello, world")?;
    other.read_exact(&mut [0; 12])?;
    stuck.shutdown(std::net::Shutdown::Write)?;
    let mut back = Vec::new();
    stuck.read_to_end(&mut back)?;
    Ok((sent, back.len()))
}

fn main() -> io::Result<()> {
    let (listener, addr) = tour::listen()?;
    let Some(addr) = addr else { return serve(listener, usize::MAX) };
    let clients = thread::spawn(move || clients(addr));
    serve(listener, 2)?;
    let (sent, back) = clients.join().expect("the clients do not panic")?;
    let counts = tour::counts();
    let [sent, back, unsent] = [sent, back, counts.most_unsent].map(tour::grouped);
    println!("client: sent {sent} bytes before it read one, got {back} back");
    println!("server: calls that returned WouldBlock: {}", counts.would_blocks);
    println!("most bytes unsent at a time: {unsent}, and a second client was served meanwhile");
    println!("this is rung 7 of the echo ladder: a client that never reads");
    Ok(())
}
