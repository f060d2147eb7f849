//! Fails call 1, then call 2, then 3, until a run has no call left to fail; with every error that
//! the call's man page lists. Exhaustive for each of a few conversations.
//!
//! EAGAIN is not among them: on an edge-triggered selector it is a promise of an event, and a kernel
//! that breaks it is none.
#![cfg(target_os = "linux")]

mod common;
mod sim;

use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;

use campanile::Limits;
use libc::*;
use sim::plan::{Action, Dialled, Plan};
use sim::run::Simulation;
use sim::socket::{Link, Service};
use sim::world::{Selector, Torture, World};

/// A list of names from libc.
macro_rules! errnos {
    ($($name:ident)*) => { &[$($name),*] };
}

/// What the man page of a call lists, beside EAGAIN; for streams also what tcp(7) adds.
fn errnos(call: &str) -> &'static [i32] {
    match call {
        "recv" => errnos! {
            EBADF ECONNREFUSED EFAULT EINTR EINVAL ENOMEM ENOTCONN ENOTSOCK ECONNRESET ETIMEDOUT
            EHOSTUNREACH
        },
        "send" => errnos! {
            EACCES EALREADY EBADF ECONNRESET EDESTADDRREQ EFAULT EINTR EINVAL EISCONN EMSGSIZE
            ENOBUFS ENOMEM ENOTCONN ENOTSOCK EOPNOTSUPP EPIPE ETIMEDOUT
        },
        "shutdown" => errnos! { EBADF EINVAL ENOTCONN ENOTSOCK },
        "accept4" => errnos! {
            EBADF ECONNABORTED EFAULT EINTR EINVAL EMFILE ENFILE ENOBUFS ENOMEM ENOTSOCK
            EOPNOTSUPP EPERM EPROTO ENETDOWN ENOPROTOOPT EHOSTDOWN ENONET EHOSTUNREACH
            ENETUNREACH ENOSR ESOCKTNOSUPPORT EPROTONOSUPPORT ETIMEDOUT
        },
        "epoll_ctl" | "epoll_ctl listener" => {
            errnos! { EBADF EEXIST EINVAL ELOOP ENOENT ENOMEM ENOSPC EPERM }
        }
        "epoll_wait" => errnos! { EBADF EFAULT EINTR EINVAL },
        "connect" => errnos! {
            EACCES EPERM EADDRINUSE EADDRNOTAVAIL EAFNOSUPPORT EALREADY EBADF ECONNREFUSED
            EFAULT EISCONN ENETUNREACH ENOTSOCK EPROTOTYPE ETIMEDOUT
        },
        "getsockopt" => errnos! { EBADF EFAULT EINVAL ENOPROTOOPT ENOTSOCK },
        other => unreachable!("{other} is not among the calls"),
    }
}

fn plan(selector: Selector) -> Plan {
    let limits = Limits::default()
        .high_water(40)
        .low_water(10)
        .leftover_budget(30)
        .read_buffer(25)
        .max_accepts_per_turn(2);
    let services = vec![Service::Echo, Service::Daytime, Service::Producer];
    Plan { selector, capacity: 4, limits, services, actions: Vec::new(), ..Plan::of(7) }
}

/// Echo, with a peer that reads slowly and ends its half before everything came back.
fn echoing(simulation: &mut Simulation) {
    for room in [10, 1000] {
        let action = Action::Connect { listener: 0, ip: 1, room, sends: 60, ends: false };
        simulation.act(action);
    }
    simulation.settle();
    for who in [1, 3] {
        simulation.act(Action::Read { who, room: 500 });
        simulation.act(Action::Send { who, count: 70 });
        simulation.act(Action::End { who });
        simulation.settle();
    }
}

/// Daytime, to those who talk first, say nothing, or have gone again.
fn telling(simulation: &mut Simulation) {
    for (sends, ends) in [(0, false), (40, false), (3, true)] {
        simulation.act(Action::Connect { listener: 1, ip: 1, room: 1000, sends, ends });
    }
    simulation.settle();
}

/// A producer that meets a peer which does not read.
fn producing(simulation: &mut Simulation) {
    simulation.act(Action::Connect { listener: 2, ip: 1, room: 5, sends: 0, ends: false });
    simulation.settle();
    simulation.act(Action::Read { who: 1, room: 90 });
    simulation.settle();
}

/// Calls to others: one that stands, one that is refused, one that comes late.
fn dialling(simulation: &mut Simulation) {
    for outcome in [Dialled::Up, Dialled::Pending, Dialled::Pending] {
        simulation.act(Action::Dial { service: Service::Echo, outcome });
    }
    simulation.settle();
    simulation.act(Action::Result { who: 1, errno: Some(ECONNREFUSED) });
    simulation.act(Action::Result { who: 3, errno: None });
    simulation.act(Action::Send { who: 3, count: 50 });
    simulation.settle();
}

