//! What a peer has not acknowledged yet, as the kernel tells it in `/proc/self/net/tcp` (proc(5)).

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The tables, read at most once a turn.
#[derive(Debug, Default)]
pub(super) struct Unacked(RefCell<Option<String>>);

impl Unacked {
    pub(super) fn forget(&self) {
        self.0.take();
    }

    /// The bytes (and a FIN) that `peer` has not acknowledged on its connection to our `port`; none
    /// if nobody can tell.
    pub(super) fn of(&self, port: u16, peer: SocketAddr) -> u64 {
        let mut tables = self.0.borrow_mut();
        let tables = tables.get_or_insert_with(|| {
            let read = |path| std::fs::read_to_string(path).unwrap_or_default();
            read("/proc/self/net/tcp") + &read("/proc/self/net/tcp6")
        });
        find(tables, port, peer).unwrap_or(0)
    }
}

fn find(tables: &str, port: u16, peer: SocketAddr) -> Option<u64> {
    let (ours, far) = (format!(":{port:04X}"), spelled(peer));
    tables.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (local, remote) = (fields.nth(1)?, fields.next()?);
        if !local.ends_with(&ours) || !far.iter().any(|far| far == remote) {
            return None;
        }
        let queues = fields.nth(1)?;
        u64::from_str_radix(queues.split(':').next()?, 16).ok()
    })
}

/// How the tables spell an address: in words of the machine's order. An IPv4 peer of an IPv6 socket
/// is mapped.
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

#[cfg(test)]
mod tests {
    use super::*;

    const TABLES: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr\n\
        0: 0100007F:3039 00000000:0000 0A 00000000:00000000 00:00000000\n\
        1: 0100007F:3039 0100007F:D431 01 000186A0:00000000 01:00000014\n\
        2: 0100007F:D431 0100007F:3039 01 00000007:00000000 01:00000014\n\
        3: 00000000000000000000000001000000:3039 00000000000000000000000001000000:D431 01 00000001:00000000 0\n\
        4: 0000000000000000FFFF00000100007F:303A 0000000000000000FFFF00000100007F:D431 01 00000002:00000000 0\n";

    #[test]
    #[cfg(target_endian = "little")]
    fn our_end_of_a_connection_is_told_from_the_other() {
        let of = |port, peer: &str| find(TABLES, port, peer.parse().unwrap());
        assert_eq!(of(12345, "127.0.0.1:54321"), Some(100_000));
        assert_eq!(of(12345, "[::1]:54321"), Some(1));
        assert_eq!(of(12346, "127.0.0.1:54321"), Some(2));
        assert_eq!(of(12346, "[::ffff:127.0.0.1]:54321"), Some(2));
        assert_eq!(of(12345, "127.0.0.1:54322"), None);
    }
}
