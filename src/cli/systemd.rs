//! The messages to the service manager: sd_notify(3). The loop itself sends them, so that a loop that
//! is stuck misses its watchdog and is restarted.

use std::env;
use std::ffi::OsString;
use std::fmt::Write;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// How long the first message waits for room.
const PATIENCE: Duration = Duration::from_secs(5);

/// The socket of the service manager, if there is one.
#[derive(Debug, Default)]
pub struct Systemd {
    socket: Option<UnixDatagram>,
    /// Half the time after which the service manager ends a silent process, and the next message.
    watchdog: Option<(Duration, Instant)>,
}

impl Systemd {
    /// Connects to the socket now, because later there may be no descriptor left.
    pub fn from_env() -> Systemd {
        let Some(path) = env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else {
            return Systemd::default();
        };
        let socket = connect(&path).map_err(|error| {
            log::warn!(
                "cannot connect to NOTIFY_SOCKET={}: {error}; the service manager sees no state of this program; unset the variable if none runs",
                Path::new(&path).display()
            );
        });
        // A bound of zero would mean a message in every turn, without a sleep.
        let bound =
            sd_notify::watchdog_enabled().filter(|bound| *bound >= Duration::from_millis(2));
        let watchdog = bound.map(|bound| (bound / 2, Instant::now()));
        Systemd { socket: socket.ok(), watchdog }
    }

    /// Reports that every address is bound.
    pub fn ready(&self, status: &str) {
        self.send(&[NotifyState::Ready, NotifyState::Status(status)]);
        if let Some(socket) = &self.socket {
            // From here on, a message that finds no room is dropped: the loop never waits for it.
            let _ = socket.set_nonblocking(true);
        }
    }

    /// Reports that the program is to end.
    pub fn stopping(&self, status: &str) {
        self.send(&[NotifyState::Stopping, NotifyState::Status(status)]);
    }

    /// Reports that the loop turns, if that is due, and returns when the next report is.
    pub fn watchdog(&mut self, status: impl FnOnce() -> String) -> Option<Duration> {
        self.socket.as_ref()?;
        let (interval, next) = self.watchdog?;
        let now = Instant::now();
        if now < next {
            return Some(next - now);
        }
        let is_sent = self.send(&[NotifyState::Watchdog, NotifyState::Status(&status())]);
        let wait = if is_sent { interval } else { interval / 8 };
        self.watchdog = Some((interval, now + wait));
        Some(wait)
    }

    /// Returns whether the message was sent.
    fn send(&self, states: &[NotifyState<'_>]) -> bool {
        let Some(socket) = &self.socket else { return false };
        let mut message = String::new();
        for state in states {
            let _ = writeln!(message, "{state}");
        }
        let sent = socket.send(message.as_bytes());
        if let Err(error) = &sent {
            log::debug!("cannot send the state to the service manager: {error}");
        }
        sent.is_ok()
    }
}

fn connect(path: &OsString) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    match path.as_bytes() {
        #[cfg(target_os = "linux")]
        [b'@', name @ ..] => {
            use std::os::linux::net::SocketAddrExt;
            socket.connect_addr(&std::os::unix::net::SocketAddr::from_abstract_name(name)?)?;
        }
        _ => socket.connect(path)?,
    }
    Ok(socket)
}
