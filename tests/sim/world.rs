//! What the kernel and the far ends know: sockets, edges, time; and what must never happen.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use campanile::{
    ConnId, Limits,
    sys::{Event, Source},
};

use super::faults::{ENDS, Order};
use super::kernel::Bell;
use super::plan::PEER_ERRNOS;
use super::random::{Random, mix, said};
use super::socket::{Link, Service, Socket};

/// How events come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Selector {
    /// The fewest edges that mio's contract permits: one after WouldBlock, and for that half only.
    #[default]
    Miser,
    /// Those, and spurious, doubled, split and flipped ones; for the living and for the dead.
    Noise,
    /// As epoll: FINs, resets and urgent bytes always come, writable rides along, plain is plain.
    Epoll,
    /// The fewest edges that epoll gives, and those of the test's script.
    Scripted,
}

impl Selector {
    pub fn is_epoll(self) -> bool {
        matches!(self, Selector::Epoll | Selector::Scripted)
    }
}

/// Who waits at a listener.
#[derive(Debug, Default)]
pub struct Queue {
    pub waiting: VecDeque<usize>,
    pub errors: VecDeque<i32>,
    pub broken: Option<i32>,
    pub closed: bool,
    pub exists: bool,
    /// The last accept failed for want of something, or too often: a pause is due.
    pub is_starved: bool,
    /// Until when the pause lasts, and how many sockets were closed when it began: one that closes
    /// ends the pause.
    pub paused_until: Duration,
    pub closed_before: usize,
    /// The last error of one peer.
    pub last_error: Option<i32>,
    /// How often it came without a connection in between.
    pub repeats: usize,
    pub accepted: usize,
    /// How many polls in a row other listeners took the last slot while a client waited here.
    passed_over: usize,
    passed_over_in: usize,
    /// Calls of accept, those that failed included.
    pub accepts: usize,
    armed: bool,
}

/// How often an error may come in a row before it is taken for one that stays, and how long a pause
/// lasts.
const REPEATS: usize = 16;
const PAUSE: Duration = Duration::from_millis(100);

/// The calls whose failure is one connection's.
const SOCKET_CALLS: [&str; 5] = ["recv", "send", "shutdown", "epoll_ctl", "getsockopt"];

/// One failure of one call, for the torture tests.
#[derive(Debug, Clone, Copy)]
pub struct Torture {
    pub at: usize,
    pub errno: i32,
    pub for_good: bool,
}

/// The beginning of time. An `Instant` has no default.
#[derive(Debug)]
struct Began(Instant);

impl Default for Began {
    fn default() -> Began {
        Began(Instant::now())
    }
}

#[derive(Debug, Default)]
pub struct World {
    pub selector: Selector,
    pub bell: Arc<Bell>,
    began: Began,
    pub now: Duration,
    pub random: Random,
    pub is_calm: bool,
    pub capacity: usize,
    pub sockets: Vec<Socket>,
    pub queues: Vec<Queue>,
    pub services: Vec<Service>,
    keys: Vec<Option<usize>>,
    /// By the ordinal of its identity, the number of each socket.
    ordinals: HashMap<u64, usize>,
    /// Sockets that were read, written or run in this turn.
    pub busy: Vec<usize>,
    /// What the kernel has noted for a source and not handed out yet.
    ready: VecDeque<Event>,
    pub batch: Vec<Event>,
    /// Events that did not fit into the batch.
    pub left_behind: usize,
    pub polls: usize,
    /// Turns that did not fail. A turn whose poll fails runs no connection.
    pub turns: u64,
    pub fail_polls: VecDeque<ErrorKind>,
    pub fail_registers: VecDeque<i32>,
    /// How many sockets were closed so far.
    pub closed: usize,
    pub fails_rearm: bool,
    /// How many sockets may be open, if that is limited, and how many are.
    pub descriptors: Option<usize>,
    pub open: usize,
    /// What is asked of the fault language.
    pub orders: Vec<Order>,
    pub dials: VecDeque<Result<usize, i32>>,
    pub calls: Vec<&'static str>,
    pub torture: Option<Torture>,
    pub victim: Option<usize>,
    pub violations: Vec<String>,
    pub hash: u64,
    /// Whether a line is printed for each turn, and what that line says so far, by socket.
    pub is_told: bool,
    told: Vec<(Option<usize>, String)>,
    pub progress: u64,
    pub panics: u64,
    pub protocols: i64,
    pub limits: Limits,
    /// When somebody asked for the end, and the shortest grace so far.
    pub shutdown: Option<(Duration, Duration)>,
}

