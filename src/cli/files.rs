//! How many files may be open at once.

/// Raises the limit of open files as far as it may be, and returns what it is then; `None` if there
/// is none, or nobody knows.
#[cfg(unix)]
pub fn raise_limit() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(_) => current,
    }
}

#[cfg(not(unix))]
pub fn raise_limit() -> Option<u64> {
    None
}
