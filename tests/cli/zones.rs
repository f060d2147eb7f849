//! The time zone of the daytime service: `TZ` in all its forms, `--zone` and `--clock`.

use std::os::unix::ffi::OsStrExt;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::common::{connect, eventually, read_all, skip};
use crate::program::{Folder, Server, campanile, campanile_without_privileges, run};

/// Returns the line that the server sends to one client.
fn line(server: &Server) -> String {
    String::from_utf8(read_all(&mut connect(server.daytime())).unwrap()).unwrap()
}

/// The arguments of a server whose clock stands at noon, UTC, of a day in winter.
const NOON: [&str; 7] = ["serve", "-e", "off", "-d", "0", "--clock", "2014-01-29T12:00:00Z"];

/// Returns the day and time that a server tells at [`NOON`].
fn day_and_time(command: &mut Command) -> String {
    let line = line(&Server::spawn(command));
    let line = line.strip_suffix(" 2014\r\n").unwrap();
    line.strip_prefix("Wed Jan 29 ").unwrap_or(line).to_owned()
}

/// Returns the time that a server tells at [`NOON`], with the day unless it is the 29th.
fn noon(words: &[&str], tz: Option<&str>) -> String {
    let mut command = campanile();
    command.args(NOON).args(words);
    if let Some(tz) = tz {
        command.env("TZ", tz);
    }
    day_and_time(&mut command)
}

#[test]
fn an_offset_goes_either_way() {
    assert_eq!(noon(&["--zone", "-05:30"], None), "06:30:00");
    assert_eq!(noon(&["--zone=-05:30"], None), "06:30:00");
    assert_eq!(noon(&["--zone", "+05:45"], None), "17:45:00");
    assert_eq!(noon(&["--zone", "utc"], Some("CET-1")), "12:00:00");
}

#[test]
fn tz_may_be_empty_or_a_rule() {
    assert_eq!(noon(&[], Some("")), "12:00:00");
    assert_eq!(noon(&[], Some(":")), "12:00:00");
    assert_eq!(noon(&[], Some("UTC0")), "12:00:00");
    assert_eq!(noon(&[], Some("CET-1CEST,M3.5.0,M10.5.0/3")), "13:00:00");
    assert_eq!(noon(&["--zone", "local"], Some("<-0330>3:30")), "08:30:00");
}

#[test]
fn a_rule_is_told_as_the_c_library_tells_it() {
    for (tz, expected) in [
        ("EST24", "Tue Jan 28 12:00:00"),
        ("EST-24:59:59", "Thu Jan 30 12:59:59"),
        ("EST5EDT,M3.2.0/+2,M11.1.0", "07:00:00"),
        ("AEST-10AEDT,M10.1.0/-2,M4.1.0/+3", "23:00:00"),
        ("<A1+>-1:30<B2B2B2B2>,J20/-167,60/167", "14:30:00"),
        (":<-02>2<-01>,M3.5.0/-1,M10.5.0/0", "10:00:00"),
    ] {
        assert_eq!(noon(&[], Some(tz)), expected, "{tz}");
        let date = Command::new("date")
            .args(["-d", "@1390996800", "+%a %b %e %H:%M:%S"])
            .env("TZ", tz)
            .env("LC_ALL", "C")
            .output();
        match date {
            Ok(date) if date.status.success() => {
                let date = String::from_utf8(date.stdout).unwrap();
                assert!(date.trim_end().ends_with(expected), "{tz}: {date}");
            }
            _ => skip("GNU date is not installed"),
        }
    }
}

