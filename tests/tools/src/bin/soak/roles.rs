//! The roles of the processes: one is the server, the others are its clients.

use std::io::{self, BufRead};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use campanile::{Clock, Limits, Reactor, daytime, echo};
use clap::ValueEnum;

use crate::guests::{CHURN, Circle, Services, Way, visit};
use crate::random::Random;

/// The kinds of clients of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Party {
    Churn,
    Firehoses,
    SlowReaders,
    Pingers,
}

/// Serves until stdin is closed. For each line of stdin it prints the number of connections.
pub fn serve() -> io::Result<()> {
    let mut reactor = Reactor::with_limits(Limits::default())?;
    let daytime = reactor.listen("127.0.0.1:0", daytime(Clock::system()))?;
    let echo = reactor.listen("127.0.0.1:0", echo())?;
    println!("{daytime} {echo}");
    // With a handler, this signal interrupts system calls; without one it would end the process.
    signal_hook::flag::register(libc::SIGUSR1, Arc::default())?;
    let (handle, asked) = (reactor.handle(), Arc::new(AtomicBool::new(false)));
    let question = asked.clone();
    let listening = thread::spawn(move || {
        for _ in io::stdin().lock().lines() {
            question.store(true, Ordering::Release);
            handle.wake();
        }
        handle.shutdown(Duration::from_secs(10));
    });
    while !reactor.is_finished() {
        reactor.turn(None)?;
        if asked.swap(false, Ordering::Acquire) {
            let stats = reactor.stats();
            let open = stats.accepted - stats.closed;
            println!("{} {open} {}", reactor.connections(), stats.panics);
        }
    }
    listening.join().expect("the listening thread does not panic");
    Ok(())
}

/// Runs clients until stdin is closed, and prints the number of conversations and bytes from time
/// to time. The first conversation that fails ends the process.
pub fn be_guests(party: Party, at: Services, seed: u64) -> io::Result<()> {
    let over = AtomicBool::new(false);
    let ways = match party {
        Party::Churn => &CHURN[..],
        Party::Firehoses => &[Way::Firehose],
        Party::SlowReaders => &[Way::SlowReader],
        Party::Pingers => &[Way::Talk],
    };
    let together = if party == Party::SlowReaders { 8 } else { 2 };
    let circle = Circle::new();
    thread::scope(|scope| {
        let guest = |seed| be_a_guest(ways, at, Random::new(seed), &circle, &over);
        let guests: Vec<_> =
            (0..together).map(|number| scope.spawn(move || guest(seed ^ number << 56))).collect();
        // EOF: the parent process has ended, or asks this one to end.
        io::stdin().lock().lines().for_each(drop);
        over.store(true, Ordering::Relaxed);
        guests.into_iter().try_for_each(|guest| guest.join().expect("a guest does not panic"))
    })
}

fn be_a_guest(
    ways: &[Way],
    at: Services,
    mut random: Random,
    circle: &Circle,
    over: &AtomicBool,
) -> io::Result<()> {
    let (mut tally, mut told) = (vec![(0, 0); ways.len()], Instant::now());
    while !over.load(Ordering::Relaxed) {
        let number = random.below(ways.len());
        match visit(ways[number], at, &mut random, circle) {
            Ok(bytes) => tally[number] = (tally[number].0 + 1, tally[number].1 + bytes),
            Err(error) => {
                println!("wrong {:?}: {error}", ways[number]);
                std::process::exit(1);
            }
        }
        if told.elapsed() > Duration::from_millis(200) {
            tell(ways, &mut tally);
            told = Instant::now();
        }
    }
    tell(ways, &mut tally);
    Ok(())
}

fn tell(ways: &[Way], tally: &mut [(u64, u64)]) {
    for (way, (visits, bytes)) in ways.iter().zip(tally) {
        println!("{way:?} {visits} {bytes}");
        (*visits, *bytes) = (0, 0);
    }
}
