//! The recipes of the page "Faults in front of your own server", against Redis.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use campanile::testing::{Builder, Fault, Side, TestServer};

use crate::common::{DEADLINE, Folder, connect, eventually, skip};

const MS: Duration = Duration::from_millis(1);

/// A Redis of the test's own. It ends when dropped.
struct Redis {
    child: Child,
    addr: SocketAddr,
    _folder: Folder,
}

impl Redis {
    /// Starts it and waits until it answers; `None`, with a recorded skip, if it is not installed.
    fn start(name: &str) -> Option<Redis> {
        let folder = Folder::new(&format!("redis-{name}"));
        loop {
            let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let child = Command::new("redis-server")
                .args(["--bind", "127.0.0.1", "--port", &addr.port().to_string(), "--save", ""])
                .args(["--appendonly", "no", "--dir"])
                .arg(folder.join(""))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn();
            let Ok(mut child) = child else {
                skip("redis-server is not installed");
                return None;
            };
            let has_started = eventually("a redis-server that listens", || {
                let has_ended = child.try_wait().unwrap().is_some();
                if has_ended { Some(false) } else { TcpStream::connect(addr).ok().map(|_| true) }
            });
            // Another process may have taken the port meanwhile.
            if has_started {
                return Some(Redis { child, addr, _folder: folder });
            }
        }
    }

    fn client(&self) -> Client {
        Client(BufReader::new(connect(self.addr)))
    }

    /// Starts a proxy of this name in front of it.
    fn behind(&self, name: &str, builder: Builder) -> TestServer {
        builder.proxy(name, self.addr).start()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client of Redis, over the protocol RESP.
struct Client(BufReader<TcpStream>);

impl Client {
    /// Connects through a proxy, and makes sure that the server answers.
    fn through(server: &TestServer, name: &str) -> Client {
        let mut client = Client(BufReader::new(server.proxy(name).connect()));
        assert_eq!(client.ask(&["PING"]).unwrap(), "PONG");
        client
    }

    fn send(&mut self, words: &[&str]) -> io::Result<()> {
        let parts = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len()));
        let command = format!("*{}\r\n{}", words.len(), parts.collect::<String>());
        self.0.get_mut().write_all(command.as_bytes())
    }

    /// Reads a reply. The elements of an array are separated by spaces.
    fn receive(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        let Some(line) = line.strip_suffix("\r\n") else {
            return Err(ErrorKind::UnexpectedEof.into());
        };
        let (kind, rest) = line.split_at(1);
        match kind {
            "$" if rest == "-1" => Ok("nil".into()),
            "$" => {
                let mut bytes = vec![0; rest.parse::<usize>().unwrap() + 2];
                self.0.read_exact(&mut bytes)?;
                bytes.truncate(bytes.len() - 2);
                Ok(String::from_utf8(bytes).unwrap())
            }
            "*" => {
                let count: usize = rest.parse().unwrap();
                Ok((0..count).map(|_| self.receive()).collect::<io::Result<Vec<_>>>()?.join(" "))
            }
            _ => Ok(rest.into()),
        }
    }

    fn ask(&mut self, words: &[&str]) -> io::Result<String> {
        self.send(words)?;
        self.receive()
    }

    /// Asks and expects an error of this kind.
    #[track_caller]
    fn fails(&mut self, words: &[&str], kind: ErrorKind) {
        assert_eq!(self.ask(words).map_err(|error| error.kind()), Err(kind));
    }

    fn set_timeout(&self, timeout: Duration) {
        let stream = self.0.get_ref();
        stream.set_read_timeout(Some(timeout)).unwrap();
        stream.set_write_timeout(Some(timeout)).unwrap();
    }
}

#[test]
fn every_fault_of_the_page_is_one() {
    let page = include_str!("../../src/guide/own_server.md");
    let blocks = page.split("```text\n").skip(1).flat_map(|part| part.split("```").next());
    let words = blocks.flat_map(str::lines).chain(page.split('`').skip(1).step_by(2));
    let faults: Vec<_> = words
        .filter(|text| {
            text.contains(": ") && text.starts_with(['d', 'f']) && !text.ends_with("...")
        })
        .map(|text| text.parse::<Fault>().map_err(|error| format!("{text}: {error}")))
        .collect();
    assert!(faults.len() > 12, "{}", faults.len());
    assert_eq!(faults.iter().find(|fault| fault.is_err()), None);
}

