//! The ready file: the address lines, there as soon as they are true and whole from the first look.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::failure::{FAILED, Failure};

#[derive(Debug)]
pub struct ReadyFile {
    path: PathBuf,
    /// When; which tells it from that of a successor. Its number would not: those are used again.
    written: Option<SystemTime>,
}

impl ReadyFile {
    /// Removes the file of an earlier run, which would tell a lie while we bind.
    pub fn prepare(path: &Path) -> Result<ReadyFile, Failure> {
        let removed = match fs::symlink_metadata(path) {
            Ok(found) if found.is_file() => fs::remove_file(path),
            // Whoever says /dev/stdout, or a folder, does not want it removed.
            Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        };
        match removed {
            Ok(()) => Ok(ReadyFile { path: path.to_owned(), written: None }),
            Err(error) => Err(failure(path, &error)),
        }
    }

    /// Writes it beside its place and renames it, so that nobody reads half of it.
    pub fn write(&mut self, lines: &str) -> Result<(), Failure> {
        let mut beside = self.path.clone().into_os_string();
        beside.push(format!(".{}", std::process::id()));
        let written = File::create_new(&beside).and_then(|mut file| {
            file.write_all(lines.as_bytes())?;
            fs::rename(&beside, &self.path)?;
            file.metadata()?.modified()
        });
        match written {
            Ok(when) => {
                self.written = Some(when);
                Ok(())
            }
            Err(error) => {
                let _ = fs::remove_file(&beside);
                Err(failure(&self.path, &error))
            }
        }
    }

    /// Removes it, if it is still ours and not that of a successor.
    pub fn remove(self) {
        let found = fs::symlink_metadata(&self.path).and_then(|found| found.modified());
        let is_ours = found.is_ok_and(|when| self.written == Some(when));
        if is_ours {
            if let Err(error) = fs::remove_file(&self.path) {
                log::warn!("cannot remove the ready file {}: {error}", self.path.display());
            }
        }
    }
}

fn failure(path: &Path, error: &io::Error) -> Failure {
    Failure::new(
        FAILED,
        format!("cannot write the ready file {}: {error}", path.display()),
        "give a file in a folder that exists and may be written: --ready-file ./ready.txt",
    )
}
