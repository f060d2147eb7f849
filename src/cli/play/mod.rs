//! `campanile play`: a recording as a timeline, as a trace for Perfetto, and as a page.

// The submodules find it here, as they do in a test of their own.
use super::json;

mod page;
mod perfetto;
mod recording;
mod timeline;

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, ErrorKind, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use self::page::Story;
use self::recording::{Recording, Wrong};
use self::timeline::{Stopped, printable};
use super::args::Play;
use super::failure::{FAILED, Failure, USAGE};
use super::stdio::{Blocking, print_error};

pub fn play(args: &Play) -> ExitCode {
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            print_error(&failure.to_string());
            ExitCode::from(failure.code)
        }
    }
}

fn run(args: &Play) -> Result<(), Failure> {
    let outputs = [&args.perfetto, &args.html];
    for out in outputs.into_iter().flatten() {
        if args.files.iter().any(|file| is_same(file, out)) {
            let what = format!("cannot write to {}: it is a recording", out.display());
            return Err(Failure::new(USAGE, what, "name another file"));
        }
    }
    if let Some(out) = &args.html {
        write_page(&args.files, out)?;
        print_error(&format!("{}: open it in a browser\n", out.display()));
    }
    let file = match &*args.files {
        [file] => file,
        _ if args.html.is_some() && args.perfetto.is_none() => return Ok(()),
        _ => {
            let advice = "give one, or write a page of all of them: --html OUT";
            return Err(Failure::new(USAGE, "several recordings make no timeline", advice));
        }
    };
    if let Some(out) = &args.perfetto {
        let mut recording = open(file)?;
        let write = |file| perfetto::write(&mut recording, BufWriter::new(file));
        let written = File::create(out).map_err(Stopped::Output).and_then(write);
        finish(file, Some(out), written, &recording)?;
        print_error(&format!("{}: open it at https://ui.perfetto.dev\n", out.display()));
    }
    if outputs.into_iter().all(Option::is_none) { show(file) } else { Ok(()) }
}

/// Prints the timeline to stdout.
fn show(path: &Path) -> Result<(), Failure> {
    let mut recording = open(path)?;
    let printed =
        timeline::print(&mut recording, BufWriter::new(Blocking(io::stdout())), colours());
    match printed {
        // As in `play FILE | head`.
        Err(Stopped::Output(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        printed => finish(path, None, printed, &recording),
    }
}

fn write_page(paths: &[PathBuf], out: &Path) -> Result<(), Failure> {
    let stories = paths.iter().map(|path| story(path)).collect::<Result<Vec<_>, _>>()?;
    let title = match &*stories {
        [story] => story.title.clone(),
        stories => format!("{} recordings", stories.len()),
    };
    let page = page::render(&title, &stories);
    page.and_then(|page| fs::write(out, page)).map_err(|error| unwritable(Some(out), &error))
}

/// Reads a recording to its last whole line.
fn story(path: &Path) -> Result<Story, Failure> {
    let failed = |error: io::Error| unreadable(path, &Wrong::Unreadable(error));
    let mut bytes = Vec::new();
    File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)).map_err(failed)?;
    let mut recording = Recording::open(&*bytes).map_err(|wrong| unreadable(path, &wrong))?;
    let read = loop {
        match recording.next() {
            Ok(Some(_)) => {}
            Ok(None) => break Ok(()),
            Err(wrong) => break Err(Stopped::Wrong(wrong)),
        }
    };
    finish(path, None, read, &recording)?;
    let name = || path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let title = recording.header("title").map_or_else(name, str::to_owned);
    let (text, length) = (recording.header("text").map(str::to_owned), recording.length());
    bytes.truncate(length);
    Ok(Story { title, text, recording: bytes })
}

fn open(path: &Path) -> Result<Recording<BufReader<File>>, Failure> {
    let file = File::open(path).map_err(Wrong::Unreadable);
    let recording = file.and_then(|file| Recording::open(BufReader::new(file)));
    recording.map_err(|wrong| unreadable(path, &wrong))
}

fn unreadable(path: &Path, wrong: &Wrong) -> Failure {
    let what = format!("cannot play {}: {wrong}", path.display());
    Failure::new(FAILED, printable(&what), wrong.advice())
}

/// Reports what kept a recording from being played to its end, and that its last line is cut.
fn finish<R: io::BufRead>(
    path: &Path,
    out: Option<&Path>,
    outcome: Result<(), Stopped>,
    recording: &Recording<R>,
) -> Result<(), Failure> {
    match outcome {
        Ok(()) if recording.is_cut() => {
            let path = path.display();
            print_error(&format!(
                "note: {path} ends in the middle of a line, as after a kill; that line is left out\n"
            ));
            Ok(())
        }
        Ok(()) => Ok(()),
        Err(Stopped::Wrong(wrong)) => Err(unreadable(path, &wrong)),
        Err(Stopped::Output(error)) => Err(unwritable(out, &error)),
    }
}

fn unwritable(out: Option<&Path>, error: &io::Error) -> Failure {
    let out = out.map_or("standard output".into(), |out| out.display().to_string());
    let what = format!("cannot write to {out}: {error}");
    Failure::new(FAILED, what, "name a file that can be written, on a disk with room")
}

/// Returns whether both paths name the same file. One that does not exist is another.
fn is_same(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}

/// Colours are for a terminal, unless `NO_COLOR` is set.
fn colours() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    io::stdout().is_terminal() && !is_set("NO_COLOR")
}
