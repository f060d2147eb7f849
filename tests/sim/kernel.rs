//! The [`Kernel`] of a simulated world, and its streams.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use campanile::{
    Address, CloseReason, ConnId, Limits,
    sys::{Event, Input, Kernel, Snapshot, Stream, Wake},
};

use super::faults::{ENDS, HOLDS};
use super::socket::Link;
use super::world::{Queue, Shared};

#[derive(Debug, Default)]
pub struct Bell(AtomicBool, AtomicUsize);

impl Bell {
    pub fn is_rung(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// Returns how often it was rung.
    pub fn count(&self) -> usize {
        self.1.load(Ordering::SeqCst)
    }
}

impl Wake for Bell {
    fn wake(&self) -> io::Result<()> {
        self.0.store(true, Ordering::SeqCst);
        self.1.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

#[derive(Debug)]
pub struct Sim {
    world: Shared,
    bell: Arc<Bell>,
}

impl Sim {
    pub fn new(world: &Shared) -> Sim {
        let bell = Arc::clone(&world.borrow().bell);
        Sim { world: Rc::clone(world), bell }
    }
}

#[derive(Debug)]
pub struct SimListener {
    world: Shared,
    index: usize,
}

impl Drop for SimListener {
    fn drop(&mut self) {
        self.world.borrow_mut().close_listener(self.index);
    }
}

impl Kernel for Sim {
    type Stream = SimStream;
    type Listener = SimListener;

    fn poll(&mut self, patience: Option<Duration>) -> io::Result<()> {
        let world = &mut *self.world.borrow_mut();
        world.batch.clear();
        world.polls += 1;
        for sid in world.busy.drain(..) {
            let socket = &mut world.sockets[sid];
            (socket.read_this_turn, socket.written_this_turn) = (0, 0);
            socket.ran_this_turn = false;
        }
        world.call("epoll_wait", 0)?;
        if self.bell.0.swap(false, Ordering::SeqCst) {
            world.ring();
        }
        if let Some(kind) = world.fail_polls.pop_front() {
            world.tell(None, &format!("poll: {kind}"));
            return Err(kind.into());
        }
        world.end_delays();
        let is_silent = world.is_silent();
        world.fetch();
        let patience = patience.into_iter().chain(world.next_delay()).min();
        if is_silent && world.batch.is_empty() {
            match patience {
                Some(patience) => {
                    world.now += patience;
                    if !patience.is_zero() {
                        world.tell(None, &format!("sleeps {} ms", patience.as_millis()));
                    }
                }
                None => {
                    world.violate("sleeps for ever: nobody will wake it");
                    return Err(ErrorKind::TimedOut.into());
                }
            }
            world.end_delays();
            world.fetch();
        }
        Ok(())
    }

    fn events(&self) -> impl Iterator<Item = Event> {
        self.world.borrow().batch.clone().into_iter()
    }

    fn capacity(&self) -> usize {
        self.world.borrow().capacity
    }

    fn now(&self) -> Instant {
        self.world.borrow().instant()
    }

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::clone(&self.bell) as Arc<dyn Wake>
    }

    fn listen(&mut self, _: &Address, key: usize, _: &Limits) -> io::Result<SimListener> {
        let world = &mut *self.world.borrow_mut();
        world.call("epoll_ctl listener", key)?;
        world.queues.resize_with(world.queues.len().max(key + 1), Queue::default);
        (world.queues[key].exists, world.queues[key].closed) = (true, false);
        world.arm_listener(key);
        Ok(SimListener { world: Rc::clone(&self.world), index: key })
    }

    fn adopt(&mut self, _: std::net::TcpListener, _: usize, _: &Limits) -> io::Result<SimListener> {
        Err(ErrorKind::Unsupported.into())
    }

    fn local_addr(&self, listener: &SimListener) -> io::Result<Address> {
        Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, 1000 + listener.index as u16)).into())
    }

    fn accept(&mut self, listener: &mut SimListener) -> io::Result<(SimStream, Address)> {
        let index = listener.index;
        let world = &mut *self.world.borrow_mut();
        let told = world.call("accept4", index);
        world.queues[index].accepts += 1;
        if world.is_hurried(index) {
            world.violate("accepts again at once, though nothing can have come free");
        }
        // accept(2) takes a descriptor before it looks for a client.
        let exhausted =
            world.descriptors.filter(|&count| world.open >= count).map(|_| libc::EMFILE);
        let queue = &mut world.queues[index];
        let failure = told.err().and_then(|error| error.raw_os_error());
        let failure = failure.or(queue.broken).or_else(|| queue.errors.pop_front());
        if let Some(errno) = failure.or(exhausted) {
            return Err(world.refuse(index, errno));
        }
        queue.is_starved = false;
        let Some(sid) = queue.waiting.pop_front() else {
            world.arm_listener(index);
            return Err(ErrorKind::WouldBlock.into());
        };
        queue.repeats = 0;
        world.progress += 1;
        world.open += 1;
        let now = world.now;
        let socket = &mut world.sockets[sid];
        socket.owner = true;
        (socket.born, socket.last_read, socket.last_write) = (now, now, now);
        // The port names the socket, so that the maker knows which it is.
        let address = SocketAddr::new(socket.ip.expect("a client has one"), sid as u16);
        world.take_turn(index);
        world.tell(Some(sid), "accepted");
        world.afflict(index, sid);
        Ok((SimStream { world: Rc::clone(&self.world), sid }, address.into()))
    }

    fn rearm(&mut self, listener: &mut SimListener, key: usize) -> io::Result<()> {
        let world = &mut *self.world.borrow_mut();
        world.call("epoll_ctl listener", key)?;
        if world.fails_rearm {
            return Err(ErrorKind::OutOfMemory.into());
        }
        world.rearm_listener(listener.index);
        Ok(())
    }

    fn connect(&mut self, _: &Address, _: &Limits, _: Option<ConnId>) -> io::Result<SimStream> {
        let world = &mut *self.world.borrow_mut();
        world.call("connect", 0)?;
        let dial = world.dials.pop_front().unwrap_or(Err(libc::ENETUNREACH));
        let sid = dial.map_err(io::Error::from_raw_os_error)?;
        world.sockets[sid].owner = true;
        world.open += 1;
        Ok(SimStream { world: Rc::clone(&self.world), sid })
    }

    fn register(&mut self, stream: &mut SimStream, key: usize, writes: bool) -> io::Result<()> {
        let world = &mut *self.world.borrow_mut();
        world.call("epoll_ctl", stream.sid)?;
        if let Some(errno) = world.fail_registers.pop_front() {
            world.sockets[stream.sid].was_hurt = true;
            return Err(io::Error::from_raw_os_error(errno));
        }
        world.register(stream.sid, key, writes);
        Ok(())
    }

    fn observe(&mut self, id: ConnId, view: impl FnOnce() -> Snapshot) {
        let view = view();
        let world = &mut *self.world.borrow_mut();
        world.trace("look", id.ordinal() as usize, view.unsent);
        let now = world.now;
        let Some(sid) = world.identified(id) else { return };
        if view.unsent > 0 {
            world.tell(Some(sid), &format!("unsent={}", view.unsent));
        }
        let socket = &mut world.sockets[sid];
        socket.owed_since = socket.owed_since.or(Some(now)).filter(|_| view.unsent > 0);
        let is_deaf = view.closed && view.input == Input::Open;
        socket.deaf_since = socket.deaf_since.or(Some(now)).filter(|_| is_deaf);
        socket.view = Some(view);
        socket.ran_this_turn = true;
    }
}

