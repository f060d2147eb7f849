//! The house rules that a machine can check: who may import whom, where mio lives, how long a
//! function may be.

use std::fs;
use std::path::{Path, PathBuf};

/// Each module of the core with what it may use of this crate. Lower layers stand first, and a
/// module may only use what stands above it in this list.
const LAYERS: &[(&str, &[&str])] = &[
    ("outbox", &[]),
    ("timers", &[]),
    ("clock", &[]),
    ("protocol", &["outbox"]),
    ("limits", &["outbox", "timers"]),
    ("connection", &["outbox", "timers", "protocol", "limits"]),
    ("services", &["outbox", "protocol", "clock"]),
    ("kernel", &["protocol", "limits", "connection"]),
    ("handle", &["protocol", "kernel"]),
    ("listener", &["timers", "protocol", "kernel"]),
    (
        "reactor",
        &["outbox", "timers", "protocol", "limits", "connection", "kernel", "handle", "listener"],
    ),
    ("background", &["limits", "kernel", "handle", "reactor"]),
    ("client", &[]),
    (
        "testing",
        &[
            "outbox",
            "protocol",
            "limits",
            "clock",
            "connection",
            "services",
            "kernel",
            "reactor",
            "background",
            "client",
        ],
    ),
];

/// Which modules may name a crate.
const CRATES: &[(&str, &[&str])] = &[
    ("mio", &["kernel"]),
    // Options that std lacks, urgent data, and the queue of a socket.
    ("socket2", &["kernel", "client/connect", "testing/check/urgent", "testing/faulty/sock_diag"]),
    ("slab", &["reactor"]),
    ("chrono", &["clock", "services/daytime", "cli"]),
    ("jiff", &["clock"]),
    (
        "libc",
        &[
            "kernel",
            "listener",
            "client/connect",
            "testing/check/lab",
            "testing/faulty/sock_diag",
            "cli",
        ],
    ),
    (
        "log",
        &[
            "clock",
            "kernel",
            "handle",
            "listener",
            "reactor",
            "background",
            "testing",
            "cli",
            "main",
        ],
    ),
];

/// Lines of a file before its tests, and of a function.
const FILE: usize = 400;
const FUNCTION: usize = 60;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below `folder`.
fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// Every source file with its path below `src`, without the ending, and its text before its tests.
fn sources() -> Vec<(String, String)> {
    let (src, mut found) = (root().join("src"), Vec::new());
    walk(&src, &mut found);
    assert!(found.len() > 15, "the sources are found");
    found
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(&src).unwrap().with_extension("");
            let text = fs::read_to_string(&path).unwrap();
            let body = text.split("\n#[cfg(test)]").next().unwrap();
            let body = body.split("\n#[cfg(all(test").next().unwrap().to_owned();
            (name.to_string_lossy().replace('\\', "/"), body)
        })
        .collect()
}

/// The lines that are code.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim_start().starts_with("//"))
}

/// Whether `word` stands in `text` as a word of its own.
fn has_word(text: &str, word: &str) -> bool {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|found| found == word)
}

/// Whether `text` has a path that begins with `start`, as in `mio::Poll`.
fn has_path(text: &str, start: &str) -> bool {
    text.match_indices(&format!("{start}::")).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
    })
}

#[test]
fn the_top_level_is_what_the_house_plan_names() {
    let named = [
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE-APACHE",
        "LICENSE-MIT",
        "README.md",
        "examples",
        "src",
        "target",
        "tests",
    ];
    for entry in fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name.starts_with('.') || named.contains(&&*name), "{name} is at the top level");
    }
    for name in named.iter().filter(|name| **name != "target") {
        assert!(root().join(name).exists(), "{name} is missing");
    }
}

#[test]
fn modules_import_only_from_the_layers_below() {
    let place = |name: &str| LAYERS.iter().position(|(module, _)| *module == name);
    for (at, (_, allowed)) in LAYERS.iter().enumerate() {
        assert!(allowed.iter().all(|name| place(name).unwrap() < at), "{allowed:?} is no layer");
    }
    let mut checked = 0;
    for (name, text) in sources() {
        let module = name.split('/').next().unwrap();
        let Some(at) = place(module) else { continue };
        for line in code(&text) {
            for (other, _) in LAYERS {
                if has_path(line, &format!("crate::{other}"))
                    || line.contains(&format!("crate::{other};"))
                {
                    let allowed = LAYERS[at].1.contains(other) || *other == module;
                    assert!(allowed, "{name} may not use {other}: {line}");
                    checked += 1;
                }
            }
        }
    }
    assert!(checked > 20, "imports are found");
}

