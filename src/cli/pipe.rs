//! The commands of `--pipe`: each line of stdin adds a fault or is a command, and is answered.

use std::io::{self, BufReader};
use std::time::Duration;

use campanile::Handle;
use campanile::testing::Fault;

use super::lines::{Lines, WrongLine};
use super::stdio::Blocking;
use super::test_setup::{self, TestSetup};
use super::{events, values};

/// How long the loop may take to act on a command.
const PATIENCE: Duration = Duration::from_secs(10);

/// Obeys each line of stdin, on a thread of its own. Ends the loop when stdin ends, so that the
/// program does not outlive a test that crashed.
pub fn obey_stdin(setup: &TestSetup, handle: Handle) -> io::Result<()> {
    let setup = setup.clone();
    let obey = move || {
        for line in Lines::new(BufReader::new(Blocking(io::stdin()))) {
            match line {
                Ok(line) => answer(&setup, line, PATIENCE),
                Err(error) => {
                    setup.stdin_failed(error);
                    break;
                }
            }
        }
        setup.release_time();
        handle.shutdown(Duration::ZERO);
    };
    std::thread::Builder::new().name("stdin".into()).spawn(obey).map(drop)
}

/// Obeys a line, and answers it.
fn answer(setup: &TestSetup, line: Result<String, WrongLine>, patience: Duration) {
    let obey = |text: String| {
        let done = parse(&text).and_then(|command| obey(setup, command, patience));
        done.map_err(|error| WrongLine { text, error })
    };
    if let Err(WrongLine { text, error }) = line.and_then(obey) {
        setup.say(events::wrong_fault(&text, &error));
    }
}

#[derive(Debug, PartialEq)]
enum Command {
    Add(Fault),
    Remove(u64),
    Clear,
    Connections,
    Advance(Duration),
}

fn parse(line: &str) -> Result<Command, String> {
    let words = line.trim();
    let (word, rest) = words.split_once(char::is_whitespace).unwrap_or((words, ""));
    let rest = rest.trim_start();
    match word {
        "remove" => {
            let id = rest.parse().map_err(|_| "expected the id of a fault, as in `remove 3`");
            Ok(Command::Remove(id?))
        }
        "clear" | "connections" if !rest.is_empty() => {
            Err(format!("`{word}` stands alone on its line: remove `{rest}`"))
        }
        "clear" => Ok(Command::Clear),
        "connections" => Ok(Command::Connections),
        "advance" => values::length_or_zero(rest).map(Command::Advance),
        _ => test_setup::fault(line).map(Command::Add).map_err(|error| match line.contains(':') {
            true => error,
            false => {
                format!("{error}; other lines are `remove N`, `clear`, `connections`, `advance T`")
            }
        }),
    }
}

/// Obeys a command. Several lines of one answer are queued as one entry: none of them is lost alone.
fn obey(setup: &TestSetup, command: Command, patience: Duration) -> Result<(), String> {
    let plan = &setup.plan;
    let ended = match command {
        Command::Connections => {
            // Queued before any of these connections can close.
            setup.book.with_open(|ledgers| setup.say(events::connections(ledgers)));
            return Ok(());
        }
        Command::Advance(by) => return advance(setup, by, patience),
        Command::Add(fault) => {
            setup.check_service(&fault)?;
            let id = plan.add(fault.clone())?;
            if !plan.settle(patience) {
                // A fault that is refused must not take effect later.
                plan.remove(id);
                return Err(format!(
                    "the loop did not apply the fault within {patience:?}: send it again"
                ));
            }
            if let Some(failure) = plan.failure(id) {
                plan.remove(id);
                return Err(failure);
            }
            setup.say(events::fault(id, &fault));
            return Ok(());
        }
        Command::Remove(id) => {
            let fault = plan.remove(id).ok_or_else(|| {
                format!(
                    "no fault with the id {id} is in force: the answer to its SPEC has the id, and \
                     `clear` ends all faults"
                )
            })?;
            vec![(id, fault)]
        }
        Command::Clear => plan.clear(),
    };
    if !plan.settle(patience) {
        return Err(format!(
            "the loop did not act on the end of the fault within {patience:?}: open connections may \
             still be under it"
        ));
    }
    let mut lines: String =
        ended.iter().map(|(id, fault)| events::fault_ended(*id, fault)).collect();
    if command == Command::Clear {
        lines += &events::cleared(ended.len());
    }
    setup.say(lines);
    Ok(())
}

fn advance(setup: &TestSetup, by: Duration, patience: Duration) -> Result<(), String> {
    let clock = setup.clock.as_ref().ok_or("time passes by itself: start with --manual-time")?;
    clock.advance(by, patience)?;
    setup.say(events::advanced(by, clock.elapsed()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::{self, Cli};
    use crate::cli::output::Output;

    #[test]
    fn a_command_that_the_loop_does_not_acknowledge_fails_and_a_fault_is_removed() {
        // No loop is there to acknowledge them.
        let cli = Cli::try_parse_from(["campanile", "serve", "--pipe"]).unwrap();
        let args::Command::Serve(args) = cli.command else { panic!("another command") };
        let setup = TestSetup::new(&args, &Output::new(true), None).unwrap();
        let fault = Command::Add("echo: refuse".parse().unwrap());
        let error = obey(&setup, fault, Duration::ZERO).unwrap_err();
        assert_eq!(error, "the loop did not apply the fault within 0ns: send it again");
        assert_eq!(setup.plan.faults(), []);
        for command in [Command::Remove(2), Command::Clear] {
            setup.plan.add("echo: refuse".parse().unwrap()).unwrap();
            let error = obey(&setup, command, Duration::ZERO).unwrap_err();
            assert!(error.starts_with("the loop did not act on the end of the fault"), "{error}");
        }
    }

    #[test]
    fn a_line_is_a_command_or_a_fault() {
        for (line, command) in [
            ("remove 3", Command::Remove(3)),
            ("  clear\t", Command::Clear),
            ("connections", Command::Connections),
            ("advance 5s", Command::Advance(Duration::from_secs(5))),
            ("advance 1m 30s", Command::Advance(Duration::from_secs(90))),
            ("advance 0s", Command::Advance(Duration::ZERO)),
        ] {
            assert_eq!(parse(line), Ok(command), "{line}");
        }
        assert!(matches!(parse("echo: reset"), Ok(Command::Add(_))));
        for (line, error) in [
            ("remove", "expected the id of a fault, as in `remove 3`"),
            ("remove -1", "expected the id of a fault, as in `remove 3`"),
            ("clear all", "`clear` stands alone on its line: remove `all`"),
            ("connections 3", "`connections` stands alone on its line: remove `3`"),
            ("advance", "expected a duration such as 500ms, 2s or 5m"),
            ("advance 5", "expected a duration such as 500ms, 2s or 5m"),
        ] {
            assert_eq!(parse(line), Err(error.into()), "{line}");
        }
        let error = parse("conections").unwrap_err();
        assert!(
            error.ends_with("; other lines are `remove N`, `clear`, `connections`, `advance T`")
        );
        assert!(!parse("echo: rest").unwrap_err().contains("advance"));
    }
}
