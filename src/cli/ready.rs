//! The ready file: holds the address lines once every address is bound.

use std::fs::{self, File, FileType};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::SystemTime;

use super::failure::{FAILED, Failure};

/// A ready file that this server wrote. Dropping it removes it, unless a later server has replaced it.
#[derive(Debug)]
pub struct ReadyFile {
    path: PathBuf,
    lines: String,
    /// Tells it from a later server's file at the same addresses. Inode numbers are reused.
    written: SystemTime,
}

impl ReadyFile {
    /// Writes the address lines: into a regular file all at once, into anything else as into a pipe.
    /// Returns what is to be removed at the end: nothing but a regular file.
    pub fn write(path: &Path, lines: &str) -> Result<Option<ReadyFile>, Failure> {
        let lines = lines.to_owned();
        let written = match fs::symlink_metadata(path) {
            Ok(found) if !found.is_file() => write_into(path, lines).map(|()| None),
            // Nothing is there, or the file of an earlier run.
            _ => replace(path, &lines)
                .map(|written| Some(ReadyFile { path: path.to_owned(), lines, written })),
        };
        written.map_err(|error| {
            let what = format!("cannot write the ready file {}: {error}", path.display());
            let advice =
                "name a file in a folder that exists and that you can write to: --ready-file ./ready.txt";
            Failure::new(FAILED, what, advice)
        })
    }

    fn is_ours(&self) -> io::Result<bool> {
        let written = fs::symlink_metadata(&self.path)?.modified()?;
        Ok(written == self.written && fs::read(&self.path)? == self.lines.as_bytes())
    }
}

impl Drop for ReadyFile {
    fn drop(&mut self) {
        if self.is_ours().unwrap_or(false) {
            if let Err(error) = fs::remove_file(&self.path) {
                log::warn!(
                    "cannot remove the ready file {}: {error}; remove it by hand",
                    self.path.display()
                );
            }
        }
    }
}

/// Writes a file beside `path` and renames it, so that a reader never sees a part of the lines.
fn replace(path: &Path, lines: &str) -> io::Result<SystemTime> {
    let mut beside = path.to_owned().into_os_string();
    beside.push(format!(".{}", std::process::id()));
    // A process that was killed may have left it. In a container every server may be process 1.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = File::create_new(&beside).and_then(|mut file| {
        file.write_all(lines.as_bytes())?;
        let written = file.metadata()?.modified()?;
        fs::rename(&beside, path)?;
        Ok(written)
    });
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

/// Writes into a device, through a link, or into a FIFO. A FIFO opens only once a reader has opened
/// it, so a thread waits for that.
fn write_into(path: &Path, lines: String) -> io::Result<()> {
    let target = path.to_owned();
    let write = move || {
        let mut file = File::create(target)?;
        file.write_all(lines.as_bytes())
    };
    if !fs::metadata(path).is_ok_and(|found| is_fifo(found.file_type())) {
        return write();
    }
    let path = path.to_owned();
    let report = move || {
        if let Err(error) = write() {
            log::warn!("cannot write the ready file {}: {error}", path.display());
        }
    };
    thread::Builder::new().name("ready-file".into()).spawn(report).map(drop)
}

#[cfg(unix)]
fn is_fifo(found: FileType) -> bool {
    std::os::unix::fs::FileTypeExt::is_fifo(&found)
}

#[cfg(not(unix))]
fn is_fifo(_: FileType) -> bool {
    false
}
