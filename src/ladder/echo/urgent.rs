//! Urgent data between other bytes, which only the socket itself can send.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use socket2::SockRef;

use crate::client::{connect_to, is_exhausted, repr};
use crate::ladder::error::without_number;
use crate::ladder::{Rule, RungError, TestSetup};

/// Number of tries, because the outcome depends on timing.
const TRIES: usize = 30;
/// A socket's timeout may fire one tick of the kernel early.
const TICK: Duration = Duration::from_millis(10);

static URGENT: Rule = Rule {
    number: "R1",
    text: "urgent data ends a read early; the server reads what follows it at once, without waiting \
           for more to arrive",
    why: "the bytes after the urgent one stay unread until the client sends more, perhaps for ever",
    source: "epoll(7): with edge-triggered events, read until EAGAIN",
};

/// Sends `abc`, an urgent `X` and `def`, again and again on one connection. The urgent byte may come
/// back in its place or not at all; the others come back. Returns false on a Unix socket, which has no
/// urgent data.
pub(super) fn exchange(setup: &TestSetup) -> Result<bool, RungError> {
    const SENT: &str = "'abc', an urgent 'X', 'def'";
    let timeout = setup.timeout.min(setup.time_left());
    let Some(addr) = setup.addr.inet() else {
        return Ok(false);
    };
    let stream = connect_to(addr, timeout).map_err(|error| match error.kind() {
        _ if is_exhausted(&error) => RungError::exhausted(&error),
        ErrorKind::TimedOut if setup.time_left() < TICK => {
            RungError::TimedOut { sent: "nothing".into(), received: "nothing".into() }
        }
        _ => RungError::Absent(without_number(&error)),
    })?;
    let mut reply = Vec::new();
    let talked = talk(stream, setup, &mut reply);
    talked.map(|()| true).map_err(|error| {
        let received = if reply.is_empty() { "nothing".into() } else { repr(&reply) };
        let received = match error.kind() {
            ErrorKind::InvalidData => format!("{received}: {error}"),
            ErrorKind::WouldBlock | ErrorKind::TimedOut if setup.time_left() < TICK => {
                return RungError::TimedOut { sent: SENT.into(), received };
            }
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                format!("{received}, then silence for {:?}", setup.timeout)
            }
            ErrorKind::UnexpectedEof => format!("{received}, then EOF"),
            _ => format!("{received}, then the connection failed: {}", without_number(&error)),
        };
        RungError::stopped(SENT, received).with_rule(&URGENT)
    })
}

fn talk(mut stream: TcpStream, setup: &TestSetup, reply: &mut Vec<u8>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    for _ in 0..TRIES {
        reply.clear();
        wait_at_most(&stream, setup)?;
        stream.write_all(b"abc")?;
        SockRef::from(&stream).send_out_of_band(b"X")?;
        stream.write_all(b"def")?;
        while reply.as_slice() != b"abcdef" && reply.as_slice() != b"abcXdef" {
            if !(b"abcdef".starts_with(reply) || b"abcXdef".starts_with(reply)) {
                return Err(io::Error::new(
                    ErrorKind::InvalidData,
                    "which differs from what was sent",
                ));
            }
            wait_at_most(&stream, setup)?;
            let mut buffer = [0; 8];
            match stream.read(&mut buffer)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                count => reply.extend_from_slice(&buffer[..count]),
            }
        }
    }
    stream.shutdown(Shutdown::Write)?;
    reply.clear();
    wait_at_most(&stream, setup)?;
    match stream.read(&mut [0; 8])? {
        0 => Ok(()),
        _ => Err(io::Error::new(ErrorKind::InvalidData, "more than was sent")),
    }
}

/// Bounds the next call by the timeout, and by the time left for the rung.
fn wait_at_most(stream: &TcpStream, setup: &TestSetup) -> io::Result<()> {
    let timeout = setup.timeout.min(setup.time_left());
    if timeout.is_zero() {
        return Err(ErrorKind::TimedOut.into());
    }
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Instant;

    use super::*;

    const FAR: Duration = Duration::from_secs(30);

    #[test]
    fn the_bound_of_the_climb_ends_a_blocking_exchange_too() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let deadline = Duration::from_millis(200);
        let until = Instant::now() + deadline;
        let addr = server.local_addr().unwrap();
        let mut setup = TestSetup::new(addr.into(), FAR, Some((until, deadline))).unwrap();
        setup.start_rung();
        // The kernel accepts the connection, and no byte comes back.
        let outcome = exchange(&setup);
        assert!(matches!(outcome, Err(RungError::TimedOut { .. })), "{outcome:?}");
        assert!(Instant::now() < until + FAR, "the timeout of 30 s does not apply");
        // The bound is over: no further wait begins.
        let outcome = exchange(&setup);
        assert!(matches!(outcome, Err(RungError::TimedOut { .. })), "{outcome:?}");
    }
}
