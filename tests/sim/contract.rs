//! The rules of a kernel, as one predicate over what its loop sees of it. The simulated kernels and
//! the real one are held to the same: what the real one did, the model must admit.

use std::collections::HashMap;

use campanile::sys::{Event, Source};

/// Which half of a source was tried. A listener is read from: each connection is a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    Read,
    Write,
}

/// How a try ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Got {
    /// So many bytes; of none read, the peer has ended.
    Bytes(usize),
    WouldBlock,
    /// Blocked for a reason that no event will announce, or interrupted: nothing was learned.
    Nothing,
    Failed,
}

/// One thing that passes between the loop and its kernel. Sources are numbered as they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    // A poll that did not fail; its events follow. After a full batch more may be waiting.
    Poll { is_full: bool },
    Event(Event),
    Register { id: usize, source: Source },
    Try { id: usize, half: Half, asked: usize, got: Got },
    // A listener's next event was asked for.
    Rearm { id: usize },
    // Our half ends.
    Shut { id: usize },
    Drop { id: usize },
}

/// What the kernel has promised about one source.
#[derive(Debug, Default)]
struct End {
    source: Option<Source>,
    /// The last read found the end of what was there.
    is_drained: bool,
    /// Something was read that an event is still to tell of: polls that have not.
    unpaid: Option<usize>,
    is_eof: bool,
    is_shut: bool,
    has_failed: bool,
    /// An event was more than data or room.
    is_odd: bool,
}

/// What holds so far, and the first step that broke it.
#[derive(Debug)]
pub struct Contract {
    ends: HashMap<usize, End>,
    keys: Vec<(Source, usize)>,
    /// Events come for anybody and nobody.
    pub is_noisy: bool,
    /// Each arrival after a `WouldBlock` has an event, even one that was read meanwhile. poll(2)
    /// tells what is, and not what came.
    pub tells_of_arrivals: bool,
    pub steps: usize,
    pub violation: Option<String>,
}

impl Contract {
    pub fn new(is_noisy: bool, tells_of_arrivals: bool) -> Contract {
        Contract {
            ends: HashMap::new(),
            keys: Vec::new(),
            is_noisy,
            tells_of_arrivals,
            steps: 0,
            violation: None,
        }
    }

    /// The first rule that a sequence breaks, if it breaks one.
    pub fn judge(mut self, steps: &[Step]) -> Option<String> {
        steps.iter().for_each(|&step| self.note(step));
        self.violation
    }

    pub fn note(&mut self, step: Step) {
        self.steps += 1;
        if let (Err(rule), None) = (self.admit(step), &self.violation) {
            self.violation = Some(format!("{rule}: step {}, {step:?}", self.steps));
        }
    }

    fn admit(&mut self, step: Step) -> Result<(), &'static str> {
        match step {
            Step::Poll { is_full } => self.polled(is_full),
            Step::Event(event) => self.told(event),
            Step::Register { id, source } => {
                if self.keys.iter().any(|(key, _)| *key == source) {
                    return Err("one key for two");
                }
                self.keys.push((source, id));
                self.end(id).source = Some(source);
                Ok(())
            }
            Step::Try { id, half: Half::Read, asked, got } => self.read(id, asked, got),
            Step::Try { id, half: Half::Write, asked, got } => self.end(id).write(asked, got),
            Step::Rearm { id } => {
                self.end(id).is_drained = true;
                Ok(())
            }
            Step::Shut { id } => {
                self.end(id).is_shut = true;
                Ok(())
            }
            Step::Drop { id } => {
                self.keys.retain(|(_, other)| *other != id);
                self.ends.remove(&id);
                Ok(())
            }
        }
    }

    fn end(&mut self, id: usize) -> &mut End {
        self.ends.entry(id).or_default()
    }

    /// An event comes with the next poll that has room for it. On a real machine what was read may
    /// be seen a moment before the selector hears of it, so one poll more is given.
    fn polled(&mut self, is_full: bool) -> Result<(), &'static str> {
        for unpaid in self.ends.values_mut().filter_map(|end| end.unpaid.as_mut()) {
            if *unpaid >= 2 {
                return Err("something came, and no event ever told");
            }
            *unpaid += usize::from(!is_full);
        }
        Ok(())
    }

    fn told(&mut self, event: Event) -> Result<(), &'static str> {
        let known = self.keys.iter().find(|(key, _)| *key == event.source);
        let Some(&(_, id)) = known else {
            let is_nobody = event.source != Source::Waker && !self.is_noisy;
            return if is_nobody { Err("an event for nobody") } else { Ok(()) };
        };
        let end = self.end(id);
        if event.data_only && (end.is_eof || end.has_failed) {
            return Err("an event calls plain what has ended");
        }
        end.is_odd |= !event.data_only;
        if event.readable {
            (end.is_drained, end.unpaid) = (false, None);
        }
        Ok(())
    }

    fn read(&mut self, id: usize, asked: usize, got: Got) -> Result<(), &'static str> {
        let tells = self.tells_of_arrivals;
        let end = self.end(id);
        match got {
            Got::Bytes(count) if count > asked => return Err("more than was asked for"),
            Got::Bytes(1..) if end.is_eof => return Err("data after EOF"),
            Got::WouldBlock if end.is_eof => return Err("an EOF taken back"),
            Got::Bytes(_) if end.is_drained && end.source.is_some() && tells => {
                end.unpaid.get_or_insert(0);
            }
            Got::Failed => end.has_failed |= !matches!(end.source, Some(Source::Listener(_))),
            _ => {}
        }
        match got {
            Got::Bytes(count) => {
                end.is_eof |= count == 0;
                end.is_drained = count > 0 && count < asked && !end.is_odd;
            }
            Got::WouldBlock => end.is_drained = true,
            Got::Nothing | Got::Failed => {}
        }
        Ok(())
    }
}

impl End {
    /// No rule for a write after `WouldBlock`: room comes in pieces, and only a good piece is told.
    fn write(&mut self, asked: usize, got: Got) -> Result<(), &'static str> {
        match got {
            Got::Bytes(count) if count > asked => Err("more taken than was offered"),
            Got::Bytes(0) => Err("nothing taken, and no word why"),
            Got::Bytes(_) if self.is_shut => Err("taken after our end"),
            Got::Bytes(_) if self.has_failed => Err("taken after the failure"),
            Got::Failed => {
                self.has_failed = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
