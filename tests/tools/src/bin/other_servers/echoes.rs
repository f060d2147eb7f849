//! Echo servers.

use tools::Recipe;

const STREAMS: &str = "import asyncio
async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
async def main():
    server = await asyncio.start_server(echo, '127.0.0.1', {port})
    await server.serve_forever()
asyncio.run(main())
";
const PROTOCOL: &str = "import asyncio
class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
    def data_received(self, data):
        self.transport.write(data)
async def main():
    server = await asyncio.get_running_loop().create_server(Echo, '127.0.0.1', {port})
    await server.serve_forever()
asyncio.run(main())
";
const THREADS: &str = "import socketserver
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(65536):
            self.request.sendall(data)
class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
Server(('127.0.0.1', {port}), Echo).serve_forever()
";
const TOKIO: &str = "[package]\nname = \"server\"\nedition = \"2021\"\n[workspace]\n\
    [dependencies]\ntokio = { version = \"=1.54.1\", features = [\"rt\", \"net\", \"io-util\", \"macros\"] }\n";
const TOKIO_ECHO: &str = "#[tokio::main(flavor = \"current_thread\")]
async fn main() -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::bind(\"127.0.0.1:{port}\").await?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            let (mut reader, mut writer) = stream.split();
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
        });
    }
}
";
/// Its source is in the folder where cargo keeps the sources of mio.
const MIO: &str = "mkdir {folder}/src && \
    sed 's/127.0.0.1:9000/127.0.0.1:{port}/' \
    $(ls ${CARGO_HOME:-$HOME/.cargo}/registry/src/*/mio-1.*/examples/tcp_server.rs | tail -1) \
    > {folder}/src/main.rs && printf '%s\\n' \
    '[package]' 'name = \"server\"' 'edition = \"2021\"' '[workspace]' '[dependencies]' \
    'mio = { version = \"1\", features = [\"os-poll\", \"net\"] }' 'env_logger = \"0.11\"' \
    > {folder}/Cargo.toml && cargo build -q --manifest-path {folder}/Cargo.toml --target-dir {folder}/target";
pub const MIO_EXAMPLE: Recipe = Recipe::new(
    "mio",
    "its examples/tcp_server",
    "ls ${CARGO_HOME:-$HOME/.cargo}/registry/src/*/ | grep ^mio-1 | tail -1",
    &["{folder}/target/debug/server"],
)
.after(MIO);

