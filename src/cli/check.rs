//! `campanile check`: puts any server on the ladder, and says how far it came.

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use campanile::testing::check::{Error, Ladder, Outcome, Report, Rung};

use super::address::Place;
use super::args::{Check, CheckDaytime, CheckEcho, Client};
use super::failure::{DIFFERS, FAILED, Failure};
use super::files;
use super::json::{Object, list};
use super::stdio::{print, print_error};

pub fn check(args: &Check) -> ExitCode {
    match args {
        Check::Echo(CheckEcho { addr, rung, client }) => {
            climb("echo", addr, Ladder::echo(addr), *rung, client)
        }
        Check::Daytime(CheckDaytime { addr, rung, client }) => {
            climb("daytime", addr, Ladder::daytime(addr), *rung, client)
        }
    }
}

fn climb(
    service: &str,
    addr: &Place,
    ladder: Ladder,
    rung: Option<usize>,
    client: &Client,
) -> ExitCode {
    // A thousand clients are a thousand descriptors; whoever may not have them checks with fewer.
    let _ = files::raise_limit();
    let ladder = ladder.timeout(client.timeout).up_to(rung.unwrap_or(usize::MAX));
    let mut progress = Progress::new();
    let outcome = ladder.climb(|rung| progress.show(rung));
    progress.clear();
    let failure = match outcome {
        Ok(report) => tell(&report, client.json),
        Err(error) => Some(cannot(service, addr, client.json, &error)),
    };
    let Some(failure) = failure else {
        return ExitCode::SUCCESS;
    };
    print_error(&failure.to_string());
    ExitCode::from(failure.code)
}

/// The rung that is being climbed, where somebody watches.
struct Progress(bool);

impl Progress {
    fn new() -> Progress {
        Progress(io::stderr().is_terminal())
    }

    fn show(&mut self, rung: &Rung) {
        if self.0 && rung.outcome == Outcome::Untried {
            print_error(&format!("\r\x1b[K{:>3}  {} ...", rung.number, rung.name));
        }
    }

    fn clear(&mut self) {
        if self.0 {
            print_error("\r\x1b[K");
        }
    }
}

/// Prints the table, or one object; returns why that is no success.
fn tell(report: &Report, is_json: bool) -> Option<Failure> {
    let text = if is_json { json(report) } else { report.to_string() };
    if let Err(error) = print(&text) {
        let what = format!("cannot write the output: {error}");
        return Some(Failure::new(FAILED, what, "check where the output goes"));
    }
    let (rung, _) = report.stopped()?;
    let what = format!("{} does not reach rung {}, {}", report.addr, rung.number, rung.name);
    let advice = format!(
        "make it so, then: campanile check {} --rung {} {}",
        report.service, rung.number, report.addr
    );
    Some(Failure::new(DIFFERS, what, advice))
}

fn cannot(service: &str, addr: &Place, is_json: bool, error: &Error) -> Failure {
    if is_json {
        let word = match error {
            Error::NotFound { .. } => "not-found",
            Error::Absent { .. } => "not-connected",
            _ => "failed",
        };
        let object = Object::about(service, addr).text("error", word);
        // The words on stderr and the exit code say the same.
        let _ = print(&object.text("message", &error.to_string()).line());
    }
    Failure::new(FAILED, error.to_string(), error.advice())
}

/// One object: the ladder, with every rung that was to be climbed.
fn json(report: &Report) -> String {
    let rungs: Vec<_> = report.rungs.iter().take(report.goal).map(rung_json).collect();
    Object::about(report.service, &report.addr)
        .raw("reached", report.reached())
        .raw("goal", report.goal)
        .raw("rungs", list(&rungs))
        .line()
}

fn rung_json(rung: &Rung) -> String {
    let object = Object::new().raw("rung", rung.number).text("name", rung.name);
    match &rung.outcome {
        Outcome::Reached { note } => {
            let object = object.text("outcome", "reached").text("rule", rung.rule);
            let object = object.raw("ms", rung.took.as_millis());
            match note {
                Some(note) => object.text("note", note),
                None => object,
            }
        }
        Outcome::Stopped(failure) => {
            let object = object.text("outcome", "stopped").text("rule", failure.rule);
            let object = object.raw("ms", rung.took.as_millis());
            let object = object.text("sent", &failure.sent).text("came", &failure.came);
            let object = object.text("says", failure.says);
            match rung.chapter {
                Some(chapter) => object.text("chapter", chapter),
                None => object,
            }
        }
        _ => object.text("outcome", "untried").text("rule", rung.rule),
    }
    .end()
}
