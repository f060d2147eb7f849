//! The same loop in a thousand worlds: each from one seed, with its own selector, limits, peers,
//! protocols and faults.
//!
//! `SIM_SEEDS=N` runs more of them and `SIM_SEED=S` just one. A seed that fails is cut to the actions
//! that are needed, and its turns are printed; `SIM_TRACE=1` prints those of a seed that passes, too.

mod common;
mod sim;

use std::env;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use sim::plan::Plan;
use sim::run::{Report, run};

const SEEDS: u64 = 1_000;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// Runs a plan twice: it must do well, and do the same.
fn prove(plan: &Plan) -> Report {
    match (run(plan), run(plan)) {
        (Ok(first), Ok(second)) => {
            assert_eq!(first, second, "seed {} is not replayed: it depends on more", plan.seed);
            if env::var_os("SIM_TRACE").is_some() {
                let _ = run(&Plan { is_told: true, ..plan.clone() });
            }
            first
        }
        (Err(violation), _) | (_, Err(violation)) => fail(plan, &violation),
    }
}

fn fail(plan: &Plan, violation: &str) -> ! {
    let seed = plan.seed;
    let short = shrink(plan);
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock();
    let told = Plan { is_told: true, ..short.clone() };
    let still = run(&told).expect_err("what was shrunk fails, too");
    panic!(
        "seed {seed}: {violation}\n\n\
         to run it again: SIM_SEED={seed} cargo test --test simulation\n\
         {} of {} actions are enough for: {still}\n{:?} {:?} capacity {}\n{:?}\n{}",
        short.actions.len(),
        plan.actions.len(),
        short.selector,
        short.services,
        short.capacity,
        short.limits,
        short.actions.iter().map(|action| format!("{action:?}")).collect::<Vec<_>>().join("\n"),
    );
}

/// Cuts out actions, ever fewer at once, as long as it fails.
fn shrink(plan: &Plan) -> Plan {
    let mut plan = plan.clone();
    let mut size = plan.actions.len().div_ceil(2);
    while size > 0 {
        let mut start = 0;
        while start < plan.actions.len() {
            let mut fewer = plan.actions.clone();
            fewer.drain(start..(start + size).min(fewer.len()));
            let shorter = plan.with(fewer);
            if run(&shorter).is_err() {
                plan = shorter;
            } else {
                start += size;
            }
        }
        size /= 2;
    }
    plan
}

/// Runs the plans of one in so many of the seeds that are asked for, on all processors.
fn explore(plan: fn(u64) -> Plan, share: u64) {
    if let Some(seed) = number("SIM_SEED") {
        println!("{:?}", prove(&plan(seed)));
        return;
    }
    let first = number("SIM_FIRST").unwrap_or(0);
    let count = number("SIM_SEEDS").unwrap_or(SEEDS).div_ceil(share);
    let (next, turns) = (AtomicU64::new(first), AtomicU64::new(0));
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    turns.fetch_add(prove(&plan(seed)).turns, Ordering::Relaxed);
                }
            });
        }
    });
    println!("{count} seeds, {} turns each way", turns.into_inner());
}

/// Sabotage: count what a short write left over as written; end at `WouldBlock`; never accept again
/// after EMFILE; at EOF, forget what is owed; look a handle's connection up by its key alone; fire
/// timers only if there was no event.
#[test]
fn every_byte_arrives_and_every_loop_ends() {
    explore(Plan::of, 1);
}

// The bugs of `src/guide/11_simulator.md`: each of these seeds failed before its bug was fixed.

#[test]
fn the_write_timeout_starts_with_the_first_unsent_byte_in_seed_228() {
    prove(&Plan::of(228));
}

#[test]
fn a_signal_leaves_a_full_batch_remembered_in_seed_1369() {
    prove(&Plan::of(1369));
}

#[test]
fn a_leftover_runs_when_its_deadline_has_come_in_seed_1089() {
    prove(&Plan::of(1089));
}

/// Fewer: a fault takes its time.
///
/// Sabotage: let `stall` go on writing.
#[cfg(feature = "testing")]
#[test]
fn a_fault_changes_only_what_its_effect_allows() {
    explore(Plan::faulty, 4);
}
