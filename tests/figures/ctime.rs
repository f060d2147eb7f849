//! The daytime line compared with `ctime(3)` of the C library and with GNU date, in every zone of the
//! system and in generated ones.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use campanile::services::Daytime;
use campanile::{Clock, Outbox, Protocol, Zone, ZoneError};

use crate::amount::amount;
use crate::program::Folder;
use crate::random::Random;
use crate::seed;

unsafe extern "C" {
    /// Reads TZ, for `ctime_r`.
    safe fn tzset();
}

/// Returns the line of the C library with CR LF, or `None` for a year that `ctime(3)` has no room for.
fn ctime(second: i64) -> Option<String> {
    let mut line = [0_u8; 64];
    // SAFETY: ctime_r writes at most 26 bytes, the last of them zero.
    let written = unsafe { libc::ctime_r(&second, line.as_mut_ptr().cast()) };
    let end = line.iter().position(|byte| *byte == b'\n')?;
    let text = std::str::from_utf8(&line[..end]).expect("ASCII");
    (!written.is_null()).then(|| format!("{text}\r\n"))
}

/// A daytime service whose clock is set by the test, in the zone of `TZ`.
struct Ours {
    hand: Arc<AtomicI64>,
    service: Daytime,
}

impl Ours {
    fn new() -> Result<Ours, ZoneError> {
        let hand = Arc::new(AtomicI64::new(0));
        let clock = Clock::manual(hand.clone()).in_zone(Zone::local()?);
        Ok(Ours { hand, service: Daytime::new(clock) })
    }

    fn line(&mut self, second: i64) -> String {
        self.hand.store(second, Ordering::Relaxed);
        let mut out = Outbox::new(Instant::now());
        self.service.on_open(&mut out);
        String::from_utf8(out.queued().to_vec()).unwrap()
    }
}

/// Sets `TZ` for this process and returns the lock without which no test reads it.
fn set_tz(tz: &str) -> MutexGuard<'static, ()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: every other access to the environment goes through std, which locks it.
    unsafe { std::env::set_var("TZ", tz) };
    tzset();
    turn
}

/// Compares the lines of these seconds in a zone and returns how many were compared.
fn compare(tz: &str, seconds: impl Iterator<Item = i64>) -> usize {
    let _turn = set_tz(tz);
    let mut ours = Ours::new().unwrap();
    let mut count = 0;
    for second in seconds {
        let Some(theirs) = ctime(second) else { continue };
        assert_eq!(ours.line(second), theirs, "{second} in {tz}");
        count += 1;
    }
    count
}

/// Sabotage: `%e` as `%d` (src/services/daytime.rs).
#[test]
fn thousands_of_seconds_are_told_as_the_c_library_tells_them() {
    // Before 1971 the C library knows no summer time that only a rule names.
    let zones = [("UTC0", i64::MIN), ("<-0330>3:30", i64::MIN), (CENTRAL_EUROPE, 31_536_000)];
    let (seed, count) = (seed(), amount(10_000, 100_000, 10_000_000) / zones.len());
    for (tz, first) in zones {
        let mut random = Random::new(seed);
        // Near 1970 as often as in any other millennium.
        let any = std::iter::repeat_with(move || random.next() as i64 >> (26 + random.below(38)));
        let any = any.filter(move |second| (first.max(YEAR_5)..YEAR_9987).contains(second));
        assert_eq!(compare(tz, any.take(count)), count);
    }
}

const CENTRAL_EUROPE: &str = "CET-1CEST,M3.5.0,M10.5.0/3";
const YEAR_5: i64 = -62_000_000_000;
const YEAR_9987: i64 = 253_000_000_000;

/// Every zone file below `folder`, by the name that TZ gives it, with its transitions.
fn zones(folder: &Path, prefix: &str, found: &mut Vec<(String, Vec<i64>)>) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        let name = format!("{prefix}{}", path.file_name().unwrap().to_string_lossy());
        if path.is_dir() && name != "right" {
            zones(&path, &format!("{name}/"), found);
        } else if let Some(transitions) = fs::read(&path).ok().and_then(|file| transitions(&file)) {
            found.push((name, transitions));
        }
    }
}

