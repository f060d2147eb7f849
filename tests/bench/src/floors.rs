//! The servers that the loop is measured against: epoll and nothing else.
//!
//! They have no timeouts, no limits, and one buffer, as large as that of the server beside it. Events
//! are level-triggered, so the servers store no state. The sockets of `plain` and `lingering` block, so a
//! write takes everything.
//! `relay` must not block: two servers that both wait to write would wait for ever.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};

use socket2::{Domain, SockRef, Socket, Type};

use crate::sys;

pub const BUFFER: usize = 48 << 10;
/// What `campanile proxy` reads at once.
const RELAY_BUFFER: usize = 64 << 10;
/// The backlog of `campanile serve`.
const BACKLOG: i32 = 4096;

/// The line of the current second. The service keeps it too: formatting costs more than sending.
pub struct Line {
    second: i64,
    text: [u8; 26],
}

impl Line {
    pub fn new() -> Line {
        Line { second: 0, text: [0; 26] }
    }

    pub fn text(&mut self) -> &[u8; 26] {
        let second = sys::second();
        if self.second != second {
            *self = Line { second, text: sys::ctime(second) };
        }
        &self.text
    }
}

/// Binds a free port and prints it.
pub fn listen(name: &str) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    socket.set_tcp_nodelay(true)?;
    socket.listen(BACKLOG)?;
    let listener = TcpListener::from(socket);
    println!("{name} {}", listener.local_addr()?);
    io::stdout().flush()?;
    Ok(listener)
}

struct Loop {
    epoll: OwnedFd,
    events: Vec<sys::epoll_event>,
    scratch: Vec<u8>,
}

impl Loop {
    fn new() -> io::Result<Loop> {
        let events = vec![sys::epoll_event { events: 0, u64: 0 }; 1024];
        Ok(Loop { epoll: sys::epoll()?, events, scratch: vec![0; BUFFER] })
    }

    fn watch(&self, fd: i32) -> io::Result<()> {
        sys::watch(&self.epoll, fd, fd as u64)
    }
}

/// Serves echo, and a daytime that writes and closes.
pub fn plain() -> io::Result<()> {
    let (daytime, echo) = (listen("daytime")?, listen("echo")?);
    let (daytime, echo) = (daytime.as_raw_fd(), echo.as_raw_fd());
    let mut it = Loop::new()?;
    it.watch(daytime)?;
    it.watch(echo)?;
    let mut line = Line::new();
    loop {
        let count = sys::wait(&it.epoll, &mut it.events, -1);
        for at in 0..count {
            let fd = it.events[at].u64 as i32;
            if fd == daytime {
                let new = sys::accept(daytime);
                sys::send(new, line.text(), 0);
                sys::close(new);
            } else if fd == echo {
                it.watch(sys::accept(echo))?;
            } else {
                let count = sys::recv(fd, &mut it.scratch);
                if count <= 0 || sys::send(fd, &it.scratch[..count as usize], 0) < count {
                    sys::close(fd);
                }
            }
        }
    }
}

/// Serves a daytime that lingers as ours does: sends the line and the FIN in one segment, then reads
/// to the peer's FIN.
pub fn lingering() -> io::Result<()> {
    let daytime = listen("daytime")?;
    let daytime = daytime.as_raw_fd();
    let mut it = Loop::new()?;
    it.watch(daytime)?;
    let mut line = Line::new();
    loop {
        let count = sys::wait(&it.epoll, &mut it.events, -1);
        for at in 0..count {
            let fd = it.events[at].u64 as i32;
            if fd == daytime {
                let new = sys::accept(daytime);
                sys::send(new, line.text(), sys::MSG_MORE);
                sys::shutdown_write(new);
                it.watch(new)?;
            } else if sys::recv(fd, &mut it.scratch) <= 0 {
                sys::close(fd);
            }
        }
    }
}

/// Serves echo with splice(2): the bytes stay in the kernel. One pipe is enough, because the sockets
/// block and each event empties it.
pub fn splice() -> io::Result<()> {
    let echo = listen("echo")?;
    let echo = echo.as_raw_fd();
    let mut it = Loop::new()?;
    it.watch(echo)?;
    let (from, to) = io::pipe()?;
    let (from, to) = (from.as_raw_fd(), to.as_raw_fd());
    loop {
        let count = sys::wait(&it.epoll, &mut it.events, -1);
        for at in 0..count {
            let fd = it.events[at].u64 as i32;
            if fd == echo {
                it.watch(sys::accept(echo))?;
                continue;
            }
            let mut left = sys::splice(fd, to, BUFFER);
            let mut is_open = left > 0;
            while left > 0 && is_open {
                let moved = sys::splice(from, fd, left as usize);
                left -= moved;
                is_open = moved > 0;
            }
            if !is_open {
                sys::close(fd);
            }
        }
    }
}

