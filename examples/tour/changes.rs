//! The changes with which the chapters of the guide break the code, read from their text. The example
//! `break_it` applies them, and `tests/guide.rs` checks them.

use std::fs;
use std::io::{Error, Result};
use std::path::Path;

/// A change that breaks the code, and the test that fails then.
pub struct Change {
    pub file: String,
    pub before: String,
    pub after: String,
    pub test: String,
    pub test_file: String,
}

pub fn read(path: &Path) -> Result<String> {
    let say = |error| Error::other(format!("cannot read {}: {error}", path.display()));
    fs::read_to_string(path).map_err(say)
}

/// Returns the texts of the chapters, in their order.
pub fn chapters(root: &Path) -> Result<Vec<String>> {
    let folder = root.join("src/guide");
    let entries =
        fs::read_dir(&folder)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<_> = entries.filter(|name| name.as_bytes()[0].is_ascii_digit()).collect();
    names.sort();
    names.iter().map(|name| read(&folder.join(name))).collect()
}

/// Returns the changes of a chapter: each is a `diff` block, then a line that begins with `Red:`.
pub fn changes(root: &Path, chapter: &str) -> Result<Vec<Change>> {
    chapter.split("\n```diff\n// ").skip(1).map(|text| change(root, text)).collect()
}

fn change(root: &Path, text: &str) -> Result<Change> {
    let mut red = text.split("\nRed: `").nth(1).unwrap_or_default().split('`');
    let (Some((file, diff)), Some(test), Some(test_file)) =
        (text.split_once('\n'), red.next(), red.nth(1))
    else {
        return Err(Error::other("a diff needs a line `Red:` that names a test and its file"));
    };
    let diff = diff.split("```").next().unwrap_or_default();
    let side = |sign| diff.lines().filter_map(move |line| line.strip_prefix([sign, ' ']));
    // In a removed line, `...` stands for any text.
    let stands_for = |(shown, line): (&&str, &&str)| match shown.split_once("...") {
        Some((head, tail)) => line.strip_prefix(head).is_some_and(|rest| rest.ends_with(tail)),
        None => shown == line,
    };
    let (shown, source) = (side('-').collect::<Vec<_>>(), read(&root.join(file))?);
    let lines: Vec<_> = source.lines().collect();
    let places = lines.windows(shown.len().max(1));
    let found: Vec<_> = places.filter(|lines| shown.iter().zip(*lines).all(stands_for)).collect();
    let [before] = found[..] else {
        let (count, shown) = (found.len(), shown.join("\n"));
        let text = format!("{file} has these lines {count} times, not once; restore it:\n{shown}");
        return Err(Error::other(text));
    };
    let before = before.iter().map(|line| format!("{line}\n")).collect();
    let after = side('+').map(|line| format!("{line}\n")).collect();
    let [file, test, test_file] = [file, test, test_file].map(str::to_owned);
    Ok(Change { file, before, after, test, test_file })
}
