//! Runs a plan: actions, turns, and after every turn the question whether anything is wrong.

use std::cell::RefCell;
use std::collections::HashSet;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::panic::catch_unwind;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use campanile::{Accepted, ConnId, Reactor, sys::Kernel};

use super::check;
use super::contract::Contract;
use super::fake::NOW;
use super::faults::{ENDS, Faults, Order};
use super::kernel::{Bell, Sim};
use super::plan::{Action, Dialled, Plan};
use super::random::Random;
use super::socket::{Link, Service, Socket};
use super::traced::{SharedTrace, Trace, Traced};
use super::witness::{Boom, Witness, boom};
use super::world::{CHUNK, Selector, Shared, World, injection};

/// More turns than any of this needs: a byte a turn, and some for everybody.
const MANY: usize = 50_000;

/// What a run leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    pub trace: u64,
    pub turns: u64,
    pub connections: usize,
}

/// Runs a plan to its end; or tells what was wrong.
pub fn run(plan: &Plan) -> Result<Report, String> {
    let outcome = catch_unwind(|| {
        #[cfg(feature = "testing")]
        if plan.is_faulty {
            return Simulation::faulty(plan).play(plan);
        }
        Simulation::new(plan).play(plan)
    });
    outcome.unwrap_or_else(|panic| Err(format!("the library panicked: {}", message(&*panic))))
}

fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("without a word")
}

type Ids = Rc<RefCell<Vec<(ConnId, usize)>>>;

pub struct Simulation<K: Kernel = Traced<Sim>> {
    pub world: Shared,
    pub reactor: Reactor<K>,
    pub bell: Arc<Bell>,
    ids: Ids,
    seed: u64,
    spins: usize,
    trace: SharedTrace,
    pub faults: Faults,
}

/// A world with its kernel, and what is said between the kernel and the loop.
fn traced(world: &Shared) -> (Traced<Sim>, SharedTrace) {
    let is_noisy = world.borrow().selector == Selector::Noise;
    let trace = Trace::new(Contract::new(is_noisy, true), false);
    (Traced::new(Sim::new(world), &trace), trace)
}

fn world(plan: &Plan) -> Shared {
    let mut world = World::new(plan.selector, plan.seed, plan.capacity, plan.limits.clone());
    world.is_told = plan.is_told;
    Rc::new(RefCell::new(world))
}

impl Simulation {
    pub fn new(plan: &Plan) -> Simulation {
        Simulation::within(world(plan), plan)
    }

    /// The same in a world that was prepared.
    pub fn within(world: Shared, plan: &Plan) -> Simulation {
        let (kernel, trace) = traced(&world);
        let reactor = Reactor::with_kernel(kernel, plan.limits.clone());
        Simulation::on(reactor, world, trace, Faults::default(), plan, |_| ())
    }
}

#[cfg(feature = "testing")]
impl Simulation<campanile::testing::Faulty<Traced<Sim>>> {
    /// On a kernel that obeys the fault language.
    pub fn faulty(plan: &Plan) -> Self {
        use campanile::testing::{self, Book, Faulty};
        let world = world(plan);
        let (kernel, trace) = traced(&world);
        let (faults, book) = (testing::Plan::new(plan.seed), Book::new(0));
        let kernel = Faulty::new(kernel, &faults, &book);
        let reactor = Reactor::with_kernel(kernel, plan.limits.clone());
        Simulation::on(reactor, world, trace, Faults(Some(faults)), plan, |listener| {
            book.serving(&format!("s{listener}"));
        })
    }
}

impl<K: Kernel> Simulation<K> {
    fn on(
        mut reactor: Reactor<K>,
        world: Shared,
        trace: SharedTrace,
        faults: Faults,
        plan: &Plan,
        name: impl Fn(usize),
    ) -> Simulation<K> {
        let (ids, seed) = (Ids::default(), plan.seed);
        let seen = Rc::new(RefCell::new(HashSet::new()));
        world.borrow_mut().services = plan.services.clone();
        for listener in 0..plan.services.len() {
            let make = maker(&world, &ids, &seen, seed);
            name(listener);
            // Under torture this may fail, and the others go on.
            let _ = reactor.listen("127.0.0.1:0", make);
        }
        let bell = world.borrow().bell.clone();
        Simulation { world, reactor, bell, ids, seed, spins: 0, trace, faults }
    }

