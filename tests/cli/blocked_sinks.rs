//! stdout and stderr closed, full or not read: the service goes on, neither stream stops the other,
//! and each counts the lines that it lacks.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::common::eventually;
use crate::faults::Telling;
use crate::program::{Folder, Server, Watchdog, campanile};
use crate::schema::checked;

/// More connections than a pipe of 64 KiB and the queue have room for.
const MANY: usize = 4000;

fn ask(addr: SocketAddr) {
    let mut line = String::new();
    TcpStream::connect(addr).unwrap().read_to_string(&mut line).unwrap();
    assert_eq!(line.len(), 26);
}

fn serve_many(server: &Server) {
    for _ in 0..MANY {
        ask(server.daytime());
    }
}

/// The number in the note of a log line, if that is one.
fn missing(line: &str) -> Option<usize> {
    let (count, rest) = line.strip_prefix("warning: ")?.split_once(' ')?;
    rest.contains("missing here: stderr was full").then(|| count.parse().unwrap())
}

#[test]
fn an_unread_stderr_stops_nothing_and_its_missing_lines_are_counted() {
    let mut command = campanile();
    let mut server = Server::spawn_unheard(command.args(["serve", "-d", "0", "-e", "0", "-v"]));
    serve_many(&server);
    // The reader comes back. The note does not wait for another line.
    server = server.listen_to_stderr();
    server.wait_for(" lines are missing here: stderr was full or not read in time\n");
    let log = server.stop();
    let dropped: usize = log.lines().filter_map(missing).sum();
    let is_told = |line: &&str| line.starts_with("Got a conn") || line.starts_with("debug: #");
    let told = log.lines().filter(is_told).count();
    assert!(dropped > 0);
    assert_eq!(told + dropped, 2 * MANY, "every line is there, or counted");
    assert!(log.lines().all(|line| line.len() < 80), "no line is cut or glued to another");
}

#[test]
fn events_and_answers_go_on_while_stderr_is_not_read() {
    let mut command = campanile();
    command.args(["serve", "--pipe", "-vv"]).stderr(Stdio::piped());
    let mut server = Telling::spawn(&mut command);
    for number in 1..=MANY {
        ask(server.daytime);
        for expected in ["accepted", "closed"] {
            let event = server.next();
            assert_eq!((&event["event"], &event["id"]), (&expected.into(), &number.into()));
        }
    }
    assert_eq!(server.ask("echo: stall")["event"], "fault");
    drop(server.stdin.take());
    assert_eq!(server.next()["event"], "stopped");
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
}

#[test]
fn the_log_goes_on_while_events_are_not_read_and_lost_events_are_counted() {
    let mut command = campanile();
    command.args(["serve", "--pipe", "-v"]).stderr(Stdio::piped());
    let mut server = Telling::spawn(&mut command);
    let mut log = std::io::BufReader::new(server.child.stderr.take().unwrap());
    for number in 1..=MANY {
        ask(server.daytime);
        for expected in ["Got a connection from 127.0.0.1:", &format!("debug: #{number} closed")] {
            let mut line = String::new();
            std::io::BufRead::read_line(&mut log, &mut line).unwrap();
            assert!(line.starts_with(expected), "{number}: {line}");
        }
    }
    // The reader comes back. The count does not wait for another event.
    let (mut told, mut lost) = (0, 0);
    while told + lost < 2 * MANY {
        let event = server.next();
        match event["event"].as_str().unwrap() {
            "accepted" | "closed" => told += 1,
            "lost" => lost += usize::try_from(event["count"].as_u64().unwrap()).unwrap(),
            _ => panic!("{event}"),
        }
    }
    assert!(lost > 0);
    assert_eq!(told + lost, 2 * MANY);
    assert_eq!(server.ask("echo: stall")["event"], "fault");
    drop(server.stdin.take());
    assert_eq!(server.next()["event"], "stopped");
}

/// A server in a mount namespace of its own, whose output fills a file system of 8 MiB.
struct OnSmallDisk {
    child: Child,
    disk: PathBuf,
    _folder: Folder,
    _watchdog: Watchdog,
}

