//! The calls that a connection makes on its stream, and how it handles the results.

use std::cell::RefCell;
use std::io::{self, ErrorKind, Read, Write};
use std::rc::Rc;
use std::time::Instant;

use campanile::services::Daytime;
use campanile::{
    Clock, CloseReason, Limits, Protocol,
    sys::{Connection, Context, Next, Stream},
};

use super::common::{TUTORIAL, TUTORIAL_LINE};

/// A stream without input. It records the calls that write to it. Its shutdown may fail.
#[derive(Debug, Clone, Default)]
struct Pipe {
    calls: Rc<RefCell<Vec<(&'static str, usize)>>>,
    blocks: usize,
    shutdown: Option<ErrorKind>,
}

impl Pipe {
    fn note(&mut self, call: &'static str, bytes: &[u8]) -> io::Result<usize> {
        if self.blocks > 0 {
            self.blocks -= 1;
            return Err(ErrorKind::WouldBlock.into());
        }
        self.calls.borrow_mut().push((call, bytes.len()));
        Ok(bytes.len())
    }
}

impl Read for Pipe {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(ErrorKind::WouldBlock.into())
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.note("write", bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Pipe {
    fn shutdown_write(&mut self) -> io::Result<()> {
        self.shutdown.map_or(Ok(()), |kind| Err(kind.into()))
    }
    fn abort(&mut self) {}
    fn write_last(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.note("write_last", bytes)
    }
}

/// Sends a greeting and goes on reading.
struct Greeter;
impl Protocol for Greeter {
    fn on_open(&mut self, out: &mut campanile::Outbox) {
        out.send(b"hello");
    }
    fn on_data(&mut self, _: &[u8], _: &mut campanile::Outbox) {}
}

fn teller() -> Box<Daytime> {
    Box::new(Daytime::new(Clock::fixed(TUTORIAL)))
}

#[test]
fn only_bytes_before_the_end_of_our_half_are_called_the_last() {
    for blocks in [0, 1] {
        let protocols: [(Box<dyn Protocol>, _); 2] =
            [(teller(), ("write_last", TUTORIAL_LINE.len())), (Box::new(Greeter), ("write", 5))];
        for (protocol, call) in protocols {
            let pipe = Pipe { blocks, ..Pipe::default() };
            let mut lent = Context::new(Limits::default(), Instant::now());
            let mut connection = Connection::new(pipe.clone(), protocol, &lent);
            assert!(matches!(connection.run(&mut lent), Ok(Next { has_work: false, .. })));
            connection.on_event(false, true, false);
            assert!(matches!(connection.run(&mut lent), Ok(Next { has_work: false, .. })));
            assert_eq!(*pipe.calls.borrow(), [call], "refused {blocks} times");
        }
    }
}

#[test]
fn a_shutdown_that_fails_closes_the_connection_unless_the_peer_is_gone() {
    for (kind, fails) in [(ErrorKind::NotConnected, false), (ErrorKind::InvalidInput, true)] {
        let pipe = Pipe { shutdown: Some(kind), ..Pipe::default() };
        let mut lent = Context::new(Limits::default(), Instant::now());
        let mut connection = Connection::new(pipe, teller(), &lent);
        match connection.run(&mut lent) {
            Ok(Next { has_work: false, .. }) => assert!(!fails),
            Err(CloseReason::Failed(error)) => assert!(fails && error.kind() == kind),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_stream_without_a_handshake_of_its_own_is_connected_once_it_is_writable() {
    let pipe = Pipe::default();
    let mut lent = Context::new(Limits::default(), Instant::now());
    let mut connection = Connection::connecting(pipe.clone(), Box::new(Greeter), &lent);
    assert!(matches!(connection.run(&mut lent), Ok(Next { has_work: false, .. })));
    assert!(pipe.calls.borrow().is_empty());
    connection.on_event(false, true, false);
    assert!(matches!(connection.run(&mut lent), Ok(Next { has_work: false, .. })));
    assert_eq!(*pipe.calls.borrow(), [("write", 5)]);
}
