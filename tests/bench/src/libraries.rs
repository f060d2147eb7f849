//! Other libraries, as their documentation uses them: a bare mio loop, and tokio on one thread.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;

use mio::{Events, Interest, Poll, Token};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::floors::{BUFFER, Line, listen, nodelay};

const DAYTIME: Token = Token(usize::MAX - 2);
const ECHO: Token = Token(usize::MAX - 1);

struct Connection {
    stream: mio::net::TcpStream,
    /// Bytes that the kernel has not taken.
    rest: Vec<u8>,
    lingers: bool,
}

/// Serves echo and daytime with mio alone: reads until `WouldBlock`, as mio's contract asks for.
pub fn mio(lingers: bool) -> io::Result<()> {
    let listener = |name| {
        let listener = listen(name)?;
        listener.set_nonblocking(true)?;
        Ok::<_, io::Error>(mio::net::TcpListener::from_std(listener))
    };
    let (mut daytime, mut echo) = (listener("daytime")?, listener("echo")?);
    let mut poll = Poll::new()?;
    poll.registry().register(&mut daytime, DAYTIME, Interest::READABLE)?;
    poll.registry().register(&mut echo, ECHO, Interest::READABLE)?;
    let (mut events, mut scratch) = (Events::with_capacity(1024), vec![0; BUFFER]);
    let (mut connections, mut free) = (Vec::<Option<Connection>>::new(), Vec::new());
    let mut line = Line::new();
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            let token = event.token();
            if token == DAYTIME || token == ECHO {
                let from = if token == ECHO { &echo } else { &daytime };
                while let Some(mut stream) = accept(from)? {
                    if token == DAYTIME {
                        stream.write_all(line.text())?;
                        if !lingers {
                            continue;
                        }
                        let _ = stream.shutdown(Shutdown::Write);
                    }
                    let at = free.pop().unwrap_or_else(|| {
                        connections.push(None);
                        connections.len() - 1
                    });
                    let both = Interest::READABLE | Interest::WRITABLE;
                    poll.registry().register(&mut stream, Token(at), both)?;
                    let lingers = token == DAYTIME;
                    connections[at] = Some(Connection { stream, rest: Vec::new(), lingers });
                }
            } else if let Some(connection) = &mut connections[token.0]
                && !serve(connection, &mut scratch).unwrap_or(false)
            {
                connections[token.0] = None;
                free.push(token.0);
            }
        }
    }
}

fn accept(listener: &mio::net::TcpListener) -> io::Result<Option<mio::net::TcpStream>> {
    match listener.accept() {
        Ok((stream, _)) => Ok(Some(stream)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns false at the end of the connection.
fn serve(connection: &mut Connection, scratch: &mut [u8]) -> io::Result<bool> {
    let Connection { stream, rest, lingers } = connection;
    loop {
        if !rest.is_empty() {
            match stream.write(rest) {
                Ok(count) => drop(rest.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            }
            continue;
        }
        match stream.read(scratch) {
            Ok(0) => return Ok(false),
            Ok(_) if *lingers => {}
            Ok(count) => match stream.write(&scratch[..count]) {
                Ok(sent) => rest.extend_from_slice(&scratch[sent..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    rest.extend_from_slice(&scratch[..count]);
                }
                Err(error) => return Err(error),
            },
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error),
        }
    }
}

/// Serves echo and daytime with tokio: one task for each connection, and one buffer of the same size for
/// each of echo.
pub fn tokio(lingers: bool) -> io::Result<()> {
    let (daytime, echo) = (listen("daytime")?, listen("echo")?);
    daytime.set_nonblocking(true)?;
    echo.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let daytime = tokio::net::TcpListener::from_std(daytime)?;
        let echo = tokio::net::TcpListener::from_std(echo)?;
        tokio::spawn(async move {
            let mut line = Line::new();
            loop {
                let (stream, _) = daytime.accept().await?;
                tokio::spawn(tell(stream, *line.text(), lingers));
            }
            #[allow(unreachable_code)]
            Ok::<(), io::Error>(())
        });
        loop {
            let (stream, _) = echo.accept().await?;
            nodelay(&stream)?;
            tokio::spawn(give_back(stream));
        }
    })
}

async fn tell(mut stream: tokio::net::TcpStream, line: [u8; 26], lingers: bool) -> io::Result<()> {
    stream.write_all(&line).await?;
    if lingers {
        stream.shutdown().await?;
        let mut scratch = [0; 64];
        while stream.read(&mut scratch).await? > 0 {}
    }
    Ok(())
}

async fn give_back(mut stream: tokio::net::TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            count => stream.write_all(&buffer[..count]).await?,
        }
    }
}

/// Serves echo with smol on one thread, as its documentation does.
pub fn smol() -> io::Result<()> {
    use smol::io::{AsyncReadExt, AsyncWriteExt};
    let echo = listen("echo")?;
    let executor = smol::LocalExecutor::new();
    smol::block_on(executor.run(async {
        let echo = smol::Async::new(echo)?;
        loop {
            let (mut stream, _) = echo.accept().await?;
            let serve = async move {
                let mut buffer = vec![0; BUFFER];
                loop {
                    match stream.read(&mut buffer).await? {
                        0 => return Ok::<(), io::Error>(()),
                        count => stream.write_all(&buffer[..count]).await?,
                    }
                }
            };
            executor.spawn(serve).detach();
        }
    }))
}
