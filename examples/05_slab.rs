//! Example 5. A slab of connections: the token of an event is the connection's place in a slab, so
//! nobody is asked but who has something to say.
//!
//! Run it with `cargo run --example 05_slab`, or let it serve: `-- 127.0.0.1:0`. Look at the key
//! that becomes a `Token`. It reaches rung 4 of the echo ladder, with less work.

mod tour;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;

use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use tour::{Listener, Stream};

const LISTENER: Token = Token(usize::MAX);

/// Serves until so many conversations are over, and returns how many connections were not asked,
/// because the token of an event named another one.
fn serve(mut listener: Listener, conversations: usize) -> io::Result<usize> {
    let (mut over, mut spared) = (0, 0);
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
            spared += connections.len() - 1;
            if is_over {
                connections.remove(event.token().0);
                over += 1;
            }
        }
    }
    Ok(spared)
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

/// Reads all there is, and returns whether that was the end.
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

/// A hundred clients that say nothing, and one that says something ten times.
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
    let spared = serve(listener, 101)?;
    clients.join().expect("the clients do not panic")?;
    let story = tour::story();
    println!("accepts: {}; reads: {}; writes: {}", story.accepts, story.reads, story.writes);
    println!("WouldBlock: {}; reads spared: {spared}", story.would_blocks);
    println!("that is what asking everybody, whoever it was, would have cost besides");
    println!("this is rung 4 of the echo ladder: 1 MiB");
    Ok(())
}
