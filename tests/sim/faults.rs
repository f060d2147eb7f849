//! The fault language, as the model understands it: whom a fault is for, and what it may change.

use std::fmt;

use super::random::Random;
use super::socket::Socket;
use super::world::World;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whom {
    Every,
    Once,
    Numbers(usize, usize),
    /// The seed says who; the model does not know.
    Percent(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    Accept,
    Sent(usize),
    Received(usize),
    Millis(u64),
    Eof,
    Write(usize),
}

/// What is asked of the language: `s2 once: reset after 5 bytes`, of the listener with this index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    pub listener: usize,
    pub whom: Whom,
    pub effect: &'static str,
    pub moment: Moment,
}

const EFFECTS: &str = "delay 20ms, delay 30ms+-30ms, slice 3/2ms, slice 40, rate 2KiB/s, short 1, short 7, stall, \
    deaf, corrupt, hold-open, shut, close, reset, reset";
const DOORS: [&str; 2] = ["refuse", "never-accept"];

/// Effects that end something early.
pub const ENDS: [&str; 3] = ["shut", "close", "reset"];
/// Those that keep an end from being said or heard.
pub const HOLDS: [&str; 2] = ["hold-open", "stall"];
/// Those after which no end may ever come.
pub const SILENT: [&str; 3] = ["hold-open", "stall", "deaf"];

impl Order {
    pub fn draw(random: &mut Random) -> Order {
        let listener = random.below(4);
        let numbers = 1 + random.below(4);
        if random.percent(15) {
            let whom = random.pick(&[Whom::Every, Whom::Numbers(numbers, numbers + 1)]);
            let moment = random.pick(&[Moment::Accept, Moment::Millis(50)]);
            return Order { listener, whom, effect: random.pick(&DOORS), moment };
        }
        let last = numbers + random.below(3);
        let size = random.pick(&[0, 1, 5, 30, 100]);
        Order {
            listener,
            whom: random.pick(&[
                Whom::Every,
                Whom::Once,
                Whom::Once,
                Whom::Numbers(numbers, last),
                Whom::Percent(40),
            ]),
            effect: random.pick(&EFFECTS.split(", ").collect::<Vec<_>>()),
            moment: random.pick(&[
                Moment::Accept,
                Moment::Sent(size),
                Moment::Received(size),
                Moment::Millis(1 + size as u64),
                Moment::Eof,
                Moment::Write(1 + size % 4),
            ]),
        }
    }

    pub fn does(&self, effects: &[&str]) -> bool {
        effects.contains(&self.effect.split(' ').next().unwrap_or_default())
    }

    fn is_of_listener(&self) -> bool {
        self.does(&DOORS)
    }

    /// From how many bytes on it surely acts, of `sent` and `received` ones.
    fn is_due(&self, socket: &Socket) -> bool {
        match self.moment {
            Moment::Accept => true,
            Moment::Sent(size) => socket.written >= size,
            Moment::Received(size) => socket.read >= size,
            Moment::Eof => socket.eof,
            Moment::Millis(_) | Moment::Write(_) => false,
        }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}", self.listener)?;
        match self.whom {
            Whom::Every => {}
            Whom::Once => write!(f, " once")?,
            Whom::Numbers(first, last) => write!(f, " #{first}..{last}")?,
            Whom::Percent(chance) => write!(f, " {chance}%")?,
        }
        write!(f, ": {}", self.effect)?;
        match self.moment {
            Moment::Accept => Ok(()),
            Moment::Sent(size) => write!(f, " after {size} bytes"),
            Moment::Received(size) => write!(f, " after {size} bytes in"),
            Moment::Millis(millis) => write!(f, " after {millis}ms"),
            Moment::Eof => write!(f, " at eof"),
            Moment::Write(number) => write!(f, " at write {number}"),
        }
    }
}

