//! What `serve` prints: a bounded queue and a writer thread each for stdout and stderr. If one of
//! them is full, closed or not read, neither the loop nor the other one waits. A thread starts with
//! the first line for its stream, so the quiet program has none.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::events;
use super::stdio::Blocking;

/// Entries that may wait to be written; more are dropped, and their lines counted.
const CAPACITY: usize = 1024;

/// Where a line goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sink {
    Stdout,
    Stderr,
}

impl Sink {
    fn name(self) -> &'static str {
        match self {
            Sink::Stdout => "stdout",
            Sink::Stderr => "stderr",
        }
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

/// Writes without a buffer of ours: after a failed write, no half of a line is left in one.
impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Sink::Stdout => Blocking(io::stdout()).write(bytes),
            Sink::Stderr => Blocking(io::stderr()).write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The least value that POSIX allows for the constant of this name.
#[cfg(unix)]
const PIPE_BUF: usize = 512;

/// The way to stdout and stderr. Never blocks, never fails.
#[derive(Debug, Clone)]
pub struct Output {
    stdout: Arc<Channel>,
    stderr: Arc<Channel>,
}

impl Output {
    /// With `is_json`, every line of stdout is an event, and lost events are reported as one.
    pub fn new(is_json: bool) -> Output {
        let no_note = |_| String::new();
        let log_line = |count| match count {
            1 => "warning: 1 line is missing here: stderr was full or not read in time\n".into(),
            _ => format!(
                "warning: {count} lines are missing here: stderr was full or not read in time\n"
            ),
        };
        Output {
            stdout: Channel::new(Sink::Stdout, if is_json { events::lost } else { no_note }),
            stderr: Channel::new(Sink::Stderr, log_line),
        }
    }

    /// Queues whole lines. If the queue is full, they are dropped and counted.
    pub fn say(&self, sink: Sink, lines: String) {
        self.channel(sink).say(lines);
    }

    /// The same, but starts no thread if the lines can be written without a wait.
    pub fn say_first(&self, sink: Sink, lines: String) {
        let channel = self.channel(sink);
        if !channel.write_at_once(&mut channel.lock(), &lines) {
            channel.say(lines);
        }
    }

    /// Waits until everything is written, but no longer than `patience`: a stream that is not read
    /// must not hold up the end.
    pub fn finish(&self, patience: Duration) {
        let began = Instant::now();
        for channel in [&self.stdout, &self.stderr] {
            // The writer reports what is lost with the next entry, so here is a last one.
            channel.lock().push(Entry::default());
            channel.changed.notify_all();
        }
        for channel in [&self.stdout, &self.stderr] {
            channel.wait(patience.saturating_sub(began.elapsed()));
        }
    }

    fn channel(&self, sink: Sink) -> &Arc<Channel> {
        match sink {
            Sink::Stdout => &self.stdout,
            Sink::Stderr => &self.stderr,
        }
    }
}

/// One stream: its queue and its writer.
#[derive(Debug)]
struct Channel {
    sink: Sink,
    /// The line that reports how many lines are missing where it stands.
    note: fn(u64) -> String,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    has_writer: bool,
    is_writing: bool,
    queue: VecDeque<Entry>,
    /// Lines that were dropped since the last entry was queued.
    dropped: u64,
    /// Moves to the writer when that starts.
    tail: Tail,
}

/// Whole lines, and how many were dropped before them.
#[derive(Debug, Default)]
struct Entry {
    dropped: u64,
    lines: String,
}

/// What the writes up to now have left at the end of a stream.
#[derive(Debug, Default)]
struct Tail {
    /// Lines lost since the last note.
    lost: u64,
    /// The last line has no end: a write failed in the middle of it.
    is_cut: bool,
}

impl Channel {
    fn new(sink: Sink, note: fn(u64) -> String) -> Arc<Channel> {
        Arc::new(Channel { sink, note, state: Mutex::default(), changed: Condvar::new() })
    }

    fn say(self: &Arc<Self>, lines: String) {
        let mut state = self.lock();
        if !state.has_writer {
            // The writer waits for the lock before it does anything.
            state.has_writer = self.start_writer().is_ok();
        }
        if state.has_writer {
            state.push(Entry { dropped: 0, lines });
            drop(state);
            self.changed.notify_all();
        } else if !self.write_at_once(&mut state, &lines) {
            // Without a thread the lines are lost: the loop must not wait.
            state.tail.lost += count(lines.as_bytes());
        }
    }

    /// Writes the lines if no writer is there and the write takes no wait; false if not.
    fn write_at_once(&self, state: &mut State, lines: &str) -> bool {
        let length = state.tail.head(self.note).len() + lines.len();
        let writes = !state.has_writer && self.sink.takes(length);
        if writes {
            state.tail.write(lines, self.note, self.sink);
        }
        writes
    }

    fn start_writer(self: &Arc<Self>) -> io::Result<()> {
        let channel = Arc::clone(self);
        let write_for_ever = move || {
            let mut tail = std::mem::take(&mut channel.lock().tail);
            loop {
                let Entry { dropped, lines } = channel.next();
                tail.lost += dropped;
                tail.write(&lines, channel.note, channel.sink);
            }
        };
        thread::Builder::new().name(self.sink.name().into()).spawn(write_for_ever).map(drop)
    }

