//! Relay: passes every byte of a client on to a server, and every byte back.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::net::ToSocketAddrs;
use std::rc::Rc;

use crate::protocol::{Accepted, Address, CloseReason, ConnId, Outbox, Protocol};

/// The server behind a relay: its addresses, and the end of a client if none of them can be reached.
///
/// ```
/// use campanile::{Address, services::Upstream};
///
/// let by_name = Upstream::resolve("localhost:6379")?;
/// let unix: Address = "unix:/run/db.sock".parse()?;
/// let by_path = Upstream::from(unix).close_on_failure(true);
/// assert!(!by_name.addrs().is_empty() && by_path.addrs().len() == 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Upstream {
    addrs: Vec<Address>,
    closes_on_failure: bool,
}

impl Upstream {
    /// Creates an upstream with several addresses. The relay tries them in this order.
    pub fn new(addrs: impl IntoIterator<Item = impl Into<Address>>) -> Upstream {
        let addrs = addrs.into_iter().map(Into::into).collect();
        Upstream { addrs, closes_on_failure: false }
    }

    /// Resolves a name to its addresses. The call asks the system's resolver and may block, so make it
    /// before the loop starts.
    ///
    /// # Errors
    /// Fails if the name cannot be resolved or has no address.
    pub fn resolve(name: impl ToSocketAddrs) -> io::Result<Upstream> {
        let upstream = Upstream::new(name.to_socket_addrs()?);
        if upstream.addrs.is_empty() {
            let text = "cannot resolve the upstream: the name has no address; check the name";
            return Err(io::Error::new(io::ErrorKind::NotFound, text));
        }
        Ok(upstream)
    }

    /// Sets whether a client is closed with a FIN if no address can be reached. Default: false, which
    /// resets it.
    #[must_use]
    pub fn close_on_failure(self, closes_on_failure: bool) -> Upstream {
        Upstream { closes_on_failure, ..self }
    }

    /// Returns the addresses.
    #[must_use]
    pub fn addrs(&self) -> &[Address] {
        &self.addrs
    }
}

impl<A: Into<Address>> From<A> for Upstream {
    fn from(addr: A) -> Upstream {
        Upstream::new([addr])
    }
}

