//! Two TCP servers in one thread, on one `Poll`: daytime (RFC 867) sends the time and closes, echo
//! (RFC 862) sends every byte back. One file, with mio and slab. After a short write it sends the rest
//! later. It does not read from a peer that does not read. It answers a half-closed peer in full. It
//! goes on when no descriptor is free.
//!
//! Run it with `cargo run --example one_file`, or with two addresses, `-- 127.0.0.1:0 127.0.0.1:0`.
//! It prints its addresses, and runs until a signal (Ctrl-C) ends it.
//! Try `nc 127.0.0.1 9999` and `nc 127.0.0.1 12345`.
//!
//! Look at `Connection::run`: readiness is *stored*. An event sets it, only `WouldBlock` clears it,
//! and `wants_read` decides whether it is used. So a connection is registered once, for reading and
//! writing, and back-pressure means only that the server does not read.
//!
//! Left out: timeouts for idle peers and peers that do not read, an orderly shutdown, time zones.

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

/// The most bytes of one read, and so the most unsent bytes of one connection.
const SCRATCH: usize = 64 * 1024;
/// The most reads of one connection in one turn.
const BUDGET: usize = 16;
/// How long the server waits for the EOF of a peer that has received the time.
const LINGER: Duration = Duration::from_secs(2);
/// The pause before the next accept after descriptors have run out.
const RETRY: Duration = Duration::from_millis(100);

/// One conversation. Each of its two halves ends by itself: `eof_read` is the end of the peer's half,
/// `fin_sent` the end of ours.
struct Connection {
    stream: TcpStream,
    service: Token,
    /// Bytes for the peer; the kernel has taken the first `sent` of them.
    queue: Vec<u8>,
    sent: usize,
    readable: bool,
    writable: bool,
    eof_read: bool,
    fin_sent: bool,
    until: Option<Instant>,
}

impl Connection {
    fn new(stream: TcpStream, service: Token) -> Connection {
        let (queue, until) = match service {
            DAYTIME => (ctime(SystemTime::now()).into_bytes(), Some(Instant::now() + LINGER)),
            _ => (Vec::new(), None),
        };
        // TCP sends a small answer at once, and does not wait for an acknowledgement.
        let _ = stream.set_nodelay(true);
        // Readable and writable is a guess: if it is wrong, the first call returns `WouldBlock`.
        let (sent, readable, writable, eof_read, fin_sent) = (0, true, true, false, false);
        Connection { stream, service, queue, sent, readable, writable, eof_read, fin_sent, until }
    }

    /// While bytes are unsent, we do not read: the peer's window closes, and our memory stays small.
    /// `readable` stays set meanwhile, because no second event reports the same bytes.
    fn wants_read(&self) -> bool {
        self.readable && !self.eof_read && self.queue.is_empty()
    }

    fn is_over(&self) -> bool {
        let is_late = self.until.is_some_and(|until| until <= Instant::now());
        is_late || (self.eof_read && self.fin_sent)
    }

    /// Reads and writes as far as possible without blocking, within the budget. An error ends this
    /// connection only.
    fn run(&mut self, scratch: &mut [u8]) -> io::Result<()> {
        let mut budget = BUDGET;
        self.flush()?;
        while self.wants_read() && budget > 0 {
            match self.stream.read(scratch) {
                // The peer sends no more, but it still reads: the queue is sent first.
                Ok(0) => self.eof_read = true,
                Ok(count) if self.service == ECHO => self.queue.extend(&scratch[..count]),
                // The daytime service ignores the bytes, but they must be read: see `flush`.
                Ok(_) => {}
                // Only this proves that no byte is left. A short read does not: data and EOF can
                // share one event.
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
        while self.writable && self.sent < self.queue.len() {
            match self.stream.write(&self.queue[self.sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                // Fewer bytes than offered is the normal case: move the cursor and go on.
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.sent == self.queue.len() {
            // A new vector, not a cleared one: an idle connection keeps no buffer.
            (self.queue, self.sent) = (Vec::new(), 0);
            if !self.fin_sent && (self.eof_read || self.service == DAYTIME) {
                // Not a close: with bytes unread, a close sends a reset, which can destroy the last
                // bytes. The peer reads EOF, and we read until its own EOF.
                self.stream.shutdown(Shutdown::Write)?;
                self.fin_sent = true;
            }
        }
        Ok(())
    }
}

struct Server {
    poll: Poll,
    listeners: Vec<(Token, TcpListener)>,
    connections: Slab<Connection>,
    /// The keys of connections that run in this turn: with an event, work left over, or a deadline.
    runnable: BTreeSet<usize>,
    /// All have the same timeout, so the next deadline is in front.
    lingering: VecDeque<(Instant, usize)>,
    /// The last accept found no descriptor: a client may be waiting.
    exhausted: bool,
    scratch: Vec<u8>,
}

impl Server {
    /// One pass of the loop. It stores all events before it closes a connection, and accepts last. So
    /// no event reaches a new connection that has the slot of a closed one.
    fn turn(&mut self, events: &mut Events) -> io::Result<()> {
        match self.poll.poll(events, self.timeout()) {
            // SIGSTOP and SIGCONT interrupt the sleep, even without a handler.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            outcome => outcome?,
        }
        let may_accept = self.note_readiness(events);
        self.fire_timers();
        self.run_connections();
        if may_accept || self.exhausted {
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

    /// Stores the events and returns whether a listener has one. An event is a hint: only the next
    /// call shows whether it holds. A half without an event is not tried: on poll(2), a write that
    /// would block makes mio report unread bytes once more.
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

    /// Makes each connection with a due deadline runnable; `is_over` checks the deadline, after the IO.
    /// The slot can be empty by now, or have another owner.
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
                // The budget is spent, and mio promises another event only after `WouldBlock`.
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
                        // Registered once, for both: `wants_read` decides what is used.
                        let both = Interest::READABLE | Interest::WRITABLE;
                        // If this fails, only this connection is lost.
                        if self.poll.registry().register(&mut stream, token, both).is_ok() {
                            let connection = entry.insert(Connection::new(stream, *service));
                            self.lingering.extend(connection.until.map(|until| (until, key)));
                            self.runnable.insert(key);
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    // This client has gone before it was accepted; the next one may be fine.
                    Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    // Probably no descriptor is free. No event reports the waiting clients again,
                    // so we try again every turn, and at the latest after `RETRY`.
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
    // A clock that is set before 1970 counts as 1970.
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // These years begin in March, so the leap day is the last day of its year. The calendar repeats
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
        // The reader of our output may have gone; the server goes on.
        let _ = writeln!(io::stdout(), "{name} is listening on {}", listener.local_addr()?);
        listeners.push((service, listener));
    }
    let _ = writeln!(io::stdout(), "To end both servers, press Ctrl-C.");
    let (connections, runnable, lingering) = (Slab::new(), BTreeSet::new(), VecDeque::new());
    let (exhausted, scratch) = (false, vec![0; SCRATCH]);
    let mut server =
        Server { poll, listeners, connections, runnable, lingering, exhausted, scratch };
    let mut events = Events::with_capacity(1024);
    loop {
        server.turn(&mut events)?;
    }
}
