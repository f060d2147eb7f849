//! What the tests share.
#![allow(dead_code, unused_imports)]

pub mod diary;
pub mod each;
pub mod namespace;
pub mod recording;
pub mod script;

use std::fmt::Display;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::panic::Location;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use campanile::{Background, Limits};

/// The only deadline of the tests: far beyond what a busy machine needs.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// The frozen second of the tutorial.
pub const TUTORIAL: i64 = 1_391_022_855;
pub const TUTORIAL_LINE: &[u8] = b"Wed Jan 29 19:14:15 2014\r\n";

/// Both services in the background: daytime at the tutorial's second, and echo.
pub struct Both {
    pub server: Background,
    pub daytime: SocketAddr,
    pub echo: SocketAddr,
}

impl Both {
    pub fn start(limits: Limits) -> Both {
        let (server, (daytime, echo)) = Background::start(limits, |reactor| {
            let clock = campanile::Clock::fixed(TUTORIAL);
            let daytime = reactor.listen("127.0.0.1:0", campanile::daytime(clock))?;
            Ok((daytime, reactor.listen("127.0.0.1:0", campanile::echo())?))
        })
        .expect("the server starts");
        Both { server, daytime, echo }
    }

    pub fn finish(self) -> campanile::Stats {
        self.server.shutdown(DEADLINE).expect("the server ends well")
    }
}

/// The file that lists the skipped tests: `skips` in the target folder, or what `CAMPANILE_SKIPS`
/// names.
pub fn skips() -> PathBuf {
    match std::env::var_os("CAMPANILE_SKIPS") {
        Some(path) => path.into(),
        None => Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("skips"),
    }
}

/// Records that the running test, or a part of it, is skipped. The harness hides what a passing test
/// prints, so the record is a line in the file [`skips`].
#[track_caller]
pub fn skip(reason: impl Display) {
    let (thread, place) = (std::thread::current(), Location::caller());
    let test = thread.name().unwrap_or("a thread without a name");
    let line = format!("{}:{} {test}: {reason}\n", place.file(), place.line());
    eprint!("SKIPPED: {line}");
    // One write in append mode: lines of processes that run at the same time do not mix.
    let file = std::fs::OpenOptions::new().create(true).append(true).open(skips());
    let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
    written.unwrap_or_else(|error| {
        panic!("cannot record a skipped test in {}: {error}", skips().display())
    });
}

/// Tries until it works, or the deadline comes: for what nobody announces.
pub fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(began.elapsed() < DEADLINE, "{what} never came true");
        std::thread::yield_now();
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

/// Makes the drop of `client` a reset.
pub fn reset(client: &TcpStream) {
    socket2::SockRef::from(client).set_linger(Some(Duration::ZERO)).expect("set SO_LINGER");
}

/// A folder of its own, removed when dropped.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("campanile-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
