//! The guide's page about lost bytes: its test for a proxy works, and its tables have a row for each
//! subject of the two programs.
#![cfg(unix)]

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use campanile::{Background, Limits, echo};

const PAGE: &str = include_str!("../../../src/guide/last_bytes.md");

/// Runs the lines of the page and returns what they print, and whether they exit with 0. They bound
/// each read themselves.
fn test_proxy(addr: SocketAddr) -> (String, bool) {
    let program = PAGE.split("```python\n").nth(1).expect("the page has a program");
    let program = program.split("```").next().unwrap_or_default();
    let mut command = Command::new("python3");
    command.args(["-c", program, &addr.ip().to_string(), &addr.port().to_string()]);
    let output = command.stdin(Stdio::null()).output().expect("python3 was found before");
    (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.success())
}

fn has_python() -> bool {
    let is_there = Command::new("python3").arg("--version").output().is_ok();
    if !is_there {
        eprintln!("SKIPPED: python3 is not installed");
    }
    is_there
}

/// A proxy for one connection. At the client's EOF it closes both connections, as most proxies do;
/// until then it has passed on 100,000 bytes of the answer, and no more.
fn losing_proxy(target: SocketAddr) -> (SocketAddr, thread::JoinHandle<io::Result<()>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("its address");
    let proxy = thread::spawn(move || {
        let (mut client, _) = listener.accept()?;
        let mut server = TcpStream::connect(target)?;
        let (mut answer, mut back) = (server.try_clone()?.take(100_000), client.try_clone()?);
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        }
        let down = thread::spawn(move || io::copy(&mut answer, &mut back));
        io::copy(&mut client, &mut server)?;
        down.join().expect("no panic in io::copy")?;
        client.shutdown(Shutdown::Both)?;
        server.shutdown(Shutdown::Both)
    });
    (addr, proxy)
}

#[test]
fn the_lines_of_the_page_tell_a_good_echo_from_a_proxy_that_loses_bytes() {
    if !has_python() {
        return;
    }
    let (_server, addr) =
        Background::start(Limits::default(), |reactor| reactor.listen("127.0.0.1:0", echo()))
            .expect("a server");
    let printed = "sent 1000000 bytes, received 1000000\n";
    assert_eq!(test_proxy(addr), (printed.to_owned(), true));
    assert!(PAGE.contains(printed.trim()), "the page says what a good proxy prints");
    let (proxy_addr, proxy) = losing_proxy(addr);
    let printed = "sent 1000000 bytes, received 100000\n";
    assert_eq!(test_proxy(proxy_addr), (printed.to_owned(), false));
    proxy.join().expect("no panic").expect("the proxy ends without an error");
}

/// Returns, for each table with this title above its first column, the names in that column.
fn rows(title: &str) -> Vec<BTreeSet<&'static str>> {
    let head = format!("| {title} |");
    let tables = PAGE.split("\n\n").filter(|text| text.starts_with(&head));
    let names = tables.map(|table| {
        let rows = table.lines().skip(2).filter_map(|row| row.split(" | ").next());
        rows.map(|cell| cell.trim_start_matches("| ").trim_matches('`')).collect()
    });
    names.collect()
}

#[test]
fn every_subject_has_its_row_and_every_row_its_subject() {
    let mut subjects = Vec::new();
    for program in [env!("CARGO_BIN_EXE_through_a_proxy"), env!("CARGO_BIN_EXE_other_servers")] {
        let output = Command::new(program).arg("--list").output().expect("cargo builds it");
        subjects.push(String::from_utf8(output.stdout).expect("names are text"));
    }
    let subjects = subjects.concat();
    for (title, tables) in [("proxy", 2), ("echo server", 1), ("daytime server", 1)] {
        let head = format!("{title}: ");
        let names: BTreeSet<_> = subjects.lines().filter_map(|l| l.strip_prefix(&head)).collect();
        assert!(names.len() > 10, "{title}: {names:?}");
        let rows = rows(title);
        assert_eq!(rows.len(), tables, "{title}");
        for row in rows {
            assert_eq!(row, names, "{title}");
        }
    }
}
