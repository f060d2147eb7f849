//! Climbs the ladder at other projects' servers: the obvious code or configuration, and the one that
//! the manual recommends.
//!
//! Run it with `cargo run --bin other_servers` in `tests/tools/`, or with a part of a name after
//! `--`: `Node`. The servers are those of Debian: `apt-get install python3 nodejs ncat socat xinetd
//! nginx libnginx-mod-stream`, and cargo for two in Rust. If `TUTORIAL` names a folder with
//! `server.py` and `echo_server.py` of the well-known socket tutorial, these climb, too. Servers
//! that are not installed are skipped with a note. All traffic is on loopback, and every process
//! that was started is ended.
//!
//! Look at `echoes.rs`: a server in its shortest form, and beside it the effect of one more line.

mod clocks;
mod echoes;

use std::env;

use campanile::{Background, Clock, Limits, daytime, echo};
use tools::{Climb, Foreign, Recipe, Row};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let only = env::args().skip(1).collect::<Vec<_>>().join(" ");
    rlimit::increase_nofile_limit(u64::MAX)?;
    let (_server, ours) = Background::start(Limits::default(), |reactor| {
        let echo = reactor.listen("127.0.0.1:0", echo())?;
        Ok([echo, reactor.listen("127.0.0.1:0", daytime(Clock::system()))?])
    })?;
    let ladders = [("echo", echoes::ECHOES), ("daytime", clocks::CLOCKS)];
    for ((service, recipes), ours) in ladders.into_iter().zip(ours) {
        let version = tools::version().into();
        let mut rows = vec![row("campanile", service, version, Climb::at(ours, service))];
        let wanted = |recipe: &&Recipe| format!("{}, {}", recipe.name, recipe.how).contains(&only);
        for recipe in recipes.iter().filter(wanted) {
            if !recipe.is_installed() {
                eprintln!("SKIPPED: {} is not installed", recipe.name);
            } else if recipe.prepare.contains("$TUTORIAL") && env::var_os("TUTORIAL").is_none() {
                eprintln!("SKIPPED: {}, {}: set TUTORIAL to its folder", recipe.name, recipe.how);
            } else {
                let climb = climb(recipe, service);
                rows.push(row(recipe.name, recipe.how, recipe.version(), climb));
            }
        }
        tools::print(&format!("{service} server"), &[service], &rows);
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
