//! What the tests share.
#![allow(dead_code, unused_imports)]

pub mod diary;
pub mod fake;
pub mod script;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use campanile::{Handle, Limits, Reactor};

/// The only deadline of the tests: far beyond what a busy machine needs.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// The frozen second of the tutorial.
pub const TUTORIAL: i64 = 1_391_022_855;
pub const TUTORIAL_LINE: &[u8] = b"Wed Jan 29 19:14:15 2014\r\n";

/// A reactor on a thread of its own, ended and joined on drop.
pub struct Running {
    pub handle: Handle,
    pub addrs: Vec<SocketAddr>,
    thread: Option<JoinHandle<io::Result<campanile::Stats>>>,
}

impl Running {
    /// Listens on port 0 with whatever `listen` sets up.
    pub fn start(
        limits: Limits,
        listen: impl FnOnce(&mut Reactor) -> io::Result<Vec<SocketAddr>> + Send + 'static,
    ) -> Running {
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut reactor = Reactor::with_limits(limits)?;
            let addrs = listen(&mut reactor)?;
            ready.send((reactor.handle(), addrs)).expect("the test waits");
            reactor.run()?;
            Ok(reactor.stats().clone())
        });
        let (handle, addrs) = is_ready.recv_timeout(DEADLINE).expect("the reactor starts");
        Running { handle, addrs, thread: Some(thread) }
    }

    /// Daytime at the tutorial's second, and echo.
    pub fn both(limits: Limits) -> Running {
        Running::start(limits, |reactor| {
            let clock = campanile::Clock::fixed(TUTORIAL);
            let daytime = reactor.listen("127.0.0.1:0", campanile::daytime(clock))?;
            let echo = reactor.listen("127.0.0.1:0", campanile::echo())?;
            Ok(vec![daytime, echo])
        })
    }

    pub fn daytime(&self) -> TcpStream {
        connect(self.addrs[0])
    }

    pub fn echo(&self) -> TcpStream {
        connect(self.addrs[1])
    }

    /// Ends the reactor politely and tells what it did.
    pub fn finish(mut self) -> campanile::Stats {
        self.handle.shutdown(DEADLINE);
        self.join().expect("the reactor ends well")
    }

    fn join(&mut self) -> io::Result<campanile::Stats> {
        let thread = self.thread.take().expect("joined once");
        match thread.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.handle.shutdown(Duration::ZERO);
            let joined = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.join()));
            if !std::thread::panicking() {
                joined.expect("no panic on the reactor's thread").expect("the reactor ends well");
            }
        }
    }
}

/// A blocking client that gives up after the deadline.
pub fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&addr, DEADLINE).expect("connect");
    stream.set_read_timeout(Some(DEADLINE)).expect("set a timeout");
    stream.set_write_timeout(Some(DEADLINE)).expect("set a timeout");
    stream
}

pub fn read_all(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    Ok(bytes)
}

pub fn read_exactly(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).expect("as many bytes as were sent");
    bytes
}

/// Sends and compares what comes back.
pub fn ping(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).expect("send");
    assert_eq!(read_exactly(stream, bytes.len()), bytes);
}

/// Bytes in which a lost, doubled or moved piece is seen.
pub fn pattern(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .collect()
}