#[derive(Debug)]
pub struct SimStream {
    world: Shared,
    sid: usize,
}

impl SimStream {
    /// What comes before every read and write: the faults that end it, and what must not be.
    fn begin(&self, name: &'static str, length: usize) -> io::Result<()> {
        let world = &mut *self.world.borrow_mut();
        let (sid, now) = (self.sid, world.now);
        world.busy.push(sid);
        let socket = &world.sockets[sid];
        let wrong = match () {
            () if socket.dead => Some("after its error was told"),
            () if socket.ended || socket.dropped => Some("after the end"),
            () if length == 0 => Some("of nothing"),
            () if socket.link != Link::Up => Some("before it is connected"),
            () if name == "recv" && socket.eof && !socket.suffers(&HOLDS) => Some("after EOF"),
            () if name == "send" && socket.shut => Some("after the end of our half"),
            () => None,
        };
        if let Some(wrong) = wrong {
            world.violate(format!("socket {sid}: a {name} {wrong}"));
        }
        if let Err(error) = world.call(name, sid) {
            // Whoever was told of an interruption tries again; of anything else, never.
            world.sockets[sid].dead = error.kind() != ErrorKind::Interrupted;
            return Err(error);
        }
        let socket = &mut world.sockets[sid];
        // Once the peer's EOF was read, every read returns it.
        if socket.is_delayed(now) && !(name == "recv" && socket.eof) {
            // An event follows when the delay is over.
            (socket.read_armed, socket.write_armed) = (true, true);
            return Err(ErrorKind::WouldBlock.into());
        }
        if socket.interrupts > 0 {
            socket.interrupts -= 1;
            return Err(ErrorKind::Interrupted.into());
        }
        if let Some(errno) = socket.fail_next.take() {
            socket.dead = true;
            return Err(io::Error::from_raw_os_error(errno));
        }
        Ok(())
    }
}