    fn play(&mut self, plan: &Plan) -> Result<Report, String> {
        for action in &plan.actions {
            self.act(*action);
            self.verdict()?;
        }
        self.finish()?;
        Ok(self.report())
    }

    /// One turn, and what can be asked after it.
    pub fn turn(&mut self, patience: Option<Duration>) {
        let (progress, was_due) = (self.world.borrow().progress, self.reactor.timeout() == NOW);
        let outcome = self.reactor.turn(patience);
        match (outcome, &mut *self.world.borrow_mut()) {
            (Ok(()), world) => world.turns += 1,
            // Under torture poll may fail. The next turn finds the loop unharmed.
            (Err(error), world) => {
                if world.torture.map(|torture| torture.errno) != error.raw_os_error() {
                    world.violate(format!("a turn failed: {error}"));
                }
            }
        }
        check::after_turn(self);
        self.world.borrow_mut().end_line(&format!("turn {}", self.reactor.stats().turns));
        if let Some(violation) = self.trace.borrow_mut().contract.violation.take() {
            self.world.borrow_mut().violate(format!("no kernel does that: {violation}"));
        }
        let world = &mut *self.world.borrow_mut();
        let is_idle = was_due && world.progress == progress && world.batch.is_empty();
        self.spins = if is_idle { self.spins + 1 } else { 0 };
        // What a fault swallows is done in turns, too, and makes no progress that we see.
        let swallows = world.sockets.iter().any(|socket| socket.is_live() && socket.suffers(&ENDS));
        if self.spins > if swallows { 5_000 } else { 5 } {
            world.violate("the loop spins");
        }
    }

    /// Turns without sleeping until nothing is left to do at once.
    pub fn settle(&mut self) {
        for _ in 0..MANY {
            self.turn(NOW);
            if !self.world.borrow().violations.is_empty() || check::is_quiet(self) {
                return;
            }
        }
        self.world.borrow_mut().violate("never comes to rest");
    }

    /// Lets time pass in the loop's own sleep.
    pub fn sleep(&mut self, length: Duration) {
        let until = self.world.borrow().now + length;
        for _ in 0..MANY {
            let left = until.saturating_sub(self.world.borrow().now);
            self.turn(Some(left));
            if left.is_zero() || !self.world.borrow().violations.is_empty() {
                return;
            }
        }
        self.world.borrow_mut().violate("never sleeps");
    }

    pub fn verdict(&self) -> Result<(), String> {
        match self.world.borrow().violations.first() {
            Some(violation) => Err(violation.clone()),
            None => Ok(()),
        }
    }

    fn who(&self, who: usize) -> Option<usize> {
        let count = self.world.borrow().sockets.len();
        // Half of the time one of the last few is meant: they are in the middle of something.
        let recent = if who & 1 > 0 { count.min(4) } else { count };
        (count > 0).then(|| count - 1 - (who >> 1) % recent)
    }

    /// Does something at the far end of somebody; it says which edges that makes: to read, to
    /// write, and whether epoll tells of it whatever was before.
    fn at(&self, who: usize, what: impl FnOnce(&mut Socket, Duration) -> [bool; 3]) {
        let Some(sid) = self.who(who) else { return };
        let world = &mut *self.world.borrow_mut();
        let [readable, writable, loud] = what(&mut world.sockets[sid], world.now);
        world.edge(sid, readable, writable, loud);
    }

    fn id(&self, who: usize) -> Option<(ConnId, usize)> {
        let ids = self.ids.borrow();
        let recent = if who & 1 > 0 { ids.len().min(4) } else { ids.len() };
        (recent > 0).then(|| ids[ids.len() - 1 - (who >> 1) % recent])
    }