#[test]
fn tz_names_a_file_below_tzdir() {
    let Ok(zone) = std::fs::read("/usr/share/zoneinfo/Asia/Kolkata") else {
        skip("tzdata is not installed");
        return;
    };
    for tz in ["Asia/Kolkata", ":Asia/Kolkata", "/usr/share/zoneinfo/Asia/Kolkata"] {
        assert_eq!(noon(&[], Some(tz)), "17:30:00", "{tz}");
    }
    let folder = Folder::new("tzdir");
    std::fs::write(folder.join("Mine"), zone).unwrap();
    let with = |tz: &str, dir: &std::path::Path| {
        let mut command = campanile();
        command.args(NOON).env("TZ", tz).env("TZDIR", dir);
        command
    };
    assert_eq!(day_and_time(&mut with("Mine", &folder.join(""))), "17:30:00");
    assert_eq!(day_and_time(&mut with("Asia/Kolkata", "".as_ref())), "17:30:00");
    let ended = run(&mut with("Asia/Kolkata", &folder.join("")));
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
}

/// Runs the server where `/etc` has no file but those that `script` makes.
fn with_own_etc(script: &str) -> Option<Command> {
    let mut command = Command::new("unshare");
    let script = format!("mount -t tmpfs none /etc && {script} exec \"$0\" \"$@\"");
    command.env_clear().args(["-rm", "sh", "-c", &script]);
    let works = run(Command::new("unshare").args(["-rm", "mount", "-t", "tmpfs", "none", "/etc"]));
    command.arg(env!("CARGO_BIN_EXE_campanile")).stdin(std::process::Stdio::null());
    (works.code == Some(0)).then_some(command)
}

#[test]
fn without_tz_the_zone_is_that_of_etc_localtime() {
    let zone = "/usr/share/zoneinfo/Asia/Kolkata";
    let link = format!("ln -s {zone} /etc/localtime &&");
    let (Some(mut none), Some(mut linked)) = (with_own_etc(""), with_own_etc(&link)) else {
        skip("`unshare -rm` or `mount` fails");
        return;
    };
    let server = Server::spawn(none.args(NOON).arg("-v"));
    assert_eq!(line(&server), "Wed Jan 29 12:00:00 2014\r\n");
    let stderr = server.stop();
    let said = "there is no /etc/localtime: the local time is UTC";
    assert_eq!(stderr.matches(said).count(), 1, "{stderr}");
    if std::path::Path::new(zone).exists() {
        assert_eq!(day_and_time(linked.args(NOON)), "17:30:00");
    } else {
        skip("tzdata is not installed");
    }
    let mut broken = with_own_etc("head -c 100 /dev/urandom >/etc/localtime &&").unwrap();
    let ended = run(broken.args(NOON));
    let start = "error: cannot read the local time zone from /etc/localtime: not a valid TZif file";
    assert!(ended.stderr.starts_with(start), "{}", ended.stderr);
    assert_eq!(ended.code, Some(1));
}

#[test]
fn a_zone_file_that_disappears_is_warned_about_once_and_its_zone_stays() {
    let Ok(zone) = std::fs::read("/usr/share/zoneinfo/Pacific/Kiritimati") else {
        skip("tzdata is not installed");
        return;
    };
    let folder = Folder::new("vanishing");
    let file = folder.join("zone");
    std::fs::write(&file, zone).unwrap();
    let mut command = campanile();
    let server = Server::spawn(command.args(["serve", "-d", "0", "-e", "off"]).env("TZ", &file));
    std::fs::remove_file(&file).unwrap();
    for _ in 0..2 {
        let second = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let before = second();
        let line = line(&server);
        // The zone is 14 hours east.
        let hours = |second: u64| format!(" {:02}:", (second / 3600 + 14) % 24);
        let expected = [hours(before), hours(second())];
        assert!(expected.iter().any(|hour| line.contains(hour)), "{line} {expected:?}");
        eventually("the next second", || (second() > before).then_some(()));
    }
    let stderr = server.stop();
    let warning = format!("cannot read the time zone from {} again", file.display());
    assert_eq!(stderr.matches(&warning).count(), 1, "{stderr}");
}

