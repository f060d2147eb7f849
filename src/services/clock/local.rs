//! The time zone of this machine: its offsets come from jiff.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use std::{env, fmt};

use chrono::{DateTime, Datelike, Timelike};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{Kind, Zone};

const SYSTEM_ZONE: &str = "/etc/localtime";
const ZONE_FOLDER: &str = "/usr/share/zoneinfo";
/// Seconds of 400 years, after which the calendar repeats.
const CYCLE: i64 = 146_097 * 86_400;
/// The largest zone file of 2026 has 4 KB.
const MAX_ZONE_FILE: u64 = 1 << 20;

impl Zone {
    /// Returns the zone of this machine, as tzset(3) finds it.
    ///
    /// - If `TZ` is unset, the zone is that of `/etc/localtime`, or UTC if there is no such file.
    /// - If `TZ` is empty, the zone is UTC.
    /// - Otherwise `TZ` names a TZif file (RFC 9636), as an absolute path or below the folder
    ///   `TZDIR` (default: `/usr/share/zoneinfo`), or is a POSIX rule such as
    ///   `CET-1CEST,M3.5.0,M10.5.0/3`. A leading colon is dropped.
    ///
    /// The clock looks at the file again when it first shows a new second, and follows it if it
    /// has changed. If it can no longer be read, the clock keeps the zone and logs a warning.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be read, or if its content or the rule is not one
    /// that is told exactly as the C library tells it.
    #[cfg_attr(docsrs, doc(cfg(feature = "local-time")))]
    pub fn local() -> Result<Zone, ZoneError> {
        match env::var_os("TZ") {
            Some(tz) => named(&tz),
            None => system(Path::new(SYSTEM_ZONE)),
        }
    }
}

fn system(path: &Path) -> Result<Zone, ZoneError> {
    match Local::read(path) {
        Ok(local) => Ok(Zone(Kind::Local(local))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            log::info!("there is no {}: the local time is UTC", path.display());
            Ok(Zone::utc())
        }
        Err(error) => {
            let path = path.display();
            Err(ZoneError(format!("cannot read the local time zone from {path}: {error}")))
        }
    }
}

fn named(tz: &OsStr) -> Result<Zone, ZoneError> {
    let refused = |reason: String| {
        ZoneError(format!("cannot use TZ={tz:?} as the local time zone: {reason}"))
    };
    let text = tz.to_str().ok_or_else(|| refused("the value is not UTF-8".into()))?;
    let name = text.strip_prefix(':').unwrap_or(text);
    if name.is_empty() {
        return Ok(Zone::utc());
    }
    let folder = env::var_os("TZDIR").filter(|folder| !folder.is_empty());
    let path = Path::new(&folder.unwrap_or_else(|| ZONE_FOLDER.into())).join(name);
    let error = match Local::read(&path) {
        Ok(local) => return Ok(Zone(Kind::Local(local))),
        Err(error) => error,
    };
    match parse_rule(name) {
        Ok(zone) => Ok(Zone(Kind::Local(Local { zone, file: None }))),
        Err(rule) if error.kind() == io::ErrorKind::NotFound => {
            let path = path.display();
            Err(refused(format!("there is no file {path}, and as a POSIX rule: {rule}")))
        }
        Err(_) => Err(refused(format!("{}: {error}", path.display()))),
    }
}

/// Why the local time zone cannot be used.
#[derive(Debug)]
#[cfg_attr(docsrs, doc(cfg(feature = "local-time")))]
pub struct ZoneError(String);

impl fmt::Display for ZoneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ZoneError {}

/// A time zone, and the file it was read from.
#[derive(Debug, Clone)]
pub(super) struct Local {
    zone: TimeZone,
    /// `None` if the zone is a POSIX rule.
    file: Option<ZoneFile>,
}

#[derive(Debug, Clone)]
struct ZoneFile {
    path: PathBuf,
    stamp: Stamp,
    /// The last reading failed, and a warning was logged.
    is_lost: bool,
}

/// Device, inode and time of the last change: differs once a file was replaced or rewritten.
type Stamp = (u64, u64, Option<SystemTime>);

impl Local {
    fn read(path: &Path) -> io::Result<Local> {
        let stamp = stamp(path)?;
        let zone = read_zone(path)?;
        let file = ZoneFile { path: path.to_owned(), stamp, is_lost: false };
        Ok(Local { zone, file: Some(file) })
    }

    pub(super) fn offset(&mut self, unix_seconds: i64) -> i32 {
        if let Some(file) = &mut self.file {
            file.refresh(&mut self.zone);
        }
        let timestamp = Timestamp::from_second(within_range(unix_seconds));
        timestamp.map_or(0, |timestamp| self.zone.to_offset(timestamp).seconds())
    }
}

