//! Faults on both sides of a proxy.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use campanile::Limits;
use campanile::services::Upstream;
use campanile::testing::{Side, TestServer};

use super::effects::{End, read_to_end};
use crate::common::{DEADLINE, pattern, ping, read_exactly};

/// A server of the test's own, and a proxy in front of it.
fn proxied() -> (TcpListener, TestServer) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let limits = Limits::default().linger_timeout(DEADLINE);
    let addr = listener.local_addr().unwrap();
    (listener, TestServer::builder().limits(limits).proxy("db", addr).start())
}

/// A client of the proxy, and the server's end of its conversation.
fn conversation(listener: &TcpListener, server: &TestServer) -> (TcpStream, TcpStream) {
    let client = server.proxy("db").connect();
    let behind = listener.accept().unwrap().0;
    behind.set_read_timeout(Some(DEADLINE)).unwrap();
    (client, behind)
}

#[test]
fn both_sides_of_a_conversation_have_a_ledger_with_one_id() {
    let (listener, server) = proxied();
    for id in 1..=3 {
        let (mut client, mut behind) = conversation(&listener, &server);
        client.write_all(b"query").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_exactly(&mut behind, 5), b"query");
        behind.write_all(b"the answer").unwrap();
        drop(behind);
        assert_eq!(read_to_end(&mut client), (b"the answer".to_vec(), End::Eof));
        let (near, far) = (server.proxy("db").ended(), server.proxy("db").upstream().ended());
        assert_eq!((near.id, near.bytes_in, near.bytes_out), (id, 5, 10));
        assert_eq!((far.id, far.bytes_in, far.bytes_out), (id, 10, 5));
        assert_eq!((&*near.service, &*far.service), ("db", "db upstream"));
        assert_eq!(far.peer, listener.local_addr().unwrap().into());
    }
    assert_eq!(server.proxy("db").accepted(), 3);
}

#[test]
fn an_effect_after_n_bytes_is_exact_on_either_side() {
    let full = std::env::var("CAMPANILE_RESETS").is_ok_and(|value| value == "full");
    let (listener, server) = proxied();
    let bytes = pattern(70_000);
    let effects =
        [("reset", End::Reset), ("close", End::Eof), ("shut", End::Eof), ("corrupt", End::Eof)];
    for ((effect, end), size) in effects.into_iter().flat_map(each_size) {
        for _ in 0..if full { 1000 } else { 5 } {
            let proxy = server.proxy("db");
            for side in [proxy, proxy.upstream()] {
                side.once(&*format!("{effect} after {size} bytes"));
                let (client, behind) = conversation(&listener, &server);
                // The side with the fault receives what the other one sends.
                let is_near = !side.addr().eq(&listener.local_addr().unwrap());
                let (mut sender, mut receiver) =
                    if is_near { (behind, client) } else { (client, behind) };
                let sending = {
                    let (mut sender, bytes) = (sender.try_clone().unwrap(), bytes.clone());
                    thread::spawn(move || {
                        // It may be cut off before it has sent everything.
                        let _ = sender.write_all(&bytes);
                        if effect == "corrupt" {
                            sender.shutdown(Shutdown::Write).unwrap();
                        }
                    })
                };
                let mut expected = bytes[..size].to_vec();
                let (mut received, received_end) = read_to_end(&mut receiver);
                if effect == "corrupt" {
                    expected.clone_from(&bytes);
                    assert_eq!((received[size] ^ bytes[size]).count_ones(), 1, "{size}");
                    received[size] = bytes[size];
                }
                assert!(received == expected, "{effect} {size}: {} bytes", received.len());
                assert_eq!(received_end, end, "{effect} {size}");
                drop(receiver);
                sending.join().unwrap();
                let _ = sender.read(&mut [0]);
                drop(sender);
                let ledger = side.ended();
                assert_eq!(ledger.bytes_out, expected.len() as u64, "{ledger}");
                let other = if is_near { proxy.upstream() } else { proxy };
                other.ended();
            }
        }
    }
}

fn each_size<T: Copy>(effect: T) -> impl Iterator<Item = (T, usize)> {
    [1, 5, 1000, 65_536].into_iter().map(move |size| (effect, size))
}

