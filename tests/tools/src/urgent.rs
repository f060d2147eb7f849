//! One exchange with an urgent byte. The ladder has it in its last rung; most proxies stop before.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use socket2::SockRef;

/// As the ladder does. Number of tries, because the outcome depends on timing.
const TRIES: usize = 30;
const TIMEOUT: Duration = Duration::from_secs(10);

/// Sends `abc`, an urgent `X` and `def`, again and again on one connection. The error is what came
/// back instead of all bytes that are not urgent.
pub fn exchange(addr: SocketAddr) -> Result<(), String> {
    let mut heard = Vec::new();
    let talk = talk(addr, &mut heard);
    let came = String::from_utf8_lossy(&heard).into_owned();
    talk.map_err(|error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            format!("came '{came}', then silence for {TIMEOUT:?}")
        }
        _ => format!("came '{came}', then: {error}"),
    })
}

fn talk(addr: SocketAddr, heard: &mut Vec<u8>) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&addr, TIMEOUT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    for _ in 0..TRIES {
        heard.clear();
        stream.write_all(b"abc")?;
        SockRef::from(&stream).send_out_of_band(b"X")?;
        stream.write_all(b"def")?;
        while !matches!(heard.as_slice(), b"abcdef" | b"abcXdef") {
            if heard.len() >= 7 {
                return Err(io::Error::other("these bytes differ from the bytes sent"));
            }
            let mut buffer = [0; 8];
            match stream.read(&mut buffer)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                count => heard.extend_from_slice(&buffer[..count]),
            }
        }
    }
    Ok(())
}
