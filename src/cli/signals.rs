//! Signals: the first one asks the loop to end, the second one ends the process.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Watches for SIGTERM, SIGINT and SIGHUP, without a thread of its own.
#[derive(Debug)]
pub struct Signals {
    /// The number of the one that has come; zero is none's.
    come: Arc<AtomicUsize>,
    /// Can be read once a signal has come.
    #[cfg(unix)]
    bell: std::os::unix::net::UnixStream,
}

impl Signals {
    #[cfg(unix)]
    pub fn watch() -> io::Result<Signals> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        use signal_hook::{flag, low_level};
        use std::sync::atomic::AtomicBool;

        let (come, is_ending) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (bell, rope) = std::os::unix::net::UnixStream::pair()?;
        for signal in [SIGTERM, SIGINT, SIGHUP] {
            if signal == SIGHUP && is_ignored(signal) {
                continue;
            }
            // In this order: one that comes just now is noted, and the second one finds the flag up
            // and ends the process at once, in the middle of whatever the loop is doing.
            flag::register_usize(signal, Arc::clone(&come), signal as usize)?;
            low_level::pipe::register(signal, rope.try_clone()?)?;
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&is_ending))?;
            flag::register(signal, Arc::clone(&is_ending))?;
        }
        Ok(Signals { come, bell })
    }

    #[cfg(not(unix))]
    pub fn watch() -> io::Result<Signals> {
        Ok(Signals { come: Arc::default() })
    }

    /// The signal that has come, if one has.
    pub fn come(&self) -> Option<usize> {
        Some(self.come.load(Ordering::Relaxed)).filter(|&signal| signal > 0)
    }
}

#[cfg(unix)]
impl std::os::fd::AsFd for Signals {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

/// Whether whoever started us has a signal ignored, as nohup(1) has SIGHUP. That stays so.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

#[cfg(all(test, unix))]
mod tests {
    use std::time::{Duration, Instant};

    use super::Signals;

    #[test]
    fn a_signal_that_comes_just_before_the_loop_sleeps_is_no_sleep() {
        const DEADLINE: Duration = Duration::from_secs(30);
        let mut reactor = campanile::Reactor::new().unwrap();
        let signals = Signals::watch().unwrap();
        reactor.watch(&signals).unwrap();
        assert_eq!(signals.come(), None);
        signal_hook::low_level::raise(signal_hook::consts::SIGINT).unwrap();
        assert_eq!(signals.come(), Some(2));
        let began = Instant::now();
        reactor.turn(Some(DEADLINE)).unwrap();
        assert!(began.elapsed() < DEADLINE, "it slept");
    }
}
