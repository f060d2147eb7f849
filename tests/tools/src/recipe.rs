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
    /// A shell command that fails if something other than the programs is missing, and the advice
    /// for that case.
    pub needs: (&'static str, &'static str),
}

impl Recipe {
    pub const fn new(
        name: &'static str,
        how: &'static str,
        version: &'static str,
        commands: &'static [&'static str],
    ) -> Recipe {
        Recipe { name, how, version, files: &[], prepare: "", commands, needs: ("", "") }
    }

    pub const fn with(self, files: &'static [(&'static str, &'static str)]) -> Recipe {
        Recipe { files, ..self }
    }

    pub const fn after(self, prepare: &'static str) -> Recipe {
        Recipe { prepare, ..self }
    }

    pub const fn needing(self, command: &'static str, advice: &'static str) -> Recipe {
        Recipe { needs: (command, advice), ..self }
    }

    /// What the reader has to do before the program can start here, if anything.
    pub fn lack(&self) -> Option<String> {
        let words = self.commands.iter().filter_map(|command| command.split_whitespace().next());
        let mut programs = words.filter(|word| !word.starts_with('{'));
        let is_absent = |program: &&str| shell(&format!("command -v {program}")).is_err();
        if let Some(program) = programs.find(is_absent) {
            return Some(format!("install {program}"));
        }
        let (command, advice) = self.needs;
        (!command.is_empty() && shell(command).is_err()).then(|| advice.to_owned())
    }

    /// The name of its row.
    pub fn row(&self) -> String {
        format!("{}, {}", self.name, self.how)
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
