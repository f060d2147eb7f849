//! What the README shows is what happens: its console blocks are run.
#![cfg(all(feature = "cli", unix))]

mod common;
#[allow(dead_code)]
#[path = "cli/program.rs"]
mod program;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use program::Server;

const README: &str = include_str!("../README.md");

/// The console blocks: each command with what it prints.
fn commands() -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for block in README.split("```console\n").skip(1) {
        for line in block.split("```").next().unwrap().lines() {
            match line.strip_prefix("$ ") {
                Some(command) => found.push((command.into(), String::new())),
                None => found.last_mut().unwrap().1 += &format!("{line}\n"),
            }
        }
    }
    found
}

#[test]
fn the_console_blocks_of_the_readme_print_what_they_say() {
    let clock = ["--clock", "2014-01-29T19:14:15Z", "--zone", "utc"];
    let server = Server::start(&clock);
    let (mut served, mut run) = (false, 0);
    for (command, expected) in commands() {
        if command == "cargo run --release -- serve --record target/run.jsonl &" {
            // The one already running, on ports that are free.
            let lines = format!("daytime {}\necho {}\n", server.daytime(), server.echo());
            assert_eq!(lines, server.lines);
            assert_eq!(expected, "daytime 127.0.0.1:9999\necho 127.0.0.1:12345\n");
            served = true;
            continue;
        }
        if command.starts_with("cargo test")
            || command.ends_with("7777")
            || RUN.contains(&&*command)
        {
            // Each of these is run by a test of its own.
            continue;
        }
        let program = command.split_whitespace().next().unwrap();
        let is_here = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
        if program != "campanile" && is_here.unwrap().stdout.is_empty() {
            common::skip(format!("{program} is not installed"));
            continue;
        }
        let (daytime, echo) = (server.daytime(), server.echo());
        let shell = command
            .replace("nc 127.0.0.1 9999", &format!("nc 127.0.0.1 {}", daytime.port()))
            .replace("campanile daytime", &format!("campanile daytime {daytime}"))
            .replace("campanile echo", &format!("campanile echo {echo}"));
        let folder = Path::new(env!("CARGO_BIN_EXE_campanile")).parent().unwrap();
        let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
        let ended = program::run(Command::new("sh").args(["-c", &shell]).env("PATH", path));
        let said = ended.stdout.replace('\r', "");
        assert_eq!(said, expected, "{shell}: {}", ended.stderr);
        run += 1;
    }
    assert!(served && run >= 2, "{run} commands were run");
}

/// The commands behind a server that records itself.
const RUN: [&str; 3] = [
    "campanile check echo --rung 5 && kill %1",
    "campanile play --html target/run.html target/run.jsonl",
    "xdg-open target/run.html",
];

#[test]
fn three_commands_of_the_readme_lead_to_the_page_of_an_own_short_write() {
    let shown: Vec<_> = commands().into_iter().map(|(command, _)| command).collect();
    let at = shown.iter().position(|command| command == RUN[0]).expect("the README has a run");
    assert_eq!(shown[at..at + 3], RUN);
    let folder = program::Folder::new("readme-run");
    std::fs::create_dir(folder.join("target")).unwrap();
    let server = Server::spawn(program::campanile().current_dir(folder.join(".")).args([
        "serve",
        "-d",
        "0",
        "-e",
        "0",
        "--record",
        "target/run.jsonl",
    ]));
    let climbed = program::run_words(["check", "echo", "--rung", "5", &server.echo().to_string()]);
    assert_eq!(climbed.code, Some(0), "{}", climbed.stdout);
    server.stop();
    let words: Vec<_> = RUN[1].split(' ').skip(1).collect();
    let played = program::run(program::campanile().current_dir(folder.join(".")).args(&words));
    assert_eq!(
        (played.code, &*played.stderr),
        (Some(0), "target/run.html: open it in a browser\n")
    );
    let page = std::fs::read_to_string(folder.join("target/run.html")).unwrap();
    assert!(page.contains("<title>run.jsonl</title>"));
    let played = program::run(
        program::campanile().current_dir(folder.join(".")).args(["play", "target/run.jsonl"]),
    );
    let shorts = played.stdout.lines().filter(|line| line.ends_with("  short write")).count();
    assert!(shorts > 0, "{}", played.stdout);
}

/// The lines between the anchor comments of a source, moved to the left edge.
fn anchored(path: &str, anchor: &str) -> String {
    let text = std::fs::read_to_string(root().join(path)).unwrap();
    let (begin, end) = (format!("// ANCHOR: {anchor}\n"), format!("// ANCHOR_END: {anchor}\n"));
    let body = text.split(&begin).nth(1).unwrap_or_else(|| panic!("{path} has no {begin}"));
    let body = body.split(&end).next().unwrap().trim_end();
    let indents = body.lines().filter(|line| !line.is_empty());
    let indent = indents.map(|line| line.len() - line.trim_start().len()).min().unwrap();
    // A test that is to fail is ignored in the source, and not where a reader copies it from.
    let lines = body.lines().filter(|line| !line.starts_with("#[ignore"));
    lines.map(|line| format!("{}\n", line.get(indent..).unwrap_or_default())).collect()
}

