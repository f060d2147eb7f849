//! System calls that std does not offer. All unsafe code of the bench is here.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

pub use libc::{MSG_MORE, epoll_event};

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

pub fn epoll() -> io::Result<OwnedFd> {
    // SAFETY: the descriptor is new, so it has no other owner.
    unsafe { check(libc::epoll_create1(libc::EPOLL_CLOEXEC)).map(|fd| OwnedFd::from_raw_fd(fd)) }
}

fn control(epoll: &OwnedFd, what: i32, fd: RawFd, events: u32, mark: u64) -> io::Result<()> {
    let mut event = epoll_event { events, u64: mark };
    // SAFETY: the kernel only reads `event`, and only during the call.
    check(unsafe { libc::epoll_ctl(epoll.as_raw_fd(), what, fd, &mut event) })?;
    Ok(())
}

/// Registers for reading, level-triggered. Events carry `mark`.
pub fn watch(epoll: &OwnedFd, fd: RawFd, mark: u64) -> io::Result<()> {
    control(epoll, libc::EPOLL_CTL_ADD, fd, READABLE, mark)
}

/// Registers for writing.
pub fn watch_writing(epoll: &OwnedFd, fd: RawFd, mark: u64) -> io::Result<()> {
    control(epoll, libc::EPOLL_CTL_ADD, fd, WRITABLE, mark)
}

/// Changes what is watched.
pub fn rewatch(epoll: &OwnedFd, fd: RawFd, reads: bool, writes: bool, mark: u64) -> io::Result<()> {
    let events = (u32::from(reads) * READABLE) | (u32::from(writes) * WRITABLE);
    control(epoll, libc::EPOLL_CTL_MOD, fd, events, mark)
}

pub const READABLE: u32 = libc::EPOLLIN as u32;
pub const WRITABLE: u32 = libc::EPOLLOUT as u32;
pub const FAILED: u32 = (libc::EPOLLERR | libc::EPOLLHUP) as u32;

/// Sends as much as the kernel takes at once. `None`: the connection has failed.
pub fn send_now(fd: RawFd, bytes: &[u8]) -> Option<usize> {
    let sent = send(fd, bytes, libc::MSG_DONTWAIT);
    let would_block = || io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock;
    usize::try_from(sent).ok().or_else(|| would_block().then_some(0))
}

/// Returns the number of `events` filled in, or 0 after `millis` (-1: waits without end).
pub fn wait(epoll: &OwnedFd, events: &mut [epoll_event], millis: i32) -> usize {
    let room = events.len() as i32;
    // SAFETY: the kernel writes at most `room` events.
    let count = unsafe { libc::epoll_wait(epoll.as_raw_fd(), events.as_mut_ptr(), room, millis) };
    count.max(0) as usize
}

pub fn accept(listener: RawFd) -> RawFd {
    let (addr, length) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: with null pointers the kernel writes no address.
    unsafe { libc::accept4(listener, addr, length, libc::SOCK_CLOEXEC) }
}

pub fn recv(fd: RawFd, buffer: &mut [u8]) -> isize {
    // SAFETY: the kernel writes at most the length of `buffer`.
    unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), 0) }
}

