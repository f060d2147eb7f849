//! Runs the built program. A watchdog kills it after 30 seconds, which ends every wait of the test.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};

#[allow(unused_imports)]
pub use crate::common::Folder;
use crate::common::{DEADLINE, skip};

/// The program, with an empty environment and no signal ignored.
pub fn campanile() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_campanile"));
    inherit_signals(command.env_clear().stdin(Stdio::null()), &[], &[]);
    command
}

/// Makes the command inherit these of the termination signals as ignored and these as blocked, and
/// the others neither ignored nor blocked.
pub fn inherit_signals(command: &mut Command, ignored: &[i32], blocked: &[i32]) {
    let (ignored, blocked) = (ignored.to_vec(), blocked.to_vec());
    let inherit = move || {
        for number in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            let is_ignored = ignored.contains(&number);
            let disposition = if is_ignored { libc::SIG_IGN } else { libc::SIG_DFL };
            let how = if blocked.contains(&number) { libc::SIG_BLOCK } else { libc::SIG_UNBLOCK };
            // SAFETY: an all-zero sigset_t is the empty set; the calls read and write nothing else.
            unsafe {
                let mut set = std::mem::zeroed();
                libc::sigaddset(&mut set, number);
                libc::sigprocmask(how, &set, std::ptr::null_mut());
                libc::signal(number, disposition);
            }
        }
        Ok(())
    };
    // SAFETY: the closure calls async-signal-safe functions and does not allocate.
    unsafe { command.pre_exec(inherit) };
}

/// The program with these sockets passed to it, as systemd does. Its process id is known only to the
/// child, so a shell sets it.
pub fn activated(sockets: Vec<OwnedFd>, names: &str, words: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "LISTEN_PID=$$; export LISTEN_PID; exec \"$0\" \"$@\""]);
    command
        .arg(env!("CARGO_BIN_EXE_campanile"))
        .args(words)
        .env_clear()
        .env("PATH", "/usr/bin:/bin");
    command.env("LISTEN_FDS", sockets.len().to_string()).env("LISTEN_FDNAMES", names);
    inherit_signals(&mut command, &[], &[]);
    let mut moved = vec![-1; sockets.len()];
    let pass = move || {
        // First out of the way, because a source may have the number of a target. The kernel chooses
        // numbers that no source has.
        for (to, socket) in moved.iter_mut().zip(&sockets) {
            // SAFETY: fcntl(2) reads three numbers.
            *to = unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 100) };
        }
        for (at, from) in moved.iter().enumerate() {
            // SAFETY: dup2(2) reads two numbers.
            unsafe { libc::dup2(*from, 3 + at as i32) };
        }
        Ok(())
    };
    // SAFETY: the closure calls async-signal-safe functions and does not allocate.
    unsafe { command.pre_exec(pass) };
    command
}

/// The program without the capabilities of root; `None`, with a recorded skip, if they stay.
pub fn campanile_without_privileges() -> Option<Command> {
    // SAFETY: geteuid(2) takes nothing and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        return Some(campanile());
    }
    let setpriv = |program: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set=-all", "--inh-caps=-all", program]).stdin(Stdio::null());
        command
    };
    if !setpriv("true").status().is_ok_and(|status| status.success()) {
        skip("`setpriv --bounding-set=-all` fails");
        return None;
    }
    let mut command = setpriv(env!("CARGO_BIN_EXE_campanile"));
    inherit_signals(command.env_clear(), &[], &[]);
    Some(command)
}