pub static ECHOES: &[Recipe] = &[
    Recipe::new(
        "Python",
        "the tutorial's own",
        "python3 --version",
        &["python3 {folder}/echo_server.py"],
    )
    .after(
        "sed \"s/12345/{port}/; s/host = ''/host = '127.0.0.1'/\" \
         \"$TUTORIAL/echo_server.py\" > {folder}/echo_server.py",
    )
    .needing("test -f \"$TUTORIAL/echo_server.py\"", "set TUTORIAL to the folder of echo_server.py"),
    Recipe::new("Python", "socketserver, threads", PYTHON, &["python3 {folder}/echo.py"])
        .with(&[("echo.py", THREADS)]),
    Recipe::new("Python", "asyncio Protocol, write()", PYTHON, &["python3 {folder}/echo.py"])
        .with(&[("echo.py", PROTOCOL)]),
    Recipe::new("Python", "asyncio streams, drain()", PYTHON, &["python3 {folder}/echo.py"])
        .with(&[("echo.py", STREAMS)]),
    Recipe::new("Node", "pipe", "node --version", &["node {folder}/echo.js"]).with(&[(
        "echo.js",
        "require('net').createServer(s => s.pipe(s)).listen({port}, '127.0.0.1')\n",
    )]),
    Recipe::new("Node", "pipe, on('error')", "node --version", &["node {folder}/echo.js"]).with(&[
        (
            "echo.js",
            "require('net').createServer(s => s.on('error', () => {}).pipe(s))\n\
             .listen({port}, '127.0.0.1')\n",
        ),
    ]),
    Recipe::new(
        "ncat",
        "--exec /bin/cat",
        "ncat --version",
        &["ncat -l -k 127.0.0.1 {port} --exec /bin/cat"],
    ),
    Recipe::new(
        "socat",
        "fork, PIPE",
        "socat -V | grep version",
        &["socat TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork PIPE"],
    ),
    Recipe::new(
        "socat",
        "-b 4096, fork, PIPE",
        "socat -V | grep version",
        &["socat -b 4096 TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork PIPE"],
    ),
    Recipe::new(
        "socat",
        "fork, EXEC:/bin/cat",
        "socat -V | grep version",
        &["socat TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork EXEC:/bin/cat"],
    ),
    Recipe::new("xinetd", "internal echo", "xinetd -version", &[XINETD]).with(&[(
        "conf",
        "service echo\n{\n type = INTERNAL UNLISTED\n socket_type = stream\n protocol = tcp\n\
         wait = no\n port = {port}\n bind = 127.0.0.1\n}\n",
    )]),
    Recipe::new("xinetd", "internal echo, cps 4096 1", "xinetd -version", &[XINETD]).with(&[(
        "conf",
        "service echo\n{\n type = INTERNAL UNLISTED\n socket_type = stream\n protocol = tcp\n\
         wait = no\n port = {port}\n bind = 127.0.0.1\n cps = 4096 1\n per_source = UNLIMITED\n\
         instances = UNLIMITED\n}\n",
    )]),
    Recipe::new(
        "inetutils-inetd",
        "/bin/cat",
        "inetutils-inetd --version",
        &["inetutils-inetd -d --pidfile={folder}/pid {folder}/conf"],
    )
    .with(&[("conf", "127.0.0.1:{port} stream tcp4 nowait root /bin/cat cat\n")]),
    Recipe::new(
        "inetutils-inetd",
        "/bin/cat, -R 100000",
        "inetutils-inetd --version",
        &["inetutils-inetd -d -R 100000 --pidfile={folder}/pid {folder}/conf"],
    )
    .with(&[("conf", "127.0.0.1:{port} stream tcp4 nowait root /bin/cat cat\n")]),
    Recipe::new("tokio", "io::copy, one thread", "echo 1.54.1", &["{folder}/target/debug/server"])
        .after(
            "mkdir {folder}/src && mv {folder}/main.rs {folder}/src && \
         cargo build -q --manifest-path {folder}/Cargo.toml --target-dir {folder}/target",
        )
        .with(&[("main.rs", TOKIO_ECHO), ("Cargo.toml", TOKIO)]),
    MIO_EXAMPLE,
    Recipe::new(
        "Go",
        "io.Copy(c, c)",
        "go version",
        &["{folder}/echo 127.0.0.1:{port}"],
    )
    .after("go build -o {folder}/echo {folder}/main.go")
    .with(&[("main.go", include_str!("../../../peers/echo.go"))])
    .needing("go version", "install golang"),
    Recipe::new("Twisted", "protocols.wire.Echo", TWISTED, &["python3 {folder}/echo.py"])
        .with(&[(
            "echo.py",
            "from twisted.internet import protocol, reactor\n\
             from twisted.protocols.wire import Echo\n\
             reactor.listenTCP({port}, protocol.Factory.forProtocol(Echo), interface='127.0.0.1')\n\
             reactor.run()\n",
        )])
        .needing("python3 -c 'import twisted'", "run `pip install twisted`"),
    Recipe::new(
        "libuv",
        "its tcp-echo-server",
        "dpkg-query -W libuv1-dev",
        &["{folder}/echo"],
    )
    .after(
        "sed 's/DEFAULT_PORT 7000/DEFAULT_PORT {port}/; s/0.0.0.0/127.0.0.1/' \
         \"$LIBUV/docs/code/tcp-echo-server/main.c\" > {folder}/main.c && \
         cc -o {folder}/echo {folder}/main.c -luv",
    )
    .needing(
        "command -v cc && test -f /usr/include/uv.h && \
         test -f \"$LIBUV/docs/code/tcp-echo-server/main.c\"",
        "run `apt-get install gcc libuv1-dev; apt-get source libuv1` and set LIBUV to that source",
    ),
    Recipe::new("libevent", "free at EOF", LIBEVENT, &["{folder}/echo {port}"])
        .after("cc -o {folder}/echo {folder}/main.c -levent")
        .with(&[("main.c", include_str!("../../../peers/libevent_echo.c"))])
        .needing(EVENT_IS_THERE, "run `apt-get install gcc libevent-dev`"),
    Recipe::new("libevent", "free once written", LIBEVENT, &["{folder}/echo {port}"])
        .after("cc -DDRAIN -o {folder}/echo {folder}/main.c -levent")
        .with(&[("main.c", include_str!("../../../peers/libevent_echo.c"))])
        .needing(EVENT_IS_THERE, "run `apt-get install gcc libevent-dev`"),
];

const TWISTED: &str = "python3 -c 'import twisted; print(twisted.__version__)'";
const LIBEVENT: &str = "dpkg-query -W libevent-dev";
const EVENT_IS_THERE: &str = "command -v cc && test -f /usr/include/event2/event.h";

const PYTHON: &str = "python3 --version";
const XINETD: &str = "xinetd -dontfork -pidfile {folder}/pid -f {folder}/conf";
