//! A stream that follows a script: what each call shall do, whatever call it is.

use std::cell::RefCell;
use std::io::{self, ErrorKind, Read, Write};
use std::rc::Rc;

use campanile::sys::Stream;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    One,
    Half,
    All,
    WouldBlock,
    Interrupted,
    Eof,
    Reset,
}

pub const STEPS: [Step; 7] =
    [Step::One, Step::Half, Step::All, Step::WouldBlock, Step::Interrupted, Step::Eof, Step::Reset];

/// What became of a stream, seen from the peer's side.
#[derive(Debug, Default)]
pub struct Wire {
    pub steps: Vec<Step>,
    pub at: usize,
    /// What the peer sends, and how much of it was read.
    pub input: Vec<u8>,
    pub read: usize,
    pub written: Vec<u8>,
    pub eof: bool,
    pub reset: bool,
    pub shut: bool,
    pub aborted: bool,
    /// Calls that said WouldBlock, and for which an edge is owed.
    pub read_blocked: bool,
    pub write_blocked: bool,
}

impl Wire {
    /// Follows `steps`; after them everything is granted, and EOF comes at the end of `input`.
    pub fn begin(&mut self, steps: &[Step], input: &[u8]) {
        self.steps.clear();
        self.steps.extend_from_slice(steps);
        self.input.clear();
        self.input.extend_from_slice(input);
        self.written.clear();
        (self.at, self.read) = (0, 0);
        (self.eof, self.reset, self.shut, self.aborted) = (false, false, false, false);
        (self.read_blocked, self.write_blocked) = (false, false);
    }

    fn next(&mut self) -> Step {
        assert!(!self.reset, "a call after the reset was reported");
        let step = self.steps.get(self.at).copied().unwrap_or(Step::All);
        self.at += 1;
        step
    }
}

/// A handle to a wire; the stream and the test hold one each.
#[derive(Debug, Clone, Default)]
pub struct Script(pub Rc<RefCell<Wire>>);

impl Read for Script {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        assert!(!buffer.is_empty(), "a read of nothing looks like EOF");
        let wire = &mut *self.0.borrow_mut();
        assert!(!wire.eof, "a read after EOF");
        assert!(!wire.read_blocked, "a read after WouldBlock, without an event");
        let wanted = match wire.next() {
            Step::One => 1,
            Step::Half => buffer.len().div_ceil(2),
            Step::All => buffer.len(),
            Step::Eof => 0,
            Step::WouldBlock => {
                wire.read_blocked = true;
                return Err(ErrorKind::WouldBlock.into());
            }
            Step::Interrupted => return Err(ErrorKind::Interrupted.into()),
            Step::Reset => {
                wire.reset = true;
                return Err(ErrorKind::ConnectionReset.into());
            }
        };
        let count = wanted.min(buffer.len()).min(wire.input.len() - wire.read);
        buffer[..count].copy_from_slice(&wire.input[wire.read..wire.read + count]);
        wire.read += count;
        wire.eof = count == 0;
        Ok(count)
    }
}

impl Write for Script {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        assert!(!bytes.is_empty(), "a write of nothing");
        let wire = &mut *self.0.borrow_mut();
        assert!(!wire.shut, "a write after the end of our half");
        assert!(!wire.write_blocked, "a write after WouldBlock, without an event");
        let count = match wire.next() {
            Step::One => 1,
            Step::Half => bytes.len().div_ceil(2),
            Step::All => bytes.len(),
            Step::WouldBlock => {
                wire.write_blocked = true;
                return Err(ErrorKind::WouldBlock.into());
            }
            Step::Interrupted => return Err(ErrorKind::Interrupted.into()),
            // The peer is gone altogether.
            Step::Eof | Step::Reset => {
                wire.reset = true;
                return Err(ErrorKind::BrokenPipe.into());
            }
        };
        wire.written.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Script {
    fn shutdown_write(&mut self) -> io::Result<()> {
        let wire = &mut *self.0.borrow_mut();
        assert!(!wire.shut, "our half ended twice");
        wire.shut = true;
        Ok(())
    }

    fn abort(&mut self) {
        self.0.borrow_mut().aborted = true;
    }
}
