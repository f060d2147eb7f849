//! Example 3. A naked poll: the server sleeps until the kernel says that something is ready. And
//! then for ever, if it takes less than there was: mio tells of a change, once, not of a state.
//!
//! Run it with `cargo run --example 03_poll`, or let it serve: `-- 127.0.0.1:0`. Look at the one
//! `read` per event. It reaches rung 2 of the echo ladder, and sleeps meanwhile.

mod tour;

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use mio::{Events, Interest, Poll, Token};
use tour::{Listener, Stream};

const LISTENER: Token = Token(usize::MAX);
const CONNECTION: Token = Token(0);

/// Serves until nothing happens for as long as `patience`, and returns how often it slept.
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
                // Room for one: whoever was here before is hung up on.
                connection = Some(stream);
            } else if let Some(stream) = &mut connection {
                if run(stream)? {
                    connection = None;
                }
            }
        }
    }
}

/// Reads once, and returns whether that was the end.
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
    // Nobody has accepted yet, and still it connects and sends: the kernel keeps both for us.
    let mut client = TcpStream::connect(addr)?;
    client.write_all(&[b'x'; 4096])?;
    let sleeps = serve(listener, Some(Duration::from_millis(200)))?;
    let (story, mut heard) = (tour::story(), Vec::new());
    let end = client.read_to_end(&mut heard);
    println!("sleeps: {sleeps}; accepts: {}; reads: {}", story.accepts, story.reads);
    println!("bytes sent: 4096; bytes got back: {}", heard.len());
    println!("the rest lay there, and the last sleep was in vain: no event repeats itself");
    if let Err(error) = end {
        println!("and closing with bytes unread is no EOF: {error}");
    }
    println!("this is rung 2 of the echo ladder: the next client");
    Ok(())
}
