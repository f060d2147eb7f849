//! How many bytes a peer has not acknowledged yet, as the kernel counts them.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

#[cfg(target_os = "linux")]
use super::sock_diag::SockDiag;

/// The least time between two reads of the tables, which take milliseconds if the machine has thousands
/// of sockets, and between two attempts to open a netlink socket.
const INTERVAL: Duration = Duration::from_millis(100);

/// Asks the kernel about one connection; where it refuses, searches the tables of all connections.
#[derive(Debug)]
pub(super) struct Unacked {
    open: fn() -> io::Result<SockDiag>,
    diag: Option<SockDiag>,
    opened_at: Option<Instant>,
    read: fn() -> io::Result<String>,
    tables: Option<Tables>,
}

/// `/proc/self/net/tcp` and `tcp6` (proc(5)).
#[derive(Debug)]
struct Tables {
    /// `None` if they could not be read.
    text: Option<String>,
    at: Instant,
    turn: u64,
}

/// The turns in which a connection asks and in which it last wrote.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turns {
    pub(super) now: u64,
    pub(super) wrote: u64,
}

impl Default for Unacked {
    fn default() -> Unacked {
        Unacked::new(SockDiag::open, read_tables)
    }
}

impl Unacked {
    fn new(open: fn() -> io::Result<SockDiag>, read: fn() -> io::Result<String>) -> Unacked {
        Unacked { open, diag: None, opened_at: None, read, tables: None }
    }

    /// Returns how many bytes, with a FIN as one, `peer` has not acknowledged: 0 if the connection
    /// is gone, or if this system never tells; `None` if it cannot be told yet.
    pub(super) fn of(&mut self, local: SocketAddr, peer: SocketAddr, turns: Turns) -> Option<u64> {
        let asked = self.diag().and_then(|diag| diag.unacknowledged(local, peer).ok());
        asked.or_else(|| self.search(local, peer, turns))
    }

    fn diag(&mut self) -> Option<&mut SockDiag> {
        if self.diag.is_none() && is_due(self.opened_at) {
            self.opened_at = Some(Instant::now());
            self.diag = (self.open)().ok();
        }
        self.diag.as_mut()
    }

    fn search(&mut self, local: SocketAddr, peer: SocketAddr, turns: Turns) -> Option<u64> {
        if is_due(self.tables.as_ref().map(|tables| tables.at)) {
            let text = (self.read)().ok();
            self.tables = Some(Tables { text, at: Instant::now(), turn: turns.now });
        }
        // Tables that were not read after the turn of the last write may lack its bytes.
        let tables = self.tables.as_ref().filter(|tables| tables.turn > turns.wrote)?;
        Some(find(tables.text.as_ref()?, local, peer).unwrap_or(0))
    }
}

/// By the real clock, whatever clock the loop uses: acknowledgements take real time.
fn is_due(last: Option<Instant>) -> bool {
    last.is_none_or(|last| last.elapsed() >= INTERVAL)
}

fn read_tables() -> io::Result<String> {
    // A table that does not exist says nothing; one that cannot be opened now may later.
    let read = |path| match std::fs::read_to_string(path) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {
            Ok(String::new())
        }
        outcome => outcome,
    };
    Ok(read("/proc/self/net/tcp")? + &read("/proc/self/net/tcp6")?)
}

fn find(tables: &str, local: SocketAddr, peer: SocketAddr) -> Option<u64> {
    let (near, far) = (spelled(local), spelled(peer));
    tables.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (local, remote) = (fields.nth(1)?, fields.next()?);
        if !near.iter().any(|near| near == local) || !far.iter().any(|far| far == remote) {
            return None;
        }
        let queues = fields.nth(1)?;
        u64::from_str_radix(queues.split(':').next()?, 16).ok()
    })
}

/// Returns the two forms of an address in the tables, which write each word in the machine's byte order.
/// An IPv4 peer of an IPv6 socket is mapped.
fn spelled(addr: SocketAddr) -> [String; 2] {
    let port = addr.port();
    let four = |ip: Ipv4Addr| format!("{:08X}:{port:04X}", u32::from_ne_bytes(ip.octets()));
    let six = |ip: Ipv6Addr| {
        let bytes = ip.octets();
        let words = bytes.chunks(4).map(|word| match *word {
            [a, b, c, d] => format!("{:08X}", u32::from_ne_bytes([a, b, c, d])),
            _ => String::new(),
        });
        format!("{}:{port:04X}", words.collect::<String>())
    };
    match addr.ip() {
        IpAddr::V4(ip) => [four(ip), six(ip.to_ipv6_mapped())],
        IpAddr::V6(ip) => [ip.to_ipv4_mapped().map(four).unwrap_or_default(), six(ip)],
    }
}

