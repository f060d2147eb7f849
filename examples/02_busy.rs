//! Example 2. Non-blocking, and busy: nothing sleeps any more, so the server can ask everybody
//! again and again. It serves the next client, and burns a processor to find out that nothing has
//! happened.
//!
//! Run it with `cargo run --example 02_busy`, or let it serve: `-- 127.0.0.1:0`. Look at
//! `WouldBlock`: "not now", which is no error. It reaches rung 2 of the echo ladder.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

/// What happened, counted where it happens.
#[derive(Default)]
struct Story {
    over: usize,
    reads: usize,
    would_blocks: usize,
}

fn serve(listener: TcpListener, conversations: usize) -> io::Result<Story> {
    let mut story = Story::default();
    let mut connection = None;
    let mut data = [0; 1024];
    listener.set_nonblocking(true)?;
    while story.over < conversations {
        let outcome = match &mut connection {
            None => listener.accept().and_then(|(stream, _)| {
                stream.set_nonblocking(true)?;
                connection = Some(stream);
                Ok(())
            }),
            Some(stream) => match stream.read(&mut data) {
                Ok(0) => {
                    story.over += 1;
                    connection = None;
                    Ok(())
                }
                Ok(count) => {
                    story.reads += 1;
                    // Wrong by now: on a socket that does not block it may stop half-way.
                    stream.write_all(&data[..count])
                }
                Err(error) => Err(error),
            },
        };
        match outcome {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => story.would_blocks += 1,
            Err(error) => return Err(error),
        }
    }
    Ok(story)
}

/// Two clients, one after the other; each thinks for a moment before it speaks.
fn clients(addr: SocketAddr) -> io::Result<()> {
    for _ in 0..2 {
        let mut client = TcpStream::connect(addr)?;
        thread::sleep(Duration::from_millis(20));
        client.write_all(b"Hello, world")?;
        client.read_exact(&mut [0; 12])?;
    }
    Ok(())
}

fn main() -> io::Result<()> {
    let arg = std::env::args().nth(1);
    let listener = TcpListener::bind(arg.as_deref().unwrap_or("127.0.0.1:0"))?;
    let addr = listener.local_addr()?;
    println!("listening on {addr}");
    if arg.is_some() {
        return serve(listener, usize::MAX).map(|_| ());
    }
    let clients = thread::spawn(move || clients(addr));
    let story = serve(listener, 2)?;
    clients.join().expect("the clients do not panic")?;
    println!("{} clients, one after the other, {} useful reads", story.over, story.reads);
    println!("and {} calls in vain: WouldBlock", story.would_blocks);
    println!("this is rung 2 of the echo ladder: the next client");
    Ok(())
}
