//! The clients: loopback only, bounded in number, and no wait is longer than [`PATIENCE`].

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::sys;

pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Connections with one piece in flight each: it is sent, comes back, and is sent again.
pub struct Echo {
    epoll: OwnedFd,
    clients: Vec<Client>,
    piece: Vec<u8>,
    scratch: Vec<u8>,
}

struct Client {
    stream: TcpStream,
    missing: usize,
}

impl Echo {
    pub fn connect(addr: SocketAddr, connections: usize, piece: usize) -> io::Result<Echo> {
        let mut echo = Echo {
            epoll: sys::epoll()?,
            clients: Vec::new(),
            piece: (0..piece).map(|at| at as u8).collect(),
            scratch: vec![0; piece],
        };
        for mark in 0..connections {
            let stream = connect(addr)?;
            sys::watch(&echo.epoll, stream.as_raw_fd(), mark as u64)?;
            echo.clients.push(Client { stream, missing: 0 });
        }
        Ok(echo)
    }

    /// Sends `pieces` in total and waits until all have come back.
    pub fn run(&mut self, pieces: usize) -> io::Result<()> {
        let (mut unsent, mut out) = (pieces, 0);
        for client in self.clients.iter_mut().take(pieces) {
            client.stream.write_all(&self.piece)?;
            client.missing = self.piece.len();
            unsent -= 1;
            out += 1;
        }
        let mut events = vec![sys::epoll_event { events: 0, u64: 0 }; self.clients.len()];
        while out > 0 {
            let ready = sys::wait(&self.epoll, &mut events, PATIENCE.as_millis() as i32);
            if ready == 0 {
                return Err(ErrorKind::TimedOut.into());
            }
            for event in &events[..ready] {
                let client = &mut self.clients[event.u64 as usize];
                let start = self.piece.len() - client.missing;
                let count = client.stream.read(&mut self.scratch[start..])?;
                if count == 0
                    || self.scratch[start..start + count] != self.piece[start..start + count]
                {
                    return Err(differs());
                }
                client.missing -= count;
                if client.missing > 0 {
                    continue;
                }
                out -= 1;
                if unsent > 0 {
                    client.stream.write_all(&self.piece)?;
                    client.missing = self.piece.len();
                    unsent -= 1;
                    out += 1;
                }
            }
        }
        Ok(())
    }
}

/// The most that [`stream`] offers to the kernel at once.
const CHUNK: usize = 256 << 10;

