//! Example 4. Accept and read until `WouldBlock`: one event can stand for many clients and many
//! bytes, and only after `WouldBlock` is another event certain.
//!
//! Run it with `cargo run --example 04_drain`, or let it serve: `-- 127.0.0.1:0`. Look at the two
//! inner loops. It serves several clients at once and reaches rung 4 of the echo ladder.

mod tour;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};

use mio::{Events, Interest, Poll, Token};
use tour::{Listener, Stream};

const LISTENER: Token = Token(usize::MAX);
const CONNECTION: Token = Token(0);

/// Serves until so many conversations have ended, and returns the number of events.
fn serve(mut listener: Listener, conversations: usize) -> io::Result<usize> {
    let (mut over, mut count) = (0, 0);
    let mut connections: Vec<Stream> = Vec::new();
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(128);
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    while over < conversations {
        poll.poll(&mut events, None)?;
        for event in &events {
            count += 1;
            if event.token() == LISTENER {
                accept(&listener, &poll, &mut connections)?;
            }
        }
        // All connections have the same token, so the event does not name one: all are tried.
        for at in (0..connections.len()).rev() {
            if run(&mut connections[at])? {
                connections.swap_remove(at);
                over += 1;
            }
        }
    }
    Ok(count)
}

fn accept(listener: &Listener, poll: &Poll, to: &mut Vec<Stream>) -> io::Result<()> {
    loop {
        match listener.accept() {
            Ok(mut stream) => {
                poll.registry().register(&mut stream, CONNECTION, Interest::READABLE)?;
                to.push(stream);
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

fn main() -> io::Result<()> {
    let (listener, addr) = tour::listen()?;
    let Some(addr) = addr else {
        return serve(listener, usize::MAX).map(|_| ());
    };
    // All clients connect, send and end before the server polls for the first time.
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = TcpStream::connect(addr)?;
        client.write_all(&[b'x'; 4096])?;
        client.shutdown(Shutdown::Write)?;
        clients.push(client);
    }
    let events = serve(listener, clients.len())?;
    let (counts, mut back) = (tour::counts(), Vec::new());
    for client in &mut clients {
        client.read_to_end(&mut back)?;
    }
    println!("server: events: {events}, accepts: {}, reads: {}", counts.accepts, counts.reads);
    println!("server: calls that returned WouldBlock: {}", counts.would_blocks);
    println!("clients: sent 12,288 bytes, got {} back", tour::grouped(back.len()));
    println!("this is rung 4 of the echo ladder: 1 MiB");
    Ok(())
}
