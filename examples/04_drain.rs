//! Example 4. Accept and read until `WouldBlock`: an event may stand for many clients and many
//! bytes, and only `WouldBlock` says that the next one will be announced.
//!
//! Run it with `cargo run --example 04_drain`, or let it serve: `-- 127.0.0.1:0`. Look at the two
//! inner loops. Several clients at once: it reaches rung 4 of the echo ladder.

mod tour;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};

use mio::{Events, Interest, Poll, Token};
use tour::{Listener, Stream};

const LISTENER: Token = Token(usize::MAX);
const CONNECTION: Token = Token(0);

/// Serves until so many conversations are over, and returns how many events that took.
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
        // All have the same token, so it may have been anybody: everybody is tried.
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

fn main() -> io::Result<()> {
    let (listener, addr) = tour::listen()?;
    let Some(addr) = addr else {
        return serve(listener, usize::MAX).map(|_| ());
    };
    // All of them are there, with all they say, before the server looks for the first time.
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = TcpStream::connect(addr)?;
        client.write_all(&[b'x'; 4096])?;
        client.shutdown(Shutdown::Write)?;
        clients.push(client);
    }
    let events = serve(listener, clients.len())?;
    let (story, mut heard) = (tour::story(), Vec::new());
    for client in &mut clients {
        client.read_to_end(&mut heard)?;
    }
    println!("events: {events}; accepts: {}; reads: {}", story.accepts, story.reads);
    println!("bytes sent: 12288; bytes got back: {}", heard.len());
    println!("WouldBlock: {}, and only that would have meant: nothing left", story.would_blocks);
    println!("this is rung 4 of the echo ladder: 1 MiB");
    Ok(())
}
