//! The wall clock that a service reads, and its zone. Deadlines never depend on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{DateTime, FixedOffset, NaiveDateTime};

/// A wall clock that cannot fail: it may lie (before 1970, absurdly late, stepped by years), but
/// whoever reads it gets a time.
#[derive(Debug, Clone)]
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
    /// The system's clock, in UTC unless [`in_zone`](Clock::in_zone) says otherwise.
    pub fn system() -> Clock {
        Clock { source: Source::System, zone: Zone::utc() }
    }

    /// A clock that stands still at so many seconds since 1970.
    pub fn fixed(unix_seconds: i64) -> Clock {
        Clock { source: Source::Fixed(unix_seconds), zone: Zone::utc() }
    }

    /// A clock set by hand, in seconds since 1970, from any thread.
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

    /// The same clock, showing the time of `zone`.
    pub fn in_zone(self, zone: Zone) -> Clock {
        Clock { zone, ..self }
    }

    /// Seconds since 1970, negative before.
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

    /// Whether nobody holds it or moves its hand.
    pub(crate) fn is_the_systems(&self) -> bool {
        matches!(self.source, Source::System)
    }

    /// What a clock on the wall of this zone shows then; the nearest that chrono can hold.
    pub(crate) fn local_time(&mut self, unix_seconds: i64) -> NaiveDateTime {
        let nearest = if unix_seconds < 0 {
            DateTime::UNIX_EPOCH - YEARS
        } else {
            DateTime::UNIX_EPOCH + YEARS
        };
        let utc = DateTime::from_timestamp(unix_seconds, 0)
            .filter(|utc| (*utc - DateTime::UNIX_EPOCH).abs() <= YEARS)
            .unwrap_or(nearest)
            .naive_utc();
        let offset = self.zone.offset(&utc);
        utc.checked_add_offset(offset).unwrap_or(utc)
    }
}

/// chrono counts years up to 262,142; a year less leaves room for any zone's offset.
const YEARS: chrono::TimeDelta = chrono::TimeDelta::days(95_000_000);

/// A time zone: UTC, a fixed offset, or the one this machine is in.
#[derive(Debug, Clone)]
pub struct Zone(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Fixed(FixedOffset),
    #[cfg(feature = "local-time")]
    Local(local::Local),
}

impl Zone {
    /// Coordinated universal time.
    pub fn utc() -> Zone {
        Zone(Kind::Fixed(FixedOffset::east_opt(0).expect("zero is an offset")))
    }

    /// So many seconds east of Greenwich; west is negative. `None` for a day and more.
    pub fn east(seconds: i32) -> Option<Zone> {
        FixedOffset::east_opt(seconds).map(|offset| Zone(Kind::Fixed(offset)))
    }

    #[cfg_attr(not(feature = "local-time"), expect(unused_variables))]
    fn offset(&mut self, utc: &NaiveDateTime) -> FixedOffset {
        match &mut self.0 {
            Kind::Fixed(offset) => *offset,
            #[cfg(feature = "local-time")]
            Kind::Local(local) => local.offset(utc),
        }
    }
}

#[cfg(feature = "local-time")]
pub use local::ZoneError;

#[cfg(feature = "local-time")]
mod local {
    use std::fmt;
    use std::fs::{self, File};
    use std::io::{self, Read};
    use std::path::{Path, PathBuf};

    use chrono::{FixedOffset, NaiveDateTime, Offset, TimeZone};

    use super::{Kind, Zone};

