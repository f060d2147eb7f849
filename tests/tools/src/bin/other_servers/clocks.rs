//! Daytime servers.

use tools::Recipe;

use crate::echoes::MIO_EXAMPLE;

const STREAMS: &str = "import asyncio, time
async def daytime(reader, writer):
    writer.write((time.ctime() + '\\r\\n').encode())
    await writer.drain()
    writer.close()
async def main():
    server = await asyncio.start_server(daytime, '127.0.0.1', {port})
    await server.serve_forever()
asyncio.run(main())
";

/// In the order of RFC 867: sends the line, ends its half, and reads until the client's EOF.
const LINGERING: &str = "import asyncio, time
async def daytime(reader, writer):
    writer.write((time.ctime() + '\\r\\n').encode())
    writer.write_eof()
    try:
        async with asyncio.timeout(2):
            while await reader.read(65536):
                pass
    except (TimeoutError, ConnectionError):
        pass
    writer.close()
async def main():
    server = await asyncio.start_server(daytime, '127.0.0.1', {port})
    await server.serve_forever()
asyncio.run(main())
";

pub static CLOCKS: &[Recipe] = &[
    Recipe::new(
        "Python",
        "the tutorial's own",
        "python3 --version",
        &["python3 {folder}/server.py"],
    )
    .after(
        "sed \"s/9999/{port}/; s/socket.gethostname()/'127.0.0.1'/\" \
         \"$TUTORIAL/server.py\" > {folder}/server.py",
    )
    .needing("test -f \"$TUTORIAL/server.py\"", "set TUTORIAL to the folder of server.py"),
    Recipe::new("Python", "asyncio streams", "python3 --version", &["python3 {folder}/time.py"])
        .with(&[("time.py", STREAMS)]),
    Recipe::new(
        "Python",
        "the same, write_eof(), read()",
        "python3 --version",
        &["python3 {folder}/time.py"],
    )
    .with(&[("time.py", LINGERING)]),
    Recipe::new("Node", "end(line)", "node --version", &["node {folder}/time.js"]).with(&[(
        "time.js",
        "require('net').createServer(s => s.end(new Date().toUTCString() + '\\r\\n'))\n\
         .listen({port}, '127.0.0.1')\n",
    )]),
    Recipe::new(
        "Node",
        "end(line), resume(), on('error')",
        "node --version",
        &["node {folder}/time.js"],
    )
    .with(&[(
        "time.js",
        "require('net').createServer(s => s.on('error', () => {}).resume()\n\
         .end(new Date().toUTCString() + '\\r\\n')).listen({port}, '127.0.0.1')\n",
    )]),
    Recipe::new("nginx stream", "return", "nginx -v", &["nginx -e stderr -c {folder}/conf"]).with(
        &[(
            "conf",
            "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n\
             daemon off; pid {folder}/pid; error_log stderr;\n\
             events { worker_connections 768; }\n\
             stream { server { listen 127.0.0.1:{port}; return \"$time_local\\r\\n\"; } }\n",
        )],
    ),
    Recipe::new(
        "ncat",
        "--exec /bin/date",
        "ncat --version",
        &["ncat -l -k 127.0.0.1 {port} --exec /bin/date"],
    ),
    Recipe::new(
        "socat",
        "fork, EXEC:/bin/date",
        "socat -V | grep version",
        &["socat TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork EXEC:/bin/date"],
    ),
    Recipe::new("xinetd", "internal daytime", "xinetd -version", &[XINETD]).with(&[(
        "conf",
        "service daytime\n{\n type = INTERNAL UNLISTED\n socket_type = stream\n protocol = tcp\n\
         wait = no\n port = {port}\n bind = 127.0.0.1\n}\n",
    )]),
    Recipe::new(
        "inetutils-inetd",
        "/bin/date",
        "inetutils-inetd --version",
        &["inetutils-inetd -d --pidfile={folder}/pid {folder}/conf"],
    )
    .with(&[("conf", "127.0.0.1:{port} stream tcp4 nowait root /bin/date date\n")]),
    MIO_EXAMPLE,
    Recipe::new(
        "Twisted",
        "protocols.wire.Daytime",
        "python3 -c 'import twisted; print(twisted.__version__)'",
        &["python3 {folder}/time.py"],
    )
    .with(&[(
        "time.py",
        "from twisted.internet import protocol, reactor\n\
         from twisted.protocols.wire import Daytime\n\
         reactor.listenTCP({port}, protocol.Factory.forProtocol(Daytime), interface='127.0.0.1')\n\
         reactor.run()\n",
    )])
    .needing("python3 -c 'import twisted'", "run `pip install twisted`"),
];

const XINETD: &str = "xinetd -dontfork -pidfile {folder}/pid -f {folder}/conf";
