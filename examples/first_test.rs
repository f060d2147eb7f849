//! A client with a bug that no test on loopback finds, and the fault that shows it.
//!
//! Run it with `cargo run --example first_test`. As a test, `cargo test --example first_test -- --ignored`
//! runs the client with the bug, and fails; `cargo test --example first_test` runs the repaired one.
//! Look at `ask`: where does the second read go?

// ANCHOR: red
use campanile::testing::TestServer;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};

fn ask(server: SocketAddr) -> String {
    let mut buffer = [0; 1024];
    let count = TcpStream::connect(server).unwrap().read(&mut buffer).unwrap();
    String::from_utf8_lossy(&buffer[..count]).into_owned()
}

#[test]
#[ignore = "fails, to show what a failure prints"]
fn the_client_reads_the_whole_line() {
    let server = TestServer::start();
    let _fault = server.daytime().always("slice 5/20ms");
    assert_eq!(ask(server.daytime().addr()), "Wed Jan 29 19:14:15 2014\r\n");
}
// ANCHOR_END: red

/// The repaired client: the line ends where the stream ends.
fn ask_and_read_to_the_end(server: SocketAddr) -> String {
    let mut line = String::new();
    TcpStream::connect(server).unwrap().read_to_string(&mut line).unwrap();
    line
}

#[test]
fn the_repaired_client_reads_the_whole_line() {
    let server = TestServer::start();
    let _fault = server.daytime().always("slice 5/20ms");
    assert_eq!(ask_and_read_to_the_end(server.daytime().addr()), "Wed Jan 29 19:14:15 2014\r\n");
}

fn main() {
    let server = TestServer::start();
    let _fault = server.daytime().always("slice 5/20ms");
    println!("one read:        {:?}", ask(server.daytime().addr()));
    println!("read to the end: {:?}", ask_and_read_to_the_end(server.daytime().addr()));
}
