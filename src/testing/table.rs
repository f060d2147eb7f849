//! The table that a failed test prints, and the advice below it.

use std::fmt::Write;

use super::fault::{Effect, Fault};
use super::ledger::Ledger;
use super::server::TestServer;

/// Rows of each kind.
const ROWS: usize = 50;

impl TestServer {
    /// Returns the connections, the ended ones first, then the faults in force, as text.
    pub(super) fn table(&self) -> String {
        let mut text = format!("campanile test server, seed {}\n", self.plan.seed());
        for (ledgers, kind) in [(self.book.ended(), "earlier"), (self.book.open(), "open")] {
            let skipped = ledgers.len().saturating_sub(ROWS);
            if skipped > 0 {
                let _ = writeln!(text, "  ({skipped} more {kind} connections)");
            }
            for ledger in &ledgers[skipped..] {
                let _ = writeln!(text, "  {ledger}");
            }
        }
        for (_, fault) in self.plan.faults() {
            let _ = writeln!(text, "  in force: {fault}");
        }
        text
    }

    /// Returns what a test can do if no connection of a service ends.
    pub(super) fn advice(&self, service: &str) -> String {
        let open: Vec<Ledger> =
            self.book.open().into_iter().filter(|ledger| ledger.service == service).collect();
        if open.is_empty() {
            return format!("no connection to {service} is open: connect a client before the wait");
        }
        let holding = |ledger: &Ledger| {
            let faults = ledger.faults_and_ends();
            let (fault, _) =
                faults.iter().rfind(|(fault, has_ended)| holds(fault) && !has_ended)?;
            let id = ledger.id;
            // A stall ends with the linger timeout, and a write to a client that has closed fails.
            let or = if survives_close(fault) { "and" } else { "or" };
            Some(format!("`{fault}` holds {service} #{id}: close the client {or} end the fault"))
        };
        let mut advice = open.iter().find_map(holding).unwrap_or_else(|| {
            "no client has closed its connection: close one, or set Limits::idle_timeout with \
             TestServer::builder().limits(..)"
                .to_owned()
        });
        if self.manual_clock.is_some() {
            advice +=
                "; time is manual: timeouts pass only when the test calls TestServer::advance";
        }
        advice
    }
}

/// Returns whether a connection with this fault may stay open for the fault's sake.
fn holds(fault: &Fault) -> bool {
    use Effect::{Deaf, Delay, HoldOpen, Rate, Slice, Stall};
    matches!(fault.effect, Delay { .. } | Slice { .. } | Rate { .. } | Stall | Deaf | HoldOpen)
}

/// Returns whether a connection with this fault may stay open after its client has closed.
fn survives_close(fault: &Fault) -> bool {
    matches!(fault.effect, Effect::Deaf | Effect::Delay { .. } | Effect::HoldOpen)
}
