//! Asks the kernel about one TCP connection, over a netlink socket (sock_diag(7)).

use std::io::{self, ErrorKind, Read};
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

/// The types of the question and its answer, and of an error.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;

/// Limit of messages that are read for one question: late answers to earlier questions come first.
const READS: usize = 8;

/// A netlink socket. It never blocks: the kernel answers while it takes the question.
#[derive(Debug)]
pub(super) struct SockDiag {
    socket: Socket,
    sequence: u32,
    /// Whether the kernel has found a connection yet. Until then `ENOENT` can also mean that it
    /// lacks the module that knows TCP.
    has_found: bool,
}

impl SockDiag {
    pub(super) fn open() -> io::Result<SockDiag> {
        let (domain, protocol) = (Domain::from(libc::AF_NETLINK), libc::NETLINK_SOCK_DIAG);
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::from(protocol)))?;
        socket.set_nonblocking(true)?;
        Ok(SockDiag { socket, sequence: 0, has_found: false })
    }

    /// Returns how many bytes, with a FIN as one, `peer` has not acknowledged; 0 if the connection
    /// is gone.
    ///
    /// # Errors
    /// If the kernel does not answer, refuses the question, or may lack the module for TCP.
    pub(super) fn unacknowledged(
        &mut self,
        local: SocketAddr,
        peer: SocketAddr,
    ) -> io::Result<u64> {
        self.sequence = self.sequence.wrapping_add(1);
        self.socket.send(&question(self.sequence, local, peer))?;
        let mut message = [0; 512];
        for _ in 0..READS {
            let length = (&self.socket).read(&mut message)?;
            match answer(&message[..length], self.sequence, peer.port()) {
                None => {}
                Some(Ok(count)) => {
                    self.has_found = true;
                    return Ok(count);
                }
                Some(Err(error)) => {
                    let is_gone = self.has_found && error.raw_os_error() == Some(libc::ENOENT);
                    return if is_gone { Ok(0) } else { Err(error) };
                }
            }
        }
        Err(ErrorKind::WouldBlock.into())
    }
}

/// A `nlmsghdr` and an `inet_diag_req_v2` that name one connection.
fn question(sequence: u32, local: SocketAddr, peer: SocketAddr) -> Vec<u8> {
    // A mapped connection of an IPv6 socket is found as the IPv4 connection that it is.
    let (family, [source, destination]) =
        match (local.ip().to_canonical(), peer.ip().to_canonical()) {
            (IpAddr::V4(local), IpAddr::V4(peer)) => {
                let padded = |octets: [u8; 4]| u128::from(u32::from_be_bytes(octets)) << 96;
                (libc::AF_INET, [padded(local.octets()), padded(peer.octets())])
            }
            (local, peer) => (libc::AF_INET6, [local, peer].map(six)),
        };
    // A link-local address is complete with its interface only.
    let interface = match peer {
        SocketAddr::V6(peer) => peer.scope_id(),
        SocketAddr::V4(_) => 0,
    };
    let mut bytes = Vec::with_capacity(72);
    bytes.extend(72_u32.to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(NLM_F_REQUEST.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    // To the kernel.
    bytes.extend(0_u32.to_ne_bytes());
    // No extensions; the states do not matter for one connection.
    bytes.extend([family as u8, libc::IPPROTO_TCP as u8, 0, 0]);
    bytes.extend(u32::MAX.to_ne_bytes());
    bytes.extend(local.port().to_be_bytes());
    bytes.extend(peer.port().to_be_bytes());
    bytes.extend(source.to_be_bytes());
    bytes.extend(destination.to_be_bytes());
    bytes.extend(interface.to_ne_bytes());
    // No cookie.
    bytes.extend(u64::MAX.to_ne_bytes());
    bytes
}

fn six(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().into(),
        IpAddr::V6(ip) => ip.into(),
    }
}

/// What a message answers to the question of this number about a peer at this port; `None` if it
/// answers another question, or makes no sense.
fn answer(message: &[u8], sequence: u32, port: u16) -> Option<io::Result<u64>> {
    let word = |at: usize| Some(u32::from_ne_bytes(message.get(at..at + 4)?.try_into().ok()?));
    let kind = u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?);
    if word(8)? != sequence {
        return None;
    }
    match kind {
        NLMSG_ERROR => {
            let code = (word(16)? as i32).saturating_neg();
            Some(Err(io::Error::from_raw_os_error(code)))
        }
        // For a connection that is gone the kernel answers with its listener, which has no peer.
        SOCK_DIAG_BY_FAMILY if message.get(22..24)? != port.to_be_bytes() => Some(Ok(0)),
        SOCK_DIAG_BY_FAMILY => Some(Ok(word(76)?.into())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer with 1,000 bytes in its queue.
    fn told(sequence: u32, port: u16) -> Vec<u8> {
        let mut message = vec![0; 88];
        message[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        message[8..12].copy_from_slice(&sequence.to_ne_bytes());
        message[22..24].copy_from_slice(&port.to_be_bytes());
        message[76..80].copy_from_slice(&1000_u32.to_ne_bytes());
        message
    }

    #[test]
    fn an_answer_counts_for_its_own_question_only() {
        let count = |sequence, port| answer(&told(7, 40_000), sequence, port).map(Result::unwrap);
        assert_eq!(count(7, 40_000), Some(1000));
        assert_eq!(count(8, 40_000), None);
        // If the connection is gone, the kernel answers with its listener, which has another port.
        assert_eq!(count(7, 40_001), Some(0));
    }

    #[test]
    fn an_error_is_the_errno_that_it_carries() {
        let mut message = told(7, 40_000);
        message[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        for (code, expected) in [(-libc::ENOENT, libc::ENOENT), (i32::MIN, i32::MAX)] {
            message[16..20].copy_from_slice(&code.to_ne_bytes());
            let error = answer(&message, 7, 40_000).unwrap().unwrap_err();
            assert_eq!(error.raw_os_error(), Some(expected));
        }
    }

    #[test]
    fn a_message_that_is_cut_or_odd_is_no_answer() {
        let message = told(7, 40_000);
        for length in 0..80 {
            assert!(answer(&message[..length], 7, 40_000).is_none(), "{length} bytes");
        }
        for kind in [0, 1, 3, 19, u16::MAX] {
            let mut odd = message.clone();
            odd[4..6].copy_from_slice(&u16::to_ne_bytes(kind));
            assert!(answer(&odd, 7, 40_000).is_none(), "type {kind}");
        }
    }
}
