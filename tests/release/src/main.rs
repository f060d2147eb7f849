//! `release manual FOLDER` writes the manual pages and the completions, `release notes VERSION` prints
//! the section of a version from the changelog.
#![forbid(unsafe_code)]

#[allow(dead_code)]
#[path = "../../../src/cli/mod.rs"]
mod cli;
mod manual;
mod notes;

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["manual", folder] => manual::write(Path::new(folder)).map_err(|error| {
            format!("cannot write into {folder}: {error}\n  name a folder that you can write to")
        }),
        ["notes", version] => notes::print(version),
        _ => Err("usage: release manual FOLDER | release notes VERSION".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}
