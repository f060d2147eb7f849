//! `campanile check`: climbs the ladder of a server, and prints each rung when it is done.

use std::fs;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

use campanile::ladder::{Bound, Error, Ladder, Outcome, Report, RungReport};

use super::address::Place;
use super::args::{Check, CheckServer};
use super::failure::{DIFFERS, FAILED, Failure, NOT_TRIED, TIMED_OUT, longer};
use super::json::Object;
use super::stdio::{print, print_error};
use super::values::OrOff;
use super::{files, junit};

pub fn check(args: &Check) -> ExitCode {
    match args {
        Check::Echo(args) => climb("echo", Ladder::echo(&args.addr), args),
        Check::Daytime(args) => climb("daytime", Ladder::daytime(&args.addr), args),
    }
}

fn climb<const PORT: u16, const RUNGS: usize>(
    service: &str,
    mut ladder: Ladder,
    CheckServer { addr, rung, junit, client }: &CheckServer<PORT, RUNGS>,
) -> ExitCode {
    // The last rung uses a thousand descriptors.
    let _ = files::raise_limit();
    let OrOff(deadline) = client.deadline.unwrap_or(OrOff(None));
    ladder = ladder.timeout(client.timeout).deadline(deadline);
    if let Some(rung) = rung {
        ladder = ladder.only(*rung);
    }
    let (is_terminal, is_json) = (io::stderr().is_terminal(), client.json);
    let mut output = Output { service, addr, is_terminal, is_json, result: Ok(()) };
    let outcome = ladder.climb(|rung| output.show(rung));
    output.finish(&outcome);
    let mut failures = Vec::new();
    if let Err(error) = output.result {
        let what = format!("cannot write the output: {error}");
        let advice = "check the file or program that stdout goes to";
        failures.push(Failure::new(FAILED, what, advice));
    }
    failures.extend(match &outcome {
        // A climb ends at a rung that is not reached, and goes on after one that cannot be tried: the
        // last failure decides.
        Ok(report) => {
            report.rungs.iter().filter_map(|rung| why_not_reached(report, rung)).next_back()
        }
        Err(error) => {
            let code = if matches!(error, Error::Loop(_)) { NOT_TRIED } else { FAILED };
            Some(Failure::new(code, error.to_string(), error.advice()))
        }
    });
    if let Some(path) = junit {
        if let Err(error) = fs::write(path, junit::xml(service, addr, &outcome)) {
            let what = format!("cannot write the results to {}: {error}", path.display());
            let advice =
                "check that the folder of --junit exists and has room, then run this again";
            failures.push(Failure::new(FAILED, what, advice));
        }
    }
    failures.iter().for_each(|failure| print_error(&failure.to_string()));
    failures.first().map_or(ExitCode::SUCCESS, |failure| ExitCode::from(failure.code))
}

/// Prints each result as soon as it is known. On a terminal, stderr shows the current rung in place.
struct Output<'a> {
    service: &'a str,
    addr: &'a Place,
    is_terminal: bool,
    is_json: bool,
    /// The first error of stdout, after which nothing more is printed there.
    result: io::Result<()>,
}

impl Output<'_> {
    fn event(&self, event: &str) -> Object {
        Object::about(self.service, self.addr).text("event", event)
    }

    fn show(&mut self, rung: &RungReport) {
        if rung.outcome == Outcome::Untried {
            if self.is_terminal {
                print_error(&format!("\r\x1b[Krung {}: {} ...", rung.number, rung.rung.name));
            }
        } else if self.is_json {
            self.print(&json(rung, self.event("rung")));
        } else {
            self.print(&format!("{rung}\n"));
        }
    }

    /// Prints the summary. An error is printed with `--json` only, as stderr shows it in words.
    fn finish(&mut self, outcome: &Result<Report, Error>) {
        let text = match outcome {
            Ok(report) if self.is_json => {
                let object = self.event("checked").raw("reached", report.reached());
                let object = object.raw("not_tried", report.not_tried());
                object.raw("rungs", report.rungs.len()).line()
            }
            Ok(report) => report.summary() + "\n",
            Err(error) if self.is_json => {
                let object = self.event("check_failed").text("error", word(error));
                object.text("message", &error.to_string()).line()
            }
            Err(_) => String::new(),
        };
        self.print(&text);
    }

    fn print(&mut self, text: &str) {
        if self.is_terminal {
            print_error("\r\x1b[K");
        }
        if self.result.is_ok() {
            self.result = print(text);
        }
    }
}

pub fn word(error: &Error) -> &'static str {
    match error {
        Error::NotFound { .. } => "not-found",
        Error::Absent { .. } => "not-connected",
        _ => "failed",
    }
}

fn why_not_reached(report: &Report, rung: &RungReport) -> Option<Failure> {
    let Report { service, addr, .. } = report;
    let (number, name) = (rung.number, rung.rung.name);
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
        Outcome::NotTried { reason, advice } => Failure::new(
            NOT_TRIED,
            format!("this machine cannot try rung {number}, {name}: {reason}"),
            format!("{advice}; then run: {again} {addr}"),
        ),
        _ => return None,
    })
}

/// The result of a rung as a line of JSON.
fn json(rung: &RungReport, about: Object) -> String {
    let object = about.raw("rung", rung.number).text("name", rung.rung.name);
    let object = object.raw("ms", rung.took.as_millis());
    let with = |outcome, rule| object.text("outcome", outcome).text("rule", rule);
    let rule = rung.rung.rule.number;
    match &rung.outcome {
        Outcome::Reached { note: None } => with("reached", rule),
        Outcome::Reached { note: Some(note) } => with("reached", rule).text("note", note),
        Outcome::Stopped(failure) => with("stopped", failure.rule.number)
            .text("sent", &failure.sent)
            .text("received", &failure.received)
            .text("text", failure.rule.text)
            .text("why", failure.rule.why)
            .text("source", failure.rule.source)
            .text("chapter", rung.rung.chapter),
        Outcome::TimedOut { sent, received, bound } => with("timed-out", rule)
            .text("sent", sent)
            .text("received", received)
            .text("bound", &bound.to_string()),
        Outcome::NotTried { reason, advice } => {
            with("not-tried", rule).text("reason", reason).text("advice", advice)
        }
        _ => with("untried", rule),
    }
    .line()
}
