//! Signals: the first one asks the loop to end, a later one ends the process.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

#[cfg(unix)]
use signal_hook::{consts, flag, low_level};

/// Signals within this time of the first belong to the same request: systemd sends SIGTERM and
/// SIGHUP together, npm and shells duplicate SIGINT.
const ONE_REQUEST: Duration = Duration::from_millis(200);

/// Unblocks the termination signals, which the parent may have blocked, and lets a write beyond
/// RLIMIT_FSIZE fail instead of killing the process. The standard library has done the same for
/// a write to a closed pipe.
///
/// Call it before any thread starts, because a thread inherits what its creator has blocked.
#[cfg(unix)]
pub fn prepare() -> io::Result<()> {
    use nix::sys::signal::{SigSet, Signal};

    let termination = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];
    SigSet::from_iter(termination).thread_unblock()?;
    // SIG_IGN needs unsafe code; a handler without effect does the same.
    flag::register(consts::SIGXFSZ, Arc::default()).map(drop)
}

/// Makes the termination signals end this process if it is PID 1 of a container, for which the
/// kernel drops every signal without a handler. Raising the signal again would end PID 1 by
/// SIGSEGV, so it exits. Any other process keeps the default, which shows its parent the signal.
#[cfg(unix)]
pub fn end_at_once_as_pid_1() -> io::Result<()> {
    let is_pid_1 = std::process::id() == 1;
    for signal in accepted().into_iter().filter(|_| is_pid_1) {
        let always = Arc::new(AtomicBool::new(true));
        flag::register_conditional_shutdown(signal, 128 + signal, always)?;
    }
    Ok(())
}

/// Watches for SIGTERM, SIGINT and SIGHUP, without a thread of its own.
#[derive(Debug)]
pub struct Signals {
    /// The number of the latest signal; 0 before the first.
    latest: Arc<AtomicUsize>,
    /// One flag for each signal number: the next signal of that number ends the process.
    armed: Vec<Arc<AtomicBool>>,
    /// Becomes readable when a signal arrives.
    #[cfg(unix)]
    bell: std::os::unix::net::UnixStream,
}

impl Signals {
    #[cfg(unix)]
    pub fn watch() -> io::Result<Signals> {
        let (bell, sender) = std::os::unix::net::UnixStream::pair()?;
        let mut signals = Signals { latest: Arc::default(), armed: Vec::new(), bell };
        for signal in accepted() {
            let armed = Arc::new(AtomicBool::new(false));
            // The handler takes these steps in this order. The first signal of a number arms its
            // flag, so that the second one ends even a loop that is stuck in a callback.
            flag::register_usize(signal, Arc::clone(&signals.latest), signal as usize)?;
            low_level::pipe::register(signal, sender.try_clone()?)?;
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&armed))?;
            flag::register(signal, Arc::clone(&armed))?;
            signals.armed.push(armed);
        }
        Ok(signals)
    }

    #[cfg(not(unix))]
    pub fn watch() -> io::Result<Signals> {
        Ok(Signals { latest: Arc::default(), armed: Vec::new() })
    }

    /// Returns the number of the latest signal, if one has arrived.
    pub fn latest(&self) -> Option<usize> {
        Some(self.latest.load(Ordering::Relaxed)).filter(|&signal| signal > 0)
    }

    /// Sets what the next signal does at this time after the loop saw the first one. Until 200 ms
    /// have passed, it changes nothing, and the time left is returned. From then on, it ends the
    /// process.
    ///
    /// Call it after each signal until it returns `None`, because each signal arms its own flag.
    pub fn merge(&self, since_first: Duration) -> Option<Duration> {
        let left = ONE_REQUEST.checked_sub(since_first).filter(|left| !left.is_zero());
        for armed in &self.armed {
            armed.store(left.is_none(), Ordering::SeqCst);
        }
        left
    }
}

#[cfg(unix)]
impl std::os::fd::AsFd for Signals {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

/// The termination signals, except those that this process has inherited as ignored, such as
/// SIGHUP under nohup(1) and SIGINT in a background job of a script: these stay ignored.
#[cfg(unix)]
fn accepted() -> Vec<i32> {
    // sigaction(2) needs unsafe code, so this asks procfs.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    let mut signals = vec![consts::SIGTERM, consts::SIGINT, consts::SIGHUP];
    signals.retain(|signal| mask >> (signal - 1) & 1 == 0);
    signals
}

#[cfg(all(test, unix))]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    use signal_hook::low_level::raise;

    use super::Signals;

    const IN_A_CHILD: &str = "CAMPANILE_TEST_IN_A_CHILD";

    /// Runs `act` of the named test in a process of its own and returns its exit code. That process
    /// may ignore SIGHUP, under nohup(1), or SIGINT, in a background job, so it ends by SIGTERM.
    fn exit_code(test: &str, act: impl FnOnce(Signals)) -> Option<i32> {
        if std::env::var_os(IN_A_CHILD).is_some() {
            super::prepare().unwrap();
            act(Signals::watch().unwrap());
            std::process::exit(0);
        }
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", &format!("cli::signals::tests::{test}")]).env(IN_A_CHILD, "1");
        command.stdout(Stdio::null()).status().unwrap().code()
    }

    #[test]
    fn a_signal_just_before_the_loop_sleeps_wakes_it() {
        const DEADLINE: Duration = Duration::from_secs(30);
        let mut reactor = campanile::Reactor::new().unwrap();
        let signals = Signals::watch().unwrap();
        reactor.watch(&signals).unwrap();
        assert_eq!(signals.latest(), None);
        raise(SIGTERM).unwrap();
        assert_eq!(signals.latest(), Some(15));
        let began = Instant::now();
        reactor.turn(Some(DEADLINE)).unwrap();
        assert!(began.elapsed() < DEADLINE, "it slept");
    }

    #[test]
    fn signals_within_200_ms_of_the_first_are_one_request() {
        let code = exit_code("signals_within_200_ms_of_the_first_are_one_request", |signals| {
            for millis in [0, 2, 2, 100, 199] {
                for signal in [SIGTERM, SIGINT, SIGHUP] {
                    raise(signal).unwrap();
                }
                let left = signals.merge(Duration::from_millis(millis)).unwrap();
                assert_eq!(left, Duration::from_millis(200 - millis));
            }
            std::process::exit(77);
        });
        assert_eq!(code, Some(77));
    }

    #[test]
    fn a_signal_200_ms_after_the_first_ends_the_process() {
        let code = exit_code("a_signal_200_ms_after_the_first_ends_the_process", |signals| {
            raise(SIGTERM).unwrap();
            assert!(signals.merge(Duration::ZERO).is_some());
            assert!(signals.merge(Duration::from_millis(200)).is_none());
            raise(SIGTERM).unwrap();
        });
        assert_eq!(code, Some(128 + SIGTERM));
    }

    #[test]
    fn a_second_signal_of_its_number_ends_a_loop_that_sees_none() {
        let code =
            exit_code("a_second_signal_of_its_number_ends_a_loop_that_sees_none", |_stuck| {
                for signal in [SIGTERM, SIGHUP, SIGINT, SIGTERM] {
                    raise(signal).unwrap();
                }
            });
        assert_eq!(code, Some(128 + SIGTERM));
    }
}
