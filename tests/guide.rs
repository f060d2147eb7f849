//! The guide shows the output of its experiments as they print it, and every place that it names or
//! breaks exists. It names a place in the library by an anchor, a comment in the source, so that
//! renaming a function or a variable there changes no line of the guide.
#![cfg(all(target_os = "linux", feature = "cli"))]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use campanile::ladder::Ladder;

/// The chapters with an experiment, and the words before numbers that differ from run to run.
const CHAPTERS: [(&str, &[&str]); 10] = [
    ("01_blocking", &[]),
    ("02_busy", &["WouldBlock: "]),
    ("03_poll", &[]),
    ("04_drain", &["reads: ", "WouldBlock: "]),
    ("05_slab", &["reads: ", "WouldBlock: ", "saved: "]),
    ("06_partial_writes", &["writes: ", "short writes: ", "offered ", "taken ", "time: "]),
    ("07_back_pressure", &["sent ", "got ", "WouldBlock: "]),
    ("08_linger", &["closed at once: the client got "]),
    ("09_descriptors", &["no descriptor: "]),
    ("10_timers_and_signals", &[]),
];

/// What every chapter with an experiment consists of, in this order.
const PARTS: [&str; 7] =
    ["Question", "Experiment", "What you see", "Why", "Break it", "In the library", "Your turn"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn chapter(name: &str) -> String {
    read(&format!("src/guide/{name}.md"))
}

/// Every text of the guide, with its name.
fn texts() -> Vec<(String, String)> {
    let folder = fs::read_dir(root().join("src/guide")).unwrap();
    let mut names: Vec<_> = folder
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(".md").map(str::to_owned))
        .collect();
    names.sort();
    names.into_iter().map(|name| (name.clone(), chapter(&name))).collect()
}

/// The fenced blocks of a language.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    text.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

/// The text without its fenced blocks.
fn prose(text: &str) -> String {
    text.split("```").step_by(2).collect()
}

