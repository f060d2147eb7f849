//! `reset after N bytes` is exact: N bytes arrive, then the reset, every time.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, SocketAddrV6, TcpListener};
use std::process::Command;
use std::thread;

use campanile::testing::{Book, Faulty, Plan, Side, TestServer};
use campanile::{Limits, Reactor, echo, sys::Mio};

use super::effects::{End, read_to_end};
use crate::common::namespace::LINK_LOCAL;
use crate::common::{DEADLINE, connect, pattern, skip};

/// All of them take a while: `CAMPANILE_RESETS=full` asks for it.
fn times(few: usize, full: usize) -> usize {
    if std::env::var("CAMPANILE_RESETS").is_ok_and(|value| value == "full") { full } else { few }
}

/// Clients at once: most of a reset is waiting for an acknowledgement.
const TOGETHER: usize = 10;

/// Has that many connections reset after `size` bytes: each client gets them, and the reset.
fn check(size: usize, times: usize) {
    // However busy the machine is, each gets the time to read.
    let limits = Limits::default().linger_timeout(DEADLINE);
    let server = TestServer::builder().limits(limits).start();
    let _guard = server.echo().always(&*format!("reset after {size} bytes"));
    let bytes = pattern(size);
    let converse = || {
        let mut client = server.echo().connect();
        let mut writer = client.try_clone().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| writer.write_all(&bytes).unwrap());
            read_to_end(&mut client) == (bytes.clone(), End::Reset)
        })
    };
    let exact: usize = thread::scope(|scope| {
        let run = || (0..times / TOGETHER).filter(|_| converse()).count();
        let running: Vec<_> = (0..TOGETHER).map(|_| scope.spawn(run)).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(exact, times, "clients that got {size} bytes and then the reset");
    for _ in 0..times {
        let ledger = server.echo().ended();
        assert_eq!((ledger.bytes_out, ledger.reset_by), (size as u64, Some(Side::We)));
    }
}

#[test]
fn after_1_byte() {
    check(1, times(100, 1000));
}

#[test]
fn after_5_bytes() {
    check(5, times(100, 1000));
}

#[test]
fn after_1000_bytes() {
    check(1000, times(100, 1000));
}

#[test]
fn after_65536_bytes() {
    check(65_536, times(100, 1000));
}

#[test]
fn after_1_mebibyte() {
    check(1 << 20, times(10, 100));
}

#[test]
fn a_slow_client_receives_everything_before_the_reset() {
    let limits = Limits::default().linger_timeout(DEADLINE);
    let server = TestServer::builder().limits(limits).start();
    server.echo().once("reset after 1MiB");
    let mut client = server.echo().connect();
    let bytes = pattern(1 << 20);
    let (mut writer, sent) = (client.try_clone().unwrap(), bytes.clone());
    let writing = thread::spawn(move || writer.write_all(&sent).unwrap());
    let mut piece = [0; 1024];
    let mut back = Vec::new();
    let end = loop {
        match client.read(&mut piece) {
            Ok(0) => panic!("an end after {} bytes", back.len()),
            Ok(count) => back.extend_from_slice(&piece[..count]),
            Err(error) => break error.kind(),
        }
        thread::yield_now();
    };
    writing.join().unwrap();
    assert!(back == bytes, "{} bytes", back.len());
    assert_eq!(end, ErrorKind::ConnectionReset);
}

/// A connect with a timeout asks for its result some time after the handshake; a reset must not be
/// there before, nor before the client has ended its half.
#[test]
fn a_client_that_connects_and_ends_its_half_at_once_receives_the_bytes() {
    let server = TestServer::start();
    let _short = server.daytime().always("reset after 10 bytes");
    let _echo = server.echo().always("reset after 3 bytes");
    for _ in 0..100 {
        for (service, sent, count) in [(server.daytime(), "", 10), (server.echo(), "Hello", 3)] {
            let mut client = connect(service.addr());
            client.write_all(sent.as_bytes()).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let (bytes, end) = read_to_end(&mut client);
            assert_eq!((bytes.len(), end), (count, End::Reset));
        }
    }
}

#[test]
fn a_hundred_resets_at_once_are_exact_too() {
    let server = TestServer::start();
    let _guard = server.echo().always("reset after 10000 bytes");
    let bytes = pattern(10_000);
    let mut clients: Vec<_> = (0..100).map(|_| server.echo().connect()).collect();
    for client in &mut clients {
        client.write_all(&bytes).unwrap();
    }
    for client in &mut clients {
        assert_eq!(read_to_end(client), (bytes.clone(), End::Reset));
    }
}

/// The addresses of this machine at a port: IPv4, IPv6, and a link-local one if it has one.
fn addresses(port: u16) -> Vec<SocketAddr> {
    let table = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    let local = table.lines().find(|line| line.starts_with("fe80")).map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let number = u128::from_str_radix(fields.next().unwrap(), 16).unwrap();
        let interface = u32::from_str_radix(fields.next().unwrap(), 16).unwrap();
        SocketAddrV6::new(Ipv6Addr::from(number), port, 0, interface).into()
    });
    let all = [([127, 0, 0, 1], port).into(), (Ipv6Addr::LOCALHOST, port).into()];
    all.into_iter().chain(local).collect()
}