/// The end of the loop, in the middle of conversations, and with somebody in a backlog.
fn ending(simulation: &mut Simulation) {
    simulation.act(Action::Connect { listener: 0, ip: 1, room: 10, sends: 60, ends: false });
    simulation.settle();
    simulation.act(Action::Connect { listener: 0, ip: 1, room: 1000, sends: 30, ends: true });
    simulation.act(Action::Connect { listener: 1, ip: 1, room: 1000, sends: 0, ends: true });
    simulation.shutdown(Duration::from_secs(60));
    simulation.settle();
}

type Play = fn(&mut Simulation);
const PLAYS: [(&str, Play); 5] = [
    ("echoing", echoing),
    ("telling", telling),
    ("producing", producing),
    ("dialling", dialling),
    ("ending", ending),
];

fn simulation(selector: Selector, torture: Option<Torture>) -> Simulation {
    let plan = plan(selector);
    let mut world = World::new(selector, plan.seed, plan.capacity, plan.limits.clone());
    world.torture = torture;
    Simulation::within(Rc::new(RefCell::new(world)), &plan)
}

/// Plays it with one failure; the calls that were made, by name.
fn played(play: Play, selector: Selector, torture: Option<Torture>) -> Vec<&'static str> {
    let mut simulation = simulation(selector, torture);
    play(&mut simulation);
    let calls = simulation.world.borrow().calls.clone();
    if let Err(violation) = simulation.finish() {
        panic!("{violation}");
    }
    let world = simulation.world.borrow();
    for (sid, socket) in world.sockets.iter().enumerate() {
        let is_refused = matches!(socket.link, Link::Refused(_));
        let is_fine = !socket.made
            || world.victim == Some(sid)
            || socket.reason.as_deref() == Some("finished")
            || is_refused;
        assert!(is_fine, "a bystander is harmed: {}", socket.brief());
    }
    calls
}

/// Sabotage: never accept again after EMFILE.
#[test]
fn every_call_may_fail_in_every_way_and_harms_nobody_but_its_own() {
    let mut runs = 0;
    for selector in [Selector::Miser, Selector::Epoll] {
        for (name, play) in PLAYS {
            let calls = played(play, selector, None);
            for (at, call) in calls.iter().enumerate() {
                for &errno in errnos(call) {
                    let torture = Torture { at, errno, for_good: false };
                    let outcome = std::panic::catch_unwind(|| {
                        played(play, selector, Some(torture));
                    });
                    assert!(
                        outcome.is_ok(),
                        "{selector:?} {name}: call {at}, {call}, with {}",
                        std::io::Error::from_raw_os_error(errno)
                    );
                    runs += 1;
                }
            }
        }
    }
    println!("{runs} runs, each with one failure");
    assert!(runs > 3_000, "only {runs} runs");
}

/// Sabotage: forget why the last listener was removed.
#[test]
fn listeners_that_are_broken_for_good_end_the_run_with_their_error() {
    for errno in sim::plan::BROKEN_ERRNOS {
        let mut simulation = simulation(Selector::Miser, None);
        simulation.settle();
        {
            let world = &mut *simulation.world.borrow_mut();
            world.queues.iter_mut().for_each(|queue| queue.broken = Some(errno));
        }
        for listener in 0..3 {
            let world = &mut *simulation.world.borrow_mut();
            let sid = world.add(Service::Echo, Some(Ipv4Addr::LOCALHOST.into()), Link::Up, 1);
            world.arrive(listener, sid);
        }
        let error = simulation.reactor.run().expect_err("nobody can be served any more");
        assert_eq!(error.raw_os_error(), Some(errno));
        assert_eq!(simulation.world.borrow().violations, Vec::<String>::new());
    }
}

/// Sabotage: take every error of poll for an interruption.
#[test]
fn a_poll_that_fails_for_good_ends_the_run_with_its_error() {
    for errno in [EBADF, EFAULT, EINVAL] {
        let mut simulation = simulation(Selector::Epoll, None);
        simulation.act(Action::Connect { listener: 0, ip: 1, room: 9, sends: 9, ends: false });
        simulation.settle();
        // The next call of a loop that rests is its poll.
        let at = simulation.world.borrow().calls.len();
        simulation.world.borrow_mut().torture = Some(Torture { at, errno, for_good: true });
        let error = (0..3).find_map(|_| simulation.reactor.turn(None).err());
        let error = error.expect("it cannot go on");
        assert_eq!(error.raw_os_error(), Some(errno));
    }
}
