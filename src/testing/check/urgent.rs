//! An urgent byte amid others: the one thing that only a socket itself can send.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::caller::plain;
use super::lab::{PATIENCE, Trouble};
use super::plan::Rule;
use crate::client::repr;

/// What depends on timing is tried as often.
const TRIES: usize = 30;

static URGENT: Rule = Rule {
    number: "R1",
    says: "an urgent byte ends a read early: what follows it must be read all the same, \
           without waiting for more to come",
};

/// Says `abc`, an urgent `X` and `def`, again and again on one connection. The urgent byte may come
/// back in its place or not at all; the others come back.
pub(super) fn exchange(addr: SocketAddr, timeout: Duration) -> Result<(), Trouble> {
    let stream = TcpStream::connect_timeout(&addr, timeout);
    let stream = stream.map_err(|error| Trouble::Absent(plain(&error)))?;
    let mut heard = Vec::new();
    talk(stream, timeout, &mut heard).map_err(|error| {
        let came = match (heard.as_slice(), error.kind()) {
            (b"", _) => "nothing".into(),
            (_, ErrorKind::InvalidData) => format!("{}: {error}", repr(&heard)),
            _ => repr(&heard),
        };
        let came = match error.kind() {
            ErrorKind::InvalidData => came,
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                format!("{came}, then silence for {timeout:?}")
            }
            ErrorKind::UnexpectedEof => format!("{came}, then EOF"),
            _ => format!("{came}, then a broken connection: {}", plain(&error)),
        };
        Trouble::stopped("'abc', an urgent 'X', 'def'", came).breaking(&URGENT)
    })
}

fn talk(mut stream: TcpStream, timeout: Duration, heard: &mut Vec<u8>) -> io::Result<()> {
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    stream.set_nodelay(true)?;
    let began = Instant::now();
    for _ in 0..TRIES {
        heard.clear();
        stream.write_all(b"abc")?;
        SockRef::from(&stream).send_out_of_band(b"X")?;
        stream.write_all(b"def")?;
        while heard.as_slice() != b"abcdef" && heard.as_slice() != b"abcXdef" {
            if !(b"abcdef".starts_with(heard) || b"abcXdef".starts_with(heard)) {
                return Err(io::Error::new(ErrorKind::InvalidData, "not what was sent"));
            }
            if began.elapsed() > timeout * PATIENCE {
                return Err(ErrorKind::TimedOut.into());
            }
            let mut buffer = [0; 8];
            match stream.read(&mut buffer)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                count => heard.extend_from_slice(&buffer[..count]),
            }
        }
    }
    stream.shutdown(Shutdown::Write)?;
    heard.clear();
    match stream.read(&mut [0; 8])? {
        0 => Ok(()),
        _ => Err(io::Error::new(ErrorKind::InvalidData, "more than was sent")),
    }
}
