//! Climbs the ladder at servers of others: how far does what one writes first come, and how far
//! what one writes after reading the manual?
//!
//! Run it with `cargo run --example other_servers`, or with a part of a name after `--`: `Node`. As
//! found, on Debian: `apt-get install python3 nodejs ncat socat xinetd nginx libnginx-mod-stream`,
//! and cargo for two in Rust. With `TUTORIAL` in the environment, a folder with `server.py` and
//! `echo_server.py` of the well-known socket tutorial, these climb, too. What is not installed is
//! skipped with a word. Everything happens on loopback, and everything started is ended.
//!
//! Look at `echoes.rs`: a server as one finds it, and beside it what one more line does.

mod clocks;
mod echoes;
#[path = "../through_a_proxy/foreign.rs"]
mod foreign;
#[path = "../through_a_proxy/recipe.rs"]
mod recipe;
#[path = "../through_a_proxy/table.rs"]
mod table;

use std::env;

use campanile::{Background, Clock, Limits, daytime, echo};

use crate::foreign::Foreign;
use crate::recipe::Recipe;
use crate::table::{Climb, Row};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let only = env::args().skip(1).collect::<Vec<_>>().join(" ");
    rlimit::increase_nofile_limit(u64::MAX)?;
    let (_server, ours) = Background::start(Limits::default(), |reactor| {
        let echo = reactor.listen("127.0.0.1:0", echo())?;
        Ok([echo, reactor.listen("127.0.0.1:0", daytime(Clock::system()))?])
    })?;
    let ladders = [("echo", echoes::ECHOES), ("daytime", clocks::CLOCKS)];
    for ((service, recipes), ours) in ladders.into_iter().zip(ours) {
        let version = env!("CARGO_PKG_VERSION").into();
        let mut rows = vec![row("campanile", service, version, Climb::at(ours, service))];
        let wanted = |recipe: &&Recipe| format!("{}, {}", recipe.name, recipe.how).contains(&only);
        for recipe in recipes.iter().filter(wanted) {
            if !recipe.is_installed() {
                eprintln!("SKIPPED: {} is not installed", recipe.name);
            } else if recipe.prepare.contains("$TUTORIAL") && env::var_os("TUTORIAL").is_none() {
                eprintln!("SKIPPED: {}, {}: TUTORIAL names no folder", recipe.name, recipe.how);
            } else {
                let climb = climb(recipe, service);
                rows.push(row(recipe.name, recipe.how, recipe.version(), climb));
            }
        }
        table::print(&format!("{service} server"), &[service], &rows);
        println!();
    }
    Ok(())
}

fn row(name: &str, how: &str, version: String, climb: Climb) -> Row {
    eprintln!("{name}, {how}: {}", climb.told());
    Row { name: name.into(), how: how.into(), version, climbs: vec![climb] }
}

fn climb(recipe: &Recipe, service: &str) -> Climb {
    match Foreign::start(recipe, 0) {
        Ok(server) => Climb::at(server.addr, service),
        Err(error) => Climb::missing(&error),
    }
}
