//! What adding a fault returns: [`Once`], and [`Guard`], which ends the fault.

use std::thread;

use super::server::{PATIENCE, TestServer};

/// A fault for the next connection of a service.
#[derive(Debug)]
pub struct Once<'a> {
    pub(super) server: &'a TestServer,
    pub(super) id: u64,
}

impl Once<'_> {
    /// Lets the test end without a connection that gets the fault.
    pub fn optional(self) {
        self.server.plan.make_optional(self.id);
    }
}

/// Keeps a fault in force until it is dropped.
#[must_use = "the fault ends as soon as this is dropped"]
#[derive(Debug)]
#[doc(alias("removeToxic"))]
pub struct Guard<'a> {
    pub(super) server: &'a TestServer,
    pub(super) id: u64,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if self.server.plan.remove(self.id).is_none() {
            return;
        }
        let is_settled = self.server.plan.settle(PATIENCE);
        assert!(
            is_settled || thread::panicking(),
            "the loop has not acknowledged the end of the fault within {PATIENCE:?}, because a protocol \
             blocks it: let the callback return before the guard is dropped\n{}",
            self.server.table()
        );
    }
}
