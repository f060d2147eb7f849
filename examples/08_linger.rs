//! Example 8. Half-close and linger: the server ends its half with a FIN, and reads on until the peer
//! ends, too. A close with bytes unread would send a reset, which can destroy the answer.
//!
//! Run it with `cargo run --example 08_linger`, or let it serve: `-- 127.0.0.1:0`. Look at
//! `fin_sent` and `eof_read`. It reaches rung 8 of the echo ladder, the last.

mod tour;

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};

use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use tour::{BOTH, Listener, SendBuffer, Stream};

const LISTENER: Token = Token(usize::MAX);

struct Connection {
    stream: Stream,
    unsent: SendBuffer,
    /// The number of bytes that the server still echoes before it ends its half.
    allowance: usize,
    lingers: bool,
    eof_read: bool,
    fin_sent: bool,
}

impl Connection {
    fn new(stream: Stream, allowance: Option<usize>, lingers: bool) -> Connection {
        let allowance = allowance.unwrap_or(usize::MAX);
        let (unsent, eof_read, fin_sent) = (SendBuffer::default(), false, false);
        Connection { stream, unsent, allowance, lingers, eof_read, fin_sent }
    }

    fn is_over(&self) -> bool {
        self.fin_sent && (self.eof_read || !self.lingers)
    }

    fn run(&mut self) -> io::Result<()> {
        let mut data = [0; 4096];
        self.flush()?;
        while self.unsent.is_empty() && !self.is_over() {
            match self.stream.try_read(&mut data)? {
                None => break,
                Some(0) => self.eof_read = true,
                // Bytes beyond the allowance are thrown away, but they are read.
                Some(count) => {
                    let count = count.min(self.allowance);
                    self.unsent.append(&data[..count]);
                    self.allowance -= count;
                }
            }
            self.flush()?;
        }
        Ok(())
    }

    /// Writes; once everything is taken and nothing follows, ends our half.
    fn flush(&mut self) -> io::Result<()> {
        self.unsent.flush(&mut self.stream)?;
        let is_last = self.eof_read || self.allowance == 0;
        if is_last && self.unsent.is_empty() && !self.fin_sent {
            self.fin_sent = true;
            if self.lingers {
                self.stream.shutdown_write()?;
            }
        }
        Ok(())
    }
}

/// With an `allowance`, as in the experiment, the first connection is closed without lingering.
fn serve(mut listener: Listener, conversations: usize, allowance: Option<usize>) -> io::Result<()> {
    let mut over = 0;
    let mut connections: Slab<Connection> = Slab::new();
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(128));
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    while over < conversations {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                for mut stream in listener.accept_all()? {
                    let entry = connections.vacant_entry();
                    poll.registry().register(&mut stream, Token(entry.key()), BOTH)?;
                    let lingers = entry.key() > 0 || allowance.is_none();
                    entry.insert(Connection::new(stream, allowance, lingers));
                }
                continue;
            }
            let Some(connection) = connections.get_mut(event.token().0) else { continue };
            // An error ends this connection and no other.
            if connection.run().is_err() || connection.is_over() {
                connections.remove(event.token().0);
                over += 1;
            }
        }
    }
    Ok(())
}

fn main() -> io::Result<()> {
    let (listener, addr) = tour::listen()?;
    let Some(addr) = addr else { return serve(listener, usize::MAX, None) };
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = TcpStream::connect(addr)?;
        client.write_all(&[b'x'; 16 << 10])?;
        client.shutdown(Shutdown::Write)?;
        clients.push(client);
    }
    serve(listener, clients.len(), Some(1000))?;
    println!("each client sent 16,384 bytes; the server echoes 1,000 and ends");
    for (mut client, way) in clients.iter().zip(["closed at once", "half-closed, read to EOF"]) {
        let mut back = Vec::new();
        let end = tour::ending(client.read_to_end(&mut back));
        println!("{way}: the client got {} bytes, then: {end}", tour::grouped(back.len()));
    }
    println!("this is rung 8 of the echo ladder: resets, urgent data, 1,000 idle");
    Ok(())
}
