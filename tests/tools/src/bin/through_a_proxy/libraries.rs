//! Proxies from a few lines over a library, and a library's own sample of a proxy.

use tools::Recipe;

const GO: &str = "go version";
const GO_BUILD: &str = "go build -o {folder}/proxy {folder}/main.go";
const OWN: &str = "{folder}/proxy 127.0.0.1:{port} 127.0.0.1:{target}";

const TOKIO: &str = "[package]\nname = \"proxy\"\nedition = \"2021\"\n[workspace]\n\
    [dependencies]\ntokio = { version = \"=1.54.1\", features = [\"rt\", \"net\", \"io-util\", \"macros\"] }\n";
const COPY_BIDIRECTIONAL: &str = "#[tokio::main(flavor = \"current_thread\")]
async fn main() -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::bind(\"127.0.0.1:{port}\").await?;
    loop {
        let (mut client, _) = listener.accept().await?;
        tokio::spawn(async move {
            let mut server = tokio::net::TcpStream::connect(\"127.0.0.1:{target}\").await?;
            tokio::io::copy_bidirectional(&mut client, &mut server).await
        });
    }
}
";

/// The value of `allowHalfOpen` is the only difference between the two.
const NODE_CLOSED: &str = "const net = require('net')
net.createServer(client => {
    const server = net.connect({target}, '127.0.0.1')
    client.on('error', () => server.destroy()).pipe(server)
    server.on('error', () => client.destroy()).pipe(client)
}).listen({port}, '127.0.0.1')
";
const NODE_HALF_OPEN: &str = "const net = require('net')
net.createServer({ allowHalfOpen: true }, client => {
    const server = net.connect({ port: {target}, host: '127.0.0.1', allowHalfOpen: true })
    client.on('error', () => server.destroy()).pipe(server)
    server.on('error', () => client.destroy()).pipe(client)
}).listen({port}, '127.0.0.1')
";

const TWISTED: &str = "from twisted.internet import reactor
from twisted.protocols.portforward import ProxyFactory
reactor.listenTCP({port}, ProxyFactory('127.0.0.1', {target}), interface='127.0.0.1')
reactor.run()
";

pub static LIBRARIES: &[Recipe] = &[
    Recipe::new("Go, io.Copy", "the first end closes both", GO, &[OWN])
        .after(GO_BUILD)
        .with(&[("main.go", include_str!("../../../peers/first_end.go"))])
        .needing(GO, "install golang"),
    Recipe::new("Go, io.Copy", "CloseWrite() at each end", GO, &[OWN])
        .after(GO_BUILD)
        .with(&[("main.go", include_str!("../../../peers/both_ends.go"))])
        .needing(GO, "install golang"),
    Recipe::new(
        "tokio",
        "copy_bidirectional, one thread",
        "echo 1.54.1",
        &["{folder}/target/debug/proxy"],
    )
    .after(
        "mkdir {folder}/src && mv {folder}/main.rs {folder}/src && \
         cargo build -q --manifest-path {folder}/Cargo.toml --target-dir {folder}/target",
    )
    .with(&[("main.rs", COPY_BIDIRECTIONAL), ("Cargo.toml", TOKIO)])
    .needing("cargo --version", "install cargo"),
    Recipe::new("Node, pipe", "both ways", "node --version", &["node {folder}/proxy.js"])
        .with(&[("proxy.js", NODE_CLOSED)]),
    Recipe::new("Node, pipe", "allowHalfOpen: true", "node --version", &["node {folder}/proxy.js"])
        .with(&[("proxy.js", NODE_HALF_OPEN)]),
    Recipe::new(
        "Twisted",
        "protocols.portforward",
        "python3 -c 'import twisted; print(twisted.__version__)'",
        &["python3 {folder}/proxy.py"],
    )
    .with(&[("proxy.py", TWISTED)])
    .needing("python3 -c 'import twisted'", "run `pip install twisted`"),
    Recipe::new(
        "libevent, le-proxy",
        "its sample, without -s",
        "dpkg-query -W libevent-dev",
        &[OWN],
    )
    .after(
        "cc -w -iquote {folder} -o {folder}/proxy /usr/share/doc/libevent-dev/examples/le-proxy.c \
         -levent -levent_openssl -lssl -lcrypto",
    )
    .with(&[("util-internal.h", ""), ("openssl-compat.h", "")])
    .needing(LE_PROXY_IS_THERE, "run `apt-get install gcc libevent-dev libssl-dev`"),
];

const LE_PROXY_IS_THERE: &str = "test -f /usr/share/doc/libevent-dev/examples/le-proxy.c && \
    command -v cc && test -f /usr/include/openssl/ssl.h";
