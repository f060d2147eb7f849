//! The bodies of the fuzz targets, on inputs from a seed: bounded, and on the stable compiler.

#[allow(dead_code)]
#[path = "../src/cli/address.rs"]
mod address;
#[path = "fuzz/bodies.rs"]
mod bodies;
#[allow(dead_code)]
#[path = "common/diary.rs"]
mod diary;
#[cfg(feature = "testing")]
#[allow(dead_code)]
#[path = "../src/cli/json.rs"]
mod json;
#[cfg(feature = "testing")]
#[allow(dead_code)]
#[path = "../src/cli/play/perfetto.rs"]
mod perfetto;
#[cfg(feature = "testing")]
#[path = "fuzz/playing.rs"]
mod playing;
#[path = "sim/random.rs"]
#[allow(dead_code)]
mod random;
#[cfg(feature = "testing")]
#[allow(dead_code)]
#[path = "../src/cli/play/recording.rs"]
mod recording;
#[allow(dead_code)]
#[path = "common/script.rs"]
mod script;
#[cfg(feature = "testing")]
#[allow(dead_code)]
#[path = "../src/cli/play/timeline.rs"]
mod timeline;
#[cfg(feature = "testing")]
#[path = "common/traces.rs"]
mod traces;

use random::Random;

/// `pieces` in any order and number, and now and then a character that does not belong.
fn text(random: &mut Random, pieces: &[&str]) -> String {
    let mut text = String::new();
    for _ in 0..random.below(9) {
        if random.percent(3) {
            text.extend(char::from_u32(random.below(0x500) as u32));
        }
        text.push_str(random.pick(pieces));
    }
    text
}

#[test]
fn any_script_of_any_length_is_a_conversation_to_its_end() {
    let mut random = Random::new(1);
    for _ in 0..20_000 {
        let length = random.below(120);
        let data: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
        bodies::calls(&data);
    }
}

#[test]
fn ten_thousand_seconds_of_all_time_are_told_as_the_calendar_has_them() {
    let mut random = Random::new(2);
    for _ in 0..10_000 {
        // Of every length: small numbers are as likely as those beyond any calendar.
        let second = random.next() as i64 >> random.below(64);
        bodies::ctime(second);
    }
    for edge in [i64::MIN, i64::MAX, 0, -1, 951_782_400, 951_868_800, 4_107_542_399] {
        bodies::ctime(edge);
    }
}

#[test]
fn any_address_that_is_understood_says_itself_again() {
    let hosts = ["127.0.0.1", "[::1]", "[fe80::1%2]", "localhost", "a-b.c", "::1", "0", ""];
    let ports = ["9999", "0", "65535", "65536"];
    let pieces =
        ["[", "]", ":", ".", "-", "_", "%", "off", "a", "\u{e9}", " ", "99999999999999999999"];
    let pieces = [&hosts[..], &ports, &pieces].concat();
    let (mut random, mut understood) = (Random::new(3), 0);
    for _ in 0..50_000 {
        let mut address = format!("{}:{}", random.pick(&hosts), random.pick(&ports));
        understood += usize::from(address::server(&address).is_ok());
        bodies::addresses(&address);
        let at = random.below(address.len() + 1);
        address.insert_str(at, random.pick(&pieces));
        bodies::addresses(&address);
        bodies::addresses(&text(&mut random, &pieces));
    }
    assert!(understood > 10_000, "only {understood} texts are addresses");
}

#[cfg(feature = "testing")]
#[test]
fn any_fault_that_is_understood_says_itself_again() {
    let whom =
        ["", "echo: ", "daytime once: ", "echo #3: ", "echo #2..9: ", "a 12.5%: ", "b every:"];
    let what = "delay 20ms, delay 2s+-7us, slice 3, slice 9/4ms, rate 64KiB/s, short 1, \
        stall, deaf, corrupt, hold-open, shut, close, reset, refuse, never-accept";
    let what: Vec<_> = what.split(", ").collect();
    let when =
        ["", " after 5 bytes", " after 2MiB in", " after 90s", " at eof", " at write 3", " at "];
    let pieces = " |:|#|%|/|+-|..|0|1|18446744073709551616|after|at|in|KiB|ns|h|once|echo|delay|reset|\u{e9}";
    let pieces: Vec<_> = pieces.split('|').collect();
    let mut random = Random::new(4);
    for _ in 0..50_000 {
        let mut fault = random.pick(&whom).to_owned() + random.pick(&what) + random.pick(&when);
        bodies::faults(&fault);
        // And what nearly is one: something in the middle that does not belong there.
        let at = random.below(fault.len() + 1);
        if fault.is_char_boundary(at) {
            fault.insert_str(at, random.pick(&pieces));
        }
        bodies::faults(&fault);
        bodies::faults(&text(&mut random, &pieces));
    }
}

#[cfg(feature = "testing")]
#[test]
fn any_file_is_played_or_refused() {
    let stories = ["back_pressure", "emfile", "reset", "short_write"];
    let stories =
        stories.map(|name| std::fs::read(format!("src/guide/stories/{name}.jsonl")).unwrap());
    let pieces = "{|}|[|]|\"|:|,|0|-1|1e99|null|true|\n|\"c\":|\"t\":|\"k\":|\"turn\"|\"phase\"|\"accept\"\
        |\"end\"|18446744073709551615|99999999999999999999|\\u0000|\\u202e|\0|\u{1b}[2J|\u{202e}|\u{e9}|Zg==";
    let pieces: Vec<_> = pieces.split('|').collect();
    let (mut random, mut played, mut refused) = (Random::new(5), 0, 0);
    for _ in 0..600 {
        let mut file = random.pick(&stories).clone();
        // Lines that are lost, doubled and exchanged, then a few places that are wrong.
        for _ in 0..random.below(4) {
            let mut lines: Vec<_> = file.split_inclusive(|byte| *byte == b'\n').collect();
            let (one, other) =
                (1 + random.below(lines.len() - 1), 1 + random.below(lines.len() - 1));
            match random.below(3) {
                0 => drop(lines.remove(one)),
                1 => lines.insert(one, lines[other]),
                _ => lines.swap(one, other),
            }
            file = lines.concat();
        }
        for _ in 0..random.below(3) {
            let at = random.below(file.len());
            let piece = random.pick(&pieces).bytes();
            file.splice(at..(at + random.below(9)).min(file.len()), piece);
        }
        file.truncate(file.len() - if random.percent(20) { random.below(file.len()) } else { 0 });
        let is_played = playing::recordings(&file);
        (played, refused) = (played + u32::from(is_played), refused + u32::from(!is_played));
        let line = text(&mut random, &pieces);
        let header = "{\"recording\":\"campanile\",\"v\":1}\n";
        playing::recordings(format!("{header}{{\"t\":1,\"k\":\"call\",{line}").as_bytes());
    }
    assert!(played > 100 && refused > 100, "{played} played, {refused} refused");
}