/// Reads at most `most` bytes from a TCP socket and drops them in the kernel, without a copy.
pub fn recv_and_drop(fd: RawFd, most: usize) -> io::Result<usize> {
    let flags = libc::MSG_TRUNC | libc::MSG_DONTWAIT;
    // SAFETY: with MSG_TRUNC the kernel writes nothing to a TCP receiver's buffer (tcp(7)).
    let count = unsafe { libc::recv(fd, std::ptr::null_mut(), most, flags) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// Creates a file in memory with `size` zeros.
pub fn memory_file(size: usize) -> io::Result<File> {
    // SAFETY: the name is a C string, and the descriptor is new, so it has no other owner.
    let file = unsafe {
        File::from_raw_fd(check(libc::memfd_create(c"bench".as_ptr(), libc::MFD_CLOEXEC))?)
    };
    (&file).write_all(&vec![0; size])?;
    Ok(file)
}

/// Sends the first `count` bytes of a file without a copy, as far as the socket takes them.
pub fn send_file(socket: RawFd, file: &File, count: usize) -> io::Result<usize> {
    let mut offset = 0;
    // SAFETY: the kernel reads and writes `offset` during the call only.
    let sent = unsafe { libc::sendfile(socket, file.as_raw_fd(), &mut offset, count) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

pub fn send(fd: RawFd, bytes: &[u8], flags: i32) -> isize {
    let flags = flags | libc::MSG_NOSIGNAL;
    // SAFETY: the kernel reads at most the length of `bytes`.
    unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), flags) }
}

/// Moves bytes between a pipe and a socket. Returns their number, or -1.
pub fn splice(from: RawFd, to: RawFd, most: usize) -> isize {
    let none = std::ptr::null_mut();
    // SAFETY: with null pointers the kernel uses no offset.
    unsafe { libc::splice(from, none, to, none, most, libc::SPLICE_F_MOVE) }
}

pub fn shutdown_write(fd: RawFd) {
    // SAFETY: touches no memory.
    unsafe { libc::shutdown(fd, libc::SHUT_WR) };
}

pub fn close(fd: RawFd) {
    // SAFETY: touches no memory; the caller owns the descriptor.
    unsafe { libc::close(fd) };
}

/// Makes `bind` leave the choice of the port to `connect`, which knows both addresses.
pub fn choose_port_late(fd: RawFd) -> io::Result<()> {
    let (option, on) = (libc::IP_BIND_ADDRESS_NO_PORT, 1_i32);
    let length = size_of_val(&on) as u32;
    // SAFETY: the kernel reads `on`, whose length is given.
    check(unsafe {
        libc::setsockopt(fd, libc::IPPROTO_IP, option, (&raw const on).cast(), length)
    })?;
    Ok(())
}

/// Returns the current Unix time in seconds.
pub fn second() -> i64 {
    // SAFETY: with a null pointer the time is only returned.
    unsafe { libc::time(std::ptr::null_mut()) }
}

/// Formats a second as `ctime(3)` does, with CR LF at the end.
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

/// Pins this process, and each child started after this call, to one CPU.
pub fn pin(cpu: usize) -> io::Result<()> {
    // SAFETY: the set is plain data, and zero is the empty one.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        check(libc::sched_setaffinity(0, size_of_val(&set), &set))?;
    }
    Ok(())
}

/// Returns the CPU time of a process: user and system, all threads.
pub fn cpu_time(pid: u32) -> io::Result<Duration> {
    // SAFETY: both calls write to locals of the right type.
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

/// Returns the CPU time of a process, of its children, and of the children that have ended. The last
/// part counts in ticks.
pub fn cpu_time_of_all(pid: u32) -> io::Result<Duration> {
    let mut spent = cpu_time(pid)?;
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    for child in children.split_whitespace().filter_map(|word| word.parse().ok()) {
        // A child may end before its clock is read.
        spent += cpu_time(child).unwrap_or_default();
    }
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after = stat.rsplit_once(") ").map_or("", |(_, after)| after);
    let ticks: u64 =
        after.split(' ').skip(13).take(2).filter_map(|word| word.parse::<u64>().ok()).sum();
    // SAFETY: touches no memory.
    let second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as u64;
    Ok(spent + Duration::from_millis(ticks * 1000 / second.max(1)))
}

/// Returns the CPU time of the children that this process has waited for, and of their children.
pub fn cpu_time_of_children() -> Duration {
    // SAFETY: the call writes to a local of the right type, whose zero value is valid.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage);
        usage
    };
    let time = |it: libc::timeval| Duration::new(it.tv_sec as u64, it.tv_usec as u32 * 1000);
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// Lets this process, and each child started after this call, use every CPU again.
pub fn unpin() -> io::Result<()> {
    // SAFETY: the set is plain data, and zero is the empty one.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        (0..libc::CPU_SETSIZE as usize).for_each(|cpu| libc::CPU_SET(cpu, &mut set));
        check(libc::sched_setaffinity(0, size_of_val(&set), &set))?;
    }
    Ok(())
}

/// Sends SIGTERM. The child must not have been waited for, or its id may belong to another process.
pub fn terminate(child: &std::process::Child) {
    // SAFETY: touches no memory.
    unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
}

/// Raises the limit of open files to what the system allows, for this process and its children.
pub fn raise_open_files() -> io::Result<()> {
    // SAFETY: both calls access one local of the right type.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        check(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit))?;
        limit.rlim_cur = limit.rlim_max;
        check(libc::setrlimit(libc::RLIMIT_NOFILE, &limit))?;
    }
    Ok(())
}
