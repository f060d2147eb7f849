//! `campanile daytime` and `campanile echo`: the clients, and what they print.

use std::io;
use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use campanile::client::{self, Error};

use super::address::Place;
use super::args::{Client, Daytime, Echo};
use super::failure::{DIFFERS, FAILED, Failure, TIMED_OUT, longer};
use super::json::{Object, string};
use super::stdio::{Blocking, print, print_error};
use super::values::OrOff;

/// Default bound on a command whose input is short.
const DEADLINE: OrOff<Duration> = OrOff(Some(Duration::from_secs(60)));
/// Time to print an error after the deadline.
const MOMENT: Duration = Duration::from_secs(1);

pub fn daytime(args: &Daytime) -> ExitCode {
    let Client { timeout, json, deadline } = args.client;
    let addr = args.addr.clone();
    let ask = move || {
        let line = client::daytime(&addr, timeout)?;
        Ok(if json {
            Object::about("daytime", &addr).text("time", &line).line()
        } else {
            format!("The time got from the server is {line}\n")
        })
    };
    run("daytime", &args.addr, json, deadline.unwrap_or(DEADLINE), ask)
}

pub fn echo(args: &Echo) -> ExitCode {
    let Client { timeout, json, deadline } = args.client;
    let (addr, text) = (args.addr.clone(), args.message.clone());
    if args.message == "-" {
        let ask = move || stream(&addr, timeout, json);
        return run("echo", &args.addr, json, deadline.unwrap_or(OrOff(None)), ask);
    }
    let ask = move || {
        let back = client::echo(&addr, text.as_encoded_bytes(), timeout)?;
        Ok(if json {
            let object = Object::about("echo", &addr).raw("bytes", back.len());
            object.raw("received", string(&back)).line()
        } else {
            format!("Received {}\n", client::repr(&back))
        })
    };
    run("echo", &args.addr, json, deadline.unwrap_or(DEADLINE), ask)
}

fn stream(addr: &Place, timeout: Duration, json: bool) -> Result<String, Error> {
    if json {
        // stdout is for the object.
        let count = client::echo_stream(addr, Blocking(io::stdin()), io::sink(), timeout)?;
        Ok(Object::about("echo", addr).raw("bytes", count).line())
    } else {
        client::echo_stream(addr, Blocking(io::stdin()), Blocking(io::stdout()), timeout)?;
        Ok(String::new())
    }
}

/// Asks the server and prints the answer, both within the deadline. An error goes to stderr in words,
/// and with `--json` to stdout as an object.
fn run(
    service: &str,
    addr: &Place,
    json: bool,
    OrOff(deadline): OrOff<Duration>,
    ask: impl FnOnce() -> Result<String, Error> + Send + 'static,
) -> ExitCode {
    let work = move || print(&ask()?).map_err(Error::Output);
    let outcome = match deadline {
        None => work(),
        Some(deadline) => match within(deadline, work) {
            Ok(Some(outcome)) => outcome,
            Ok(None) => {
                let what = format!("{addr} did not finish within the deadline of {deadline:?}");
                let advice = format!(
                    "check the server, or allow more time: --deadline {}, or --deadline off",
                    longer(deadline)
                );
                let object = Object::about(service, addr).text("error", "deadline");
                let line = object.text("message", &what).line();
                if json {
                    // The client may be blocked in a write to stdout, and hold its lock.
                    let _ = within(MOMENT, move || print(&line));
                }
                return fail(None, &Failure::new(TIMED_OUT, what, advice));
            }
            Err(error) => Err(Error::Thread(error)),
        },
    };
    let Err(error) = outcome else {
        return ExitCode::SUCCESS;
    };
    let (word, code) = kind(&error);
    let mut object = Object::about(service, addr).text("error", word);
    object = object.text("message", &error.to_string());
    if let Error::Mismatch { offset, .. } = &error {
        object = object.raw("offset", offset);
    }
    let has_stdout = !matches!(error, Error::Output(_));
    let failure = Failure::new(code, error.to_string(), error.advice());
    fail((json && has_stdout).then_some(object), &failure)
}

/// Runs `work` on a thread of its own, and waits for it until the deadline, whatever it is blocked in:
/// the resolver, the socket, stdin or stdout.
fn within<T: Send + 'static>(
    deadline: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<Option<T>> {
    let (done, outcome) = mpsc::sync_channel(1);
    let worker = thread::Builder::new().name("client".into()).spawn(move || {
        // At the deadline the receiver is gone, and the process ends.
        let _ = done.send(work());
    })?;
    match outcome.recv_timeout(deadline) {
        Ok(outcome) => Ok(Some(outcome)),
        Err(RecvTimeoutError::Timeout) => Ok(None),
        Err(RecvTimeoutError::Disconnected) => match worker.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => Ok(None),
        },
    }
}

fn kind(error: &Error) -> (&'static str, u8) {
    match error {
        Error::NotFound { .. } => ("not-found", FAILED),
        Error::Connect { .. } => ("not-connected", FAILED),
        Error::ConnectTimedOut { .. } => ("connect-timed-out", TIMED_OUT),
        Error::Silent { .. } => ("silent", TIMED_OUT),
        Error::Broken { .. } => ("broken", FAILED),
        Error::Empty { .. } => ("empty", FAILED),
        Error::TooLong { .. } => ("too-long", FAILED),
        Error::Garbage { .. } => ("garbage", FAILED),
        Error::Mismatch { .. } => ("differs", DIFFERS),
        Error::Input(_) => ("input", FAILED),
        Error::Output(_) => ("output", FAILED),
        _ => ("failed", FAILED),
    }
}

fn fail(object: Option<Object>, failure: &Failure) -> ExitCode {
    if let Some(object) = object {
        // If this fails, stderr and the exit code still report the error.
        let _ = print(&object.line());
    }
    print_error(&failure.to_string());
    ExitCode::from(failure.code)
}
