//! The log lines of new connections: one line each, but beyond a few in a second only their number,
//! so that a load test does not bury the rest of the log.

use std::cell::RefCell;
use std::fmt::Display;
use std::rc::Rc;
use std::time::{Duration, Instant};

use log::Level::{Debug, Info};

/// How many connections of a service have a line of their own within a second.
const LINES: u32 = 5;
const SECOND: Duration = Duration::from_secs(1);

/// The lines of all services. Copies share their counts.
#[derive(Debug, Clone, Default)]
pub struct ConnectionsLog(Rc<RefCell<Vec<Service>>>);

#[derive(Debug)]
struct Service {
    name: &'static str,
    /// When the second began that the counts are of.
    began: Instant,
    lines: u32,
    /// Connections without a line of their own.
    more: u64,
}

impl ConnectionsLog {
    /// Logs `words` and the peer of a new connection, or counts it. With `-v` every connection has
    /// its line.
    pub fn add(&self, service: &'static str, words: &str, peer: &impl Display) {
        if log::log_enabled!(Info) && (log::log_enabled!(Debug) || self.has_line(service)) {
            log::info!("{words} {peer}");
        }
    }

    /// Counts a connection. Returns whether it has a line of its own.
    fn has_line(&self, name: &'static str) -> bool {
        let (mut services, now) = (self.0.borrow_mut(), Instant::now());
        let index = services.iter().position(|service| service.name == name);
        let index = index.unwrap_or_else(|| {
            services.push(Service { name, began: now, lines: 0, more: 0 });
            services.len() - 1
        });
        let (has_line, sum) = services[index].add(now);
        write(sum);
        has_line
    }

    /// Logs the sums of the seconds that are over. Returns how long to sleep at most, so that the
    /// next sum is on time; `None` if there is none, so that an idle loop sleeps on.
    pub fn write_sums(&self) -> Option<Duration> {
        let mut services = self.0.borrow_mut();
        let mut counting = services.iter_mut().filter(|service| service.more > 0).peekable();
        counting.peek()?;
        let now = Instant::now();
        counting
            .filter_map(|service| {
                write(service.sum(now));
                (service.more > 0).then(|| SECOND.saturating_sub(now - service.began))
            })
            .min()
    }

    /// Logs the sums of the seconds that are not over, at the end of the program.
    pub fn finish(&self) {
        for service in self.0.borrow_mut().iter_mut() {
            write(service.take());
        }
    }
}

fn write(sum: Option<String>) {
    if let Some(sum) = sum {
        log::info!("{sum}");
    }
}

impl Service {
    /// Counts a connection. Returns whether it has a line of its own, and the sum to log before.
    fn add(&mut self, now: Instant) -> (bool, Option<String>) {
        let sum = self.sum(now);
        if now - self.began >= SECOND {
            (self.began, self.lines) = (now, 0);
        }
        let has_line = self.lines < LINES;
        if has_line {
            self.lines += 1;
        } else {
            self.more += 1;
        }
        (has_line, sum)
    }

    /// The sum, if its second is over.
    fn sum(&mut self, now: Instant) -> Option<String> {
        if now - self.began >= SECOND { self.take() } else { None }
    }

    fn take(&mut self) -> Option<String> {
        let more = std::mem::take(&mut self.more);
        let ending = if more == 1 { "" } else { "s" };
        (more > 0).then(|| format!("and {} more connection{ending} ({})", grouped(more), self.name))
    }
}

/// A number with its digits in groups of three, as in 1,983.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_beyond_a_few_in_a_second_are_summed_up_when_it_is_over() {
        let began = Instant::now();
        let at = |millis| began + Duration::from_millis(millis);
        let mut echo = Service { name: "echo", began, lines: 0, more: 0 };
        for number in 0..1988 {
            assert_eq!(echo.add(at(number / 2)), (number < 5, None), "{number}");
        }
        assert_eq!(echo.sum(at(999)), None, "the second is not over");
        let sum = Some("and 1,983 more connections (echo)".to_owned());
        assert_eq!(echo.add(at(1000)), (true, sum), "the sum comes first");
        for number in 1..6 {
            assert_eq!(echo.add(at(1999)), (number < 5, None), "{number}");
        }
        assert_eq!(echo.sum(at(2000)).as_deref(), Some("and 1 more connection (echo)"));
        assert_eq!(echo.add(at(9000)), (true, None), "each is counted once");
        assert_eq!(echo.take(), None);
    }

    #[test]
    fn digits_stand_in_groups_of_three() {
        for (number, text) in [
            (1, "1"),
            (999, "999"),
            (1000, "1,000"),
            (123_456, "123,456"),
            (u64::MAX, "18,446,744,073,709,551,615"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn a_loop_without_sums_has_nothing_to_wake_up_for() {
        let log = ConnectionsLog::default();
        assert_eq!(log.write_sums(), None);
        let now = Instant::now();
        log.0.borrow_mut().push(Service { name: "echo", began: now, lines: 5, more: 0 });
        assert_eq!(log.write_sums(), None);
        log.0.borrow_mut()[0].more = 7;
        assert!(log.write_sums().is_some_and(|wait| wait <= SECOND));
        log.0.borrow_mut()[0].began -= SECOND;
        assert_eq!(log.write_sums(), None, "the sum is written");
    }
}
