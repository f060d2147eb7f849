//! Example 5. A slab of connections: the token of an event is the key of its connection in a slab, so
//! the server reads only connections that have an event.
//!
//! Run it with `cargo run --example 05_slab`, or let it serve: `-- 127.0.0.1:0`. Look at the key
//! that becomes a `Token`. It reaches rung 4 of the echo ladder, with fewer calls than example 4.

mod tour;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;

use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use tour::{Listener, Stream};

const LISTENER: Token = Token(usize::MAX);

/// Serves until so many conversations have ended. Returns the number of reads that were saved: for
/// each event, the connections that it does not name.
fn serve(mut listener: Listener, conversations: usize) -> io::Result<usize> {
    let (mut over, mut saved) = (0, 0);
    let mut connections: Slab<Stream> = Slab::new();
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(128);
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    while over < conversations {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                accept(&listener, &poll, &mut connections)?;
                continue;
            }
            let Some(connection) = connections.get_mut(event.token().0) else { continue };
            let is_over = run(connection)?;
            saved += connections.len() - 1;
            if is_over {
                connections.remove(event.token().0);
                over += 1;
            }
        }
    }
    Ok(saved)
}

fn accept(listener: &Listener, poll: &Poll, to: &mut Slab<Stream>) -> io::Result<()> {
    loop {
        match listener.accept() {
            Ok(mut stream) => {
                let entry = to.vacant_entry();
                poll.registry().register(&mut stream, Token(entry.key()), Interest::READABLE)?;
                entry.insert(stream);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Reads until `WouldBlock`, and returns whether the peer has ended.
fn run(stream: &mut Stream) -> io::Result<bool> {
    let mut data = [0; 1024];
    loop {
        match stream.read(&mut data) {
            Ok(0) => return Ok(true),
            Ok(count) => stream.write_all(&data[..count])?,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

/// A hundred clients that send nothing, and one that sends ten messages.
fn clients(addr: SocketAddr) -> io::Result<()> {
    let silent = (0..100).map(|_| TcpStream::connect(addr));
    let _silent = silent.collect::<io::Result<Vec<_>>>()?;
    let mut client = TcpStream::connect(addr)?;
    for _ in 0..10 {
        client.write_all(b"Hello, world")?;
        client.read_exact(&mut [0; 12])?;
    }
    Ok(())
}

fn main() -> io::Result<()> {
    let (listener, addr) = tour::listen()?;
    let Some(addr) = addr else {
        return serve(listener, usize::MAX).map(|_| ());
    };
    let clients = thread::spawn(move || clients(addr));
    let saved = serve(listener, 101)?;
    clients.join().expect("the clients do not panic")?;
    let tour::Counts { accepts, reads, writes, would_blocks, .. } = tour::counts();
    println!("server: accepts: {accepts}, reads: {reads}, writes: {writes}");
    println!("server: calls that returned WouldBlock: {would_blocks}");
    println!("reads that the tokens saved: {}", tour::grouped(saved));
    println!("this is rung 4 of the echo ladder: 1 MiB");
    Ok(())
}
