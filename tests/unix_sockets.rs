//! Unix sockets: both services, the rules of a path, and where they differ from TCP.
#![cfg(unix)]

mod common;

use std::fs;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use campanile::client::{self, Error, Server};
use campanile::services::Echo;
use campanile::{
    Accepted, Background, Clock, Limits, ListenOptions, Outbox, Protocol, Reactor, daytime, echo,
};
use common::diary::Diary;
use common::{DEADLINE, Folder, TUTORIAL, TUTORIAL_LINE, eventually, pattern};
use socket2::{Domain, MsgHdr, SockAddr, SockRef, Socket, Type};

const NOW: Option<Duration> = Some(Duration::ZERO);

/// A reactor that serves echo at this path.
fn serving(path: &Path) -> Reactor {
    let mut reactor = Reactor::new().unwrap();
    reactor.listen_with(path, ListenOptions::default(), echo()).unwrap();
    reactor
}

fn connect(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// Turns the loop until so many bytes have come back.
fn read_exactly(reactor: &mut Reactor, mut client: &UnixStream, count: usize) -> Vec<u8> {
    client.set_nonblocking(true).unwrap();
    let mut bytes = Vec::new();
    for _ in 0..100 {
        reactor.turn(NOW).unwrap();
        let mut buffer = vec![0; count - bytes.len()];
        match client.read(&mut buffer) {
            Ok(found) => bytes.extend_from_slice(&buffer[..found]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }
    bytes
}

/// Connects a client, which gets its word back.
fn says_back(reactor: &mut Reactor, path: &Path, word: &[u8]) {
    let mut client = connect(path);
    client.write_all(word).unwrap();
    assert_eq!(read_exactly(reactor, &client, word.len()), word);
}

/// Binds a second server to the path, and returns its error.
fn refusal(path: &Path) -> (ErrorKind, String) {
    let mut reactor = Reactor::new().unwrap();
    let error = reactor.listen_with(path, ListenOptions::default(), echo()).unwrap_err();
    (error.kind(), error.to_string())
}

fn stale(path: &Path) {
    drop(UnixListener::bind(path).unwrap());
    assert!(path.exists(), "std leaves the path behind");
}

#[test]
fn both_services_are_served_to_a_client_that_half_closes() {
    let folder = Folder::new("unix-both");
    let paths = [folder.join("daytime"), folder.join("an echo")];
    let [time, voice] = paths.clone();
    let (server, ()) = Background::start(Limits::default().max_per_peer(Some(1)), move |reactor| {
        let clock = Clock::fixed(TUTORIAL);
        reactor.listen_with(time, ListenOptions::default(), daytime(clock))?;
        reactor.listen_with(voice, ListenOptions::default(), echo()).map(drop)
    })
    .unwrap();
    // A limit per peer does not apply: both clients are open at the same time.
    let mut clients = paths.each_ref().map(|path| connect(path));
    clients[1].write_all(b"last words").unwrap();
    for (client, expected) in clients.iter_mut().zip([TUTORIAL_LINE, b"last words"]) {
        client.shutdown(Shutdown::Write).unwrap();
        let mut reply = Vec::new();
        client.read_to_end(&mut reply).unwrap();
        assert_eq!(reply, expected);
    }
    drop(clients);
    let stats = server.shutdown(DEADLINE).unwrap();
    assert_eq!((stats.accepted, stats.refused), (2, 0));
    assert!(paths.iter().all(|path| !path.exists()));
}

#[test]
fn a_client_that_fills_both_directions_before_its_first_read_gets_everything() {
    let folder = Folder::new("unix-mebibyte");
    let path = folder.join("echo");
    let mut reactor = serving(&path);
    let handle = reactor.handle();
    let server = thread::spawn({
        let mut client = connect(&path);
        move || {
            let sent = pattern(1 << 20);
            client.set_nonblocking(true).unwrap();
            let mut count = 0;
            while let Ok(taken) = client.write(&sent[count..]) {
                count += taken;
            }
            assert!(count < sent.len(), "the kernel holds all of it");
            client.set_nonblocking(false).unwrap();
            let mut writer = client.try_clone().unwrap();
            let mut back = Vec::new();
            thread::scope(|scope| {
                scope.spawn(|| {
                    writer.write_all(&sent[count..]).unwrap();
                    writer.shutdown(Shutdown::Write).unwrap();
                });
                client.read_to_end(&mut back).unwrap();
            });
            handle.shutdown(DEADLINE);
            assert!(back == sent);
        }
    });
    reactor.run().unwrap();
    server.join().unwrap();
}

/// Sends bytes together with a descriptor (`SCM_RIGHTS`).
fn send_with_descriptor(client: &UnixStream, bytes: &[u8], fd: &impl AsRawFd) {
    // A `cmsghdr` and its data: the length, SOL_SOCKET, SCM_RIGHTS, the descriptor, padding.
    let length = size_of::<libc::cmsghdr>() + size_of::<i32>();
    let mut control = length.to_ne_bytes().to_vec();
    for number in [libc::SOL_SOCKET, libc::SCM_RIGHTS, fd.as_raw_fd(), 0] {
        control.extend_from_slice(&number.to_ne_bytes());
    }
    let bytes = [IoSlice::new(bytes)];
    let message = MsgHdr::new().with_buffers(&bytes).with_control(&control);
    SockRef::from(client).sendmsg(&message, 0).unwrap();
}

/// Answers every six bytes: an answer to the first three would make an event for the next three.
struct Sixes(Vec<u8>);
impl Protocol for Sixes {
    fn on_data(&mut self, data: &[u8], out: &mut Outbox) {
        self.0.extend_from_slice(data);
        if self.0.len() == 6 {
            out.send(&std::mem::take(&mut self.0));
        }
    }
}

/// A `cmsghdr` begins with a length of 8 bytes on Linux only.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
#[test]
fn a_passed_descriptor_ends_a_read_early_and_the_bytes_behind_it_are_served() {
    let folder = Folder::new("unix-descriptor");
    let path = folder.join("echo");
    let mut reactor = Reactor::new().unwrap();
    let make = |_: &Accepted| Sixes(Vec::new());
    reactor.listen_with(&*path, ListenOptions::default(), make).unwrap();
    let mut client = connect(&path);
    client.write_all(b"before").unwrap();
    assert_eq!(read_exactly(&mut reactor, &client, 6), b"before");
    let (mut ours, passed) = UnixStream::pair().unwrap();
    // Both are there before the server reads, and one event reports them.
    send_with_descriptor(&client, b"abc", &passed);
    client.write_all(b"def").unwrap();
    drop(passed);
    assert_eq!(read_exactly(&mut reactor, &client, 6), b"abcdef");
    ours.set_nonblocking(true).unwrap();
    assert_eq!(ours.read(&mut [0]).unwrap(), 0, "the server keeps no passed descriptor");
}

/// Input that comes after the thread has closed the connection.
struct AfterClose(Option<thread::JoinHandle<()>>);
impl Read for AfterClose {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(closer) = self.0.take() {
            closer.join().unwrap();
        }
        Ok(buffer.len())
    }
}

/// If SIGPIPE is not prevented, it ends this process.
#[test]
fn a_write_to_a_peer_that_has_gone_is_an_error_and_no_signal() {
    // SAFETY: SIGPIPE gets its default disposition; no handler is installed.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let folder = Folder::new("unix-signal");
    let path = folder.join("echo");
    let mut reactor = serving(&path);
    connect(&path).write_all(b"I do not wait for an answer").unwrap();
    eventually("the server notices", || {
        reactor.turn(NOW).unwrap();
        let stats = reactor.stats();
        (stats.accepted == 1 && reactor.connections() == 0).then_some(())
    });
    // The same for the client.
    let peer = folder.join("peer");
    let listener = UnixListener::bind(&peer).unwrap();
    let input = AfterClose(Some(thread::spawn(move || drop(listener.accept().unwrap()))));
    let error = client::echo_stream(Server::Unix(peer), input, io::sink(), DEADLINE);
    assert!(matches!(error, Err(Error::Broken { .. } | Error::Mismatch { .. })), "{error:?}");
}

#[test]
fn a_stale_path_is_taken_over() {
    let folder = Folder::new("unix-stale");
    let path = folder.join("echo");
    stale(&path);
    says_back(&mut serving(&path), &path, b"new");
    // A socket of another kind can be stale, too.
    let path = folder.join("datagrams");
    let socket = Socket::new(Domain::UNIX, Type::DGRAM, None).unwrap();
    socket.bind(&SockAddr::unix(&path).unwrap()).unwrap();
    assert_eq!(refusal(&path).0, ErrorKind::AddrInUse);
    drop(socket);
    serving(&path);
}

#[test]
fn a_live_path_is_refused_even_with_a_full_backlog_and_its_server_goes_on() {
    let folder = Folder::new("unix-live");
    let path = folder.join("echo");
    let expected = |path: &Path| {
        let path = path.display();
        let text = format!(
            "cannot listen on unix:{path}: a server listens there; stop that server, or choose \
             another path"
        );
        (ErrorKind::AddrInUse, text)
    };
    let mut reactor = serving(&path);
    assert_eq!(refusal(&path), expected(&path));
    says_back(&mut reactor, &path, b"still here");
    // Other systems refuse a connect to a full backlog, as to a stale path.
    let full = folder.join("full");
    let (_listener, _waiting) = full_backlog(&full);
    assert!(!cfg!(target_os = "linux") || refusal(&full) == expected(&full));
}

#[test]
fn a_foreign_file_is_refused_and_left_alone() {
    let folder = Folder::new("unix-foreign");
    let (file, link, inner) = (folder.join("file"), folder.join("link"), folder.join("folder"));
    fs::write(&file, "precious").unwrap();
    stale(&folder.join("stale"));
    symlink(folder.join("stale"), &link).unwrap();
    fs::create_dir(&inner).unwrap();
    for path in [&file, &link, &inner] {
        let expected = format!(
            "cannot listen on unix:{}: a file that is not a socket is there; move that file away, \
             or choose another path",
            path.display()
        );
        assert_eq!(refusal(path), (ErrorKind::AlreadyExists, expected));
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink() && inner.is_dir());
}

#[test]
fn a_path_that_cannot_be_bound_or_connected_says_why() {
    let folder = Folder::new("unix-wrong");
    let long = folder.join(&"x".repeat(200));
    let length = long.as_os_str().len();
    for (path, kind, why) in [
        (&long, ErrorKind::InvalidInput, &*format!("the path has {length} bytes, and a Unix ")),
        (&long, ErrorKind::InvalidInput, "; choose a shorter path, or a relative one"),
        (&PathBuf::new(), ErrorKind::InvalidInput, "the path has 0 bytes"),
        (&PathBuf::from("\0name"), ErrorKind::InvalidInput, "without a NUL"),
        (&folder.join("none/echo"), ErrorKind::NotFound, "; create the folder of this path"),
    ] {
        let (found, text) = refusal(path);
        assert!(found == kind && text.contains(why), "{path:?}: {found:?} {text}");
        let mut reactor = Reactor::new().unwrap();
        let diary = Diary::default();
        reactor.connect(path.clone(), diary.of(Echo));
        assert_eq!(diary.letters(), "c");
        assert!(diary.reason().unwrap().starts_with("cannot connect: "), "{:?}", diary.reason());
    }
    // The longest path that Linux takes.
    #[cfg(target_os = "linux")]
    {
        let rest = 107 - folder.join("").as_os_str().len();
        let path = folder.join(&"x".repeat(rest));
        says_back(&mut serving(&path), &path, b"long");
        let (_, text) = refusal(&folder.join(&"x".repeat(rest + 1)));
        assert!(text.contains("the path has 108 bytes"), "{text}");
    }
}

#[test]
fn the_path_is_removed_however_its_listener_ends() {
    let folder = Folder::new("unix-removed");
    let path = folder.join("echo");
    drop(serving(&path));
    assert!(!path.exists(), "dropped");

    let mut reactor = serving(&path);
    let id = reactor.listeners().next().unwrap().0;
    assert!(path.exists() && reactor.close_listener(id) && !path.exists(), "closed");

    let mut reactor = serving(&path);
    let _client = connect(&path);
    reactor.turn(NOW).unwrap();
    reactor.handle().shutdown(DEADLINE);
    eventually("the listener is gone", || {
        reactor.turn(NOW).unwrap();
        (!path.exists()).then_some(())
    });
    assert_eq!(reactor.connections(), 1, "within the grace");

    let failed = Background::start(Limits::default(), {
        let path = path.clone();
        move |reactor| {
            reactor.listen_with(path.clone(), ListenOptions::default(), echo())?;
            reactor.listen_with(path, ListenOptions::default(), echo()).map(drop)
        }
    });
    assert!(failed.is_err() && !path.exists(), "a failed start");
}

#[test]
fn the_path_stays_if_another_file_has_replaced_it() {
    let folder = Folder::new("unix-replaced");
    let path = folder.join("echo");
    let first = serving(&path);
    fs::remove_file(&path).unwrap();
    let mut second = serving(&path);
    drop(first);
    says_back(&mut second, &path, b"mine");
    fs::remove_file(&path).unwrap();
    fs::write(&path, "a file").unwrap();
    drop(second);
    assert_eq!(fs::read_to_string(&path).unwrap(), "a file");
}

/// The only test here that uses a relative path or changes the working directory.
#[test]
fn a_relative_path_is_removed_after_the_working_directory_has_changed() {
    let folder = Folder::new("unix-relative");
    std::env::set_current_dir(folder.join("")).unwrap();
    let reactor = serving(Path::new("echo sock"));
    let (_, addr) = reactor.listeners().next().unwrap();
    assert_eq!(addr.to_string(), "unix:echo sock");
    assert!(folder.join("echo sock").exists());
    std::env::set_current_dir("/").unwrap();
    drop(reactor);
    assert!(!folder.join("echo sock").exists());
}

/// Sends more than any kernel holds.
struct Flood;
impl Protocol for Flood {
    fn on_open(&mut self, out: &mut Outbox) {
        out.send(&[b'x'; 1 << 19]);
    }
    fn on_data(&mut self, _: &[u8], _: &mut Outbox) {}
}

#[cfg(target_os = "linux")]
#[test]
fn connections_have_the_send_buffer_of_the_limits() {
    let folder = Folder::new("unix-buffer");
    let path = folder.join("flood");
    let held = |limits: Limits| {
        let mut reactor = Reactor::with_limits(limits).unwrap();
        reactor.listen_with(&*path, ListenOptions::default(), |_: &Accepted| Flood).unwrap();
        let mut client = connect(&path);
        for _ in 0..10 {
            reactor.turn(NOW).unwrap();
        }
        client.set_nonblocking(true).unwrap();
        let mut bytes = Vec::new();
        let ended = client.read_to_end(&mut bytes).map_err(|error| error.kind());
        assert_eq!(ended, Err(ErrorKind::WouldBlock));
        bytes.len()
    };
    let (all, few) = (held(Limits::default()), held(Limits::default().send_buffer(Some(8 << 10))));
    assert!(few < 32 << 10 && all > 64 << 10, "{few} and {all} bytes");
}

/// A server that accepts nothing, and clients that fill its backlog.
fn full_backlog(path: &Path) -> (Socket, Vec<Socket>) {
    let new = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    };
    let (listener, addr) = (new(), SockAddr::unix(path).unwrap());
    listener.bind(&addr).unwrap();
    listener.listen(1).unwrap();
    let waiting = (0..10).map(|_| new()).filter(|client| client.connect(&addr).is_ok());
    let waiting: Vec<_> = waiting.collect();
    assert!(waiting.len() < 10);
    (listener, waiting)
}

#[test]
fn an_outgoing_connection_is_served_or_ends_in_on_close() {
    let folder = Folder::new("unix-outgoing");
    let (path, missing, full) = (folder.join("echo"), folder.join("none"), folder.join("full"));
    let (_listener, _waiting) = full_backlog(&full);
    let mut reactor = serving(&path);
    let diaries: [Diary; 5] = Default::default();
    reactor.connect(&*path, diaries[0].of(Caller { next: None }));
    reactor.connect(&*missing, diaries[1].of(Echo));
    reactor.connect(&*full, diaries[2].of(Echo));
    // A protocol that connects further.
    let next = (path.clone(), diaries[4].of(Caller { next: None }));
    reactor.connect(&*path, diaries[3].of(Caller { next: Some(next) }));
    eventually("all have ended", || {
        reactor.turn(NOW).unwrap();
        diaries.iter().all(|diary| diary.reason().is_some()).then_some(())
    });
    for at in [0, 3, 4] {
        assert_eq!((&*diaries[at].letters(), &*diaries[at].reason().unwrap()), ("odc", "finished"));
    }
    assert_eq!(diaries[1].letters() + &diaries[2].letters(), "cc");
    let missing = diaries[1].reason().unwrap();
    assert!(missing.starts_with("cannot connect: No such file or directory"), "{missing}");
    #[cfg(target_os = "linux")]
    assert_eq!(
        diaries[2].reason().unwrap(),
        "cannot connect: the backlog of the server is full; connect again later"
    );
}

/// Sends a word, and closes when it has come back; connects further when it opens.
struct Caller {
    next: Option<(PathBuf, common::diary::Kept)>,
}
impl Protocol for Caller {
    fn on_open(&mut self, out: &mut Outbox) {
        out.send(b"word");
        if let Some((path, protocol)) = self.next.take() {
            out.connect(path, protocol);
        }
    }
    fn on_data(&mut self, data: &[u8], out: &mut Outbox) {
        assert_eq!(data, b"word");
        out.close();
    }
}
