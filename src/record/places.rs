//! [`Places`]: the connections and listeners of a recording.

use std::collections::HashMap;
use std::sync::Arc;

use crate::protocol::ConnId;

/// What follows the name of a proxy in that of its server's side, as in `db upstream`.
pub(crate) const UPSTREAM: &str = " upstream";

/// Returns the name of the server's side, for the name of either side of a proxy.
pub(crate) fn upstream_of(service: &str) -> String {
    format!("{}{UPSTREAM}", service.strip_suffix(UPSTREAM).unwrap_or(service))
}

/// A service, and the number of a connection there, counted from 1. The connection to the server behind
/// a proxy has the number of its client's.
type Place = (Arc<str>, u64);

/// Numbers the connections of a recording, and finds them by slab key and by place.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// The service of listeners that are bound from now on.
    pub(super) serving: Option<Arc<str>>,
    /// The connections so far.
    connections: u64,
    /// The connections of each service so far.
    counts: HashMap<Arc<str>, u64>,
    /// The place of each open connection that has one.
    open: HashMap<u64, Place>,
    /// By slab key, the connection registered there last.
    slots: Vec<Option<Slot>>,
    /// The key of each listener, and its service.
    listeners: Vec<(usize, Arc<str>)>,
}

#[derive(Debug)]
struct Slot {
    id: u64,
    /// Known after its first run.
    ordinal: Option<u64>,
    has_ended: bool,
    place: Option<Place>,
    /// The connection whose protocol has asked for this one.
    parent: Option<u64>,
}

impl Places {
    /// Names a listener that was bound; returns its service.
    pub(super) fn bound(&mut self, key: usize) -> Option<Arc<str>> {
        let service = self.serving.clone();
        self.listeners.extend(service.clone().map(|service| (key, service)));
        service
    }

    /// Numbers a connection that a listener has accepted.
    pub(super) fn accepted(&mut self, service: Option<&Arc<str>>) -> u64 {
        let place = service.map(|service| {
            let count = self.counts.entry(Arc::clone(service)).or_default();
            *count += 1;
            (Arc::clone(service), *count)
        });
        self.arrive(place)
    }

    /// Numbers an outgoing connection. Returns it with the connection whose protocol has asked for it; if
    /// a proxy tries the next address of its server, this is the client's.
    pub(super) fn connecting(&mut self, parent: Option<ConnId>) -> (u64, Option<u64>) {
        let slot = parent.and_then(|id| {
            let slot = self.slots.get(id.key as usize)?.as_ref()?;
            (slot.ordinal == Some(id.ordinal)).then_some(slot)
        });
        let parent = slot.map(|slot| slot.parent.unwrap_or(slot.id));
        let place = slot
            .and_then(|slot| slot.place.as_ref())
            .map(|(service, number)| (upstream_of(service).into(), *number));
        (self.arrive(place), parent)
    }

    fn arrive(&mut self, place: Option<Place>) -> u64 {
        self.connections += 1;
        self.open.extend(place.map(|place| (self.connections, place)));
        self.connections
    }

    pub(super) fn registered(&mut self, id: u64, parent: Option<u64>, key: usize) {
        if key >= self.slots.len() {
            self.slots.resize_with(key + 1, || None);
        }
        let place = self.open.get(&id).cloned();
        self.slots[key] = Some(Slot { id, ordinal: None, has_ended: false, place, parent });
    }

    pub(super) fn ended(&mut self, id: u64, key: Option<usize>) {
        self.open.remove(&id);
        let slot = key.and_then(|key| self.slots.get_mut(key)?.as_mut());
        if let Some(slot) = slot.filter(|slot| slot.id == id) {
            slot.has_ended = true;
        }
    }

    /// Returns the open connection that is registered under this key.
    pub(super) fn at(&self, key: usize) -> Option<u64> {
        let slot = self.slots.get(key)?.as_ref()?;
        (!slot.has_ended).then_some(slot.id)
    }

    /// Returns the number of a connection that has run; `None` if the slot is another connection's. One
    /// that ends in its first run has no slot.
    pub(super) fn ran(&mut self, id: ConnId) -> Option<u64> {
        let slot = self.slots.get_mut(id.key as usize)?.as_mut()?;
        let is_it = *slot.ordinal.get_or_insert(id.ordinal) == id.ordinal && !slot.has_ended;
        is_it.then_some(slot.id)
    }

    /// Finds connection `number` of a service, or its listener if there is no number.
    pub(super) fn find(&self, service: &str, number: Option<u64>) -> (Option<u64>, Option<u64>) {
        let of = |found: &str| found == service;
        let connection = number.and_then(|number| {
            let is_meant = |(found, at): &Place| of(found) && *at == number;
            self.open.iter().find(|(_, place)| is_meant(place)).map(|(&id, _)| id)
        });
        let listener = self.listeners.iter().find(|(_, found)| number.is_none() && of(found));
        (connection, listener.map(|&(key, _)| key as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_address_of_a_server_is_tried_for_the_client_and_not_for_the_failed_attempt() {
        let mut places = Places { serving: Some("db".into()), ..Places::default() };
        let service = places.bound(0);
        let of = |key, ordinal| Some(ConnId { key, ordinal });
        let client = places.accepted(service.as_ref());
        places.registered(client, None, 4);
        assert_eq!(places.ran(ConnId { key: 4, ordinal: 7 }), Some(1));
        // Another connection had this slot before.
        assert_eq!(places.connecting(of(4, 6)), (2, None));
        assert_eq!(places.connecting(of(4, 7)), (3, Some(1)));
        assert_eq!(places.find("db upstream", Some(1)), (Some(3), None));
        places.registered(3, Some(1), 5);
        places.ran(ConnId { key: 5, ordinal: 8 });
        places.ended(3, Some(5));
        assert_eq!(places.at(5), None);
        assert_eq!(places.connecting(of(5, 8)), (4, Some(1)));
        assert_eq!(places.find("db upstream", Some(1)), (Some(4), None));
        assert_eq!(places.find("db", None), (None, Some(0)));
    }
}
