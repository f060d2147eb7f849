//! The guide shows the output of its experiments as they print it, and every place that it names or
//! breaks exists. It names a place in the library by an anchor, a comment in the source, so that
//! renaming a function or a variable there changes no line of the guide.
#![cfg(all(target_os = "linux", feature = "cli"))]

#[path = "../examples/tour/changes.rs"]
mod changes;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use campanile::ladder::Ladder;
use changes::Change;

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

/// Where an example is built, beside this test.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(2).unwrap().join("examples").join(name)
}

/// Runs an example to its end.
fn run(name: &str) -> String {
    let output = Command::new(example(name)).stdin(Stdio::null()).output().expect("it is built");
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
    for Change { file, before, .. } in breaks() {
        let first = before.lines().next().and_then(|line| line.trim_start().strip_prefix(ANCHOR));
        named.extend(first.map(|anchor| (anchor.to_owned(), file)));
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

/// The changes with which the chapters break the code.
fn breaks() -> Vec<Change> {
    let chapters = changes::chapters(&root()).unwrap();
    let of = |text: &String| changes::changes(&root(), text).unwrap_or_else(|e| panic!("{e}"));
    chapters.iter().flat_map(of).collect()
}

#[test]
fn every_chapter_breaks_lines_that_exist_and_names_a_test_that_exists() {
    for text in changes::chapters(&root()).unwrap() {
        assert!(!changes::changes(&root(), &text).unwrap().is_empty(), "{text}");
    }
    for Change { file, before, after, test, test_file } in breaks() {
        let is_anchor = before.trim_start().starts_with(ANCHOR);
        assert_eq!(is_anchor, file.starts_with("src/"), "{file}: a diff begins with an anchor");
        assert_eq!(read(&file).matches(&before).count(), 1, "{file}: {before}");
        assert_ne!(before, after, "{file}");
        assert!(read(&test_file).contains(&format!("#[test]\nfn {test}()")), "{file}: {test}");
    }
}

#[test]
fn break_it_lists_the_chapters_and_refuses_other_numbers() {
    let list = run("break_it");
    for text in changes::chapters(&root()).unwrap() {
        assert!(list.contains(text.lines().next().unwrap().trim_start_matches("# ")), "{list}");
    }
    for word in ["0", "99", "-1", "four"] {
        let output = Command::new(example("break_it")).arg(word).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{error}");
        let advice = format!("has no chapter {word}: choose a number from 1 to ");
        assert!(error.contains(&advice), "{error}");
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
fn every_rung_is_an_exercise_and_names_a_chapter_that_exists() {
    for (is_echo, ladder) in [(true, Ladder::echo("[::1]:7")), (false, Ladder::daytime("[::1]:13"))]
    {
        for (number, rung) in (1..).zip(ladder.rungs()) {
            let exercise = format!("\n{number}. {} | ", rung.name);
            assert!(chapter("exercises").contains(&exercise), "no exercise {exercise:?}");
            let path = rung.chapter;
            assert!(path.starts_with("src/guide/") && root().join(path).exists(), "{path}");
            let text = read(path);
            let is_said = text.contains(&format!("`--rung {number}`"))
                || text.contains(&format!("--rung {number} "));
            assert!(is_said || !is_echo, "{path} does not name rung {number}, {}", rung.name);
        }
    }
}

#[test]
fn every_story_is_named_by_one_chapter_and_every_named_story_is_there() {
    let folder = fs::read_dir(root().join("src/guide/stories")).unwrap();
    let names = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let there: BTreeSet<_> = names.collect();
    let is_story =
        |word: &&str| word.ends_with(".jsonl") && !["run.jsonl", "*.jsonl"].contains(word);
    let named: Vec<_> = texts()
        .iter()
        .flat_map(|(_, text)| {
            let words = text.split(|c: char| c.is_whitespace() || c == '`' || c == '/');
            words.filter(is_story).map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(named.iter().cloned().collect::<BTreeSet<_>>(), there);
    assert_eq!(named.len(), there.len(), "{named:?} names one twice");
}
