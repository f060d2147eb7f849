//! [`Entry`]: what the reader of a [`Book`](super::Book) is called with.

use super::ledger::Ledger;
use crate::record::Recorder;

/// An entry of a [`Book`](super::Book).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Entry<'a> {
    /// A connection was accepted.
    Accepted(&'a Ledger),
    /// A proxy begins to connect to its server, on behalf of the client with the same id.
    Connecting(&'a Ledger),
    /// A connection ended.
    Closed(&'a Ledger),
    /// accept(2) failed with another error than `WouldBlock`.
    AcceptError {
        /// The listener's service.
        service: &'a str,
        /// The error.
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
