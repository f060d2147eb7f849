//! Example 6. Partial writes: `send` is not `sendall`. The bytes that the kernel does not take stay
//! in a `SendBuffer` until an event reports room.
//!
//! Run it with `cargo run --example 06_partial_writes`, or let it serve: `-- 127.0.0.1:0`. Look at
//! `flush`. A slow reader gets every byte: it reaches rung 5 of the echo ladder.

mod tour;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;

use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use tour::{BOTH, Listener, Stream, grouped};

const LISTENER: Token = Token(usize::MAX);

/// Bytes for a peer; the kernel has taken the first `sent` of them.
#[derive(Default)]
struct SendBuffer {
    bytes: Vec<u8>,
    sent: usize,
}

impl SendBuffer {
    fn append(&mut self, more: &[u8]) {
        self.bytes.extend(more);
        tour::note_unsent(self.bytes.len() - self.sent);
    }
    /// Writes until everything is taken or the kernel has no room; the rest waits for an event.
    fn flush(&mut self, to: &mut Stream) -> io::Result<()> {
        while self.sent < self.bytes.len() {
            match to.write(&self.bytes[self.sent..]) {
                // Fewer bytes than offered is no error: move the cursor and go on.
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
    unsent: SendBuffer,
}

impl Connection {
    /// Reads until `WouldBlock`, then writes; returns whether the peer has ended.
    fn run(&mut self) -> io::Result<bool> {
        let mut data = [0; 4096];
        loop {
            match self.stream.read(&mut data) {
                Ok(0) => return Ok(true),
                Ok(count) => self.unsent.append(&data[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.unsent.flush(&mut self.stream)?;
        Ok(false)
    }
}

fn serve(mut listener: Listener, conversations: usize) -> io::Result<()> {
    let (mut connections, mut over) = (Slab::<Connection>::new(), 0);
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(128));
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

/// Sends 16 MiB before it reads the first byte; returns how many bytes came back.
fn client(addr: SocketAddr) -> io::Result<usize> {
    let mut client = TcpStream::connect(addr)?;
    let mut data = vec![b'x'; 16 << 20];
    client.write_all(&data)?;
    // In small reads: large ones could make room as fast as the server fills it.
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
    let (back, counts) = (client.join().expect("the client does not panic")?, tour::counts());
    let [sent, back, unsent] = [16 << 20, back, counts.most_unsent].map(grouped);
    println!("client: sent {sent} bytes before it read one, got {back} back");
    println!("server: writes: {}, short writes: {}", counts.writes, counts.short_writes.len());
    if let Some([offered, taken]) = counts.short_writes.first().map(|first| first.map(grouped)) {
        println!("first short write: offered {offered}, taken {taken}");
    }
    println!("most bytes unsent at a time: {unsent}, and the server has no limit");
    println!("this is rung 5 of the echo ladder: a slow reader");
    Ok(())
}
