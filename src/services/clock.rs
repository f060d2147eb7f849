//! The wall clock that a service reads, and its time zone. Deadlines never depend on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{DateTime, NaiveDateTime, TimeDelta};

/// A wall clock that cannot fail.
///
/// The system's clock may be wrong (before 1970, absurdly late, stepped by years). The clock returns
/// a time all the same.
#[derive(Debug, Clone)]
#[must_use]
pub struct Clock {
    source: Source,
    zone: Zone,
}

#[derive(Debug, Clone)]
enum Source {
    System,
    Fixed(i64),
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// Creates a clock that reads the system's clock. Default zone: UTC.
    pub fn system() -> Clock {
        Clock { source: Source::System, zone: Zone::utc() }
    }

    /// Creates a clock that stands still at `unix_seconds`, counted from 1970.
    pub fn fixed(unix_seconds: i64) -> Clock {
        Clock { source: Source::Fixed(unix_seconds), zone: Zone::utc() }
    }

    /// Creates a clock that shows the value of `hand`, in seconds since 1970.
    ///
    /// Any thread may set the value.
    ///
    /// ```
    /// # use std::sync::{Arc, atomic::{AtomicI64, Ordering}};
    /// let hand = Arc::new(AtomicI64::new(0));
    /// let clock = campanile::Clock::manual(hand.clone());
    /// hand.store(1_391_022_855, Ordering::Relaxed);
    /// assert_eq!(clock.unix_seconds(), 1_391_022_855);
    /// ```
    pub fn manual(hand: Arc<AtomicI64>) -> Clock {
        Clock { source: Source::Manual(hand), zone: Zone::utc() }
    }

    /// Sets the time zone of the clock.
    pub fn in_zone(self, zone: Zone) -> Clock {
        Clock { zone, ..self }
    }

    /// Returns the seconds since 1970, negative before.
    #[must_use]
    pub fn unix_seconds(&self) -> i64 {
        match &self.source {
            Source::Fixed(second) => *second,
            Source::Manual(hand) => hand.load(Ordering::Relaxed),
            Source::System => match SystemTime::now().duration_since(UNIX_EPOCH) {
                Ok(since) => since.as_secs().try_into().unwrap_or(i64::MAX),
                Err(before) => {
                    let before = before.duration();
                    let seconds = before.as_secs() + u64::from(before.subsec_nanos() > 0);
                    i64::try_from(seconds).map_or(i64::MIN, |seconds| -seconds)
                }
            },
        }
    }

    /// Whether the clock is the system's, and neither fixed nor manual.
    pub(crate) fn is_the_systems(&self) -> bool {
        matches!(self.source, Source::System)
    }

    /// Returns the local date and time at `unix_seconds`, or the nearest that chrono can hold.
    pub(crate) fn local_time(&mut self, unix_seconds: i64) -> NaiveDateTime {
        let nearest = if unix_seconds < 0 {
            DateTime::UNIX_EPOCH - YEARS
        } else {
            DateTime::UNIX_EPOCH + YEARS
        };
        let utc = DateTime::from_timestamp(unix_seconds, 0)
            .filter(|utc| (*utc - DateTime::UNIX_EPOCH).abs() <= YEARS)
            .unwrap_or(nearest);
        let offset = TimeDelta::seconds(self.zone.offset(utc.timestamp()).into());
        utc.naive_utc().checked_add_signed(offset).unwrap_or(utc.naive_utc())
    }
}

/// chrono counts years up to 262,142; a year less leaves room for the offset of any zone.
const YEARS: TimeDelta = TimeDelta::days(95_000_000);

/// A time zone: UTC, a fixed offset, or the zone of this machine.
#[derive(Debug, Clone)]
#[must_use]
pub struct Zone(Kind);

#[derive(Debug, Clone)]
enum Kind {
    /// Seconds east of Greenwich.
    Fixed(i32),
    #[cfg(feature = "local-time")]
    Local(local::Local),
}

impl Zone {
    /// Returns coordinated universal time.
    pub fn utc() -> Zone {
        Zone(Kind::Fixed(0))
    }

    /// Returns the zone that is `seconds` east of Greenwich, or west if negative.
    ///
    /// Returns `None` if the offset is a day or more.
    #[must_use]
    pub fn east(seconds: i32) -> Option<Zone> {
        (-86_399..=86_399).contains(&seconds).then_some(Zone(Kind::Fixed(seconds)))
    }

    /// Returns the seconds east of Greenwich at that time.
    #[cfg_attr(not(feature = "local-time"), expect(unused_variables))]
    fn offset(&mut self, unix_seconds: i64) -> i32 {
        match &mut self.0 {
            Kind::Fixed(offset) => *offset,
            #[cfg(feature = "local-time")]
            Kind::Local(local) => local.offset(unix_seconds),
        }
    }
}

#[cfg(feature = "local-time")]
pub use local::ZoneError;

#[cfg(feature = "local-time")]
mod local;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_moves_the_hands_either_way() {
        let mut east = Clock::fixed(0).in_zone(Zone::east(5400).unwrap());
        assert_eq!(east.local_time(0).to_string(), "1970-01-01 01:30:00");
        let mut west = Clock::fixed(0).in_zone(Zone::east(-3600).unwrap());
        assert_eq!(west.local_time(0).to_string(), "1969-12-31 23:00:00");
        assert!(Zone::east(86_400).is_none());
    }

    #[test]
    fn the_system_clock_is_read_without_a_panic() {
        assert!(Clock::system().unix_seconds() > 1_000_000_000);
    }
}