    impl Zone {
        /// The zone that `TZ`, or else `/etc/localtime`, names (tzset(3)), in the hands of chrono,
        /// which never says that it fell back to another. So it is looked at here first: an
        /// unreadable or hostile file is an error, and a missing `/etc/localtime` is UTC.
        ///
        /// Call it on the thread of the loop, before the loop runs: it may read files.
        pub fn local() -> Result<Zone, ZoneError> {
            let tz = std::env::var_os("TZ");
            let file = match &tz {
                None => match check_zone_file(Path::new(SYSTEM_ZONE)) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        log::info!("there is no {SYSTEM_ZONE}: the time is UTC");
                        return Ok(Zone::utc());
                    }
                    checked => checked
                        .map(|()| Some(SYSTEM_ZONE.into()))
                        .map_err(|error| ZoneError::new(SYSTEM_ZONE, error))?,
                },
                Some(name) if name.is_empty() => return Ok(Zone::utc()),
                Some(name) => {
                    let text = name.to_str().ok_or_else(|| {
                        ZoneError::new(&name.to_string_lossy(), io::ErrorKind::InvalidData.into())
                    })?;
                    zone_file(text).map_err(|error| ZoneError::new(text, error))?
                }
            };
            let offset = FixedOffset::east_opt(0).expect("zero is an offset");
            let mut local = Local { file, last_good: offset, lost: false };
            // chrono reads the file at its first use: here, and not in the middle of the loop.
            local.offset(&chrono::DateTime::UNIX_EPOCH.naive_utc());
            Ok(Zone(Kind::Local(local)))
        }
    }

    const SYSTEM_ZONE: &str = "/etc/localtime";
    const ZONE_FOLDERS: [&str; 3] = ["/usr/share/zoneinfo", "/share/zoneinfo", "/etc/zoneinfo"];

    /// Why the local zone cannot be known.
    #[derive(Debug)]
    pub struct ZoneError {
        name: String,
        error: io::Error,
    }

    impl ZoneError {
        fn new(name: &str, error: io::Error) -> ZoneError {
            ZoneError { name: name.to_owned(), error }
        }
    }

    impl fmt::Display for ZoneError {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "cannot use {:?} as the local time zone: {}", self.name, self.error)
        }
    }

    impl std::error::Error for ZoneError {}

    /// The zone of this machine, as far as it can be read.
    #[derive(Debug, Clone)]
    pub(super) struct Local {
        file: Option<PathBuf>,
        last_good: FixedOffset,
        lost: bool,
    }

    impl Local {
        pub(super) fn offset(&mut self, utc: &NaiveDateTime) -> FixedOffset {
            let gone = self.file.as_deref().and_then(|file| is_regular(file).err());
            match (&gone, self.lost) {
                (Some(error), false) => log::warn!(
                    "the time zone cannot be read any more ({error}): staying at {}",
                    self.last_good
                ),
                (None, true) => log::info!("the time zone can be read again"),
                _ => {}
            }
            self.lost = gone.is_some();
            if !self.lost {
                self.last_good = chrono::Local.offset_from_utc_datetime(utc).fix();
            }
            self.last_good
        }
    }

    /// The file that `TZ` names, or `None` for a POSIX rule that needs none.
    fn zone_file(tz: &str) -> io::Result<Option<PathBuf>> {
        let name = tz.strip_prefix(':').unwrap_or(tz);
        if name == "localtime" {
            return check_zone_file(Path::new(SYSTEM_ZONE)).map(|()| Some(SYSTEM_ZONE.into()));
        }
        let mut not_found = io::Error::from(io::ErrorKind::NotFound);
        for folder in ZONE_FOLDERS {
            let path = Path::new(folder).join(name);
            match check_zone_file(&path) {
                Ok(()) => return Ok(Some(path)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => not_found = error,
            }
        }
        // chrono reads a name behind a colon as a file only.
        if !tz.starts_with(':') && super::posix::is_rule(name) { Ok(None) } else { Err(not_found) }
    }

    /// A device or a pipe would block the loop for ever: only regular files are opened.
    fn is_regular(path: &Path) -> io::Result<()> {
        if fs::metadata(path)?.is_file() {
            Ok(())
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
        }
    }

    fn check_zone_file(path: &Path) -> io::Result<()> {
        is_regular(path)?;
        let mut magic = [0; 4];
        File::open(path)?.read_exact(&mut magic)?;
        if magic == *b"TZif" {
            Ok(())
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidData, "not a TZif file (RFC 8536)"))
        }
    }
}

/// POSIX rules such as `CET-1CEST,M3.5.0,M10.5.0/3` (POSIX.1-2017, 8.3).
#[cfg(feature = "local-time")]
mod posix {
    /// Whether the text is such a rule.
    pub(super) fn is_rule(text: &str) -> bool {
        parse(text).is_some_and(str::is_empty)
    }

    fn parse(text: &str) -> Option<&str> {
        let rest = offset(name(text)?)?;
        if rest.is_empty() {
            return Some(rest);
        }
        let rest = name(rest)?;
        // The offset of summer time may be left out.
        let rest = if rest.starts_with(',') { rest } else { offset(rest)? };
        let rest = date(rest.strip_prefix(',')?)?;
        date(rest.strip_prefix(',')?)
    }

    fn name(text: &str) -> Option<&str> {
        if let Some(quoted) = text.strip_prefix('<') {
            let (name, rest) = quoted.split_once('>')?;
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '+' || c == '-';
            return (name.len() >= 3 && name.chars().all(plain)).then_some(rest);
        }
        let rest = text.trim_start_matches(|c: char| c.is_ascii_alphabetic());
        (text.len() - rest.len() >= 3).then_some(rest)
    }

    /// `[+-]hh[:mm[:ss]]`
    fn offset(text: &str) -> Option<&str> {
        let text = text.strip_prefix(['+', '-']).unwrap_or(text);
        let mut rest = number(text, 0..=24)?;
        for _ in 0..2 {
            if let Some(more) = rest.strip_prefix(':') {
                rest = number(more, 0..=59)?;
            }
        }
        Some(rest)
    }

    /// `Mm.w.d`, `Jn` or `n`, and `/time`.
    fn date(text: &str) -> Option<&str> {
        let rest = if let Some(month) = text.strip_prefix('M') {
            let week = number(month, 1..=12)?.strip_prefix('.')?;
            number(number(week, 1..=5)?.strip_prefix('.')?, 0..=6)?
        } else if let Some(day) = text.strip_prefix('J') {
            number(day, 1..=365)?
        } else {
            number(text, 0..=365)?
        };
        match rest.strip_prefix('/') {
            Some(time) => offset(time),
            None => Some(rest),
        }
    }

    fn number(text: &str, range: std::ops::RangeInclusive<u32>) -> Option<&str> {
        let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
        let digits = &text[..text.len() - rest.len()];
        (digits.len() <= 3 && range.contains(&digits.parse().ok()?)).then_some(rest)
    }

    #[cfg(test)]
    mod tests {
        use super::is_rule;

        #[test]
        fn rules_are_told_from_names() {
            for rule in [
                "UTC0",
                "CET-1CEST,M3.5.0,M10.5.0/3",
                "<+03>-3",
                "EST5EDT,J60,300/1:30",
                "NZST-12:00:00NZDT-13,M9.5.0,M4.1.0",
            ] {
                assert!(is_rule(rule), "{rule}");
            }
            for text in [
                "",
                "UTC",
                "Europe/Nowhere",
                "CET-1CEST",
                "CET-99",
                "X5",
                "CET-1CEST,M13.1.0,M1.1.1",
                "/dev/zero",
                "UTC0 ",
            ] {
                assert!(!is_rule(text), "{text}");
            }
        }
    }
}

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
