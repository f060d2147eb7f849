//! Listeners: which options their connections get, what they log when they pause, when they break.

use std::cell::RefCell;
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use campanile::{Limits, Reactor, echo};
use socket2::{Domain, Socket, Type};

use super::common::{eventually, skip};
use super::sim::fake::{World, settle};
use super::{NOW, seconds, serving, turns};

#[test]
fn an_adopted_listener_is_served_at_its_address() {
    let mut reactor = Reactor::new().unwrap();
    let theirs = TcpListener::bind("127.0.0.1:0").unwrap();
    let bound = theirs.local_addr().unwrap();
    assert_eq!(reactor.listen_on(theirs, echo()).unwrap(), bound);
    let ours = reactor.listen("127.0.0.1:0", echo()).unwrap();
    let told: Vec<_> = reactor.listeners().filter_map(|(_, addr)| addr.inet()).collect();
    assert_eq!(told, [bound, ours]);
    assert!(!reactor.is_finished());
}

/// Turns until a client that connects to this address is accepted, or cannot connect.
fn is_served(reactor: &mut Reactor, ip: &str, port: u16) -> bool {
    let before = reactor.stats().accepted;
    let Ok(_client) = TcpStream::connect(format!("{ip}:{port}")) else { return false };
    eventually("the client is accepted", || {
        reactor.turn(NOW).unwrap();
        (reactor.stats().accepted > before).then_some(true)
    })
}

#[test]
fn a_bound_listener_of_ipv6_accepts_ipv6_only() {
    let mut reactor = Reactor::new().unwrap();
    let Ok(addr) = reactor.listen("[::]:0", echo()) else {
        skip("this machine has no IPv6");
        return;
    };
    assert!(is_served(&mut reactor, "[::1]", addr.port()));
    assert!(!is_served(&mut reactor, "127.0.0.1", addr.port()));
}

#[test]
fn an_adopted_listener_of_ipv6_accepts_what_it_was_bound_for() {
    for is_only_six in [true, false] {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
        let bound = socket.set_only_v6(is_only_six).and_then(|()| {
            socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)).into())?;
            socket.listen(8)
        });
        if bound.is_err() {
            skip("this machine has no IPv6");
            return;
        }
        let mut reactor = Reactor::new().unwrap();
        let port = reactor.listen_on(socket.into(), echo()).unwrap().port();
        assert!(is_served(&mut reactor, "[::1]", port));
        assert_eq!(is_served(&mut reactor, "127.0.0.1", port), !is_only_six);
    }
}

#[test]
fn a_listener_that_breaks_while_the_reactor_ends_is_no_failure() {
    let world = World::new();
    let mut reactor = serving(&world, Limits::default(), echo());
    turns(&mut reactor, 1);
    reactor.handle().shutdown(seconds(1));
    world.fail_accepts(0, &[libc::EBADF]);
    reactor.run().unwrap();
    assert!(world.is_closed(0));
}

/// Keeps the warnings of each thread.
struct Logger;

thread_local! {
    static SAID: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        if record.level() == log::Level::Warn {
            SAID.with(|said| said.borrow_mut().push(record.args().to_string()));
        }
    }
    fn flush(&self) {}
}

/// Logs to the thread that logs, from now on.
fn log_to_this_thread() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Logger).unwrap();
        log::set_max_level(log::LevelFilter::Warn);
    });
}

/// The warnings of this thread.
fn said() -> Vec<String> {
    SAID.with(|said| said.borrow().clone())
}

/// The number of failures that a warning stands for beside its own.
fn unsaid(warning: &str) -> usize {
    let (_, rest) = warning.rsplit_once('(').unwrap();
    rest.split_once(' ').unwrap().0.parse().unwrap()
}

#[test]
fn a_listener_that_pauses_warns_once_a_transition_and_once_a_second() {
    log_to_this_thread();
    let world = World::new();
    let mut reactor = serving(&world, Limits::default(), echo());
    let leaving: Vec<_> = (0..4).map(|_| world.connect(0)).collect();
    settle(&mut reactor);
    // One transition, however often it is tried.
    let _waiting = world.connect(0);
    world.fail_accepts(0, &[libc::EMFILE; 100]);
    for _ in 0..30 {
        turns(&mut reactor, 1);
        world.advance(Duration::from_millis(100));
    }
    assert_eq!(said().len(), 1, "{:?}", said());
    assert!(said()[0].contains("Too many open files"), "{:?}", said());
    assert_eq!(unsaid(&said()[0]), 0);

    // A connection that closes ends a pause: a new transition. Two within a second are one warning.
    leaving[0].end();
    turns(&mut reactor, 2);
    assert_eq!(said().len(), 2, "{:?}", said());
    assert_eq!(unsaid(&said()[1]), 30, "the failures in between");
    world.advance(Duration::from_millis(999));
    leaving[1].end();
    turns(&mut reactor, 2);
    assert_eq!(said().len(), 2, "too soon");
    world.advance(Duration::from_millis(1));
    leaving[2].end();
    turns(&mut reactor, 2);
    assert_eq!(said().len(), 3, "{:?}", said());
}

