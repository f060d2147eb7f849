//! The bounded queue between the loop and the file, and the thread that writes the file.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::line::Line;

/// Bytes that may wait to be written. Records beyond them are dropped.
const CAPACITY: usize = 4 << 20;
/// The writer gathers records for this long before it writes them, so that a busy loop does not wake
/// it in every turn.
const PAUSE: Duration = Duration::from_millis(20);

/// What a number of records add up to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) records: u64,
    pub(super) calls: u64,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
}

impl Sums {
    fn add(&mut self, other: Sums) {
        self.records += other.records;
        self.calls += other.calls;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
    }
}

/// Whole lines, their sums, and the time of the last one.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) text: String,
    pub(super) sums: Sums,
    pub(super) last: u64,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    text: String,
    /// The records that were dropped behind `text`. While there are any, more are dropped, because
    /// the gap has one place.
    missing: Sums,
    /// The time of the last record that was dropped.
    last: u64,
    /// No more records come.
    is_over: bool,
    /// A write has failed: the recording has ended, and records are discarded.
    has_failed: bool,
    writer: Option<JoinHandle<()>>,
    /// The writer has written everything, or has failed.
    is_done: bool,
}

impl Queue {
    /// Starts the thread that writes to `file`. `name` is for the warning.
    pub(super) fn start(
        self: &Arc<Self>,
        mut file: Box<dyn Write + Send>,
        name: String,
    ) -> io::Result<()> {
        let queue = Arc::clone(self);
        let body = move || {
            if let Err(error) = queue.write_all_to(&mut *file) {
                queue.lock().has_failed = true;
                log::warn!(
                    "the recording ends here: cannot write to {name}: {error}; the server goes on; \
                     make room and start it again to record"
                );
            }
            // Closed before `finish` returns.
            drop(file);
            queue.lock().is_done = true;
            queue.changed.notify_all();
        };
        let writer = thread::Builder::new().name("recorder".into()).spawn(body)?;
        self.lock().writer = Some(writer);
        Ok(())
    }

    /// Takes the records of a batch, or drops them and counts them, and leaves the batch empty.
    pub(super) fn push(&self, batch: &mut Batch) {
        let mut state = self.lock();
        let had = state.text.len();
        if state.has_failed || state.is_over {
            // Nothing is written any more.
        } else if state.missing.records > 0 || had + batch.text.len() > CAPACITY {
            state.missing.add(batch.sums);
            state.last = batch.last;
        } else {
            state.text.push_str(&batch.text);
        }
        let has = state.text.len();
        drop(state);
        if (had == 0 && has > 0) || (had < CAPACITY / 2 && has >= CAPACITY / 2) {
            self.changed.notify_all();
        }
        batch.text.clear();
        batch.sums = Sums::default();
    }

    /// Ends the recording: the thread writes what waits, and ends.
    pub(super) fn close(&self) {
        self.lock().is_over = true;
        self.changed.notify_all();
    }

    /// Waits until everything is written; false if that takes longer, or if a write has failed.
    pub(super) fn finish(&self, timeout: Duration) -> bool {
        let is_waiting = |state: &mut State| state.writer.is_some() && !state.is_done;
        let waited = self.changed.wait_timeout_while(self.lock(), timeout, is_waiting);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        if state.writer.is_some() && !state.is_done {
            log::warn!(
                "the recording is cut short: its file did not take the rest within {timeout:?}; record \
                 to a disk, or read the pipe faster"
            );
            return false;
        }
        let (writer, has_failed) = (state.writer.take(), state.has_failed);
        drop(state);
        // It has said that it is done, so this takes no time, and it does not panic.
        let _ = writer.map(JoinHandle::join);
        !has_failed
    }

    fn write_all_to(&self, file: &mut dyn Write) -> io::Result<()> {
        let mut text = String::new();
        while self.take(&mut text) {
            file.write_all(text.as_bytes())?;
            text.clear();
        }
        file.flush()
    }

    /// Waits for records and takes them; false if none will come.
    fn take(&self, text: &mut String) -> bool {
        let is_idle = |state: &mut State| state.text.is_empty() && !state.is_over;
        let gathers = |state: &mut State| state.text.len() < CAPACITY / 2 && !state.is_over;
        let state = self.changed.wait_while(self.lock(), is_idle);
        let state = state.unwrap_or_else(PoisonError::into_inner);
        let state = self.changed.wait_timeout_while(state, PAUSE, gathers);
        let mut state = state.unwrap_or_else(PoisonError::into_inner).0;
        std::mem::swap(&mut state.text, text);
        let missing = std::mem::take(&mut state.missing);
        if missing.records > 0 {
            Line::begin(text, state.last, "gap")
                .number("records", missing.records)
                .number("calls", missing.calls)
                .number("bin", missing.bytes_in)
                .number("bout", missing.bytes_out)
                .end();
        }
        !text.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
