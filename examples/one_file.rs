//! Two TCP servers in one thread, on one `Poll`: daytime (RFC 867) says the time and closes, echo
//! (RFC 862) gives every byte back. One file, mio and slab, and nothing that works only most of the
//! time: short writes are kept and continued, a peer that does not read is not read either, a
//! half-close is answered in full, and running out of descriptors is survived.
//!
//! Run it with `cargo run --example one_file`, or with two addresses, `-- 127.0.0.1:0 127.0.0.1:0`:
//! it prints where it listens, and nothing but a signal (Ctrl-C) ends it.
//! Try `nc 127.0.0.1 9999` and `nc 127.0.0.1 12345`.
//!
//! Look at `Connection::run`: readiness is *remembered*. An event sets it, only `WouldBlock` clears
//! it, and `wants_read` decides whether it is used. So a connection is registered once, for reading
//! and writing, and back-pressure is simply not reading.
//!
//! Left out: limits for idle and stalled peers, an orderly shutdown, time zones.

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

/// The tokens of the two listeners; a connection's is its key in the slab plus `FIRST`.
const DAYTIME: Token = Token(0);
const ECHO: Token = Token(1);
const FIRST: usize = 2;

/// The most that is read at once, and so the most that is ever owed to one peer.
const SCRATCH: usize = 64 * 1024;
/// Reads of one connection before it is the others' turn.
const BUDGET: usize = 16;
/// How long a peer that was told the time may go on talking.
const LINGER: Duration = Duration::from_secs(2);
/// When to accept again after descriptors have run out.
const RETRY: Duration = Duration::from_millis(100);

/// One conversation. Its two halves end one at a time: the peer has said everything; so have we.
struct Connection {
    stream: TcpStream,
    service: Token,
    /// What is owed to the peer; the first `sent` bytes of it are delivered.
    owed: Vec<u8>,
    sent: usize,
    readable: bool,
    writable: bool,
    heard_eof: bool,
    said_eof: bool,
    until: Option<Instant>,
}

impl Connection {
    fn new(stream: TcpStream, service: Token) -> Connection {
        let (owed, until) = match service {
            DAYTIME => (ctime(SystemTime::now()).into_bytes(), Some(Instant::now() + LINGER)),
            _ => (Vec::new(), None),
        };
        // Small answers go at once, not when the one before is acknowledged.
        let _ = stream.set_nodelay(true);
        // Readable and writable is a guess: if it is wrong, `WouldBlock` says so.
        let (sent, readable, writable, heard_eof, said_eof) = (0, true, true, false, false);
        Connection { stream, service, owed, sent, readable, writable, heard_eof, said_eof, until }
    }

    /// While we owe, we do not read: the peer's window closes, and our memory stays small.
    /// `readable` remains set meanwhile, for no event will repeat what was said once.
    fn wants_read(&self) -> bool {
        self.readable && !self.heard_eof && self.owed.is_empty()
    }

    fn is_over(&self) -> bool {
        let is_late = self.until.is_some_and(|until| until <= Instant::now());
        is_late || (self.heard_eof && self.said_eof)
    }

