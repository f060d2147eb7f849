//! What a release has beside the program is complete, and the tools that read it accept it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

#[path = "../../common/mod.rs"]
mod common;
#[path = "../src/notes.rs"]
#[allow(dead_code)]
mod notes;

fn release(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_release")).args(words).output().unwrap()
}

/// Writes the manual into a folder of the test's own.
fn manual(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    assert!(release(&["manual", folder.to_str().unwrap()]).status.success());
    folder
}

fn names(folder: PathBuf) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

#[test]
fn each_command_has_a_page_with_its_flags_and_notes() {
    let folder = manual("pages");
    let pages = names(folder.join("man"));
    let commands = [
        "-check-daytime",
        "-check-echo",
        "-check",
        "-daytime",
        "-echo",
        "-play",
        "-proxy",
        "-serve",
        "",
    ];
    assert_eq!(pages, commands.map(|name| format!("campanile{name}.1")));
    let serve = fs::read_to_string(folder.join("man/campanile-serve.1")).unwrap();
    for word in
        ["reuse\\-port", "ready\\-file", ".SH LIMITS", "Effects:", "fd:NAME takes the sockets that"]
    {
        assert!(serve.contains(word), "{word}: {serve}");
    }
    // The proxy has its own words, and not the flags of the other services.
    let proxy = fs::read_to_string(folder.join("man/campanile-proxy.1")).unwrap();
    assert!(!proxy.contains("\\-\\-daytime") && proxy.contains("LISTEN UPSTREAM"), "{proxy}");
}

#[test]
fn mandoc_accepts_every_page() {
    if Command::new("mandoc").arg("/dev/null").output().is_err() {
        return common::skip("mandoc is not installed");
    }
    let folder = manual("lint").join("man");
    for page in names(folder.clone()) {
        let lint = Command::new("mandoc").arg("-Tlint").arg(folder.join(&page)).output().unwrap();
        let complaints = String::from_utf8_lossy(&lint.stdout);
        assert!(lint.status.success() && complaints.is_empty(), "{page}: {complaints}");
    }
}

#[test]
fn bash_completes_commands_and_flags() {
    let folder = manual("completions").join("completions");
    assert_eq!(
        names(folder.clone()),
        ["_campanile", "_campanile.ps1", "campanile.bash", "campanile.fish"]
    );
    let complete = |words: &str, at: usize| {
        let script = format!(
            "source '{}'; COMP_WORDS=({words}); COMP_CWORD={at}; _campanile campanile \"${{COMP_WORDS[{at}]}}\" \"${{COMP_WORDS[{at} - 1]}}\"; echo ${{COMPREPLY[@]}}",
            folder.join("campanile.bash").display()
        );
        let said = Command::new("bash").args(["-c", &script]).output().unwrap();
        assert!(said.stderr.is_empty(), "{}", String::from_utf8_lossy(&said.stderr));
        String::from_utf8(said.stdout).unwrap()
    };
    assert_eq!(complete("campanile pro", 1), "proxy\n");
    assert_eq!(complete("campanile serve --reu", 2), "--reuse-port\n");
}

#[test]
fn the_notes_of_a_version_are_its_section_of_the_changelog() {
    let changelog = "# Changelog\n\n## [0.2.0] - 2027-01-01\n### Added\n- one\n\n## [0.1.0]\n- first\n\n## [0.0.1]\n";
    assert_eq!(notes::section(changelog, "0.2.0").unwrap(), "### Added\n- one");
    assert_eq!(notes::section(changelog, "0.1.0").unwrap(), "- first");
    assert!(notes::section(changelog, "0.0.1").unwrap_err().contains("is empty"));
    assert!(notes::section(changelog, "0.2").unwrap_err().contains("has no section [0.2]"));
    let said = release(&["notes", "Unreleased"]);
    assert!(said.status.success() && said.stdout.len() > 1000);
    assert_eq!(release(&["notes", "9.9.9"]).status.code(), Some(2));
}
