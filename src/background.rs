//! A reactor on a thread of its own, joined on drop.

use std::io;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::handle::Handle;
use crate::kernel::Kernel;
use crate::limits::Limits;
use crate::reactor::{Reactor, Stats};

/// A reactor that runs beside the thread that owns this.
///
/// Dropping it aborts what is open and joins: when `drop` returns, the ports are closed and the
/// thread is gone. A panic of a protocol is raised again there, so that a test cannot miss it.
/// [`shutdown`](Background::shutdown) is the polite way.
///
/// ```
/// # use campanile::{Background, Limits, echo};
/// # use std::{io::{Read, Write}, net::TcpStream};
/// let (server, addr) = Background::start(Limits::default(), |reactor| {
///     reactor.listen("127.0.0.1:0", echo())
/// })?;
/// let mut client = TcpStream::connect(addr)?;
/// client.write_all(b"Hello, world")?;
/// let mut back = [0; 12];
/// client.read_exact(&mut back)?;
/// assert_eq!(&back, b"Hello, world");
/// drop(server);
/// assert!(TcpStream::connect(addr).is_err());
/// # std::io::Result::Ok(())
/// ```
#[must_use = "the reactor ends as soon as this is dropped"]
#[derive(Debug)]
pub struct Background {
    handle: Handle,
    thread: Option<JoinHandle<io::Result<Stats>>>,
}

impl Background {
    /// Starts a thread, sets a reactor up on it and lets it run. What `setup` returns, addresses
    /// for example, is returned before anything is served. Protocols are made on that thread and
    /// need not be `Send`.
    ///
    /// # Errors
    /// If the thread or the reactor cannot be made, or `setup` fails. If it panics, so does this.
    pub fn start<T: Send + 'static>(
        limits: Limits,
        setup: impl FnOnce(&mut Reactor) -> io::Result<T> + Send + 'static,
    ) -> io::Result<(Background, T)> {
        Background::start_on(move || Reactor::with_limits(limits), setup)
    }

    /// The same with a reactor on any kernel.
    pub(crate) fn start_on<K: Kernel, T: Send + 'static>(
        make: impl FnOnce() -> io::Result<Reactor<K>> + Send + 'static,
        setup: impl FnOnce(&mut Reactor<K>) -> io::Result<T> + Send + 'static,
    ) -> io::Result<(Background, T)> {
        let (report, reported) = mpsc::sync_channel(1);
        let body = move || {
            let prepared =
                make().and_then(|mut reactor| setup(&mut reactor).map(|told| (reactor, told)));
            // The starter waits for the report, so sending cannot fail.
            let mut reactor = match prepared {
                Ok((reactor, told)) => {
                    let _ = report.send(Ok((reactor.handle(), told)));
                    reactor
                }
                Err(error) => {
                    let _ = report.send(Err(error));
                    return Ok(Stats::default());
                }
            };
            let outcome = reactor.run();
            match reactor.take_panic() {
                Some(panic) => std::panic::resume_unwind(panic),
                None => outcome.map(|()| reactor.stats().clone()),
            }
        };
        let thread = thread::Builder::new().name("campanile".into()).spawn(body)?;
        match reported.recv() {
            Ok(Ok((handle, told))) => Ok((Background { handle, thread: Some(thread) }, told)),
            Ok(Err(error)) => join(thread).and(Err(error)),
            // The report was dropped on the way: setup panicked, and joining says with what.
            Err(_) => join(thread).and(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// To send, close and shut down from elsewhere.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Shuts the reactor down with `grace`, waits for its end and tells what it did.
    ///
    /// # Errors
    /// As [`Reactor::run`]. Panics if a protocol panicked.
    pub fn shutdown(self, grace: Duration) -> io::Result<Stats> {
        self.handle.shutdown(grace);
        self.join()
    }

    /// Waits until the reactor ends by itself, or because somebody shut it down.
    ///
    /// # Errors
    /// As [`Reactor::run`]. Panics if a protocol panicked.
    pub fn join(mut self) -> io::Result<Stats> {
        match self.thread.take() {
            Some(thread) => join(thread),
            None => Ok(Stats::default()),
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        self.handle.stop();
        // A protocol may own the server that runs it: a thread cannot wait for itself.
        if thread.thread().id() == thread::current().id() {
            return;
        }
        let joined = thread.join();
        // One panic at a time: two would end the process before anybody reads the first.
        if thread::panicking() {
            return;
        }
        match joined {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => log::error!("the reactor ended with an error: {error}"),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

fn join(thread: JoinHandle<io::Result<Stats>>) -> io::Result<Stats> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
