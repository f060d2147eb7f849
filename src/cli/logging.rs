//! The log: which records are written, and their format.

use env_filter::Filter;
use log::{Level, LevelFilter, Log, Metadata, Record};

use super::args::Serve;
use super::output::{Output, Sink};

struct Logger {
    filter: Filter,
    output: Output,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.filter.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.filter.matches(record) {
            return;
        }
        let text = record.args();
        let line = match record.level() {
            Level::Info => format!("{text}\n"),
            Level::Error => format!("error: {text}\n"),
            Level::Warn => format!("warning: {text}\n"),
            Level::Debug => format!("debug: {text}\n"),
            Level::Trace => format!("trace: {text}\n"),
        };
        self.output.say(Sink::Stderr, line);
    }

    fn flush(&self) {}
}

/// Sends the log of the whole program to `output`. The flags choose the level; without them
/// `RUST_LOG` does.
pub fn start(args: &Serve, output: &Output) {
    let level = match (args.quiet, args.verbose) {
        (true, _) => LevelFilter::Error,
        (false, 0) => LevelFilter::Info,
        (false, 1) => LevelFilter::Debug,
        (false, _) => LevelFilter::Trace,
    };
    let mut filter = env_filter::Builder::new();
    filter.filter_level(level);
    let mut complaint = None;
    if let Ok(spec) = std::env::var("RUST_LOG") {
        if level == LevelFilter::Info && !spec.is_empty() {
            let mut asked = env_filter::Builder::new();
            match asked.try_parse(&spec).map(drop) {
                Ok(()) => filter = asked,
                Err(error) => complaint = Some(error),
            }
        }
    }
    let filter = filter.build();
    log::set_max_level(filter.filter());
    let logger = Logger { filter, output: output.clone() };
    // This fails only if a logger is set already, and the program sets no other.
    let _ = log::set_logger(Box::leak(Box::new(logger)));
    if let Some(error) = complaint {
        log::warn!(
            "cannot parse RUST_LOG ({error}), so the level is info: set it to debug or to \
             campanile=trace"
        );
    }
}
