//! `campanile check`: climbs the ladder of a server and prints the table.

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use campanile::testing::check::{Bound, Error, Ladder, Outcome, Report, Rung};

use super::address::Place;
use super::args::{Check, CheckDaytime, CheckEcho, Client};
use super::failure::{DIFFERS, FAILED, Failure, NOT_TRIED, TIMED_OUT, longer};
use super::files;
use super::json::{Object, list};
use super::stdio::{print, print_error};
use super::values::OrOff;

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
    // The last rung uses a thousand descriptors.
    let _ = files::raise_limit();
    let OrOff(deadline) = client.deadline.unwrap_or(OrOff(None));
    let ladder = ladder.timeout(client.timeout).deadline(deadline);
    let ladder = ladder.up_to(rung.unwrap_or(usize::MAX));
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

/// Shows the current rung on stderr: in place on a terminal, otherwise as lines.
struct Progress {
    is_terminal: bool,
}

impl Progress {
    fn new() -> Progress {
        Progress { is_terminal: io::stderr().is_terminal() }
    }

    fn show(&mut self, rung: &Rung) {
        if rung.outcome == Outcome::Untried {
            let (before, after) = if self.is_terminal { ("\r\x1b[K", "") } else { ("", "\n") };
            let Rung { number, name, .. } = rung;
            print_error(&format!("{before}rung {number}: {name} ...{after}"));
        }
    }

    fn clear(&mut self) {
        if self.is_terminal {
            print_error("\r\x1b[K");
        }
    }
}

/// Prints the table, or one object; returns why that is no success.
fn tell(report: &Report, is_json: bool) -> Option<Failure> {
    let text = if is_json { json(report) } else { report.to_string() };
    if let Err(error) = print(&text) {
        let what = format!("cannot write the output: {error}");
        let advice = "check the file or program that stdout goes to";
        return Some(Failure::new(FAILED, what, advice));
    }
    // The climb ends at a rung that is not reached, and goes on after one that cannot be tried.
    let is_end =
        |rung: &&Rung| matches!(rung.outcome, Outcome::Stopped(_) | Outcome::TimedOut { .. });
    let end = report.rungs.iter().find(is_end).and_then(|rung| failure(report, rung));
    end.or_else(|| report.rungs.iter().find_map(|rung| failure(report, rung)))
}

/// Why this rung is no success.
fn failure(report: &Report, rung: &Rung) -> Option<Failure> {
    let Report { service, addr, .. } = report;
    let Rung { number, name, .. } = rung;
    let again = format!("campanile check {service} --rung {number}");
    Some(match &rung.outcome {
        Outcome::Stopped(_) => Failure::new(
            DIFFERS,
            format!("{addr} does not reach rung {number}, {name}"),
            format!("fix the server, then run: {again} {addr}"),
        ),
        Outcome::TimedOut { bound, .. } => {
            let more = match bound {
                Bound::Climb { deadline } => format!("--deadline {}", longer(*deadline)),
                Bound::Rung { timeout } => format!("--timeout {}", longer(*timeout)),
                _ => String::new(),
            };
            Failure::new(
                TIMED_OUT,
                format!("rung {number}, {name}, did not finish within the bound of {bound}"),
                format!("allow more time: {again} {more} {addr}"),
            )
        }
        Outcome::NotTried { why, advice } => Failure::new(
            NOT_TRIED,
            format!("this machine cannot try rung {number}, {name}: {why}"),
            format!("{advice}; then run: campanile check {service} {addr}"),
        ),
        _ => return None,
    })
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
    let code = if matches!(error, Error::Loop(_)) { NOT_TRIED } else { FAILED };
    Failure::new(code, error.to_string(), error.advice())
}

/// One object: the ladder, with every rung up to the goal.
fn json(report: &Report) -> String {
    let rungs: Vec<_> = report.rungs.iter().take(report.goal).map(rung_json).collect();
    Object::about(report.service, &report.addr)
        .raw("reached", report.reached())
        .raw("goal", report.goal)
        .raw("rungs", list(&rungs))
        .line()
}

fn rung_json(rung: &Rung) -> String {
    let object = |outcome: &str, rule: &str| {
        let object = Object::new().raw("rung", rung.number).text("name", rung.name);
        object.text("outcome", outcome).text("rule", rule)
    };
    let begun = |outcome, rule| object(outcome, rule).raw("ms", rung.took.as_millis());
    match &rung.outcome {
        Outcome::Reached { note } => {
            let object = begun("reached", rung.rule);
            match note {
                Some(note) => object.text("note", note),
                None => object,
            }
        }
        Outcome::Stopped(failure) => {
            let object = begun("stopped", failure.rule);
            let object = object.text("sent", &failure.sent).text("came", &failure.came);
            let object = object.text("says", failure.says);
            match rung.chapter {
                Some(chapter) => object.text("chapter", chapter),
                None => object,
            }
        }
        Outcome::TimedOut { sent, came, bound } => {
            let object = begun("timed-out", rung.rule).text("sent", sent).text("came", came);
            object.text("bound", &bound.to_string())
        }
        Outcome::NotTried { why, advice } => {
            begun("not-tried", rung.rule).text("why", why).text("advice", advice)
        }
        _ => object("untried", rung.rule),
    }
    .end()
}
