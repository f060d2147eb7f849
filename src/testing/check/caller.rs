//! One client of the check: what its rung tells it to do, and what happened.

use std::cell::{Ref, RefCell, RefMut};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::lab::no_connection;
use crate::client::repr;
use crate::outbox::Outbox;
use crate::protocol::{CloseReason, ConnId, Protocol};

/// Bytes per send.
const PIECE: usize = 16 << 10;
/// Bytes of the reply that are kept to be shown.
const HEARD_MAX: usize = 1024;
/// Bytes of a difference that are shown.
const SHOWN: usize = 16;
/// A prime, so that a lost or doubled buffer of any common size is found.
const BLOCK: usize = 65_521;

/// How the client ends its side after it has sent everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum End {
    #[default]
    Not,
    HalfClose,
    Close,
    Reset,
}

/// How a connection ended.
#[derive(Debug)]
pub(super) enum Over {
    NotConnected(String),
    Finished,
    Broken(String),
}

/// A client as its rung sees it. Invariant: `received <= queued`, unless `wrong` is set.
#[derive(Debug, Default)]
pub(super) struct Call {
    /// What it sends, again and again, until it has sent `total` bytes.
    text: Vec<u8>,
    pub(super) total: u64,
    /// Compares the reply with what it sent.
    compares: bool,
    pub(super) is_deaf: bool,
    was_deaf: bool,
    pub(super) end: End,
    /// Keeps its side open after the server's EOF.
    is_rude: bool,
    pub(super) is_open: bool,
    pub(super) queued: u64,
    pub(super) received: u64,
    /// The first bytes of the reply.
    pub(super) heard: Vec<u8>,
    wrong: Option<String>,
    pub(super) has_eof: bool,
    pub(super) over: Option<Over>,
}

/// A client and its connection, if it has one.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) id: Option<ConnId>,
    call: Rc<RefCell<Call>>,
}

impl Client {
    /// A client, and the protocol that acts for it.
    pub(super) fn new(call: Call) -> (Client, Caller) {
        let call = Rc::new(RefCell::new(call));
        (Client { id: None, call: Rc::clone(&call) }, Caller(call))
    }

    pub(super) fn call(&self) -> Ref<'_, Call> {
        self.call.borrow()
    }

    pub(super) fn call_mut(&self) -> RefMut<'_, Call> {
        self.call.borrow_mut()
    }
}

impl Call {
    /// Sends `text` once and compares the echo.
    pub(super) fn saying(text: &[u8]) -> Call {
        Call { text: text.to_vec(), total: text.len() as u64, compares: true, ..Call::default() }
    }

    /// Sends `total` bytes of every value, in an order that depends on `seed`, and compares the echo.
    pub(super) fn pouring(total: u64, seed: u64) -> Call {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        let text = (0..BLOCK).map(|_| next()).collect();
        Call { text, total, compares: true, ..Call::default() }
    }

    /// Sends `text` and accepts any reply.
    pub(super) fn listening(text: &[u8]) -> Call {
        Call { compares: false, ..Call::saying(text) }
    }

    /// The same, but it reads nothing until its rung lets it.
    pub(super) fn deaf(self) -> Call {
        Call { is_deaf: true, was_deaf: true, ..self }
    }

    pub(super) fn ending(self, end: End) -> Call {
        Call { end, ..self }
    }

    /// The same, but it never closes its side by itself.
    pub(super) fn rude(self) -> Call {
        Call { is_rude: true, ..self }
    }

    /// Sends more.
    pub(super) fn say(&mut self, text: &[u8]) {
        self.text.extend_from_slice(text);
        self.total = self.text.len() as u64;
    }

    /// Sends no more than what is queued already.
    pub(super) fn stop_talking(&mut self) {
        self.total = self.queued;
    }

    /// A number that changes whenever something happens.
    pub(super) fn moves(&self) -> u64 {
        self.queued + self.received + u64::from(self.is_open) + u64::from(self.has_eof)
    }

    /// Whether the conversation cannot succeed any more, or has ended.
    pub(super) fn is_done_for(&self) -> bool {
        self.wrong.is_some() || self.over.is_some() || self.has_eof
    }

    pub(super) fn is_wrong(&self) -> bool {
        self.wrong.is_some()
    }

    /// Whether the server has returned everything, and nothing else.
    pub(super) fn is_echoed(&self) -> bool {
        self.wrong.is_none() && self.received == self.total
    }

    /// Describes what it sent.
    pub(super) fn deeds(&self) -> String {
        let mut text = match self.total {
            0 => "nothing".into(),
            total if total <= HEARD_MAX as u64 => repr(&self.text),
            total if self.queued < total => format!("{} of {total} bytes", self.queued),
            total => format!("{total} bytes"),
        };
        if self.was_deaf && self.total > 0 {
            text += " before reading any";
        }
        match self.end {
            End::HalfClose => text += ", then EOF",
            End::Reset => text += ", then a reset",
            End::Not | End::Close => {}
        }
        text
    }

