//! The faults in force, and which connection gets which. A seed and the number of the connection decide,
//! never the time.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::fault::{Effect, Fault, When, Who, Whom};
use super::random::{Random, hash};
use crate::kernel::Wake;

/// The faults that are in force. Clones are the same plan: a test holds one, the loop another.
#[derive(Clone)]
pub struct Plan(Arc<Shared>);

struct Shared {
    seed: u64,
    ignores_probes: bool,
    state: Mutex<State>,
    acknowledged: Condvar,
}

#[derive(Default)]
struct State {
    listed: Vec<Listed>,
    /// The `once` faults whose connection is gone: `remove` and `clear` still know them.
    spent: Vec<(u64, Fault)>,
    last_id: u64,
    /// Connections so far, by service.
    counts: HashMap<String, u64>,
    /// Changes of the plan, and how many of them the loop has acted on.
    changes: u64,
    acted_on: u64,
    /// The loop has ended, so it acts on no change any more.
    is_over: bool,
    waker: Option<Arc<dyn Wake>>,
}

/// A fault in force, as the plan and the connections share it.
#[derive(Debug)]
pub(super) struct Entry {
    id: u64,
    whom: Whom,
    pub(super) fault: Fault,
    is_over: AtomicBool,
}

impl Entry {
    /// Returns whether the fault was removed.
    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }
}

struct Listed {
    entry: Arc<Entry>,
    /// When the loop first saw a fault of a listener.
    since: Option<Instant>,
    /// A `once` that a connection has got. It stays listed while that connection is open, so that it
    /// can be removed.
    is_given: bool,
    /// A `once` that may stay unused.
    is_optional: bool,
    /// Why a listener cannot do it.
    failure: Option<String>,
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan").field("seed", &self.0.seed).field("faults", &self.faults()).finish()
    }
}

/// How a listener behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ListenerState {
    Accepting,
    /// Clients wait in the backlog.
    Idle,
    /// The backlog is full: SYNs are dropped.
    Full,
    Closed,
}

/// What a new connection gets: its number within its service, and its faults.
pub(super) struct Arrival {
    pub(super) number: u64,
    pub(super) entries: Vec<Arc<Entry>>,
    /// Entries with an id up to this one were considered.
    pub(super) considered: u64,
}

impl Plan {
    /// Creates a plan without a fault. The same seed makes the same choices for the same connections.
    pub fn new(seed: u64) -> Plan {
        Plan::made(seed, false)
    }

    /// Creates a plan in which a `once` is taken by the first connection that sends a byte, or to which
    /// the service writes: a client that connects and closes does not use it up.
    pub fn ignoring_probes(seed: u64) -> Plan {
        Plan::made(seed, true)
    }

    fn made(seed: u64, ignores_probes: bool) -> Plan {
        let (state, acknowledged) = (Mutex::default(), Condvar::new());
        Plan(Arc::new(Shared { seed, ignores_probes, state, acknowledged }))
    }

    /// Returns the seed of percentages and jitter.
    pub fn seed(&self) -> u64 {
        self.0.seed
    }

    /// Adds a fault and returns its id. The loop has acted on it, on open connections too, when
    /// [`settle`](Plan::settle) has returned true.
    ///
    /// # Errors
    /// If the fault names no service, or its parts contradict each other.
    pub fn add(&self, fault: Fault) -> Result<u64, String> {
        if let Some((_, objection)) = fault.objection() {
            return Err(format!("{fault}: {objection}"));
        }
        let whom =
            fault.whom.clone().ok_or_else(|| format!("name a service, as in `echo: {fault}`"))?;
        let mut state = self.lock();
        state.last_id += 1;
        let id = state.last_id;
        let entry = Arc::new(Entry { id, whom, fault, is_over: AtomicBool::new(false) });
        let (since, failure) = (None, None);
        state.listed.push(Listed { entry, since, is_given: false, is_optional: false, failure });
        self.changed(state);
        Ok(id)
    }

    /// Ends a fault and returns it, or `None` if there is none with this id. A connection that it has
    /// slowed or silenced goes on.
    pub fn remove(&self, id: u64) -> Option<Fault> {
        self.end(|listed| listed == id).pop().map(|(_, fault)| fault)
    }

    /// Ends all faults and returns them with their ids.
    pub fn clear(&self) -> Vec<(u64, Fault)> {
        self.end(|_| true)
    }

