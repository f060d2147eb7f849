//! Climbs the ladder at other projects' servers: the obvious code or configuration, and the one that
//! the manual recommends.
//!
//! Run it with `cargo run --bin other_servers` in `tests/tools/`, or with a part of a name after
//! `--`: `Node`; `--list` prints the names. The servers are those of Debian: `apt-get install python3 nodejs ncat socat xinetd
//! nginx libnginx-mod-stream golang gcc libuv1-dev libevent-dev`, `pip install twisted`, and cargo
//! for two in Rust. If `TUTORIAL` names a folder with `server.py` and `echo_server.py` of the
//! well-known socket tutorial, these climb, too; likewise libuv's sample if `LIBUV` names the folder
//! of its source (`apt-get source libuv1`). Servers that are not installed are skipped with a note. All traffic is on loopback, and every process
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
    let ladders: [(&[&str], _); 2] =
        [(&["echo", "urgent"], echoes::ECHOES), (&["daytime"], clocks::CLOCKS)];
    if only == "--list" {
        for (services, recipes) in ladders {
            recipes.iter().for_each(|recipe| println!("{} server: {}", services[0], recipe.row()));
        }
        return Ok(());
    }
    rlimit::increase_nofile_limit(u64::MAX)?;
    let (_server, ours) = Background::start(Limits::default(), |reactor| {
        let echo = reactor.listen("127.0.0.1:0", echo())?;
        Ok([echo, reactor.listen("127.0.0.1:0", daytime(Clock::system()))?])
    })?;
    for ((services, recipes), ours) in ladders.into_iter().zip(ours) {
        let version = tools::version().into();
        let climbs = services.iter().map(|service| Climb::at(ours, service));
        let mut rows = vec![row("campanile", services[0], version, climbs.collect())];
        for recipe in recipes.iter().filter(|recipe| recipe.row().contains(&only)) {
            if let Some(lack) = recipe.lack() {
                eprintln!("SKIPPED: {}: {lack}", recipe.row());
                continue;
            }
            let climbs = services.iter().map(|service| climb(recipe, service));
            rows.push(row(recipe.name, recipe.how, recipe.version(), climbs.collect()));
        }
        tools::print(&format!("{} server", services[0]), services, &rows);
        println!();
    }
    Ok(())
}

fn row(name: &str, how: &str, version: String, climbs: Vec<Climb>) -> Row {
    for climb in &climbs {
        eprintln!("{name}, {how}: {}", climb.told());
    }
    Row { name: name.into(), how: how.into(), version, climbs }
}

fn climb(recipe: &Recipe, service: &str) -> Climb {
    match Foreign::start(recipe, 0) {
        Ok(server) => Climb::at(server.addr, service),
        Err(error) => Climb::missing(&error),
    }
}
