//! What must hold after every turn, whenever the loop rests, and in the end.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use campanile::sys::{Input, Kernel, Output, Snapshot};

use super::faults::ENDS;
use super::run::Simulation;
use super::socket::{Service, Socket};
use super::world::{Queue, World};

/// Deadlines are counted in milliseconds, rounded up, twice.
const ROUNDING: Duration = Duration::from_millis(2);

/// Whether the loop rests: no event waits, and nothing is due.
pub fn is_quiet<K: Kernel>(simulation: &Simulation<K>) -> bool {
    let is_silent = simulation.world.borrow().is_silent() && !simulation.bell.is_rung();
    is_silent
        && simulation.faults.is_settled()
        && simulation.reactor.timeout() != Some(Duration::ZERO)
}

pub fn after_turn<K: Kernel>(simulation: &Simulation<K>) {
    let (is_quiet, rest) = (is_quiet(simulation), simulation.reactor.timeout());
    let (reactor, world) = (&simulation.reactor, &mut *simulation.world.borrow_mut());
    if !simulation.faults.is_settled() {
        // A fault ends in the turn that acts on the change, whenever that turn comes.
        world.faults_end_now();
    }
    let stats = reactor.stats();
    let connections = reactor.connections();
    if stats.accepted + stats.connecting - stats.closed != connections as u64 {
        world.violate(format!("{connections} connections, but {stats:?}"));
    }
    if world.left_behind > 0 && rest != Some(Duration::ZERO) {
        world.violate("sleeps on events that did not fit into the batch");
    }
    if connections > world.limits.max_connections {
        world.violate(format!("{connections} connections at once"));
    }
    if let Some(max) = world.limits.max_per_peer {
        let mut peers = HashMap::<IpAddr, usize>::new();
        for socket in world.sockets.iter().filter(|socket| socket.is_live()) {
            socket.ip.into_iter().for_each(|ip| *peers.entry(ip).or_default() += 1);
        }
        if peers.values().any(|&count| count > max) {
            world.violate("a peer has more than its share");
        }
    }
    for sid in 0..world.sockets.len() {
        let socket = &world.sockets[sid];
        if !socket.is_live() {
            continue;
        }
        let wrong = out_of_bounds(world, socket)
            .or_else(|| socket.unlike_its_faults())
            .or_else(|| overdue(world, socket))
            .or_else(|| if is_quiet { stuck(world, socket) } else { None });
        if let Some(wrong) = wrong {
            world.violate(format!("socket {sid} {wrong}: {}", world.sockets[sid].brief()));
        }
    }
    leftovers_take_turns(world);
    if is_quiet {
        let is_full = connections >= world.limits.max_connections;
        nobody_is_kept_waiting(world, rest, is_full);
    }
}

/// The bounds of one turn and of what is owed.
fn out_of_bounds(world: &World, socket: &Socket) -> Option<String> {
    let limits = &world.limits;
    // What comes after our end by `close` is discarded at once.
    if socket.read_this_turn > limits.leftover_budget && !socket.suffers(&["close"]) {
        return Some("was read beyond its budget".into());
    }
    // What a handle asks for has a budget of its own.
    if socket.written_this_turn > limits.leftover_budget && !socket.is_commanded {
        return Some("was written beyond its budget".into());
    }
    let view = socket.view.as_ref()?;
    if socket.service == Service::Echo && view.unsent > limits.high_water + socket.through_handle {
        return Some("is owed more than the high-water mark".into());
    }
    if view.unsent > limits.max_send_queue {
        return Some("is owed more than may ever be".into());
    }
    let is_exact = socket.through_handle == 0
        && !socket.asked_abort
        && !socket.panicked
        && !socket.suffers(&ENDS);
    if is_exact && view.unsent != socket.owed() {
        return Some(format!("is owed {}, not {}", socket.owed(), view.unsent));
    }
    None
}

