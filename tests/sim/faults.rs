//! The fault language in the model: which connections a fault is for, and what it may change.

use std::fmt;
use std::time::Duration;

use super::random::Random;
use super::socket::Socket;
use super::world::World;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whom {
    Every,
    New,
    Once,
    Numbers(usize, usize),
    /// The seed chooses; the model does not know which.
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

/// A fault of the language: `s2 once: reset after 5 bytes`, for the listener with this index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    pub listener: usize,
    pub whom: Whom,
    pub effect: &'static str,
    pub moment: Moment,
    /// Milliseconds after which the effect ends.
    pub duration: Option<u64>,
    /// The id that the plan has given it.
    pub id: u64,
}

/// A fault of a connection, and how far the connection was when it got it.
#[derive(Debug, Clone, Copy)]
pub struct Suffered {
    order: Order,
    written: usize,
    read: usize,
    heard: usize,
    is_over: bool,
}

const EFFECTS: &str = "delay 20ms, delay 30ms+-30ms, slice 3/2ms, slice 40, rate 2KiB/s, short 1, short 7, stall, \
    deaf, corrupt, hold-open, shut, close, reset, reset";
const DOORS: [&str; 2] = ["refuse", "never-accept"];

/// Effects that end something early.
pub const ENDS: [&str; 3] = ["shut", "close", "reset"];
/// How the reason of a stalled connection ends that has outlived its client.
pub const ABANDONED: &str = "(linger timeout after the client's EOF)";
/// Effects that withhold an end.
pub const HOLDS: [&str; 2] = ["hold-open", "stall"];
/// Effects that suspend the bounds of time, or withhold what the model waits for.
const SLOW: [&str; 6] = ["delay", "slice", "rate", "stall", "deaf", "hold-open"];

