//! What happened on each connection, as data: [`Ledger`], and the [`Book`] that keeps them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::entry::Entry;
use super::fault::{Effect, Fault};
use super::plan::ListenerState;
use crate::protocol::Address;
use crate::record::UPSTREAM;

/// Limit of the sizes in [`Ledger::write_sizes`]; later writes are only counted.
const WRITES_KEPT: usize = 64;

/// One side of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The server.
    We,
    /// The client.
    Peer,
}

/// The record of one connection: what the server did, not how TCP delivered it.
///
/// Times count from the start of the loop, on its monotonic clock. Everything that happens in one turn
/// has the same time.
#[derive(Debug, Clone, PartialEq, Eq)]
#[doc(alias("RecordedRequest", "request journal", "serve events"))]
#[non_exhaustive]
pub struct Ledger {
    /// The service's name.
    pub service: String,
    /// Sequence number within its service, counted from 1: the `N` of `#N` in a fault.
    pub id: u64,
    /// The client's address.
    pub peer: Address,
    /// When the connection was accepted.
    pub opened: Duration,
    /// When the connection ended; `None` while it is open.
    pub closed: Option<Duration>,
    /// Bytes that the server has read.
    pub bytes_in: u64,
    /// Bytes that the kernel has taken.
    pub bytes_out: u64,
    /// Writes of which the kernel took at least one byte.
    pub writes: u64,
    /// How many bytes the kernel took of each of the first 64 writes.
    pub write_sizes: Vec<usize>,
    /// Writes of which the kernel took less than the server offered.
    pub short_writes: u64,
    /// Writes that returned `WouldBlock`.
    pub blocked_writes: u64,
    /// Reads that returned `WouldBlock`.
    pub blocked_reads: u64,
    /// How long back-pressure kept the server from reading.
    pub unread: Duration,
    /// The side that ended its half first, by a FIN or by a reset.
    pub first_end: Option<Side>,
    /// The side that reset the connection.
    pub reset_by: Option<Side>,
    /// Why the connection ended, in words; empty while it is open.
    pub reason: String,
    /// The faults that took effect on this connection, in that order.
    pub faults: Vec<Fault>,
    /// Those of them that were removed, or whose duration has passed: the connection went on.
    pub healed: Vec<Fault>,
    /// The bytes that the server has read, if the book keeps them.
    pub received: Vec<u8>,
}

impl Ledger {
    pub(super) fn new(service: &str, id: u64, peer: Address, opened: Duration) -> Ledger {
        Ledger {
            service: service.to_owned(),
            id,
            peer,
            opened,
            closed: None,
            bytes_in: 0,
            bytes_out: 0,
            writes: 0,
            write_sizes: Vec::new(),
            short_writes: 0,
            blocked_writes: 0,
            blocked_reads: 0,
            unread: Duration::ZERO,
            first_end: None,
            reset_by: None,
            reason: String::new(),
            faults: Vec::new(),
            healed: Vec::new(),
            received: Vec::new(),
        }
    }

    /// Returns each fault, and whether it has ended: among equal ones, the earliest.
    pub(super) fn faults_and_ends(&self) -> Vec<(&Fault, bool)> {
        let mut healed: Vec<&Fault> = self.healed.iter().collect();
        let has_ended = |fault| {
            let at = healed.iter().position(|ended| *ended == fault);
            (fault, at.map(|at| healed.swap_remove(at)).is_some())
        };
        self.faults.iter().map(has_ended).collect()
    }

    pub(super) fn note_write(&mut self, offered: usize, taken: usize) {
        self.writes += 1;
        self.bytes_out += taken as u64;
        self.short_writes += u64::from(taken < offered);
        if self.write_sizes.len() < WRITES_KEPT {
            self.write_sizes.push(taken);
        }
    }

    pub(super) fn note_end(&mut self, side: Side, is_reset: bool) {
        self.first_end.get_or_insert(side);
        if is_reset {
            self.reset_by.get_or_insert(side);
        }
    }
}

impl fmt::Display for Ledger {
    /// Writes one row of a table.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = if self.closed.is_some() { &*self.reason } else { "open" };
        let towards = if self.service.ends_with(UPSTREAM) { "to" } else { "from" };
        write!(
            f,
            "{} #{} {towards} {}: {} bytes in, {} out, {end}",
            self.service, self.id, self.peer, self.bytes_in, self.bytes_out
        )?;
        for (fault, has_ended) in self.faults_and_ends() {
            write!(f, " [{fault}{}]", if has_ended { ", ended" } else { "" })?;
        }
        Ok(())
    }
}