    /// The action in words, with the number of the socket that it means; empty if there is none.
    fn words(&self, action: Action) -> String {
        let text = format!("{action:?}").replace([',', ':', '}'], "").replace(" {", ":");
        let Some((head, rest)) = text.split_once("who ") else { return text };
        let (who, tail) = rest.split_once(' ').unwrap_or((rest, ""));
        let who = who.parse().expect("a number");
        let is_command = text.starts_with("Handle");
        let sid = if is_command { self.id(who).map(|id| id.1) } else { self.who(who) };
        sid.map_or(String::new(), |sid| format!("{head}#{sid} {tail}"))
    }

    pub fn act(&mut self, action: Action) {
        if !matches!(action, Action::Turn { .. } | Action::Settle | Action::Sleep { .. }) {
            let (words, world) = (self.words(action), &mut *self.world.borrow_mut());
            world.tell(None, &words);
            world.end_line("");
        }
        match action {
            Action::Turn { times } => (0..times).for_each(|_| self.turn(NOW)),
            Action::Settle => self.settle(),
            Action::Sleep { millis } => self.sleep(Duration::from_millis(millis)),
            Action::Pass { millis } => {
                self.world.borrow_mut().now += Duration::from_millis(millis);
            }
            Action::Shutdown { grace } => self.shutdown(Duration::from_millis(grace)),
            Action::HandleSend { .. } | Action::HandleClose { .. } | Action::HandleWake { .. } => {
                self.command(action);
            }
            Action::Dial { service, outcome } => self.dial(service, outcome),
            Action::Connect { listener, ip, room, sends, ends } => {
                if let Some(sid) = self.connect(listener, ip, room) {
                    let world = &mut *self.world.borrow_mut();
                    world.say(sid, sends);
                    world.sockets[sid].fin = ends;
                }
            }
            Action::FailAccept { listener, errno, times } => {
                let world = &mut *self.world.borrow_mut();
                let listener = listener % world.queues.len();
                world.queues[listener].errors.extend(std::iter::repeat_n(errno, times));
            }
            Action::Break { listener, errno } => {
                let world = &mut *self.world.borrow_mut();
                let listener = listener % world.queues.len();
                world.queues[listener].broken = Some(errno);
            }
            Action::FailRegister { errno } => {
                self.world.borrow_mut().fail_registers.push_back(errno);
            }
            Action::Fault(mut order) => {
                order.listener %= self.world.borrow().queues.len();
                if self.world.borrow().is_ambiguous(&order) {
                    return;
                }
                if let Some(id) = self.faults.add(&order) {
                    self.world.borrow_mut().add_order(Order { id, ..order });
                }
            }
            Action::Heal(nth) => {
                let order = self.world.borrow().orders.get(nth).copied();
                order.into_iter().for_each(|order| self.end_faults(Some(order.id)));
            }
            Action::Mend => self.end_faults(None),
            Action::InterruptPoll => {
                self.world.borrow_mut().fail_polls.push_back(ErrorKind::Interrupted)
            }
            other => self.act_afar(other),
        }
    }

    /// Ends one fault of the language, or all.
    fn end_faults(&mut self, id: Option<u64>) {
        self.faults.end(id);
        self.world.borrow_mut().end_orders(id);
    }

    /// What the far ends do.
    fn act_afar(&mut self, action: Action) {
        match action {
            Action::Send { who, count } => self.at(who, |socket, _| {
                let may = !socket.fin && !socket.was_reset && socket.link == Link::Up;
                socket.sent += if may { count } else { 0 };
                [may, false, false]
            }),
            Action::Urgent { who, behind } => self.at(who, |socket, _| {
                let may = !socket.fin && !socket.was_reset && socket.link == Link::Up;
                if may {
                    socket.marks.push_back(socket.sent);
                    socket.sent += behind;
                }
                [may, false, may]
            }),
            Action::End { who } => self.at(who, |socket, _| {
                let may = !socket.was_reset && socket.link == Link::Up;
                socket.fin |= may;
                [may, false, may]
            }),
            Action::Reset { who, keeps_data } => self.at(who, |socket, _| {
                if socket.link == Link::Up && !socket.was_reset {
                    socket.reset(keeps_data);
                }
                [true, true, true]
            }),
            Action::Read { who, room } => self.at(who, |socket, _| {
                socket.room += room;
                [false, socket.link == Link::Up, false]
            }),
            Action::Result { who, errno } => self.at(who, |socket, _| {
                let is_due = socket.link == Link::Pending;
                if is_due {
                    socket.link = errno.map_or(Link::Up, Link::Refused);
                }
                [is_due && errno.is_some(), is_due, is_due]
            }),
            Action::Interrupt { who } => self.at(who, |socket, _| {
                socket.interrupts += 1;
                [false; 3]
            }),
            Action::Short { who, count } => self.at(who, |socket, _| {
                socket.short = Some(count);
                [false; 3]
            }),
            Action::Fail { who, errno } => self.at(who, |socket, _| {
                (socket.fail_next, socket.was_hurt) = (Some(errno), true);
                [false; 3]
            }),
            Action::Delay { who, millis } => self.at(who, |socket, now| {
                let until = now + Duration::from_millis(millis);
                socket.delayed_to = socket.delayed_to.max(Some(until));
                [false; 3]
            }),
            _ => unreachable!("the other actions are none of a far end"),
        }
    }

