//! Small wrong servers: one for every rung of both ladders, each with a mistake that is made.
//! They are written with threads, as most servers are at first, and each ends when it is dropped.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

const LINE: &[u8] = b"Wed Jan 29 19:14:15 2014\r\n";

/// A server that runs on its own thread until it is dropped, or ends by its own mistake.
pub struct Wrong {
    pub addr: SocketAddr,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Where its clients come in.
struct Door {
    listener: TcpListener,
    over: Arc<AtomicBool>,
}

impl Wrong {
    fn start(serve: impl FnOnce(Door) + Send + 'static) -> Wrong {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (addr, over) = (listener.local_addr().unwrap(), Arc::<AtomicBool>::default());
        let door = Door { listener, over: Arc::clone(&over) };
        let thread = Some(thread::spawn(move || serve(door)));
        Wrong { addr, over, thread }
    }

    fn one_by_one(converse: fn(TcpStream) -> io::Result<()>) -> Wrong {
        Wrong::start(move |door| while door.next().map(converse).is_some() {})
    }

    /// One thread for each client. An error ends that client's conversation, as it should.
    fn with_threads(
        converse: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> Wrong {
        Wrong::that_dies(move |client| converse(client).or(Ok(())))
    }

    /// The same, but the first error of any client ends the server.
    fn that_dies(converse: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static) -> Wrong {
        Wrong::start(move |door| {
            let door = &door;
            thread::scope(|scope| {
                while let Some(client) = door.next() {
                    scope.spawn(|| converse(client).inspect_err(|_| door.close()));
                }
            });
        })
    }
}

impl Drop for Wrong {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.addr);
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Door {
    /// The next client, until the server is to end.
    fn next(&self) -> Option<TcpStream> {
        let (client, _) = self.listener.accept().unwrap();
        (!self.over.load(Ordering::SeqCst)).then_some(client)
    }

    fn close(&self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.listener.local_addr().unwrap());
    }
}

/// The tutorial's conversation.
fn echo(client: TcpStream) -> io::Result<()> {
    echo_as(client, <[u8]>::to_vec)
}

fn echo_as(mut client: TcpStream, change: impl Fn(&[u8]) -> Vec<u8>) -> io::Result<()> {
    let mut data = [0; 1024];
    loop {
        match client.read(&mut data)? {
            0 => return Ok(()),
            count => client.write_all(&change(&data[..count]))?,
        }
    }
}

/// Rung 1: it waits for the end of a line.
pub fn echo_by_line() -> Wrong {
    Wrong::with_threads(|mut client| {
        let mut lines = BufReader::new(client.try_clone()?);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line)? > 0 {
            client.write_all(&line)?;
            line.clear();
        }
        Ok(())
    })
}

/// Rung 2: the tutorial's server as it is written.
pub fn echo_once() -> Wrong {
    Wrong::start(|door| {
        let _ = door.next().map(echo);
    })
}

/// Rung 3: the same in a loop.
pub fn echo_one_after_the_other() -> Wrong {
    Wrong::one_by_one(echo)
}

/// Rung 4: it takes what comes for text.
pub fn echo_of_text() -> Wrong {
    Wrong::with_threads(|client| {
        echo_as(client, |data| String::from_utf8_lossy(data).into_owned().into_bytes())
    })
}

/// Rung 5: `send` is not `sendall`.
pub fn echo_by_one_send() -> Wrong {
    Wrong::with_threads(|mut client| {
        let mut data = [0; 16 << 10];
        loop {
            client.set_nonblocking(false)?;
            let count = client.read(&mut data)?;
            if count == 0 {
                return Ok(());
            }
            client.set_nonblocking(true)?;
            match client.write(&data[..count]) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
        }
    })
}

/// Reads whatever comes and keeps it until it can be written: there is no bound.
fn echo_unbounded(client: TcpStream, at_eof: impl FnOnce(&TcpStream)) -> io::Result<()> {
    let (mut from, mut to) = (client.try_clone()?, client.try_clone()?);
    let (sender, owed) = mpsc::channel::<Vec<u8>>();
    thread::scope(|scope| {
        scope.spawn(move || owed.iter().try_for_each(|data| to.write_all(&data)));
        let mut data = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from.read(&mut data) {
            if sender.send(data[..count].to_vec()).is_err() {
                break;
            }
        }
        at_eof(&client);
        drop(sender);
    });
    client.shutdown(Shutdown::Both)
}

/// Rung 6: EOF is the end, whatever is owed.
pub fn echo_that_closes_at_eof() -> Wrong {
    Wrong::with_threads(|client| {
        echo_unbounded(client, |client| drop(client.shutdown(Shutdown::Both)))
    })
}

