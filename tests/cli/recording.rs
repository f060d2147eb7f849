//! `serve --record` and `campanile play`.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use campanile::record::base64;
use campanile::testing::TestServer;
use serde_json::Value;

#[path = "../common/traces.rs"]
mod traces;

use crate::common::recording::{check, records};
use crate::common::{connect, eventually, ping, read_all};
use crate::program::{Ended, Folder, Server, campanile, run, run_words};

/// Records a short conversation into `path`, with these arguments.
fn record(path: &Path, words: &[&str]) -> String {
    let words = [&["--record", path.to_str().unwrap()], words].concat();
    let server = Server::start(&words);
    ping(&mut connect(server.echo()), b"Hello");
    read_all(&mut connect(server.daytime())).unwrap();
    server.stop();
    fs::read_to_string(path).unwrap()
}

fn play(path: &Path, words: &[&str]) -> Ended {
    run(campanile().arg("play").arg(path).args(words))
}

#[test]
fn a_recorded_server_can_be_played() {
    let folder = Folder::new("play");
    let path = folder.join("run.jsonl");
    let text = record(&path, &["--record-bytes", "3"]);
    let totals = check(&text);
    assert_eq!(totals.accepted.values().collect::<Vec<_>>(), ["echo", "daytime"]);
    assert_eq!(totals.bytes, (5, 5 + 26));
    let played = play(&path, &[]);
    assert_eq!((played.code, &*played.stderr), (Some(0), ""));
    for line in [
        "#1 recvfrom(49152 bytes) = 5  'Hel'\n",
        "#1 sendto(5 bytes) = 5  'Hel'\n",
        "#1 accept4(127.0.0.1:",
        " = 1  echo\n",
        " = 0  daytime\n",
        "epoll_wait(timeout ",
        "#2 epoll_ctl(EPOLL_CTL_ADD) = 0\n",
        "#2 sendto(26 bytes, MSG_MORE) = 26  ",
        "#2 shutdown(SHUT_WR) = 0\n",
        "#2 close() = 0\n",
        ": finished; 0 bytes in, 26 out\n",
        " 2 connections, 5 bytes in, 31 bytes out; 0 short writes, ",
    ] {
        assert!(played.stdout.contains(line), "{line:?} is missing in\n{}", played.stdout);
    }
    assert!(!played.stdout.contains('\x1b'), "a pipe has no colours");
}

#[test]
fn the_environment_records_and_a_plan_of_faults_is_recorded() {
    let folder = Folder::new("play-env");
    let path = folder.join("run.jsonl");
    let mut command = campanile();
    command.args(["serve", "-d", "0", "-e", "0", "--fault", "echo: short 2"]);
    command.env("CAMPANILE_RECORD", &path).env("CAMPANILE_RECORD_BYTES", "1");
    let server = Server::spawn(&mut command);
    ping(&mut connect(server.echo()), b"Hello");
    server.stop();
    check(&fs::read_to_string(&path).unwrap());
    let played = play(&path, &[]).stdout;
    for line in [
        "#1 sendto(5 bytes) = 2  short write  'H'  under echo: short 2\n",
        "#1 fault begins: echo: short 2\n",
    ] {
        assert!(played.contains(line), "{played}");
    }
}

#[test]
fn a_proxied_conversation_is_recorded_as_two_connections_of_which_one_names_the_other() {
    let folder = Folder::new("play-proxy");
    let path = folder.join("run.jsonl");
    let behind = Server::start(&["-q"]);
    let mut command = campanile();
    command.arg("proxy").arg(format!("front=0>{}", behind.echo()));
    command.args(["--fault", "front upstream: short 2", "--record"]).arg(&path);
    let front = Server::spawn(&mut command);
    let addr = front.lines.trim_end().strip_prefix("front ").unwrap().parse().unwrap();
    for _ in 0..2 {
        ping(&mut connect(addr), b"Hello");
    }
    front.stop();
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(
        check(&text).accepted.into_iter().collect::<Vec<_>>(),
        [(1, "front".into()), (3, "front".into())]
    );
    let records = records(&text);
    assert_eq!(records[0]["services"], serde_json::json!(["front", "front upstream"]));
    let of = |kind: &str, name: &str| {
        let is_it =
            |record: &&Value| record["k"] == kind && (kind != "call" || record["f"] == name);
        records.iter().filter(is_it).cloned().collect::<Vec<_>>()
    };
    let pairs: Vec<_> = of("call", "connect")
        .iter()
        .map(|call| (call["c"].as_u64().unwrap(), call["parent"].as_u64().unwrap()))
        .collect();
    assert_eq!(pairs, [(2, 1), (4, 3)]);
    // The faults of the server's side are those of its connection.
    let faults: Vec<_> = of("fault", "").iter().map(|fault| fault["c"].as_u64().unwrap()).collect();
    assert_eq!(faults, [2, 4]);
    let played = play(&path, &[]).stdout;
    assert!(played.contains(&format!("#4 connect({}) = 0  for #3\n", behind.echo())), "{played}");
    let events = trace(&path, &folder.join("run.json"));
    assert!(events.iter().any(|event| event["name"] == format!("#4 for #3 {}", behind.echo())));
}