#[test]
fn an_effect_upstream_is_what_the_server_experiences() {
    let (listener, server) = proxied();
    let upstream = server.proxy("db").upstream();
    // The server receives one wrong bit.
    upstream.once("corrupt after 2 bytes");
    let (mut client, mut behind) = conversation(&listener, &server);
    client.write_all(b"query").unwrap();
    let received = read_exactly(&mut behind, 5);
    assert_eq!((&received[..2], &received[3..]), (&b"qu"[..], &b"ry"[..]));
    assert_ne!(received[2], b'e');
    // The server's answer stays unread, and then arrives.
    let (mut client, mut behind) = conversation(&listener, &server);
    ping_through(&mut client, &mut behind);
    let deaf = upstream.always("deaf");
    behind.write_all(b"answer").unwrap();
    client.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert!(client.read(&mut [0]).is_err());
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    drop(deaf);
    assert_eq!(read_exactly(&mut client, 6), b"answer");
    // The server's EOF is ignored until the fault ends.
    let hold = upstream.always("hold-open");
    drop(behind);
    client.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert!(client.read(&mut [0]).is_err());
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    drop(hold);
    assert_eq!(read_to_end(&mut client), (vec![], End::Eof));
}

/// A byte each way.
fn ping_through(client: &mut TcpStream, behind: &mut TcpStream) {
    client.write_all(b"?").unwrap();
    assert_eq!(read_exactly(behind, 1), b"?");
    behind.write_all(b"!").unwrap();
    assert_eq!(read_exactly(client, 1), b"!");
}

#[test]
fn a_fault_on_an_open_conversation_acts_on_its_side_alone() {
    let (listener, server) = proxied();
    let mut first = conversation(&listener, &server);
    let mut second = conversation(&listener, &server);
    ping_through(&mut first.0, &mut first.1);
    ping_through(&mut second.0, &mut second.1);
    server.fault("db upstream #2: reset");
    assert_eq!(read_to_end(&mut second.1), (vec![], End::Reset));
    // The relay passes the failure on to the client.
    assert_eq!(read_to_end(&mut second.0), (vec![], End::Reset));
    ping_through(&mut first.0, &mut first.1);
    let (near, far) = (server.proxy("db").ended(), server.proxy("db").upstream().ended());
    assert_eq!((near.id, far.id), (2, 2));
    assert_eq!((far.reset_by, far.faults.len(), near.faults.len()), (Some(Side::We), 1, 0));
}

#[test]
fn an_upstream_that_cannot_be_reached_has_a_ledger_with_the_reason() {
    let refused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let echo = TestServer::start();
    let upstream = Upstream::new([refused, echo.echo().addr()]);
    let server = TestServer::builder().proxy("one", refused).proxy("two", upstream).start();
    let mut client = server.proxy("one").connect();
    assert_eq!(client.read(&mut [0]).map_err(|e| e.kind()), Err(ErrorKind::ConnectionReset));
    let far = server.proxy("one").upstream().ended();
    assert!(far.reason.starts_with("cannot connect: "), "{far}");
    assert!(far.to_string().starts_with(&format!("one upstream #1 to {refused}: ")), "{far}");
    assert_eq!(server.proxy("one").ended().id, far.id);
    // The second address of a name is tried: two ledgers with the id of one client.
    ping(&mut server.proxy("two").connect(), b"hello");
    let sides = server.proxy("two").upstream();
    assert_eq!((sides.ended().id, sides.ended().id), (1, 1));
}

#[test]
fn a_fault_upstream_names_a_proxy_and_no_effect_of_a_listener() {
    let (_listener, server) = proxied();
    for (fault, column, text) in [
        ("db upstream: refuse", 14, "a proxy has no listener upstream: leave out `upstream`"),
        ("echo upstream: reset", 1, "unknown service `echo upstream`"),
    ] {
        let error = match fault.parse::<campanile::testing::Fault>() {
            Ok(fault) => fault.check_service(&["echo", "db", "db upstream"]).unwrap_err(),
            Err(error) => error,
        };
        assert!(error.to_string().contains(text), "{fault}: {error}");
        assert_eq!(error.column(), column, "{fault}");
    }
    let fault = "db upstream #2..3: deaf after 5 bytes in for 1s";
    assert_eq!(fault.parse::<campanile::testing::Fault>().unwrap().to_string(), fault);
    server.fault("db upstream 0%: reset");
}
