//! [`Recorded`]: a kernel whose turns, events and calls are recorded.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::recorder::{Recorder, Transfer, micros, wide};
use crate::connection::{Snapshot, Stream};
use crate::kernel::{Event, Kernel, Phase, Wake};
use crate::limits::Limits;
use crate::protocol::{Address, CloseReason, ConnId};

/// A kernel that does what the one inside does, and writes it into a [`Recorder`], if it has one.
#[derive(Debug)]
pub struct Recorded<K: Kernel> {
    inner: K,
    recorder: Option<Recorder>,
    /// The phase of the turn. Events are recorded when the loop notes them; a test may ask again later.
    phase: Phase,
}

impl<K: Kernel> Recorded<K> {
    /// Begins the recording and starts the thread that writes it.
    ///
    /// # Errors
    /// If the thread cannot be started, or if the recorder records another kernel already.
    pub fn new(inner: K, recorder: Option<Recorder>, limits: &Limits) -> io::Result<Recorded<K>> {
        if let Some(recorder) = &recorder {
            recorder.begin(inner.now(), limits)?;
        }
        Ok(Recorded { inner, recorder, phase: Phase::Reap })
    }

    fn bound(
        &self,
        outcome: io::Result<K::Listener>,
        key: usize,
    ) -> io::Result<RecordedListener<K::Listener>> {
        let service =
            self.recorder.as_ref().and_then(|recorder| recorder.places(|places| places.bound(key)));
        if let Some(recorder) = &self.recorder {
            let local = outcome.as_ref().ok().and_then(|of| self.inner.local_addr(of).ok());
            let addr = local.map(|addr| addr.to_string());
            recorder.call("listen", outcome.as_ref().err(), |line| {
                line.number("l", wide(key))
                    .text("addr", addr.as_deref())
                    .text("service", service.as_deref())
            });
        }
        outcome.map(|inner| RecordedListener { inner, key, service })
    }
}

impl<K: Kernel> Drop for Recorded<K> {
    fn drop(&mut self) {
        if let Some(recorder) = &self.recorder {
            recorder.end();
        }
    }
}

/// A passive socket, its key, and the service it is for.
#[derive(Debug)]
pub struct RecordedListener<L> {
    inner: L,
    key: usize,
    service: Option<Arc<str>>,
}

impl<K: Kernel> Kernel for Recorded<K> {
    type Stream = RecordedStream<K::Stream>;
    type Listener = RecordedListener<K::Listener>;

    forward! { capacity waker watch }

    fn poll(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let outcome = self.inner.poll(timeout);
        if let Some(recorder) = &self.recorder {
            recorder.tick(self.inner.now());
            let events = outcome.as_ref().map_or(0, |()| self.inner.events().count());
            recorder.note("poll", |line| {
                let line =
                    line.number("timeout", timeout.map(micros)).number("events", wide(events));
                match &outcome {
                    Ok(()) => line,
                    Err(error) => line.error(error),
                }
            });
        }
        outcome
    }

    fn events(&self) -> impl Iterator<Item = Event> {
        self.inner.events().inspect(|event| {
            if let (Some(recorder), Phase::NoteReadiness) = (&self.recorder, self.phase) {
                recorder.event(event);
            }
        })
    }

    fn now(&self) -> Instant {
        self.inner.now()
    }

    fn listen(
        &mut self,
        addr: &Address,
        key: usize,
        limits: &Limits,
    ) -> io::Result<Self::Listener> {
        let outcome = self.inner.listen(addr, key, limits);
        self.bound(outcome, key)
    }

    fn adopt(
        &mut self,
        listener: std::net::TcpListener,
        key: usize,
        limits: &Limits,
    ) -> io::Result<Self::Listener> {
        let outcome = self.inner.adopt(listener, key, limits);
        self.bound(outcome, key)
    }

    #[cfg(unix)]
    fn adopt_unix(
        &mut self,
        listener: std::os::unix::net::UnixListener,
        key: usize,
        limits: &Limits,
    ) -> io::Result<Self::Listener> {
        let outcome = self.inner.adopt_unix(listener, key, limits);
        self.bound(outcome, key)
    }

    fn local_addr(&self, listener: &Self::Listener) -> io::Result<Address> {
        self.inner.local_addr(&listener.inner)
    }

    fn accept(&mut self, listener: &mut Self::Listener) -> io::Result<(Self::Stream, Address)> {
        let outcome = self.inner.accept(&mut listener.inner);
        let Some(recorder) = &self.recorder else {
            return outcome.map(|(inner, peer)| (RecordedStream { inner, tape: None }, peer));
        };
        let (key, service) = (wide(listener.key), listener.service.as_ref());
        match outcome {
            Ok((inner, peer)) => {
                let id = recorder.places(|places| places.accepted(service));
                recorder.call("accept", None, |line| {
                    let line = line.number("l", key).number("c", id);
                    line.text("peer", &*peer.to_string())
                        .text("service", service.map(|name| &**name))
                });
                Ok((RecordedStream { inner, tape: Some(Tape::new(recorder, id, None)) }, peer))
            }
            Err(error) => {
                recorder.call("accept", Some(&error), |line| line.number("l", key));
                Err(error)
            }
        }
    }

    fn set_backlog(&mut self, listener: &Self::Listener, backlog: u32) -> io::Result<()> {
        self.inner.set_backlog(&listener.inner, backlog)
    }

    fn rearm(&mut self, listener: &mut Self::Listener, key: usize) -> io::Result<()> {
        let outcome = self.inner.rearm(&mut listener.inner, key);
        if let Some(recorder) = &self.recorder {
            recorder.call("rearm", outcome.as_ref().err(), |line| line.number("l", wide(key)));
        }
        outcome
    }

