//! Numbers, durations, points in time and time zones, as written on the command line.

use std::time::Duration;

use campanile::{Clock, Zone, ZoneError};

/// A limit that can be switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrOff<T>(pub Option<T>);

/// A point in time at which the clock stands still, and how it was written.
#[derive(Debug, Clone)]
pub struct FrozenTime {
    pub text: String,
    unix_seconds: i64,
}

impl FrozenTime {
    pub fn clock(&self) -> Clock {
        Clock::fixed(self.unix_seconds)
    }
}

/// The time zone of the daytime service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZoneChoice {
    Local,
    East(i32),
}

impl ZoneChoice {
    /// Returns the zone. Reads `TZ` and the zone file for `local`.
    pub fn zone(self) -> Result<Zone, ZoneError> {
        match self {
            ZoneChoice::Local => Zone::local(),
            // The parser refuses offsets of a day and more.
            ZoneChoice::East(seconds) => Ok(Zone::east(seconds).unwrap_or_else(Zone::utc)),
        }
    }
}

pub fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err("expected a whole number, 1 or greater, such as 100".into()),
    }
}

pub fn count_u32(text: &str) -> Result<u32, String> {
    let number = count(text)?;
    number.try_into().map_err(|_| format!("expected a whole number from 1 to {}", u32::MAX))
}

pub fn count_or_off(text: &str) -> Result<OrOff<usize>, String> {
    or_off(text, count)
}

/// A rung of a ladder with `TOP` rungs.
pub fn rung<const TOP: usize>(text: &str) -> Result<usize, String> {
    let rung = text.parse().ok().filter(|rung| (1..=TOP).contains(rung));
    rung.ok_or_else(|| format!("expected a rung of this ladder, from 1 to {TOP}"))
}

/// Only from the environment: on the command line the letters are counted.
pub fn verbosity(text: &str) -> Result<u8, String> {
    text.parse().map_err(|_| "expected 0, 1 or 2".into())
}

/// Only from the environment: on the command line the flag takes no value.
pub fn yes_or_no(text: &str) -> Result<bool, String> {
    match text {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        _ => Err("expected 1 (on) or 0 (off)".into()),
    }
}

pub fn length_or_zero(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| "expected a duration such as 500ms, 2s or 5m".into())
}

pub fn length(text: &str) -> Result<Duration, String> {
    match length_or_zero(text)? {
        Duration::ZERO => {
            Err("expected a duration greater than zero, such as 500ms, 2s or 5m".into())
        }
        length => Ok(length),
    }
}

pub fn length_or_off(text: &str) -> Result<OrOff<Duration>, String> {
    or_off(text, length)
}

fn or_off<T>(text: &str, parse: fn(&str) -> Result<T, String>) -> Result<OrOff<T>, String> {
    match text {
        "off" => Ok(OrOff(None)),
        text => match parse(text) {
            Ok(value) => Ok(OrOff(Some(value))),
            Err(error) => Err(format!("{error}, or off")),
        },
    }
}

pub fn frozen_time(text: &str) -> Result<FrozenTime, String> {
    match chrono::DateTime::parse_from_rfc3339(text) {
        Ok(time) => Ok(FrozenTime { text: text.to_owned(), unix_seconds: time.timestamp() }),
        Err(_) => {
            Err("expected a time in the form of RFC 3339, such as 2014-01-29T19:14:15Z".into())
        }
    }
}

pub fn zone(text: &str) -> Result<ZoneChoice, String> {
    match text {
        "local" => Ok(ZoneChoice::Local),
        "utc" => Ok(ZoneChoice::East(0)),
        text => offset(text).map(ZoneChoice::East).ok_or_else(|| {
            "expected local, utc or an offset such as +01:00 or -05:30; \
             for a named zone use local and set TZ, as in TZ=Europe/Berlin"
                .into()
        }),
    }
}

/// Parses `+HH:MM` or `-HH:MM` into seconds east of Greenwich.
fn offset(text: &str) -> Option<i32> {
    let (sign, rest) = match text.as_bytes().first()? {
        b'+' => (1, &text[1..]),
        b'-' => (-1, &text[1..]),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    let two_digits = |text: &str, below: i32| {
        let is_right = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<i32>().ok().filter(|number| is_right && *number < below)
    };
    Some(sign * (two_digits(hours, 24)? * 3600 + two_digits(minutes, 60)? * 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_go_either_way_and_stay_below_a_day() {
        assert_eq!(zone("local"), Ok(ZoneChoice::Local));
        assert_eq!(zone("utc"), Ok(ZoneChoice::East(0)));
        assert_eq!(zone("+05:45"), Ok(ZoneChoice::East(20_700)));
        assert_eq!(zone("-05:30"), Ok(ZoneChoice::East(-19_800)));
        assert_eq!(zone("+23:59"), Ok(ZoneChoice::East(86_340)));
        for wrong in
            ["", "+", "+1:00", "05:30", "+24:00", "+01:60", "+0100", "+01:0x", "++1:00", "é"]
        {
            assert!(zone(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn zero_is_refused_where_it_makes_no_sense() {
        for wrong in ["0", "-1", "1.5", "", "many", "99999999999999999999999"] {
            assert!(count(wrong).is_err(), "{wrong}");
        }
        assert!(count_u32("4294967296").is_err());
        assert!(length("0").is_err() && length("0s").is_err() && length("5").is_err());
        assert_eq!(length_or_zero("0"), Ok(Duration::ZERO));
        assert_eq!(length_or_off("off"), Ok(OrOff(None)));
        assert_eq!(length_or_off("90s"), Ok(OrOff(Some(Duration::from_secs(90)))));
        assert_eq!(count_or_off("7"), Ok(OrOff(Some(7))));
    }

    #[test]
    fn the_clock_may_stand_anywhere() {
        for (text, second) in [
            ("2014-01-29T19:14:15Z", 1_391_022_855),
            ("2014-01-29T20:14:15+01:00", 1_391_022_855),
            ("1969-12-31T23:59:59Z", -1),
            ("0001-01-01T00:00:00Z", -62_135_596_800),
        ] {
            assert_eq!(frozen_time(text).unwrap().unix_seconds, second, "{text}");
        }
        for wrong in ["", "now", "2014-01-29", "2014-02-30T00:00:00Z", "2014-01-29T19:14:15"] {
            assert!(frozen_time(wrong).is_err(), "{wrong}");
        }
    }
}
