//! Example 3. A simple poll: the server sleeps until the kernel reports that a socket is ready. It
//! reads once for each event, so bytes stay unread: mio reports a change once, and not a state.
//!
//! Run it with `cargo run --example 03_poll`, or let it serve: `-- 127.0.0.1:0`. Look at the one
//! `read` per event. It reaches rung 2 of the echo ladder, without using the processor meanwhile.

mod tour;

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use mio::{Events, Interest, Poll, Token};
use tour::{Listener, Stream};

const LISTENER: Token = Token(usize::MAX);
const CONNECTION: Token = Token(0);

/// Serves until no event comes for as long as `patience`, and returns how often it slept.
fn serve(mut listener: Listener, patience: Option<Duration>) -> io::Result<usize> {
    let mut sleeps = 0;
    let mut connection: Option<Stream> = None;
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(128);
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    loop {
        poll.poll(&mut events, patience)?;
        sleeps += 1;
        if events.is_empty() && patience.is_some() {
            return Ok(sleeps);
        }
        for event in &events {
            if event.token() == LISTENER {
                let mut stream = listener.accept()?;
                poll.registry().register(&mut stream, CONNECTION, Interest::READABLE)?;
                // The server keeps one connection: an earlier one is dropped, which closes it.
                connection = Some(stream);
            } else if let Some(stream) = &mut connection {
                if run(stream)? {
                    connection = None;
                }
            }
        }
    }
}

/// Reads once, and returns whether the peer has ended.
fn run(stream: &mut Stream) -> io::Result<bool> {
    let mut data = [0; 1024];
    let count = stream.read(&mut data)?;
    stream.write_all(&data[..count])?;
    Ok(count == 0)
}

fn main() -> io::Result<()> {
    let (listener, addr) = tour::listen()?;
    let Some(addr) = addr else {
        return serve(listener, None).map(|_| ());
    };
    // The server has accepted nothing yet, but the kernel connects the client and keeps its bytes.
    let mut client = TcpStream::connect(addr)?;
    client.write_all(&[b'x'; 4096])?;
    let sleeps = serve(listener, Some(Duration::from_millis(200)))?;
    let (counts, mut back) = (tour::counts(), Vec::new());
    let end = tour::ending(client.read_to_end(&mut back));
    println!("server: sleeps: {sleeps}, accepts: {}, reads: {}", counts.accepts, counts.reads);
    println!("client: sent 4,096 bytes, got {} back, then: {end}", tour::grouped(back.len()));
    println!("bytes that no event reported again: {}", tour::grouped(4096 - back.len()));
    println!("this is rung 2 of the echo ladder: the next client");
    Ok(())
}