#[test]
fn a_query_that_never_returns_times_out_and_the_next_connection_works() {
    let Some(redis) = Redis::start("stall") else { return };
    let server = redis.behind("db", TestServer::builder());
    let mut direct = redis.client();
    direct.ask(&["MSET", "a", "1", "b", "2"]).unwrap();
    let mut first = Client::through(&server, "db");
    server.fault("db #1: stall");
    first.set_timeout(50 * MS);
    first.fails(&["GET", "a"], ErrorKind::WouldBlock);
    drop(first);
    assert_eq!(Client::through(&server, "db").ask(&["GET", "a"]).unwrap(), "1");
    // A client that keeps the connection takes the late answer for that of its next query.
    let mut kept = Client::through(&server, "db");
    let stall = server.proxy("db").always("stall");
    kept.set_timeout(50 * MS);
    kept.fails(&["GET", "a"], ErrorKind::WouldBlock);
    drop(stall);
    kept.set_timeout(DEADLINE);
    assert_eq!(kept.ask(&["GET", "b"]).unwrap(), "1");
    assert_eq!(kept.receive().unwrap(), "2");
}

#[test]
fn a_pool_whose_connections_die_while_idle_recovers_with_one_new_connection() {
    let Some(redis) = Redis::start("pool") else { return };
    let server = redis.behind("db", TestServer::builder());
    let mut pool: Vec<_> = (0..3).map(|_| Client::through(&server, "db")).collect();
    drop(server.proxy("db").always("reset"));
    // A client that tries each pooled connection fails three times.
    for client in &mut pool {
        assert_eq!(client.receive().unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    let _new = Client::through(&server, "db");
    assert_eq!(server.proxy("db").accepted(), 4);
    // Redis has lost the dead connections, too: the new one is left, and the one that asks.
    let mut direct = redis.client();
    eventually("two clients", || {
        (direct.ask(&["CLIENT", "LIST"]).unwrap().lines().count() == 2).then_some(())
    });
    // A firewall forgets the connections that are idle, and lets new ones through.
    let mut pool: Vec<_> = (5..=7).map(|_| Client::through(&server, "db")).collect();
    server.fault("db #5..7: stall");
    server.fault("db #5..7: deaf");
    for client in &mut pool {
        client.set_timeout(20 * MS);
        client.fails(&["PING"], ErrorKind::WouldBlock);
    }
    Client::through(&server, "db");
}

#[test]
fn a_retry_repeats_a_write_whose_answer_breaks_off_unless_the_write_has_a_key() {
    let Some(redis) = Redis::start("retry") else { return };
    let server = redis.behind("db", TestServer::builder());
    let mut direct = redis.client();
    let reset = ErrorKind::ConnectionReset;
    let mut client = Client::through(&server, "db");
    server.fault("db #1: reset after 1 bytes");
    client.fails(&["INCR", "rows"], reset);
    assert_eq!(direct.ask(&["GET", "rows"]).unwrap(), "1");
    assert_eq!(Client::through(&server, "db").ask(&["INCR", "rows"]).unwrap(), "2");
    let payment = ["SET", "payment-7", "1", "NX"];
    let mut client = Client::through(&server, "db");
    server.fault("db #3: reset after 1 bytes");
    client.fails(&payment, reset);
    assert_eq!(Client::through(&server, "db").ask(&payment).unwrap(), "nil");
    // Before the server has the statement, a retry is right.
    let mut client = Client::through(&server, "db");
    let before = server.proxy("db").upstream().open();
    let before = before.iter().find(|ledger| ledger.id == 5).unwrap().bytes_out;
    server.fault("db #5: reset after 1 bytes in");
    client.fails(&["INCR", "rows"], reset);
    let far = std::iter::repeat_with(|| server.proxy("db").upstream().ended());
    let far = far.into_iter().find(|ledger| ledger.id == 5).unwrap();
    assert!(far.bytes_out <= before + 1, "{far}");
    assert_eq!(direct.ask(&["GET", "rows"]).unwrap(), "2");
    assert_eq!(Client::through(&server, "db").ask(&["INCR", "rows"]).unwrap(), "3");
}

/// Publishes messages until Redis holds more than a mebibyte for its subscriber, or has disconnected
/// it. Returns the number of messages.
fn publish_until_queued(direct: &mut Client) -> usize {
    let message = "x".repeat(64 << 10);
    for count in 1..1000 {
        direct.ask(&["PUBLISH", "news", &message]).unwrap();
        let clients = direct.ask(&["CLIENT", "LIST"]).unwrap();
        let Some(subscriber) = clients.lines().find(|line| line.contains(" sub=1 ")) else {
            return count;
        };
        let queued = subscriber.split_once(" omem=").unwrap().1.split(' ').next().unwrap();
        if queued.parse::<usize>().unwrap() > 1 << 20 {
            return count;
        }
    }
    panic!("the queue of the server for its subscriber stays small");
}

#[test]
fn a_slow_consumer_fills_the_queue_of_the_server_and_then_receives_everything() {
    let Some(redis) = Redis::start("slow") else { return };
    let server = redis.behind("feed", TestServer::builder());
    let feed = server.proxy("feed");
    let mut direct = redis.client();
    let mut subscriber = Client::through(&server, "feed");
    assert_eq!(subscriber.ask(&["SUBSCRIBE", "news"]).unwrap(), "subscribe news 1");
    // It reads all the time.
    let (tell, received) = mpsc::channel();
    let reading = thread::spawn(move || while tell.send(subscriber.receive()).is_ok() {});
    for (side, effect) in [(feed, "rate 1KiB/s"), (feed.upstream(), "deaf")] {
        let fault = side.always(effect);
        let count = publish_until_queued(&mut direct);
        // The proxy holds a little, and the clients without the proxy are served.
        let held = feed.upstream().open()[0].bytes_in - feed.open()[0].bytes_out;
        assert!(held <= 96 << 10, "{held} bytes");
        assert_eq!(direct.ask(&["PING"]).unwrap(), "PONG");
        drop(fault);
        for _ in 0..count {
            let message = received.recv_timeout(DEADLINE).unwrap().unwrap();
            assert_eq!(message.len(), "message news ".len() + (64 << 10));
        }
    }
    // A server that disconnects a slow consumer.
    direct.ask(&["CONFIG", "SET", "client-output-buffer-limit", "pubsub 512kb 0 0"]).unwrap();
    let deaf = feed.upstream().always("deaf");
    publish_until_queued(&mut direct);
    drop(deaf);
    let end = received.iter().find_map(Result::err).unwrap();
    assert_eq!(end.kind(), ErrorKind::UnexpectedEof);
    drop(received);
    reading.join().unwrap();
    assert_eq!(feed.upstream().ended().first_end, Some(Side::Peer));
    // Uploads of the client wait in the client.
    let mut uploader = Client::through(&server, "feed");
    let deaf = feed.always("deaf");
    uploader.set_timeout(50 * MS);
    let sent = uploader.send(&["SET", "large", &"x".repeat(64 << 20)]);
    assert_eq!(sent.unwrap_err().kind(), ErrorKind::WouldBlock);
    drop(deaf);
}

#[test]
fn a_server_that_restarts_in_the_middle_of_a_reply_cuts_it_and_refuses_for_a_while() {
    let Some(redis) = Redis::start("restart") else { return };
    let server = redis.behind("db", TestServer::builder().manual_time());
    redis.client().ask(&["SET", "long", &"x".repeat(4000)]).unwrap();
    let mut client = Client::through(&server, "db");
    server.fault("db #1: close after 1000 bytes");
    server.fault("db: refuse for 2s");
    client.fails(&["GET", "long"], ErrorKind::UnexpectedEof);
    drop(client);
    let before = "+PONG\r\n".len() as u64;
    assert_eq!(server.proxy("db").ended().bytes_out, before + 1000);
    let addr = server.proxy("db").addr();
    let failure = |timeout| TcpStream::connect_timeout(&addr, timeout).unwrap_err().kind();
    assert_eq!(failure(DEADLINE), ErrorKind::ConnectionRefused);
    server.advance(1999 * MS);
    assert_eq!(failure(DEADLINE), ErrorKind::ConnectionRefused);
    server.advance(MS);
    assert_eq!(Client::through(&server, "db").ask(&["GET", "long"]).unwrap().len(), 4000);
    assert_eq!(server.proxy("db").accepted(), 2);
    #[cfg(target_os = "linux")]
    {
        server.fault("db: unreachable for 2s");
        assert_eq!(failure(100 * MS), ErrorKind::TimedOut);
        server.advance(Duration::from_secs(2));
        Client::through(&server, "db");
    }
}
