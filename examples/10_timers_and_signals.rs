//! Example 10. Timers and signals. A peer that does not read, or does not end after our FIN, is closed
//! at a deadline. A signal becomes an event like others, and ends the server in order.
//!
//! Run it with `cargo run --example 10_timers_and_signals`, or let it serve until Ctrl-C:
//! `-- 127.0.0.1:0`. Look at the timeout of `poll`. It reaches rung 8 of the echo ladder, the last.

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
const TIMEOUT: Duration = Duration::from_secs(10);

struct Connection {
    stream: Stream,
    unsent: SendBuffer,
    eof_read: bool,
    fin_sent: bool,
    deadline: Option<Instant>,
}

impl Connection {
    fn run(&mut self, ending: bool, timeout: Duration) -> io::Result<()> {
        let mut data = [0; 4096];
        self.unsent.flush(&mut self.stream)?;
        // A write that takes bytes extends the write timeout; nothing extends the linger timeout.
        self.deadline = self.deadline.filter(|_| self.fin_sent || !self.unsent.is_empty());
        while self.unsent.is_empty() && !self.eof_read {
            match self.stream.try_read(&mut data)? {
                None => break,
                Some(0) => self.eof_read = true,
                Some(_) if self.fin_sent => {}
                Some(count) => self.unsent.append(&data[..count]),
            }
            self.unsent.flush(&mut self.stream)?;
        }
        if self.unsent.is_empty() && (ending || self.eof_read) && !self.fin_sent {
            self.fin_sent = true;
            self.stream.shutdown_write()?;
        }
        if self.fin_sent || !self.unsent.is_empty() {
            self.deadline.get_or_insert(Instant::now() + timeout);
        }
        Ok(())
    }
}

/// Serves until a signal; returns the number of connections that were closed at their deadline.
fn serve(mut listener: Listener, mut signals: UnixStream, timeout: Duration) -> io::Result<usize> {
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
        let is_ending = ready.contains(&SIGNAL);
        ending |= is_ending;
        connections.retain(|key, found| {
            let is_ready = is_ending || ready.contains(&Token(key));
            let is_broken = is_ready && found.run(ending, timeout).is_err();
            // Checked after the IO: a peer that has just taken bytes is not late.
            let is_late = found.deadline.is_some_and(|deadline| deadline <= Instant::now());
            late += usize::from(is_late);
            !(is_broken || is_late || (found.eof_read && found.fin_sent))
        });
        if !ending && (exhausted || ready.contains(&LISTENER)) {
            for mut stream in listener.accept_some(&mut exhausted) {
                let entry = connections.vacant_entry();
                poll.registry().register(&mut stream, Token(entry.key()), BOTH)?;
                let (unsent, eof_read, fin_sent) = (SendBuffer::default(), false, false);
                entry.insert(Connection { stream, unsent, eof_read, fin_sent, deadline: None });
            }
        }
    }
    Ok(late)
}

/// Returns how a client that never reads ends, and how one ends that is connected at the signal.
fn clients(addr: SocketAddr) -> io::Result<[String; 2]> {
    let mut stuck = TcpStream::connect(addr)?;
    let end = (0..).find_map(|_| stuck.write(&[b'x'; 64 << 10]).err());
    let mut other = TcpStream::connect(addr)?;
    other.write_all(b"Hello, world")?;
    other.read_exact(&mut [0; 12])?;
    low_level::raise(SIGINT)?;
    Ok([end.map_or(Ok(0), Err), other.read_to_end(&mut Vec::new())].map(tour::ending))
}

fn main() -> io::Result<()> {
    let (listener, addr) = tour::listen()?;
    let (signals, writer) = UnixStream::pair()?;
    low_level::pipe::register(SIGINT, writer)?;
    let Some(addr) = addr else { return serve(listener, signals, TIMEOUT).map(|_| ()) };
    let clients = thread::spawn(move || clients(addr));
    let late = serve(listener, signals, TIMEOUT / 20)?;
    let [stuck, other] = clients.join().expect("the clients do not panic")?;
    println!("closed at the deadline: {late} client, which got: {stuck}");
    println!("open at the signal: 1 client, which got: {other}; then the server ended");
    println!("this is rung 8 of the echo ladder: resets, urgent data, 1,000 idle");
    Ok(())
}
