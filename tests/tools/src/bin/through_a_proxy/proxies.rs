//! Proxies that forward a connection without a request.

use tools::Recipe;

const NGINX: &str = "nginx -e stderr -c {folder}/conf";
const SOCAT: &str = "socat TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork TCP:127.0.0.1:{target}";
const PATIENT_SOCAT: &str = "socat -t 30 \
    TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork,backlog=1024 TCP:127.0.0.1:{target}";

pub static PROXIES: &[Recipe] = &[
    Recipe::new("haproxy", "mode tcp, timeouts", "haproxy -v", &["haproxy -db -f {folder}/conf"])
        .with(&[(
            "conf",
            "defaults\n mode tcp\n timeout connect 5s\n timeout client 50s\n timeout server 50s\n\
             listen proxy\n bind 127.0.0.1:{port}\n server ours 127.0.0.1:{target}\n",
        )]),
    Recipe::new("nginx stream", "as packaged", "nginx -v", &[NGINX]).with(&[(
        "conf",
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n\
         daemon off; pid {folder}/pid; error_log stderr;\n\
         events { worker_connections 768; }\n\
         stream { server { listen 127.0.0.1:{port}; proxy_pass 127.0.0.1:{target}; } }\n",
    )]),
    Recipe::new("nginx stream", "proxy_half_close on", "nginx -v", &[NGINX]).with(&[(
        "conf",
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n\
         daemon off; pid {folder}/pid; error_log stderr;\n\
         events { worker_connections 4096; }\n\
         stream { server { listen 127.0.0.1:{port}; proxy_pass 127.0.0.1:{target};\n\
         proxy_half_close on; } }\n",
    )]),
    Recipe::new("socat", "fork", "socat -V | grep version", &[SOCAT]),
    Recipe::new("socat", "-t 30, backlog=1024", "socat -V | grep version", &[PATIENT_SOCAT]),
    Recipe::new(
        "systemd-socket-proxyd",
        "as packaged",
        "systemd-socket-activate --version",
        &["systemd-socket-activate -l 127.0.0.1:{port} \
           /lib/systemd/systemd-socket-proxyd 127.0.0.1:{target}"],
    ),
    Recipe::new(
        "redir",
        "as packaged",
        "redir -v",
        &["redir -n 127.0.0.1:{port} 127.0.0.1:{target}"],
    ),
    Recipe::new("rinetd", "as packaged", "rinetd -v", &["rinetd -f -c {folder}/conf"])
        .with(&[("conf", "127.0.0.1 {port} 127.0.0.1 {target}\npidlogfile {folder}/pid\n")]),
    Recipe::new(
        "sslh",
        "fork, anyprot",
        "sslh -V",
        &["sslh -f -P {folder}/pid -p 127.0.0.1:{port} --anyprot 127.0.0.1:{target}"],
    ),
    Recipe::new(
        "sslh",
        "select, anyprot",
        "sslh-select -V",
        &["sslh-select -f -P {folder}/pid -p 127.0.0.1:{port} --anyprot 127.0.0.1:{target}"],
    ),
    Recipe::new(
        "simpleproxy",
        "as packaged",
        "simpleproxy -V",
        &["simpleproxy -L 127.0.0.1:{port} -R 127.0.0.1:{target}"],
    ),
    Recipe::new(
        "6tunnel",
        "-4",
        "dpkg-query -W 6tunnel",
        &["6tunnel -4 -d -l 127.0.0.1 {port} 127.0.0.1 {target}"],
    ),
    Recipe::new(
        "pen",
        "as packaged",
        "dpkg-query -W pen",
        &["pen -f 127.0.0.1:{port} 127.0.0.1:{target}"],
    ),
    Recipe::new(
        "ncat",
        "--sh-exec 'ncat ...'",
        "ncat --version",
        &["ncat -l -k 127.0.0.1 {port} --sh-exec 'ncat 127.0.0.1 {target}'"],
    ),
    Recipe::new(
        "docker-proxy",
        "as packaged",
        "dpkg-query -W docker.io",
        &["docker-proxy -proto tcp -host-ip 127.0.0.1 -host-port {port} \
           -container-ip 127.0.0.1 -container-port {target} 3>/dev/null"],
    ),
    Recipe::new(
        "mitmproxy",
        "--mode reverse:tcp",
        "mitmdump --version",
        &["mitmdump -q --mode reverse:tcp://127.0.0.1:{target} --listen-host 127.0.0.1 \
           --listen-port {port} --set confdir={folder}"],
    ),
    Recipe::new(
        "trixter",
        "no fault",
        "trixter --version",
        &["trixter --listen 127.0.0.1:{port} --upstream 127.0.0.1:{target} --api 127.0.0.1:0"],
    ),
];
