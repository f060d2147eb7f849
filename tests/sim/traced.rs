//! A kernel whose every word is held to the [`Contract`].

use std::cell::RefCell;
use std::io::{self, ErrorKind, Read, Write};
use std::rc::Rc;
use std::time::Duration;

use campanile::{
    Address, CloseReason, ConnId, Limits,
    sys::{Event, Kernel, Phase, Snapshot, Source, Stream, Wake},
};

use super::contract::{Contract, Got, Half, Step};

/// What was seen, and whether it may be.
#[derive(Debug)]
pub struct Trace {
    pub contract: Contract,
    /// Every step, if they are kept.
    pub kept: Option<Vec<Step>>,
    last_id: usize,
}

pub type SharedTrace = Rc<RefCell<Trace>>;

impl Trace {
    pub fn new(contract: Contract, is_kept: bool) -> SharedTrace {
        let kept = is_kept.then(Vec::new);
        Rc::new(RefCell::new(Trace { contract, kept, last_id: 0 }))
    }

    fn note(&mut self, step: Step) {
        self.contract.note(step);
        self.kept.iter_mut().for_each(|kept| kept.push(step));
    }
}

#[derive(Debug)]
pub struct Traced<K: Kernel> {
    inner: K,
    trace: SharedTrace,
    /// What is believed is tested: a short read that says "empty" is followed by another.
    doubts: bool,
}

/// A source and its number in the trace.
#[derive(Debug)]
pub struct Numbered<T> {
    inner: T,
    id: usize,
    trace: SharedTrace,
    doubts: bool,
    /// What a read of our own found out and the loop is still to hear.
    stash: Option<io::Error>,
}

impl<K: Kernel> Traced<K> {
    pub fn new(inner: K, trace: &SharedTrace) -> Traced<K> {
        Traced { inner, trace: Rc::clone(trace), doubts: false }
    }

    pub fn doubting(inner: K, trace: &SharedTrace) -> Traced<K> {
        Traced { doubts: true, ..Traced::new(inner, trace) }
    }

    fn number<T>(&self, inner: T) -> Numbered<T> {
        let trace = Rc::clone(&self.trace);
        trace.borrow_mut().last_id += 1;
        let id = trace.borrow().last_id;
        Numbered { inner, id, trace, doubts: self.doubts, stash: None }
    }

    fn registered<T>(&self, source: Source, inner: T) -> Numbered<T> {
        let numbered = self.number(inner);
        self.trace.borrow_mut().note(Step::Register { id: numbered.id, source });
        numbered
    }
}

impl<T> Numbered<T> {
    fn tried<R>(&self, half: Half, asked: usize, outcome: &io::Result<R>, got: Got) {
        let got = match outcome {
            Ok(_) => got,
            Err(error) if error.kind() == ErrorKind::WouldBlock => Got::WouldBlock,
            Err(error) if error.kind() == ErrorKind::Interrupted => Got::Nothing,
            Err(_) => Got::Failed,
        };
        self.trace.borrow_mut().note(Step::Try { id: self.id, half, asked, got });
    }
}

impl<S: Stream> Numbered<S> {
    fn exchanged(&self, half: Half, asked: usize, outcome: &io::Result<usize>) {
        match outcome {
            Ok(count) => self.tried(half, asked, outcome, Got::Bytes(*count)),
            Err(_) => self.tried(half, asked, outcome, Got::Nothing),
        }
    }
}

impl<T> Drop for Numbered<T> {
    fn drop(&mut self) {
        self.trace.borrow_mut().note(Step::Drop { id: self.id });
    }
}

impl<K: Kernel> Kernel for Traced<K> {
    type Stream = Numbered<K::Stream>;
    type Listener = Numbered<K::Listener>;

    forward! { events capacity now waker phase observe }

    fn poll(&mut self, patience: Option<Duration>) -> io::Result<()> {
        self.inner.poll(patience)?;
        let trace = &mut *self.trace.borrow_mut();
        let is_full = self.inner.events().count() >= self.inner.capacity();
        trace.note(Step::Poll { is_full });
        self.inner.events().for_each(|event| trace.note(Step::Event(event)));
        Ok(())
    }

    fn listen(&mut self, at: &Address, key: usize, l: &Limits) -> io::Result<Self::Listener> {
        let inner = self.inner.listen(at, key, l)?;
        Ok(self.registered(Source::Listener(key), inner))
    }

    fn adopt(
        &mut self,
        listener: std::net::TcpListener,
        key: usize,
        limits: &Limits,
    ) -> io::Result<Self::Listener> {
        let inner = self.inner.adopt(listener, key, limits)?;
        Ok(self.registered(Source::Listener(key), inner))
    }

    fn local_addr(&self, listener: &Self::Listener) -> io::Result<Address> {
        self.inner.local_addr(&listener.inner)
    }

    fn accept(&mut self, listener: &mut Self::Listener) -> io::Result<(Self::Stream, Address)> {
        let outcome = self.inner.accept(&mut listener.inner);
        listener.tried(Half::Read, 1, &outcome, Got::Bytes(1));
        outcome.map(|(inner, peer)| (self.number(inner), peer))
    }

    fn rearm(&mut self, listener: &mut Self::Listener, key: usize) -> io::Result<()> {
        self.inner.rearm(&mut listener.inner, key)?;
        self.trace.borrow_mut().note(Step::Rearm { id: listener.id });
        Ok(())
    }

    fn connect(
        &mut self,
        addr: &Address,
        limits: &Limits,
        parent: Option<ConnId>,
    ) -> io::Result<Self::Stream> {
        self.inner.connect(addr, limits, parent).map(|inner| self.number(inner))
    }

    fn register(&mut self, stream: &mut Self::Stream, key: usize, writes: bool) -> io::Result<()> {
        self.inner.register(&mut stream.inner, key, writes)?;
        let source = Source::Connection(key);
        self.trace.borrow_mut().note(Step::Register { id: stream.id, source });
        Ok(())
    }
}

impl<S: Stream> Read for Numbered<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(error) = self.stash.take() {
            return Err(error);
        }
        let outcome = self.inner.read(buffer);
        self.exchanged(Half::Read, buffer.len(), &outcome);
        let count = outcome?;
        if !self.doubts || count == 0 || count == buffer.len() {
            return Ok(count);
        }
        let rest = &mut buffer[count..];
        let again = self.inner.read(rest);
        self.exchanged(Half::Read, rest.len(), &again);
        match again {
            Ok(more) => Ok(count + more),
            Err(error) => {
                self.stash = Some(error).filter(|error| error.kind() != ErrorKind::WouldBlock);
                Ok(count)
            }
        }
    }
}

impl<S: Stream> Write for Numbered<S> {
    forward! { flush }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let outcome = self.inner.write(bytes);
        self.exchanged(Half::Write, bytes.len(), &outcome);
        outcome
    }
}

impl<S: Stream> Stream for Numbered<S> {
    forward! { abort connected local_addr is_held ended }

    fn shutdown_write(&mut self) -> io::Result<()> {
        self.trace.borrow_mut().note(Step::Shut { id: self.id });
        self.inner.shutdown_write()
    }

    fn write_last(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let outcome = self.inner.write_last(bytes);
        self.exchanged(Half::Write, bytes.len(), &outcome);
        outcome
    }
}