#[test]
fn every_crate_has_its_place() {
    for (crate_name, places) in CRATES {
        let mut seen = false;
        for (name, text) in sources() {
            for line in code(&text) {
                let line = line.trim_start();
                if has_path(line, crate_name) || line == format!("use {crate_name};") {
                    let is_allowed = places
                        .iter()
                        .any(|place| name == *place || name.starts_with(&format!("{place}/")));
                    assert!(is_allowed, "{name} may not use {crate_name}: {line}");
                    seen = true;
                }
            }
        }
        assert!(seen, "{crate_name} is used somewhere");
    }
}

#[test]
fn the_core_does_not_know_what_hangs_on_its_seams() {
    let forbidden =
        ["fault", "faults", "Fault", "Faulty", "ledger", "Ledger", "record", "Recorded"];
    let core = ["reactor", "connection", "outbox", "timers", "protocol", "limits", "listener"];
    for (name, text) in sources() {
        if core.contains(&name.split('/').next().unwrap()) {
            for word in forbidden {
                assert!(!has_word(&text, word), "{name} says {word}");
            }
        }
    }
}

#[test]
fn no_file_and_no_function_outgrows_the_plan() {
    for (name, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= FILE, "{name} has {lines} lines: does the idea inside want a name?");
        let mut begun: Option<(usize, usize, &str)> = None;
        for (number, line) in text.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let is_head = has_word(line, "fn") && !line.trim_start().starts_with("//");
            match begun {
                None if is_head => begun = Some((number, indent, line)),
                Some((start, depth, head)) if indent == depth && line.trim_end().ends_with('}') => {
                    let length = number - start + 1;
                    assert!(length <= FUNCTION, "{name}: {length} lines in {head}");
                    begun = None;
                }
                Some((_, depth, _)) if indent <= depth && line.trim_end().ends_with(';') => {
                    begun = None;
                }
                _ => {}
            }
        }
    }
}

#[test]
fn there_is_no_unsafe_and_no_exit_by_panic() {
    for (name, text) in sources() {
        for line in code(&text) {
            assert!(!has_word(line, "unsafe"), "{name}: {line}");
            for way in [".unwrap()", "todo!", "unimplemented!", "dbg!", "println!"] {
                assert!(!line.contains(way), "{name} has {way}: {line}");
            }
        }
    }
    for name in ["lib.rs", "main.rs"] {
        let text = fs::read_to_string(root().join("src").join(name)).unwrap();
        assert!(text.contains("#![forbid(unsafe_code)]"), "{name} forbids unsafe code");
    }
}

/// libtest hides what a passing test prints, so a skip must be recorded.
#[test]
fn a_test_skips_only_through_the_helper_that_records_it() {
    let mut files = Vec::new();
    walk(&root().join("tests"), &mut files);
    let exempt = [file!(), "tests/common/mod.rs", "tests/bench/src/main.rs"];
    let mut calls = 0;
    for path in files.into_iter().filter(|path| !exempt.iter().any(|name| path.ends_with(name))) {
        let text = fs::read_to_string(&path).unwrap();
        for line in code(&text) {
            let line = line.to_lowercase();
            let prints = line.contains("print!(") || line.contains("println!(");
            assert!(!prints || !line.contains("skip"), "{}: {line}", path.display());
            calls += usize::from(has_word(&line, "skip") && !line.contains(".skip("));
        }
    }
    assert!(calls > 10, "{calls} skips are found");
}

#[test]
fn the_library_is_eight_crates() {
    let output = std::process::Command::new(env!("CARGO"))
        .args(["tree", "--no-default-features", "--edges", "normal,build", "--prefix", "none"])
        .args(["--offline", "--locked", "--target", "x86_64-unknown-linux-gnu"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let mut names: Vec<_> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    names.sort_unstable();
    names.dedup();
    let eight = ["autocfg", "chrono", "libc", "log", "mio", "num-traits", "slab", "socket2"];
    names.retain(|name| *name != "campanile" && !name.is_empty());
    assert_eq!(names, eight);
}
