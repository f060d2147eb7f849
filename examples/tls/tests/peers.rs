//! The layer behind sockets, with `openssl s_client` and rustls as peers. It needs the program openssl.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use campanile::services::Echo;
use campanile::{Background, Limits, Outbox, Protocol, Reactor};
use rustls::{ClientConfig, ClientConnection, ServerConnection, StreamOwned};
use tls::{Tls, configs};

const DEADLINE: Duration = Duration::from_secs(30);

fn serve<P: Protocol>(
    limits: Limits,
    mut make: impl FnMut() -> P + Send + 'static,
) -> (Background, SocketAddr, Arc<ClientConfig>) {
    let (server, client) = configs().unwrap();
    let (background, addr) = Background::start(limits, move |reactor| {
        reactor.listen("127.0.0.1:0", move |_| {
            Tls::new(ServerConnection::new(Arc::clone(&server)).unwrap(), make())
        })
    })
    .unwrap();
    (background, addr, client)
}

fn connection(config: &Arc<ClientConfig>) -> ClientConnection {
    ClientConnection::new(Arc::clone(config), "localhost".try_into().unwrap()).unwrap()
}

type Client = StreamOwned<ClientConnection, TcpStream>;

fn connect(addr: SocketAddr, config: &Arc<ClientConfig>) -> Client {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    StreamOwned::new(connection(config), stream)
}

/// Sends close_notify and then reads to the server's. An EOF without it is an error.
fn finish(client: &mut Client) -> Vec<u8> {
    client.conn.send_close_notify();
    client.flush().unwrap();
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).unwrap();
    bytes
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 % 251) as u8).collect()
}

/// A program; killed on drop.
struct Program(Child);

impl Program {
    fn start(program: &str, args: &[&str]) -> (Program, BufReader<ChildStdout>) {
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("openssl is installed: these tests need it");
        let stdout = BufReader::new(child.stdout.take().unwrap());
        (Program(child), stdout)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn read_line(from: &mut impl BufRead) -> String {
    let mut line = String::new();
    from.read_line(&mut line).unwrap();
    line
}

#[test]
fn openssl_clients_of_the_program_chat_and_end_with_close_notify_from_either_side() {
    let (_server, mut stdout) = Program::start(env!("CARGO_BIN_EXE_tls"), &["chat", "127.0.0.1:0"]);
    let line = read_line(&mut stdout);
    let addr = line.trim().strip_prefix("tls ").expect("an address line").to_string();
    let join = |version: &str| {
        let args = ["s_client", "-quiet", "-no_ign_eof", version, "-connect", &addr];
        let (client, mut lines) = Program::start("openssl", &args);
        assert!(read_line(&mut lines).starts_with("Welcome. "));
        (client, lines)
    };
    let (mut alice, mut to_alice) = join("-tls1_3");
    let (mut bob, mut to_bob) = join("-tls1_2");
    assert_eq!(read_line(&mut to_alice), "#2: joined\n");
    alice.0.stdin.as_mut().unwrap().write_all(b"hello\n").unwrap();
    assert_eq!(read_line(&mut to_bob), "#1: hello\n");
    // The end of its input makes openssl send close_notify.
    drop(bob.0.stdin.take());
    assert!(bob.0.wait().unwrap().success());
    assert_eq!(read_line(&mut to_alice), "#2: left: finished\n");
    // The chat closes a connection with too long a line. Without close_notify, openssl would report
    // "unexpected eof while reading".
    alice.0.stdin.as_mut().unwrap().write_all(&[b'x'; 5000]).unwrap();
    assert_eq!(read_line(&mut to_alice), "Closed: a line may have 4096 bytes.\n");
    let mut errors = String::new();
    alice.0.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert!(alice.0.wait().unwrap().success() && !errors.contains("unexpected eof"), "{errors}");
}

#[test]
fn one_mebibyte_sent_before_the_first_read_comes_back_with_close_notify() {
    let (server, addr, config) = serve(Limits::default(), || Echo);
    let mut client = connect(addr, &config);
    let bytes = pattern(1 << 20);
    client.write_all(&bytes).unwrap();
    assert!(finish(&mut client) == bytes, "the bytes differ");
    drop(client);
    assert_eq!(server.shutdown(DEADLINE).unwrap().our_resets, 0);
}

/// Sends 20 MiB as fast as the peer reads.
struct Source(usize);

impl Protocol for Source {
    fn on_open(&mut self, out: &mut Outbox) {
        self.on_drain(out);
    }

    fn on_data(&mut self, _: &[u8], _: &mut Outbox) {}

    fn on_drain(&mut self, out: &mut Outbox) {
        while self.0 > 0 && !out.is_congested() {
            out.send(&[b'x'; 1024]);
            self.0 -= 1024;
        }
        if self.0 == 0 {
            out.close();
        }
    }
}

#[test]
fn a_long_reply_stays_within_a_small_send_queue() {
    // Without back-pressure through the layer, the queue overflows or the protocol is never drained.
    let limits = Limits::default().max_send_queue(80 << 10);
    let (_server, addr, config) = serve(limits, || Source(20 << 20));
    let mut client = connect(addr, &config);
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len(), 20 << 20);
}

#[test]
fn a_broadcast_reaches_each_client_encrypted() {
    let (server, addr, config) = serve(Limits::default(), || Echo);
    let mut clients = [connect(addr, &config), connect(addr, &config)];
    for client in &mut clients {
        client.write_all(b"hello").unwrap();
        client.read_exact(&mut [0; 5]).unwrap();
    }
    server.handle().broadcast(None, *b"news").unwrap();
    for mut client in clients {
        assert_eq!(finish(&mut client), b"news");
    }
}

/// Sends a line, and passes on what comes back.
struct Ask(mpsc::Sender<Vec<u8>>);

impl Protocol for Ask {
    fn on_open(&mut self, out: &mut Outbox) {
        out.send(b"from a reactor");
        out.half_close();
    }

    fn on_data(&mut self, data: &[u8], _: &mut Outbox) {
        self.0.send(data.to_vec()).unwrap();
    }
}

#[test]
fn the_layer_is_a_client_as_well() {
    let (_server, addr, config) = serve(Limits::default(), || Echo);
    let (sender, receiver) = mpsc::channel();
    let mut reactor = Reactor::new().unwrap();
    reactor.connect(addr, Tls::new(connection(&config), Ask(sender)));
    while reactor.connections() > 0 {
        reactor.turn(Some(DEADLINE)).unwrap();
    }
    assert_eq!(receiver.iter().collect::<Vec<_>>().concat(), b"from a reactor");
    assert_eq!(reactor.stats().our_resets, 0);
}
