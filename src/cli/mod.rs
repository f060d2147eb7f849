//! The command line: parses it, runs the command, and turns the outcome into an exit code.

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
    // If the kernel refuses what the next two calls ask for, the commands still do their work.
    #[cfg(unix)]
    let _ = signals::prepare();
    let command = match Cli::try_parse() {
        Ok(cli) => cli.command,
        Err(error) => {
            // Help, the version or a usage error. The exit code is the same if printing fails.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(failure::USAGE));
        }
    };
    #[cfg(unix)]
    if !matches!(command, Command::Serve(_)) {
        let _ = signals::end_at_once_as_pid_1();
    }
    match command {
        Command::Serve(args) => serve::serve(&args),
        Command::Daytime(args) => clients::daytime(&args),
        Command::Echo(args) => clients::echo(&args),
        Command::Check(args) => check::check(&args),
    }
}