/// Only Linux has such a socket.
#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
enum SockDiag {}

#[cfg(not(target_os = "linux"))]
impl SockDiag {
    fn open() -> io::Result<SockDiag> {
        Err(ErrorKind::Unsupported.into())
    }

    fn unacknowledged(&mut self, _: SocketAddr, _: SocketAddr) -> io::Result<u64> {
        match *self {}
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::rc::Rc;
    use std::thread;

    use super::super::Faulty;
    use super::*;
    use crate::kernel::Mio;
    use crate::limits::Limits;
    use crate::reactor::Reactor;
    use crate::services::echo;
    use crate::testing::{Book, Plan};

    const TABLES: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr\n\
        0: 0100007F:3039 00000000:0000 0A 00000000:00000000 00:00000000\n\
        1: 0100007F:3039 0100007F:D431 01 000186A0:00000000 01:00000014\n\
        2: 0100007F:D431 0100007F:3039 01 00000007:00000000 01:00000014\n\
        3: 00000000000000000000000001000000:3039 00000000000000000000000001000000:D431 01 00000001:00000000 0\n\
        4: 0000000000000000FFFF00000100007F:303A 0000000000000000FFFF00000100007F:D431 01 00000002:00000000 0\n\
        5: 0200007F:3039 0100007F:D431 01 00000003:00000000 01:00000014\n";

    #[test]
    #[cfg(target_endian = "little")]
    fn our_end_of_a_connection_is_told_from_every_other() {
        let of =
            |local: &str, peer: &str| find(TABLES, local.parse().unwrap(), peer.parse().unwrap());
        assert_eq!(of("127.0.0.1:12345", "127.0.0.1:54321"), Some(100_000));
        assert_eq!(of("127.0.0.2:12345", "127.0.0.1:54321"), Some(3));
        assert_eq!(of("[::1]:12345", "[::1]:54321"), Some(1));
        assert_eq!(of("127.0.0.1:12346", "127.0.0.1:54321"), Some(2));
        assert_eq!(of("[::ffff:127.0.0.1]:12346", "[::ffff:127.0.0.1]:54321"), Some(2));
        assert_eq!(of("127.0.0.1:12345", "127.0.0.1:54322"), None);
    }

    thread_local! {
        /// How often this thread has read the tables.
        static READ: Cell<u32> = const { Cell::new(0) };
    }

    fn counted() -> io::Result<String> {
        READ.set(READ.get() + 1);
        read_tables()
    }

    fn refused() -> io::Result<SockDiag> {
        Err(ErrorKind::PermissionDenied.into())
    }

    fn unreadable() -> io::Result<String> {
        Err(io::Error::from_raw_os_error(libc::EMFILE))
    }

    /// Only netlink, and only the tables.
    fn only_diag() -> Unacked {
        Unacked::new(SockDiag::open, unreadable)
    }

    fn only_tables() -> Unacked {
        Unacked::new(refused, counted)
    }

    const LATER: Turns = Turns { now: 2, wrote: 1 };

    /// Listeners with the address that clients use: IPv4, IPv6, and IPv4 to a socket for both. The
    /// IPv4 address differs from that of the clients, which is 127.0.0.1.
    fn listeners() -> Vec<(TcpListener, SocketAddr)> {
        let four = TcpListener::bind("0.0.0.0:0").unwrap();
        let to = |listener: &TcpListener, ip: &str| {
            SocketAddr::new(ip.parse().unwrap(), listener.local_addr().unwrap().port())
        };
        let mut all = vec![(to(&four, "127.0.0.2"), four)];
        // Where there is no IPv6, nothing of it can go wrong.
        for ip in ["::1", "127.0.0.2"] {
            all.extend(TcpListener::bind("[::]:0").ok().map(|six| (to(&six, ip), six)));
        }
        all.into_iter().map(|(to, listener)| (listener, to)).collect()
    }

    fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
        let began = Instant::now();
        while !is_so() {
            assert!(began.elapsed() < Duration::from_secs(30), "{what}");
            thread::yield_now();
        }
    }