    /// Describes what it received. `silence` is how long it waited for more; `None` if the bound of the
    /// rung ended the wait.
    pub(super) fn came(&self, silence: Option<Duration>) -> String {
        if let Some(Over::NotConnected(error)) = &self.over {
            return no_connection(error);
        }
        let all = if self.compares { ", as sent" } else { "" };
        let mut text = match self.received {
            0 => "nothing".into(),
            count if count <= HEARD_MAX as u64 => repr(&self.heard),
            count => format!("{count} bytes{all}"),
        };
        match (&self.wrong, &self.over, silence) {
            (Some(wrong), ..) => return format!("{text}, then {wrong}"),
            (_, Some(Over::Broken(error)), _) => {
                text += &format!(", then the connection failed: {error}")
            }
            _ if self.has_eof => text += ", then EOF",
            (.., Some(silence)) => text += &format!(", then silence for {silence:?}"),
            (.., None) => text += ", until the bound ended the rung",
        }
        if self.compares && self.received < self.queued && self.queued > HEARD_MAX as u64 {
            text += &format!("; {} bytes were still missing", self.queued - self.received);
        }
        text
    }

    fn hear(&mut self, data: &[u8]) {
        if self.wrong.is_some() {
            return;
        }
        let right = if self.compares { self.agreeing(data) } else { data.len() };
        if right < data.len() {
            let came = &data[right..(right + SHOWN).min(data.len())];
            let due: Vec<u8> = (right..right + came.len()).map_while(|at| self.due(at)).collect();
            self.wrong = Some(if due.is_empty() {
                format!("{}, which was never sent", repr(came))
            } else {
                format!("{} instead of {}", repr(came), repr(&due))
            });
        }
        self.received += right as u64;
        let room = (HEARD_MAX + 1).saturating_sub(self.heard.len());
        self.heard.extend_from_slice(&data[..right.min(room)]);
        if !self.compares && self.received > HEARD_MAX as u64 {
            self.wrong = Some("more, which is too long for a line".into());
        }
    }

    /// How many bytes of the reply are those expected.
    fn agreeing(&self, data: &[u8]) -> usize {
        let mut right = 0;
        while right < data.len() {
            let ahead = self.received + right as u64;
            let at = (ahead % self.text.len().max(1) as u64) as usize;
            let left = usize::try_from(self.queued - ahead).unwrap_or(usize::MAX);
            let due = &self.text[at..][..(self.text.len() - at).min(left)];
            let came = &data[right..][..due.len().min(data.len() - right)];
            if came.is_empty() || came != &due[..came.len()] {
                return right + came.iter().zip(due).take_while(|(came, due)| came == due).count();
            }
            right += came.len();
        }
        right
    }

    /// The byte expected after `ahead` more, if there is one.
    fn due(&self, ahead: usize) -> Option<u8> {
        let at = self.received + ahead as u64;
        (at < self.queued).then(|| self.text[(at % self.text.len() as u64) as usize])
    }

    fn obey(&mut self, out: &mut Outbox) {
        if self.end == End::Reset && self.queued == self.total {
            return out.abort();
        }
        if self.is_deaf {
            out.pause();
        } else {
            // Also while much is unsent: otherwise both sides could wait for each other for ever.
            out.resume();
        }
        while self.queued < self.total && !out.is_congested() {
            let at = (self.queued % self.text.len() as u64) as usize;
            let left = usize::try_from(self.total - self.queued).unwrap_or(usize::MAX);
            let piece = &self.text[at..];
            let piece = &piece[..piece.len().min(PIECE).min(left)];
            out.send(piece);
            self.queued += piece.len() as u64;
        }
        match self.end {
            _ if self.queued < self.total => {}
            End::HalfClose => out.half_close(),
            End::Close => out.close(),
            End::Reset => out.abort(),
            End::Not => {}
        }
    }
}

/// The protocol that does what its `Call` says.
#[derive(Debug)]
pub(super) struct Caller(Rc<RefCell<Call>>);

impl Protocol for Caller {
    fn on_open(&mut self, out: &mut Outbox) {
        let mut call = self.0.borrow_mut();
        call.is_open = true;
        call.obey(out);
    }

    fn on_data(&mut self, data: &[u8], _out: &mut Outbox) {
        self.0.borrow_mut().hear(data);
    }

    fn on_eof(&mut self, out: &mut Outbox) {
        let mut call = self.0.borrow_mut();
        call.has_eof = true;
        if !call.is_rude {
            out.close();
        }
    }

    fn on_drain(&mut self, out: &mut Outbox) {
        self.0.borrow_mut().obey(out);
    }

    fn on_wake(&mut self, out: &mut Outbox) {
        self.0.borrow_mut().obey(out);
    }

    fn on_close(&mut self, reason: &CloseReason) {
        self.0.borrow_mut().over = Some(match reason {
            CloseReason::ConnectFailed(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                Over::Broken(plain(error))
            }
            CloseReason::ConnectFailed(error) => Over::NotConnected(plain(error)),
            CloseReason::Failed(error) => Over::Broken(plain(error)),
            _ => Over::Finished,
        });
    }
}

/// The text of the error without its number.
pub(super) fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}
