//! How many files may be open at once.

/// The most that macOS takes where the hard limit is none (its setrlimit(2)).
#[cfg(unix)]
const OPEN_MAX: u64 = 10_240;

/// Raises the limit of open files as far as it may be, and returns what it is then; `None` if there
/// is none, or nobody knows.
#[cfg(unix)]
pub fn raise_limit() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    for wanted in [maximum, Some(OPEN_MAX)] {
        if setrlimit(Resource::Nofile, Rlimit { current: wanted, maximum }).is_ok() {
            return wanted;
        }
    }
    current
}

#[cfg(not(unix))]
pub fn raise_limit() -> Option<u64> {
    None
}