#[test]
fn over_every_kind_of_address_of_a_listener_for_all() {
    let Ok(listener) = TcpListener::bind("[::]:0") else { return skip("this machine has no ::1") };
    let addresses = addresses(listener.local_addr().unwrap().port());
    let (plan, book) = (Plan::new(0), Book::new(10));
    plan.add("echo: reset after 1MiB".parse().unwrap()).unwrap();
    let kernel = Faulty::new(Mio::new(64).unwrap(), &plan, &book);
    let mut reactor = Reactor::with_kernel(kernel, Limits::default().linger_timeout(DEADLINE));
    book.serving("echo");
    reactor.listen_on(listener, echo()).unwrap();
    let handle = reactor.handle();
    let clients = thread::spawn(move || {
        let bytes = pattern(1 << 20);
        for addr in addresses {
            let mut client = connect(addr);
            let mut writer = client.try_clone().unwrap();
            thread::scope(|scope| {
                scope.spawn(|| writer.write_all(&bytes).unwrap());
                assert!(read_to_end(&mut client) == (bytes.clone(), End::Reset), "{addr}");
            });
            println!("reset by {addr}");
        }
        handle.shutdown(DEADLINE);
    });
    while !(reactor.is_finished() || clients.is_finished()) {
        reactor.turn(Some(DEADLINE / 100)).unwrap();
    }
    clients.join().unwrap();
}

/// Runs another test of this file under strace, by way of a shell command that ends in `"$@"` and
/// fails for `reason`. Returns what the test printed and the files and sockets that it opened.
#[cfg(target_os = "linux")]
fn trace(shell: &str, reason: &str, test: &str) -> Option<(String, String)> {
    let file = format!("campanile-resets-{}-{test}", std::process::id());
    let file = std::env::temp_dir().join(file);
    let run = |program: &[&str]| {
        let mut command = Command::new("sh");
        command.args(["-c", shell, "sh", "strace", "-f", "-e", "trace=openat,socket", "-o"]);
        command.arg(&file).args(program).output().ok().filter(|output| output.status.success())
    };
    let exe = std::env::current_exe().unwrap();
    let Some(_) = run(&["true"]) else {
        skip(reason);
        return None;
    };
    let name = format!("resets::{test}");
    let output = run(&[exe.to_str().unwrap(), "--exact", &name, "--nocapture"]);
    let said = String::from_utf8(output.expect("the test passes").stdout).unwrap();
    let opened = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    assert!(said.contains("1 passed"), "{said}");
    Some((said, opened))
}

const NO_STRACE: &str = "strace is not installed, or may not trace";

/// With thousands of sockets on the machine, to read the tables takes the loop many milliseconds.
#[test]
#[cfg(target_os = "linux")]
fn no_table_of_all_sockets_is_opened() {
    let Some((_, opened)) = trace("exec \"$@\"", NO_STRACE, "after_5_bytes") else { return };
    let sockets = opened.lines().filter(|line| line.contains("AF_NETLINK")).count();
    assert_eq!(sockets, 1, "{opened}");
    assert!(!opened.contains("/net/tcp"), "{opened}");
}

#[test]
#[cfg(target_os = "linux")]
fn no_table_is_opened_for_a_link_local_address_either() {
    let own = format!(
        "exec unshare -rn sh -c 'ip link set lo up && {LINK_LOCAL} && exec \"$@\"' sh \"$@\""
    );
    let test = "over_every_kind_of_address_of_a_listener_for_all";
    let reason = match Command::new("strace").arg("--version").output() {
        Ok(_) => "`unshare -rn` or `ip` fails",
        Err(_) => NO_STRACE,
    };
    let Some((said, opened)) = trace(&own, reason, test) else { return };
    assert!(said.contains("reset by [fe80::1%1]:"), "{said}");
    assert!(opened.contains("AF_NETLINK") && !opened.contains("/net/tcp"), "{opened}");
}