    fn end(&self, which: impl Fn(u64) -> bool) -> Vec<(u64, Fault)> {
        let mut state = self.lock();
        let spent = std::mem::take(&mut state.spent);
        let (mut ended, kept): (Vec<_>, _) = spent.into_iter().partition(|(id, _)| which(*id));
        state.spent = kept;
        state.listed.retain(|Listed { entry, .. }| {
            let ends = which(entry.id);
            if ends {
                entry.is_over.store(true, Ordering::Relaxed);
                ended.push((entry.id, entry.fault.clone()));
            }
            !ends
        });
        if !ended.is_empty() {
            self.changed(state);
        }
        ended
    }

    /// Returns the faults in force with their ids; of those for one connection, the ones that no
    /// connection has got.
    pub fn faults(&self) -> Vec<(u64, Fault)> {
        let state = self.lock();
        let in_force = state.listed.iter().filter(|listed| !listed.is_given);
        in_force.map(|Listed { entry, .. }| (entry.id, entry.fault.clone())).collect()
    }

    /// Returns the faults for one connection that no connection has got, but for optional ones.
    pub(super) fn unused(&self) -> Vec<Fault> {
        let state = self.lock();
        let unused =
            state.listed.iter().filter(|Listed { entry, is_given, is_optional, .. }| {
                entry.whom.who == Who::Once && !is_given && !is_optional
            });
        unused.map(|Listed { entry, .. }| entry.fault.clone()).collect()
    }

    /// Lets a `once` stay unused.
    pub(super) fn make_optional(&self, id: u64) {
        self.lock().find(id).for_each(|listed| listed.is_optional = true);
    }

