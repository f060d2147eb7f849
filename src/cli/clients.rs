//! `campanile daytime` and `campanile echo`: the clients, and what they print.

use std::io;
use std::process::ExitCode;

use campanile::client::{self, Error};

use super::address::Place;
use super::args::{Daytime, Echo};
use super::failure::{DIFFERS, FAILED, Failure, TIMED_OUT};
use super::json::{Object, string};
use super::stdio::{Blocking, print, print_error};

pub fn daytime(args: &Daytime) -> ExitCode {
    let outcome = client::daytime(&args.addr, args.client.timeout).map(|line| {
        if args.client.json {
            Object::about("daytime", &args.addr).text("time", &line).line()
        } else {
            format!("The time got from the server is {line}\n")
        }
    });
    finish("daytime", &args.addr, args.client.json, outcome)
}

pub fn echo(args: &Echo) -> ExitCode {
    let outcome = if args.message == "-" { stream(args) } else { message(args) };
    finish("echo", &args.addr, args.client.json, outcome)
}

fn message(args: &Echo) -> Result<String, Error> {
    let sent = args.message.as_encoded_bytes();
    let back = client::echo(&args.addr, sent, args.client.timeout)?;
    Ok(if args.client.json {
        let object = Object::about("echo", &args.addr).raw("bytes", back.len());
        object.raw("received", string(&back)).line()
    } else {
        format!("Received {}\n", client::repr(&back))
    })
}

fn stream(args: &Echo) -> Result<String, Error> {
    let (addr, timeout) = (&args.addr, args.client.timeout);
    if args.client.json {
        // stdout is for the object.
        let count = client::echo_stream(addr, Blocking(io::stdin()), io::sink(), timeout)?;
        Ok(Object::about("echo", &args.addr).raw("bytes", count).line())
    } else {
        client::echo_stream(addr, Blocking(io::stdin()), Blocking(io::stdout()), timeout)?;
        Ok(String::new())
    }
}

/// Prints what came of it. An error goes to stderr in words, and as an object to stdout if that
/// was asked for.
fn finish(service: &str, addr: &Place, is_json: bool, outcome: Result<String, Error>) -> ExitCode {
    let outcome = outcome.and_then(|text| print(&text).map_err(Error::Output));
    let Err(error) = outcome else {
        return ExitCode::SUCCESS;
    };
    let (word, code) = match &error {
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
    };
    if is_json && !matches!(error, Error::Output(_)) {
        let mut object = Object::about(service, addr).text("error", word);
        object = object.text("message", &error.to_string());
        if let Error::Mismatch { offset, .. } = &error {
            object = object.raw("offset", offset);
        }
        // The words on stderr and the exit code say the same.
        let _ = print(&object.line());
    }
    let failure = Failure::new(code, error.to_string(), error.advice());
    print_error(&failure.to_string());
    ExitCode::from(failure.code)
}
