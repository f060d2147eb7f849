//! What must hold for any input: the bodies of the fuzz targets, and of the bounded property tests.

use std::time::{Duration, Instant};

use campanile::services::{Daytime, Echo};
use campanile::{
    Clock, Limits, Outbox, Protocol,
    sys::{Connection, Context, Next},
};

use super::address;
use super::diary::Diary;
use super::script::{STEPS, Script, Step};

/// A conversation in which the stream answers, and events come, as `data` says: what comes back is
/// a prefix, all of it if nothing was reset, and the calls keep to their grammar.
pub fn calls(data: &[u8]) {
    let [kind, high_water, budget, scratch, steps @ ..] = data else { return };
    let limits = Limits::default()
        .high_water(1 + usize::from(*high_water))
        .low_water(usize::from(*high_water) / 3)
        .leftover_budget(1 + usize::from(*budget))
        .read_buffer(1 + usize::from(*scratch));
    let mut lent = Context::new(limits, Instant::now());
    let (script, diary) = (Script::default(), Diary::default());
    let script_steps: Vec<Step> =
        steps.iter().map(|byte| STEPS[usize::from(byte & 15) % STEPS.len()]).collect();
    let input: Vec<u8> = (0..steps.len() * 3).map(|at| (at * 7 % 251) as u8).collect();
    script.0.borrow_mut().begin(&script_steps, &input);
    let line = b"Wed Jan 29 19:14:15 2014\r\n";
    let is_echo = kind & 1 == 0;
    let protocol: Box<dyn Protocol> =
        if is_echo { Box::new(Echo) } else { Box::new(Daytime::new(Clock::fixed(1_391_022_855))) };
    let mut connection =
        Connection::new(script.clone(), Box::new(diary.of(Boxed(protocol))), &lent);
    let mut events = steps.iter().map(|byte| byte >> 4).chain(std::iter::repeat(3));
    let reason = loop {
        match connection.run(&mut lent) {
            Err(reason) => break reason,
            Ok(Next { has_work: true, .. }) => {}
            Ok(_) => happen(&script, &mut connection, events.next().unwrap_or(3)),
        }
    };
    connection.end(reason, &mut lent);
    let wire = script.0.borrow();
    let expected = if is_echo { &wire.input[..wire.read] } else { &line[..] };
    assert!(expected.starts_with(&wire.written));
    assert!(wire.reset || (wire.written == expected && wire.shut && wire.eof && !wire.aborted));
    assert!(diary.letters().starts_with('o') && diary.letters().ends_with('c'));
    assert!(lent.take_panic().is_none());
}

/// An event for what was refused, and hints for what was not; of the first there must be one.
fn happen(script: &Script, connection: &mut Connection<Script>, bits: u8) {
    let wire = &mut *script.0.borrow_mut();
    let (mut readable, mut writable) = (bits & 1 > 0, bits & 2 > 0);
    if !(readable && wire.read_blocked || writable && wire.write_blocked) {
        (readable, writable) = (true, true);
    }
    wire.read_blocked &= !readable;
    wire.write_blocked &= !writable;
    connection.on_event(readable, writable, false);
}

struct Boxed(Box<dyn Protocol>);

impl Protocol for Boxed {
    fn on_open(&mut self, out: &mut Outbox) {
        self.0.on_open(out);
    }
    fn on_data(&mut self, data: &[u8], out: &mut Outbox) {
        self.0.on_data(data, out);
    }
    fn on_eof(&mut self, out: &mut Outbox) {
        self.0.on_eof(out);
    }
    fn on_drain(&mut self, out: &mut Outbox) {
        self.0.on_drain(out);
    }
}

/// The line of any second is the one that the calendar says, reckoned in another way.
pub fn ctime(second: i64) {
    let mut out = Outbox::new(Instant::now() + Duration::ZERO);
    Daytime::new(Clock::fixed(second)).on_open(&mut out);
    assert_eq!(String::from_utf8_lossy(out.queued()), calendar(second), "{second}");
    assert!(out.is_closed());
}

/// Counts the years of 400 by 400, then one by one: slow, and hard to get wrong.
fn calendar(second: i64) -> String {
    // Later and earlier than what can be held, the nearest that can.
    let farthest = 95_000_000 * 86_400;
    let second = second.clamp(-farthest, farthest);
    let (mut day, of_day) = (second.div_euclid(86_400), second.rem_euclid(86_400));
    let weekday = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][day.rem_euclid(7) as usize];
    let mut year = 1970 + 400 * day.div_euclid(146_097);
    day = day.rem_euclid(146_097);
    let is_leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    while day >= 365 + i64::from(is_leap(year)) {
        day -= 365 + i64::from(is_leap(year));
        year += 1;
    }
    let names = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let february = 28 + i64::from(is_leap(year));
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while day >= lengths[month] {
        day -= lengths[month];
        month += 1;
    }
    let name = &names[month * 3..month * 3 + 3];
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{weekday} {name} {:2} {hour:02}:{minute:02}:{second:02} {year}\r\n", day + 1)
}

/// An address that is understood says itself so that it is understood the same.
pub fn addresses(text: &str) {
    if let Ok(place) = address::listening(text) {
        assert_eq!(address::listening(&place.to_string()), Ok(place), "{text:?}");
    }
    if let Ok(place) = address::server(text) {
        assert_eq!(address::server(&place.to_string()), Ok(place), "{text:?}");
    }
}

/// A fault that is understood says itself so that it is understood the same; what is not is
/// pointed at within the text.
#[cfg(feature = "testing")]
pub fn faults(text: &str) {
    use campanile::testing::Fault;
    match text.parse::<Fault>() {
        Ok(fault) => {
            assert_eq!(fault.to_string().parse::<Fault>().as_ref(), Ok(&fault), "{text:?}")
        }
        Err(error) => {
            let column = error.column();
            assert!((1..=text.chars().count() + 1).contains(&column), "{text:?}: {error}");
            assert!(!error.to_string().is_empty());
        }
    }
}
