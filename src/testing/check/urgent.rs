//! Urgent data between other bytes, which only the socket itself can send.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use socket2::SockRef;

use super::caller::plain;
use super::lab::{Lab, Trouble};
use super::plan::Rule;
use crate::client::{connect_to, is_exhausted, repr};

/// Number of tries, because the outcome depends on timing.
const TRIES: usize = 30;
/// A socket's timeout may fire one tick of the kernel early.
const TICK: Duration = Duration::from_millis(10);

static URGENT: Rule = Rule {
    number: "R1",
    says: "urgent data ends a read early; the server reads what follows it at once, \
           without waiting for more to arrive",
};

/// Sends `abc`, an urgent `X` and `def`, again and again on one connection. The urgent byte may come
/// back in its place or not at all; the others come back.
pub(super) fn exchange(lab: &Lab) -> Result<(), Trouble> {
    const SENT: &str = "'abc', an urgent 'X', 'def'";
    let timeout = lab.timeout.min(lab.rest());
    let stream = connect_to(lab.addr, timeout).map_err(|error| match error.kind() {
        _ if is_exhausted(&error) => Trouble::exhausted(&error),
        ErrorKind::TimedOut if lab.rest() < TICK => {
            Trouble::TimedOut { sent: "nothing".into(), came: "nothing".into() }
        }
        _ => Trouble::Absent(plain(&error)),
    })?;
    let mut heard = Vec::new();
    talk(stream, lab, &mut heard).map_err(|error| {
        let came = match (heard.as_slice(), error.kind()) {
            (b"", _) => "nothing".into(),
            (_, ErrorKind::InvalidData) => format!("{}: {error}", repr(&heard)),
            _ => repr(&heard),
        };
        let came = match error.kind() {
            ErrorKind::InvalidData => came,
            ErrorKind::WouldBlock | ErrorKind::TimedOut if lab.rest() < TICK => {
                return Trouble::TimedOut { sent: SENT.into(), came };
            }
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                format!("{came}, then silence for {:?}", lab.timeout)
            }
            ErrorKind::UnexpectedEof => format!("{came}, then EOF"),
            _ => format!("{came}, then the connection failed: {}", plain(&error)),
        };
        Trouble::stopped(SENT, came).breaking(&URGENT)
    })
}

fn talk(mut stream: TcpStream, lab: &Lab, heard: &mut Vec<u8>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    for _ in 0..TRIES {
        heard.clear();
        wait_at_most(&stream, lab)?;
        stream.write_all(b"abc")?;
        SockRef::from(&stream).send_out_of_band(b"X")?;
        stream.write_all(b"def")?;
        while heard.as_slice() != b"abcdef" && heard.as_slice() != b"abcXdef" {
            if !(b"abcdef".starts_with(heard) || b"abcXdef".starts_with(heard)) {
                return Err(io::Error::new(
                    ErrorKind::InvalidData,
                    "which differs from what was sent",
                ));
            }
            wait_at_most(&stream, lab)?;
            let mut buffer = [0; 8];
            match stream.read(&mut buffer)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                count => heard.extend_from_slice(&buffer[..count]),
            }
        }
    }
    stream.shutdown(Shutdown::Write)?;
    heard.clear();
    wait_at_most(&stream, lab)?;
    match stream.read(&mut [0; 8])? {
        0 => Ok(()),
        _ => Err(io::Error::new(ErrorKind::InvalidData, "more than was sent")),
    }
}

/// Bounds the next call by the timeout, and by the time left for the rung.
fn wait_at_most(stream: &TcpStream, lab: &Lab) -> io::Result<()> {
    let timeout = lab.timeout.min(lab.rest());
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
        let mut lab = Lab::new(addr, FAR, Some((until, deadline))).unwrap();
        lab.begin();
        // The kernel accepts the connection, and no byte comes back.
        let outcome = exchange(&lab);
        assert!(matches!(outcome, Err(Trouble::TimedOut { .. })), "{outcome:?}");
        assert!(Instant::now() < until + FAR, "the timeout of 30 s does not apply");
        // The bound is over: no further wait begins.
        let outcome = exchange(&lab);
        assert!(matches!(outcome, Err(Trouble::TimedOut { .. })), "{outcome:?}");
    }
}
