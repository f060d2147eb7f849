//! A client of the ladder: what its rung asks it to do, and what it received.

use std::cell::{Ref, RefCell, RefMut};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::error::{no_connection, without_number};
use crate::client::{is_exhausted, repr};
use crate::protocol::{CloseReason, ConnId, Outbox, Protocol};

/// Bytes per send.
const PIECE: usize = 16 << 10;
/// Bytes of the reply that are kept to be shown.
const REPLY_MAX: usize = 1024;
/// Bytes of a difference that are shown.
const SHOWN: usize = 16;
/// A prime, so that a lost or doubled buffer of any common size changes the bytes.
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
pub(super) enum Closed {
    NotConnected(String),
    InOrder,
    Failed(String),
}

/// The state of one client. Invariant: `received <= queued`, unless `wrong` is set.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    /// The bytes to send, again and again, until `total` bytes are sent.
    text: Vec<u8>,
    pub(super) total: u64,
    /// Compares the reply with the bytes that were sent.
    compares: bool,
    pub(super) is_paused: bool,
    was_paused: bool,
    pub(super) end: End,
    /// Keeps its side open after the server's EOF.
    stays_open: bool,
    pub(super) is_open: bool,
    pub(super) queued: u64,
    pub(super) received: u64,
    /// The first bytes of the reply.
    pub(super) reply: Vec<u8>,
    wrong: Option<String>,
    pub(super) has_eof: bool,
    pub(super) closed: Option<Closed>,
    /// This machine had no descriptor or port for the connection.
    pub(super) exhausted: Option<io::Error>,
}

/// A client and its connection, if it has one.
#[derive(Debug, Clone)]
pub(super) struct TestClient {
    pub(super) id: Option<ConnId>,
    state: Rc<RefCell<Conversation>>,
}

impl TestClient {
    /// Returns a client, and the protocol that acts for it.
    pub(super) fn new(state: Conversation) -> (TestClient, ClientProtocol) {
        let state = Rc::new(RefCell::new(state));
        (TestClient { id: None, state: Rc::clone(&state) }, ClientProtocol(state))
    }

    pub(super) fn state(&self) -> Ref<'_, Conversation> {
        self.state.borrow()
    }

    pub(super) fn state_mut(&self) -> RefMut<'_, Conversation> {
        self.state.borrow_mut()
    }
}

impl Conversation {
    /// Sends `text` once and compares the echo.
    pub(super) fn sending(text: &[u8]) -> Conversation {
        let total = text.len() as u64;
        Conversation { text: text.to_vec(), total, compares: true, ..Conversation::default() }
    }

    /// Sends `total` bytes of every value, in an order that depends on `seed`, and compares the echo.
    pub(super) fn streaming(total: u64, seed: u64) -> Conversation {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        let text = (0..BLOCK).map(|_| next()).collect();
        Conversation { text, total, compares: true, ..Conversation::default() }
    }

    /// Sends `text` and accepts any reply.
    pub(super) fn receiving(text: &[u8]) -> Conversation {
        Conversation { compares: false, ..Conversation::sending(text) }
    }

    /// The same, but reads nothing until its rung resumes it.
    pub(super) fn paused(self) -> Conversation {
        Conversation { is_paused: true, was_paused: true, ..self }
    }

    pub(super) fn ending(self, end: End) -> Conversation {
        Conversation { end, ..self }
    }

    /// The same, but does not close its side at the server's EOF.
    pub(super) fn staying_open(self) -> Conversation {
        Conversation { stays_open: true, ..self }
    }

    /// Sends more.
    pub(super) fn send(&mut self, text: &[u8]) {
        self.text.extend_from_slice(text);
        self.total = self.text.len() as u64;
    }

    /// Sends no more than is queued already.
    pub(super) fn stop_sending(&mut self) {
        self.total = self.queued;
    }

    /// Returns a number that changes with every event.
    pub(super) fn progress(&self) -> u64 {
        self.queued + self.received + u64::from(self.is_open) + u64::from(self.has_eof)
    }

    /// Whether the conversation cannot succeed any more, or has ended.
    pub(super) fn is_over(&self) -> bool {
        self.wrong.is_some() || self.closed.is_some() || self.has_eof
    }

    /// Whether the server has returned everything, and nothing else.
    pub(super) fn is_echoed(&self) -> bool {
        self.wrong.is_none() && self.received == self.total
    }

    /// Whether the server's EOF followed a reply without a mistake.
    pub(super) fn has_ended_well(&self) -> bool {
        let has_failed = self.wrong.is_some() || matches!(self.closed, Some(Closed::Failed(_)));
        self.has_eof && !has_failed
    }