impl Order {
    pub fn draw(random: &mut Random) -> Order {
        let listener = random.below(4);
        let numbers = 1 + random.below(4);
        if random.percent(15) {
            let whom = random.pick(&[Whom::Every, Whom::Numbers(numbers, numbers + 1)]);
            let moment = random.pick(&[Moment::Accept, Moment::Millis(50)]);
            let duration = random.pick(&[None, Some(70)]);
            return Order { listener, whom, effect: random.pick(&DOORS), moment, duration, id: 0 };
        }
        let last = numbers + random.below(3);
        let size = random.pick(&[0, 1, 5, 30, 100]);
        let mut order = Order {
            listener,
            whom: random.pick(&[
                Whom::Every,
                Whom::Every,
                Whom::New,
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
            duration: None,
            id: 0,
        };
        if !order.does(&ENDS) && !order.does(&["corrupt"]) {
            order.duration = random.pick(&[None, None, Some(0), Some(15), Some(900)]);
        }
        order
    }

    pub fn does(&self, effects: &[&str]) -> bool {
        effects.contains(&self.effect.split(' ').next().unwrap_or_default())
    }

    fn is_of_listener(&self) -> bool {
        self.does(&DOORS)
    }
}

impl Suffered {
    fn new(order: Order, socket: &Socket) -> Suffered {
        let Socket { written, read, heard, .. } = *socket;
        Suffered { order, written, read, heard, is_over: false }
    }

    /// Returns whether the model knows that the connection has this fault and that it goes on.
    fn is_certain(&self) -> bool {
        let is_chosen = !matches!(self.order.whom, Whom::Percent(_));
        is_chosen && !self.is_over && self.order.duration.is_none()
    }

    /// Returns whether it surely acts.
    fn is_due(&self, socket: &Socket) -> bool {
        match self.order.moment {
            Moment::Accept => true,
            Moment::Sent(size) => socket.written >= self.written + size,
            Moment::Received(size) => socket.read >= self.read + size,
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
            Whom::New => write!(f, " new")?,
            Whom::Once => write!(f, " once")?,
            Whom::Numbers(first, last) => write!(f, " #{first}..{last}")?,
            Whom::Percent(chance) => write!(f, " {chance}%")?,
        }
        write!(f, ": {}", self.effect)?;
        match self.moment {
            Moment::Accept => {}
            Moment::Sent(size) => write!(f, " after {size} bytes")?,
            Moment::Received(size) => write!(f, " after {size} bytes in")?,
            Moment::Millis(millis) => write!(f, " after {millis}ms")?,
            Moment::Eof => write!(f, " at eof")?,
            Moment::Write(number) => write!(f, " at write {number}")?,
        }
        self.duration.map_or(Ok(()), |millis| write!(f, " for {millis}ms"))
    }
}

impl World {
    /// A connection was accepted: it gets its faults, counted as the language counts.
    pub fn afflict(&mut self, listener: usize, sid: usize) {
        let queue = &mut self.queues[listener];
        queue.accepted += 1;
        let (number, mut is_first) = (queue.accepted, true);
        let mut drawn = Vec::new();
        self.orders.retain(|order| {
            let is_meant = order.listener == listener
                && !order.is_of_listener()
                && match order.whom {
                    Whom::Once => std::mem::take(&mut is_first),
                    whom => whom == Whom::New || whom.includes(number),
                };
            drawn.extend(is_meant.then_some(*order));
            !(is_meant && order.whom == Whom::Once)
        });
        let socket = &mut self.sockets[sid];
        (socket.listener, socket.number) = (Some(listener), number);
        drawn.into_iter().for_each(|order| socket.suffer(order));
    }

    /// Returns whether a flipped bit would look like one of the bytes of a handle.
    pub fn is_ambiguous(&self, order: &Order) -> bool {
        let is_one =
            |socket: &Socket| socket.listener == Some(order.listener) && socket.through_handle > 0;
        order.does(&["corrupt"]) && self.sockets.iter().any(is_one)
    }

    /// A fault was added: open connections get it, too.
    pub fn add_order(&mut self, order: Order) {
        let is_open =
            |socket: &&mut Socket| socket.is_live() && socket.listener == Some(order.listener);
        for socket in self.sockets.iter_mut().filter(is_open) {
            if order.whom.includes(socket.number) && !order.is_of_listener() {
                socket.suffer(order);
            }
        }
        self.orders.push(order);
    }

    /// Faults end: that with this id, or all of them.
    pub fn end_orders(&mut self, id: Option<u64>) {
        let ends = |order: &Order| id.is_none_or(|id| order.id == id);
        self.orders.retain(|order| !ends(order));
        for socket in &mut self.sockets {
            for fault in socket.faults.iter_mut().filter(|fault| ends(&fault.order)) {
                fault.is_over = true;
            }
        }
        self.faults_end_now();
    }

    /// The timeouts of the connections whose faults have ended begin anew.
    pub fn faults_end_now(&mut self) {
        let has_ended = |socket: &&mut Socket| socket.faults.iter().any(|fault| fault.is_over);
        for socket in self.sockets.iter_mut().filter(has_ended) {
            socket.healed_at = self.now;
        }
    }

    /// Whether a fault leaves clients in the backlog.
    pub fn is_locked(&self, listener: usize) -> bool {
        self.orders.iter().any(|order| order.listener == listener && order.is_of_listener())
    }
}

impl Whom {
    /// Returns whether it is for a connection that is open, or may be.
    fn includes(self, number: usize) -> bool {
        match self {
            Whom::Every | Whom::Percent(_) => true,
            Whom::New | Whom::Once => false,
            Whom::Numbers(first, last) => (first..=last).contains(&number),
        }
    }
}

impl Socket {
    fn suffer(&mut self, order: Order) {
        let hears = matches!(order.moment, Moment::Received(_));
        let flips = if hears { &mut self.flips_in } else { &mut self.flips_out };
        *flips += usize::from(order.does(&["corrupt"]));
        self.was_hurt |= order.does(&["close", "reset"]);
        self.faults.push(Suffered::new(order, self));
    }

    /// Returns whether a fault has, or had, one of these effects.
    pub fn suffers(&self, effects: &[&str]) -> bool {
        self.faults.iter().any(|fault| fault.order.does(effects))
    }

    /// Returns whether a fault has ended it.
    pub fn is_cut(&self) -> bool {
        let reason = self.reason.as_deref().unwrap_or_default();
        self.suffers(&ENDS) || reason.ends_with(ABANDONED)
    }

    /// Returns whether nothing but the peer determines what happens next, and when.
    pub fn is_timed(&self) -> bool {
        let is_slow = |fault: &Suffered| !fault.is_over && fault.order.does(&SLOW);
        !self.suffers(&ENDS) && !self.faults.iter().any(is_slow)
    }

    /// Returns whether a stall surely holds it.
    pub fn is_stalled(&self) -> bool {
        let stalls = |fault: &Suffered| fault.is_certain() && fault.order.does(&["stall"]);
        self.faults.iter().any(|fault| stalls(fault) && fault.is_due(self))
    }

    /// What its faults forbid, and happened all the same; or the reverse.
    pub fn unlike_its_faults(&self) -> Option<String> {
        self.faults.iter().filter(|fault| fault.is_certain()).find_map(|fault| {
            let order = fault.order;
            let most = match order.moment {
                Moment::Accept => 0,
                Moment::Sent(size) | Moment::Received(size) => size,
                _ => return None,
            };
            let is_incoming = matches!(order.moment, Moment::Received(_));
            let goes_on = order.does(&["stall", "shut", "close", "reset"])
                && !is_incoming
                && self.written > fault.written + most;
            let listens = order.does(&["deaf"])
                && !self.suffers(&["close"])
                && (is_incoming || order.moment == Moment::Accept)
                && self.read > fault.read + most;
            (goes_on || listens).then(|| format!("goes on in spite of `{order}`"))
        })
    }

    /// Whether it should have been reset and not have come to a good end.
    pub fn is_to_be_reset(&self) -> bool {
        let resets = |fault: &Suffered| fault.is_certain() && fault.order.does(&["reset"]);
        self.faults.iter().any(|fault| resets(fault) && fault.is_due(self))
    }

    /// Whether a bit that should have been flipped was not.
    pub fn is_spared(&self) -> bool {
        let [fault] = self.faults[..] else { return false };
        let is_past = match fault.order.moment {
            Moment::Accept => self.written > fault.written,
            Moment::Sent(size) => self.written > fault.written + size,
            Moment::Received(size) => self.heard > fault.heard + size,
            _ => false,
        };
        fault.is_certain() && is_past && self.flips_in + self.flips_out > 0
    }
}

/// The plan that the loop obeys, if it has one.
#[cfg(feature = "testing")]
#[derive(Debug, Default)]
pub struct Faults(pub Option<campanile::testing::Plan>);

#[cfg(feature = "testing")]
impl Faults {
    /// Adds it and returns its id; `None` if it makes no sense.
    pub fn add(&self, order: &Order) -> Option<u64> {
        self.0.as_ref()?.add(order.to_string().parse().ok()?).ok()
    }

    /// Ends one fault, or all.
    pub fn end(&self, id: Option<u64>) {
        match (&self.0, id) {
            (Some(plan), Some(id)) => drop(plan.remove(id)),
            (Some(plan), None) => drop(plan.clear()),
            (None, _) => {}
        }
    }

    /// Returns whether the loop has acted on every change.
    pub fn is_settled(&self) -> bool {
        self.0.as_ref().is_none_or(|plan| plan.settle(Duration::ZERO))
    }
}

#[cfg(not(feature = "testing"))]
#[derive(Debug, Default)]
pub struct Faults;

#[cfg(not(feature = "testing"))]
impl Faults {
    pub fn add(&self, _: &Order) -> Option<u64> {
        None
    }

    pub fn end(&self, _: Option<u64>) {}

    pub fn is_settled(&self) -> bool {
        true
    }
}