    /// Does all that can be done without blocking, within the budget. An error is this peer's.
    fn run(&mut self, scratch: &mut [u8]) -> io::Result<()> {
        let mut budget = BUDGET;
        self.flush()?;
        while self.wants_read() && budget > 0 {
            match self.stream.read(scratch) {
                // The peer has said everything, but not heard everything: what we owe is delivered.
                Ok(0) => self.heard_eof = true,
                Ok(count) if self.service == ECHO => self.owed.extend(&scratch[..count]),
                // Nobody wants it, and yet it must be read: see `flush`.
                Ok(_) => {}
                // A short read proves nothing, only this does: data and EOF can share one event.
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            self.flush()?;
            budget -= 1;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.writable && self.sent < self.owed.len() {
            match self.stream.write(&self.owed[self.sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                // Fewer bytes than offered is the normal case: keep the place and go on.
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.sent == self.owed.len() {
            // A new one, not a cleared one: an idle connection keeps no buffer.
            (self.owed, self.sent) = (Vec::new(), 0);
            if !self.said_eof && (self.heard_eof || self.service == DAYTIME) {
                // Not a close: with input unread that is a reset, which can overtake what we have
                // just said. The peer hears EOF, and we listen until we hear its own.
                self.stream.shutdown(Shutdown::Write)?;
                self.said_eof = true;
            }
        }
        Ok(())
    }
}

struct Server {
    poll: Poll,
    listeners: Vec<(Token, TcpListener)>,
    connections: Slab<Connection>,
    /// The keys of connections with something to do: ready, left over or late.
    runnable: BTreeSet<usize>,
    /// Everybody gets equally long, so whose time is up next is in front.
    lingering: VecDeque<(Instant, usize)>,
    /// Whether somebody waits for whom there was no descriptor.
    exhausted: bool,
    scratch: Vec<u8>,
}

impl Server {
    /// One pass. All events are noted before anything is closed, and newcomers come last: so no
    /// event can hit a newcomer that was meant for an earlier owner of its slot.
    fn turn(&mut self, events: &mut Events) -> io::Result<()> {
        match self.poll.poll(events, self.timeout()) {
            // SIGSTOP and SIGCONT do this, even without a handler.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            outcome => outcome?,
        }
        let is_awaited = self.note_readiness(events);
        self.fire_timers();
        self.run_connections();
        if is_awaited || self.exhausted {
            self.accept();
        }
        Ok(())
    }

    fn timeout(&self) -> Option<Duration> {
        let again = (!self.runnable.is_empty()).then_some(Duration::ZERO);
        let until = self.lingering.front().map(|(until, _)| *until);
        let linger = until.map(|until| until.saturating_duration_since(Instant::now()));
        [again, linger, self.exhausted.then_some(RETRY)].into_iter().flatten().min()
    }

    /// Reads no socket and returns whether somebody waits to be accepted. An event is a hint: it
    /// means "try", and the call tells. What it does not name is not tried: on poll(2), a write
    /// that would block has unread bytes announced once more.
    fn note_readiness(&mut self, events: &Events) -> bool {
        for event in events {
            let key = event.token().0.wrapping_sub(FIRST);
            if let Some(connection) = self.connections.get_mut(key) {
                connection.readable |= event.is_readable() || event.is_read_closed();
                connection.writable |= event.is_writable() || event.is_write_closed();
                self.runnable.insert(key);
            }
        }
        events.iter().any(|event| event.token().0 < FIRST)
    }

    /// Only notes whose time is up: `is_over` judges, after the IO. By now the slot may be empty,
    /// or somebody else's.
    fn fire_timers(&mut self) {
        let due = self.lingering.partition_point(|(until, _)| *until <= Instant::now());
        self.runnable.extend(self.lingering.drain(..due).map(|(_, key)| key));
    }

    fn run_connections(&mut self) {
        for key in std::mem::take(&mut self.runnable) {
            let Some(connection) = self.connections.get_mut(key) else { continue };
            if connection.run(&mut self.scratch).is_err() || connection.is_over() {
                let mut connection = self.connections.remove(key);
                let _ = self.poll.registry().deregister(&mut connection.stream);
            } else if connection.wants_read() {
                // We stopped by choice, and mio promises another event only after `WouldBlock`.
                self.runnable.insert(key);
            }
        }
    }

    fn accept(&mut self) {
        let warned = std::mem::take(&mut self.exhausted);
        for (service, listener) in &self.listeners {
            loop {
                match listener.accept() {
                    Ok((mut stream, _)) => {
                        let entry = self.connections.vacant_entry();
                        let (key, token) = (entry.key(), Token(entry.key() + FIRST));
                        // Once, for both: what we want at a time is our business, not the kernel's.
                        let both = Interest::READABLE | Interest::WRITABLE;
                        // What fails here costs this one peer.
                        if self.poll.registry().register(&mut stream, token, both).is_ok() {
                            let connection = entry.insert(Connection::new(stream, *service));
                            self.lingering.extend(connection.until.map(|until| (until, key)));
                            self.runnable.insert(key);
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    // That one has gone before we took it; the next may be fine.
                    Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    // Out of descriptors, most likely. Those who wait are not announced again when
                    // one is free, so we try again every turn, and at least after `RETRY`.
                    Err(error) => {
                        if !warned {
                            let _ = writeln!(io::stderr(), "cannot accept for now: {error}");
                        }
                        self.exhausted = true;
                        break;
                    }
                }
            }
        }
    }
}

/// The time as `ctime(3)` writes it, in UTC, with CR LF for its LF.
pub fn ctime(time: SystemTime) -> String {
    const DAYS: &str = "ThuFriSatSunMonTueWed";
    const MONTHS: &str = "MarAprMayJunJulAugSepOctNovDecJanFeb";
    // A wall clock may lie; before 1970 it says 1970.
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years that begin in March: so the leap day is the last of its year, and everything repeats
    // after 400 years, which are 146,097 days.
    let (era, day) = ((days + 719_468) / 146_097, (days + 719_468) % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, year) = (day - (153 * month + 2) / 5 + 1, era * 400 + year + month / 10);
    let (weekday, month) =
        (&DAYS[(days % 7) as usize * 3..][..3], &MONTHS[month as usize * 3..][..3]);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{weekday} {month} {day:2} {hour:02}:{minute:02}:{second:02} {year}\r\n")
}

fn main() -> io::Result<()> {
    let mut args = std::env::args_os().skip(1).filter_map(|arg| arg.into_string().ok());
    let (poll, mut listeners) = (Poll::new()?, Vec::new());
    for (service, usual) in [(DAYTIME, "127.0.0.1:9999"), (ECHO, "127.0.0.1:12345")] {
        let addr = args.next().unwrap_or(usual.into()).parse().map_err(io::Error::other)?;
        let mut listener = TcpListener::bind(addr)?;
        poll.registry().register(&mut listener, service, Interest::READABLE)?;
        let name = ["daytime", "echo"][service.0];
        // Who listens to us may have gone; that is no reason to end.
        let _ = writeln!(io::stdout(), "{name} is listening on {}", listener.local_addr()?);
        listeners.push((service, listener));
    }
    let _ = writeln!(io::stdout(), "Ctrl-C, or any other signal, ends it.");
    let (connections, runnable, lingering) = (Slab::new(), BTreeSet::new(), VecDeque::new());
    let (exhausted, scratch) = (false, vec![0; SCRATCH]);
    let mut server =
        Server { poll, listeners, connections, runnable, lingering, exhausted, scratch };
    let mut events = Events::with_capacity(1024);
    loop {
        server.turn(&mut events)?;
    }
}
