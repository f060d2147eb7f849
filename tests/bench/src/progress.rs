//! The progress of a run on stderr: a bar on a terminal, and a line for each load elsewhere.

use std::cell::RefCell;
use std::io::{IsTerminal, Write, stderr};
use std::time::Instant;

pub struct Progress {
    began: Instant,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    /// The seconds that the sections take, as expected.
    total: f64,
    done: f64,
    section: f64,
    loads: usize,
    load: usize,
    name: String,
}

impl Progress {
    pub fn new(total: f64) -> Progress {
        let state = RefCell::new(State { total, ..State::default() });
        Progress { began: Instant::now(), state }
    }

    /// Begins a section that takes about `seconds` and has `loads`.
    pub fn section(&self, seconds: f64, loads: usize) {
        let mut state = self.state.borrow_mut();
        state.done += state.section;
        (state.section, state.loads, state.load) = (seconds, loads, 0);
    }

    /// Begins the next load of the section.
    pub fn load(&self, name: &str) {
        let mut state = self.state.borrow_mut();
        state.load += 1;
        state.name = name.into();
        drop(state);
        if stderr().is_terminal() {
            self.part(0.0);
        } else {
            eprintln!("{}", self.line(0.0));
        }
    }

    /// Shows that a part of the load, between 0 and 1, is done.
    pub fn part(&self, part: f64) {
        if stderr().is_terminal() {
            eprint!("\r\x1b[K{}", self.line(part));
            let _ = stderr().flush();
        }
    }

    pub fn end(&self) {
        if stderr().is_terminal() {
            eprint!("\r\x1b[K");
        }
        eprintln!("done after {}", clock(self.began.elapsed().as_secs_f64()));
    }

    fn line(&self, part: f64) -> String {
        let state = self.state.borrow();
        let of_section = (state.load as f64 - 1.0 + part) / state.loads.max(state.load) as f64;
        let share = ((state.done + of_section * state.section) / state.total).clamp(0.0, 1.0);
        let elapsed = self.began.elapsed().as_secs_f64();
        let filled = (share * 24.0) as usize;
        let bar = format!("{}{}", "#".repeat(filled), ".".repeat(24 - filled));
        let left = clock(state.total * (1.0 - share));
        format!(
            "[{bar}] {:3.0} % {}, about {left} left  {}",
            share * 100.0,
            clock(elapsed),
            state.name
        )
    }
}

fn clock(seconds: f64) -> String {
    format!("{}:{:02}", seconds as u64 / 60, seconds as u64 % 60)
}
