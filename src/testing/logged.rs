//! [`Logged`]: a kernel that keeps a ledger of each connection in a [`Book`].

use std::cell::Cell;
use std::io::{self, ErrorKind, Read, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::entry::Entry;
use super::ledger::{Book, Page, Side, lock};
use crate::connection::{Snapshot, Stream};
use crate::kernel::{Event, Kernel, Phase, Wake};
use crate::limits::Limits;
use crate::protocol::{Address, CloseReason, ConnId};
use crate::record::upstream_of;

/// A kernel that keeps a [`Ledger`](super::Ledger) of each accepted connection, and otherwise does
/// what the kernel inside does.
#[derive(Debug)]
pub struct Logged<K: Kernel> {
    inner: K,
    book: Book,
    began: Instant,
    now: Rc<Cell<Instant>>,
    /// By slab key, the connection registered there last.
    slots: Vec<Option<Slot>>,
}

#[derive(Debug)]
struct Slot {
    page: Page,
    /// Of the connection's id; 0 before its first run is over.
    ordinal: u64,
    unread_since: Option<Instant>,
}

impl<K: Kernel> Logged<K> {
    /// Records the connections of `inner` in `book`.
    pub fn new(inner: K, book: &Book) -> Logged<K> {
        let began = inner.now();
        let now = Rc::new(Cell::new(began));
        Logged { inner, book: book.clone(), began, now, slots: Vec::new() }
    }

    fn log(&self, page: Page) -> Log {
        Log { page, book: self.book.clone(), began: self.began, now: Rc::clone(&self.now) }
    }

    /// Returns the ledger of a connection that is registered, or was until now.
    fn page_of(&self, id: ConnId) -> Option<Page> {
        let slot = self.slots.get(id.key as usize)?.as_ref()?;
        (slot.ordinal == id.ordinal()).then(|| Arc::clone(&slot.page))
    }

    fn wrap(
        &self,
        inner: K::Listener,
        _key: usize,
        _limits: &Limits,
    ) -> io::Result<LoggedListener<K::Listener>> {
        Ok(LoggedListener { inner, service: self.book.service() })
    }
}

/// A listener, and the name of its service.
#[derive(Debug)]
pub struct LoggedListener<L> {
    inner: L,
    service: Arc<str>,
}

impl<K: Kernel> Kernel for Logged<K> {
    type Stream = LoggedStream<K::Stream>;
    type Listener = LoggedListener<K::Listener>;

    forward! { poll events capacity waker watch phase wrapped_listeners }

    fn now(&self) -> Instant {
        self.now.set(self.inner.now());
        self.now.get()
    }

    fn local_addr(&self, listener: &Self::Listener) -> io::Result<Address> {
        self.inner.local_addr(&listener.inner)
    }

    fn accept(&mut self, listener: &mut Self::Listener) -> io::Result<(Self::Stream, Address)> {
        let service = &listener.service;
        let (inner, peer) = loop {
            let (inner, peer) = self.inner.accept(&mut listener.inner).inspect_err(|error| {
                if error.kind() != ErrorKind::WouldBlock {
                    self.book.read(Entry::AcceptError { service, error: &error.to_string() });
                }
            })?;
            if !self.book.is_our_own(&peer) {
                break (inner, peer);
            }
        };
        let opened = self.now.get() - self.began;
        let log = Some(self.log(self.book.begin(service, None, peer.clone(), opened)));
        Ok((LoggedStream { inner, log }, peer))
    }

    fn set_backlog(&mut self, listener: &Self::Listener, backlog: u32) -> io::Result<()> {
        self.inner.set_backlog(&listener.inner, backlog)
    }

    fn rearm(&mut self, listener: &mut Self::Listener, key: usize) -> io::Result<()> {
        self.inner.rearm(&mut listener.inner, key)
    }

    /// A connection that one of a service has asked for is the other side of a proxied conversation: it
    /// has a ledger with the same id. Other outgoing connections have none.
    fn connect(
        &mut self,
        addr: &Address,
        limits: &Limits,
        parent: Option<ConnId>,
    ) -> io::Result<Self::Stream> {
        let inner = self.inner.connect(addr, limits, parent)?;
        let log = parent.and_then(|parent| self.page_of(parent)).map(|page| {
            let (service, id) = {
                let ledger = lock(&page);
                (upstream_of(&ledger.service), ledger.id)
            };
            let opened = self.now.get() - self.began;
            self.log(self.book.begin(&service, Some(id), addr.clone(), opened))
        });
        Ok(LoggedStream { inner, log })
    }

    fn register(&mut self, stream: &mut Self::Stream, key: usize, writes: bool) -> io::Result<()> {
        if key >= self.slots.len() {
            self.slots.resize_with(key + 1, || None);
        }
        let page = stream.log.as_ref().map(|log| Arc::clone(&log.page));
        self.slots[key] = page.map(|page| Slot { page, ordinal: 0, unread_since: None });
        self.inner.register(&mut stream.inner, key, writes)
    }

    fn observe(&mut self, id: ConnId, view: impl FnOnce() -> Snapshot) {
        let view = view();
        if let Some(Some(slot)) = self.slots.get_mut(id.key as usize) {
            let (mut ledger, now) = (lock(&slot.page), self.now.get());
            // If the ledger is closed, the slot is another connection's now: one that ends in its first
            // run is never registered.
            if ledger.closed.is_none() {
                slot.ordinal = id.ordinal();
                let since = slot.unread_since.take();
                ledger.unread += since.map_or(Duration::ZERO, |since| now - since);
                slot.unread_since = view.congested.then_some(now);
            }
        }
        self.inner.observe(id, || view);
    }
}

/// A stream whose ledger is kept.
#[derive(Debug)]
pub struct LoggedStream<S> {
    inner: S,
    log: Option<Log>,
}

#[derive(Debug)]
struct Log {
    page: Page,
    book: Book,
    began: Instant,
    now: Rc<Cell<Instant>>,
}

impl Log {
    fn end(&self, reason: &str, is_peer_reset: bool) {
        let mut ledger = lock(&self.page);
        if ledger.closed.is_none() {
            ledger.closed = Some(self.now.get() - self.began);
            ledger.reason = reason.to_owned();
            if is_peer_reset {
                ledger.note_end(Side::Peer, true);
            }
            self.book.close(&ledger);
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.end("dropped before it was served", false);
    }
}

impl<S> LoggedStream<S> {
    /// Writes, and counts the bytes in the ledger. The ledger is locked meanwhile: once a client has
    /// received the bytes, its test reads a ledger that counts them.
    fn counted(
        &mut self,
        offered: usize,
        write: impl FnOnce(&mut S) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let Some(log) = &self.log else { return write(&mut self.inner) };
        let mut ledger = lock(&log.page);
        let outcome = write(&mut self.inner);
        match &outcome {
            Ok(taken) => ledger.note_write(offered, *taken),
            Err(error) if error.kind() == ErrorKind::WouldBlock => ledger.blocked_writes += 1,
            Err(_) => {}
        }
        outcome
    }
}

impl<S: Stream> Read for LoggedStream<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let outcome = self.inner.read(buffer);
        if let Some(log) = &self.log {
            let mut ledger = lock(&log.page);
            match &outcome {
                Ok(0) => ledger.note_end(Side::Peer, false),
                Ok(count) => {
                    ledger.bytes_in += *count as u64;
                    if log.book.keeps_received() {
                        ledger.received.extend_from_slice(&buffer[..*count]);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => ledger.blocked_reads += 1,
                Err(_) => {}
            }
        }
        outcome
    }
}

impl<S: Stream> Write for LoggedStream<S> {
    forward! { flush }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.counted(bytes.len(), |inner| inner.write(bytes))
    }
}

impl<S: Stream> Stream for LoggedStream<S> {
    forward! { connected local_addr is_held }

    fn shutdown_write(&mut self) -> io::Result<()> {
        let Some(log) = &self.log else { return self.inner.shutdown_write() };
        let mut ledger = lock(&log.page);
        self.inner.shutdown_write()?;
        ledger.note_end(Side::We, false);
        Ok(())
    }

    fn abort(&mut self) {
        if let Some(log) = &self.log {
            lock(&log.page).note_end(Side::We, true);
        }
        self.inner.abort();
    }

    fn write_last(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.counted(bytes.len(), |inner| inner.write_last(bytes))
    }

    fn ended(&mut self, reason: &CloseReason) {
        self.inner.ended(reason);
        if let Some(log) = &self.log {
            log.end(&reason.to_string(), reason.is_peer_reset());
        }
    }
}
