//! Tunnels with two ends, and proxies that need a CONNECT request.

use tools::Recipe;

const KEYS: &str = "chmod 700 {folder} && ssh-keygen -q -t ed25519 -N '' -f {folder}/host && \
    ssh-keygen -q -t ed25519 -N '' -f {folder}/user && { [ -d /run/sshd ] || mkdir /run/sshd; }";
const SSHD: &str = "/usr/sbin/sshd -D -e -f {folder}/conf";
const SSH: &str = "ssh -N -F none -i {folder}/user -p {middle} -o StrictHostKeyChecking=no \
    -o UserKnownHostsFile=/dev/null -o ExitOnForwardFailure=yes \
    -L 127.0.0.1:{port}:127.0.0.1:{target} 127.0.0.1";
const CERTIFICATE: &str = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
    -days 1 -subj /CN=localhost -keyout {folder}/key -out {folder}/cert 2>/dev/null && \
    cat {folder}/key {folder}/cert > {folder}/pem";

pub static TUNNELS: &[Recipe] = &[
    Recipe::new(
        "stunnel",
        "client and server",
        "stunnel4 -version",
        &["stunnel4 {folder}/server", "stunnel4 {folder}/client"],
    )
    .after(CERTIFICATE)
    .with(&[
        (
            "server",
            "foreground=yes\npid=\ndebug=warning\n[server]\naccept=127.0.0.1:{middle}\n\
             connect=127.0.0.1:{target}\ncert={folder}/pem\n",
        ),
        (
            "client",
            "foreground=yes\npid=\ndebug=warning\n[client]\nclient=yes\n\
             accept=127.0.0.1:{port}\nconnect=127.0.0.1:{middle}\n",
        ),
    ]),
    Recipe::new("ssh -L", "own sshd and keys", "ssh -V", &[SSHD, SSH]).after(KEYS).with(&[(
        "conf",
        "ListenAddress 127.0.0.1\nPort {middle}\nHostKey {folder}/host\nUsePAM no\n\
         AuthorizedKeysFile {folder}/user.pub\nStrictModes no\nPidFile none\n",
    )]),
    Recipe::new(
        "rathole",
        "server and client, no TLS",
        "rathole --version | grep Version",
        &["rathole --server {folder}/conf", "rathole --client {folder}/conf"],
    )
    .with(&[(
        "conf",
        "[server]\nbind_addr = \"127.0.0.1:{middle}\"\ndefault_token = \"open\"\n\
         [server.services.ours]\nbind_addr = \"127.0.0.1:{port}\"\n\
         [client]\nremote_addr = \"127.0.0.1:{middle}\"\ndefault_token = \"open\"\n\
         [client.services.ours]\nlocal_addr = \"127.0.0.1:{target}\"\n",
    )]),
];

/// Proxies that need a CONNECT request.
pub static ASKED: &[Recipe] = &[
    Recipe::new("squid, CONNECT", "as packaged", "squid -v", SQUID)
        .after("chmod 777 {folder}")
        .with(&[(
            "conf",
            "http_port 127.0.0.1:{port}\nhttp_access allow localhost\nhttp_access deny all\n\
             pid_filename none\ncache_log {folder}/cache.log\naccess_log none\n\
             cache deny all\nshutdown_lifetime 0 seconds\n",
        )]),
    Recipe::new("squid, CONNECT", "half_closed_clients on", "squid -v", SQUID)
        .after("chmod 777 {folder}")
        .with(&[(
            "conf",
            "http_port 127.0.0.1:{port}\nhttp_access allow localhost\nhttp_access deny all\n\
             pid_filename none\ncache_log {folder}/cache.log\naccess_log none\n\
             cache deny all\nshutdown_lifetime 0 seconds\nhalf_closed_clients on\n",
        )]),
    Recipe::new("tinyproxy, CONNECT", "as packaged", "tinyproxy -v", TINYPROXY).with(&[(
        "conf",
        "Listen 127.0.0.1\nPort {port}\nTimeout 600\nMaxClients 100\nAllow 127.0.0.1\n",
    )]),
];

const SQUID: &[&str] = &["squid -N -f {folder}/conf"];
const TINYPROXY: &[&str] = &["tinyproxy -d -c {folder}/conf"];