/// The addresses as text, separated by commas.
impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, addr) in self.addrs.iter().enumerate() {
            write!(f, "{}{addr}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// Creates a [`Relay`] to `upstream` for every connection.
///
/// ```
/// use std::io::{Read, Write};
/// use std::net::{Shutdown, TcpStream};
/// use campanile::{Background, Limits, echo, relay};
///
/// let (server, front) = Background::start(Limits::default(), |reactor| {
///     let behind = reactor.listen("127.0.0.1:0", echo())?;
///     reactor.listen("127.0.0.1:0", relay(behind))
/// })?;
///
/// let mut client = TcpStream::connect(front)?;
/// client.write_all(b"Hello, world")?;
/// client.shutdown(Shutdown::Write)?;
/// let mut back = String::new();
/// client.read_to_string(&mut back)?;
/// assert_eq!(back, "Hello, world");
/// # std::io::Result::Ok(())
/// ```
pub fn relay(upstream: impl Into<Upstream>) -> impl FnMut(&Accepted) -> Relay + Clone {
    let upstream = upstream.into();
    let shared = Rc::new(Shared { upstream, is_down: Cell::default() });
    move |_: &Accepted| Relay::client(&shared)
}

/// One of the two connections of a relayed conversation: that of the client or that to the server.
///
/// Bytes are passed on in both directions, and the end of a half as well, in its order. At most
/// [`Limits::high_water`](crate::Limits::high_water) and one read buffer of bytes wait in each direction;
/// then the sender is not read until the receiver has read. The client is read while the server's
/// connection is being made, within the same bound. If one connection fails, the other one is reset.
/// After the EOF of the failed one it is closed instead, because it has received everything. A reset that
/// follows an EOF is noticed only by the next write to that peer, or by a timeout: a client that has
/// ended its half and then goes away keeps the server's connection until the server sends or ends.
///
/// The addresses of the [`Upstream`] are tried in turn. If none can be reached, the client is reset. The
/// log has the reason, as a warning for the first client and at debug level for the next ones.
///
/// A conversation takes two of [`Limits::max_connections`](crate::Limits::max_connections). A program
/// that sends to one of its connections uses a [`Handle`](crate::Handle), not
/// [`Outbox::message`], whose bytes the relay would take for its own.
#[derive(Debug)]
pub struct Relay {
    shared: Rc<Shared>,
    /// Holds the bytes for this connection, and its state.
    this: Rc<End>,
    other: Rc<End>,
    /// The index of the address to which the server's connection is made. `None` for a client.
    address: Option<usize>,
}

/// State of all conversations of one listener.
#[derive(Debug)]
struct Shared {
    upstream: Upstream,
    /// The last attempt to connect has failed.
    is_down: Cell<bool>,
}

/// State of one connection that both connections of a conversation use.
#[derive(Debug, Default)]
struct End {
    /// `None` until the connection is open.
    id: Cell<Option<ConnId>>,
    pipe: RefCell<Pipe>,
    /// How this connection must end, because the other one has failed.
    fate: Cell<Option<Fate>>,
}

/// What is on its way to one connection.
#[derive(Debug, Default)]
struct Pipe {
    /// Bytes that came before the connection was open.
    early: Vec<u8>,
    /// Bytes in messages that were requested and have not arrived.
    coming: usize,
    /// The sender has ended its half: the receiver ends its half after the bytes.
    has_ended: bool,
    /// The sender has paused, because the receiver holds too much.
    is_full: bool,
    /// The length of the receiver's send queue after its last call, before the write.
    unsent: usize,
}

#[derive(Debug, Clone, Copy)]
enum Fate {
    Reset,
    Close,
}

impl Relay {
    fn client(shared: &Rc<Shared>) -> Relay {
        let (this, other) = Default::default();
        Relay { shared: Rc::clone(shared), this, other, address: None }
    }

    /// Begins to connect to the upstream's address with this index, on behalf of `client`.
    fn connect(
        shared: &Rc<Shared>,
        client: &Rc<End>,
        server: &Rc<End>,
        at: usize,
        out: &mut Outbox,
    ) {
        let Some(addr) = shared.upstream.addrs.get(at) else { return };
        let (this, other) = (Rc::clone(server), Rc::clone(client));
        out.connect(
            addr.clone(),
            Relay { shared: Rc::clone(shared), this, other, address: Some(at) },
        );
    }

    fn wake_other(&self, out: &mut Outbox) {
        if let Some(id) = self.other.id.get() {
            out.wake(id);
        }
    }

    /// Counts `arrived` bytes as delivered. If no message is on its way any more, ends this half if the
    /// other peer has ended its own, and lets a paused peer go on.
    fn pull(&self, arrived: usize, out: &mut Outbox) {
        let mut pipe = self.this.pipe.borrow_mut();
        // A message of a `Handle` was not announced.
        pipe.coming = pipe.coming.saturating_sub(arrived);
        pipe.unsent = out.unsent();
        if pipe.coming > 0 {
            return;
        }
        if pipe.has_ended {
            out.half_close();
        }
        if pipe.is_full && !out.is_congested() {
            pipe.is_full = false;
            self.wake_other(out);
        }
    }

    /// Ends the other connection, because this one has ended early.
    fn fail(&self, fate: Fate, out: &mut Outbox) {
        self.other.fate.set(Some(fate));
        self.wake_other(out);
    }

    /// Tries the next address; after the last one, ends the client.
    fn on_connect_failed(&self, at: usize, error: &io::Error, out: &mut Outbox) {
        let Shared { upstream, is_down, .. } = &*self.shared;
        let text = format!("cannot connect to the upstream {}: {error}", upstream.addrs[at]);
        if at + 1 < upstream.addrs.len() && self.this.fate.get().is_none() {
            log::debug!("{text}; trying the next address");
            return Relay::connect(&self.shared, &self.other, &self.this, at + 1, out);
        }
        let (fate, done) = match upstream.closes_on_failure {
            true => (Fate::Close, "closed"),
            false => (Fate::Reset, "reset"),
        };
        let level = if is_down.replace(true) { log::Level::Debug } else { log::Level::Warn };
        log::log!(level, "{text}; clients are {done} until a server listens there");
        self.fail(fate, out);
    }
}

impl Protocol for Relay {
    fn on_open(&mut self, out: &mut Outbox) {
        self.this.id.set(Some(out.id()));
        // It sends what the other connection receives: `pause` bounds what is read.
        out.read_while_congested(true);
        match self.address {
            None if self.shared.upstream.addrs.is_empty() => out.abort(),
            None => Relay::connect(&self.shared, &self.this, &self.other, 0, out),
            Some(at) => {
                if self.shared.is_down.replace(false) {
                    log::info!("the upstream {} can be reached", self.shared.upstream.addrs[at]);
                }
                out.send(&std::mem::take(&mut self.this.pipe.borrow_mut().early));
                self.on_wake(out);
            }
        }
    }

    fn on_data(&mut self, data: &[u8], out: &mut Outbox) {
        let mut pipe = self.other.pipe.borrow_mut();
        if let Some(id) = self.other.id.get() {
            pipe.coming += data.len();
            out.message(id, data);
        } else {
            pipe.early.extend_from_slice(data);
        }
        if pipe.early.len() + pipe.coming + pipe.unsent >= out.high_water {
            pipe.is_full = true;
            out.pause();
        }
    }

    fn on_message(&mut self, bytes: &[u8], out: &mut Outbox) {
        out.send(bytes);
        self.pull(bytes.len(), out);
    }

    fn on_eof(&mut self, out: &mut Outbox) {
        let mut pipe = self.other.pipe.borrow_mut();
        pipe.has_ended = true;
        if pipe.coming == 0 {
            self.wake_other(out);
        }
    }

    fn on_drain(&mut self, out: &mut Outbox) {
        self.pull(0, out);
    }

    /// An EOF has come for this connection, the other one has room again, or the other one has failed.
    fn on_wake(&mut self, out: &mut Outbox) {
        match self.this.fate.get() {
            Some(Fate::Reset) => return out.abort(),
            Some(Fate::Close) => {
                self.pull(0, out);
                return out.close();
            }
            None => self.pull(0, out),
        }
        if !self.other.pipe.borrow().is_full {
            out.resume();
        }
    }

    fn on_close_with(&mut self, reason: &CloseReason, out: &mut Outbox) {
        let (this, other) = (self.this.pipe.borrow().has_ended, self.other.pipe.borrow().has_ended);
        match (reason, self.address) {
            (CloseReason::ConnectFailed(error), Some(at)) => self.on_connect_failed(at, error, out),
            // Both halves have been passed on: the other connection ends by itself.
            (CloseReason::Finished, _) if this && other => {}
            (CloseReason::Finished, _) => self.fail(Fate::Close, out),
            // The other peer gets everything that this one has sent, and then EOF.
            _ if other => self.fail(Fate::Close, out),
            // Bytes of this peer may be missing.
            _ => self.fail(Fate::Reset, out),
        }
    }
}