#[test]
fn an_accept_error_that_stays_is_one_warning_with_its_advice() {
    log_to_this_thread();
    let world = World::new();
    let mut reactor = serving(&world, Limits::default(), echo());
    let _waiting = world.connect(0);
    world.fail_accepts(0, &[libc::EPERM; 15]);
    turns(&mut reactor, 30);
    assert_eq!(said().len(), 0, "{:?}", said());

    let _waiting = world.connect(0);
    world.fail_accepts(0, &[libc::EPERM; 1_000]);
    for _ in 0..300 {
        turns(&mut reactor, 10);
        world.advance(Duration::from_millis(10));
    }
    assert_eq!(said().len(), 1, "{:?}", said());
    for word in ["cannot accept", "127.0.0.1:1000", "Operation not permitted", "seccomp"] {
        assert!(said()[0].contains(word), "{:?}", said());
    }
    assert_eq!(reactor.stats().accept_errors, 15 + 16 + 29, "ten attempts a second");
}

/// What the sockets of connections inherit, or get set.
#[cfg(target_os = "linux")]
mod options {
    use std::net::{SocketAddr, TcpListener};
    use std::os::fd::BorrowedFd;

    use campanile::{Limits, Reactor, echo, sys::Kernel};
    use socket2::SockRef;

    use super::super::NOW;
    use super::super::common::{connect, eventually};

    /// `TCP_NODELAY`, `SO_SNDBUF` and `SO_RCVBUF`.
    type Options = (bool, usize, usize);

    fn options(socket: &SockRef<'_>) -> Options {
        let sizes = (socket.send_buffer_size().unwrap(), socket.recv_buffer_size().unwrap());
        (socket.tcp_nodelay().unwrap(), sizes.0, sizes.1)
    }

    /// The options of the socket of this process with these ends.
    fn options_of(local: SocketAddr, peer: SocketAddr) -> Option<Options> {
        let names = std::fs::read_dir("/proc/self/fd").unwrap();
        let fds = names.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        fds.filter(|&fd| fd > 2).find_map(|fd| {
            // SAFETY: nothing is closed. If another test closes this descriptor, or has another socket
            // under its number, the addresses differ.
            let fd = unsafe { BorrowedFd::borrow_raw(fd) };
            let socket = SockRef::from(&fd);
            let is_it = socket.local_addr().ok()?.as_socket() == Some(local)
                && socket.peer_addr().ok()?.as_socket() == Some(peer);
            is_it.then(|| options(&socket))
        })
    }

    /// The options of the connection that a reactor accepts.
    fn accepted<K: Kernel>(reactor: &mut Reactor<K>, addr: SocketAddr) -> Options {
        let client = connect(addr);
        eventually("a connection is accepted", || {
            reactor.turn(NOW).unwrap();
            options_of(addr, client.local_addr().unwrap())
        })
    }

    /// Limits with buffer sizes, and the options that connections must have under them.
    fn sized() -> (Limits, Options) {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = SockRef::from(&socket);
        socket.set_send_buffer_size(20_000).unwrap();
        socket.set_recv_buffer_size(30_000).unwrap();
        socket.set_tcp_nodelay(true).unwrap();
        let (send_buffer, receive_buffer) = (Some(20_000), Some(30_000));
        (
            Limits::default().send_buffer(send_buffer).receive_buffer(receive_buffer),
            options(&socket),
        )
    }

    #[test]
    fn connections_of_bound_and_of_adopted_listeners_have_the_same_options() {
        let (limits, expected) = sized();
        let mut reactor = Reactor::with_limits(limits).unwrap();
        let bound = reactor.listen("127.0.0.1:0", echo()).unwrap();
        assert_eq!(accepted(&mut reactor, bound), expected);
        let theirs = TcpListener::bind("127.0.0.1:0").unwrap();
        let adopted = reactor.listen_on(theirs, echo()).unwrap();
        assert_eq!(accepted(&mut reactor, adopted), expected);

        // Without sizes the system chooses, for both alike.
        let mut reactor = Reactor::new().unwrap();
        let bound = reactor.listen("127.0.0.1:0", echo()).unwrap();
        let theirs = TcpListener::bind("127.0.0.1:0").unwrap();
        let adopted = reactor.listen_on(theirs, echo()).unwrap();
        let options = accepted(&mut reactor, adopted);
        assert!(options.0, "TCP_NODELAY is set");
        assert_eq!(options, accepted(&mut reactor, bound));
    }

    #[test]
    fn outgoing_connections_have_the_options_of_accepted_ones() {
        let (limits, expected) = sized();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut reactor = Reactor::with_limits(limits).unwrap();
        reactor.connect(listener.local_addr().unwrap(), campanile::services::Echo);
        let (_client, addr) = listener.accept().unwrap();
        assert_eq!(options_of(addr, listener.local_addr().unwrap()), Some(expected));
    }

    /// A listener that a fault closes is bound again when the fault ends.
    #[cfg(feature = "testing")]
    #[test]
    fn an_adopted_listener_that_a_fault_closes_keeps_its_options() {
        use campanile::testing::{Book, Faulty, Plan};

        let (limits, expected) = sized();
        let (plan, book) = (Plan::new(0), Book::new(0));
        let kernel = Faulty::new(campanile::sys::Mio::new(16).unwrap(), &plan, &book);
        let mut reactor = Reactor::with_kernel(kernel, limits);
        book.serving("echo");
        let theirs = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = reactor.listen_on(theirs, echo()).unwrap();
        let fault = plan.add("echo: refuse".parse().unwrap()).unwrap();
        eventually("the listener is closed", || {
            reactor.turn(NOW).unwrap();
            std::net::TcpStream::connect(addr).is_err().then_some(())
        });
        plan.remove(fault);
        eventually("the listener is open again", || {
            reactor.turn(NOW).unwrap();
            std::net::TcpStream::connect(addr).ok()
        });
        assert_eq!(accepted(&mut reactor, addr), expected);
    }
}
