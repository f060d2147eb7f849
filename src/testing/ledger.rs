//! What happened on each connection, as data: [`Ledger`], and the [`Book`] that keeps them.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::fault::{Effect, Fault};
use super::plan::Door;
use crate::protocol::Address;
use crate::record::Recorder;

/// Sizes of writes that are kept; later ones are only counted.
const WRITES_KEPT: usize = 64;

/// One end of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The server.
    We,
    /// The client.
    Peer,
}

/// What happened on one connection: what *we* did, never how TCP delivered it.
///
/// Times are monotonic, since the loop began, and those of the turn.
#[derive(Debug, Clone, PartialEq, Eq)]
#[doc(alias("RecordedRequest", "request journal", "serve events"))]
#[non_exhaustive]
pub struct Ledger {
    /// The service's name.
    pub service: String,
    /// Sequence number within its service, counted from 1: the `N` of `#N` in a fault.
    pub number: u64,
    /// The far end.
    pub peer: Address,
    /// When it was accepted.
    pub opened: Duration,
    /// When it ended.
    pub closed: Option<Duration>,
    /// Bytes read.
    pub bytes_in: u64,
    /// Bytes the kernel took.
    pub bytes_out: u64,
    /// Writes of which the kernel took something.
    pub writes: u64,
    /// How many bytes it took of each of the first 64.
    pub write_sizes: Vec<usize>,
    /// Writes of which it took less than was offered.
    pub short_writes: u64,
    /// Writes it refused for the time being.
    pub blocked_writes: u64,
    /// Reads that found nothing.
    pub blocked_reads: u64,
    /// How long we did not read because too much was owed.
    pub unread: Duration,
    /// Who ended a half first, by a FIN or by a reset.
    pub first_end: Option<Side>,
    /// Who reset the connection.
    pub reset_by: Option<Side>,
    /// How it ended, in words; empty while it has not.
    pub reason: String,
    /// The faults that came into force, in that order.
    pub faults: Vec<Fault>,
    /// What was read, if the book keeps it.
    pub received: Vec<u8>,
}

impl Ledger {
    pub(super) fn new(service: &str, number: u64, peer: Address, opened: Duration) -> Ledger {
        Ledger {
            service: service.to_owned(),
            number,
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
            received: Vec::new(),
        }
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
    /// One line of a table.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = if self.closed.is_some() { &*self.reason } else { "open" };
        write!(
            f,
            "{} #{} from {}: {} bytes in, {} out, {end}",
            self.service, self.number, self.peer, self.bytes_in, self.bytes_out
        )?;
        for fault in &self.faults {
            write!(f, " [{fault}]")?;
        }
        Ok(())
    }
}

/// Something that was written into a [`Book`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Entry<'a> {
    /// A connection was accepted.
    Accepted(&'a Ledger),
    /// A connection ended.
    Closed(&'a Ledger),
    /// accept(2) failed for another reason than that nobody waits.
    AcceptError {
        /// The listener's service.
        service: &'a str,
        /// What it failed with.
        error: &'a str,
    },
    /// A fault begins to act, or stops acting.
    FaultActs {
        /// The service that it is for.
        service: &'a str,
        /// The number of the connection within its service; `None` if it acts on the listeners.
        number: Option<u64>,
        /// The fault as text.
        fault: &'a str,
        /// Whether it begins or stops.
        begins: bool,
    },
}

impl Entry<'_> {
    /// Writes a fault that begins or stops into a recording. Other entries are not written, because the
    /// recorder sees the calls themselves.
    pub fn record(&self, recorder: &Recorder) {
        if let Entry::FaultActs { service, number, fault, begins } = *self {
            recorder.fault(service, number, fault, begins);
        }
    }
}

pub(super) type Page = Arc<Mutex<Ledger>>;
type Reader = Arc<dyn Fn(Entry<'_>) + Send + Sync>;

/// Where ledgers are kept. Clones are the same book: a test holds one, the loop another.
#[derive(Clone)]
pub struct Book(Arc<Shared>);

struct Shared {
    pages: Mutex<Pages>,
    turned: Condvar,
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
    ended: VecDeque<Ledger>,
    /// Of each service, how many ended ones were asked for.
    told: HashMap<String, u64>,
}

impl fmt::Debug for Book {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Book").field("ended", &self.lock().ended).finish_non_exhaustive()
    }
}