    #[test]
    fn the_kernel_and_the_tables_count_the_same_until_the_connection_is_gone() {
        for (listener, to) in listeners() {
            let mut client = TcpStream::connect(to).unwrap();
            let (mut stream, peer) = listener.accept().unwrap();
            let local = stream.local_addr().unwrap();
            let mut diag = only_diag();
            assert_eq!(diag.of(local, peer, LATER), Some(0), "{to}: nothing was written");
            // More than the client's buffer takes.
            stream.set_nonblocking(true).unwrap();
            while stream.write(&[0; 65_536]).is_ok() {}
            eventually("both count the same, and something", || {
                let told = diag.of(local, peer, LATER).unwrap();
                told > 0 && only_tables().of(local, peer, LATER) == Some(told)
            });
            // Dropped with bytes to read, the client resets.
            client.read_exact(&mut [0; 100]).unwrap();
            drop(client);
            eventually("a connection that is gone owes nothing", || {
                diag.of(local, peer, LATER) == Some(0)
            });
            drop(listener);
            assert_eq!(diag.of(local, peer, LATER), Some(0), "{to}: no listener either");
        }
    }

    #[test]
    fn a_kernel_that_has_found_nothing_yet_may_be_unable_to() {
        let (listener, to) = listeners().remove(0);
        let client = TcpStream::connect(to).unwrap();
        let (stream, peer) = listener.accept().unwrap();
        let (near, far) = (stream.local_addr().unwrap(), client.local_addr().unwrap());
        let nowhere = SocketAddr::new(near.ip(), 1);
        let mut diag = only_diag();
        assert_eq!(diag.of(nowhere, peer, LATER), None);
        assert_eq!(diag.of(near, far, LATER), Some(0));
        assert_eq!(diag.of(nowhere, peer, LATER), Some(0));
    }

    #[test]
    fn tables_that_may_lack_the_last_write_tell_nothing() {
        let (listener, to) = listeners().remove(0);
        let _client = TcpStream::connect(to).unwrap();
        let (stream, peer) = listener.accept().unwrap();
        let (local, mut tables) = (stream.local_addr().unwrap(), only_tables());
        assert_eq!(tables.of(local, peer, Turns { now: 1, wrote: 1 }), None);
        eventually("the tables are read anew", || tables.of(local, peer, LATER) == Some(0));
        let mut none = Unacked::new(refused, unreadable);
        assert_eq!(none.of(local, peer, LATER), None, "no descriptor is left");
    }

    /// Serves echo to clients that each send 1 MiB, receive it, and are then reset.
    fn check_resets(unacked: Unacked, listener: TcpListener, to: SocketAddr) {
        const CLIENTS: usize = 4;
        const SIZE: usize = 1 << 20;
        let (plan, book) = (Plan::new(0), Book::new(10));
        plan.add("echo: reset after 1MiB".parse().unwrap()).unwrap();
        let mut kernel = Faulty::new(Mio::new(64).unwrap(), &plan, &book);
        Rc::get_mut(&mut kernel.turn).unwrap().unacked = RefCell::new(unacked);
        let limits = Limits::default().linger_timeout(Duration::from_secs(30));
        let mut reactor = Reactor::with_kernel(kernel, limits);
        book.serving("echo");
        reactor.listen_on(listener, echo()).unwrap();
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let mut client = TcpStream::connect(to).unwrap();
                let mut writer = client.try_clone().unwrap();
                let writing = thread::spawn(move || writer.write_all(&[b'x'; SIZE]).unwrap());
                thread::spawn(move || {
                    let mut bytes = Vec::new();
                    let error = client.read_to_end(&mut bytes).unwrap_err();
                    writing.join().unwrap();
                    (bytes.len(), error.kind())
                })
            })
            .collect();
        while reactor.stats().closed < CLIENTS as u64 {
            reactor.turn(Some(Duration::from_secs(30))).unwrap();
        }
        for client in clients {
            assert_eq!(client.join().unwrap(), (SIZE, ErrorKind::ConnectionReset), "{to}");
        }
    }

    #[test]
    fn resets_with_netlink_are_exact_and_read_no_table() {
        READ.set(0);
        for (listener, to) in listeners() {
            check_resets(Unacked::new(SockDiag::open, counted), listener, to);
        }
        assert_eq!(READ.get(), 0);
    }

    #[test]
    fn resets_without_netlink_are_exact_and_read_the_tables_at_a_bounded_rate() {
        for (listener, to) in listeners() {
            READ.set(0);
            let began = Instant::now();
            check_resets(only_tables(), listener, to);
            let most = 1 + began.elapsed().as_millis() / INTERVAL.as_millis();
            let read = u128::from(READ.get());
            assert!((1..=most).contains(&read), "{read} readings, at most {most}");
        }
    }
}
