//! Signals: the first one asks the loop to end, the second one ends the process.

use std::io;
use std::time::Duration;

use campanile::Handle;

/// Watches for SIGTERM, SIGINT and SIGHUP, on a thread of its own: the second one works even if
/// the loop is stuck.
#[cfg(unix)]
pub fn watch(handle: Handle, grace: Duration) -> io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;

    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    if !is_ignored(SIGHUP) {
        signals.add_signal(SIGHUP)?;
    }
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let mut signals = signals.forever();
        if let Some(signal) = signals.next() {
            log::debug!("signal {signal}: conversations have {grace:?} to finish");
            handle.shutdown(grace);
        }
        if let Some(signal) = signals.next() {
            // At once: without a look at what else is going on.
            signal_hook::low_level::exit(128 + signal);
        }
    })?;
    Ok(())
}

#[cfg(not(unix))]
pub fn watch(_handle: Handle, _grace: Duration) -> io::Result<()> {
    Ok(())
}

/// Whether whoever started us has a signal ignored, as nohup(1) has SIGHUP. That stays so.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