pub(super) type Page = Arc<Mutex<Ledger>>;
type Reader = Arc<dyn Fn(Entry<'_>) + Send + Sync>;

/// Keeps the ledgers. Clones are the same book: a test holds one, the loop another.
#[derive(Clone)]
pub struct Book(Arc<Shared>);

struct Shared {
    pages: Mutex<Pages>,
    closed_one: Condvar,
    kept: usize,
    keeps_received: bool,
    reader: Option<Reader>,
}

#[derive(Default)]
struct Pages {
    /// The service of listeners that are bound from now on.
    serving: Arc<str>,
    counts: HashMap<String, u64>,
    newest: Option<Page>,
    /// Connections of our own, which fill a backlog: by their address.
    fillers: Vec<Address>,
    /// By service and id. A thread that holds a page may lock the book, but not the reverse.
    open: BTreeMap<(String, u64), Page>,
    ended: VecDeque<Ledger>,
    /// For each service, how many of the ledgers in `ended` were returned by a wait.
    taken: HashMap<String, u64>,
    /// The tasks that wait for a connection to end.
    wakers: Vec<Waker>,
}

impl Pages {
    fn take_ended(&mut self, service: &str) -> Option<Ledger> {
        let taken = self.taken.get(service).copied().unwrap_or(0);
        let mut of_service = self.ended.iter().filter(|ledger| ledger.service == service);
        let next = of_service.nth(usize::try_from(taken).ok()?).cloned()?;
        self.taken.insert(next.service.clone(), taken + 1);
        Some(next)
    }
}

impl fmt::Debug for Book {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Book").field("ended", &self.lock().ended).finish_non_exhaustive()
    }
}

impl Book {
    /// Creates a book that keeps the last `kept` ledgers of connections that ended.
    pub fn new(kept: usize) -> Book {
        Book::made(kept, false, None)
    }

    /// Creates a book that also keeps the bytes that the server reads.
    pub fn with_received(kept: usize) -> Book {
        Book::made(kept, true, None)
    }

