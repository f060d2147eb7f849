//! Example 2. Sockets that do not block: no call sleeps, so the server calls again and again. It
//! serves the next client after the first one, and keeps a processor busy while nothing happens.
//!
//! Run it with `cargo run --example 02_busy`, or let it serve: `-- 127.0.0.1:0`. Look at
//! `WouldBlock`: it means "not now" and is no failure. It reaches rung 2 of the echo ladder.

mod tour;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

/// Counts for the output.
#[derive(Default)]
struct Counts {
    over: usize,
    reads: usize,
    would_blocks: usize,
}

fn serve(listener: TcpListener, conversations: usize) -> io::Result<Counts> {
    let mut counts = Counts::default();
    let mut connection = None;
    let mut data = [0; 1024];
    listener.set_nonblocking(true)?;
    while counts.over < conversations {
        let outcome = match &mut connection {
            None => listener.accept().and_then(|(stream, _)| {
                stream.set_nonblocking(true)?;
                connection = Some(stream);
                Ok(())
            }),
            Some(stream) => match stream.read(&mut data) {
                Ok(0) => {
                    counts.over += 1;
                    connection = None;
                    Ok(())
                }
                Ok(count) => {
                    counts.reads += 1;
                    // Wrong here: on a socket that does not block, `write_all` can stop half-way.
                    stream.write_all(&data[..count])
                }
                Err(error) => Err(error),
            },
        };
        match outcome {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => counts.would_blocks += 1,
            Err(error) => return Err(error),
        }
    }
    Ok(counts)
}

/// Two clients, one after the other; each waits for a moment before it sends.
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
    let counts = serve(listener, 2)?;
    clients.join().expect("the clients do not panic")?;
    println!("{} clients, one after the other; reads with data: {}", counts.over, counts.reads);
    println!("calls that returned WouldBlock: {}", tour::grouped(counts.would_blocks));
    println!("this is rung 2 of the echo ladder: the next client");
    Ok(())
}