/// Runs an example to its end.
fn run(name: &str) -> String {
    let test = std::env::current_exe().unwrap();
    let path = test.ancestors().nth(2).unwrap().join("examples").join(name);
    let mut command = Command::new(path);
    let output = command.stdin(Stdio::null()).output().expect("it is built");
    assert!(output.status.success(), "{name}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Puts `#` for the number that follows `word`, wherever one does.
fn blur(text: &str, word: &str) -> String {
    let mut pieces = text.split(word);
    let mut blurred = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let rest = piece.trim_start_matches(|c: char| c.is_ascii_digit() || c == ',');
        blurred += word;
        blurred += if rest.len() < piece.len() { "#" } else { "" };
        blurred += rest;
    }
    blurred
}

#[test]
fn every_experiment_prints_what_the_guide_shows() {
    for (name, varying) in CHAPTERS {
        let text = chapter(name);
        let shown = blocks(&text, "text")[0];
        let like = |text: &str| {
            // Which of the two errors a client gets depends on when it writes.
            let [broken, reset] = [libc::EPIPE, libc::ECONNRESET]
                .map(|errno| std::io::Error::from_raw_os_error(errno).to_string());
            let mut text = text.replace(&broken, &reset);
            for word in ["127.0.0.1:"].iter().chain(varying) {
                assert!(blur(&text, word).contains(&format!("{word}#")), "{name}: {word:?}");
                text = blur(&text, word);
            }
            if cfg!(mio_unsupported_force_poll_poll) {
                text = text.chars().filter(|c| !c.is_ascii_digit()).collect();
            }
            text
        };
        assert_eq!(like(&run(name)), like(shown), "{name}");
    }
}

#[test]
fn every_chapter_has_its_parts_in_order() {
    let chapters = texts().into_iter().filter(|(name, _)| name.as_bytes()[0].is_ascii_digit());
    for ((name, text), number) in chapters.zip(1..) {
        assert!(text.starts_with(&format!("# {number}. ")), "{name}");
        let is_experiment = CHAPTERS.iter().any(|(chapter, _)| *chapter == name);
        let command = if is_experiment { &name } else { "break_it -- " };
        assert!(
            text.contains(&format!("**Experiment.** `cargo run --example {command}")),
            "{name}"
        );
        let places = PARTS.map(|part| text.find(&format!("\n**{part}.**")));
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{name}: {places:?}");
    }
}

#[test]
fn every_text_is_in_the_book_and_linked_from_its_first_page() {
    let (book, first) = (read("src/guide/mod.rs"), chapter("guide"));
    for (name, _) in texts() {
        assert_eq!(book.matches(&format!("include_str!(\"{name}.md\")")).count(), 1, "{name}");
        assert!(name == "guide" || first.contains(&format!("]: {name}.md")), "{name}");
    }
}

/// What stands between backticks, each with the text before it.
fn spans(text: &str) -> Vec<(String, String)> {
    let text = prose(text).replace("\\|", "|");
    let pieces: Vec<_> = text.split('`').collect();
    assert!(pieces.len() % 2 == 1, "a backtick without its fellow");
    // A line may be broken anywhere, even between a quotation and its place.
    let line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let between = |text: &str| if text.trim().is_empty() { String::new() } else { line(text) };
    pieces.chunks_exact(2).map(|pair| (between(pair[0]), line(pair[1]))).collect()
}

/// The quotations: an anchor of the library, or a piece of a line of an example or a test; and the
/// file that holds it.
fn quotations(text: &str) -> Vec<(String, String)> {
    let spans = spans(text);
    let pairs = spans.windows(2).filter(|pair| matches!(&*pair[1].0, "in" | "in ["));
    let found = pairs.map(|pair| (pair[0].1.clone(), pair[1].1.clone()));
    found.filter(|(_, path)| path.ends_with(".rs")).collect()
}

/// The names in the comments of a source that begin with `mark`.
fn marks(path: &str, mark: &str) -> Vec<String> {
    let text = read(path);
    let names = text.lines().filter_map(|line| line.trim_start().strip_prefix(mark));
    names.map(str::to_owned).collect()
}

const ANCHOR: &str = "// ANCHOR: ";
const ANCHOR_END: &str = "// ANCHOR_END: ";

#[test]
fn every_quotation_is_where_the_guide_says() {
    let (mut anchors, mut lines) = (0, 0);
    for (name, text) in texts() {
        for (quoted, path) in quotations(&text) {
            if path.starts_with("src/") {
                let count = marks(&path, ANCHOR).iter().filter(|mark| **mark == quoted).count();
                assert_eq!(
                    count, 1,
                    "src/guide/{name}.md names `{quoted}` in {path}: write `{ANCHOR}{quoted}` once \
                     there, directly above the code that the guide means, or name another anchor"
                );
                anchors += 1;
            } else {
                let is_there = read(&path).lines().any(|line| line.contains(&quoted));
                assert!(is_there, "src/guide/{name}.md quotes {quoted:?}, which {path} lacks");
                lines += 1;
            }
        }
    }
    assert!(anchors > 40 && lines > 10, "{anchors} anchors and {lines} lines are quoted");
}

/// Every source of the library.
fn sources() -> Vec<String> {
    let (mut folders, mut files) = (vec!["src".to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = format!("{folder}/{}", entry.file_name().into_string().unwrap());
            match entry.file_type().unwrap().is_dir() {
                true => folders.push(path),
                false if path.ends_with(".rs") => files.push(path),
                false => {}
            }
        }
    }
    files
}

#[test]
fn every_anchor_is_named_by_the_guide_or_the_readme() {
    let mut named: BTreeSet<_> = texts().iter().flat_map(|(_, text)| quotations(text)).collect();
    for (name, _) in CHAPTERS {
        let (path, before, _) = sabotage(&chapter(name));
        let first = before.lines().next().and_then(|line| line.trim_start().strip_prefix(ANCHOR));
        named.extend(first.map(|anchor| (anchor.to_owned(), path)));
    }
    // An excerpt begins with its path and its anchor.
    let is_in_readme = |anchor: &str, path: &str| {
        read("README.md").lines().any(|line| line == format!("// {path}: {anchor}"))
    };
    let mut count = 0;
    for path in sources() {
        let anchors = marks(&path, ANCHOR);
        for anchor in &anchors {
            let is_named = named.contains(&(anchor.clone(), path.clone()));
            assert!(
                is_named || is_in_readme(anchor, &path),
                "neither the guide nor the README names `{ANCHOR}{anchor}` of {path}: remove it"
            );
            count += 1;
        }
        for end in marks(&path, ANCHOR_END) {
            assert!(
                anchors.contains(&end),
                "{path}: `{ANCHOR_END}{end}` ends no anchor: remove it"
            );
        }
    }
    assert!(count > 30, "{count} anchors");
}

#[test]
fn every_path_that_the_guide_names_is_there() {
    for (name, text) in texts() {
        for (_, span) in spans(&text) {
            let is_path = ["src/", "tests/", "examples/"].iter().any(|top| span.starts_with(top));
            assert!(!is_path || root().join(&span).exists(), "{name}: {span}");
        }
    }
}

/// Whether a line of a diff stands for a line of a source; `...` stands for any text.
fn stands_for(shown: &str, line: &str) -> bool {
    match shown.split_once("...") {
        None => shown == line,
        Some((head, tail)) => {
            line.len() >= head.len() + tail.len() && line.starts_with(head) && line.ends_with(tail)
        }
    }
}

/// The change with which a chapter breaks a file: its path, the lines there, and their replacement.
fn sabotage(text: &str) -> (String, String, String) {
    let (head, diff) = blocks(text, "diff")[0].split_once('\n').unwrap();
    let path = head.strip_prefix("// ").expect("the first line names the file");
    let side = |sign: char| -> Vec<&str> {
        diff.lines().filter_map(|line| line.strip_prefix([sign, ' '])).collect()
    };
    let (shown, after) = (side('-'), side('+'));
    let is_anchor = shown[0].trim_start().starts_with(ANCHOR);
    assert_eq!(is_anchor, path.starts_with("src/"), "{path}: a diff begins with an anchor");
    let source = read(path);
    let lines: Vec<_> = source.lines().collect();
    let found: Vec<_> = lines
        .windows(shown.len())
        .filter(|lines| lines.iter().zip(&shown).all(|(line, shown)| stands_for(shown, line)))
        .collect();
    assert_eq!(found.len(), 1, "{path} has these lines once: {shown:#?}");
    let text =
        |lines: &[&str]| -> String { lines.iter().map(|line| format!("{line}\n")).collect() };
    (path.to_owned(), text(found[0]), text(&after))
}

/// The test that a chapter says turns red: its name and its file.
fn red(text: &str) -> (String, String) {
    let rest = text.split("\nRed: ").nth(1).expect("a chapter says which test turns red");
    quotations(&format!("Red: {rest}")).into_iter().next().expect("a test, and where it is")
}

#[test]
fn every_line_that_the_guide_breaks_is_there_once_and_its_test_too() {
    for (name, _) in CHAPTERS {
        let text = chapter(name);
        let (path, before, after) = sabotage(&text);
        assert_eq!(read(&path).matches(&before).count(), 1, "{name}: {before}");
        assert_ne!(before, after, "{name}");
        let (test, place) = red(&text);
        assert!(read(&place).contains(&format!("#[test]\nfn {test}()")), "{name}: {test}");
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        match path.is_dir() {
            true if path.ends_with("target") => {}
            true => copy(&path, &to),
            false => _ = fs::copy(&path, &to).unwrap(),
        }
    }
}

/// Runs cargo on a copy of the package; returns whether it went well, and what it said.
fn cargo(folder: &Path, words: &[&str]) -> (bool, String) {
    // Whoever is broken may wait for ever.
    let mut command = Command::new("timeout");
    command.arg("600").arg(env!("CARGO")).args(words).current_dir(folder);
    command.env("CARGO_TARGET_DIR", folder.join("target")).env("CARGO_NET_OFFLINE", "true");
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// Writes a source of the copy; an example is built, because no test does that.
fn change(folder: &Path, path: &str, text: &str) {
    fs::write(folder.join(path), text).unwrap();
    if let Some(example) = path.strip_prefix("examples/") {
        let name = example.trim_end_matches(".rs");
        let (is_built, said) = cargo(folder, &["build", "--example", name]);
        assert!(is_built, "{name}: {said}");
    }
}

#[test]
#[ignore = "builds a copy of the package again and again: some minutes"]
fn every_test_turns_red_where_the_guide_says_and_is_green_before() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("broken");
    for name in ["src", "tests", "examples"] {
        copy(&root().join(name), &folder.join(name));
    }
    for name in ["Cargo.toml", "Cargo.lock", "README.md"] {
        fs::copy(root().join(name), folder.join(name)).unwrap();
    }
    let (is_built, said) = cargo(&folder, &["build", "--examples"]);
    assert!(is_built, "{said}");
    let mut green = BTreeSet::new();
    for (name, _) in CHAPTERS {
        let text = chapter(name);
        let (path, before, after) = sabotage(&text);
        let (test, place) = red(&text);
        let file = place.trim_start_matches("tests/").trim_end_matches(".rs");
        let try_it = || cargo(&folder, &["test", "--test", file, &test, "--", "--exact"]);
        if green.insert(test.clone()) {
            let (is_green, said) = try_it();
            assert!(is_green && said.contains("1 passed"), "{name}, unbroken: {said}");
        }
        let whole = read(&path);
        change(&folder, &path, &whole.replace(&before, &after));
        let (is_green, said) = try_it();
        println!("{name}: {said}");
        assert!(!is_green && said.contains("1 failed"), "{name}, broken: {said}");
        change(&folder, &path, &whole);
    }
}

#[test]
fn every_state_of_a_diagram_is_entered_and_left() {
    let text = chapter("states");
    let diagrams = blocks(&text, "mermaid");
    assert_eq!(diagrams.len(), 5);
    for diagram in diagrams {
        let mut lines = diagram.lines();
        // `tests/lint.py` compares the states with the variants of the enum.
        let head = lines.next().unwrap().strip_prefix("%% enum ").expect("it names its enum");
        assert_eq!(lines.next(), Some("stateDiagram-v2"), "{head}");
        let (mut entered, mut left) = (BTreeSet::new(), BTreeSet::new());
        for line in lines {
            let (from, rest) = line.trim().split_once(" --> ").expect("a transition");
            left.insert(from);
            entered.insert(rest.split(": ").next().unwrap());
        }
        assert!(left.contains("[*]"), "{head} has a beginning");
        assert_eq!(entered, left, "{head}: every state is entered and left");
    }
}

#[test]
fn every_entry_of_the_glossary_names_one_place() {
    let text = chapter("glossary");
    let entries: Vec<_> = text.split("\n## ").skip(1).collect();
    for entry in &entries {
        assert_eq!(quotations(entry).len(), 1, "{entry}");
    }
    assert!(entries.len() > 30 && entries.is_sorted_by_key(|entry| entry.to_lowercase()));
}

#[test]
fn every_rung_names_a_chapter_that_is_there() {
    for (is_echo, ladder) in [(true, Ladder::echo("[::1]:7")), (false, Ladder::daytime("[::1]:13"))]
    {
        for (number, rung) in (1..).zip(ladder.rungs()) {
            let path = rung.chapter;
            assert!(path.starts_with("src/guide/") && root().join(path).exists(), "{path}");
            let text = read(path);
            let is_said = text.contains(&format!("`--rung {number}`"))
                || text.contains(&format!("--rung {number} "));
            assert!(is_said || !is_echo, "{path} does not name rung {number}, {}", rung.name);
        }
    }
}
