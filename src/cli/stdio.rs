//! stdin, stdout and stderr without a buffer of ours, whatever mode another process left them in.

use std::io::{self, Write};

/// A standard stream whose reads and writes block. `O_NONBLOCK` belongs to the open file, which
/// other processes share: where one of them has set it, this waits with `poll` instead of failing.
#[derive(Debug)]
pub struct Blocking<T>(pub T);

/// Writes to stdout, however long that takes.
pub fn print(text: &str) -> io::Result<()> {
    let mut stdout = Blocking(io::stdout());
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Writes to stderr, however long that takes. The exit code reports the failure where this fails.
pub fn print_error(text: &str) {
    let _ = Blocking(io::stderr()).write_all(text.as_bytes());
}

#[cfg(unix)]
mod unix {
    use std::io::{self, Read, Write};
    use std::os::fd::AsFd;

    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::io::Errno;

    use super::Blocking;

    impl<T: AsFd> Blocking<T> {
        /// Repeats a system call that a signal interrupted, or that would have to wait.
        fn retry<R>(
            &self,
            ready: PollFlags,
            mut call: impl FnMut(&T) -> rustix::io::Result<R>,
        ) -> io::Result<R> {
            loop {
                match call(&self.0) {
                    Err(Errno::AGAIN) => match poll(&mut [PollFd::new(&self.0, ready)], None) {
                        Ok(_) | Err(Errno::INTR) => {}
                        Err(error) => return Err(error.into()),
                    },
                    Err(Errno::INTR) => {}
                    other => return Ok(other?),
                }
            }
        }
    }

    impl<T: AsFd> Read for Blocking<T> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.retry(PollFlags::IN, |fd| rustix::io::read(fd, &mut *buffer))
        }
    }

    impl<T: AsFd> Write for Blocking<T> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.retry(PollFlags::OUT, |fd| rustix::io::write(fd, bytes))
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}

#[cfg(not(unix))]
impl<T: io::Read> io::Read for Blocking<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

#[cfg(not(unix))]
impl<T: Write> Write for Blocking<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::thread;

    use super::*;

    #[test]
    fn a_non_blocking_stream_is_read_and_written_to_the_last_byte() {
        let (near, far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        far.set_nonblocking(true).unwrap();
        // Far more than the buffers of the kernel hold, so that both sides have to wait.
        let sent = vec![b'x'; 4_000_000];
        let copy = sent.clone();
        let writer = thread::spawn(move || Blocking(near).write_all(&copy).unwrap());
        let mut received = Vec::new();
        Blocking(far).read_to_end(&mut received).unwrap();
        writer.join().unwrap();
        assert!(received == sent, "{} bytes arrived", received.len());
    }
}
