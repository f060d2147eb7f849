//! How to start another project's program, as data.

use crate::foreign::shell;

/// How to start a program. In its texts `{port}` and `{middle}` stand for free ports, `{target}` for
/// the port of our server behind it, `{folder}` for a temporary folder.
#[derive(Debug, Clone, Copy)]
pub struct Recipe {
    pub name: &'static str,
    /// The configuration in words.
    pub how: &'static str,
    /// A command that prints the version.
    pub version: &'static str,
    pub files: &'static [(&'static str, &'static str)],
    /// A command to run before the others, to its end.
    pub prepare: &'static str,
    /// The last one listens on `{port}`, those before it on `{middle}`.
    pub commands: &'static [&'static str],
}

impl Recipe {
    pub const fn new(
        name: &'static str,
        how: &'static str,
        version: &'static str,
        commands: &'static [&'static str],
    ) -> Recipe {
        Recipe { name, how, version, files: &[], prepare: "", commands }
    }

    pub const fn with(self, files: &'static [(&'static str, &'static str)]) -> Recipe {
        Recipe { files, ..self }
    }

    pub const fn after(self, prepare: &'static str) -> Recipe {
        Recipe { prepare, ..self }
    }

    pub fn is_installed(&self) -> bool {
        let words = self.commands.iter().filter_map(|command| command.split_whitespace().next());
        let mut programs = words.filter(|word| !word.starts_with('{'));
        programs.all(|program| shell(&format!("command -v {program}")).is_ok())
    }

    /// The first word of the output that looks like a version.
    pub fn version(&self) -> String {
        let answer = shell(&format!("{} 2>&1 || :", self.version)).unwrap_or_default();
        let mut words = answer.split_whitespace().filter(|word| {
            let mut pairs = word.as_bytes().windows(2);
            pairs.any(|pair| pair[0].is_ascii_digit() && pair[1] == b'.')
        });
        let word = words.next().unwrap_or("?");
        let word = &word[word.find(|c: char| c.is_ascii_digit()).unwrap_or(0)..];
        word.trim_end_matches([',', ')']).to_owned()
    }
}
