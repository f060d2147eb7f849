//! Climbs the ladder through other projects' proxies: half-close, a client that sends before it
//! reads, and one that reads slowly, with a proxy between client and server.
//!
//! Run it with `cargo run --bin through_a_proxy` in `tests/tools/`, or with a part of a name after
//! `--`: `nginx`; `--list` prints the names. The proxies are those of Debian: `apt-get install haproxy nginx
//! libnginx-mod-stream socat stunnel4 openssh-server redir rinetd sslh simpleproxy 6tunnel pen ncat
//! squid tinyproxy docker.io libevent-dev`, of PyPI: `pip install twisted mitmproxy`, and of
//! crates.io: `cargo install trixter rathole`. Go, Node and cargo build the shortest proxies over
//! their libraries. Proxies that are not installed are skipped with a note; sshd needs root. All
//! traffic is on loopback, and every process that was started is ended.
//!
//! Look at `proxies.rs`: a proxy with its default configuration, and beside it the setting that does
//! better.

mod connect;
mod libraries;
mod proxies;
mod side;
mod tunnels;

use std::net::SocketAddr;

use campanile::{Background, Clock, Limits, daytime, echo};
use tools::{Climb, Foreign, Recipe, Row};

use crate::connect::Relay;

/// The columns. Each has a server of ours behind the proxy: echo answers the urgent byte, too.
const SERVICES: [&str; 3] = ["echo", "daytime", "urgent"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let only = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
    let plain = proxies::PROXIES.iter().chain(libraries::LIBRARIES).chain(tunnels::TUNNELS);
    let plain = plain.map(|recipe| (recipe, false));
    let all = plain.chain(tunnels::ASKED.iter().map(|recipe| (recipe, true)));
    if only == "--list" {
        all.for_each(|(recipe, _)| println!("proxy: {}", recipe.row()));
        return Ok(());
    }
    // This process holds a thousand idle clients, a relay and a server.
    rlimit::increase_nofile_limit(u64::MAX)?;
    let (_server, ours) = Background::start(Limits::default(), |reactor| {
        let echo = reactor.listen("127.0.0.1:0", echo())?;
        Ok([echo, reactor.listen("127.0.0.1:0", daytime(Clock::system()))?, echo])
    })?;
    let mut rows = Vec::new();
    let version = tools::version().to_owned();
    if "nothing, campanile".contains(&only) {
        let climbs = SERVICES.iter().zip(ours).map(|(service, at)| Climb::at(at, service));
        rows.push(row("nothing", "our server itself", version.clone(), climbs.collect()));
        let climbs = SERVICES.iter().zip(ours).map(|(service, at)| relayed(at, None, service));
        rows.push(row("campanile", "relay", version, climbs.collect()));
    }
    for (recipe, is_asked) in all {
        if !recipe.row().contains(&only) {
            continue;
        }
        if let Some(lack) = recipe.lack() {
            eprintln!("SKIPPED: {}: {lack}", recipe.row());
            continue;
        }
        let climbs =
            SERVICES.iter().zip(ours).map(|(service, at)| through(recipe, is_asked, at, service));
        rows.push(row(recipe.name, recipe.how, recipe.version(), climbs.collect()));
    }
    tools::print("proxy", &SERVICES, &rows);
    Ok(())
}

fn row(name: &str, how: &str, version: String, climbs: Vec<Climb>) -> Row {
    for (climb, service) in climbs.iter().zip(SERVICES) {
        eprintln!("{name}, {how}: {service}: {}", climb.told());
    }
    Row { name: name.into(), how: how.into(), version, climbs }
}

/// Starts a new proxy for every climb, so that one climb cannot affect the next.
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