/// The 64-bit transition times of a zone file (RFC 8536).
fn transitions(file: &[u8]) -> Option<Vec<i64>> {
    let (counts, body) = header(file)?;
    let [isut, isstd, leap, time, types, chars] = counts;
    // The first block has 32 bits for a time.
    let second = body.get(time * 5 + types * 6 + chars + leap * 8 + isstd + isut..)?;
    let (counts, body) = header(second)?;
    let times = body.get(..counts[3] * 8)?.chunks_exact(8);
    Some(times.map(|time| i64::from_be_bytes(time.try_into().unwrap())).collect())
}

fn header(block: &[u8]) -> Option<([usize; 6], &[u8])> {
    let (head, body) = block.split_at_checked(44)?;
    let count = |at: usize| u32::from_be_bytes(head[20 + at * 4..][..4].try_into().unwrap());
    head.starts_with(b"TZif").then(|| (std::array::from_fn(|at| count(at) as usize), body))
}

/// Sabotage: the offset of a second ago (`within_range(unix_seconds - 1)` in src/services/clock/local.rs).
#[test]
fn around_every_transition_of_every_zone_the_time_is_that_of_the_c_library() {
    let mut all = Vec::new();
    zones(Path::new("/usr/share/zoneinfo"), "", &mut all);
    if all.is_empty() {
        crate::common::skip("/usr/share/zoneinfo holds no zone files");
        return;
    }
    all.sort();
    let (files, mut compared) = (all.len(), 0);
    for (tz, transitions) in all.into_iter().step_by(amount(29, 1, 1)) {
        // Behind the last transition a rule holds: some seconds of each month.
        let later = (2026..2100).flat_map(|year| (0..12).map(move |month| (year, month)));
        let later = later.map(|(year, month)| (year - 1970) * 31_556_952 + month * 2_629_746);
        let around = transitions.into_iter().flat_map(|at| [at - 1, at, at + 1]);
        compared += compare(&tz, around.chain(later));
    }
    println!("{compared} seconds in zones out of {files}");
    assert!(compared > 10_000, "{compared} seconds");
}

/// POSIX rules from a seed: most of them valid, some not.
struct Rules(Random);

impl Rules {
    fn rule(&mut self) -> String {
        let mut rule = self.name() + &self.offset(25);
        if self.0.percent(80) {
            rule += &self.name();
            if self.0.percent(40) {
                rule += &self.offset(25);
            }
            if self.0.percent(95) {
                for _ in 0..2 {
                    rule += &format!(",{}", self.date());
                    if self.0.percent(60) {
                        let hours = self.0.pick(&[3, 25, 170]);
                        rule += &format!("/{}", self.offset(hours));
                    }
                }
            }
        }
        // Now and then the rule lacks a byte.
        if self.0.percent(10) {
            rule.remove(self.0.below(rule.len()));
        }
        rule
    }

    fn name(&mut self) -> String {
        let quoted = ["<+03>", "<-0330>", "<A1B>", "<+123456789>"];
        let plain = ["CET", "EST", "AEST", "abc", "WET", "MSK", "XY", "LONGNAME"];
        let names: &[&str] = if self.0.percent(30) { &quoted } else { &plain };
        self.0.pick(names).to_owned()
    }

    fn offset(&mut self, hours: usize) -> String {
        let mut offset = self.0.pick(&["", "", "-", "+"]).to_owned();
        offset += &self.0.below(hours).to_string();
        for _ in 0..2 {
            if !self.0.percent(30) {
                break;
            }
            offset += &format!(":{:02}", self.0.below(60));
        }
        offset
    }

    fn date(&mut self) -> String {
        match self.0.below(4) {
            0 => format!("J{}", 1 + self.0.below(365)),
            1 => self.0.pick(&[0, 1, 58, 59, 60, 100, 300, 364, 365]).to_string(),
            _ => {
                let [month, week, day] = [12, 5, 7].map(|bound| self.0.below(bound));
                format!("M{}.{}.{day}", month + 1, week + 1)
            }
        }
    }
}