impl World {
    /// Somebody was accepted: the faults that are for it, counted as the language counts.
    pub fn afflict(&mut self, listener: usize, sid: usize) {
        let queue = &mut self.queues[listener];
        queue.accepted += 1;
        let (number, mut is_first) = (queue.accepted, true);
        let mut drawn = Vec::new();
        self.orders.retain(|order| {
            let is_meant = order.listener == listener
                && !order.is_of_listener()
                && match order.whom {
                    Whom::Every | Whom::Percent(_) => true,
                    Whom::Once => std::mem::take(&mut is_first),
                    Whom::Numbers(first, last) => (first..=last).contains(&number),
                };
            drawn.extend(is_meant.then_some(*order));
            !(is_meant && order.whom == Whom::Once)
        });
        let socket = &mut self.sockets[sid];
        socket.faults = drawn;
        socket.was_hurt |= socket.suffers(&["close", "reset"]);
        let count = |is_incoming: bool| {
            let is_one = |order: &&Order| {
                let hears = matches!(order.moment, Moment::Received(_));
                order.does(&["corrupt"]) && hears == is_incoming
            };
            socket.faults.iter().filter(is_one).count()
        };
        (socket.flips_in, socket.flips_out) = (count(true), count(false));
    }

    /// Whether clients are left in the backlog because somebody asked for that.
    pub fn is_locked(&self, listener: usize) -> bool {
        self.orders.iter().any(|order| order.listener == listener && order.is_of_listener())
    }
}

impl Socket {
    pub fn suffers(&self, effects: &[&str]) -> bool {
        self.faults.iter().any(|order| order.does(effects))
    }

    /// Whether its time is counted as the model counts it: no call is answered on the way.
    pub fn is_timed(&self) -> bool {
        !self.suffers(&ENDS) && !self.suffers(&HOLDS)
    }

    /// What its faults forbid, and happened all the same; or the reverse.
    pub fn unlike_its_faults(&self) -> Option<String> {
        self.faults.iter().find_map(|order| {
            if matches!(order.whom, Whom::Percent(_)) {
                return None;
            }
            let most = match order.moment {
                Moment::Accept => 0,
                Moment::Sent(size) | Moment::Received(size) => size,
                _ => usize::MAX,
            };
            let is_incoming = matches!(order.moment, Moment::Received(_));
            let goes_on = order.does(&["stall", "shut", "close", "reset"])
                && !is_incoming
                && self.written > most;
            let listens = order.does(&["deaf"])
                && !self.suffers(&["close"])
                && (is_incoming || order.moment == Moment::Accept)
                && self.read > most;
            (goes_on || listens).then(|| format!("goes on in spite of `{order}`"))
        })
    }

    /// Whether it should have been reset and not have come to a good end.
    pub fn is_to_be_reset(&self) -> bool {
        self.faults.iter().any(|order| {
            let is_certain = !matches!(order.whom, Whom::Percent(_));
            is_certain && order.does(&["reset"]) && order.is_due(self)
        })
    }

    /// Whether a bit that should have been flipped was not.
    pub fn is_spared(&self) -> bool {
        let [order] = self.faults[..] else { return false };
        let is_past = match order.moment {
            Moment::Accept => self.written > 0,
            Moment::Sent(size) => self.written > size,
            Moment::Received(size) => self.heard > size,
            _ => false,
        };
        let is_certain = !matches!(order.whom, Whom::Percent(_));
        is_certain && is_past && self.flips_in + self.flips_out > 0
    }
}

/// The plan that the loop obeys, if it has one.
#[cfg(feature = "testing")]
#[derive(Debug, Default)]
pub struct Faults(pub Option<campanile::testing::Plan>);

#[cfg(feature = "testing")]
impl Faults {
    /// Asks for it; false if it cannot be meant.
    pub fn add(&self, order: &Order) -> bool {
        let Some(plan) = &self.0 else { return false };
        let Ok(fault) = order.to_string().parse() else { return false };
        plan.add(fault).is_ok()
    }

    pub fn mend(&self) {
        // Numbers count from 1; those that are gone are gone.
        (1..=100).for_each(|id| self.0.iter().for_each(|plan| drop(plan.remove(id))));
    }
}

#[cfg(not(feature = "testing"))]
#[derive(Debug, Default)]
pub struct Faults;

#[cfg(not(feature = "testing"))]
impl Faults {
    pub fn add(&self, _: &Order) -> bool {
        false
    }

    pub fn mend(&self) {}
}
