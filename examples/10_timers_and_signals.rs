//! Example 10. Timers and signals. Whoever takes nothing of what we owe, or goes on although we
//! have ended, gets only so long. And a signal is an event like others: it asks everybody to end.
//!
//! Run it with `cargo run --example 10_timers_and_signals`, or let it serve until Ctrl-C:
//! `-- 127.0.0.1:0`. Look at what `poll` gets. It reaches rung 8 of the echo ladder, the last.

mod tour;

use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token, net::UnixStream};
use signal_hook::{consts::SIGINT, low_level};
use slab::Slab;
use tour::{BOTH, Listener, SendBuffer, Stream};

const LISTENER: Token = Token(usize::MAX);
const SIGNAL: Token = Token(usize::MAX - 1);
const PATIENCE: Duration = Duration::from_secs(10);

struct Connection {
    stream: Stream,
    owed: SendBuffer,
    heard_eof: bool,
    said_eof: bool,
    deadline: Option<Instant>,
}

impl Connection {
    fn run(&mut self, ending: bool, patience: Duration) -> io::Result<()> {
        let mut data = [0; 4096];
        self.owed.flush(&mut self.stream)?;
        // Whoever takes something gets more time; a farewell is not prolonged by talking on.
        self.deadline = self.deadline.filter(|_| self.said_eof || !self.owed.is_empty());
        while self.owed.is_empty() && !self.heard_eof {
            match self.stream.try_read(&mut data)? {
                None => break,
                Some(0) => self.heard_eof = true,
                Some(_) if self.said_eof => {}
                Some(count) => self.owed.append(&data[..count]),
            }
            self.owed.flush(&mut self.stream)?;
        }
        if self.owed.is_empty() && (ending || self.heard_eof) && !self.said_eof {
            self.said_eof = true;
            self.stream.shutdown_write()?;
        }
        if self.said_eof || !self.owed.is_empty() {
            self.deadline.get_or_insert(Instant::now() + patience);
        }
        Ok(())
    }
}

/// Serves until a signal asks it to end; returns how many connections were given up.
fn serve(mut listener: Listener, mut signals: UnixStream, patience: Duration) -> io::Result<usize> {
    let (mut ending, mut late, mut exhausted) = (false, 0, false);
    let mut connections: Slab<Connection> = Slab::new();
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(128));
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    poll.registry().register(&mut signals, SIGNAL, Interest::READABLE)?;
    while !ending || !connections.is_empty() {
        let deadline = connections.iter().filter_map(|(_, found)| found.deadline).min();
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let retry = exhausted.then_some(tour::RETRY);
        match poll.poll(&mut events, left.into_iter().chain(retry).min()) {
            // A signal also interrupts the sleep.
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            outcome => outcome?,
        }
        let ready: BTreeSet<_> = events.iter().map(|event| event.token()).collect();
        let everybody = ready.contains(&SIGNAL);
        ending |= everybody;
        connections.retain(|key, found| {
            let is_ready = everybody || ready.contains(&Token(key));
            let is_broken = is_ready && found.run(ending, patience).is_err();
            // Judged after the IO: who was slow, and has just taken something, is not late.
            let is_late = found.deadline.is_some_and(|deadline| deadline <= Instant::now());
            late += usize::from(is_late);
            !(is_broken || is_late || (found.heard_eof && found.said_eof))
        });
        if !ending && (exhausted || ready.contains(&LISTENER)) {
            for mut stream in listener.accept_some(&mut exhausted) {
                let entry = connections.vacant_entry();
                poll.registry().register(&mut stream, Token(entry.key()), BOTH)?;
                let (owed, heard_eof, said_eof) = (SendBuffer::default(), false, false);
                entry.insert(Connection { stream, owed, heard_eof, said_eof, deadline: None });
            }
        }
    }
    Ok(late)
}

/// One client writes until the server has had enough; another one is there when the signal comes.
fn clients(addr: SocketAddr) -> io::Result<(Option<ErrorKind>, usize)> {
    let mut deaf = TcpStream::connect(addr)?;
    let end = (0..).find_map(|_| deaf.write(&[b'x'; 64 << 10]).err());
    let mut other = TcpStream::connect(addr)?;
    other.write_all(b"Hello, world")?;
    other.read_exact(&mut [0; 12])?;
    low_level::raise(SIGINT)?;
    Ok((end.map(|error| error.kind()), other.read(&mut [0; 12])?))
}

fn main() -> io::Result<()> {
    let (listener, addr) = tour::listen()?;
    let (signals, writer) = UnixStream::pair()?;
    low_level::pipe::register(SIGINT, writer)?;
    let Some(addr) = addr else { return serve(listener, signals, PATIENCE).map(|_| ()) };
    let clients = thread::spawn(move || clients(addr));
    let late = serve(listener, signals, PATIENCE / 20)?;
    let (end, bytes) = clients.join().expect("the clients do not panic")?;
    println!("given up, as nothing was taken in time: {late}; it heard: {end:?}");
    println!("the signal: the other one heard EOF ({bytes} bytes), and the server ended");
    println!("this is rung 8 of the echo ladder: resets, urgent data, 1,000 idle");
    Ok(())
}
