//! Breaks the code as a chapter of the guide says, and shows the test that fails then. It does so in
//! a copy of the package: your own files stay as they are.
//!
//! Run it with `cargo run --example break_it -- 4`, or without a number for a list of the chapters.
//! The first run compiles everything, which takes a few minutes. The exit code is 0 if the test
//! passes before the change and fails after it.
//!
//! Look at a "Break it" part in `src/guide/`: the change and the test are read from there.

#[path = "tour/changes.rs"]
mod changes;

use std::io::Result;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::{env, fs};

use changes::{Change, read};

/// A copy of the package; dropping it removes its files.
struct Copy(PathBuf);

impl Copy {
    fn of(root: &Path) -> Result<Copy> {
        // This program is in `debug/examples/` of the target folder.
        let program = env::current_exe()?;
        let tree = Copy(program.ancestors().nth(3).unwrap_or(root).join("break_it/copy"));
        // A run that was interrupted leaves its files.
        _ = fs::remove_dir_all(&tree.0);
        fs::create_dir_all(&tree.0)?;
        for name in ["Cargo.toml", "Cargo.lock", "README.md", "examples", "src", "tests"] {
            copy(&root.join(name), &tree.0.join(name))?;
        }
        Ok(tree)
    }

    /// Compiles the copy, runs the test and shows its output; returns whether `outcome` is in it.
    fn test(&self, change: &Change, outcome: &str) -> Result<bool> {
        let cargo = |words: &[&str]| {
            let mut command = Command::new(env::var_os("CARGO").unwrap_or("cargo".into()));
            command.args(words).current_dir(&self.0).stderr(Stdio::inherit());
            command.env("RUST_BACKTRACE", "0");
            command.env("CARGO_TARGET_DIR", self.0.with_file_name("target")).output()
        };
        // `cargo test --test` does not compile the examples, which some tests start.
        cargo(&["build", "--profile", "test", "--examples"])?;
        let name = Path::new(&change.test_file).file_stem().unwrap_or_default().to_string_lossy();
        let output = cargo(&["test", "--test", &name, &change.test, "--", "--exact"])?;
        let text = String::from_utf8_lossy(&output.stdout);
        println!("{text}");
        Ok(text.contains(outcome))
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if from.is_file() {
        return fs::copy(from, to).map(|_| ());
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let name = entry?.file_name();
        if name != "target" {
            copy(&from.join(&name), &to.join(&name))?;
        }
    }
    Ok(())
}

/// Applies a change to a copy; returns whether its test passes before it and fails after it.
fn break_it(root: &Path, change: &Change) -> Result<bool> {
    let (tree, Change { file, before, after, test, .. }) = (Copy::of(root)?, change);
    println!("== Before the change: {test}");
    if !tree.test(change, " 1 passed")? {
        eprintln!("error: the test does not pass before the change; run `cargo test {test}`");
        return Ok(false);
    }
    println!("== The change, in a copy of {file}");
    before.lines().for_each(|line| println!("-{line}"));
    after.lines().for_each(|line| println!("+{line}"));
    fs::write(tree.0.join(file), read(&root.join(file))?.replace(before, after))?;
    println!("\n== After the change: {test}");
    if !tree.test(change, " 1 failed")? {
        eprintln!("error: the test does not fail after the change; correct the guide or the test");
        return Ok(false);
    }
    println!("The test fails, as the guide says. Your own files are unchanged.");
    Ok(true)
}

fn run() -> Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let chapters = changes::chapters(root)?;
    let Some(word) = env::args().nth(1) else {
        println!("Choose a chapter, as in `cargo run --example break_it -- 4`:\n");
        let titles = chapters.iter().filter_map(|text| text.lines().next());
        titles.for_each(|title| println!("{}", title.trim_start_matches("# ")));
        return Ok(ExitCode::SUCCESS);
    };
    let number = word.parse::<usize>().unwrap_or(0);
    let Some(chapter) = number.checked_sub(1).and_then(|index| chapters.get(index)) else {
        let count = chapters.len();
        eprintln!("error: the guide has no chapter {word}: choose a number from 1 to {count}");
        return Ok(ExitCode::from(2));
    };
    for change in changes::changes(root, chapter)? {
        if !break_it(root, &change)? {
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::FAILURE
    })
}