impl Read for SimStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.begin("recv", buffer.len())?;
        let world = &mut *self.world.borrow_mut();
        let (sid, selector) = (self.sid, world.selector);
        if buffer.len() > world.limits.read_buffer {
            world.violate(format!("socket {sid}: a read beyond scratch"));
        }
        let socket = &mut world.sockets[sid];
        let unread = socket.unread();
        if unread == 0 {
            if let Some(errno) = socket.error.take() {
                socket.dead = true;
                return Err(io::Error::from_raw_os_error(errno));
            }
            if !socket.fin {
                socket.arm_read();
                return Err(ErrorKind::WouldBlock.into());
            }
            socket.eof = true;
            world.progress += 1;
            return Ok(0);
        }
        // A read stops before an urgent byte; the next one goes on behind it.
        while socket.marks.front().is_some_and(|&mark| mark <= socket.read) {
            socket.marks.pop_front();
        }
        let to_mark = socket.marks.front().map_or(usize::MAX, |mark| mark - socket.read);
        let short = socket.short.take().filter(|_| !selector.is_epoll());
        let count = buffer.len().min(unread).min(to_mark).min(short.unwrap_or(usize::MAX));
        socket.read_into(sid, &mut buffer[..count]);
        socket.read_this_turn += count;
        if socket.unread() == 0 && count < buffer.len() && socket.data_only() {
            // Only epoll's readers may lean on this; they need no WouldBlock for the next edge.
            if selector.is_epoll() {
                socket.arm_read();
            }
        }
        if socket.shut {
            socket.discarded += count;
        }
        world.progress += 1;
        world.trace("read", sid, count);
        Ok(count)
    }
}

impl Write for SimStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.begin("send", bytes.len())?;
        let world = &mut *self.world.borrow_mut();
        let (sid, now) = (self.sid, world.now);
        let socket = &mut world.sockets[sid];
        if socket.error.take().is_some() {
            socket.dead = true;
            return Err(ErrorKind::BrokenPipe.into());
        }
        if socket.room == 0 {
            socket.arm_write();
            return Err(ErrorKind::WouldBlock.into());
        }
        let count = bytes.len().min(socket.room).min(socket.short.take().unwrap_or(usize::MAX));
        socket.room -= count;
        socket.written_this_turn += count;
        socket.written += count;
        socket.last_write = now;
        world.deliver(sid, &bytes[..count]);
        world.progress += 1;
        world.trace("write", sid, count);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for SimStream {
    fn shutdown_write(&mut self) -> io::Result<()> {
        let world = &mut *self.world.borrow_mut();
        let (sid, now) = (self.sid, world.now);
        let socket = &world.sockets[sid];
        // A fault may end a half that has ended already: it costs a call, and does nothing.
        if (socket.shut && !socket.suffers(&ENDS)) || socket.dead {
            world.violate(format!("socket {sid}: a shutdown after the end"));
        }
        world.check_complete(sid);
        let socket = &mut world.sockets[sid];
        if !std::mem::replace(&mut socket.shut, true) {
            socket.shut_at = now;
        }
        world.progress += 1;
        world.call("shutdown", sid)?;
        let socket = &world.sockets[sid];
        if socket.was_reset {
            return Err(ErrorKind::NotConnected.into());
        }
        Ok(())
    }

    fn abort(&mut self) {
        let world = &mut *self.world.borrow_mut();
        world.trace("abort", self.sid, 0);
        let socket = &mut world.sockets[self.sid];
        let again = std::mem::replace(&mut socket.aborted, true);
        if again || socket.ended {
            world.violate(format!("socket {}: a second abort, or a late one", self.sid));
        }
    }

    fn connected(&mut self) -> io::Result<bool> {
        let world = &mut *self.world.borrow_mut();
        world.call("getsockopt", self.sid).inspect_err(|_| {
            world.sockets[self.sid].dead = true;
        })?;
        let (now, socket) = (world.now, &mut world.sockets[self.sid]);
        match socket.link {
            Link::Pending => {
                socket.arm_write();
                Ok(false)
            }
            Link::Refused(errno) => {
                socket.dead = true;
                Err(io::Error::from_raw_os_error(errno))
            }
            // A held stream asks whether its peer has reset it.
            Link::Up if socket.opened => match socket.error.take() {
                Some(errno) => {
                    socket.dead = true;
                    Err(io::Error::from_raw_os_error(errno))
                }
                None => Ok(true),
            },
            Link::Up => {
                (socket.last_read, socket.last_write) = (now, now);
                world.progress += 1;
                Ok(true)
            }
        }
    }

    fn ended(&mut self, reason: &CloseReason) {
        let world = &mut *self.world.borrow_mut();
        let again = std::mem::replace(&mut world.sockets[self.sid].ended, true);
        if again {
            world.violate(format!("socket {} ended twice", self.sid));
        }
        world.trace(&reason.to_string(), self.sid, 0);
        world.tell(Some(self.sid), &format!("closed: {reason}"));
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        let world = &mut *self.world.borrow_mut();
        let socket = &world.sockets[self.sid];
        let wrong = if socket.opened && !socket.ended {
            Some("dropped without its end")
        } else if !socket.made && !socket.panicked && !world.is_crowded(socket.ip) {
            Some("refused without a reason")
        } else {
            None
        };
        if let Some(wrong) = wrong {
            world.violate(format!("socket {} {wrong}", self.sid));
        }
        world.forget(self.sid);
    }
}