impl OnSmallDisk {
    /// Starts it with its output in `file`; `None` if namespaces or mounts are not allowed here.
    fn start(name: &str, words: &str, redirection: &str) -> Option<OnSmallDisk> {
        let folder = Folder::new(name);
        let mount = folder.join("disk");
        fs::create_dir(&mount).unwrap();
        let script = format!(
            "mount -t tmpfs -o size=8m none \"$1\" || exit 99
             exec \"$0\" serve -d 0 -e off --ready-file \"$2\" {words} {redirection}"
        );
        let mut command = Command::new("unshare");
        command.args(["-rm", "/bin/sh", "-c", &script, env!("CARGO_BIN_EXE_campanile")]);
        command.args([&mount, &folder.join("ready")]).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().ok()?;
        let watchdog = Watchdog::new(child.id());
        let is_ready = || {
            let is_over = child.try_wait().unwrap().is_some();
            (is_over || folder.join("ready").exists()).then_some(!is_over)
        };
        if !eventually("the ready file, or an end", is_ready) {
            crate::common::skip("`unshare -rm` or `mount` fails");
            return None;
        }
        let root = PathBuf::from(format!("/proc/{}/root", child.id()));
        let disk = root.join(mount.strip_prefix("/").unwrap());
        Some(OnSmallDisk { child, disk, _folder: folder, _watchdog: watchdog })
    }

    fn daytime(&self) -> SocketAddr {
        let line = fs::read_to_string(self._folder.join("ready")).unwrap();
        line.trim().strip_prefix("daytime ").unwrap().parse().unwrap()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.disk.join(name)
    }

    /// Takes all the room that is left, but for the last page of `file`.
    fn fill(&self, file: &Path) {
        eventually("a page of the file", || (fs::metadata(file).ok()?.len() > 0).then_some(()));
        let mut filler = File::create(self.file("filler")).unwrap();
        while filler.write(&[b'.'; 4096]).is_ok() {}
    }

    fn drain(&self) {
        fs::remove_file(self.file("filler")).unwrap();
    }

    /// Asks so often that the queue cannot hold what the disk cannot.
    fn serve_while_full(&self, file: &Path) -> usize {
        let addr = self.daytime();
        for _ in 0..MANY {
            ask(addr);
        }
        eventually("the last page of the file is full", || {
            let length = fs::metadata(file).unwrap().len();
            (length > 0 && length % 4096 == 0).then_some(())
        });
        MANY
    }

    fn stop(mut self, file: &Path) -> String {
        // The path leads through the process, so the file is opened while the process is there.
        let text = File::open(file).unwrap();
        crate::program::signal(self.child.id(), libc::SIGTERM);
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        std::io::read_to_string(text).unwrap()
    }
}