    /// Creates a book that keeps no ledger of an ended connection, and calls `reader` with each entry
    /// on the loop's thread. `reader` must not call [`open`](Book::open) or
    /// [`with_open`](Book::with_open): the ledger of its entry is locked.
    pub fn read_by(reader: impl Fn(Entry<'_>) + Send + Sync + 'static) -> Book {
        Book::made(0, false, Some(Arc::new(reader)))
    }

    /// A book as `new` or `with_received` makes it, whose entries are read, too.
    pub(super) fn and_read_by(
        kept: usize,
        keeps_received: bool,
        reader: impl Fn(Entry<'_>) + Send + Sync + 'static,
    ) -> Book {
        Book::made(kept, keeps_received, Some(Arc::new(reader)))
    }

    fn made(kept: usize, keeps_received: bool, reader: Option<Reader>) -> Book {
        let (pages, closed_one) = (Mutex::default(), Condvar::new());
        Book(Arc::new(Shared { pages, closed_one, kept, keeps_received, reader }))
    }

    /// Names the service of all listeners that are bound from now on.
    pub fn serving(&self, service: &str) {
        self.lock().serving = service.into();
    }

    /// Returns the ledgers of the connections that ended, in that order, as far as they are kept.
    pub fn ended(&self) -> Vec<Ledger> {
        self.lock().ended.iter().cloned().collect()
    }

    /// Returns the ledgers of the connections that are open, as of now, by service and id.
    pub fn open(&self) -> Vec<Ledger> {
        self.with_open(|ledgers| ledgers.iter().copied().cloned().collect())
    }

    /// Calls `see` with the ledgers of the connections that are open, by service and id.
    ///
    /// While `see` runs, none of them changes, and no [`Entry::Closed`] about them is read.
    pub fn with_open<T>(&self, see: impl FnOnce(&[&Ledger]) -> T) -> T {
        // The book is unlocked before any page is locked.
        let pages: Vec<Page> = self.lock().open.values().cloned().collect();
        let mut locked: Vec<_> = pages.iter().map(|page| lock(page)).collect();
        locked.retain(|ledger| ledger.closed.is_none());
        see(&locked.iter().map(|ledger| &**ledger).collect::<Vec<_>>())
    }

    /// Returns how many connections of a service were accepted.
    pub fn accepted(&self, service: &str) -> u64 {
        self.lock().counts.get(service).copied().unwrap_or(0)
    }

    /// Waits for the next connection of a service to end, and returns each once, in that order. If
    /// none ends within `patience`, returns `None`.
    pub fn next_ended(&self, service: &str, patience: Duration) -> Option<Ledger> {
        let mut next = None;
        let waits = |pages: &mut Pages| {
            next = pages.take_ended(service);
            next.is_none()
        };
        drop(self.0.closed_one.wait_timeout_while(self.lock(), patience, waits));
        next
    }

    /// Like [`next_ended`](Book::next_ended), for a task.
    pub(super) fn poll_ended(&self, service: &str, cx: &mut Context<'_>) -> Poll<Ledger> {
        let mut pages = self.lock();
        if let Some(ledger) = pages.take_ended(service) {
            return Poll::Ready(ledger);
        }
        if !pages.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            pages.wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }

    pub(super) fn service(&self) -> Arc<str> {
        Arc::clone(&self.lock().serving)
    }

    pub(super) fn keeps_received(&self) -> bool {
        self.0.keeps_received
    }

    /// Begins the ledger of a connection. The connection to the server behind a proxy has the id of its
    /// client's; others are counted.
    pub(super) fn begin(
        &self,
        service: &str,
        of_client: Option<u64>,
        peer: Address,
        opened: Duration,
    ) -> Page {
        let mut pages = self.lock();
        let count = pages.counts.entry(service.to_owned()).or_default();
        *count += 1;
        let id = of_client.unwrap_or(*count);
        let page = Arc::new(Mutex::new(Ledger::new(service, id, peer, opened)));
        // Locked before it is in the book: `with_open` sees it after the reader has.
        let ledger = lock(&page);
        pages.newest = Some(Arc::clone(&page));
        pages.open.insert((service.to_owned(), id), Arc::clone(&page));
        drop(pages);
        self.read(match of_client {
            None => Entry::Accepted(&ledger),
            Some(_) => Entry::Connecting(&ledger),
        });
        drop(ledger);
        page
    }

    /// Returns the ledger that was begun last. Call it right after an accept.
    pub(super) fn newest(&self) -> Option<Page> {
        self.lock().newest.take()
    }

    /// Names a connection of our own, so that it is dropped when it is accepted, and no ledger is kept.
    pub(super) fn add_filler(&self, addr: Address) {
        self.lock().fillers.push(addr);
    }

    /// Forgets a connection of our own; returns whether it was one.
    pub(super) fn is_our_own(&self, addr: &Address) -> bool {
        let fillers = &mut self.lock().fillers;
        let at = fillers.iter().position(|filler| filler == addr);
        at.is_some_and(|at| fillers.swap_remove(at) == *addr)
    }

    pub(super) fn close(&self, ledger: &Ledger) {
        self.read(Entry::Closed(ledger));
        let mut pages = self.lock();
        pages.open.remove(&(ledger.service.clone(), ledger.id));
        if self.0.kept == 0 {
            return;
        }
        if pages.ended.len() == self.0.kept {
            if let Some(gone) = pages.ended.pop_front() {
                let taken = pages.taken.entry(gone.service).or_default();
                *taken = taken.saturating_sub(1);
            }
        }
        pages.ended.push_back(ledger.clone());
        let wakers = std::mem::take(&mut pages.wakers);
        drop(pages);
        self.0.closed_one.notify_all();
        for waker in wakers {
            waker.wake();
        }
    }

    /// Writes down that a fault begins to act on the connection of a page, or stops.
    pub(super) fn fault_acts(&self, page: &Page, fault: &Fault, begins: bool) {
        let mut ledger = lock(page);
        let of_kind = if begins { &mut ledger.faults } else { &mut ledger.healed };
        of_kind.push(fault.clone());
        if self.0.reader.is_some() {
            let (service, number) = (ledger.service.clone(), Some(ledger.id));
            drop(ledger);
            let fault = &fault.to_string();
            self.read(Entry::FaultActs { service: &service, number, fault, begins });
        }
    }

    /// Reports that the fault of a listener ends, and that the next one begins.
    pub(super) fn listener_changed(&self, service: &str, was: ListenerState, is: ListenerState) {
        for (state, begins) in [(was, false), (is, true)] {
            let effect = match state {
                _ if was == is || self.0.reader.is_none() => continue,
                ListenerState::Accepting => continue,
                ListenerState::Idle => Effect::NeverAccept,
                ListenerState::Full => Effect::Unreachable,
                ListenerState::Closed => Effect::Refuse,
            };
            let fault = &format!("{service}: {effect}");
            self.read(Entry::FaultActs { service, number: None, fault, begins });
        }
    }

    pub(super) fn read(&self, entry: Entry<'_>) {
        if let Some(reader) = &self.0.reader {
            reader(entry);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pages> {
        self.0.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Locks a ledger. No call leaves one half written, so a panic elsewhere does not matter.
pub(super) fn lock(page: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    page.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_book_of_any_size_drops_the_pages_of_ended_connections() {
        for kept in [0, 1] {
            let book = Book::new(kept);
            let peer = Address::from(std::path::PathBuf::from("/peer"));
            let begin = || book.begin("echo", None, peer.clone(), Duration::ZERO);
            let pages: Vec<_> = (0..3).map(|_| begin()).collect();
            for page in &pages {
                let mut ledger = lock(page);
                ledger.closed = Some(Duration::ZERO);
                book.close(&ledger);
            }
            let _open = begin();
            assert_eq!(book.lock().open.len(), 1);
            assert_eq!(book.open().iter().map(|ledger| ledger.id).collect::<Vec<_>>(), [4]);
            assert_eq!(book.ended().len(), kept);
        }
    }
}
