//! Climbs the ladder through proxies of others: what is left of half-close, of a client that talks
//! first, of one that reads slowly, when something stands between the two.
//!
//! Run it with `cargo run --example through_a_proxy`, or with a part of a name after
//! `--`: `nginx`. As found, on Debian: `apt-get install haproxy nginx libnginx-mod-stream socat
//! stunnel4 openssh-server redir rinetd sslh simpleproxy 6tunnel pen ncat squid tinyproxy`. What is
//! not installed is skipped with a word; sshd wants to be started by root. Everything happens on
//! loopback, and everything that was started is ended.
//!
//! Look at `proxies.rs`: a proxy as it comes, and beside it the setting that does better.

mod connect;
mod foreign;
mod proxies;
mod recipe;
mod table;
mod tunnels;

use std::net::SocketAddr;

use campanile::{Background, Clock, Limits, daytime, echo};

use crate::connect::Relay;
use crate::foreign::Foreign;
use crate::recipe::Recipe;
use crate::table::{Climb, Row};

const SERVICES: [&str; 2] = ["echo", "daytime"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let only = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
    // A thousand idle clients, a relay and a server in one process.
    rlimit::increase_nofile_limit(u64::MAX)?;
    let (_server, ours) = Background::start(Limits::default(), |reactor| {
        let echo = reactor.listen("127.0.0.1:0", echo())?;
        Ok([echo, reactor.listen("127.0.0.1:0", daytime(Clock::system()))?])
    })?;
    let mut rows = Vec::new();
    let version = env!("CARGO_PKG_VERSION").to_owned();
    if "nothing, campanile".contains(&only) {
        let climbs = SERVICES.iter().zip(ours).map(|(service, at)| Climb::at(at, service));
        rows.push(row("nothing", "our server itself", version.clone(), climbs.collect()));
        let climbs = SERVICES.iter().zip(ours).map(|(service, at)| relayed(at, None, service));
        rows.push(row("campanile", "examples/relay", version, climbs.collect()));
    }
    let plain = proxies::PROXIES.iter().chain(tunnels::TUNNELS).map(|recipe| (recipe, false));
    for (recipe, is_asked) in plain.chain(tunnels::ASKED.iter().map(|recipe| (recipe, true))) {
        if !format!("{}, {}", recipe.name, recipe.how).contains(&only) {
            continue;
        }
        if !recipe.is_installed() {
            eprintln!("SKIPPED: {} is not installed", recipe.name);
            continue;
        }
        let climbs =
            SERVICES.iter().zip(ours).map(|(service, at)| through(recipe, is_asked, at, service));
        rows.push(row(recipe.name, recipe.how, recipe.version(), climbs.collect()));
    }
    table::print("proxy", &SERVICES, &rows);
    Ok(())
}

fn row(name: &str, how: &str, version: String, climbs: Vec<Climb>) -> Row {
    for (climb, service) in climbs.iter().zip(SERVICES) {
        eprintln!("{name}, {how}: {service}: {}", climb.told());
    }
    Row { name: name.into(), how: how.into(), version, climbs }
}

/// A proxy of its own for every climb: what one does to it is not the next one's fault.
fn through(recipe: &Recipe, is_asked: bool, target: SocketAddr, service: &str) -> Climb {
    match Foreign::start(recipe, target.port()) {
        Ok(proxy) if is_asked => relayed(proxy.addr, Some(target), service),
        Ok(proxy) => Climb::at(proxy.addr, service),
        Err(error) => Climb::missing(&error),
    }
}

fn relayed(there: SocketAddr, target: Option<SocketAddr>, service: &str) -> Climb {
    match Relay::start(there, target) {
        Ok(relay) => Climb::at(relay.addr, service),
        Err(error) => Climb::missing(&error.to_string()),
    }
}
