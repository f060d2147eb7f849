//! Example 1. Blocking, as in the tutorial: one client, served to its end. Whoever comes meanwhile
//! is connected by the kernel, and waits for a server that never looks.
//!
//! Run it with `cargo run --example 01_blocking`, or let it serve: `-- 127.0.0.1:0`. Look at
//! `read`: it sleeps until *this* client says something. It reaches rung 1 of the echo ladder.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

/// What happened, counted where it happens.
#[derive(Default)]
struct Story {
    reads: usize,
    bytes: usize,
}

fn serve(listener: TcpListener) -> io::Result<Story> {
    let mut story = Story::default();
    let (mut connection, _) = listener.accept()?;
    let mut data = [0; 1024];
    loop {
        let count = connection.read(&mut data)?;
        if count == 0 {
            return Ok(story);
        }
        story.reads += 1;
        story.bytes += count;
        // Python's `sendall`: sleeps until the kernel has taken every byte.
        connection.write_all(&data[..count])?;
    }
}

/// Two clients at once; returns what the second one got.
fn clients(addr: SocketAddr) -> io::Result<io::Result<usize>> {
    let mut first = TcpStream::connect(addr)?;
    let mut second = TcpStream::connect(addr)?;
    second.write_all(b"Hello, too")?;
    first.write_all(b"Hello, world")?;
    first.read_exact(&mut [0; 12])?;
    drop(first);
    Ok(second.read(&mut [0; 10]))
}

fn main() -> io::Result<()> {
    let arg = std::env::args().nth(1);
    let listener = TcpListener::bind(arg.as_deref().unwrap_or("127.0.0.1:0"))?;
    let addr = listener.local_addr()?;
    println!("listening on {addr}");
    if arg.is_some() {
        return serve(listener).map(|_| ());
    }
    let clients = thread::spawn(move || clients(addr));
    let story = serve(listener)?;
    let second = clients.join().expect("the clients do not panic")?;
    println!("the first client: {} read, {} bytes echoed", story.reads, story.bytes);
    match second {
        Ok(count) => println!("the second client: connected, sent 10 bytes, got {count}"),
        Err(error) => println!("the second client: connected, sent 10 bytes, got 0: {error}"),
    }
    println!("this is rung 1 of the echo ladder: one client");
    Ok(())
}
