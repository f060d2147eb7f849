//! Example 1. A blocking server, as in a tutorial: it serves one client until that client ends. The
//! kernel connects other clients meanwhile, but the server does not accept them.
//!
//! Run it with `cargo run --example 01_blocking`, or let it serve: `-- 127.0.0.1:0`. Look at
//! `read`: it sleeps until *this* client sends. It reaches rung 1 of the echo ladder.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

/// Counts for the output.
#[derive(Default)]
struct Counts {
    reads: usize,
    bytes: usize,
}

fn serve(listener: TcpListener) -> io::Result<Counts> {
    let mut counts = Counts::default();
    let (mut connection, _) = listener.accept()?;
    let mut data = [0; 1024];
    loop {
        let count = connection.read(&mut data)?;
        if count == 0 {
            return Ok(counts);
        }
        counts.reads += 1;
        counts.bytes += count;
        // As Python's `sendall`: sleeps until the kernel has taken every byte.
        connection.write_all(&data[..count])?;
    }
}

/// Connects two clients at once; returns the result of the second one's read.
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
    let counts = serve(listener)?;
    let second = clients.join().expect("the clients do not panic")?;
    println!("first client: the server read {} time, echoed {} bytes", counts.reads, counts.bytes);
    match second {
        Ok(count) => println!("second client: connected, sent 10 bytes, got {count} back"),
        Err(error) => println!("second client: connected, sent 10 bytes, got 0, then: {error}"),
    }
    println!("this is rung 1 of the echo ladder: one client");
    Ok(())
}
