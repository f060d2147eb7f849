//! [`Recorder`]: one recording, and what it knows of the loop.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::line::{Line, push_number, push_string};
use super::places::Places;
use super::queue::{Batch, Queue};
use crate::connection::Snapshot;
use crate::kernel::Source;
use crate::limits::Limits;
use crate::protocol::{ConnId, Input, Output};

/// A batch of this size is handed over before its turn ends.
const BATCH: usize = 64 << 10;

/// One recording. Clones are the same recording: a kernel writes into it through
/// [`Recorded`](super::Recorded), and the program waits for its end.
#[derive(Clone)]
pub struct Recorder(Arc<Shared>);

struct Shared {
    log: Mutex<Log>,
    queue: Arc<Queue>,
    payload: usize,
    services: Vec<String>,
    /// A title and a text.
    about: Option<(String, String)>,
}

/// What the loop's side of the recording knows.
#[derive(Default)]
struct Log {
    batch: Batch,
    /// Where the recording goes, until a kernel begins it.
    file: Option<(Box<dyn Write + Send>, String)>,
    clock: Option<Clock>,
    turns: u64,
    places: Places,
}

/// Real time, moved forward where the kernel's clock is ahead of it: manual and simulated time leap.
struct Clock {
    /// By the kernel's clock.
    began: Instant,
    started: Instant,
    leapt: Duration,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("payload", &self.0.payload).finish_non_exhaustive()
    }
}

impl Recorder {
    /// Creates the file of a recording, or truncates it.
    ///
    /// # Errors
    /// If the file cannot be created.
    pub fn create(path: impl AsRef<Path>) -> io::Result<Recorder> {
        let path = path.as_ref();
        Ok(Recorder::to(File::create(path)?, path.display().to_string()))
    }

    /// Creates a recording that goes to `writer`, on a thread of its own. The `name` is for the warning
    /// that a failed write logs.
    pub fn to(writer: impl Write + Send + 'static, name: impl Into<String>) -> Recorder {
        let file: Box<dyn Write + Send> = Box::new(writer);
        let log = Log { file: Some((file, name.into())), ..Log::default() };
        let (log, queue) = (Mutex::new(log), Arc::default());
        Recorder(Arc::new(Shared { log, queue, payload: 0, services: Vec::new(), about: None }))
    }

    /// Records the first `count` bytes of each connection in each direction. They are the data of the
    /// clients, so the default is 0. For a recording that no kernel writes into yet.
    #[must_use]
    pub fn record_bytes(mut self, count: usize) -> Recorder {
        if let Some(shared) = Arc::get_mut(&mut self.0) {
            shared.payload = count;
        }
        self
    }

