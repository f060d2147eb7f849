//! The tutorial's client reads once, `recv(1024)`, and on loopback that works: until the line comes
//! in two pieces. A server that slices shows it; reading to the end repairs it.
//!
//! Run it with `cargo run --example naive_client`. Look at `naive`: where is the second piece?

use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};

use campanile::testing::TestServer;

/// As the tutorial has it.
fn naive(addr: SocketAddr) -> io::Result<String> {
    let mut buffer = [0; 1024];
    let count = TcpStream::connect(addr)?.read(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..count]).into_owned())
}

/// A stream has no messages: what ends a daytime is EOF.
fn repaired(addr: SocketAddr) -> io::Result<String> {
    let mut line = String::new();
    TcpStream::connect(addr)?.read_to_string(&mut line)?;
    Ok(line)
}

fn main() -> io::Result<()> {
    let server = TestServer::start();
    let addr = server.daytime().addr();
    println!("naive, all is well:    {:?}", naive(addr)?);
    let _slivers = server.daytime().always("slice 5/20ms");
    println!("naive, in slivers:     {:?}", naive(addr)?);
    println!("repaired, in slivers:  {:?}", repaired(addr)?);
    Ok(())
}
