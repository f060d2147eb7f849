//! One bounded queue to one writer thread, so that no reader of ours, slow, stuck or gone, ever
//! holds up the loop. Who has nothing to say has no thread.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Lines that may wait to be written; more are dropped, and counted.
const CAPACITY: usize = 1024;

/// Where a line goes.
#[derive(Debug, Clone, Copy)]
pub enum Sink {
    Stdout,
    Stderr,
}

/// Writes to stdout, as long as that takes.
pub fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

impl Sink {
    /// Writes, as long as that takes. Closed or full: the lines are lost, and the service goes on.
    fn write(self, lines: &str) {
        let _ = match self {
            Sink::Stdout => print(lines),
            Sink::Stderr => io::stderr().write_all(lines.as_bytes()),
        };
    }

    /// Writes if that takes no wait; false if it would.
    fn write_at_once(self, lines: &str) -> bool {
        let takes = self.takes(lines.len());
        if takes {
            self.write(lines);
        }
        takes
    }

    /// Whether so many bytes can be written at once: a pipe that poll(2) calls writable has room
    /// for as many as are written whole (pipe(7), `PIPE_BUF`).
    #[cfg(unix)]
    fn takes(self, count: usize) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};

        let (stdout, stderr) = (io::stdout(), io::stderr());
        let mut fd = match self {
            Sink::Stdout => PollFd::new(&stdout, PollFlags::OUT),
            Sink::Stderr => PollFd::new(&stderr, PollFlags::OUT),
        };
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        count <= PIPE_BUF && poll(std::slice::from_mut(&mut fd), Some(&now)) == Ok(1)
    }

    #[cfg(not(unix))]
    fn takes(self, _count: usize) -> bool {
        false
    }
}

/// What POSIX promises at least of the constant of this name.
#[cfg(unix)]
const PIPE_BUF: usize = 512;

/// The way to stdout and stderr. Never blocks, never fails.
#[derive(Debug, Clone)]
pub struct Output(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    has_writer: bool,
    lines: VecDeque<(Sink, String)>,
    /// How many lines were lost since the last one that was not.
    dropped: u64,
    is_writing: bool,
}

impl Output {
    pub fn new() -> Output {
        Output(Arc::default())
    }

    /// Has whole lines written, unless the queue is full.
    pub fn say(&self, sink: Sink, lines: String) {
        let mut queue = self.0.lock();
        if !queue.has_writer {
            queue.has_writer = self.start_writer().is_ok();
            if !queue.has_writer {
                // The loop must not wait, not even for this: otherwise they are lost.
                let _ = sink.write_at_once(&lines);
                return;
            }
        }
        if queue.lines.len() >= CAPACITY {
            queue.dropped += 1;
            return;
        }
        if let Some(note) = queue.take_note() {
            queue.lines.push_back(note);
        }
        queue.lines.push_back((sink, lines));
        drop(queue);
        self.0.changed.notify_all();
    }

    /// The same, without the writer where there is none and the lines can be written without a wait.
    pub fn say_first(&self, sink: Sink, lines: String) {
        if self.0.lock().has_writer || !sink.write_at_once(&lines) {
            self.say(sink, lines);
        }
    }

    fn start_writer(&self) -> io::Result<()> {
        let shared = Arc::clone(&self.0);
        thread::Builder::new().name("output".into()).spawn(move || shared.write_for_ever())?;
        Ok(())
    }

    /// Waits until everything is written, but not for ever: nobody may be reading.
    pub fn finish(&self, patience: Duration) {
        let is_busy =
            |queue: &mut Queue| queue.is_writing || !queue.lines.is_empty() || queue.dropped > 0;
        // Whether it was in time or not, this is the end.
        let _ = self.0.changed.wait_timeout_while(self.0.lock(), patience, is_busy);
    }
}

impl Queue {
    fn take_note(&mut self) -> Option<(Sink, String)> {
        let dropped = std::mem::take(&mut self.dropped);
        (dropped > 0).then(|| (Sink::Stderr, format!("{dropped} lines were dropped here\n")))
    }
}

impl Shared {
    fn write_for_ever(&self) {
        loop {
            let (sink, line) = self.next();
            sink.write(&line);
        }
    }

    fn next(&self) -> (Sink, String) {
        let mut queue = self.lock();
        queue.is_writing = false;
        self.changed.notify_all();
        loop {
            // If no line comes after those that were lost, the note stands at the end.
            if let Some(line) = queue.lines.pop_front().or_else(|| queue.take_note()) {
                queue.is_writing = true;
                return line;
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lost_is_said_where_it_was_lost() {
        // Nobody writes, so that it fills up.
        let output = Output(Arc::default());
        output.0.lock().has_writer = true;
        for number in 0..CAPACITY + 3 {
            output.say(Sink::Stderr, format!("{number}\n"));
        }
        assert_eq!(output.0.next().1, "0\n");
        output.say(Sink::Stderr, "after\n".into());
        let mut said: Vec<_> = (1..CAPACITY).map(|number| format!("{number}\n")).collect();
        said.push("3 lines were dropped here\n".into());
        said.push("after\n".into());
        for expected in said {
            assert_eq!(output.0.next().1, expected);
        }
        // The last one is being written: this comes back all the same.
        output.finish(Duration::from_millis(1));
    }
}