    /// Waits for the next entry. If none follows lines that were dropped, an empty one does.
    fn next(&self) -> Entry {
        let mut state = self.lock();
        state.is_writing = false;
        self.changed.notify_all();
        loop {
            if let Some(entry) = state.pop() {
                state.is_writing = true;
                return entry;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until everything is written, but no longer than `patience`.
    fn wait(&self, patience: Duration) {
        let is_busy = |state: &mut State| state.has_writer && !state.is_idle();
        // Whether that was in time makes no difference: the program ends now.
        let _ = self.changed.wait_timeout_while(self.lock(), patience, is_busy);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn push(&mut self, mut entry: Entry) {
        if self.queue.len() >= CAPACITY {
            self.dropped += entry.dropped + count(entry.lines.as_bytes());
        } else {
            entry.dropped += std::mem::take(&mut self.dropped);
            self.queue.push_back(entry);
        }
    }

    fn pop(&mut self) -> Option<Entry> {
        let dropped = if self.queue.is_empty() { std::mem::take(&mut self.dropped) } else { 0 };
        let note = (dropped > 0).then(|| Entry { dropped, lines: String::new() });
        self.queue.pop_front().or(note)
    }

    fn is_idle(&self) -> bool {
        !self.is_writing && self.queue.is_empty() && self.dropped == 0
    }
}

impl Tail {
    /// What must stand before the next line: the end of a line that was cut, so that the next one
    /// is whole, and a note of the lines that are lost.
    fn head(&self, note: fn(u64) -> String) -> String {
        let end = if self.is_cut { "\n" } else { "" };
        let note = if self.lost > 0 { note(self.lost) } else { String::new() };
        end.to_owned() + &note
    }

    /// Writes lines behind their head. If a write fails, counts the lines that are not there.
    fn write(&mut self, lines: &str, note: fn(u64) -> String, mut to: impl Write) {
        let head = self.head(note);
        let text = (head.clone() + lines).into_bytes();
        let mut written = 0;
        while written < text.len() {
            match to.write(&text[written..]) {
                Ok(0) => break,
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        if written > 0 {
            self.is_cut = text[written - 1] != b'\n';
        }
        // A line that lacks nothing but its end is there: the next write ends it.
        let is_whole = self.is_cut && text[written..].starts_with(b"\n");
        let written = written + usize::from(is_whole);
        if written >= head.len() {
            self.lost = 0;
        }
        self.lost += count(&text[written.max(head.len())..]);
    }
}

fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|&&byte| byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(count: u64) -> String {
        format!("<lost {count}>\n")
    }

    #[test]
    fn lines_that_a_full_queue_drops_are_counted_where_they_are_missing() {
        let channel = Channel::new(Sink::Stderr, note);
        // The writer that the queue believes in never takes anything out of it.
        channel.lock().has_writer = true;
        for number in 0..CAPACITY + 3 {
            channel.say(format!("{number}\n"));
        }
        assert_eq!(channel.next().lines, "0\n");
        channel.say("after\nthat\n".into());
        channel.say("too much\nat once\n".into());
        let (mut tail, mut text) = (Tail::default(), Vec::new());
        for _ in 0..CAPACITY + 1 {
            let entry = channel.next();
            tail.lost += entry.dropped;
            tail.write(&entry.lines, note, &mut text);
        }
        let mut expected: String = (1..CAPACITY).map(|number| format!("{number}\n")).collect();
        expected.push_str("<lost 3>\nafter\nthat\n<lost 2>\n");
        assert_eq!(String::from_utf8(text).unwrap(), expected);
        // The last entry is still being written: this returns all the same.
        channel.wait(Duration::from_millis(1));
    }

    /// A disk with room for so many more bytes.
    struct Disk {
        text: Vec<u8>,
        room: usize,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.room);
            self.text.extend(&bytes[..count]);
            self.room -= count;
            if count > 0 { Ok(count) } else { Err(io::ErrorKind::StorageFull.into()) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_line_after_a_full_disk_is_whole_and_every_missing_line_is_counted() {
        let entries = ["{\u{e4}1}\n", "{2}\n", "{3}\n{4}\n", "{5}\n"];
        let lines = entries.concat();
        // The disk is full after every number of bytes, twice, and has room at last.
        for (first, second) in (0..60).flat_map(|first| (0..60).map(move |second| (first, second)))
        {
            let mut disk = Disk { text: Vec::new(), room: 0 };
            let mut tail = Tail::default();
            for room in [first, second, 1000] {
                disk.room = room;
                for lines in entries {
                    tail.write(lines, note, &mut disk);
                }
            }
            tail.write("", note, &mut disk);
            let text = String::from_utf8_lossy(&disk.text);
            let (mut told, mut lost, mut cut) = (0, 0, 0);
            for line in text.lines() {
                if let Some(count) = line.strip_prefix("<lost ").and_then(|l| l.strip_suffix('>')) {
                    lost += count.parse::<usize>().unwrap();
                } else if lines.lines().any(|whole| whole == line) {
                    told += 1;
                } else {
                    cut += 1;
                }
            }
            assert_eq!(told + lost, 15, "{first}, {second}: {text:?}");
            assert!(cut <= 2 && text.ends_with(&lines), "{first}, {second}: {text:?}");
        }
    }
}