#[test]
fn a_clock_far_from_now_is_told_all_the_same() {
    for (time, expected) in [
        ("0001-01-01T00:00:00Z", "Mon Jan  1 00:00:00 1\r\n"),
        ("1969-12-31T23:59:59Z", "Wed Dec 31 23:59:59 1969\r\n"),
        ("9999-12-31T23:59:59Z", "Fri Dec 31 23:59:59 9999\r\n"),
        ("2014-01-29T20:14:15.999+01:00", "Wed Jan 29 19:14:15 2014\r\n"),
    ] {
        let server = Server::start(&["--zone", "utc", "--clock", time]);
        server.wait_for(&format!("the clock stands still at {time}\n"));
        assert_eq!(line(&server), expected);
    }
}

#[test]
fn a_tz_that_cannot_be_used_is_named_and_nothing_is_served() {
    let folder = Folder::new("zones");
    let (garbage, fifo) = (folder.join("garbage"), folder.join("fifo"));
    std::fs::write(&garbage, [0xff; 100]).unwrap();
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let (hollow, disguised) = (folder.join("hollow"), folder.join("disguised"));
    std::fs::write(&hollow, "TZif").unwrap();
    std::fs::write(&disguised, [&b"TZif2"[..], &[0xff; 200]].concat()).unwrap();
    let closed = folder.join("closed");
    std::fs::write(&closed, "TZif").unwrap();
    std::fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o0)).unwrap();
    let mut table = vec![
        (garbage.to_str().unwrap(), "not a valid TZif file"),
        (hollow.to_str().unwrap(), "not a valid TZif file"),
        (disguised.to_str().unwrap(), "not a valid TZif file"),
        (fifo.to_str().unwrap(), "not a regular file"),
        ("/dev/zero", "not a regular file"),
        ("/", "not a regular file"),
        ("Europe/Nowhere", "there is no file /usr/share/zoneinfo/Europe/Nowhere"),
        (":Europe/Nowhere", "there is no file /usr/share/zoneinfo/Europe/Nowhere"),
        ("../../../../etc/passwd", "not a valid TZif file"),
        ("EST-23EDT,0/0,J365/23", "outside its year"),
        ("EST5EDT,365,J100", "outside its year"),
        ("EST5EDT,M3.2.0/168,M11.1.0", "as a POSIX rule"),
        ("EST25", "as a POSIX rule"),
        ("CET-1CEST", "as a POSIX rule"),
    ];
    if std::path::Path::new("/usr/share/zoneinfo/right/UTC").exists() {
        table.push(("right/UTC", "leap seconds"));
    } else {
        skip("tzdata-legacy is not installed");
    }
    let refuses = |mut command: Command, tz: &str, why: &str| {
        let ended = run(command.args(["serve", "-d", "0", "-e", "0"]).env("TZ", tz));
        let start = format!("error: cannot use TZ={tz:?} as the local time zone: ");
        assert!(ended.stderr.starts_with(&start), "{}", ended.stderr);
        assert!(ended.stderr.contains(why), "{}", ended.stderr);
        assert!(ended.stderr.ends_with("or use --zone utc\n"), "{}", ended.stderr);
        assert_eq!((ended.code, &*ended.stdout), (Some(1), ""));
    };
    if let Some(command) = campanile_without_privileges() {
        refuses(command, closed.to_str().unwrap(), "ermission denied");
    }
    for (tz, why) in table {
        refuses(campanile(), tz, why);
    }
    // A server that does not tell the local time ignores TZ.
    for words in [&["-d", "off"][..], &["-d", "0", "--zone", "utc"]] {
        let mut command = campanile();
        command.args(["serve", "-e", "0"]).args(words).env("TZ", "Europe/Nowhere");
        Server::spawn(&mut command).stop();
    }
    let bytes = std::ffi::OsStr::from_bytes(b"\xff\xfe");
    let ended = run(campanile().args(["serve", "-d", "0", "-e", "0"]).env("TZ", bytes));
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
}