    fn connect(
        &mut self,
        addr: &Address,
        limits: &Limits,
        parent: Option<ConnId>,
    ) -> io::Result<Self::Stream> {
        let outcome = self.inner.connect(addr, limits, parent);
        let Some(recorder) = &self.recorder else {
            return outcome.map(|inner| RecordedStream { inner, tape: None });
        };
        let (id, parent) =
            outcome.is_ok().then(|| recorder.places(|places| places.connecting(parent))).unzip();
        let parent = parent.flatten();
        recorder.call("connect", outcome.as_ref().err(), |line| {
            line.number("c", id).text("peer", &*addr.to_string()).number("parent", parent)
        });
        let tape = id.map(|id| Tape::new(recorder, id, parent));
        outcome.map(|inner| RecordedStream { inner, tape })
    }

    fn register(&mut self, stream: &mut Self::Stream, key: usize, writes: bool) -> io::Result<()> {
        let outcome = self.inner.register(&mut stream.inner, key, writes);
        if let Some(tape) = &mut stream.tape {
            tape.key = Some(key);
            tape.recorder.places(|places| places.registered(tape.id, tape.parent, key));
            tape.recorder.call("register", outcome.as_ref().err(), |line| {
                line.number("c", tape.id).number("key", wide(key))
            });
        }
        outcome
    }

    fn phase(&mut self, phase: Phase) {
        self.phase = phase;
        if let Some(recorder) = &self.recorder {
            let name = match phase {
                Phase::Sleep => "sleep",
                Phase::NoteReadiness => "note_readiness",
                Phase::ObeyCommands => "obey_commands",
                Phase::FireTimers => "fire_timers",
                Phase::Accept => "accept",
                Phase::RunConnections => "run_connections",
                Phase::Reap => "reap",
            };
            if phase == Phase::Sleep {
                recorder.turn();
            }
            recorder.note("phase", |line| line.word("p", name));
        }
        self.inner.phase(phase);
    }

    fn observe(&mut self, id: ConnId, view: impl FnOnce() -> Snapshot) {
        match &self.recorder {
            Some(recorder) => {
                let view = view();
                recorder.state(id, &view);
                self.inner.observe(id, || view);
            }
            None => self.inner.observe(id, view),
        }
    }
}

/// A stream whose calls are recorded.
#[derive(Debug)]
pub struct RecordedStream<S> {
    inner: S,
    tape: Option<Tape>,
}

#[derive(Debug)]
struct Tape {
    recorder: Recorder,
    id: u64,
    parent: Option<u64>,
    key: Option<usize>,
    bytes_in: u64,
    bytes_out: u64,
    has_ended: bool,
}

impl Tape {
    fn new(recorder: &Recorder, id: u64, parent: Option<u64>) -> Tape {
        let recorder = recorder.clone();
        Tape { recorder, id, parent, key: None, bytes_in: 0, bytes_out: 0, has_ended: false }
    }

    fn call(&self, name: &'static str, error: Option<&io::Error>) {
        self.recorder.call(name, error, |line| line.number("c", self.id));
    }

    fn wrote(&mut self, name: &'static str, bytes: &[u8], outcome: &io::Result<usize>) {
        let (id, moved, offered) = (self.id, self.bytes_out, bytes.len());
        let transfer = Transfer { id, offered, outcome, moved, bytes };
        self.bytes_out += self.recorder.transfer(name, transfer);
    }

    fn end(&mut self, reason: &str) {
        if std::mem::replace(&mut self.has_ended, true) {
            return;
        }
        self.call("close", None);
        self.recorder.places(|places| places.ended(self.id, self.key));
        self.recorder.note("end", |line| {
            let line = line.number("c", self.id).text("reason", reason);
            line.number("bin", self.bytes_in).number("bout", self.bytes_out)
        });
    }
}

impl Drop for Tape {
    fn drop(&mut self) {
        self.end("dropped before it was served");
    }
}

impl<S: Stream> Read for RecordedStream<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let outcome = self.inner.read(buffer);
        if let Some(tape) = &mut self.tape {
            let (id, moved, offered) = (tape.id, tape.bytes_in, buffer.len());
            let transfer = Transfer { id, offered, outcome: &outcome, moved, bytes: buffer };
            tape.bytes_in += tape.recorder.transfer("read", transfer);
        }
        outcome
    }
}

impl<S: Stream> Write for RecordedStream<S> {
    forward! { flush }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let outcome = self.inner.write(bytes);
        if let Some(tape) = &mut self.tape {
            tape.wrote("write", bytes, &outcome);
        }
        outcome
    }
}

impl<S: Stream> Stream for RecordedStream<S> {
    forward! { local_addr is_held }

    fn shutdown_write(&mut self) -> io::Result<()> {
        let outcome = self.inner.shutdown_write();
        if let Some(tape) = &self.tape {
            tape.call("shutdown", outcome.as_ref().err());
        }
        outcome
    }

    fn abort(&mut self) {
        self.inner.abort();
        if let Some(tape) = &self.tape {
            tape.call("reset", None);
        }
    }

    fn write_last(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let outcome = self.inner.write_last(bytes);
        if let Some(tape) = &mut self.tape {
            tape.wrote("write_last", bytes, &outcome);
        }
        outcome
    }

    fn connected(&mut self) -> io::Result<bool> {
        let outcome = self.inner.connected();
        if let Some(tape) = &self.tape {
            let is_connected = outcome.as_ref().ok().map(|&is| u64::from(is));
            tape.recorder.call("connected", outcome.as_ref().err(), |line| {
                line.number("c", tape.id).number("n", is_connected)
            });
        }
        outcome
    }

    fn ended(&mut self, reason: &CloseReason) {
        self.inner.ended(reason);
        if let Some(tape) = &mut self.tape {
            tape.end(&reason.to_string());
        }
    }
}
