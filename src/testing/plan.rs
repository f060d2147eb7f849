//! Which connection gets which faults, decided by a seed and by counting, never by time.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::fault::{Effect, Fault, When, Who, Whom};
use crate::kernel::Wake;

/// The faults that are in force. Clones are the same plan: a test holds one, the loop another.
#[derive(Clone)]
pub struct Plan(Arc<Shared>);

struct Shared {
    seed: u64,
    state: Mutex<State>,
    seen: Condvar,
}

#[derive(Default)]
struct State {
    entries: Vec<Entry>,
    last_id: u64,
    /// Connections so far, by service.
    counts: HashMap<String, u64>,
    /// Changes of the plan, and how many of them the loop has acted on.
    changes: u64,
    acted_on: u64,
    /// Nobody acts on it any more.
    is_over: bool,
    waker: Option<Arc<dyn Wake>>,
}

struct Entry {
    id: u64,
    whom: Whom,
    fault: Fault,
    /// When the loop first saw it.
    since: Option<Instant>,
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan").field("seed", &self.0.seed).field("faults", &self.faults()).finish()
    }
}

/// What is to be done with a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    Open,
    /// Clients wait in the backlog.
    Shut,
    /// There is no listener.
    Gone,
}

impl Plan {
    /// A plan without a fault. From one seed come the same choices, for the same connections.
    pub fn new(seed: u64) -> Plan {
        let state = Mutex::default();
        Plan(Arc::new(Shared { seed, state, seen: Condvar::new() }))
    }

    /// What chances and jitter are drawn from.
    pub fn seed(&self) -> u64 {
        self.0.seed
    }

    /// Adds a fault; it holds for whoever is accepted from now on. One of a listener holds once
    /// [`settle`](Plan::settle) has returned. The number is for [`remove`](Plan::remove).
    ///
    /// # Errors
    /// If it says not whom, or cannot be meant.
    pub fn add(&self, fault: Fault) -> Result<u64, String> {
        if let Some((_, objection)) = fault.objection() {
            return Err(format!("{fault}: {objection}"));
        }
        let whom =
            fault.whom.clone().ok_or_else(|| format!("name a service, as in `echo: {fault}`"))?;
        let mut state = self.lock();
        state.last_id += 1;
        let id = state.last_id;
        state.entries.push(Entry { id, whom, fault, since: None });
        self.changed(state);
        Ok(id)
    }

    /// Ends a fault, and returns it if it was in force.
    pub fn remove(&self, id: u64) -> Option<Fault> {
        let mut state = self.lock();
        let at = state.entries.iter().position(|entry| entry.id == id)?;
        let fault = state.entries.remove(at).fault;
        self.changed(state);
        Some(fault)
    }

    /// Ends all faults, and returns them.
    pub fn clear(&self) -> Vec<(u64, Fault)> {
        let mut state = self.lock();
        let ended = state.entries.drain(..).map(|entry| (entry.id, entry.fault)).collect();
        self.changed(state);
        ended
    }

    /// Returns the faults in force; of those for one connection only, the ones not given out.
    pub fn faults(&self) -> Vec<(u64, Fault)> {
        self.lock().entries.iter().map(|entry| (entry.id, entry.fault.clone())).collect()
    }

    /// Waits until the loop has acted on every change so far, or is over; false if it did not in
    /// time. Not for the loop's own thread.
    pub fn settle(&self, patience: Duration) -> bool {
        let state = self.lock();
        let changes = state.changes;
        let is_waiting = |state: &mut State| state.acted_on < changes && !state.is_over;
        let waited = self.0.seen.wait_timeout_while(state, patience, is_waiting);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Counts a newcomer and gives out its number and its faults.
    pub(super) fn arrive(&self, service: &str) -> (u64, Vec<Fault>) {
        let mut state = self.lock();
        let number = state.count(service) + 1;
        state.counts.insert(service.to_owned(), number);
        let (mut drawn, mut is_first) = (Vec::new(), true);
        state.entries.retain(|Entry { whom, fault, .. }| {
            if whom.service != service || fault.is_of_listener() {
                return true;
            }
            let is_once = whom.who == Who::Once;
            let is_meant = match whom.who {
                Who::Every => true,
                Who::Once => std::mem::take(&mut is_first),
                Who::Numbers { first, last } => (first..=last).contains(&number),
                Who::Chance { millionths } => {
                    let seed = self.seed_of(service, number) ^ hash(&fault.to_string());
                    Random(seed).below(1_000_000) < u64::from(millionths)
                }
            };
            if is_meant {
                drawn.push(fault.clone());
            }
            !(is_once && is_meant)
        });
        (number, drawn)
    }

    /// What to do with a listener now, and when that may change by itself.
    pub(super) fn door(&self, service: &str, now: Instant) -> (Door, Option<Instant>) {
        let mut state = self.lock();
        let next_number = state.count(service) + 1;
        let (mut door, mut change) = (Door::Open, None);
        for Entry { whom, fault, since, .. } in &mut state.entries {
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
            match begins {
                None => {}
                Some(at) if now < at => {
                    change = Some(change.map_or(at, |before: Instant| before.min(at)));
                }
                _ if fault.effect == Effect::Refuse => door = Door::Gone,
                _ if door == Door::Open => door = Door::Shut,
                _ => {}
            }
        }
        (door, change)
    }

    /// What is random about one connection begins with this.
    pub(super) fn seed_of(&self, service: &str, number: u64) -> u64 {
        Random(Random(self.0.seed ^ hash(service)).next() ^ number).next()
    }

    pub(super) fn attach(&self, waker: Arc<dyn Wake>) {
        self.lock().waker = Some(waker);
    }

    pub(super) fn changes(&self) -> u64 {
        self.lock().changes
    }

    /// Whether something changed that the loop has not acted on.
    pub(super) fn has_news(&self) -> bool {
        let state = self.lock();
        state.acted_on < state.changes
    }

    pub(super) fn acted_on(&self, changes: u64) {
        let mut state = self.lock();
        if state.acted_on != changes {
            state.acted_on = changes;
            self.0.seen.notify_all();
        }
    }

    pub(super) fn end(&self) {
        self.lock().is_over = true;
        self.0.seen.notify_all();
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

impl State {
    fn count(&self, service: &str) -> u64 {
        self.counts.get(service).copied().unwrap_or(0)
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): one addition a step, so any number is a seed.
#[derive(Debug, Clone)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not zero.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

/// FNV-1a: the same in every process, which the standard library's hash is not.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
