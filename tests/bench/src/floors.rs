//! The servers that the loop is measured against.
//!
//! `plain` and `lingering` are epoll and nothing else: no timeouts, no limits, one buffer of 32 KiB.
//! Events are level-triggered, so the server stores no state. Sockets block, so a write takes
//! everything. `tokio` is the usual echo of a current-thread runtime.

use std::io::{self, Write};
use std::net::TcpListener;
use std::os::fd::AsRawFd;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::sys;

/// The line of the current second. The service keeps it too: formatting costs more than sending.
struct Line {
    second: i64,
    text: [u8; 26],
}

impl Line {
    fn text(&mut self) -> &[u8] {
        let second = sys::second();
        if self.second != second {
            *self = Line { second, text: sys::ctime(second) };
        }
        &self.text
    }
}

fn listen(name: &str) -> io::Result<TcpListener> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    SockRef::from(&listener).set_tcp_nodelay(true)?;
    println!("{name} {}", listener.local_addr()?);
    io::stdout().flush()?;
    Ok(listener)
}

/// Serves echo, and a daytime that writes and closes.
pub fn plain() -> io::Result<()> {
    let (daytime, echo) = (listen("daytime")?, listen("echo")?);
    let (daytime, echo) = (daytime.as_raw_fd(), echo.as_raw_fd());
    let epoll = sys::epoll()?;
    sys::watch(&epoll, daytime, daytime as u64)?;
    sys::watch(&epoll, echo, echo as u64)?;
    let mut line = Line { second: 0, text: [0; 26] };
    let mut scratch = vec![0; 32 << 10];
    let mut events = vec![sys::epoll_event { events: 0, u64: 0 }; 1024];
    loop {
        let count = sys::wait(&epoll, &mut events, -1);
        for event in &events[..count] {
            let fd = event.u64 as i32;
            if fd == daytime {
                let new = sys::accept(daytime);
                sys::send(new, line.text(), 0);
                sys::close(new);
            } else if fd == echo {
                let new = sys::accept(echo);
                sys::watch(&epoll, new, new as u64)?;
            } else {
                let count = sys::recv(fd, &mut scratch);
                if count <= 0 || sys::send(fd, &scratch[..count as usize], 0) < count {
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
    let epoll = sys::epoll()?;
    sys::watch(&epoll, daytime, daytime as u64)?;
    let mut line = Line { second: 0, text: [0; 26] };
    let mut scratch = vec![0; 32 << 10];
    let mut events = vec![sys::epoll_event { events: 0, u64: 0 }; 1024];
    loop {
        let count = sys::wait(&epoll, &mut events, -1);
        for event in &events[..count] {
            let fd = event.u64 as i32;
            if fd == daytime {
                let new = sys::accept(daytime);
                sys::send(new, line.text(), sys::MSG_MORE);
                sys::shutdown_write(new);
                sys::watch(&epoll, new, new as u64)?;
            } else if sys::recv(fd, &mut scratch) <= 0 {
                sys::close(fd);
            }
        }
    }
}

/// Serves echo with tokio: one task and one buffer of 32 KiB for each connection.
pub fn tokio() -> io::Result<()> {
    let listener = listen("echo")?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(echo(stream));
        }
    })
}

async fn echo(mut stream: tokio::net::TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; 32 << 10];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            count => stream.write_all(&buffer[..count]).await?,
        }
    }
}