impl ZoneFile {
    /// Reads the zone again if the file has changed, and keeps it if that fails.
    fn refresh(&mut self, zone: &mut TimeZone) {
        let path = self.path.display();
        let reread = stamp(&self.path).and_then(|stamp| {
            if stamp != self.stamp {
                *zone = read_zone(&self.path)?;
                self.stamp = stamp;
            }
            Ok(())
        });
        match &reread {
            Err(error) if !self.is_lost => log::warn!(
                "cannot read the time zone from {path} again: {error}; the zone read before \
                 stays in use until the file is repaired"
            ),
            Ok(()) if self.is_lost => log::info!("the time zone in {path} is readable again"),
            _ => {}
        }
        self.is_lost = reread.is_err();
    }
}

/// Moves a time that jiff cannot hold by whole cycles of the calendar, in which rules repeat.
fn within_range(unix_seconds: i64) -> i64 {
    let (first, last) = (Timestamp::MIN.as_second(), Timestamp::MAX.as_second());
    let start = match unix_seconds {
        early if early < first => first,
        late if late > last => last - CYCLE,
        _ => return unix_seconds,
    };
    start + (unix_seconds - start).rem_euclid(CYCLE)
}

/// Returns the stamp of a regular file. Anything else, such as a pipe, could block the loop.
fn stamp(path: &Path) -> io::Result<Stamp> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    #[cfg(unix)]
    let (device, inode) = {
        use std::os::unix::fs::MetadataExt;
        (metadata.dev(), metadata.ino())
    };
    #[cfg(not(unix))]
    let (device, inode) = (0, 0);
    Ok((device, inode, metadata.modified().ok()))
}

fn read_zone(path: &Path) -> io::Result<TimeZone> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_ZONE_FILE).read_to_end(&mut bytes)?;
    parse_zone(&bytes).map_err(|reason| io::Error::new(io::ErrorKind::InvalidData, reason))
}

/// Parses a TZif file (RFC 9636) and refuses one that jiff and the C library read differently.
fn parse_zone(file: &[u8]) -> Result<TimeZone, String> {
    let zone = TimeZone::tzif("", file)
        .map_err(|error| format!("not a valid TZif file (RFC 9636): {error}"))?;
    if data_only(file) != Some(true) {
        let reason = "its leap seconds, its initial summer time or the order of its transitions";
        return Err(format!("a TZif file that is not supported because of {reason}"));
    }
    // From version 2 on, a rule between two line feeds ends the file.
    let footer = file.rsplit(|byte| *byte == b'\n').nth(1).filter(|_| file.get(4) > Some(&0));
    match footer.map(std::str::from_utf8) {
        None | Some(Ok("")) => Ok(zone),
        Some(Ok(rule)) => parse_rule(rule).map(|_| zone),
        Some(Err(error)) => Err(error.to_string()),
    }
}

/// Parses a POSIX rule (POSIX.1-2024, 8.3) and refuses one that jiff and the C library read
/// differently.
fn parse_rule(text: &str) -> Result<TimeZone, String> {
    let zone = TimeZone::posix(text).map_err(|error| error.to_string())?;
    // If a change of the clock falls outside its year, jiff moves it to the edge of that year.
    let is_new_year = |second| {
        let time = DateTime::from_timestamp(second, 0);
        time.is_some_and(|time| time.ordinal() == 1 && time.num_seconds_from_midnight() == 0)
    };
    let is_moved = zone
        .following(Timestamp::UNIX_EPOCH)
        .map(|change| change.timestamp().as_second())
        .take_while(|second| *second < CYCLE)
        .any(|second| is_new_year(second) || is_new_year(second + 1));
    if is_moved {
        return Err("a rule that changes the clock outside its year is not supported".into());
    }
    Ok(zone)
}