    pub(super) fn describe_sent(&self) -> String {
        let mut text = match self.total {
            0 => "nothing".into(),
            total if total <= REPLY_MAX as u64 => repr(&self.text),
            total if self.queued < total => format!("{} of {total} bytes", self.queued),
            total => format!("{total} bytes"),
        };
        if self.was_paused && self.total > 0 {
            text += " before reading any";
        }
        match self.end {
            End::HalfClose => text += ", then EOF",
            End::Reset => text += ", then a reset",
            End::Not | End::Close => {}
        }
        text
    }

    /// `silence` is how long the client waited for more; `None` if the bound of the rung ended the wait.
    pub(super) fn describe_received(&self, silence: Option<Duration>) -> String {
        if let Some(Closed::NotConnected(error)) = &self.closed {
            return no_connection(error);
        }
        let all = if self.compares { ", as sent" } else { "" };
        let mut text = match self.received {
            0 => "nothing".into(),
            count if count <= REPLY_MAX as u64 => repr(&self.reply),
            count => format!("{count} bytes{all}"),
        };
        match (&self.wrong, &self.closed, silence) {
            (Some(wrong), ..) => return format!("{text}, then {wrong}"),
            (_, Some(Closed::Failed(error)), _) => {
                text += &format!(", then the connection failed: {error}")
            }
            _ if self.has_eof => text += ", then EOF",
            (.., Some(silence)) => text += &format!(", then silence for {silence:?}"),
            (.., None) => text += ", until the bound ended the rung",
        }
        if self.compares && self.received < self.queued && self.queued > REPLY_MAX as u64 {
            text += &format!("; {} bytes were still missing", self.queued - self.received);
        }
        text
    }

    fn receive(&mut self, data: &[u8]) {
        if self.wrong.is_some() {
            return;
        }
        let is_same = |(found, expected): &(&u8, u8)| *found == expected;
        let right = match self.compares {
            true => data.iter().zip(self.expected()).take_while(is_same).count(),
            false => data.len(),
        };
        if right < data.len() {
            let found = &data[right..(right + SHOWN).min(data.len())];
            let expected: Vec<u8> = self.expected().skip(right).take(found.len()).collect();
            self.wrong = Some(if expected.is_empty() {
                format!("{}, which was never sent", repr(found))
            } else {
                format!("{} instead of {}", repr(found), repr(&expected))
            });
        }
        self.received += right as u64;
        let room = (REPLY_MAX + 1).saturating_sub(self.reply.len());
        self.reply.extend_from_slice(&data[..right.min(room)]);
        if !self.compares && self.received > REPLY_MAX as u64 {
            self.wrong = Some("more, which is too long for a line".into());
        }
    }

    /// The bytes that were sent and have not come back.
    fn expected(&self) -> impl Iterator<Item = u8> {
        let at = (self.received % self.text.len().max(1) as u64) as usize;
        let left = usize::try_from(self.queued - self.received).unwrap_or(usize::MAX);
        self.text[at..].iter().chain(self.text.iter().cycle()).take(left).copied()
    }

    fn act(&mut self, out: &mut Outbox) {
        if self.is_paused {
            out.pause();
        } else {
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

/// The protocol of a client. It acts on its [`Conversation`].
#[derive(Debug)]
pub(super) struct ClientProtocol(Rc<RefCell<Conversation>>);

impl Protocol for ClientProtocol {
    fn on_open(&mut self, out: &mut Outbox) {
        let mut state = self.0.borrow_mut();
        state.is_open = true;
        // Otherwise both sides could wait for each other to read for ever.
        out.read_while_congested(true);
        state.act(out);
    }

    fn on_data(&mut self, data: &[u8], _out: &mut Outbox) {
        self.0.borrow_mut().receive(data);
    }

    fn on_eof(&mut self, out: &mut Outbox) {
        let mut state = self.0.borrow_mut();
        state.has_eof = true;
        if !state.stays_open {
            out.close();
        }
    }

    fn on_drain(&mut self, out: &mut Outbox) {
        self.0.borrow_mut().act(out);
    }

    fn on_wake(&mut self, out: &mut Outbox) {
        self.0.borrow_mut().act(out);
    }

    fn on_close(&mut self, reason: &CloseReason) {
        let state = &mut *self.0.borrow_mut();
        if let CloseReason::ConnectFailed(error) = reason {
            let number = error.raw_os_error().filter(|_| is_exhausted(error));
            state.exhausted = number.map(io::Error::from_raw_os_error);
        }
        state.closed = Some(match reason {
            CloseReason::ConnectFailed(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                Closed::Failed(without_number(error))
            }
            CloseReason::ConnectFailed(error) => Closed::NotConnected(without_number(error)),
            CloseReason::Failed(error) => Closed::Failed(without_number(error)),
            _ => Closed::InOrder,
        });
    }
}