/// With `k` connections that have work left over, each of them runs again within `k` turns, however
/// many others have new events.
fn leftovers_take_turns(world: &mut World) {
    let (turn, low_water) = (world.turns, world.limits.low_water);
    let has_work = |socket: &Socket| {
        let Some(view) = &socket.view else { return false };
        let drains = view.congested && view.output == Output::Open && view.unsent <= low_water;
        let works = view.readable && view.wants_read || view.writable && view.wants_write || drains;
        socket.is_live() && socket.opened && works
    };
    let count = world.sockets.iter().filter(|socket| has_work(socket)).count() as u64;
    for sid in 0..world.sockets.len() {
        let is_left_over = has_work(&world.sockets[sid]);
        let socket = &mut world.sockets[sid];
        if socket.ran_this_turn || !is_left_over {
            socket.runs_until = is_left_over.then_some(turn + count);
        } else if socket.runs_until.is_some_and(|until| turn >= until) {
            let brief = socket.brief();
            world.violate(format!("socket {sid} has waited too long for its turn: {brief}"));
        }
    }
}

fn is_talking(view: &Snapshot) -> bool {
    !view.closed && (view.input == Input::Open || view.output == Output::Open)
}

/// Whether a bound of time has passed and nobody came to look.
fn overdue(world: &World, socket: &Socket) -> Option<String> {
    let (limits, now) = (&world.limits, world.now);
    let view = socket.view.as_ref()?;
    let passed = |bound: Option<Duration>, since: Duration| {
        bound.is_some_and(|bound| now.saturating_sub(since) > bound + ROUNDING)
    };
    // Found out within a fifth of the time more.
    let shared = |bound: Option<Duration>| bound.map(|bound| bound + bound / 5);
    let progress = socket.last_read.max(socket.last_write).max(socket.healed_at);
    if !socket.opened {
        let is_late = passed(shared(Some(limits.connect_timeout)), socket.born);
        return is_late.then(|| "should have given up connecting".into());
    }
    if passed(limits.max_lifetime, socket.born) {
        return Some("has lived for too long".into());
    }
    if !socket.is_timed() {
        return None;
    }
    let is_lingering = view.closed && (view.input, view.output) == (Input::Open, Output::Shut);
    // Whoever half-closed and closed later has listened until then.
    let lingers_since = socket.deaf_since.unwrap_or_default().max(socket.shut_at);
    if is_lingering && passed(Some(limits.linger_timeout), lingers_since) {
        return Some("lingers for too long".into());
    }
    let stall = limits.write_timeout.or(limits.idle_timeout);
    let since = progress.max(socket.owed_since.unwrap_or_default());
    if view.unsent > 0 && passed(shared(stall), since) {
        return Some("stalls for too long".into());
    }
    if !is_lingering
        && view.unsent == 0
        && passed(shared(limits.idle_timeout), progress.max(socket.shut_at))
    {
        return Some("is idle for too long".into());
    }
    let is_late = passed(Some(Duration::ZERO), socket.timer.unwrap_or(Duration::MAX));
    (is_late && is_talking(view)).then(|| "was not woken".into())
}

/// Whether the loop sleeps on work: the one thing that no event would ever mend.
fn stuck(world: &World, socket: &Socket) -> Option<String> {
    if socket.is_delayed(world.now) || !socket.is_timed() {
        return None;
    }
    let view = socket.view.as_ref()?;
    if wants_read(world, socket, view) && (view.readable || socket.is_readable()) {
        return Some("is not read".into());
    }
    let wants_write = view.unsent > 0 || !socket.opened;
    if wants_write && (view.writable || socket.is_writable()) {
        return Some("is not written to".into());
    }
    let told = (view.wants_read, view.wants_write);
    (told != (wants_read(world, socket, view), wants_write))
        .then(|| "tells another interest".into())
}

