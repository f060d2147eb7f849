//! Example 8. Half-close and linger: whoever ends first says so (FIN), and goes on reading until
//! the other has ended, too. Closing with bytes unread is a reset: to be survived, and not made.
//!
//! Run it with `cargo run --example 08_linger`, or let it serve: `-- 127.0.0.1:0`. Look at
//! `said_eof` and `heard_eof`. It reaches rung 8 of the echo ladder, the last.

mod tour;

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};

use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use tour::{BOTH, Listener, SendBuffer, Stream};

const LISTENER: Token = Token(usize::MAX);

struct Connection {
    stream: Stream,
    owed: SendBuffer,
    /// How many bytes more are given back before it is we who end.
    allowance: usize,
    lingers: bool,
    heard_eof: bool,
    said_eof: bool,
}

impl Connection {
    fn new(stream: Stream, allowance: Option<usize>, lingers: bool) -> Connection {
        let allowance = allowance.unwrap_or(usize::MAX);
        let (owed, heard_eof, said_eof) = (SendBuffer::default(), false, false);
        Connection { stream, owed, allowance, lingers, heard_eof, said_eof }
    }

    fn is_over(&self) -> bool {
        self.said_eof && (self.heard_eof || !self.lingers)
    }

    fn run(&mut self) -> io::Result<()> {
        let mut data = [0; 4096];
        self.flush()?;
        while self.owed.is_empty() && !self.is_over() {
            match self.stream.try_read(&mut data)? {
                None => break,
                Some(0) => self.heard_eof = true,
                // Beyond the allowance it is thrown away. But it is read.
                Some(count) => {
                    let count = count.min(self.allowance);
                    self.owed.append(&data[..count]);
                    self.allowance -= count;
                }
            }
            self.flush()?;
        }
        Ok(())
    }

    /// Delivers what is owed; if that was all, says so.
    fn flush(&mut self) -> io::Result<()> {
        self.owed.flush(&mut self.stream)?;
        let was_all = self.heard_eof || self.allowance == 0;
        if was_all && self.owed.is_empty() && !self.said_eof {
            self.said_eof = true;
            if self.lingers {
                self.stream.shutdown_write()?;
            }
        }
        Ok(())
    }
}

/// In the experiment there is an `allowance`, and the first one who has used it up is just closed.
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
            // One peer's error is no reason to leave the others.
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
    println!("bytes sent: 16384; bytes after which the server ends: 1000");
    for (mut client, how) in clients.iter().zip(["closed", "half-closed, and read to the end"]) {
        let mut heard = Vec::new();
        let end = client.read_to_end(&mut heard).err().map_or("EOF".into(), |e| e.to_string());
        println!("{how}: got {} bytes, then {end}", heard.len());
    }
    println!("this is rung 8 of the echo ladder: resets, urgent data, 1,000 idle");
    Ok(())
}
