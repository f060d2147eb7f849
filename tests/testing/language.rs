//! The fault language: what is printed is parsed again, and what is wrong is pointed at.

use std::time::Duration;

use campanile::testing::{Effect, Fault, When, Who};

fn parse(text: &str) -> Fault {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn effects() -> Vec<Effect> {
    let times = [0, 1, 999, 1_000_000, 1_500_000_000, 60_000_000_000, 7_200_000_000_000];
    let times = times.map(Duration::from_nanos).into_iter().chain([Duration::MAX]);
    let sizes = [1, 2, 1023, 1024, 65_536, 1 << 20, (1 << 20) + 1, u64::MAX];
    let mut all = vec![
        Effect::Stall,
        Effect::Deaf,
        Effect::Corrupt,
        Effect::HoldOpen,
        Effect::Shut,
        Effect::Close,
        Effect::Reset,
        Effect::Refuse,
        Effect::NeverAccept,
        Effect::Unreachable,
    ];
    for time in times {
        all.push(Effect::Delay { time, jitter: Duration::ZERO });
        all.push(Effect::Delay { time, jitter: time / 3 });
        all.push(Effect::Slice { size: 3, gap: time });
    }
    for size in sizes {
        all.push(Effect::Slice { size, gap: Duration::from_millis(1) });
        all.push(Effect::Rate { per_second: size });
        all.push(Effect::Short { size });
    }
    all
}

fn moments() -> Vec<When> {
    let mut all = vec![When::AtOnce, When::Eof, When::Write(1), When::Write(u64::MAX)];
    for size in [0, 1, 5, 1024, 65_537, 3 << 20, u64::MAX] {
        all.extend([When::Sent(size), When::Received(size)]);
    }
    for nanos in [0, 1, 1_000, 90_000_000_000, 3_600_000_000_000] {
        all.push(When::Time(Duration::from_nanos(nanos)));
    }
    all
}

fn choices() -> Vec<Option<Who>> {
    let mut all = vec![None, Some(Who::Every), Some(Who::New), Some(Who::Once)];
    all.extend(
        [(1, 1), (3, 5), (7, u64::MAX)].map(|(first, last)| Some(Who::Numbers { first, last })),
    );
    all.extend(
        [0, 1, 10_000, 105_000, 123_456, 1_000_000]
            .map(|millionths| Some(Who::Chance { millionths })),
    );
    all
}

#[test]
fn a_printed_fault_parses_to_the_same_fault() {
    let (mut same, mut refused) = (0, 0);
    for effect in effects() {
        for when in moments() {
            for who in choices() {
                let fault = Fault::new(effect.clone(), when.clone());
                // A third of them have an end.
                let fault = match (same + refused) % 3 {
                    0 => fault.lasting(Duration::from_millis(same)),
                    _ => fault,
                };
                let fault = match who {
                    Some(who) => fault.of("echo", who),
                    None => fault,
                };
                let text = fault.to_string();
                match text.parse::<Fault>() {
                    Ok(parsed) => {
                        assert_eq!(parsed, fault, "{text}");
                        same += 1;
                    }
                    Err(error) => {
                        let (what, at) = (error.to_string(), error.column());
                        assert!(
                            ["use `after T`", "use `every`", "nothing is left", "leave out `for`"]
                                .iter()
                                .any(|w| what.contains(w)),
                            "{text}: {what}"
                        );
                        assert!(at <= text.len(), "{text}: {what}");
                        refused += 1;
                    }
                }
            }
        }
    }
    assert!(same > 5_000 && refused > 100, "{same} the same, {refused} refused");
}

#[test]
fn a_fault_may_be_written_in_more_ways_than_it_is_printed() {
    for (text, printed) in [
        ("echo: reset after 5 bytes", "echo: reset after 5 bytes"),
        ("echo every:reset after 5", "echo: reset after 5 bytes"),
        ("echo:reset at accept", "echo: reset"),
        ("  echo  once :  close  ", "echo once: close"),
        ("echo #3: stall after 64KiB", "echo #3: stall after 64KiB"),
        ("echo # 3 .. 5 : stall after 65536 bytes", "echo #3..5: stall after 64KiB"),
        ("echo #3..3: deaf after 1024 in", "echo #3: deaf after 1KiB in"),
        ("echo 10%: slice 3/1ms", "echo 10%: slice 3"),
        ("echo 0.50%: slice 3 / 2000us", "echo 0.5%: slice 3/2ms"),
        ("daytime: delay 200ms+-50ms", "daytime: delay 200ms+-50ms"),
        ("daytime: delay 1000ms ± 250 ms", "daytime: delay 1s+-250ms"),
        ("daytime: rate 10KiB/s", "daytime: rate 10KiB/s"),
        ("daytime: rate 100 / s after 1 byte", "daytime: rate 100 bytes/s after 1 byte"),
        ("my-own_service2: short 1 at write 2", "my-own_service2: short 1 at write 2"),
        ("hold-open at eof", "hold-open at eof"),
        ("never-accept after 60s", "never-accept after 1m"),
        ("refuse after 0ms", "refuse after 0s"),
        ("echo new: stall after 64KiB for 3000 ms", "echo new: stall after 64KiB for 3s"),
        ("echo:deaf for 1s", "echo: deaf for 1s"),
        ("echo: rate 1KiB/s at eof for 2m", "echo: rate 1KiB/s at eof for 2m"),
        ("unreachable for 5s", "unreachable for 5s"),
        ("corrupt after 2MiB in", "corrupt after 2MiB in"),
    ] {
        assert_eq!(parse(text).to_string(), printed, "{text}");
    }
}

#[test]
fn an_error_names_the_column_and_the_nearest_word() {
    for (text, column, word) in [
        ("echo: rest after 5 bytes", 7, "unknown effect `rest`: did you mean `reset`?"),
        ("echo: holdopen", 7, "did you mean `hold-open`?"),
        ("echo: never_accept", 7, "did you mean `never-accept`?"),
        ("echo onec: reset", 6, "unknown choice of connections `onec`: did you mean `once`?"),
        ("echo: reset aftr 5 bytes", 13, "unknown trigger `aftr`: did you mean `after`?"),
        ("echo: reset at end", 16, "unknown moment `end`"),
        ("echo: reset at eot", 16, "did you mean `eof`?"),
        ("echo: reset after 5 KB", 21, "unknown unit `KB`: did you mean `"),
        ("echo: reset after 5 kib", 21, "did you mean `KiB`?"),
        ("echo: delay 5 sec", 15, "unknown unit `sec`"),
        ("echo: reset; echo: stall", 12, "unexpected `;`: add one fault at a time"),
        ("echo: explode", 7, "use delay, slice, rate, short,"),
        ("", 1, "expected an effect, such as reset, but the text ends"),
        ("echo:", 6, "expected an effect, such as reset, but the text ends"),
        (": reset", 1, "expected a service, such as echo, not `:`"),
        ("echo: slice", 12, "expected a whole number, but the text ends"),
        ("echo: slice x", 13, "`x` is not a whole number"),
        ("echo: slice", 12, "whole number"),
        ("echo: delay 5", 14, "expected a unit: ns, us, ms, s, m or h, but the text ends"),
        ("echo: rate 5", 13, "expected `/s`"),
        ("echo: rate 5/m", 14, "expected `s`, not `m`"),
        ("echo: reset after 5 bytes out", 27, "unexpected `out` after the fault"),
        ("echo 10: reset", 8, "expected a `%`"),
        ("echo #: reset", 7, "`:` is not a whole number"),
        ("echo #1.5: reset", 7, "`1.5` is not a whole number"),
        ("echo 0.12345%: reset", 6, "is not a percentage with at most four decimals"),
        ("echo 100.1%: reset", 6, "the percentage is greater than 100%"),
        ("echo #0: reset", 6, "counted from 1"),
        ("echo #5..3: reset", 6, "the first number is greater than the last"),
        ("echo: slice 0", 7, "nothing would ever be written"),
        ("echo: short 0", 7, "nothing would ever be written"),
        ("echo: rate 0/s", 7, "nothing would ever be written"),
        ("echo: delay 1ms+-2ms", 7, "the jitter is longer than the delay"),
        ("echo: reset at write 0", 13, "writes are counted from 1"),
        ("echo: deaf at eof", 12, "nothing is left to read"),
        ("echo: refuse after 5 bytes", 14, "use `after T`"),
        ("echo once: refuse", 6, "this effect holds for all clients"),
        ("echo 5%: never-accept", 6, "this effect holds for all clients"),
        ("echo new: unreachable", 6, "this effect holds for all clients"),
        ("echo: reset after 5 bytes for 1s", 27, "this effect cannot be undone"),
        ("echo: corrupt for 1s", 15, "this effect cannot be undone"),
        ("echo: stall for 5 bytes", 19, "unknown unit `bytes`"),
        ("echo: stall fro 5s", 13, "unknown trigger `fro`: did you mean `for`?"),
        ("echo: reset after 18446744073709551616", 19, "the number is too large"),
        ("echo: reset after 18446744073709551615KiB", 19, "the number is too large"),
        ("echo: delay 99999999999999999999h", 13, "the duration is too long"),
        ("echo: reset; close", 12, "unexpected `;`"),
        ("écho: rest", 7, "did you mean `reset`?"),
        ("é: 日本", 4, "unknown effect"),
    ] {
        let error = text.parse::<Fault>().expect_err(text);
        assert!(error.to_string().contains(word), "{text}: {error}");
        assert_eq!(error.column(), column, "{text}: {error}");
    }
}

#[test]
fn a_service_is_checked_and_the_nearest_is_named() {
    let services = ["daytime", "echo"];
    let check = |text: &str| parse(text).check_service(&services).map_err(|e| e.to_string());
    assert_eq!(check("echo: reset"), Ok(()));
    let wrong = check("ecko: reset").unwrap_err();
    assert_eq!(wrong, "column 1: unknown service `ecko`: did you mean `echo`?");
    assert_eq!(check("reset").unwrap_err(), "column 1: name a service, as in `daytime: reset`");
}

#[test]
fn no_text_makes_the_parser_panic() {
    let words = "echo #3..5 10% once: reset after 64KiB in at eof write delay 1ms+-2 slice 3/ ± é \u{0} 99999999999999999999999999999999999999999";
    let pieces: Vec<char> = words.chars().collect();
    let mut state = 1_u64;
    for _ in 0..20_000 {
        let mut text = String::new();
        for _ in 0..state % 40 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            text.push(pieces[(state >> 33) as usize % pieces.len()]);
        }
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state ^= state >> 29;
        let _ = text.parse::<Fault>();
    }
}

#[test]
fn the_guide_has_a_row_for_every_effect_and_every_test_it_names_is_there() {
    let guide = include_str!("../../src/testing/guide.md");
    let tests = include_str!("effects.rs");
    let mut rows = 0;
    for row in guide.lines().filter(|line| line.contains("[`Effect::")) {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let effect = cells[1].trim_matches('`').split(' ').next().unwrap();
        let known = effects().iter().any(|e| e.to_string().split(' ').next() == Some(effect));
        assert!(known, "{row}");
        let test = format!("\nfn {}()", cells[5].trim_matches('`'));
        assert!(tests.contains(&test), "{row}");
        rows += 1;
    }
    assert_eq!(rows, 14);
}
