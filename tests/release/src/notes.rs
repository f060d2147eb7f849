//! The release notes: a section of the changelog.

const CHANGELOG: &str = include_str!("../../../.github/CHANGELOG.md");

pub fn print(version: &str) -> Result<(), String> {
    section(CHANGELOG, version).map(|notes| println!("{notes}"))
}

/// Returns what is below `## [VERSION]`, up to the next heading of that level.
pub fn section<'a>(changelog: &'a str, version: &str) -> Result<&'a str, String> {
    let missing = || {
        format!(
            "the changelog has no section [{version}]\n  rename [Unreleased] in .github/CHANGELOG.md"
        )
    };
    let heading = format!("\n## [{version}]");
    let (_, below) = changelog.split_once(&heading).ok_or_else(missing)?;
    let (_, below) = below.split_once('\n').unwrap_or_default();
    let notes = below.split("\n## ").next().unwrap_or_default().trim();
    match notes {
        "" => Err(format!(
            "the section [{version}] is empty\n  say in .github/CHANGELOG.md what has changed"
        )),
        notes => Ok(notes),
    }
}
