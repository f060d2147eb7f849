//! The limit of open files.

/// The next step where that limit may be the cause. The program has raised the soft limit already.
pub const ADVICE: &str =
    "if the limit of open files is reached, raise the hard limit: ulimit -Hn, LimitNOFILE=";

/// The highest soft limit that macOS accepts if there is no hard limit (its setrlimit(2)).
#[cfg(unix)]
const OPEN_MAX: u64 = 10_240;

/// Raises the soft limit as far as the hard limit allows and returns the new one. Returns `None` if
/// there is no limit or the limit is unknown.
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
