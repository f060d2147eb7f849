//! The clients. Loopback only, bounded in count, and no wait of theirs lasts for more than
//! [`PATIENCE`].

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::sys;

pub const PATIENCE: Duration = Duration::from_secs(20);

fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Connections that each have one piece under way: it is sent, comes back, is sent again.
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

    /// Sends `pieces` in all and waits until each has come back.
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
                    return Err(io::Error::other("what came back is not what was sent"));
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

/// One connection that sends as fast as it can and reads what comes back.
pub fn stream(stream: &mut TcpStream, bytes: usize) -> io::Result<()> {
    let mut chunk = vec![7; 256 << 10];
    let (mut to_send, mut to_read) = (bytes, bytes);
    // One thread for both directions: two would fight for the one CPU of the load.
    stream.set_nonblocking(true)?;
    while to_read > 0 {
        let offer = to_send.min(chunk.len());
        let sent = if offer == 0 { None } else { progress(stream.write(&chunk[..offer]))? };
        let read = progress(stream.read(&mut chunk))?;
        if read == Some(0) {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        to_send -= sent.unwrap_or(0);
        to_read -= read.unwrap_or(0);
        if sent.is_none() && read.is_none() {
            // Nothing can be done until some of it comes back.
            stream.set_nonblocking(false)?;
            to_read -= stream.read(&mut chunk)?;
            stream.set_nonblocking(true)?;
        }
    }
    stream.set_nonblocking(false)
}

fn progress(outcome: io::Result<usize>) -> io::Result<Option<usize>> {
    match outcome {
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

pub fn connect_stream(addr: SocketAddr) -> io::Result<TcpStream> {
    connect(addr)
}

/// Asks for the time, from one loopback address after the other: the server's half ends first, so
/// it is the server that keeps the pair of addresses in TIME_WAIT.
pub struct Daytime {
    addr: SocketAddr,
    asked: usize,
}

impl Daytime {
    pub fn new(addr: SocketAddr) -> Daytime {
        Daytime { addr, asked: 0 }
    }

    fn ask(&mut self) -> io::Result<TcpStream> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        let host = 2 + (self.asked % 249) as u8;
        self.asked += 1;
        // The port is chosen at connect, when both addresses are known.
        sys::choose_port_late(socket.as_raw_fd())?;
        let source = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, host), 0);
        socket.bind(&SocketAddr::from(source).into())?;
        socket.connect_timeout(&self.addr.into(), PATIENCE)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(socket.into())
    }

    /// Asks `count` times, 16 at a time.
    pub fn run(&mut self, count: usize) -> io::Result<()> {
        let mut left = count;
        while left > 0 {
            let batch = left.min(16);
            let asked: io::Result<Vec<_>> = (0..batch).map(|_| self.ask()).collect();
            for mut stream in asked? {
                hear(&mut stream)?;
            }
            left -= batch;
        }
        Ok(())
    }

    /// Asks one at a time and goes on only when the server sleeps: every run does the same work.
    pub fn run_in_step(&mut self, count: usize, server: u32) -> io::Result<()> {
        for _ in 0..count {
            let mut stream = self.ask()?;
            hear(&mut stream)?;
            await_sleep(server)?;
            drop(stream);
            await_sleep(server)?;
        }
        Ok(())
    }
}

fn hear(stream: &mut TcpStream) -> io::Result<()> {
    let (mut line, mut length) = ([0; 64], 0);
    loop {
        match stream.read(&mut line[length..])? {
            0 if line[..length].ends_with(b"\r\n") => return Ok(()),
            0 => return Err(io::Error::other("that is no daytime line")),
            count => length += count,
        }
    }
}

/// Echoes one message after the other and goes on only when the server sleeps.
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

/// Returns once the main thread of a process sleeps, by what the kernel says of it.
fn await_sleep(pid: u32) -> io::Result<()> {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name, in brackets, may hold anything; the state is the first word after it.
        if stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S')) {
            return Ok(());
        }
        std::thread::yield_now();
    }
    Err(ErrorKind::TimedOut.into())
}
