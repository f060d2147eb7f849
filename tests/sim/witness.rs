//! The protocols of the simulation, and the witness that watches how they are called.

use std::rc::Rc;
use std::time::Duration;

use campanile::services::{Daytime, Echo};
use campanile::{Clock, CloseReason, Outbox, Protocol};

use super::faults::ABANDONED;
use super::random::{Random, said};
use super::socket::{Service, Socket};
use super::world::{CHUNK, Shared, injection};
use crate::common::{TUTORIAL, TUTORIAL_LINE};

/// What a deliberate panic panics with.
pub struct Boom;

/// Writes down what its protocol hears and says, and checks the call grammar.
///
/// A panic of its own would be caught by the loop and taken for the protocol's: what is wrong is
/// noted in the world instead.
pub struct Witness {
    world: Shared,
    sid: usize,
    inner: Box<dyn Protocol>,
    saw_eof: bool,
    is_closing: bool,
    booms_on_drop: bool,
}

impl Witness {
    pub fn new(world: &Shared, sid: usize, seed: u64) -> Witness {
        let mut random = Random::new(seed ^ (sid as u64).wrapping_mul(0x1_0001));
        let (service, booms_on_drop) = {
            let world = &mut *world.borrow_mut();
            world.protocols += 1;
            let socket = &mut world.sockets[sid];
            socket.made = true;
            (socket.service, socket.service == Service::Moody && random.percent(3))
        };
        let inner: Box<dyn Protocol> = match service {
            Service::Echo => Box::new(Echo),
            Service::Daytime => Box::new(Daytime::new(Clock::fixed(TUTORIAL))),
            Service::Producer => Box::new(Producer::new(world, sid, &mut random)),
            Service::Punctual => Box::new(Punctual(Duration::from_millis(7))),
            Service::Moody => Box::new(Moody { world: Rc::clone(world), sid, random, over: false }),
        };
        let world = Rc::clone(world);
        Witness { world, sid, inner, saw_eof: false, is_closing: false, booms_on_drop }
    }

    fn socket<T>(&self, with: impl FnOnce(&mut Socket) -> T) -> T {
        with(&mut self.world.borrow_mut().sockets[self.sid])
    }

    fn violate(&self, what: &str) {
        self.world.borrow_mut().violate(format!("socket {}: {what}", self.sid));
    }

    fn begin(&self, call: &'static str, value: usize, may_be_opened: bool) {
        self.world.borrow_mut().trace(call, self.sid, value);
        self.world.borrow_mut().progress += 1;
        let (opened, closed, panicked) =
            self.socket(|socket| (socket.opened, socket.closed, socket.panicked));
        if closed || panicked || self.is_closing || opened != may_be_opened {
            self.violate(&format!("{call} out of turn"));
        }
    }

    fn end(&mut self, out: &Outbox) {
        self.is_closing |= out.is_closed();
        let timer = out.timer().map(|at| self.world.borrow().since_began(at));
        self.socket(|socket| socket.timer = timer);
    }
}

impl Protocol for Witness {
    fn on_open(&mut self, out: &mut Outbox) {
        self.begin("on_open", 0, false);
        self.socket(|socket| {
            socket.opened = true;
            if socket.service == Service::Daytime {
                socket.script.extend(TUTORIAL_LINE);
            }
        });
        self.inner.on_open(out);
        self.end(out);
    }

    fn on_data(&mut self, data: &[u8], out: &mut Outbox) {
        self.begin("on_data", data.len(), true);
        if self.saw_eof {
            self.violate("data after EOF");
        }
        self.world.borrow_mut().check_heard(self.sid, data);
        self.socket(|socket| {
            if socket.service == Service::Echo {
                socket.script.extend(data);
            }
        });
        self.inner.on_data(data, out);
        self.end(out);
    }

    fn on_eof(&mut self, out: &mut Outbox) {
        self.begin("on_eof", 0, true);
        if std::mem::replace(&mut self.saw_eof, true) || !self.socket(|socket| socket.eof) {
            self.violate("an EOF that never came");
        }
        self.inner.on_eof(out);
        self.end(out);
    }

    fn on_drain(&mut self, out: &mut Outbox) {
        self.begin("on_drain", out.unsent(), true);
        if out.is_congested() {
            self.violate("a drain while congested");
        }
        self.inner.on_drain(out);
        self.end(out);
    }

    fn on_timer(&mut self, out: &mut Outbox) {
        self.begin("on_timer", 0, true);
        let now = self.world.borrow().now;
        if self.socket(|socket| socket.timer.is_none_or(|at| at > now)) {
            self.violate("a timer before its time");
        }
        self.inner.on_timer(out);
        self.end(out);
    }