/// Kills a process unless dropped within the deadline.
pub struct Watchdog {
    over: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    pub fn new(pid: u32) -> Watchdog {
        let (over, wait) = mpsc::channel();
        let thread = thread::spawn(move || {
            if let Err(mpsc::RecvTimeoutError::Timeout) = wait.recv_timeout(DEADLINE) {
                signal(pid, libc::SIGKILL);
            }
        });
        Watchdog { over: Some(over), thread: Some(thread) }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.over.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

pub fn signal(pid: u32, signal: i32) {
    // SAFETY: kill(2) reads its two numbers and nothing else.
    unsafe { libc::kill(pid as libc::pid_t, signal) };
}

/// The exit code of a program and its output.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Ended {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let watchdog = Watchdog::new(child.id());
    let output = child.wait_with_output().unwrap();
    drop(watchdog);
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs the program with these arguments to its end.
pub fn run_words<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> Ended {
    run(campanile().args(words))
}

/// A program that goes on running. Killed and waited for when dropped.
pub struct Server {
    child: Child,
    pub daytime: Vec<SocketAddr>,
    pub echo: Vec<SocketAddr>,
    /// The address lines.
    pub lines: String,
    stderr: Arc<(Mutex<Heard>, Condvar)>,
    reader: Option<JoinHandle<()>>,
    watchdog: Option<Watchdog>,
}

#[derive(Default)]
struct Heard {
    text: String,
    is_over: bool,
}

impl Server {
    /// `campanile serve` on free ports of loopback, with more arguments.
    pub fn start(words: &[&str]) -> Server {
        Server::spawn(campanile().args(["serve", "-d", "0", "-e", "0"]).args(words))
    }

    /// Starts a command that prints an address line on stdout for each service that is on.
    pub fn spawn(command: &mut Command) -> Server {
        Server::spawn_unheard(command).listen_to_stderr()
    }

    /// The same with a stderr that is not read yet.
    pub fn spawn_unheard(command: &mut Command) -> Server {
        Server::with_stderr(command, Stdio::piped())
    }

    /// The same with any stderr.
    pub fn with_stderr(command: &mut Command, stderr: Stdio) -> Server {
        let mut child = command.stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
        let watchdog = Watchdog::new(child.id());
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut lines = String::new();
        // The address lines are one write, so the other ones are there with the first.
        stdout.read_line(&mut lines).unwrap();
        lines.push_str(std::str::from_utf8(stdout.buffer()).unwrap());
        let of = |service: &str| {
            let found = lines.lines().filter_map(|line| line.strip_prefix(service));
            found.filter_map(|addr| addr.trim().parse().ok()).collect()
        };
        let (daytime, echo) = (of("daytime "), of("echo "));
        let (stderr, reader) = (Arc::default(), None);
        let watchdog = Some(watchdog);
        Server { child, daytime, echo, lines, stderr, reader, watchdog }
    }

    pub fn listen_to_stderr(mut self) -> Server {
        let mut stderr = self.child.stderr.take().unwrap();
        let heard = Arc::clone(&self.stderr);
        self.reader = Some(thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                let count = stderr.read(&mut buffer).unwrap();
                let mut state = heard.0.lock().unwrap();
                state.text.push_str(&String::from_utf8_lossy(&buffer[..count]));
                state.is_over = count == 0;
                heard.1.notify_all();
                if count == 0 {
                    return;
                }
            }
        }));
        self
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, number: i32) {
        signal(self.pid(), number);
    }

    pub fn daytime(&self) -> SocketAddr {
        self.daytime[0]
    }

    pub fn echo(&self) -> SocketAddr {
        self.echo[0]
    }

    /// Waits until stderr contains this.
    pub fn wait_for(&self, word: &str) {
        let mut state = self.stderr.0.lock().unwrap();
        while !state.text.contains(word) {
            assert!(!state.is_over, "{word:?} was never said, but: {}", state.text);
            state = self.stderr.1.wait(state).unwrap();
        }
    }

    /// Waits for the end. Returns the status and all of stderr.
    pub fn wait(&mut self) -> (ExitStatus, String) {
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        let status = self.child.wait().unwrap();
        self.watchdog = None;
        (status, self.stderr.0.lock().unwrap().text.clone())
    }

    /// Asks it to end, and waits; it must end well.
    pub fn stop(mut self) -> String {
        self.signal(libc::SIGTERM);
        let (status, stderr) = self.wait();
        assert_eq!(status.code(), Some(0), "{stderr}");
        stderr
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.watchdog.is_some() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let _ = self.reader.take().map(JoinHandle::join);
    }
}

/// A child with a pipe to its stdin. Killed and waited for when dropped.
pub struct Talking {
    child: Child,
    pub stdin: Option<ChildStdin>,
    watchdog: Option<Watchdog>,
}

impl Talking {
    pub fn spawn(command: &mut Command) -> Talking {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let watchdog = Some(Watchdog::new(child.id()));
        Talking { stdin: child.stdin.take(), child, watchdog }
    }

    pub fn read(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.child.stdout.as_mut().unwrap().read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Waits for the end while stdin stays as it is.
    pub fn wait(mut self) -> (Option<i32>, Vec<u8>, String) {
        let mut stderr = self.child.stderr.take().unwrap();
        let errors = thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).unwrap();
            text
        });
        let mut out = Vec::new();
        self.child.stdout.take().unwrap().read_to_end(&mut out).unwrap();
        let errors = errors.join().unwrap();
        let status = self.child.wait().unwrap();
        self.watchdog = None;
        (status.code(), out, errors)
    }
}

impl Drop for Talking {
    fn drop(&mut self) {
        if self.watchdog.is_some() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A server that runs a script with its one client.
pub struct Scripted {
    pub addr: SocketAddr,
    release: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Scripted {
    pub fn once(script: impl FnOnce(TcpStream) + Send + 'static) -> Scripted {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let thread = thread::spawn(move || script(listener.accept().unwrap().0));
        Scripted { addr, release: None, thread: Some(thread) }
    }

    /// The same, and then holds the connection, in silence, until dropped.
    pub fn holding(script: impl FnOnce(&mut TcpStream) + Send + 'static) -> Scripted {
        let (release, wait) = mpsc::channel::<()>();
        let mut server = Scripted::once(move |mut stream| {
            script(&mut stream);
            let _ = wait.recv();
        });
        server.release = Some(release);
        server
    }

    pub fn addr(&self) -> String {
        self.addr.to_string()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        drop(self.release.take());
        // A test that fails may never have connected.
        if !thread::panicking() {
            self.thread.take().unwrap().join().unwrap();
        }
    }
}
