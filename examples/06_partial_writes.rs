//! Example 6. Partial writes: `send` is not `sendall`. What the kernel does not take stays with us,
//! in a `SendBuffer`, until an event says that there is room.
//!
//! Run it with `cargo run --example 06_partial_writes`, or let it serve: `-- 127.0.0.1:0`. Look at
//! `flush`. A slow reader gets it all: it reaches rung 5 of the echo ladder.

mod tour;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;

use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use tour::{Listener, Stream};

const LISTENER: Token = Token(usize::MAX);

/// Bytes owed to a peer; the first `sent` of them are delivered.
#[derive(Default)]
struct SendBuffer {
    bytes: Vec<u8>,
    sent: usize,
}

impl SendBuffer {
    fn append(&mut self, more: &[u8]) {
        self.bytes.extend(more);
        tour::note_owed(self.bytes.len() - self.sent);
    }
    /// Hands over what the kernel takes; the rest waits for the next event.
    fn flush(&mut self, to: &mut Stream) -> io::Result<()> {
        while self.sent < self.bytes.len() {
            match to.write(&self.bytes[self.sent..]) {
                // Fewer than offered is no error: keep the place and go on.
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        *self = SendBuffer::default();
        Ok(())
    }
}

struct Connection {
    stream: Stream,
    owed: SendBuffer,
}

impl Connection {
    /// Reads all there is and gives back what it can; returns whether that was the end.
    fn run(&mut self) -> io::Result<bool> {
        let mut data = [0; 4096];
        loop {
            match self.stream.read(&mut data) {
                Ok(0) => return Ok(true),
                Ok(count) => self.owed.append(&data[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.owed.flush(&mut self.stream)?;
        Ok(false)
    }
}

fn serve(mut listener: Listener, conversations: usize) -> io::Result<()> {
    // Room to write is announced as bytes to read are.
    let both = Interest::READABLE | Interest::WRITABLE;
    let (mut connections, mut over) = (Slab::<Connection>::new(), 0);
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(128));
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    while over < conversations {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                for mut stream in listener.accept_all()? {
                    let entry = connections.vacant_entry();
                    poll.registry().register(&mut stream, Token(entry.key()), both)?;
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

/// Sends 16 MiB before it reads the first byte; returns how many bytes came back.
fn client(addr: SocketAddr) -> io::Result<usize> {
    let mut client = TcpStream::connect(addr)?;
    let mut data = vec![b'x'; 16 << 20];
    client.write_all(&data)?;
    // In sips: a gulp could make room as fast as the server fills it.
    for sip in data.chunks_mut(512) {
        client.read_exact(sip)?;
    }
    Ok(data.len())
}

fn main() -> io::Result<()> {
    let (listener, addr) = tour::listen()?;
    let Some(addr) = addr else { return serve(listener, usize::MAX) };
    let client = thread::spawn(move || client(addr));
    serve(listener, 1)?;
    let (heard, story) = (client.join().expect("the client does not panic")?, tour::story());
    println!("bytes sent before any was read: {}; bytes got back: {heard}", 16 << 20);
    println!("writes: {}; short writes: {}", story.writes, story.short_writes.len());
    println!("the first one (offered, taken): {:?}", story.short_writes.first());
    println!("bytes owed at once, at most: {}, and nothing stops it", story.most_owed);
    println!("this is rung 5 of the echo ladder: a slow reader");
    Ok(())
}