/// Whether jiff and the C library read this valid TZif file alike.
///
/// They differ if it counts leap seconds, if its transitions are out of order, or if the time
/// before the first transition is summer time.
fn data_only(file: &[u8]) -> Option<bool> {
    let counts = |block: &[u8]| -> Option<[usize; 6]> {
        let mut counts = [0; 6];
        for (count, bytes) in counts.iter_mut().zip(block.get(20..44)?.chunks_exact(4)) {
            *count = u32::from_be_bytes(bytes.try_into().ok()?).try_into().ok()?;
        }
        Some(counts)
    };
    let (mut block, mut width) = (file, 4);
    if *file.get(4)? > 0 {
        // From version 2 on, a second block follows, and only that one counts.
        let [isut, isstd, leap, times, types, chars] = counts(file)?;
        let first = 44 + times * 5 + types * 6 + chars + leap * 8 + isstd + isut;
        (block, width) = (file.get(first..)?, 8);
    }
    let [_, _, leap, times, _, _] = counts(block)?;
    let (times, rest) = block.get(44..)?.split_at_checked(times * width)?;
    let times = times.chunks_exact(width).map(|time| (time[0] as i8, &time[1..]));
    let first_type = rest.get(times.len()..)?;
    Some(leap == 0 && *first_type.get(4)? == 0 && times.is_sorted_by(|a, b| a < b))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A TZif file of version 2 with one type of local time.
    fn tzif(offset: i32, leap_seconds: u8, transitions: &[i64], footer: &str) -> Vec<u8> {
        let mut file = Vec::new();
        for width in [4, 8] {
            file.extend(b"TZif2");
            file.extend([0; 15]);
            let leaps = if width == 8 { leap_seconds } else { 0 };
            let times = if width == 8 { transitions } else { &[] };
            for count in [0, 0, leaps, times.len() as u8, 1, 4] {
                file.extend(u32::from(count).to_be_bytes());
            }
            file.extend(times.iter().flat_map(|time| time.to_be_bytes()));
            file.extend(times.iter().map(|_| 0));
            file.extend(offset.to_be_bytes());
            file.extend(b"\0\0ABC\0");
            file.extend((0..leaps).flat_map(|_| [0; 12]));
        }
        file.extend(format!("\n{footer}\n").as_bytes());
        file
    }

    #[test]
    fn a_file_that_jiff_and_the_c_library_read_differently_is_refused() {
        let offset =
            |file: &[u8]| parse_zone(file).map(|zone| zone.to_offset(Timestamp::MIN).seconds());
        assert_eq!(offset(&tzif(3600, 0, &[], "")), Ok(3600));
        assert_eq!(offset(&tzif(3600, 0, &[-5, 7, 8], "ABC-1")), Ok(3600));
        for (file, why) in [
            (tzif(3600, 1, &[], ""), "leap seconds"),
            (tzif(3600, 0, &[7, -5, 8], ""), "order of its transitions"),
            (tzif(3600, 0, &[], "ABC-1DEF,365,J1"), "outside its year"),
            (b"TZif and garbage, and more of it than a header has bytes".to_vec(), "not a valid"),
            (tzif(3600, 0, &[1], "")[..100].to_vec(), "not a valid"),
            (Vec::new(), "not a valid"),
        ] {
            let error = offset(&file).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        let mut summer = tzif(3600, 0, &[1], "");
        let second_type = summer.len() - 2 - 4 - 2;
        summer[second_type] = 1;
        assert!(offset(&summer).is_err());
    }

    #[test]
    fn the_zone_follows_its_file_and_outlives_it() {
        let path = std::env::temp_dir().join(format!("campanile-zone-{}", std::process::id()));
        // A new file each time, because two changes of one file may have the same timestamp.
        let replace = |bytes: &[u8]| {
            let new = path.with_extension("new");
            fs::write(&new, bytes).unwrap();
            fs::rename(&new, &path).unwrap();
        };
        replace(&tzif(3600, 0, &[], ""));
        let mut local = Local::read(&path).unwrap();
        let is_lost = |local: &Local| local.file.as_ref().unwrap().is_lost;
        assert_eq!((local.offset(0), is_lost(&local)), (3600, false));
        replace(&tzif(7200, 0, &[], ""));
        assert_eq!((local.offset(0), is_lost(&local)), (7200, false));
        replace(b"TZif");
        assert_eq!((local.offset(0), is_lost(&local)), (7200, true));
        fs::remove_file(&path).unwrap();
        assert_eq!((local.offset(0), is_lost(&local)), (7200, true));
        replace(&tzif(10_800, 0, &[], ""));
        assert_eq!((local.offset(0), is_lost(&local)), (10_800, false));
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_missing_system_zone_is_utc_and_a_broken_one_is_an_error() {
        let mut zone = system(Path::new("/nowhere/localtime")).unwrap();
        assert_eq!(zone.offset(0), 0);
        let error = system(Path::new("/dev/null")).unwrap_err().to_string();
        assert_eq!(error, "cannot read the local time zone from /dev/null: not a regular file");
    }

    #[test]
    fn rules_repeat_every_400_years_beyond_the_range_of_jiff() {
        for second in [i64::from(i32::MAX), -1, 0, 253_402_200_000, -377_705_000_000] {
            assert_eq!(within_range(second), second);
        }
        for second in [260_000_000_000, 8_000_000_000_000, -378_000_000_000, -8_000_000_000_000] {
            let moved = within_range(second);
            assert!(Timestamp::from_second(moved).is_ok(), "{second}");
            assert_eq!((second - moved) % CYCLE, 0, "{second}");
        }
    }
}