    /// Waits until the loop has acted on every change so far, or has ended; returns false if it did not
    /// in time. Must not be called on the loop's own thread.
    pub fn settle(&self, timeout: Duration) -> bool {
        let state = self.lock();
        let changes = state.changes;
        let is_waiting = |state: &mut State| state.acted_on < changes && !state.is_over;
        let waited = self.0.acknowledged.wait_timeout_while(state, timeout, is_waiting);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Returns why a fault of a listener has no effect there, if it has none.
    pub fn failure(&self, id: u64) -> Option<String> {
        self.lock().find(id).find_map(|listed| listed.failure.clone())
    }

    /// Gives a new connection its faults. It is counted, unless it has the number of another one.
    pub(super) fn arrive(&self, service: &str, number: Option<u64>) -> Arrival {
        let mut state = self.lock();
        let count = state.count(service) + 1;
        let number = number.unwrap_or(count);
        state.counts.insert(service.to_owned(), count);
        state.forget_spent();
        let taken = if self.0.ignores_probes { None } else { state.take_once(service) };
        let taken = taken.map(|entry| entry.id);
        let entries = state.listed.iter().map(|listed| &listed.entry).filter(|entry| {
            let is_new = entry.whom.who == Who::New && entry.is_for(service);
            is_new || Some(entry.id) == taken || self.is_meant(entry, service, number)
        });
        let entries = entries.cloned().collect();
        Arrival { number, entries, considered: state.last_id }
    }

    /// Returns the faults that were added since for an open connection, and the id of the last one.
    pub(super) fn join(
        &self,
        service: &str,
        number: u64,
        considered: u64,
    ) -> (Vec<Arc<Entry>>, u64) {
        let state = self.lock();
        let added = state
            .listed
            .iter()
            .map(|listed| &listed.entry)
            .filter(|entry| entry.id > considered && self.is_meant(entry, service, number));
        (added.cloned().collect(), state.last_id)
    }

    /// Returns whether a `once` waits for the first byte of a connection.
    pub(super) fn ignores_probes(&self) -> bool {
        self.0.ignores_probes
    }

    /// Gives the next `once` of a service away, if there is one.
    pub(super) fn take_once(&self, service: &str) -> Option<Arc<Entry>> {
        self.lock().take_once(service)
    }

    /// Returns whether a fault is for this connection, open or new.
    fn is_meant(&self, entry: &Entry, service: &str, number: u64) -> bool {
        let is_chosen = match entry.whom.who {
            Who::Every => true,
            Who::New | Who::Once => false,
            Who::Numbers { first, last } => (first..=last).contains(&number),
            Who::Chance { millionths } => {
                let seed = self.seed_of(service, number) ^ hash(&entry.fault.to_string());
                Random(seed).below(1_000_000) < u64::from(millionths)
            }
        };
        is_chosen && entry.is_for(service)
    }

    /// Returns how a listener is to behave now, and when that changes by itself.
    pub(super) fn listener_state(
        &self,
        service: &str,
        now: Instant,
    ) -> (ListenerState, Option<Instant>) {
        let mut state = self.lock();
        let next_number = state.count(service) + 1;
        let (mut wanted, mut change) = (ListenerState::Accepting, None::<Instant>);
        for Listed { entry, since, .. } in &mut state.listed {
            let Entry { whom, fault, .. } = &**entry;
            let is_meant = match whom.who {
                Who::Numbers { first, last } => (first..=last).contains(&next_number),
                _ => true,
            };
            if whom.service != service || !fault.is_of_listener() || !is_meant {
                continue;
            }
            let since = *since.get_or_insert(now);
            let begins = match fault.when {
                When::Time(time) => since.checked_add(time),
                _ => Some(since),
            };
            let ends = begins.and_then(|begins| begins.checked_add(fault.duration?));
            let Some(begins) = begins else { continue };
            if now < begins {
                change = Some(change.map_or(begins, |before| before.min(begins)));
            } else if ends.is_none_or(|ends| now < ends) {
                change = change.into_iter().chain(ends).min();
                wanted = wanted.max(match fault.effect {
                    Effect::Refuse => ListenerState::Closed,
                    Effect::Unreachable => ListenerState::Full,
                    _ => ListenerState::Idle,
                });
            }
        }
        (wanted, change)
    }

    /// Records why some faults of a service's listener have no effect.
    pub(super) fn fail(&self, service: &str, is_meant: impl Fn(&Fault) -> bool, reason: &str) {
        for listed in &mut self.lock().listed {
            let Entry { whom, fault, .. } = &*listed.entry;
            if whom.service == service && is_meant(fault) {
                listed.failure.get_or_insert_with(|| reason.to_owned());
            }
        }
    }

    /// Returns the seed of everything random about one connection.
    pub(super) fn seed_of(&self, service: &str, number: u64) -> u64 {
        Random(Random(self.0.seed ^ hash(service)).next() ^ number).next()
    }

    pub(super) fn attach(&self, waker: Arc<dyn Wake>) {
        self.lock().waker = Some(waker);
    }

    pub(super) fn changes(&self) -> u64 {
        self.lock().changes
    }

    /// Returns whether something changed that the loop has not acted on.
    pub(super) fn has_news(&self) -> bool {
        let state = self.lock();
        state.acted_on < state.changes
    }

    pub(super) fn acted_on(&self, changes: u64) {
        let mut state = self.lock();
        if state.acted_on != changes {
            state.acted_on = changes;
            self.0.acknowledged.notify_all();
        }
    }

    pub(super) fn loop_ended(&self) {
        self.lock().is_over = true;
        self.0.acknowledged.notify_all();
    }

    fn changed(&self, mut state: MutexGuard<'_, State>) {
        state.changes += 1;
        let waker = state.waker.clone();
        drop(state);
        wake(waker);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes the loop, if there is one already.
pub(super) fn wake(waker: Option<Arc<dyn Wake>>) {
    if let Some(Err(error)) = waker.map(|waker| waker.wake()) {
        log::error!("cannot wake the loop: {error}; it continues with its next event");
    }
}

impl Entry {
    /// Returns whether it acts on connections of this service.
    fn is_for(&self, service: &str) -> bool {
        self.whom.service == service && !self.fault.is_of_listener()
    }
}

impl State {
    fn count(&self, service: &str) -> u64 {
        self.counts.get(service).copied().unwrap_or(0)
    }

    fn find(&mut self, id: u64) -> impl Iterator<Item = &mut Listed> {
        self.listed.iter_mut().filter(move |listed| listed.entry.id == id)
    }

    /// Keeps no more than the text of a `once` whose connection is gone.
    fn forget_spent(&mut self) {
        let State { listed, spent, .. } = self;
        listed.retain(|Listed { entry, is_given, .. }| {
            let is_spent = *is_given && Arc::strong_count(entry) == 1;
            if is_spent {
                spent.push((entry.id, entry.fault.clone()));
            }
            !is_spent
        });
    }

    fn take_once(&mut self, service: &str) -> Option<Arc<Entry>> {
        let listed = self.listed.iter_mut().find(|Listed { entry, is_given, .. }| {
            entry.whom.who == Who::Once && !is_given && entry.is_for(service)
        })?;
        listed.is_given = true;
        Some(Arc::clone(&listed.entry))
    }
}
