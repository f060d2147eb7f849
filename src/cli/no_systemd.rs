//! Systems without systemd: nothing is sent.

use std::time::Duration;

#[derive(Debug, Default)]
pub struct Systemd;

impl Systemd {
    pub fn from_env() -> Systemd {
        Systemd
    }

    pub fn ready(&self, _status: &str) {}

    pub fn stopping(&self, _status: &str) {}

    pub fn watchdog(&mut self, _status: impl FnOnce() -> String) -> Option<Duration> {
        None
    }
}
