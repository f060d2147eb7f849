//! Memory of the process behind a port of this machine, from `/proc` (proc(5)).

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;

use crate::protocol::Address;

/// The processes that listen at an address, or why they are not known.
#[derive(Debug)]
pub(super) struct Memory(Result<Vec<u32>, &'static str>);

impl Memory {
    pub(super) fn of(addr: &Address) -> Memory {
        Memory(addr.inet().ok_or("the server listens on a Unix socket").and_then(owners))
    }

    /// Their resident memory, without the buffers of their sockets in the kernel.
    pub(super) fn resident(&self) -> Result<u64, &'static str> {
        let pids = self.0.as_ref().map_err(|why| *why)?;
        let sizes = pids.iter().map(|pid| resident(*pid));
        sizes.sum::<Option<u64>>().ok_or("its process has ended")
    }
}

fn owners(addr: SocketAddr) -> Result<Vec<u32>, &'static str> {
    // Only an address of this machine can be bound here.
    match UdpSocket::bind((addr.ip(), 0)) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {
            return Err("the server is on another machine");
        }
        Err(_) => return Err("this machine has no room for another socket"),
    }
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let tables = read("/proc/self/net/tcp") + &read("/proc/self/net/tcp6");
    let sockets: Vec<_> =
        listening(&tables, addr).map(|inode| format!("socket:[{inode}]")).collect();
    if sockets.is_empty() {
        return Err("its listening socket is not in /proc/net/tcp");
    }
    let processes = fs::read_dir("/proc").map_err(|_| "there is no /proc")?;
    let names = processes.flatten().map(|entry| entry.file_name());
    let pids = names.filter_map(|name| name.to_str()?.parse::<u32>().ok());
    let pids: Vec<_> = pids.filter(|pid| holds(*pid, &sockets)).collect();
    match pids.as_slice() {
        [] => Err("its process belongs to another user"),
        pids if pids.contains(&std::process::id()) => {
            Err("the server runs in the same process as the check")
        }
        _ => Ok(pids),
    }
}

/// The inodes of the sockets that listen at this address, or at every address of the machine.
fn listening(tables: &str, addr: SocketAddr) -> impl Iterator<Item = &str> {
    const LISTEN: &str = "0A";
    tables.lines().filter_map(move |line| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        let is_there = *state == LISTEN && spelled(addr).iter().any(|name| name == local);
        is_there.then_some(*inode)
    })
}

/// How the tables write this address and the unspecified addresses, with this port.
fn spelled(addr: SocketAddr) -> Vec<String> {
    let unspecified = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    let mapped = match addr.ip() {
        IpAddr::V4(ip) => Some(IpAddr::V6(ip.to_ipv6_mapped())),
        IpAddr::V6(ip) => ip.to_ipv4_mapped().map(IpAddr::V4),
    };
    // A connection to the unspecified address goes to loopback.
    let loopback = match addr.ip() {
        ip if !ip.is_unspecified() => None,
        IpAddr::V4(_) => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        IpAddr::V6(_) => Some(IpAddr::V6(Ipv6Addr::LOCALHOST)),
    };
    let ips = [addr.ip()].into_iter().chain(mapped).chain(loopback).chain(unspecified);
    ips.map(|ip| format!("{}:{:04X}", words(ip), addr.port())).collect()
}

/// Hexadecimal words in the byte order of the machine.
fn words(ip: IpAddr) -> String {
    let bytes = match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let words = bytes.chunks_exact(4).filter_map(|word| word.try_into().ok());
    words.map(|word| format!("{:08X}", u32::from_ne_bytes(word))).collect()
}

/// Whether the process has one of these sockets open; false if its descriptors cannot be read.
fn holds(pid: u32, sockets: &[String]) -> bool {
    let Ok(files) = fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd")) else {
        return false;
    };
    files.flatten().any(|file| {
        let target = fs::read_link(file.path()).unwrap_or_default();
        sockets.iter().any(|socket| target.as_os_str() == socket.as_str())
    })
}

fn resident(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn a_listener_is_found_by_its_address_or_the_unspecified_one() {
        let tables = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:270F 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000 0 11 1\n\
            1: 0100007F:270F 0100007F:D54D 01 00000000:00000000 00:00000000 00000000  1000 0 12 1\n\
            2: 00000000:3039 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000 0 13 1\n\
            3: 00000000000000000000000001000000:270F 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 1000 0 14 1\n";
        let found = |addr: &str| listening(tables, addr.parse().unwrap()).collect::<Vec<_>>();
        assert_eq!(found("127.0.0.1:9999"), ["11"]);
        assert_eq!(found("0.0.0.0:9999"), ["11"]);
        assert_eq!(found("[::1]:9999"), ["14"]);
        assert_eq!(found("127.0.0.2:9999"), [""; 0]);
        assert_eq!(found("127.0.0.2:12345"), ["13"]);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_memory_of_our_own_process_is_not_measured() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let memory = Memory::of(&listener.local_addr().unwrap().into());
        assert_eq!(memory.resident(), Err("the server runs in the same process as the check"));
        assert!(resident(std::process::id()).unwrap() > 1 << 16);
    }
}
