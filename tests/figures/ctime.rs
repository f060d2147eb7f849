//! The line of daytime and what `ctime(3)` of the C library says, in every zone there is.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use campanile::services::Daytime;
use campanile::{Clock, Outbox, Protocol, Zone};

use crate::amount::amount;
use crate::random::Random;
use crate::seed;

unsafe extern "C" {
    /// Reads TZ, for `ctime_r`.
    safe fn tzset();
}

/// What the C library says, with CR LF; `None` for a year that `ctime(3)` has no room for.
fn ctime(second: i64) -> Option<String> {
    let mut line = [0_u8; 64];
    // SAFETY: it writes at most 26 bytes, the last of them zero.
    let written = unsafe { libc::ctime_r(&second, line.as_mut_ptr().cast()) };
    let end = line.iter().position(|byte| *byte == b'\n')?;
    let text = std::str::from_utf8(&line[..end]).expect("ASCII");
    (!written.is_null()).then(|| format!("{text}\r\n"))
}

/// A server's clock that is set by hand, in the zone that TZ names.
struct Ours {
    hand: Arc<AtomicI64>,
    service: Daytime,
}

impl Ours {
    fn line(&mut self, second: i64) -> String {
        self.hand.store(second, Ordering::Relaxed);
        let mut out = Outbox::new(Instant::now());
        self.service.on_open(&mut out);
        String::from_utf8(out.queued().to_vec()).unwrap()
    }
}

/// Where TZ is `tz`, compares the seconds; how many could be.
fn compare(tz: &str, seconds: impl Iterator<Item = i64> + Send) -> usize {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: all others here read the environment through std, which has a lock for it.
    unsafe { std::env::set_var("TZ", tz) };
    tzset();
    let compared = || {
        let hand = Arc::new(AtomicI64::new(0));
        let clock = Clock::manual(hand.clone()).in_zone(Zone::local().unwrap());
        let mut ours = Ours { hand, service: Daytime::new(clock) };
        let mut count = 0;
        for second in seconds {
            let Some(theirs) = ctime(second) else { continue };
            assert_eq!(ours.line(second), theirs, "{second} in {tz}");
            count += 1;
        }
        count
    };
    // On a thread of its own: chrono looks at TZ again only after a second, in each thread.
    std::thread::scope(|scope| scope.spawn(compared).join()).unwrap_or_else(|panic| {
        std::panic::resume_unwind(panic);
    })
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

/// Sabotage: the offset of a second ago (`utc - TimeDelta::seconds(1)` in src/clock.rs).
#[test]
fn around_every_transition_of_every_zone_the_time_is_that_of_the_c_library() {
    let mut all = Vec::new();
    zones(Path::new("/usr/share/zoneinfo"), "", &mut all);
    if all.is_empty() {
        println!("SKIPPED: there are no zone files");
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