/// Sends `bytes` on one connection as fast as it can, and checks the echo.
pub fn stream(stream: &mut TcpStream, bytes: usize) -> io::Result<()> {
    // The byte at each offset is known: a lost, doubled or moved byte does not pass.
    let pattern: Vec<u8> = (0..CHUNK + 251).map(|at| (at % 251) as u8).collect();
    let mut chunk = vec![0; CHUNK];
    let (mut sent, mut received) = (0, 0);
    // One thread serves both directions: two would compete for the load's one CPU.
    stream.set_nonblocking(true)?;
    while received < bytes {
        let offer = CHUNK.min(bytes - sent);
        let start = sent % 251;
        let went =
            if offer == 0 { None } else { progress(stream.write(&pattern[start..start + offer]))? };
        let mut came = progress(stream.read(&mut chunk))?;
        sent += went.unwrap_or(0);
        if went.is_none() && came.is_none() {
            // Neither direction can go on until the server sends.
            stream.set_nonblocking(false)?;
            came = Some(stream.read(&mut chunk)?);
            stream.set_nonblocking(true)?;
        }
        let start = received % 251;
        match came {
            Some(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Some(count) if chunk[..count] != pattern[start..start + count] => return Err(differs()),
            count => received += count.unwrap_or(0),
        }
    }
    stream.set_nonblocking(false)
}

pub fn differs() -> io::Error {
    io::Error::other("the server's echo differs from the bytes that were sent")
}

/// Turns `WouldBlock` into `None`.
pub fn progress(outcome: io::Result<usize>) -> io::Result<Option<usize>> {
    match outcome {
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// Short connections. A daytime server closes first, so its side of each address pair stays in TIME_WAIT;
/// the clients therefore connect from many loopback addresses in rotation.
pub struct Daytime {
    addr: SocketAddr,
    made: usize,
}

impl Daytime {
    pub fn new(addr: SocketAddr) -> Daytime {
        Daytime { addr, made: 0 }
    }

    fn request(&mut self) -> io::Result<TcpStream> {
        let socket = self.socket()?;
        socket.connect_timeout(&self.addr.into(), PATIENCE)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(socket.into())
    }

    /// Begins a connection without waiting for it.
    pub fn begin(&mut self) -> io::Result<TcpStream> {
        let socket = self.socket()?;
        socket.set_nonblocking(true)?;
        match socket.connect(&self.addr.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
            _ => Ok(socket.into()),
        }
    }

    fn socket(&mut self) -> io::Result<Socket> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        let host = 2 + (self.made % 249) as u8;
        self.made += 1;
        // The kernel chooses the port at connect, when both addresses are known.
        sys::choose_port_late(socket.as_raw_fd())?;
        let source = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, host), 0);
        socket.bind(&SocketAddr::from(source).into())?;
        Ok(socket)
    }

    /// Makes `count` connections, 16 at a time.
    pub fn run(&mut self, count: usize) -> io::Result<()> {
        let mut left = count;
        while left > 0 {
            let batch = left.min(16);
            let streams: io::Result<Vec<_>> = (0..batch).map(|_| self.request()).collect();
            for mut stream in streams? {
                read_line(&mut stream)?;
            }
            left -= batch;
        }
        Ok(())
    }

    /// Makes `count` connections to echo, 16 at a time, with one message each, then a FIN each way.
    pub fn run_echoes(&mut self, count: usize) -> io::Result<()> {
        let mut left = count;
        while left > 0 {
            let batch = left.min(16);
            let streams: io::Result<Vec<_>> = (0..batch).map(|_| self.request()).collect();
            let streams = streams?;
            for stream in &streams {
                (&*stream).write_all(&[9; 64])?;
                stream.shutdown(Shutdown::Write)?;
            }
            for mut stream in streams {
                let mut back = Vec::new();
                stream.read_to_end(&mut back)?;
                if back != [9; 64] {
                    return Err(differs());
                }
            }
            left -= batch;
        }
        Ok(())
    }

    /// Makes one connection at a time, and waits for the server to sleep before each step, so that every
    /// run makes the server do the same work.
    pub fn run_in_step(&mut self, count: usize, server: u32) -> io::Result<()> {
        for _ in 0..count {
            let mut stream = self.request()?;
            read_line(&mut stream)?;
            await_sleep(server)?;
            drop(stream);
            await_sleep(server)?;
        }
        Ok(())
    }
}

fn read_line(stream: &mut TcpStream) -> io::Result<()> {
    let (mut line, mut length) = ([0; 64], 0);
    loop {
        match stream.read(&mut line[length..])? {
            0 if length == 26 && line[..length].ends_with(b"\r\n") => return Ok(()),
            0 => return Err(io::Error::other("the server closed before a whole daytime line")),
            count => length += count,
        }
    }
}

/// Sends one message at a time, and waits for the server to sleep before each.
pub fn echo_in_step(addr: SocketAddr, count: usize, server: u32) -> io::Result<()> {
    let mut stream = connect(addr)?;
    let mut reply = [0; 64];
    for _ in 0..count {
        await_sleep(server)?;
        stream.write_all(&[7; 64])?;
        stream.read_exact(&mut reply)?;
    }
    await_sleep(server)
}

/// Waits until the main thread of a process sleeps, as `/proc` reports it.
fn await_sleep(pid: u32) -> io::Result<()> {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name, in brackets, may contain anything. The state is the first word after it.
        if stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S')) {
            return Ok(());
        }
        std::thread::yield_now();
    }
    Err(ErrorKind::TimedOut.into())
}
