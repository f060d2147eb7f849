//! Daytime (RFC 867): the server sends one line with the time and closes the connection.

use std::cell::RefCell;
use std::fmt::Write;
use std::rc::Rc;
use std::time::{Duration, Instant};

use chrono::Datelike;

use super::Clock;
use crate::protocol::{Accepted, Outbox, Protocol};

/// Sends one line in the format of `ctime(3)`, with CR LF, and closes the connection.
///
/// Data from the client is read and discarded.
#[derive(Debug, Clone)]
#[must_use]
pub struct Daytime {
    line: Rc<RefCell<Line>>,
}

impl Daytime {
    /// Creates a service that reads `clock`. Its clones share the line, which is formatted once a
    /// second.
    pub fn new(clock: Clock) -> Daytime {
        let text = String::with_capacity(32);
        let line = Line { clock, second: None, text, fresh_until: None };
        Daytime { line: Rc::new(RefCell::new(line)) }
    }
}

impl Protocol for Daytime {
    fn on_open(&mut self, out: &mut Outbox) {
        let now = out.now();
        out.send(self.line.borrow_mut().text(now).as_bytes());
        out.close();
    }

    fn on_data(&mut self, _data: &[u8], _out: &mut Outbox) {}
}

/// Creates a [`Daytime`] for every connection: `reactor.listen(addr, daytime(Clock::system()))`.
pub fn daytime(clock: Clock) -> impl FnMut(&Accepted) -> Daytime {
    let service = Daytime::new(clock);
    move |_| service.clone()
}

/// The line of the current second.
#[derive(Debug)]
struct Line {
    clock: Clock,
    second: Option<i64>,
    text: String,
    fresh_until: Option<Instant>,
}

/// How long the service trusts its last reading of the system's clock. A reading costs more than the
/// rest of this file.
const FRESH: Duration = Duration::from_millis(1);

impl Line {
    fn text(&mut self, now: Instant) -> &str {
        if self.fresh_until.is_some_and(|until| now < until) {
            return &self.text;
        }
        self.fresh_until = now.checked_add(FRESH).filter(|_| self.clock.is_the_systems());
        let second = self.clock.unix_seconds();
        if self.second != Some(second) {
            let time = self.clock.local_time(second);
            self.text.clear();
            // The year is a plain number: chrono's %Y writes +10000 and 0100 where ctime(3) writes
            // 10000 and 100. Writing into a String does not fail.
            let _ = write!(self.text, "{} {}\r\n", time.format("%a %b %e %H:%M:%S"), time.year());
            self.second = Some(second);
        }
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(second: i64) -> String {
        let daytime = Daytime::new(Clock::fixed(second));
        let mut line = daytime.line.borrow_mut();
        line.text(Instant::now()).to_owned()
    }

    #[test]
    fn the_line_equals_that_of_the_tutorial() {
        assert_eq!(line(1_391_022_855), "Wed Jan 29 19:14:15 2014\r\n");
    }

    #[test]
    fn the_day_is_padded_with_a_space_and_the_year_is_a_plain_number() {
        assert_eq!(line(1_388_820_000), "Sat Jan  4 07:20:00 2014\r\n");
        assert_eq!(line(253_402_300_800), "Sat Jan  1 00:00:00 10000\r\n");
        assert_eq!(line(-59_011_459_200), "Fri Jan  1 00:00:00 100\r\n");
    }

    #[test]
    fn every_second_gives_a_line() {
        let edges = [0, -1, i64::MIN, i64::MAX, i64::MIN + 1, i64::MAX - 1, 1 << 40, -(1 << 40)];
        for second in edges.into_iter().chain((0..63).flat_map(|bit| [1 << bit, -1 << bit])) {
            let text = line(second);
            assert!(text.ends_with("\r\n") && text.len() >= 24, "{second}: {text}");
        }
    }

    #[test]
    fn the_systems_clock_is_read_once_a_millisecond_and_any_other_clock_each_time() {
        let now = Instant::now();
        let daytime = Daytime::new(Clock::system());
        let mut line = daytime.line.borrow_mut();
        line.text(now);
        (line.text, line.second) = ("stale".into(), None);
        assert_eq!(line.text(now), "stale");
        assert_ne!(line.text(now + Duration::from_millis(1)), "stale");
        line.clock = Clock::fixed(1_391_022_855);
        line.text(now + Duration::from_millis(2));
        (line.text, line.second) = ("stale".into(), None);
        assert_eq!(line.text(now + Duration::from_millis(2)), "Wed Jan 29 19:14:15 2014\r\n");
    }

    #[test]
    fn a_protocol_is_tested_without_a_loop() {
        let mut out = Outbox::new(std::time::Instant::now());
        Daytime::new(Clock::fixed(1_391_022_855)).on_open(&mut out);
        assert_eq!(out.queued(), b"Wed Jan 29 19:14:15 2014\r\n");
        assert!(out.is_closed());
    }
}