/// What the loop must want of a peer, reckoned from the state and not taken from its word.
fn wants_read(world: &World, socket: &Socket, view: &Snapshot) -> bool {
    let has_room = !view.congested && view.unsent < world.limits.high_water;
    let needs_no_room = view.closed || view.output != Output::Open || view.reads_while_congested;
    socket.opened
        && view.input == Input::Open
        && (view.closed || !view.paused)
        && (has_room || needs_no_room)
}

/// Whoever waits in a backlog waits for a slot, or for a pause of a tenth of a second.
fn nobody_is_kept_waiting(world: &mut World, rest: Option<Duration>, is_full: bool) {
    let is_soon = rest.is_some_and(|rest| rest <= Duration::from_millis(101));
    let is_kept = |(listener, queue): (usize, &Queue)| {
        let is_open = queue.exists && !queue.closed && queue.broken.is_none();
        let is_open = is_open && !world.is_locked(listener);
        is_open && !queue.waiting.is_empty() && !(queue.is_starved && is_soon)
    };
    if !is_full && world.queues.iter().enumerate().any(is_kept) {
        world.violate("somebody waits in a backlog, and nobody will look");
    }
}

/// When the faults are over and every peer has ended, nothing is left of those who follow.
pub fn everybody_is_done<K: Kernel>(simulation: &Simulation<K>) {
    let world = &mut *simulation.world.borrow_mut();
    for sid in 0..world.sockets.len() {
        let socket = &world.sockets[sid];
        if socket.service == Service::Moody || !socket.made {
            continue;
        }
        let is_finished = socket.reason.as_deref() == Some("finished");
        let heard_all = socket.read == socket.sent && socket.eof;
        let is_all_said = socket.owed() == 0 || socket.is_cut();
        let wrong = if !socket.dropped {
            "is still there"
        } else if socket.is_spared() {
            "was to be told something false, and was not"
        } else if is_finished && !(heard_all && is_all_said) {
            "finished before everything was said"
        } else {
            continue;
        };
        world.violate(format!("in the end socket {sid} {wrong}: {}", world.sockets[sid].brief()));
    }
    let is_lost = |queue: &Queue| queue.exists && queue.closed && queue.broken.is_none();
    // Whoever has no slot left asks no listener, so none can be opened.
    let is_full = simulation.reactor.connections() >= world.limits.max_connections;
    // Under torture one may be broken for good.
    let is_whole = world.torture.is_none() && world.shutdown.is_none();
    if !is_full && is_whole && world.queues.iter().any(is_lost) {
        world.violate("a listener is still closed");
    }
}

pub fn after_the_end<K: Kernel>(simulation: &mut Simulation<K>) {
    if !simulation.kept_a_panic_of_ours() {
        simulation.world.borrow_mut().violate("a panic of somebody else");
    }
    let stats = simulation.reactor.stats().clone();
    let world = &mut *simulation.world.borrow_mut();
    let of_all = |what: fn(&Socket) -> usize| world.sockets.iter().map(what).sum::<usize>() as u64;
    // What is swallowed or discarded in between, the two count differently.
    let is_counted = !world.sockets.iter().any(Socket::is_cut);
    let counts = [
        ("bytes in", stats.bytes_in, of_all(|socket| socket.read)),
        ("bytes out", stats.bytes_out, of_all(|socket| socket.written)),
        ("panics", stats.panics, world.panics),
        ("protocols alive", world.protocols as u64, 0),
        ("aborts", stats.our_resets, of_all(|socket| usize::from(socket.made && socket.aborted))),
    ];
    for (what, counted, true_count) in counts {
        let is_of_bytes = matches!(what, "bytes in" | "bytes out" | "aborts");
        if counted != true_count && (is_counted || !is_of_bytes) {
            world.violate(format!("{what}: {counted}, and not {true_count}"));
        }
    }
    for sid in 0..world.sockets.len() {
        let socket = &world.sockets[sid];
        if socket.owner && !socket.dropped {
            world.violate(format!("socket {sid} leaks"));
        } else if socket.made && !socket.panicked && !socket.closed {
            world.violate(format!("socket {sid} never heard of its end"));
        }
    }
}
