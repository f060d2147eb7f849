//! The log lines of connections: a few have their own, a burst is summed up, none is lost.

use std::io::Read;
use std::net::{Shutdown, SocketAddr, TcpStream};

use super::faults::Telling;
use super::program::{Server, campanile};

const MANY: usize = 2000;

fn connect_many(addr: SocketAddr) {
    for _ in 0..MANY {
        let mut client = TcpStream::connect(addr).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        client.read_to_end(&mut Vec::new()).unwrap();
    }
}

/// The lines of single connections, and the sums.
fn lines_and_sums(log: &str, words: &str, service: &str) -> (usize, Vec<usize>) {
    let lines = log.lines().filter(|line| line.starts_with(words)).count();
    let sum = |line: &str| {
        let sum = line.strip_prefix("and ")?.strip_suffix(service)?;
        let sum = sum.trim_end_matches('s').strip_suffix(" more connection")?;
        Some(sum.replace(',', "").parse::<usize>().unwrap())
    };
    (lines, log.lines().filter_map(sum).collect())
}

#[test]
fn a_burst_of_connections_is_a_few_lines_and_a_sum() {
    let server = Server::start(&[]);
    connect_many(server.echo());
    // No other connection follows: the second ends all the same.
    server.wait_for(" (echo)\n");
    connect_many(server.daytime());
    let log = server.stop();
    for (words, service) in
        [("Connected by 127.0.0.1:", " (echo)"), ("Got a connection from 127.0.0.1:", " (daytime)")]
    {
        let (lines, sums) = lines_and_sums(&log, words, service);
        assert_eq!(lines + sums.iter().sum::<usize>(), MANY, "{log}");
        assert!(!sums.is_empty() && lines <= 5 * (sums.len() + 1), "{log}");
    }
}

#[test]
fn verbose_logs_and_events_report_each_connection_of_a_burst() {
    let server = Server::start(&["-v"]);
    for _ in 0..50 {
        drop(TcpStream::connect(server.echo()).unwrap());
    }
    let (lines, sums) = lines_and_sums(&server.stop(), "Connected by 127.0.0.1:", " (echo)");
    assert_eq!((lines, &*sums), (50, &[][..]));

    let mut server =
        Telling::spawn(campanile().args(["serve", "--pipe"]).stderr(std::process::Stdio::null()));
    for number in 1..=50 {
        drop(TcpStream::connect(server.daytime).unwrap());
        let event = loop {
            let event = server.next();
            if event["event"] == "accepted" {
                break event;
            }
        };
        assert_eq!(event["id"], number);
    }
}
