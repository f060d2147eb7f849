//! One connection, as the model knows it: both ends, and what its protocol was told.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use campanile::{ConnId, sys::Snapshot};

use super::faults::Suffered;
use super::random::said;

/// How an outgoing connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Link {
    #[default]
    Pending,
    Refused(i32),
    Up,
}

/// Who serves a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Service {
    #[default]
    Echo,
    Daytime,
    Producer,
    Moody,
    Punctual,
}

/// The bytes of a connection whose far end is played by a test. Otherwise the model reckons them.
#[derive(Debug, Default)]
pub struct Tape {
    pub sent: Vec<u8>,
    pub received: Vec<u8>,
}

/// One connection: what the far end did, what our end did, and what is known of its protocol.
#[derive(Debug, Default)]
pub struct Socket {
    pub service: Service,
    /// Of a client; an outgoing connection has none.
    pub ip: Option<IpAddr>,
    pub link: Link,
    pub key: Option<usize>,
    /// Of its identity; 0 while it has none.
    pub ordinal: u64,
    pub id: Option<ConnId>,
    pub wants_writable: bool,
    pub read_armed: bool,
    pub write_armed: bool,
    // The far end's half.
    pub tape: Option<Tape>,
    pub sent: usize,
    pub read: usize,
    pub marks: VecDeque<usize>,
    pub fin: bool,
    pub error: Option<i32>,
    pub was_reset: bool,
    pub room: usize,
    // What befalls the next calls of our end.
    pub interrupts: u8,
    pub short: Option<usize>,
    pub fail_next: Option<i32>,
    pub delayed_to: Option<Duration>,
    /// The listener that has accepted it, and its number there.
    pub listener: Option<usize>,
    pub number: usize,
    /// Its faults, when the last one ended, and the bits that may still be flipped.
    pub faults: Vec<Suffered>,
    pub healed_at: Duration,
    pub flips_in: usize,
    pub flips_out: usize,
    // Our half.
    pub owner: bool,
    pub eof: bool,
    pub dead: bool,
    pub shut: bool,
    pub aborted: bool,
    pub ended: bool,
    pub dropped: bool,
    pub delivered: usize,
    pub written: usize,
    pub through_handle: usize,
    pub injected: Vec<u8>,
    pub last_chunk: u64,
    pub read_this_turn: usize,
    pub written_this_turn: usize,
    pub ran_this_turn: bool,
    /// The turn in which a connection with work left over must have run again.
    pub runs_until: Option<u64>,
    // When.
    pub born: Duration,
    pub last_read: Duration,
    pub last_write: Duration,
    pub shut_at: Duration,
    pub discarded: usize,
    /// What its protocol was told.
    pub heard: usize,
    // The protocol.
    pub script: Vec<u8>,
    pub asked_chunks: u64,
    pub made: bool,
    pub opened: bool,
    pub closed: bool,
    pub panicked: bool,
    pub asked_abort: bool,
    pub asked_close: bool,
    /// When it began to be owed something.
    pub owed_since: Option<Duration>,
    /// When we ceased to listen.
    pub deaf_since: Option<Duration>,
    /// Something befell it for which a call of ours may fail.
    pub was_hurt: bool,
    pub reason: Option<String>,
    pub wakes_asked: usize,
    pub is_commanded: bool,
    pub timer: Option<Duration>,
    pub view: Option<Snapshot>,
}

impl Socket {
    pub fn unread(&self) -> usize {
        self.sent - self.read
    }

    /// Reads the next `bytes` of what the far end sent.
    pub fn read_into(&mut self, sid: usize, bytes: &mut [u8]) {
        match &self.tape {
            Some(tape) => bytes.copy_from_slice(&tape.sent[self.read..self.read + bytes.len()]),
            None => {
                for (at, byte) in bytes.iter_mut().enumerate() {
                    *byte = said(sid, self.read + at);
                }
            }
        }
        self.read += bytes.len();
    }

    pub fn is_live(&self) -> bool {
        self.made && !self.dropped
    }

    /// Whether a read would tell something.
    pub fn is_readable(&self) -> bool {
        self.unread() > 0 || self.error.is_some() || (self.fin && !self.eof)
    }

    /// Whether a write, or the question how the connecting went, would tell something.
    pub fn is_writable(&self) -> bool {
        match self.link {
            Link::Pending => false,
            Link::Refused(_) => true,
            Link::Up => self.room > 0 || self.error.is_some(),
        }
    }

    /// As epoll would say it: nothing but data or room.
    pub fn data_only(&self) -> bool {
        !self.fin && !self.was_reset && self.marks.is_empty() && self.link == Link::Up
    }

    pub fn is_delayed(&self, now: Duration) -> bool {
        self.delayed_to.is_some_and(|until| until > now)
    }

    /// The far end resets the connection; what it said before may be lost or not.
    pub fn reset(&mut self, keeps_data: bool) {
        (self.was_reset, self.was_hurt) = (true, true);
        self.error = Some(libc::ECONNRESET);
        if !keeps_data {
            self.sent = self.read;
        }
    }

    /// A write of ours found no room.
    pub fn arm_write(&mut self) {
        self.write_armed = true;
    }

    /// A read found nothing; or, where events are plain, less than it asked for.
    pub fn arm_read(&mut self) {
        self.read_armed = true;
    }

    /// The little that tells how it stands.
    pub fn brief(&self) -> String {
        let Socket { service, ordinal, link, sent, read, delivered, room, fin, shut, .. } = self;
        format!(
            "{service:?} #{ordinal} {link:?}: sent {sent}, read {read}, got {delivered} of {}, \
             room {room}, fin {fin}, shut {shut}, ended {:?}, {:?}",
            self.script.len(),
            self.reason,
            self.view,
        )
    }

    /// What the protocol asked to be said and the far end has not got yet.
    pub fn owed(&self) -> usize {
        self.script.len() - self.delivered
    }
}
