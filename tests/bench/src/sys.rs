//! The few calls that std has no words for, and the only unsafe code.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

pub use libc::{MSG_MORE, epoll_event};

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

pub fn epoll() -> io::Result<OwnedFd> {
    // SAFETY: the descriptor is new, so nobody else owns it.
    unsafe { check(libc::epoll_create1(libc::EPOLL_CLOEXEC)).map(|fd| OwnedFd::from_raw_fd(fd)) }
}

/// Level-triggered, and for reading only; `mark` comes back with the events.
pub fn watch(epoll: &OwnedFd, fd: RawFd, mark: u64) -> io::Result<()> {
    let mut event = epoll_event { events: libc::EPOLLIN as u32, u64: mark };
    // SAFETY: the kernel only reads `event`, and only during the call.
    check(unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &mut event) })?;
    Ok(())
}

/// How many of `events` were filled in; none once `millis` are over (-1 is never).
pub fn wait(epoll: &OwnedFd, events: &mut [epoll_event], millis: i32) -> usize {
    let room = events.len() as i32;
    // SAFETY: `events` has room for as many as are asked for.
    let count = unsafe { libc::epoll_wait(epoll.as_raw_fd(), events.as_mut_ptr(), room, millis) };
    count.max(0) as usize
}

pub fn accept(listener: RawFd) -> RawFd {
    let (addr, length) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: nothing is asked about the peer, so nothing is written.
    unsafe { libc::accept4(listener, addr, length, libc::SOCK_CLOEXEC) }
}

pub fn recv(fd: RawFd, buffer: &mut [u8]) -> isize {
    // SAFETY: the kernel writes at most the length of `buffer`.
    unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), 0) }
}

pub fn send(fd: RawFd, bytes: &[u8], flags: i32) -> isize {
    let flags = flags | libc::MSG_NOSIGNAL;
    // SAFETY: the kernel reads at most the length of `bytes`.
    unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), flags) }
}

pub fn shutdown_write(fd: RawFd) {
    // SAFETY: touches no memory.
    unsafe { libc::shutdown(fd, libc::SHUT_WR) };
}

pub fn close(fd: RawFd) {
    // SAFETY: touches no memory, and nobody but the caller knows the descriptor.
    unsafe { libc::close(fd) };
}

/// Lets bind(2) leave the port to connect(2), which knows both ends.
pub fn choose_port_late(fd: RawFd) -> io::Result<()> {
    let (option, on) = (libc::IP_BIND_ADDRESS_NO_PORT, 1_i32);
    let length = size_of_val(&on) as u32;
    // SAFETY: the kernel reads `on`, whose length is given.
    check(unsafe {
        libc::setsockopt(fd, libc::IPPROTO_IP, option, (&raw const on).cast(), length)
    })?;
    Ok(())
}

/// The second it is.
pub fn second() -> i64 {
    // SAFETY: with a null pointer the time is only returned.
    unsafe { libc::time(std::ptr::null_mut()) }
}

/// A second as `ctime(3)` writes it, with CR LF.
pub fn ctime(second: i64) -> [u8; 26] {
    let mut text = [0; 27];
    // SAFETY: the format yields 26 bytes and the final zero in the C locale, and `text` has both.
    unsafe {
        let mut parts: libc::tm = std::mem::zeroed();
        libc::localtime_r(&second, &mut parts);
        let format = c"%a %b %e %H:%M:%S %Y\r\n".as_ptr();
        libc::strftime(text.as_mut_ptr().cast(), text.len(), format, &parts);
    }
    *text.first_chunk().expect("27 is more than 26")
}

/// Keeps this process, and those it starts from now on, on one CPU.
pub fn pin(cpu: usize) -> io::Result<()> {
    // SAFETY: the set is plain data, and zero is the empty one.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        check(libc::sched_setaffinity(0, size_of_val(&set), &set))?;
    }
    Ok(())
}

/// The CPU time of a process with all its threads, user and system, to the nanosecond.
pub fn cpu_time(pid: u32) -> io::Result<Duration> {
    // SAFETY: both calls fill in what they are given.
    let spent = unsafe {
        let (mut clock, mut spent) = (0, std::mem::zeroed::<libc::timespec>());
        match libc::clock_getcpuclockid(pid as i32, &mut clock) {
            0 => check(libc::clock_gettime(clock, &mut spent))?,
            errno => return Err(io::Error::from_raw_os_error(errno)),
        };
        spent
    };
    Ok(Duration::new(spent.tv_sec as u64, spent.tv_nsec as u32))
}

/// Asks a child to end. Only for a child that was not waited for, so that its id is still its own.
pub fn terminate(child: &std::process::Child) {
    // SAFETY: touches no memory.
    unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
}