    /// A client that waits in a backlog, unless the listener is gone.
    pub fn connect(&mut self, listener: usize, ip: u8, room: usize) -> Option<usize> {
        let world = &mut *self.world.borrow_mut();
        let listener = listener % world.queues.len();
        let queue = &world.queues[listener];
        if queue.closed || !queue.exists || queue.broken.is_some() {
            return None;
        }
        let ip = Ipv4Addr::new(10, 0, 0, ip).into();
        let sid = world.add(world.services[listener], Some(ip), Link::Up, room);
        world.arrive(listener, sid);
        Some(sid)
    }

    pub fn dial(&mut self, service: Service, outcome: Dialled) {
        let sid = {
            let world = &mut *self.world.borrow_mut();
            let link = if outcome == Dialled::Up { Link::Up } else { Link::Pending };
            let sid = world.add(service, None, link, 1 << 20);
            world.dials.push_back(match outcome {
                Dialled::AtOnce(errno) => Err(errno),
                _ => Ok(sid),
            });
            sid
        };
        let witness = Witness::new(&self.world, sid, self.seed);
        let addr = std::net::SocketAddr::from(([10, 0, 0, 99], sid as u16));
        let id = self.reactor.connect(addr, witness);
        let world = &mut *self.world.borrow_mut();
        world.dials.clear();
        let has_failed = world.sockets[sid].closed;
        world.trace("dial", sid, usize::from(!has_failed));
        if has_failed {
            (world.sockets[sid].dropped, world.sockets[sid].made) = (true, false);
        } else {
            world.identify(sid, id);
            self.ids.borrow_mut().push((id, sid));
        }
    }

    fn command(&mut self, action: Action) {
        let handle = self.reactor.handle();
        let (Action::HandleSend { who } | Action::HandleClose { who } | Action::HandleWake { who }) =
            action
        else {
            return;
        };
        let Some((id, sid)) = self.id(who) else { return };
        self.world.borrow_mut().sockets[sid].is_commanded = true;
        match action {
            Action::HandleClose { .. } => {
                self.world.borrow_mut().sockets[sid].asked_close |= handle.close(id).is_ok();
            }
            Action::HandleWake { .. } => {
                let taken = usize::from(handle.wake_connection(id).is_ok());
                self.world.borrow_mut().sockets[sid].wakes_asked += taken;
            }
            _ => {
                self.send(id, sid);
            }
        }
    }

    /// Sends a chunk through a handle; its number, if the mailbox took it.
    fn send(&mut self, id: ConnId, sid: usize) -> Option<u64> {
        // Bytes that look like a chunk's would be taken for one.
        if self.world.borrow().sockets[sid].suffers(&["corrupt"]) {
            return None;
        }
        self.world.borrow_mut().sockets[sid].is_commanded = true;
        let number = self.world.borrow().sockets[sid].asked_chunks + 1;
        self.reactor.handle().send(id, injection(sid, number)).ok()?;
        let socket = &mut self.world.borrow_mut().sockets[sid];
        socket.asked_chunks = number;
        socket.through_handle += CHUNK;
        Some(number)
    }