#[test]
fn the_test_servers_guide_shows_the_timeline_that_its_example_leaves() {
    let folder = Folder::new("play-guide");
    let path = folder.join("line.jsonl");
    let server = TestServer::builder().record(&path).start();
    server.daytime().once("slice 5/20ms");
    server.daytime().connect().read_exact(&mut [0; 5]).unwrap();
    server.daytime().ended();
    drop(server);
    let plain = |text: &str| text.replace(|c: char| c.is_ascii_digit() || c == ' ', "");
    let played: Vec<_> = play(&path, &[]).stdout.lines().map(plain).collect();
    let guide = include_str!("../../src/testing/guide.md");
    let (_, shown) = guide.split_once("$ campanile play target/line.jsonl\n").unwrap();
    for line in shown.split("```").next().unwrap().lines() {
        assert!(played.contains(&plain(line)), "{line} is not in {played:#?}");
    }
}

#[test]
fn the_recording_of_a_killed_server_is_played_to_its_last_whole_line() {
    let folder = Folder::new("play-killed");
    let path = folder.join("run.jsonl");
    let mut server = Server::start(&["--record", path.to_str().unwrap()]);
    read_all(&mut connect(server.daytime())).unwrap();
    let has_end = || fs::read_to_string(&path).unwrap().contains("\"k\":\"end\"").then_some(());
    eventually("the end of the connection is in the file", has_end);
    server.signal(libc::SIGKILL);
    server.wait();
    let mut text = fs::read(&path).unwrap();
    assert_eq!(play(&path, &[]).code, Some(0));
    text.extend(b"{\"t\":99999999,\"k\":\"tu");
    fs::write(&path, text).unwrap();
    let played = play(&path, &[]);
    assert_eq!(played.code, Some(0));
    assert!(played.stdout.contains(" ended: finished; "), "{}", played.stdout);
    let note = "ends in the middle of a line, as after a kill; that line is left out\n";
    assert!(played.stderr.ends_with(note), "{}", played.stderr);
}

#[test]
fn a_full_disk_ends_the_recording_with_one_warning_and_not_the_server() {
    let server = Server::start(&["--record", "/dev/full"]);
    server.wait_for("the recording ends here: cannot write to /dev/full: No space left on device");
    ping(&mut connect(server.echo()), b"Hello");
    let log = server.stop();
    assert_eq!(log.matches("recording").count(), 1, "{log}");
}

#[test]
fn a_recording_that_cannot_be_created_ends_the_program_before_it_serves() {
    let ended = run_words(["serve", "-d", "0", "-e", "0", "--record", "/nowhere/run.jsonl"]);
    let expected = "error: cannot create the recording /nowhere/run.jsonl: No such file or \
                    directory (os error 2)\n  name a file that can be written, in a directory \
                    that exists\n";
    assert_eq!((ended.code, &*ended.stdout, &*ended.stderr), (Some(1), "", expected));
}

/// Plays a recording into a trace, and returns its events.
fn trace(recording: &Path, out: &Path) -> Vec<Value> {
    assert_eq!(play(recording, &["--perfetto", out.to_str().unwrap()]).code, Some(0));
    traces::check(&fs::read(out).unwrap())
}

#[test]
fn every_story_is_a_trace_by_the_rules_of_the_format() {
    let folder = Folder::new("play-traces");
    let out = folder.join("run.json");
    let mut all = HashSet::new();
    for story in stories() {
        let events = trace(&story, &out);
        all.extend(events.iter().map(|event| event["ph"].as_str().unwrap().to_owned()));
    }
    assert_eq!(all, HashSet::from(["M", "B", "E", "b", "e", "i", "C"].map(str::to_owned)));
}

#[test]
fn a_perfetto_trace_has_slices_that_nest_and_counters_of_unsent_bytes() {
    let folder = Folder::new("play-perfetto");
    let (mut open, mut most) = (Vec::new(), 0);
    for event in trace(Path::new("src/guide/stories/back_pressure.jsonl"), &folder.join("run.json"))
    {
        let name = event["name"].as_str().unwrap_or_default();
        match event["ph"].as_str().unwrap() {
            "B" => {
                assert_eq!(open.len(), usize::from(event["cat"] == "phase"), "{event}");
                open.push(name.to_owned());
            }
            "E" => drop(open.pop()),
            "i" if name == "read" => assert_eq!(open[1], "run_connections"),
            "C" => {
                assert_eq!(name, "unsent #1");
                most = most.max(event["args"]["bytes"].as_u64().unwrap());
            }
            _ => {}
        }
    }
    assert_eq!(most, 64 << 10);
}

