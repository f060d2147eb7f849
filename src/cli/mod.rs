//! The command line: parses it, does what it says, and turns the outcome into an exit code.

mod address;
mod args;
mod check;
mod clients;
mod events;
mod failure;
mod files;
mod json;
mod lab;
mod listen;
mod logging;
mod output;
mod ready;
mod serve;
mod signals;
mod values;

use std::process::ExitCode;

use clap::Parser;

use self::args::{Cli, Command};

pub fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(Cli { command: Command::Serve(args) }) => serve::serve(&args),
        Ok(Cli { command: Command::Daytime(args) }) => clients::daytime(&args),
        Ok(Cli { command: Command::Echo(args) }) => clients::echo(&args),
        Ok(Cli { command: Command::Check(args) }) => check::check(&args),
        Err(error) => {
            // Help, the version, or a wrong word. Whether anybody can read it changes nothing.
            let _ = error.print();
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(failure::USAGE))
        }
    }
}