    pub fn shutdown(&mut self, grace: Duration) {
        self.reactor.handle().shutdown(grace);
        let world = &mut *self.world.borrow_mut();
        let until = world.now + grace;
        let before = world.shutdown.map_or(Duration::MAX, |(at, grace)| at + grace);
        if until < before {
            world.shutdown = Some((world.now, grace));
        }
    }

    /// The faults stop: all must be done within so many turns, the loop rest, and its end come.
    pub fn finish(&mut self) -> Result<(), String> {
        self.calm();
        self.settle();
        let is_slow = self.world.borrow().sockets.iter().any(|socket| !socket.faults.is_empty());
        self.sleep(if is_slow { Duration::from_secs(3600) } else { Duration::from_millis(500) });
        self.settle();
        self.verdict()?;
        check::everybody_is_done(self);
        self.probe();
        self.verdict()?;
        let grace = Random::new(self.seed ^ 0xe4d).pick(&[0, 1, 5_000]);
        self.shutdown(Duration::from_millis(grace));
        for _ in 0..MANY {
            if self.reactor.is_finished() {
                check::after_the_end(self);
                return self.verdict();
            }
            self.turn(None);
            self.verdict()?;
        }
        Err("the loop never ends".into())
    }

    /// No more faults; whoever talked ends, whoever stalled reads.
    fn calm(&mut self) {
        self.end_faults(None);
        let world = &mut *self.world.borrow_mut();
        world.is_calm = true;
        world.fail_registers.clear();
        world.fail_polls.clear();
        world.queues.iter_mut().for_each(|queue| queue.errors.clear());
        for sid in 0..world.sockets.len() {
            let socket = &mut world.sockets[sid];
            (socket.interrupts, socket.fail_next, socket.short) = (0, None, None);
            socket.room = usize::MAX / 2;
            if socket.link == Link::Pending {
                socket.link = Link::Up;
            }
            socket.fin |= !socket.was_reset;
            world.edge(sid, true, true, true);
        }
    }

    /// Whoever comes now is served as if nothing had been.
    fn probe(&mut self) {
        let is_full = self.reactor.connections() >= self.world.borrow().limits.max_connections;
        if is_full || self.world.borrow().shutdown.is_some() {
            return;
        }
        let Some(sid) = self.connect(0, 200, usize::MAX / 2) else { return };
        self.world.borrow_mut().say(sid, 100);
        self.settle();
        let found = self.ids.borrow().iter().find(|(_, of)| *of == sid).copied();
        let number = found.and_then(|(id, sid)| self.send(id, sid));
        self.settle();
        let world = &mut *self.world.borrow_mut();
        let is_served = world.sockets[sid].delivered == 100;
        if !is_served || !number.is_some_and(|number| world.has_got_chunk(sid, number)) {
            world.violate(format!("a newcomer is not served: {}", world.sockets[sid].brief()));
        }
        world.sockets[sid].fin = true;
        world.edge(sid, true, false, true);
    }

    fn report(&self) -> Report {
        let world = self.world.borrow();
        Report {
            trace: world.hash,
            turns: self.reactor.stats().turns,
            connections: world.sockets.len(),
        }
    }

    /// Whether the panic that the reactor kept is one of ours.
    pub fn kept_a_panic_of_ours(&mut self) -> bool {
        self.reactor.take_panic().is_none_or(|panic| panic.is::<Boom>())
    }
}

fn maker(
    world: &Shared,
    ids: &Ids,
    seen: &Rc<RefCell<HashSet<ConnId>>>,
    seed: u64,
) -> impl FnMut(&Accepted) -> Witness + 'static {
    let (world, ids, seen) = (world.clone(), ids.clone(), seen.clone());
    move |new| {
        let sid = usize::from(new.peer.inet().expect("an IP address").port());
        if !seen.borrow_mut().insert(new.id) {
            world.borrow_mut().violate(format!("{} was given to two", new.id));
        }
        let is_moody = world.borrow().sockets[sid].service == Service::Moody;
        if is_moody && Random::new(seed ^ sid as u64).percent(5) {
            boom(&world, sid);
        }
        world.borrow_mut().identify(sid, new.id);
        ids.borrow_mut().push((new.id, sid));
        Witness::new(&world, sid, seed)
    }
}