/// Rung 7, where its process can be seen: what a client does not read piles up.
pub fn echo_without_bound() -> Wrong {
    Wrong::with_threads(|client| echo_unbounded(client, |_| {}))
}

/// Rung 7: one writer for all, who waits for each client to read.
pub fn echo_with_one_writer() -> Wrong {
    Wrong::start(|door| {
        let (sender, owed) = mpsc::sync_channel::<(Arc<TcpStream>, Vec<u8>)>(1);
        thread::scope(|scope| {
            scope.spawn(move || {
                for (client, data) in owed {
                    let _ = (&*client).write_all(&data);
                }
            });
            while let Some(client) = door.next() {
                let (client, sender) = (Arc::new(client), sender.clone());
                scope.spawn(move || {
                    let mut data = [0; 16 << 10];
                    while let Ok(count @ 1..) = (&*client).read(&mut data) {
                        let piece = (Arc::clone(&client), data[..count].to_vec());
                        let _ = sender.send(piece);
                    }
                });
            }
            drop(sender);
        });
    })
}

/// Rung 8: one client's reset is everybody's.
pub fn echo_that_dies_of_a_reset() -> Wrong {
    Wrong::that_dies(echo)
}

/// Rung 8: by edges, and a short read is taken for the last before the next edge, unless the client
/// has ended its side.
#[cfg(all(target_os = "linux", not(mio_unsupported_force_poll_poll)))]
pub fn echo_that_believes_a_short_read() -> Wrong {
    Wrong::with_threads(|client| {
        client.set_nonblocking(true)?;
        let mut client = mio::net::TcpStream::from_std(client);
        let (mut poll, mut events) = (mio::Poll::new()?, mio::Events::with_capacity(8));
        let both = mio::Interest::READABLE | mio::Interest::WRITABLE;
        poll.registry().register(&mut client, mio::Token(0), both)?;
        let (mut data, mut is_ending) = ([0; 16 << 10], false);
        loop {
            // It has other things to do for a moment.
            (0..100).for_each(|_| thread::yield_now());
            let count = match client.read(&mut data) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) => return Err(error),
            };
            let (mut rest, mut has_event) = (&data[..count], false);
            loop {
                match client.write(rest) {
                    Ok(count) => rest = &rest[count..],
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
                let is_blocked = !rest.is_empty();
                if is_blocked || (count < data.len() && !has_event && !is_ending) {
                    poll.poll(&mut events, None)?;
                    has_event = true;
                    is_ending |= events.iter().any(|event| event.is_read_closed());
                }
                if rest.is_empty() {
                    break;
                }
            }
        }
    })
}

/// Rung 8: a table for 64 clients.
pub fn echo_with_a_small_table() -> Wrong {
    let clients = AtomicUsize::new(0);
    Wrong::with_threads(move |client| {
        if clients.fetch_add(1, Ordering::SeqCst) < 64 {
            let _ = echo(client);
        }
        clients.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    })
}

/// Sends the line and ends in order: its half first, and then reads what the client sends.
fn tell(client: TcpStream) -> io::Result<()> {
    tell_text(client, LINE)
}

fn tell_text(mut client: TcpStream, text: &[u8]) -> io::Result<()> {
    client.write_all(text)?;
    client.shutdown(Shutdown::Write)?;
    io::copy(&mut client, &mut io::sink()).map(drop)
}

/// Rung 1: it waits to be asked.
pub fn daytime_when_asked() -> Wrong {
    Wrong::with_threads(|mut client| {
        let _ = client.read(&mut [0; 64])?;
        tell(client)
    })
}

/// Rung 2: it says the line and stays.
pub fn daytime_without_an_end() -> Wrong {
    Wrong::with_threads(|mut client| {
        client.write_all(LINE)?;
        io::copy(&mut client, &mut io::sink()).map(drop)
    })
}

/// Rung 2: it says something else than a line.
pub fn daytime_that_says(text: &'static [u8]) -> Wrong {
    Wrong::with_threads(move |client| tell_text(client, text))
}

/// Rung 3: the tutorial's server, which closes without having read.
pub fn daytime_that_does_not_read() -> Wrong {
    Wrong::one_by_one(|mut client| client.write_all(LINE))
}

/// Rung 4: of 64 places each client takes one, and none is given back.
pub fn daytime_that_leaks() -> Wrong {
    let clients = AtomicUsize::new(0);
    Wrong::with_threads(move |client| {
        if clients.fetch_add(1, Ordering::SeqCst) < 64 { tell(client) } else { Ok(()) }
    })
}

/// Rung 5: one client's reset is everybody's.
pub fn daytime_that_dies_of_a_reset() -> Wrong {
    Wrong::that_dies(tell)
}

/// Rung 6: in order, but one after the other.
pub fn daytime_one_after_the_other() -> Wrong {
    Wrong::one_by_one(tell)
}