#[test]
fn every_excerpt_of_the_readme_is_what_its_source_says() {
    let mut checked = 0;
    for block in README.split("\n```rust").skip(1) {
        let (_, block) = block.split_once('\n').unwrap();
        let (head, body) = block.split("```").next().unwrap().split_once('\n').unwrap();
        let Some((path, anchor)) = head.strip_prefix("// ").and_then(|at| at.split_once(": "))
        else {
            continue;
        };
        assert_eq!(body, anchored(path, anchor), "{path}: {anchor}");
        checked += 1;
    }
    assert_eq!(checked, 2);
}

#[test]
fn every_link_of_the_readme_leads_to_a_file_or_to_a_heading() {
    let anchor = |heading: &str| heading.to_lowercase().replace(' ', "-");
    let headings: Vec<_> = README.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let mut checked = 0;
    for rest in README.split("](").skip(1) {
        let target = rest.split(')').next().unwrap();
        if let Some(heading) = target.strip_prefix('#') {
            assert!(headings.iter().any(|found| anchor(found) == heading), "#{heading}");
        } else if !target.starts_with("https://") {
            assert!(root().join(target).exists(), "{target} is missing");
        }
        checked += 1;
    }
    assert!(checked >= 5, "{checked} links");
}

#[test]
fn the_test_of_the_readme_fails_and_passes_as_it_says() {
    let shown = commands();
    for name in ["-- --ignored", "first_test\n"] {
        let (command, expected) = shown
            .iter()
            .find(|(command, _)| {
                format!("{command}\n").contains(name) && command.contains("first_test")
            })
            .expect("the README runs its test");
        let words: Vec<_> = command.split_whitespace().skip(1).collect();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(words).args(if command.contains("--ignored") { &[][..] } else { &["--"] });
        cargo.current_dir(root()).env("RUST_BACKTRACE", "0").env("CARGO_TERM_COLOR", "never");
        let output = cargo.output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).replace('\r', "");
        // Numbers of ports, processes and lines differ, and so does how much was sent in between.
        let plain = |line: &str| {
            let line = line.replace(|c: char| c.is_ascii_digit(), "");
            // The server sends on, or is dropped first.
            match (line.split_once(" out, "), line.rsplit_once(" [")) {
                (Some((head, _)), Some((_, fault))) => format!("{head} [{fault}"),
                _ => line,
            }
        };
        for line in expected.lines().filter(|line| !line.is_empty()) {
            let is_there = said.lines().any(|found| plain(found) == plain(line));
            assert!(is_there, "{command} does not print {line:?}:\n{said}");
        }
    }
}

/// The echo server of the tutorial's page, on a free port.
const TUTORIAL: &str = "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
s.bind(('127.0.0.1', 0))
s.listen(1)
print(s.getsockname()[1], flush=True)
conn, addr = s.accept()
while True:
    data = conn.recv(1024)
    if not data: break
    conn.sendall(data)
conn.close()
";

#[test]
fn the_server_of_the_tutorial_stops_where_the_readme_shows() {
    let mut python = Command::new("python3");
    python.args(["-c", TUTORIAL]).stdout(Stdio::piped());
    let Ok(mut tutorial) = python.spawn() else {
        common::skip("python3 is not here");
        return;
    };
    let mut port = String::new();
    BufReader::new(tutorial.stdout.take().unwrap()).read_line(&mut port).unwrap();
    let (command, expected) =
        commands().into_iter().find(|(command, _)| command.ends_with("7777")).unwrap();
    let shown: Vec<_> = command.split_whitespace().collect();
    let mut check = program::campanile();
    check.args(&shown[1..shown.len() - 1]).arg(port.trim());
    let said = program::run(&mut check).stdout.replace(port.trim(), "7777");
    tutorial.kill().unwrap();
    tutorial.wait().unwrap();
    // The second client is refused or reset, which depends on when the server's process ends.
    let like = |text: &str| -> Vec<String> {
        let lines =
            text.lines().filter(|line| !line.contains("received") && !line.contains("sent"));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(like(&said), like(&expected));
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn every_test_the_readme_names_is_there() {
    let named: Vec<_> = README.split('`').filter(|word| word.starts_with("tests/")).collect();
    assert!(named.len() >= 4, "the README names only {named:?}");
    for word in named {
        assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(word).exists(), "{word} is missing");
    }
}