fn stories() -> Vec<PathBuf> {
    let folder = fs::read_dir("src/guide/stories").unwrap();
    let mut files: Vec<_> = folder.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// The recordings in a page.
fn embedded(page: &str) -> Vec<String> {
    let elements = page.split("<script type=\"application/octet-stream\" ").skip(1);
    let unzip = |element: &str| {
        let (_, text) = element.split_once('>').unwrap();
        let zipped = base64::decode(text.split_once("</script>").unwrap().0).unwrap();
        let mut text = String::new();
        flate2::read::GzDecoder::new(&*zipped).read_to_string(&mut text).unwrap();
        text
    };
    elements.map(unzip).collect()
}

#[test]
fn several_recordings_make_one_page() {
    let folder = Folder::new("play-stories");
    let (out, files) = (folder.join("stories.html"), stories());
    let played = run(campanile().arg("play").arg("--html").arg(&out).args(&files));
    assert_eq!((played.code, &*played.stdout), (Some(0), ""), "{}", played.stderr);
    let page = fs::read_to_string(&out).unwrap();
    let texts: Vec<_> = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    assert_eq!(embedded(&page), texts);
    assert!(
        texts.len() >= 6 && page.contains(" data-title=\"A short write\" data-text=\"The kernel")
    );
    let refused = run(campanile().arg("play").args(&files));
    let expected = "error: several recordings make no timeline\n  \
                    give one, or write a page of all of them: --html OUT\n";
    assert_eq!((refused.code, &*refused.stderr), (Some(2), expected));
}

#[test]
fn a_page_embeds_the_recording_and_nothing_hostile_leaves_it() {
    let folder = Folder::new("play-html");
    let path = folder.join("<b>&\u{202e}run.jsonl");
    let mut server = Server::start(&["--record-bytes", "99", "--record", path.to_str().unwrap()]);
    ping(&mut connect(server.echo()), b"</script>\0\xe2\x80\xae<script>alert(1)</script>");
    server.signal(libc::SIGTERM);
    assert_eq!(server.wait().0.code(), Some(0));
    let out = folder.join("run.html");
    let played = play(&path, &["--html", out.to_str().unwrap()]);
    assert_eq!((played.code, &*played.stdout), (Some(0), ""), "{}", played.stderr);
    let page = fs::read_to_string(&out).unwrap();
    let title = page.split_once("<title>").unwrap().1.split_once("</title>").unwrap().0;
    assert!(title.contains("&lt;b&gt;&amp;\u{fffd}run.jsonl"), "{title}");
    assert!(!page.contains("alert(1)") && !page.contains(['\0', '\u{202e}']));
    assert_eq!(embedded(&page), [fs::read_to_string(&path).unwrap()]);
    let sent = records(&fs::read_to_string(&path).unwrap())
        .into_iter()
        .find_map(|record| Some(record["data"].as_str()?.to_owned()));
    assert!(base64::decode(&sent.unwrap()).unwrap().starts_with(b"</script>\0\xe2\x80\xae"));
    // In the terminal, neither the payload nor the name moves the cursor or turns the line around.
    let played = play(&path, &[]);
    assert!(!played.stdout.contains(['\0', '\x1b', '\u{202e}']), "{}", played.stdout);
}

#[test]
fn a_file_that_is_no_recording_is_refused_with_what_is_wrong_and_what_to_do() {
    let folder = Folder::new("play-wrong");
    let path = folder.join("run.jsonl");
    let header = r#"{"recording":"campanile","v":1}"#;
    let cases: &[(&str, &str, &str)] = &[
        ("", "it is not a recording: it has no whole line", "record one: campanile serve --record"),
        ("hello\n", "it is not a recording: expected value at column 1", "record one"),
        ("[1]\n", "it is not a recording: it is no JSON object", "record one"),
        ("{\"a\":1}\n", "it is not a recording: its first line is no header", "record one"),
        ("\u{1b}[2J\0\n", "it is not a recording: expected value at column 1", "record one"),
        (
            "{\"recording\":\"campanile\",\"v\":2}\n",
            "it has version 2 of the format; this program reads 1",
            "play it with the version of campanile that recorded it",
        ),
        (
            "HEADER\n{\"t\":1,\"k\":\"turn\",\"n\":1}\n{\"t\":\n{\"t\":2,\"k\":\"x\"}\n",
            "line 3 is damaged: EOF while parsing a value",
            "remove that line and those behind it",
        ),
        ("HEADER\n{\"k\":\"turn\"}\n", "line 2 is damaged: it lacks a time", "remove that line"),
    ];
    for (text, what, advice) in cases {
        fs::write(&path, text.replace("HEADER", header)).unwrap();
        let out = folder.join("out");
        for words in [vec![], vec!["--html", out.to_str().unwrap()]] {
            let played = play(&path, &words);
            let (first, second) = played.stderr.split_once('\n').unwrap();
            assert_eq!(played.code, Some(1));
            let expected = format!("error: cannot play {}: {what}", path.display());
            assert!(first.starts_with(&expected), "{first:?} for {text:?}");
            assert!(second.starts_with(&format!("  {advice}")), "{second:?} for {text:?}");
            assert!(!out.exists(), "a page is written for {text:?}");
        }
    }
    let missing = play(&folder.join("missing"), &[]);
    assert!(missing.stderr.contains("missing: No such file or directory"), "{}", missing.stderr);
}

#[test]
fn keys_and_kinds_that_this_version_does_not_know_are_ignored() {
    let folder = Folder::new("play-new");
    let path = folder.join("run.jsonl");
    let text = "{\"recording\":\"campanile\",\"v\":1,\"new\":[{}]}\n\
                {\"t\":1,\"k\":\"turn\",\"n\":1,\"new\":{\"a\":[1,null]}}\n\
                {\"t\":2,\"k\":\"a new kind\",\"c\":\"no number\"}\n\
                {\"t\":3,\"k\":\"call\",\"f\":\"a new call\",\"n\":-1}\n";
    fs::write(&path, text).unwrap();
    let played = play(&path, &[]);
    let expected = "campanile unknown: \n     0.000001  turn 1\n     0.000003      a new call() = 0\n\
                    1 turns, 0 connections, 0 bytes in, 0 bytes out; 0 short writes, 0 calls that \
                    would block, 0 errors, 0 faults\n";
    assert_eq!((played.code, &*played.stdout, &*played.stderr), (Some(0), expected, ""));
}

#[test]
fn an_output_that_cannot_be_written_is_named_and_the_recording_is_never_overwritten() {
    let folder = Folder::new("play-output");
    let path = folder.join("run.jsonl");
    fs::copy("src/guide/stories/short_write.jsonl", &path).unwrap();
    for flag in ["--html", "--perfetto"] {
        let refused = play(&path, &[flag, path.to_str().unwrap()]);
        assert_eq!(refused.code, Some(2));
        assert!(refused.stderr.ends_with(": it is a recording\n  name another file\n"));
        let full = play(&path, &[flag, "/dev/full"]);
        let expected = "error: cannot write to /dev/full: No space left on device (os error 28)\n  \
                        name a file that can be written, on a disk with room\n";
        assert_eq!((full.code, &*full.stderr), (Some(1), expected));
    }
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut child = campanile();
    let child = child.arg("play").arg(&path).stdout(full).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(child.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&child.stderr).contains("cannot write to standard output: "));
    // A reader that has read enough, such as head, is no failure.
    let (reader, writer) = UnixStream::pair().unwrap();
    drop(reader);
    let status = campanile().arg("play").arg(&path).stdout(OwnedFd::from(writer)).status();
    assert_eq!(status.unwrap().code(), Some(0));
}

/// Runs the program on a terminal of its own.
fn play_on_a_terminal(path: &Path, no_colour: &str) -> String {
    let terminal = nix::pty::openpty(None, None).unwrap();
    let mut command = campanile();
    command.arg("play").arg(path).env("NO_COLOR", no_colour).stdout(terminal.slave);
    let mut child = command.spawn().unwrap();
    drop(command);
    let (mut text, mut master) = (Vec::new(), File::from(terminal.master));
    // On Linux, a terminal without a writer ends in an error.
    let _ = master.read_to_end(&mut text);
    assert!(child.wait().unwrap().success());
    let _ = master.flush();
    String::from_utf8(text).unwrap()
}

#[test]
fn a_terminal_has_colours_unless_no_color_is_set() {
    let path = Path::new("src/guide/stories/short_write.jsonl");
    let coloured = play_on_a_terminal(path, "");
    assert!(coloured.contains("\x1b[33m#1 sendto(12 bytes) = 5  short write"), "{coloured}");
    let plain = play_on_a_terminal(path, "1");
    assert!(plain.contains("#1 sendto(12 bytes) = 5  short write") && !plain.contains('\x1b'));
}
