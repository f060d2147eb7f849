//! The command line: parses it, runs the command, and turns the outcome into an exit code.

mod address;
pub mod args;
mod check;
mod clients;
mod connections_log;
mod events;
mod failure;
mod files;
#[cfg(unix)]
mod inherited;
mod json;
mod junit;
mod lines;
mod listen;
mod logging;
mod output;
mod pipe;
mod play;
mod proxy;
mod ready;
mod serve;
mod signals;
mod stdio;
#[cfg(unix)]
mod systemd;
#[cfg(not(unix))]
#[path = "no_systemd.rs"]
mod systemd;
mod test_setup;
mod values;

use std::process::ExitCode;

use self::args::{Cli, Command};

pub fn main() -> ExitCode {
    // If the kernel refuses what the next two calls ask for, the commands still do their work.
    #[cfg(unix)]
    let _ = signals::prepare();
    let command = match Cli::from_args_and_env() {
        Ok(cli) => cli.command,
        Err(error) => {
            // Help and the version go to stdout, usage errors to stderr. The exit code is the same
            // if printing fails.
            let text = error.render().to_string();
            if error.use_stderr() {
                stdio::print_error(&text);
            } else {
                let _ = stdio::print(&text);
            }
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(failure::USAGE));
        }
    };
    #[cfg(unix)]
    if !matches!(command, Command::Serve(_) | Command::Proxy(_)) {
        let _ = signals::end_at_once_as_pid_1();
    }
    match command {
        Command::Serve(args) => serve::serve(&args),
        Command::Proxy(args) => proxy::proxy(*args),
        Command::Daytime(args) => clients::daytime(&args),
        Command::Echo(args) => clients::echo(&args),
        Command::Check(args) => check::check(&args),
        Command::Play(args) => play::play(&args),
    }
}
