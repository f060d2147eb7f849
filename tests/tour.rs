//! The numbered examples print what is true, and reach the rung of the ladder that they name. The
//! example in one file keeps every rule that a client can check.
#![cfg(all(unix, feature = "cli"))]

mod common;
#[allow(dead_code)]
#[path = "../examples/one_file.rs"]
mod one_file;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, UNIX_EPOCH};

use campanile::ladder::{Ladder, Report};
use campanile::services::Daytime;
use campanile::{Clock, Outbox, Protocol};
use common::{DEADLINE, connect, ping, skip};

/// The examples, and the rung of the echo ladder that each reaches.
const TOUR: [(&str, usize); 10] = [
    ("01_blocking", 1),
    ("02_busy", 2),
    ("03_poll", 2),
    ("04_drain", 4),
    ("05_slab", 4),
    ("06_partial_writes", 5),
    ("07_back_pressure", 7),
    ("08_linger", 8),
    ("09_descriptors", 8),
    ("10_timers_and_signals", 8),
];

/// Where the examples are built, beside this test.
fn path(name: &str) -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.join("examples").join(name)
}

fn source(name: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples");
    std::fs::read_to_string(folder.join(name).with_extension("rs")).unwrap()
}

/// Runs an example to its end and returns what it printed.
fn story(name: &str) -> Vec<String> {
    let output = Command::new(path(name)).stdin(Stdio::null()).output().expect("it is built");
    assert!(output.status.success(), "{name}: {output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// The numbers that follow these words in the output, one for each. Digits are grouped by commas.
fn numbers<const N: usize>(story: &[String], words: [&str; N]) -> [usize; N] {
    let text = story.join("\n");
    words.map(|word| {
        let (_, rest) = text.split_once(word).unwrap_or_else(|| panic!("no {word:?} in {text}"));
        let digits: String =
            rest.trim_start().chars().take_while(|c| c.is_ascii_digit() || *c == ',').collect();
        digits
            .replace(',', "")
            .parse()
            .unwrap_or_else(|_| panic!("no number after {word:?} in {text}"))
    })
}

/// A server of `examples/`; killed on drop.
struct Server {
    child: Child,
    /// In the order in which they are printed.
    addrs: Vec<SocketAddr>,
}

impl Server {
    fn start(mut command: Command, listeners: usize) -> Server {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it is built");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().take(listeners);
        let addrs = lines.map(|line| line.unwrap().rsplit(' ').next().unwrap().parse().unwrap());
        let addrs = addrs.collect();
        Server { child, addrs }
    }

    fn of(name: &str, listeners: usize) -> Server {
        let mut command = Command::new(path(name));
        command.args(["127.0.0.1:0"; 2].iter().take(listeners));
        Server::start(command, listeners)
    }

    /// Kills the server and returns what it wrote to stderr.
    fn complaints(mut self) -> String {
        self.child.kill().unwrap();
        let mut text = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn climb(ladder: Ladder) -> Report {
    ladder.climb(|_| {}).expect("a server answers")
}

#[test]
fn every_example_reaches_exactly_the_rung_that_it_names() {
    for (name, rung) in TOUR {
        let server = Server::of(name, 1);
        // Some examples stop with silence. The others are never silent for so long.
        let patience = if rung < 8 { DEADLINE / 6 } else { DEADLINE };
        let report = climb(Ladder::echo(server.addrs[0]).timeout(patience));
        // Before `WouldBlock` mio promises nothing; epoll happens to give a little more than that.
        let is_less = name == "03_poll" && cfg!(mio_unsupported_force_poll_poll);
        assert_eq!(report.reached(), if is_less { 1 } else { rung }, "{name}: {report}");
        // The comment may be broken anywhere.
        let header = source(name).replace("\n//! ", " ");
        assert!(header.contains(&format!("reaches rung {rung} of the echo ladder")), "{name}");
        let named =
            format!("this is rung {rung} of the echo ladder: {}", report.rungs[rung - 1].rung.name);
        let source = source(name);
        let last = source.lines().rfind(|line| line.contains("println!"));
        assert_eq!(last.unwrap().trim(), format!("println!(\"{named}\");"), "{name}");
    }
}

#[test]
fn a_blocking_server_leaves_the_second_client_waiting() {
    let story = story("01_blocking");
    assert_eq!(numbers(&story, ["server read", "echoed", "10 bytes, got"]), [1, 12, 0]);
}

#[test]
fn a_busy_server_calls_in_vain() {
    let story = story("02_busy");
    let [reads, vain] = numbers(&story, ["with data:", "WouldBlock:"]);
    assert!(reads == 2 && vain > 2, "{story:?}");
}

#[test]
fn one_read_per_event_leaves_bytes_for_which_no_event_comes() {
    let words = ["accepts:", "reads:", "sent", "bytes, got", "again:"];
    assert_eq!(numbers(&story("03_poll"), words), [1, 1, 4096, 1024, 3072]);
}

#[test]
fn one_event_can_stand_for_many_clients_and_all_their_bytes() {
    let story = story("04_drain");
    let words = ["events:", "accepts:", "sent", "bytes, got"];
    assert_eq!(numbers(&story, words), [1, 3, 12_288, 12_288]);
    let [reads, blocked] = numbers(&story, ["reads:", "WouldBlock:"]);
    assert!(reads >= 12 && blocked >= 1, "{story:?}");
}

#[test]
fn a_token_saves_a_read_of_every_other_connection() {
    let story = story("05_slab");
    let [accepts, writes, saved] = numbers(&story, ["accepts:", "writes:", "saved:"]);
    // The events of the ends alone: the first one saves a hundred reads, the last one none.
    assert!(accepts == 101 && writes == 10 && saved >= 5050, "{story:?}");
}

#[test]
fn short_writes_lose_nothing_but_memory() {
    let story = story("06_partial_writes");
    let [sent, back, writes] = numbers(&story, ["sent", "got", "writes:"]);
    let [short, offered] = numbers(&story, ["short writes:", "offered"]);
    let [taken, unsent] = numbers(&story, ["taken", "at a time:"]);
    assert!(sent == 16 << 20 && back == sent, "{story:?}");
    assert!((1..=writes).contains(&short) && taken < offered, "{story:?}");
    assert!(unsent > 1 << 20, "{story:?}");
}

#[test]
fn back_pressure_bounds_the_unsent_bytes() {
    let story = story("07_back_pressure");
    let [sent, back, unsent, blocked] =
        numbers(&story, ["sent", "got", "at a time:", "WouldBlock:"]);
    assert!(sent > 0 && back == sent && unsent <= 4096 && blocked > 0, "{story:?}");
}

#[test]
fn closing_with_bytes_unread_is_a_reset_and_lingering_is_not() {
    let story = story("08_linger");
    assert!(story[2].starts_with("closed at once: ") && story[2].contains("reset"), "{story:?}");
    let lingering = "half-closed, read to EOF: the client got 1,000 bytes, then: EOF";
    assert_eq!(story[3], lingering, "{story:?}");
}

#[test]
fn a_client_that_finds_no_descriptor_is_served_later() {
    let story = story("09_descriptors");
    let words = ["at once:", "for them:", "accepts:", "served:", "used:"];
    assert_eq!(numbers(&story, words), [8, 3, 8, 8, 3]);
    assert!(numbers(&story, ["no descriptor:"])[0] >= 1, "{story:?}");
}

#[test]
fn a_deadline_ends_a_client_that_never_reads_and_a_signal_ends_the_rest() {
    let story = story("10_timers_and_signals");
    assert_eq!(numbers(&story, ["deadline:", "signal:"]), [1, 1]);
    let errors = ["reset by peer", "Broken pipe"];
    assert!(errors.iter().any(|error| story[1].contains(error)), "{story:?}");
    assert!(story[2].contains("got: EOF"), "{story:?}");
}

/// Climbs both ladders to the top; the server prints no error meanwhile.
fn climb_both(server: Server) {
    let daytime = climb(Ladder::daytime(server.addrs[0]).timeout(DEADLINE));
    assert!(daytime.is_well(), "{daytime}");
    let echo = climb(Ladder::echo(server.addrs[1]).timeout(DEADLINE));
    assert!(echo.is_well(), "{echo}");
    assert_eq!(server.complaints(), "");
}

#[test]
fn one_file_reaches_the_top_of_both_ladders() {
    climb_both(Server::of("one_file", 2));
}

/// Starts a solution of the exercises, if the program that runs or compiles it is installed.
fn solution(program: &str, arguments: &[&str]) -> Option<Command> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR").to_owned() + "/examples/exercises");
    if Command::new(program).arg("--version").output().is_err() {
        skip(format!("{program} is not installed"));
        return None;
    }
    Some(command)
}

#[test]
fn the_solution_in_python_reaches_the_top_of_both_ladders() {
    if let Some(python) = solution("python3", &["server.py", "127.0.0.1:0", "127.0.0.1:0"]) {
        climb_both(Server::start(python, 2));
    }
}

#[test]
fn the_solution_in_c_reaches_the_top_of_both_ladders() {
    let program = concat!(env!("CARGO_TARGET_TMPDIR"), "/exercise");
    let flags = ["-Wall", "-Wextra", "-Werror", "-o", program, "server.c"];
    if let Some(mut compiler) = solution("cc", &flags) {
        assert!(compiler.status().unwrap().success());
        let mut command = Command::new(program);
        command.args(["127.0.0.1:0"; 2]);
        climb_both(Server::start(command, 2));
    }
}

#[test]
fn one_file_survives_running_out_of_descriptors() {
    let mut command = Command::new("sh");
    let path = path("one_file");
    command.args(["-c", "ulimit -n 16; exec \"$0\" 127.0.0.1:0 127.0.0.1:0"]).arg(path);
    let server = Server::start(command, 2);
    let clients: Vec<_> = (0..40).map(|_| connect(server.addrs[1])).collect();
    // Only the first clients have a descriptor; each one that leaves makes room for the next.
    for mut client in clients {
        ping(&mut client, b"my turn at last");
    }
    ping(&mut connect(server.addrs[1]), b"and now there is room");
    let complaints = server.complaints();
    assert!(complaints.lines().count() >= 1, "it never ran out");
    assert!(complaints.lines().all(|line| line.starts_with("cannot accept for now: ")));
    assert!(complaints.lines().count() < 40, "a warning for every try: {complaints}");
}

#[test]
fn one_file_tells_the_same_time_as_the_library() {
    let line = |second| {
        let mut out = Outbox::new(std::time::Instant::now());
        Daytime::new(Clock::fixed(second)).on_open(&mut out);
        String::from_utf8(out.queued().to_vec()).unwrap()
    };
    let same = |second: u64| {
        let time = UNIX_EPOCH + Duration::from_secs(second);
        assert_eq!(one_file::ctime(time), line(second as i64), "{second}");
    };
    // The ends of every day of 430 years, and then a second at another time of each day.
    for day in 1..157_000 {
        same(day * 86_400 - 1);
        same(day * 86_400);
        same(day * 86_400 + day * 7 % 86_400);
    }
    same(253_402_300_800);
    assert_eq!(one_file::ctime(UNIX_EPOCH - Duration::from_secs(1)), line(0), "before 1970");
}

#[test]
fn one_file_closes_a_client_that_sends_for_ever_and_serves_the_others() {
    let server = Server::of("one_file", 2);
    let mut talker = connect(server.addrs[0]);
    let mut line = String::new();
    talker.read_to_string(&mut line).unwrap();
    assert!(line.len() == 26 && line.ends_with("\r\n"), "{line:?}");
    // After two seconds the server closes the connection: a write fails.
    let (piece, began) = ([b'?'; 1024], Instant::now());
    let error = loop {
        match talker.write_all(&piece) {
            Ok(()) => assert!(began.elapsed() < DEADLINE, "the server lingers for ever"),
            Err(error) => break error.kind(),
        }
    };
    assert!(matches!(error, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
    ping(&mut connect(server.addrs[1]), b"the others are served");
}