/// Returns the lines that GNU date prints for these seconds.
fn date(tz: &str, file: &Path, seconds: &[i64]) -> Vec<String> {
    let lines: String = seconds.iter().map(|second| format!("@{second}\n")).collect();
    fs::write(file, lines).unwrap();
    let output = Command::new("date")
        .args(["+%a %b %e %H:%M:%S %-Y", "-f"])
        .arg(file)
        .env("TZ", tz)
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| format!("{line}\r\n")).collect()
}

/// Whether `date` is the one of GNU, which takes a file of times.
fn has_gnu_date() -> bool {
    let version = Command::new("date").arg("--version").output();
    version.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("GNU"))
}

/// Returns the offset that the service applies at `second`.
fn offset(ours: &mut Ours, second: i64) -> i64 {
    let line = ours.line(second);
    let (rest, year) = line.trim_end().rsplit_once(' ').unwrap();
    let year: i32 = year.parse().unwrap();
    // chrono parses years of four digits; 400 years later the calendar is the same.
    let text = format!("{rest} {}", 2000 + year % 400);
    let local = chrono::NaiveDateTime::parse_from_str(&text, "%a %b %e %H:%M:%S %Y").unwrap();
    local.and_utc().timestamp() + i64::from(year - year % 400 - 2000) / 400 * CYCLE - second
}

/// Seconds of 400 years.
const CYCLE: i64 = 146_097 * 86_400;

/// Appends the seconds around each change of the offset in the year that follows `start`.
fn around_changes(ours: &mut Ours, start: i64, seconds: &mut Vec<i64>) {
    const WEEK: i64 = 7 * 86_400;
    for week in 0..53 {
        let (mut before, mut after) = (start + week * WEEK, start + (week + 1) * WEEK);
        let first = offset(ours, before);
        if offset(ours, after) == first {
            continue;
        }
        while after - before > 1 {
            let middle = before + (after - before) / 2;
            *(if offset(ours, middle) == first { &mut before } else { &mut after }) = middle;
        }
        seconds.extend([before - 1, before, after, after + 1]);
    }
}

/// Sabotage: no check for a change outside its year (`is_moved` in src/services/clock/local.rs).
#[test]
fn a_generated_rule_is_told_as_gnu_date_tells_it_or_refused() {
    if !has_gnu_date() {
        crate::common::skip("GNU date is not installed");
        return;
    }
    let (mut rules, count) = (Rules(Random::new(seed())), amount(300, 3_000, 30_000));
    let folder = Folder::new("rules");
    let (file, mut refused) = (folder.join("seconds"), 0);
    for _ in 0..count {
        let tz = rules.rule();
        let _turn = set_tz(&tz);
        let Ok(mut ours) = Ours::new() else {
            refused += 1;
            continue;
        };
        let year = rules.0.pick(&[1972, 1999, 2000, 2024, 2025, 2100, 2400, 9998, 12_000]);
        let start = (year - 1970) * 31_556_952;
        // Before 1971 the C library tells no summer time of a rule.
        let mut any = || YEAR_1972 + rules.0.below(250_000_000_000) as i64;
        let mut seconds: Vec<i64> = (0..100).map(|_| any()).collect();
        seconds.extend((-24..24).map(|hour| start + hour * 3600 + 1800));
        around_changes(&mut ours, start, &mut seconds);
        let theirs = date(&tz, &file, &seconds);
        assert_eq!(theirs.len(), seconds.len(), "{tz}");
        for (second, theirs) in seconds.into_iter().zip(theirs) {
            assert_eq!(ours.line(second), theirs, "{second} in {tz}");
        }
    }
    println!("{refused} of {count} rules are refused");
    assert!((count / 20..count / 2).contains(&refused), "{refused} of {count} rules are refused");
}

const YEAR_1972: i64 = 63_072_000;