    fn on_wake(&mut self, out: &mut Outbox) {
        self.begin("on_wake", 0, true);
        let asked = self.socket(|socket| {
            let asked = socket.wakes_asked;
            socket.wakes_asked = asked.saturating_sub(1);
            asked
        });
        if asked == 0 {
            self.violate("woken without a request");
        }
        self.inner.on_wake(out);
        self.end(out);
    }

    fn on_message(&mut self, bytes: &[u8], out: &mut Outbox) {
        self.begin("on_message", bytes.len(), true);
        self.inner.on_message(bytes, out);
        self.end(out);
    }

    fn on_close(&mut self, reason: &CloseReason) {
        self.world.borrow_mut().trace("on_close", self.sid, 0);
        let again = self.socket(|socket| {
            socket.reason = Some(reason.to_string());
            std::mem::replace(&mut socket.closed, true) || socket.panicked
        });
        if again {
            self.violate("on_close after the end");
        }
        let was_heard = self.saw_eof || self.is_closing || self.socket(|socket| socket.asked_close);
        let is_over = self.world.borrow().shutdown.is_some();
        if matches!(reason, CloseReason::Finished) && !was_heard && !is_over {
            self.violate("never heard of the EOF");
        }
        if let Some(wrong) = wrong_reason(&self.world, self.sid, reason) {
            self.violate(&format!("closed because {reason}, but {wrong}"));
        }
        self.inner.on_close(reason);
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.world.borrow_mut().protocols -= 1;
        let (closed, panicked) = self.socket(|socket| (socket.closed, socket.panicked));
        if !closed && !panicked {
            self.violate("dropped without on_close");
        }
        if self.booms_on_drop && !std::thread::panicking() {
            boom(&self.world, self.sid);
        }
    }
}

/// Panics, without a word on stderr; of one protocol the loop counts one panic.
pub fn boom(world: &Shared, sid: usize) -> ! {
    {
        let world = &mut *world.borrow_mut();
        world.trace("boom", sid, 0);
        if !std::mem::replace(&mut world.sockets[sid].panicked, true) {
            world.panics += 1;
        }
    }
    std::panic::resume_unwind(Box::new(Boom))
}

/// Why a connection cannot have ended for this reason, if it cannot.
fn wrong_reason(world: &Shared, sid: usize, reason: &CloseReason) -> Option<String> {
    let world = world.borrow();
    let (socket, limits, now) = (&world.sockets[sid], &world.limits, world.now);
    // The loop counts whole milliseconds.
    let since = |at: Duration| {
        Duration::from_millis((now.as_millis() as u64).saturating_sub(at.as_millis() as u64))
    };
    let progress = socket.last_read.max(socket.last_write);
    let early = |bound: Option<Duration>, at: Duration| match bound {
        Some(bound) if since(at) >= bound => None,
        bound => Some(format!("{:?} of {bound:?} have passed", since(at))),
    };
    let wrong = |is_wrong: bool, what: &str| is_wrong.then(|| what.to_owned());
    match reason {
        CloseReason::Finished if socket.is_to_be_reset() => Some("it was to be reset".into()),
        CloseReason::Finished => wrong(!socket.eof || !socket.shut, "a half is open"),
        CloseReason::Aborted => wrong(!socket.asked_abort, "nobody asked"),
        CloseReason::Idle => early(limits.idle_timeout, progress),
        CloseReason::Stalled if socket.is_stalled() => Some("a fault holds it".into()),
        CloseReason::Stalled => {
            let since = socket.last_write.max(socket.owed_since.unwrap_or_default());
            early(limits.write_timeout.or(limits.idle_timeout), since)
        }
        CloseReason::Lingered if socket.discarded > limits.linger_bytes => None,
        CloseReason::Lingered => {
            early(Some(limits.linger_timeout), socket.shut_at.max(socket.deaf_since.unwrap_or(now)))
        }
        CloseReason::Expired => early(limits.max_lifetime, socket.born),
        CloseReason::Overflow => {
            let asked = socket.script.len() + socket.through_handle;
            wrong(asked - socket.written <= limits.max_send_queue, "it owes less")
        }
        CloseReason::Shutdown => match world.shutdown {
            Some((at, grace)) => early(Some(grace), at),
            None => Some("nobody asked".into()),
        },
        CloseReason::ConnectFailed(error) if error.to_string() == "timed out" => {
            if socket.opened {
                Some("it was open".into())
            } else {
                early(Some(limits.connect_timeout), socket.born)
            }
        }
        CloseReason::ConnectFailed(_) => wrong(socket.opened, "it was open"),
        CloseReason::Failed(error) if error.to_string().ends_with(ABANDONED) => {
            wrong(!socket.suffers(&["stall"]) || !socket.eof, "no stall has outlived its client")
        }
        CloseReason::Failed(_) => wrong(!socket.was_hurt, "nothing had failed"),
        _ => Some("that is unheard of".into()),
    }
}