pub type Shared = Rc<RefCell<World>>;

impl World {
    pub fn new(selector: Selector, seed: u64, capacity: usize, limits: Limits) -> World {
        World {
            selector,
            capacity,
            limits,
            random: Random::new(seed ^ 0x0006_e015_e0e5),
            hash: seed,
            ..World::default()
        }
    }

    /// A new socket; returns its number.
    pub fn add(&mut self, service: Service, ip: Option<IpAddr>, link: Link, room: usize) -> usize {
        let (born, wants_writable) = (self.now, true);
        let (last_read, last_write, shut_at) = (born, born, born);
        self.sockets.push(Socket {
            service,
            ip,
            link,
            room,
            wants_writable,
            born,
            last_read,
            last_write,
            shut_at,
            ..Socket::default()
        });
        self.sockets.len() - 1
    }

    /// A socket gets its identity.
    pub fn identify(&mut self, sid: usize, id: ConnId) {
        (self.sockets[sid].ordinal, self.sockets[sid].id) = (id.ordinal(), Some(id));
        self.ordinals.insert(id.ordinal(), sid);
    }

    /// The number of the socket with this identity, which runs.
    pub fn identified(&mut self, id: ConnId) -> Option<usize> {
        let sid = *self.ordinals.get(&id.ordinal())?;
        self.busy.push(sid);
        Some(sid)
    }

    /// Whether a peer has as many connections as it may have.
    pub fn is_crowded(&self, ip: Option<IpAddr>) -> bool {
        let (Some(max), Some(_)) = (self.limits.max_per_peer, ip) else { return false };
        self.sockets.iter().filter(|socket| socket.is_live() && socket.ip == ip).count() >= max
    }

    pub fn instant(&self) -> Instant {
        self.began.0 + self.now
    }

