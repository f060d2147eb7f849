//! Network namespaces of the tests' own, with as many local ports as a test asks for.

use std::process::{Command, Stdio};

/// Gives loopback a link-local address, and waits until the kernel has its route: until then,
/// connecting to it fails with ENETUNREACH.
pub const LINK_LOCAL: &str = "ip -6 addr add fe80::1/64 dev lo nodad && for _ in $(seq 1000); do \
     ip -6 route show table local | grep -q fe80::1 && break; done";

/// A command that runs `script` with sh in a network namespace of its own, in which only loopback is
/// up and connections take their local ports from `ports`. `None`, with a note, where this machine
/// creates no namespaces.
#[track_caller]
pub fn with_ports(ports: &str, script: &str) -> Option<Command> {
    let setup = format!(
        "ip link set lo up && echo {ports} >/proc/sys/net/ipv4/ip_local_port_range && \
         ip address add ::1/128 dev lo 2>/dev/null; :"
    );
    let mut probe = Command::new("unshare");
    probe.args([
        "-rn",
        "sh",
        "-c",
        "ip link set lo up && test -w /proc/sys/net/ipv4/ip_local_port_range",
    ]);
    let probe = probe.stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !probe.is_ok_and(|status| status.success()) {
        super::skip("unshare(1) and ip(8) create no network namespace here");
        return None;
    }
    let mut command = Command::new("unshare");
    command.args(["-rn", "sh", "-c", &format!("{setup}\n{script}")]).stdin(Stdio::null());
    Some(command)
}
