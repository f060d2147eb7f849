//! [`Background`]: a reactor on its own thread, which dropping it joins.

use std::io;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::handle::Handle;
use crate::kernel::Kernel;
use crate::limits::Limits;
use crate::protocol::discard;
use crate::reactor::Reactor;
use crate::stats::Stats;

/// A reactor that runs on its own thread. It is `Send` and `Sync`.
///
/// Dropping it resets all connections and joins the thread: when `drop` returns, the ports are closed
/// and the thread has ended. If a protocol has panicked, `drop` panics with the same payload, so that
/// a test cannot miss it. To let connections finish, use [`shutdown`](Background::shutdown).
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
    /// Starts a thread, calls `setup` with a reactor on it, and runs the reactor there.
    ///
    /// Returns the value of `setup`, for example the addresses of its listeners, before the loop
    /// serves any client. Protocols are created on that thread and need not be `Send`.
    ///
    /// # Errors
    /// If the thread or the reactor cannot be created, or if `setup` fails.
    ///
    /// # Panics
    /// If `setup` panics.
    pub fn start<T: Send + 'static>(
        limits: Limits,
        setup: impl FnOnce(&mut Reactor) -> io::Result<T> + Send + 'static,
    ) -> io::Result<(Background, T)> {
        Background::start_on(move || Reactor::with_limits(limits), setup)
    }

    /// Like [`start`](Background::start), with a reactor on any kernel.
    pub(crate) fn start_on<K: Kernel, T: Send + 'static>(
        make: impl FnOnce() -> io::Result<Reactor<K>> + Send + 'static,
        setup: impl FnOnce(&mut Reactor<K>) -> io::Result<T> + Send + 'static,
    ) -> io::Result<(Background, T)> {
        let (report, reported) = mpsc::sync_channel(1);
        let body = move || {
            let prepared =
                make().and_then(|mut reactor| setup(&mut reactor).map(|value| (reactor, value)));
            // The thread that starts this one waits for the report, so sending cannot fail.
            let mut reactor = match prepared {
                Ok((reactor, value)) => {
                    let _ = report.send(Ok((reactor.handle(), value)));
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
            Ok(Ok((handle, value))) => Ok((Background { handle, thread: Some(thread) }, value)),
            Ok(Err(error)) => join(thread).and(Err(error)),
            // The report was dropped, because `setup` panicked. Joining raises that panic again.
            Err(_) => join(thread).and(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// Returns the handle, to send, close and shut down from other threads.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Shuts the reactor down with `grace`, waits for its end and returns its counts.
    ///
    /// # Errors
    /// As [`Reactor::run`].
    ///
    /// # Panics
    /// If a protocol panicked.
    pub fn shutdown(self, grace: Duration) -> io::Result<Stats> {
        self.handle.shutdown(grace);
        self.join()
    }

    /// Waits until the reactor ends, by itself or by a [`Handle::shutdown`].
    ///
    /// # Errors
    /// As [`Reactor::run`].
    ///
    /// # Panics
    /// If a protocol panicked.
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
        // A protocol may own the reactor that runs it, and a thread cannot join itself.
        if thread.thread().id() == thread::current().id() {
            return;
        }
        let joined = thread.join();
        match joined {
            // A second panic would abort the process before the first one is reported.
            Err(panic) if thread::panicking() => discard(panic),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                log::error!("the reactor stopped with an error: {error}; start a new one")
            }
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

fn join(thread: JoinHandle<io::Result<Stats>>) -> io::Result<Stats> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