    pub fn since_began(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.began.0)
    }

    pub fn violate(&mut self, what: impl Into<String>) {
        let what = what.into();
        self.violations.push(format!("at {:?}: {what}", self.now));
    }

    /// What happened, folded into one number: two runs of one seed must agree.
    pub fn trace(&mut self, what: &str, who: usize, value: usize) {
        match what {
            "read" | "write" => self.tell(Some(who), &format!("={value}")),
            "recv" | "send" | "shutdown" | "abort" | "boom" | "on_open" | "on_eof" | "on_drain"
            | "on_wake" => self.tell(Some(who), what),
            _ => {}
        }
        let letters = what.bytes().fold(0_u64, |sum, byte| sum << 5 ^ u64::from(byte));
        let mixed = mix(letters ^ (who as u64) << 40 ^ value as u64);
        self.hash = mix(self.hash ^ mixed ^ self.now.as_nanos() as u64);
    }

    /// Adds words to the line of this turn. A number belongs to the call before it.
    pub fn tell(&mut self, who: Option<usize>, words: &str) {
        match self.told.last_mut().filter(|last| last.0 == who) {
            _ if !self.is_told => {}
            Some((_, line)) => {
                *line += &format!("{}{words}", if words.starts_with('=') { "" } else { ", " })
            }
            None => self.told.push((who, words.to_owned())),
        }
    }

    /// Prints the line of a turn, or of an action between two turns, and begins the next one.
    pub fn end_line(&mut self, head: &str) {
        let name = |who: Option<usize>| who.map_or(String::new(), |sid| format!("#{sid}: "));
        let words = self.told.drain(..).map(|(who, words)| name(who) + &words);
        let words = words.collect::<Vec<_>>().join(" | ");
        if self.is_told && !(head.is_empty() && words.is_empty()) {
            let now = format!("{} ms", self.now.as_millis());
            eprintln!("{}", format!("{now:>9}  {head:7}  {words}").trim_end());
        }
        // The lines end where the rule is broken.
        self.is_told &= self.violations.is_empty();
    }

    /// Every system call comes by here, to be counted and, under torture, to fail.
    pub fn call(&mut self, name: &'static str, who: usize) -> io::Result<()> {
        let at = self.calls.len();
        self.calls.push(name);
        self.trace(name, who, at);
        if let Some(torture) = self.torture {
            let is_hit = at == torture.at
                || (torture.for_good && at > torture.at && name == self.calls[torture.at]);
            if is_hit {
                // An interruption harms nobody, the interrupted one included.
                let is_harmful = torture.errno != libc::EINTR;
                if SOCKET_CALLS.contains(&name) && is_harmful {
                    self.victim = Some(who);
                    self.sockets[who].was_hurt = true;
                }
                return Err(io::Error::from_raw_os_error(torture.errno));
            }
        }
        Ok(())
    }

    /// Notes an event; a source has one waiting at most.
    fn push(&mut self, source: Source, readable: bool, writable: bool) {
        self.note(Event { source, readable, writable, data_only: true });
    }

    /// The same of an event that may be more than data or room.
    pub fn note(&mut self, event: Event) {
        match self.ready.iter_mut().find(|ready| ready.source == event.source) {
            Some(ready) => {
                ready.readable |= event.readable;
                ready.writable |= event.writable;
                ready.data_only &= event.data_only;
            }
            None => self.ready.push_back(event),
        }
    }

    /// How long until the next delay of a socket is over.
    pub fn next_delay(&self) -> Option<Duration> {
        let live = self.sockets.iter().filter(|socket| socket.key.is_some());
        let delays = live.filter_map(|socket| socket.delayed_to?.checked_sub(self.now));
        delays.filter(|delay| !delay.is_zero()).min()
    }

    /// Reports the sockets whose delay is over.
    pub fn end_delays(&mut self) {
        for sid in 0..self.sockets.len() {
            let (now, socket) = (self.now, &mut self.sockets[sid]);
            let is_over = |until: &mut Duration| *until <= now;
            if socket.key.is_some() && socket.delayed_to.take_if(is_over).is_some() {
                self.edge(sid, true, true, true);
            }
        }
    }

    /// Something came from the far end. `loud` is what epoll always tells: a FIN, an error, an
    /// urgent byte.
    pub fn edge(&mut self, sid: usize, readable: bool, writable: bool, loud: bool) {
        let is_loud = loud && self.selector.is_epoll();
        let socket = &mut self.sockets[sid];
        let Some(key) = socket.key else { return };
        let readable = readable && (std::mem::take(&mut socket.read_armed) || is_loud);
        let writable = writable
            && socket.wants_writable
            && (std::mem::take(&mut socket.write_armed) || is_loud);
        if readable || writable {
            self.push(Source::Connection(key), readable, writable);
        }
    }

    /// A socket gets a key. What is ready already gets an event; the rest is armed.
    pub fn register(&mut self, sid: usize, key: usize, writes: bool) {
        let socket = &mut self.sockets[sid];
        let is_new = socket.key.replace(key).is_none();
        // A fault that ends our half, or withholds its end, does so behind the loop's back.
        let is_right = writes != socket.shut || !socket.is_timed();
        let (readable, writable) = (socket.is_readable(), writes && socket.is_writable());
        socket.wants_writable = writes;
        socket.read_armed = !readable;
        socket.write_armed = !writable;
        if !is_right {
            self.violate(format!(
                "socket {sid} asks for events that it has no use for, or too few"
            ));
        }
        if !is_new {
            self.violate(format!("socket {sid} registered twice"));
        }
        if key >= self.keys.len() {
            self.keys.resize(key + 1, None);
        }
        if let Some(other) = self.keys[key].replace(sid) {
            self.violate(format!("key {key} given to {sid} and to {other}"));
        }
        if readable || writable {
            self.push(Source::Connection(key), readable, writable);
        }
    }

    /// The descriptor is closed: what was noted for it is forgotten.
    pub fn forget(&mut self, sid: usize) {
        self.sockets[sid].dropped = true;
        self.closed += 1;
        self.open -= 1;
        self.progress += 1;
        if let Some(key) = self.sockets[sid].key.take() {
            self.keys[key] = None;
            self.ready.retain(|ready| ready.source != Source::Connection(key));
        }
    }

    /// An accept fails. What stays pauses the listener, for a tenth of a second or until a socket closes.
    pub fn refuse(&mut self, listener: usize, errno: i32) -> io::Error {
        let (now, closed) = (self.now, self.closed);
        let queue = &mut self.queues[listener];
        // What no manual names is taken for a want of something, too.
        queue.is_starved = !PEER_ERRNOS.contains(&errno);
        if !queue.is_starved {
            let is_same = queue.last_error.replace(errno) == Some(errno);
            queue.repeats = if is_same { queue.repeats + 1 } else { 1 };
            queue.is_starved = queue.repeats >= REPEATS;
        }
        // The loop counts whole milliseconds.
        queue.paused_until = now + PAUSE - Duration::from_millis(1);
        queue.closed_before = closed;
        // An attempt that fails is a turn, too.
        queue.passed_over = 0;
        self.progress += 1;
        io::Error::from_raw_os_error(errno)
    }

    /// Whether a listener is asked although it must pause.
    pub fn is_hurried(&self, listener: usize) -> bool {
        let queue = &self.queues[listener];
        let is_paused = self.now <= queue.paused_until && self.closed == queue.closed_before;
        queue.is_starved && is_paused && self.shutdown.is_none()
    }

    /// A connection is accepted. At the limit, no listener may be passed over more often than there
    /// are others.
    pub fn take_turn(&mut self, listener: usize) {
        let is_full = self.open >= self.limits.max_connections;
        for at in 0..self.queues.len() {
            let is_told = !self.ready.iter().any(|ready| ready.source == Source::Listener(at));
            let is_open = !self.is_locked(at);
            let queue = &mut self.queues[at];
            let may_have = queue.exists && !queue.closed && is_open && !queue.is_starved && is_told;
            if at == listener || queue.waiting.is_empty() || !may_have {
                (queue.passed_over, queue.passed_over_in) = (0, self.polls);
            } else if is_full && queue.passed_over_in != self.polls {
                (queue.passed_over, queue.passed_over_in) = (queue.passed_over + 1, self.polls);
            }
        }
        if self.queues.iter().any(|queue| queue.passed_over >= self.queues.len()) {
            self.violate("a listener is passed over again and again");
        }
    }

    /// Somebody waits at a listener.
    pub fn arrive(&mut self, listener: usize, sid: usize) {
        let queue = &mut self.queues[listener];
        queue.waiting.push_back(sid);
        let is_armed = std::mem::take(&mut queue.armed);
        if queue.exists && (is_armed || self.selector == Selector::Epoll) {
            self.push(Source::Listener(listener), true, false);
        }
    }

    /// A listener is closed: whoever waits there is turned away, and what was noted forgotten.
    pub fn close_listener(&mut self, listener: usize) {
        self.queues[listener].closed = true;
        self.queues[listener].waiting.clear();
        self.ready.retain(|ready| ready.source != Source::Listener(listener));
    }

    pub fn arm_listener(&mut self, listener: usize) {
        self.queues[listener].armed = true;
    }

    /// As one that is registered: whoever waits already is told of.
    pub fn rearm_listener(&mut self, listener: usize) {
        let waits = !self.queues[listener].waiting.is_empty();
        self.queues[listener].armed = !waits;
        if waits {
            self.push(Source::Listener(listener), true, false);
        }
    }

    pub fn ring(&mut self) {
        self.push(Source::Waker, true, false);
    }

    pub fn is_silent(&self) -> bool {
        let has_come = |socket: &Socket| socket.delayed_to.is_some_and(|until| until <= self.now);
        let is_delay_over = self.sockets.iter().any(|s| s.key.is_some() && has_come(s));
        self.ready.is_empty() && self.fail_polls.is_empty() && !is_delay_over
    }

    /// Moves what is ready into the batch. Nothing real is handed out twice.
    pub fn fetch(&mut self) {
        self.batch.clear();
        let count = self.capacity.min(self.ready.len());
        for ready in self.ready.drain(..count).collect::<Vec<_>>() {
            let event = self.event_of(ready);
            self.trace("event", usize::from(event.readable), usize::from(event.writable));
            let readable = if event.readable { " readable" } else { "" };
            let words = format!("event{readable}{}", if event.writable { " writable" } else { "" });
            match event.source {
                Source::Listener(key) => self.tell(None, &format!("listener {key}: event")),
                Source::Waker => self.tell(None, "waker: event"),
                Source::Connection(key) => self.tell(self.keys.get(key).copied().flatten(), &words),
            }
            self.batch.push(event);
        }
        self.left_behind = self.ready.len();
        if self.selector == Selector::Noise && !self.is_calm {
            while self.batch.len() < self.capacity && self.random.percent(40) {
                self.disturb();
            }
        }
    }

    fn event_of(&mut self, mut event: Event) -> Event {
        let sid = match event.source {
            Source::Connection(key) => self.keys.get(key).copied().flatten(),
            _ => None,
        };
        let socket = sid.map(|sid| &self.sockets[sid]);
        event.data_only &= self.selector.is_epoll() && socket.is_some_and(Socket::data_only);
        if let (Selector::Epoll, Some(socket)) = (self.selector, socket) {
            // The mask is what holds now, not what held when the event was noted.
            event.readable |= socket.is_readable() || !socket.marks.is_empty();
            event.writable |= socket.wants_writable && socket.is_writable();
        }
        event
    }

    /// Doubles, splits or widens an event, or adds one that means nothing, for somebody or nobody.
    fn disturb(&mut self) {
        let at = self.random.below(self.batch.len() + 1);
        let bits = self.random.below(4);
        let (readable, writable) = (bits & 1 > 0, bits & 2 > 0);
        if let Some(event) = self.batch.get_mut(at) {
            let half = Event { readable: false, ..*event };
            match bits {
                0 => (event.readable, event.writable) = (true, true),
                1 => event.writable = false,
                _ => {}
            }
            // Of a split event both halves come; only their order is anybody's guess.
            let other = if bits == 1 { half } else { *event };
            self.batch.insert(at, other);
            return;
        }
        let source = match self.random.below(8) {
            0 => Source::Listener(self.random.below(5)),
            1 => Source::Waker,
            _ => Source::Connection(self.random.below(self.keys.len() + 2)),
        };
        self.batch.push(Event { source, readable, writable, data_only: false });
    }

    /// Our end wrote `bytes`: they must be what its protocol, or a handle, asked for.
    pub fn deliver(&mut self, sid: usize, bytes: &[u8]) {
        if let Some(tape) = &mut self.sockets[sid].tape {
            tape.received.extend_from_slice(bytes);
            return;
        }
        let mut wrong = None;
        for &byte in bytes {
            let socket = &mut self.sockets[sid];
            let flipped = socket.script.get(socket.delivered).map_or(0, |&right| right ^ byte);
            if socket.flips_out > 0 && flipped.is_power_of_two() {
                socket.flips_out -= 1;
                socket.delivered += 1;
            } else if byte & 0x80 > 0 && !socket.suffers(&["corrupt"]) {
                socket.injected.push(byte);
                if socket.injected.len() == CHUNK {
                    let chunk = std::mem::take(&mut socket.injected);
                    let number = (socket.last_chunk + 1..=socket.asked_chunks)
                        .find(|&number| chunk == injection(sid, number));
                    match number {
                        Some(number) => socket.last_chunk = number,
                        None => wrong = Some("got bytes that no handle sent to it"),
                    }
                }
            } else if socket.script.get(socket.delivered) == Some(&byte) {
                socket.delivered += 1;
            } else {
                wrong = Some("got bytes lost, added, out of order or of a stranger");
            }
        }
        if let Some(wrong) = wrong {
            self.violate(format!("socket {sid} {wrong}"));
        }
    }

    /// Our half ends: nothing may be missing.
    pub fn check_complete(&mut self, sid: usize) {
        let socket = &self.sockets[sid];
        if socket.suffers(&ENDS) {
            return;
        }
        if socket.owed() > 0 || !socket.injected.is_empty() {
            self.violate(format!("socket {sid}: {} bytes missing at the end", socket.owed()));
        }
    }

    pub fn has_got_chunk(&self, sid: usize, number: u64) -> bool {
        self.sockets[sid].last_chunk >= number
    }

    /// The far end says `count` more bytes.
    pub fn say(&mut self, sid: usize, count: usize) {
        self.sockets[sid].sent += count;
        self.edge(sid, true, false, false);
    }

    /// Whether what the protocol heard is what the far end said.
    pub fn check_heard(&mut self, sid: usize, data: &[u8]) {
        let end = self.sockets[sid].read;
        let start = end - data.len().min(end);
        self.sockets[sid].heard += data.len();
        let wrong = data.iter().enumerate().map(|(at, byte)| byte ^ said(sid, start + at));
        let flipped: Vec<u8> = wrong.filter(|&bits| bits != 0).collect();
        let flips_in = &mut self.sockets[sid].flips_in;
        let is_asked =
            flipped.len() <= *flips_in && flipped.iter().all(|bits| bits.is_power_of_two());
        *flips_in = flips_in.saturating_sub(flipped.len());
        if data.is_empty() || !is_asked {
            self.violate(format!("socket {sid} heard what was not said to it"));
        }
    }
}

/// What a handle sends comes in chunks of this size, all of their high bits set.
pub const CHUNK: usize = 6;

/// The chunk with this number for socket `sid`: a stranger's is not ours.
pub fn injection(sid: usize, number: u64) -> Vec<u8> {
    let bits = mix((sid as u64) << 32 ^ number);
    (0..CHUNK).map(|at| 0x80 | (bits >> (at * 8)) as u8).collect()
}