/// Says so much as its outbox takes, until everything is said.
struct Producer {
    world: Shared,
    sid: usize,
    left: usize,
    half_closes: bool,
}

impl Producer {
    fn new(world: &Shared, sid: usize, random: &mut Random) -> Producer {
        let (left, half_closes) = (random.below(1500), random.percent(50));
        Producer { world: Rc::clone(world), sid, left, half_closes }
    }

    fn produce(&mut self, out: &mut Outbox) {
        while self.left > 0 && !out.is_congested() {
            let count = self.left.min(37);
            self.left -= count;
            say(&self.world, self.sid, count, out);
        }
        if self.left == 0 {
            if self.half_closes { out.half_close() } else { out.close() }
        }
    }
}

impl Protocol for Producer {
    fn on_open(&mut self, out: &mut Outbox) {
        self.produce(out);
    }
    fn on_data(&mut self, _: &[u8], _: &mut Outbox) {}
    // The peer may have finished: we have not.
    fn on_eof(&mut self, _: &mut Outbox) {}
    fn on_drain(&mut self, out: &mut Outbox) {
        self.produce(out);
    }
}

/// Says `count` bytes that nobody else would say.
fn say(world: &Shared, sid: usize, count: usize, out: &mut Outbox) {
    let bytes: Vec<u8> = {
        let script = &mut world.borrow_mut().sockets[sid].script;
        let from = script.len();
        script.extend((from..from + count).map(|at| said(sid ^ 0xffff, at)));
        script[from..].to_vec()
    };
    out.send(&bytes);
}

/// Wants to be woken again and again, ever more seldom, whatever its peer says.
struct Punctual(Duration);

impl Protocol for Punctual {
    fn on_open(&mut self, out: &mut Outbox) {
        out.timer_after(self.0);
    }
    fn on_data(&mut self, _: &[u8], _: &mut Outbox) {}
    fn on_timer(&mut self, out: &mut Outbox) {
        self.0 *= 2;
        out.timer_after(self.0);
    }
}

/// Does whatever a protocol may do, and some of what it should not.
struct Moody {
    world: Shared,
    sid: usize,
    random: Random,
    over: bool,
}

impl Moody {
    fn act(&mut self, out: &mut Outbox) {
        match self.random.below(40) {
            0..=12 if !self.over => {
                let count = 1 + self.random.below(120);
                say(&self.world, self.sid, count, out);
            }
            13 | 14 => {
                self.over = true;
                out.close();
            }
            15 => {
                self.over = true;
                out.half_close();
            }
            16 => {
                self.over = true;
                self.world.borrow_mut().sockets[self.sid].asked_abort = true;
                out.abort();
            }
            17..=19 => {
                out.pause();
                out.timer_after(Duration::from_millis(1 + self.random.below(200) as u64));
            }
            20 => out.resume(),
            28..=30 => self.write_to_another(out),
            31 => out.read_while_congested(self.random.percent(50)),
            21..=25 => out.timer_after(Duration::from_micros(self.random.next() % 300_000)),
            26 => out.cancel_timer(),
            27 => boom(&self.world, self.sid),
            _ => {}
        }
    }
}

impl Moody {
    /// Sends a message to another connection, or wakes it.
    fn write_to_another(&mut self, out: &mut Outbox) {
        let world = &mut *self.world.borrow_mut();
        let sid = self.random.below(world.sockets.len());
        let socket = &mut world.sockets[sid];
        let Some(id) = socket.id.filter(|_| sid != self.sid && !socket.suffers(&["corrupt"]))
        else {
            return;
        };
        socket.is_commanded = true;
        if self.random.percent(30) {
            socket.wakes_asked += 1;
            return out.wake(id);
        }
        socket.asked_chunks += 1;
        socket.through_handle += CHUNK;
        let number = socket.asked_chunks;
        out.message(id, &injection(sid, number));
    }
}

impl Protocol for Moody {
    fn on_open(&mut self, out: &mut Outbox) {
        self.act(out);
    }
    fn on_data(&mut self, _: &[u8], out: &mut Outbox) {
        self.act(out);
    }
    fn on_eof(&mut self, out: &mut Outbox) {
        self.act(out);
        if self.random.percent(70) {
            self.over = true;
            out.close();
        }
    }
    fn on_drain(&mut self, out: &mut Outbox) {
        self.act(out);
    }
    fn on_timer(&mut self, out: &mut Outbox) {
        out.resume();
        self.act(out);
    }
    fn on_wake(&mut self, out: &mut Outbox) {
        out.resume();
        self.act(out);
    }
    fn on_close(&mut self, _: &CloseReason) {
        if self.random.percent(3) {
            boom(&self.world, self.sid);
        }
    }
}
