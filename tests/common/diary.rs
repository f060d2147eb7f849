//! A protocol that writes down how another one is called, and checks the call grammar.

use std::cell::RefCell;
use std::rc::Rc;

use campanile::{CloseReason, Outbox, Protocol};

/// One letter a call: **o**pen, **d**ata, **e**of, d**r**ain, **w**ake, **c**lose.
#[derive(Debug, Clone, Default)]
pub struct Diary(Rc<RefCell<(String, Option<String>)>>);

impl Diary {
    pub fn letters(&self) -> String {
        self.0.borrow().0.clone()
    }

    /// How the connection ended, if it did.
    pub fn reason(&self) -> Option<String> {
        self.0.borrow().1.clone()
    }

    pub fn of(&self, inner: impl Protocol + 'static) -> Kept {
        Kept { diary: self.clone(), inner: Box::new(inner), closed: false }
    }

    /// Forgets what was written, to serve the next run.
    pub fn clear(&self) {
        let mut kept = self.0.borrow_mut();
        kept.0.clear();
        kept.1 = None;
    }
}

/// A protocol whose calls are written down.
pub struct Kept {
    diary: Diary,
    inner: Box<dyn Protocol>,
    closed: bool,
}

impl Kept {
    fn write(&mut self, letter: char) {
        let mut kept = self.diary.0.borrow_mut();
        let before = kept.0.chars().last();
        let grammar = match letter {
            'o' => before.is_none(),
            'c' => before != Some('c'),
            'd' => before.is_some() && !kept.0.contains(['e', 'c']),
            'e' => before.is_some() && !kept.0.contains(['e', 'c']),
            _ => before.is_some() && before != Some('c'),
        };
        assert!(grammar, "{letter} after {:?}", kept.0);
        assert!(letter == 'c' || !self.closed, "{letter} after close: {:?}", kept.0);
        // Repetitions say nothing more, and this is called millions of times.
        if before != Some(letter) || letter == 'c' {
            kept.0.push(letter);
        }
    }
}

impl Protocol for Kept {
    fn on_open(&mut self, out: &mut Outbox) {
        self.write('o');
        self.inner.on_open(out);
        self.closed |= out.is_closed();
    }
    fn on_data(&mut self, data: &[u8], out: &mut Outbox) {
        self.write('d');
        assert!(!data.is_empty());
        self.inner.on_data(data, out);
        self.closed |= out.is_closed();
    }
    fn on_eof(&mut self, out: &mut Outbox) {
        self.write('e');
        self.inner.on_eof(out);
        self.closed |= out.is_closed();
    }
    fn on_drain(&mut self, out: &mut Outbox) {
        self.write('r');
        self.inner.on_drain(out);
        self.closed |= out.is_closed();
    }
    fn on_timer(&mut self, out: &mut Outbox) {
        self.write('t');
        self.inner.on_timer(out);
        self.closed |= out.is_closed();
    }
    fn on_wake(&mut self, out: &mut Outbox) {
        self.write('w');
        self.inner.on_wake(out);
        self.closed |= out.is_closed();
    }
    fn on_message(&mut self, bytes: &[u8], out: &mut Outbox) {
        self.write('m');
        self.inner.on_message(bytes, out);
        self.closed |= out.is_closed();
    }
    fn on_close(&mut self, reason: &CloseReason) {
        self.write('c');
        self.diary.0.borrow_mut().1 = Some(reason.to_string());
        self.inner.on_close(reason);
    }
}
