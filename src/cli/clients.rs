//! `campanile daytime` and `campanile echo`: the clients, and what they print.

use std::io::{self, Write};
use std::process::ExitCode;

use campanile::client::{self, Error};

use super::args::{Daytime, Echo};
use super::events::string;
use super::failure::{DIFFERS, FAILED, Failure, TIMED_OUT};

pub fn daytime(args: &Daytime) -> ExitCode {
    let outcome = client::daytime(args.addr.to_string(), args.client.timeout).map(|line| {
        if args.client.json {
            json("daytime", &args.addr, &[("time", &string(line.as_bytes()))])
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
    let back = client::echo(args.addr.to_string(), sent, args.client.timeout)?;
    Ok(if args.client.json {
        let fields = [("bytes", &*back.len().to_string()), ("received", &string(&back))];
        json("echo", &args.addr, &fields)
    } else {
        format!("Received {}\n", client::repr(&back))
    })
}

fn stream(args: &Echo) -> Result<String, Error> {
    let (addr, timeout) = (args.addr.to_string(), args.client.timeout);
    if args.client.json {
        // stdout is for the object.
        let count = client::echo_stream(addr, io::stdin(), io::sink(), timeout)?;
        Ok(json("echo", &args.addr, &[("bytes", &count.to_string())]))
    } else {
        client::echo_stream(addr, io::stdin(), io::stdout(), timeout)?;
        Ok(String::new())
    }
}

/// Prints what came of it. An error goes to stderr in words, and as an object to stdout if that
/// was asked for.
fn finish(
    service: &str,
    addr: &dyn ToString,
    is_json: bool,
    outcome: Result<String, Error>,
) -> ExitCode {
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
        let said = string(error.to_string().as_bytes());
        let mut fields = vec![("error", format!("\"{word}\"")), ("message", said)];
        if let Error::Mismatch { offset, .. } = &error {
            fields.push(("offset", offset.to_string()));
        }
        let fields: Vec<_> = fields.iter().map(|(key, value)| (*key, value.as_str())).collect();
        // The words on stderr and the exit code say the same.
        let _ = print(&json(service, addr, &fields));
    }
    let failure = Failure::new(code, error.to_string(), error.advice());
    let _ = write!(io::stderr(), "{failure}");
    ExitCode::from(failure.code)
}

fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// One line of JSON; the values are JSON already.
fn json(service: &str, addr: &dyn ToString, fields: &[(&str, &str)]) -> String {
    let addr = string(addr.to_string().as_bytes());
    let mut line = format!("{{\"v\":1,\"service\":\"{service}\",\"addr\":{addr}");
    for (key, value) in fields {
        line.push_str(&format!(",\"{key}\":{value}"));
    }
    line.push_str("}\n");
    line
}