impl Drop for OnSmallDisk {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn events_after_a_full_disk_are_whole_and_the_lost_ones_are_counted() {
    let redirection = ">>\"$1/events\" 2>/dev/null";
    let Some(server) = OnSmallDisk::start("full-events", "--json", redirection) else { return };
    let file = server.file("events");
    let mut asked = 0;
    for _ in 0..2 {
        for _ in 0..5 {
            ask(server.daytime());
            asked += 1;
        }
        server.fill(&file);
        asked += server.serve_while_full(&file);
        server.drain();
    }
    ask(server.daytime());
    let text = server.stop(&file);
    let (mut told, mut lost, mut cut) = (0, 0, 0);
    for line in text.lines() {
        if serde_json::from_str::<serde_json::Value>(line).is_err() {
            cut += 1;
            continue;
        }
        let event = checked(line);
        match event["event"].as_str().unwrap() {
            "accepted" | "closed" => told += 1,
            "lost" => lost += usize::try_from(event["count"].as_u64().unwrap()).unwrap(),
            _ => {}
        }
    }
    assert!(lost > 0 && cut <= 2, "{lost} lost, {cut} cut");
    assert_eq!(told + lost, 2 * (asked + 1), "every event is there, or counted");
    assert_eq!(checked(text.lines().next_back().unwrap())["event"], "stopped");
}

#[test]
fn log_lines_after_a_full_disk_are_whole_and_the_lost_ones_are_counted() {
    let redirection = ">/dev/null 2>>\"$1/log\"";
    let Some(server) = OnSmallDisk::start("full-log", "-v", redirection) else { return };
    let file = server.file("log");
    ask(server.daytime());
    server.fill(&file);
    let asked = server.serve_while_full(&file);
    server.drain();
    ask(server.daytime());
    let text = server.stop(&file);
    let lost: usize = text.lines().filter_map(missing).sum();
    let is_whole = |line: &&str| {
        let ends_with_port =
            line.rsplit_once("127.0.0.1:").is_some_and(|(_, port)| !port.is_empty());
        line.starts_with("Got a connection") && ends_with_port
            || line.starts_with("debug: #") && line.ends_with("26 out")
    };
    let told = text.lines().filter(is_whole).count();
    let is_signal = |line: &str| line.starts_with("debug: ") && line.contains(" signal ");
    let notes = text.lines().filter(|line| missing(line).is_some() || is_signal(line)).count();
    let others = text.lines().count() - told - notes;
    assert!(lost > 0, "{text}");
    // The line that was cut is counted. It may look whole.
    assert!(others <= 1, "{text}");
    assert!((0..=1).contains(&(told + lost - 2 * (asked + 2))), "{told} and {lost}");
}

#[test]
fn an_unread_stderr_does_not_hold_up_the_end() {
    let mut command = campanile();
    let mut server = Server::spawn_unheard(command.args(["serve", "-d", "0", "-e", "0", "-v"]));
    serve_many(&server);
    server.signal(libc::SIGTERM);
    assert_eq!(server.wait().0.code(), Some(0));
}

#[test]
fn a_closed_reader_of_stderr_stops_nothing() {
    let mut command = campanile();
    command.args(["serve", "-d", "0", "-e", "0"]);
    let (reader, writer) = UnixStream::pair().unwrap();
    let mut server = Server::with_stderr(&mut command, OwnedFd::from(writer).into());
    drop(reader);
    for _ in 0..100 {
        ask(server.daytime());
    }
    server.signal(libc::SIGTERM);
    assert_eq!(server.wait().0.code(), Some(0));
}

/// Runs a server with such streams, waits for the ready file, and uses both services.
fn serves(name: &str, command: &mut Command) {
    let folder = Folder::new(name);
    let path = folder.join("ready");
    command.env("CAMPANILE_READY_FILE", &path).stdin(Stdio::null());
    let mut child: Child = command.spawn().unwrap();
    let watchdog = Watchdog::new(child.id());
    let lines = eventually("the ready file", || fs::read_to_string(&path).ok());
    let addr = |service: &str| {
        let found = lines.lines().find_map(|line| line.strip_prefix(service));
        found.unwrap().parse::<SocketAddr>().unwrap()
    };
    ask(addr("daytime "));
    let mut stream = TcpStream::connect(addr("echo ")).unwrap();
    stream.write_all(b"abc").unwrap();
    stream.read_exact(&mut [0; 3]).unwrap();
    drop(stream);
    crate::program::signal(child.id(), libc::SIGTERM);
    let status = child.wait().unwrap();
    drop(watchdog);
    assert_eq!(status.code(), Some(0));
}

fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

#[test]
fn full_disks_stop_nothing() {
    let words = ["serve", "-d", "0", "-e", "0", "-vv"];
    serves("full-stdout", campanile().args(words).stdout(full()).stderr(Stdio::null()));
    serves("full-stderr", campanile().args(words).stdout(Stdio::null()).stderr(full()));
    // The warning about a wrong RUST_LOG cannot be written either.
    let mut command = campanile();
    serves("full-both", command.args(words).env("RUST_LOG", "=x").stdout(full()).stderr(full()));
}

#[test]
fn closed_sinks_stop_nothing() {
    for (name, redirections) in [
        ("no-stdout", ">&- 2>/dev/null"),
        ("no-stderr", ">/dev/null 2>&-"),
        ("none", "<&- >&- 2>&-"),
    ] {
        let script = format!("exec \"$0\" serve -d 0 -e 0 {redirections}");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_campanile")]).env_clear();
        command.env("RUST_LOG", "=x");
        serves(name, &mut command);
    }
}

#[test]
fn help_and_errors_that_cannot_be_written_keep_their_exit_code() {
    let code = |words: &[&str]| {
        let mut child = campanile().args(words).stdout(full()).stderr(full()).spawn().unwrap();
        let _watchdog = Watchdog::new(child.id());
        child.wait().unwrap().code()
    };
    assert_eq!(code(&["--help"]), Some(0));
    assert_eq!(code(&[]), Some(2));
    assert_eq!(code(&["serve", "--idle", "x"]), Some(2));
    assert_eq!(code(&["serve", "-d", "off", "-e", "off"]), Some(2));
    assert_eq!(code(&["serve", "-d", "192.0.2.1:9"]), Some(1));
    assert_eq!(code(&["daytime", "no-such-host.invalid:9"]), Some(1));
}