impl Book {
    /// A book that keeps the last `kept` ledgers of connections that ended.
    pub fn new(kept: usize) -> Book {
        Book::made(kept, false, None)
    }

    /// The same; the bytes that were read are kept, too.
    pub fn with_received(kept: usize) -> Book {
        Book::made(kept, true, None)
    }

    /// A book that keeps nothing and has each entry read by `reader`, on the loop's thread.
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
        let (pages, turned) = (Mutex::default(), Condvar::new());
        Book(Arc::new(Shared { pages, turned, kept, keeps_received, reader }))
    }

    /// Names the service of all listeners that are bound from now on.
    pub fn serving(&self, service: &str) {
        self.lock().serving = service.into();
    }

    /// The ledgers of connections that ended, in that order, as far as they are kept.
    pub fn ended(&self) -> Vec<Ledger> {
        self.lock().ended.iter().cloned().collect()
    }

    /// How many connections of a service were accepted.
    pub fn accepted(&self, service: &str) -> u64 {
        self.lock().counts.get(service).copied().unwrap_or(0)
    }

    /// Waits for the next connection of a service to end, each once and in that order; `None` if
    /// none did in time.
    pub fn next_ended(&self, service: &str, patience: Duration) -> Option<Ledger> {
        let next = |pages: &Pages| {
            let told = pages.told.get(service).copied().unwrap_or(0);
            let mut of_service = pages.ended.iter().filter(|ledger| ledger.service == service);
            of_service.nth(usize::try_from(told).ok()?).cloned()
        };
        let waits = |pages: &mut Pages| next(pages).is_none();
        let waited = self.0.turned.wait_timeout_while(self.lock(), patience, waits);
        let mut pages = waited.unwrap_or_else(PoisonError::into_inner).0;
        let found = next(&pages)?;
        *pages.told.entry(service.to_owned()).or_default() += 1;
        Some(found)
    }

    pub(super) fn service(&self) -> Arc<str> {
        Arc::clone(&self.lock().serving)
    }

    pub(super) fn keeps_received(&self) -> bool {
        self.0.keeps_received
    }

    pub(super) fn open(&self, service: &str, peer: Address, opened: Duration) -> Page {
        let mut pages = self.lock();
        let count = pages.counts.entry(service.to_owned()).or_default();
        *count += 1;
        let ledger = Ledger::new(service, *count, peer, opened);
        let page = Arc::new(Mutex::new(ledger.clone()));
        pages.newest = Some(Arc::clone(&page));
        drop(pages);
        self.read(Entry::Accepted(&ledger));
        page
    }

    /// The ledger that was opened last, to be asked for right after an accept.
    pub(super) fn newest(&self) -> Option<Page> {
        self.lock().newest.take()
    }

    pub(super) fn close(&self, ledger: &Ledger) {
        self.read(Entry::Closed(ledger));
        if self.0.kept == 0 {
            return;
        }
        let mut pages = self.lock();
        if pages.ended.len() == self.0.kept {
            if let Some(gone) = pages.ended.pop_front() {
                let told = pages.told.entry(gone.service).or_default();
                *told = told.saturating_sub(1);
            }
        }
        pages.ended.push_back(ledger.clone());
        drop(pages);
        self.0.turned.notify_all();
    }

    /// Writes down that a fault begins to act on the connection of a page, or stops.
    pub(super) fn fault_acts(&self, page: &Page, fault: &Fault, begins: bool) {
        let mut ledger = lock(page);
        if begins {
            ledger.faults.push(fault.clone());
        }
        if self.0.reader.is_some() {
            let (service, number) = (ledger.service.clone(), Some(ledger.number));
            drop(ledger);
            let fault = &fault.to_string();
            self.read(Entry::FaultActs { service: &service, number, fault, begins });
        }
    }

    /// Reports that the fault of a door ends, and that of the next one begins.
    pub(super) fn door_moved(&self, service: &str, was: Door, is: Door) {
        for (door, begins) in [(was, false), (is, true)] {
            let effect = match door {
                _ if was == is || self.0.reader.is_none() => continue,
                Door::Open => continue,
                Door::Shut => Effect::NeverAccept,
                Door::Gone => Effect::Refuse,
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

/// A ledger is whole whenever nobody holds its lock, whoever panicked.
pub(super) fn lock(page: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    page.lock().unwrap_or_else(PoisonError::into_inner)
}