/// One end of a relayed conversation. The default is a descriptor without one.
#[derive(Clone, Default)]
struct End {
    other: i32,
    /// Bytes from this end that the other end does not take yet. While there are any, this end is
    /// not read.
    rest: Vec<u8>,
    has_ended: bool,
}

/// Passes connections on to `upstream`, with half-close in both directions.
pub fn relay(upstream: SocketAddr) -> io::Result<()> {
    let listener = listen("relay")?;
    let listener = listener.as_raw_fd();
    let mut it = Loop::new()?;
    it.scratch = vec![0; RELAY_BUFFER];
    it.watch(listener)?;
    let mut ends: Vec<End> = Vec::new();
    loop {
        let count = sys::wait(&it.epoll, &mut it.events, -1);
        for at in 0..count {
            let event = it.events[at];
            let fd = event.u64 as i32;
            if fd == listener {
                let client = sys::accept(listener);
                let server = TcpStream::connect(upstream)?;
                server.set_nodelay(true)?;
                let server = server.into_raw_fd();
                ends.resize(ends.len().max(client.max(server) as usize + 1), End::default());
                ends[client as usize] = End { other: server, ..End::default() };
                ends[server as usize] = End { other: client, ..End::default() };
                it.watch(client)?;
                it.watch(server)?;
            } else if ends[fd as usize].other > 0 && !pass_on(&mut it, &mut ends, fd, event.events)?
            {
                let other = std::mem::take(&mut ends[fd as usize]).other;
                ends[other as usize] = End::default();
                sys::close(fd);
                sys::close(other);
            }
        }
    }
}

/// Returns false once both ends have ended, or one has failed.
fn pass_on(it: &mut Loop, ends: &mut [End], fd: i32, events: u32) -> io::Result<bool> {
    let (this, other) = (fd as usize, ends[fd as usize].other as usize);
    if events & sys::WRITABLE != 0 && !ends[other].rest.is_empty() {
        let rest = std::mem::take(&mut ends[other].rest);
        let sent = sys::send_now(fd, &rest).unwrap_or(0);
        ends[other].rest = rest[sent..].to_vec();
        if ends[other].rest.is_empty() {
            rewatch(it, other as i32, !ends[other].has_ended, !ends[this].rest.is_empty())?;
            rewatch(it, fd, !ends[this].has_ended && ends[this].rest.is_empty(), false)?;
        }
    }
    if events & !sys::WRITABLE == 0 || ends[this].has_ended || !ends[this].rest.is_empty() {
        // A hang-up of an end that is not watched for reading is reported all the same.
        return Ok(events & sys::FAILED == 0);
    }
    let count = sys::recv(fd, &mut it.scratch);
    if count <= 0 {
        ends[this].has_ended = true;
        sys::shutdown_write(other as i32);
        let writes = !ends[other].rest.is_empty();
        rewatch(it, fd, false, writes)?;
        return Ok(count == 0 && !ends[other].has_ended);
    }
    let Some(sent) = sys::send_now(other as i32, &it.scratch[..count as usize]) else {
        return Ok(false);
    };
    if sent < count as usize {
        ends[this].rest = it.scratch[sent..count as usize].to_vec();
        rewatch(it, fd, false, !ends[other].rest.is_empty())?;
        let reads = !ends[other].has_ended && ends[other].rest.is_empty();
        rewatch(it, other as i32, reads, true)?;
    }
    Ok(true)
}

fn rewatch(it: &Loop, fd: i32, reads: bool, writes: bool) -> io::Result<()> {
    sys::rewatch(&it.epoll, fd, reads, writes, fd as u64)
}

/// Sets `TCP_NODELAY` on a descriptor that another loop owns.
pub fn nodelay(socket: &impl std::os::fd::AsFd) -> io::Result<()> {
    SockRef::from(socket).set_tcp_nodelay(true)
}
