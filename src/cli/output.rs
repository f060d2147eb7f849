//! What `serve` prints: a bounded queue and a writer thread each for stdout and stderr. If one of
//! them is full, closed or not read, neither the loop nor the other one waits. A thread starts with
//! the first line for its stream, so the quiet program has none.

use std::io::{self, Write};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
pub struct Output([Arc<Channel>; 2]);

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
        let stdout = Channel::new(Sink::Stdout, if is_json { events::lost } else { no_note });
        Output([stdout, Channel::new(Sink::Stderr, log_line)])
    }

    /// Queues whole lines. If the queue is full, they are dropped and counted.
    pub fn say(&self, sink: Sink, lines: String) {
        self.0[sink as usize].say(lines);
    }

    /// The same, but starts no thread if the lines can be written without a wait.
    pub fn say_first(&self, sink: Sink, lines: String) {
        let channel = &self.0[sink as usize];
        if !channel.write_at_once(&mut channel.lock(), &lines) {
            channel.say(lines);
        }
    }

    /// Waits until everything is written, but no longer than `patience`: a stream that is not read
    /// must not hold up the end.
    pub fn finish(&self, patience: Duration) {
        let began = Instant::now();
        let end = |channel: &Arc<Channel>| Some(channel.lock().writer.take()?.done);
        for done in self.0.each_ref().map(end).into_iter().flatten() {
            // Whether that was in time makes no difference: the program ends now.
            let _ = done.recv_timeout(patience.saturating_sub(began.elapsed()));
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
}

#[derive(Debug, Default)]
struct State {
    writer: Option<Writer>,
    /// Lines that were dropped since the last entry was queued.
    dropped: u64,
    /// Moves to the writer when that starts.
    tail: Tail,
}

/// A thread that writes what is queued. It ends when `entries` is dropped and all are written.
#[derive(Debug)]
struct Writer {
    entries: SyncSender<Entry>,
    /// Disconnected when the thread ends.
    done: Receiver<()>,
}

/// Whole lines, and how many were dropped before them.
#[derive(Debug)]
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
        Arc::new(Channel { sink, note, state: Mutex::default() })
    }

    fn say(self: &Arc<Self>, lines: String) {
        let state = &mut *self.lock();
        if state.writer.is_none() {
            // The writer waits for the lock before it does anything.
            state.writer = self.start_writer().ok();
        }
        if let Some(writer) = &state.writer {
            let entry = Entry { dropped: std::mem::take(&mut state.dropped), lines };
            if let Err(TrySendError::Full(entry) | TrySendError::Disconnected(entry)) =
                writer.entries.try_send(entry)
            {
                state.dropped = entry.dropped + count(entry.lines.as_bytes());
            }
        } else if !self.write_at_once(state, &lines) {
            // Without a thread the lines are lost: the loop must not wait.
            state.tail.lost += count(lines.as_bytes());
        }
    }

    /// Writes the lines if no writer is there and the write takes no wait; false if not.
    fn write_at_once(&self, state: &mut State, lines: &str) -> bool {
        let length = state.tail.head(self.note).len() + lines.len();
        let writes = state.writer.is_none() && self.sink.takes(length);
        if writes {
            state.tail.write(lines, self.note, self.sink);
        }
        writes
    }

    fn start_writer(self: &Arc<Self>) -> io::Result<Writer> {
        let (entries, queue) = mpsc::sync_channel(CAPACITY);
        let (alive, done) = mpsc::sync_channel(0);
        let channel = Arc::clone(self);
        let write = move || {
            let mut tail = std::mem::take(&mut channel.lock().tail);
            while let Some(Entry { dropped, lines }) = channel.next(&queue) {
                tail.lost += dropped;
                tail.write(&lines, channel.note, channel.sink);
            }
            // What is lost is reported with the next lines; here are none any more.
            tail.write("", channel.note, channel.sink);
            drop(alive);
        };
        thread::Builder::new().name(self.sink.name().into()).spawn(write)?;
        Ok(Writer { entries, done })
    }

    /// Waits for the next entry. If none follows lines that were dropped, an empty one does.
    fn next(&self, queue: &Receiver<Entry>) -> Option<Entry> {
        let mut state = self.lock();
        if let Ok(entry) = queue.try_recv() {
            return Some(entry);
        }
        let dropped = std::mem::take(&mut state.dropped);
        drop(state);
        if dropped > 0 { Some(Entry { dropped, lines: String::new() }) } else { queue.recv().ok() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
        let output = Output([Sink::Stdout, Sink::Stderr].map(|sink| Channel::new(sink, note)));
        let channel = &output.0[1];
        // The writer that the queue believes in never takes anything out of it.
        let ((entries, queue), (_alive, done)) =
            (mpsc::sync_channel(CAPACITY), mpsc::sync_channel(0));
        channel.lock().writer = Some(Writer { entries, done });
        for number in 0..CAPACITY + 3 {
            channel.say(format!("{number}\n"));
        }
        assert_eq!(channel.next(&queue).unwrap().lines, "0\n");
        channel.say("after\nthat\n".into());
        channel.say("too much\nat once\n".into());
        let (mut tail, mut text) = (Tail::default(), Vec::new());
        for _ in 0..CAPACITY + 1 {
            let entry = channel.next(&queue).unwrap();
            tail.lost += entry.dropped;
            tail.write(&entry.lines, note, &mut text);
        }
        let mut expected: String = (1..CAPACITY).map(|number| format!("{number}\n")).collect();
        expected.push_str("<lost 3>\nafter\nthat\n<lost 2>\n");
        assert_eq!(String::from_utf8(text).unwrap(), expected);
        // The last entry is still being written: this returns all the same.
        output.finish(Duration::from_millis(1));
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