    /// Names the services, for the header. For a recording that no kernel writes into yet.
    #[must_use]
    pub fn services(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Recorder {
        if let Some(shared) = Arc::get_mut(&mut self.0) {
            shared.services = names.into_iter().map(Into::into).collect();
        }
        self
    }

    /// Gives the recording a title and a text, which a player shows. For a recording that no kernel
    /// writes into yet.
    #[must_use]
    pub fn about(mut self, title: impl Into<String>, text: impl Into<String>) -> Recorder {
        if let Some(shared) = Arc::get_mut(&mut self.0) {
            shared.about = Some((title.into(), text.into()));
        }
        self
    }

    /// Names the service of all listeners that are bound from now on.
    pub fn serving(&self, service: &str) {
        self.lock().places.serving = Some(service.into());
    }

    /// Records that a fault begins to act, or stops acting: on connection `number` of a service, counted
    /// from 1, or on its listeners.
    pub fn fault(&self, service: &str, number: Option<u64>, fault: &str, begins: bool) {
        let mut log = self.lock();
        let kind = if begins { "fault" } else { "heal" };
        let (connection, listener) = log.places.find(service, number);
        let line = log.line(kind).number("c", connection).number("l", listener);
        line.text("fault", fault).end();
    }

    /// Waits until the recording is written; false if it is not complete after `timeout`, or if a write
    /// has failed. Call it after the reactor is dropped, which ends the recording.
    pub fn finish(&self, timeout: Duration) -> bool {
        self.0.queue.finish(timeout)
    }

    /// Writes the header and starts the thread that writes the file.
    pub(super) fn begin(&self, now: Instant, limits: &Limits) -> io::Result<()> {
        let mut log = self.lock();
        let Some((file, name)) = log.file.take() else {
            let text = "this recorder records another kernel already; create one for each kernel";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        };
        log.clock = Some(Clock { began: now, started: Instant::now(), leapt: Duration::ZERO });
        let text = &mut log.batch.text;
        text.push_str("{\"recording\":\"campanile\",\"v\":1,\"version\":\"");
        text.push_str(env!("CARGO_PKG_VERSION"));
        for (key, value) in [
            ("\",\"bytes\":", self.0.payload),
            (",\"high_water\":", limits.high_water),
            (",\"low_water\":", limits.low_water),
        ] {
            text.push_str(key);
            push_number(text, wide(value));
        }
        text.push_str(",\"services\":[");
        for (at, name) in self.0.services.iter().enumerate() {
            text.push_str(if at == 0 { "" } else { "," });
            push_string(text, name);
        }
        text.push(']');
        if let Some((title, about)) = &self.0.about {
            for (key, value) in [(",\"title\":", title), (",\"text\":", about)] {
                text.push_str(key);
                push_string(text, value);
            }
        }
        text.push_str("}\n");
        self.0.queue.push(&mut log.batch);
        self.0.queue.start(file, name)
    }

    /// Hands everything over and ends the recording.
    pub(super) fn end(&self) {
        self.0.queue.push(&mut self.lock().batch);
        self.0.queue.close();
    }

    /// Hands the turn over and begins the next one.
    pub(super) fn turn(&self) {
        let mut log = self.lock();
        self.0.queue.push(&mut log.batch);
        log.turns += 1;
        let turn = log.turns;
        log.line("turn").number("n", turn).end();
    }

    /// Compares the kernel's clock, in every turn.
    pub(super) fn tick(&self, now: Instant) {
        if let Some(clock) = &mut self.lock().clock {
            let of_kernel = now.saturating_duration_since(clock.began);
            clock.leapt = clock.leapt.max(of_kernel.saturating_sub(clock.started.elapsed()));
        }
    }

    /// Writes a record that is no call.
    pub(super) fn note(&self, kind: &str, write: impl FnOnce(Line<'_>) -> Line<'_>) {
        write(self.lock().line(kind)).end();
    }

    /// Writes a call of a listener or a connection, and its error.
    pub(super) fn call(
        &self,
        name: &'static str,
        error: Option<&io::Error>,
        write: impl FnOnce(Line<'_>) -> Line<'_>,
    ) {
        self.moving_call(name, error, (0, 0), write);
    }

    /// Writes a call that moves bytes, and the first of the payload. Returns how many bytes it moved.
    pub(super) fn transfer(
        &self,
        name: &'static str,
        Transfer { id, offered, outcome, moved, bytes }: Transfer<'_>,
    ) -> u64 {
        let count = outcome.as_ref().ok().map(|&count| wide(count));
        let room = wide(self.0.payload).saturating_sub(moved).min(count.unwrap_or(0));
        let first = bytes.get(..room as usize).unwrap_or_default();
        let moved = count.unwrap_or(0);
        let sums = if name == "read" { (moved, 0) } else { (0, moved) };
        self.moving_call(name, outcome.as_ref().err(), sums, |line| {
            let line = line.number("c", id).number("len", wide(offered));
            line.number("n", count).bytes("data", first)
        });
        moved
    }

    /// Writes a call that moves so many bytes in and out. The bytes are counted before the batch with
    /// its record is handed over.
    fn moving_call(
        &self,
        name: &'static str,
        error: Option<&io::Error>,
        (bytes_in, bytes_out): (u64, u64),
        write: impl FnOnce(Line<'_>) -> Line<'_>,
    ) {
        let mut log = self.lock();
        let sums = &mut log.batch.sums;
        sums.calls += 1;
        (sums.bytes_in, sums.bytes_out) = (sums.bytes_in + bytes_in, sums.bytes_out + bytes_out);
        let line = write(log.line("call").word("f", name));
        match error {
            Some(error) => line.error(error).end(),
            None => line.end(),
        }
        if log.batch.text.len() > BATCH {
            self.0.queue.push(&mut log.batch);
        }
    }

    /// Calls `what` with the connections and listeners.
    pub(super) fn places<T>(&self, what: impl FnOnce(&mut Places) -> T) -> T {
        what(&mut self.lock().places)
    }

    pub(super) fn event(&self, event: &crate::kernel::Event) {
        let mut log = self.lock();
        let line = match event.source {
            Source::Waker => log.line("event").word("src", "waker"),
            Source::Listener(key) => {
                log.line("event").word("src", "listener").number("l", wide(key))
            }
            Source::Connection(key) => {
                let id = log.places.at(key);
                log.line("event")
                    .word("src", "connection")
                    .number("c", id)
                    .flag("special", !event.data_only)
            }
        };
        line.flag("r", event.readable).flag("w", event.writable).end();
    }

    /// Writes the state of a connection that has run. One that ended in its first run has no slot.
    pub(super) fn state(&self, id: ConnId, view: &Snapshot) {
        let mut log = self.lock();
        let Some(id) = log.places.ran(id) else { return };
        let input = match view.input {
            Input::Open => "open",
            Input::Ended => "ended",
        };
        let output = match view.output {
            Output::Open => "open",
            Output::Flushing => "flushing",
            Output::Shut => "shut",
        };
        log.line("state")
            .number("c", id)
            .word("in", input)
            .word("out", output)
            .flag("closed", view.closed)
            .flag("paused", view.paused)
            .flag("congested", view.congested)
            .flag("r", view.readable)
            .flag("w", view.writable)
            .flag("wr", view.wants_read)
            .flag("ww", view.wants_write)
            .number("unsent", wide(view.unsent))
            .number("deadline", view.deadline.map(micros))
            .end();
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.0.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that moves bytes.
pub(super) struct Transfer<'a> {
    pub(super) id: u64,
    pub(super) offered: usize,
    pub(super) outcome: &'a io::Result<usize>,
    /// Bytes of this direction that were moved before.
    pub(super) moved: u64,
    pub(super) bytes: &'a [u8],
}

impl Log {
    /// Begins a record. Its time is at least that of the record before it.
    fn line(&mut self, kind: &str) -> Line<'_> {
        let now = self.clock.as_ref().map(|clock| micros(clock.started.elapsed() + clock.leapt));
        self.batch.last = self.batch.last.max(now.unwrap_or(0));
        self.batch.sums.records += 1;
        Line::begin(&mut self.batch.text, self.batch.last, kind)
    }
}

pub(super) fn wide(count: usize) -> u64 {
    count as u64
}

pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
