//! `examples/clients/contract.json` holds for the Rust API, for the pipe, and in other languages.
#![cfg(all(feature = "cli", unix))]

mod common;
#[allow(dead_code)]
#[path = "cli/program.rs"]
mod program;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use campanile::Limits;
use campanile::testing::{Fault, Guard, Ledger, Side, TestServer, Who};
use serde_json::{Value, json};

use common::{DEADLINE, connect, eventually, skip};
use program::{Watchdog, campanile, run};

const CLIENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/clients");

/// A server in the terms of the contract.
trait Server {
    fn addr(&mut self, service: &str) -> SocketAddr;
    /// Adds a fault under a name; returns its text.
    fn fault(&mut self, name: &str, spec: &str) -> Result<String, String>;
    fn remove(&mut self, name: &str);
    fn clear(&mut self) -> u64;
    fn advance(&mut self, by: Duration);
    /// The ledgers of the open connections.
    fn open(&mut self) -> Vec<Value>;
    /// Waits for the ledger of a connection that has ended.
    fn closed(&mut self, peer: &str) -> Value;
}

/// The Rust API.
struct Api<'a> {
    server: &'a TestServer,
    guards: HashMap<String, Guard<'a>>,
}

impl Server for Api<'_> {
    fn addr(&mut self, service: &str) -> SocketAddr {
        self.server.service(service).addr()
    }

    fn fault(&mut self, name: &str, spec: &str) -> Result<String, String> {
        let fault: Fault = spec.parse().map_err(|error| format!("{error}"))?;
        fault.check_service(&["daytime", "echo"]).map_err(|error| error.to_string())?;
        let text = fault.to_string();
        let whom = fault.whom.clone().expect("a service");
        let server: &TestServer = self.server;
        let service = server.service(&whom.service);
        let mut nameless = fault.clone();
        nameless.whom = None;
        match whom.who {
            Who::Every => {
                let name = if name.is_empty() { spec } else { name };
                self.guards.insert(name.to_owned(), service.always(nameless));
            }
            Who::Once => _ = service.once(nameless),
            _ => self.server.fault(fault),
        }
        Ok(text)
    }

    fn remove(&mut self, name: &str) {
        drop(self.guards.remove(name).expect("a fault of this name"));
    }

    fn clear(&mut self) -> u64 {
        self.guards.drain().count() as u64
    }

    fn advance(&mut self, by: Duration) {
        self.server.advance(by);
    }

    fn open(&mut self) -> Vec<Value> {
        let services = [self.server.daytime(), self.server.echo()];
        services.iter().flat_map(|service| service.open()).map(|ledger| row(&ledger)).collect()
    }

    fn closed(&mut self, peer: &str) -> Value {
        eventually(peer, || {
            let ledgers = self.server.ledgers();
            ledgers.iter().find(|ledger| ledger.peer.to_string() == peer).map(row)
        })
    }
}

/// A ledger as the pipe prints it.
fn row(ledger: &Ledger) -> Value {
    let side = |side| match side {
        None => Value::Null,
        Some(Side::We) => "we".into(),
        Some(Side::Peer) => "peer".into(),
    };
    let faults: Vec<_> = ledger.faults.iter().map(ToString::to_string).collect();
    json!({
        "peer": ledger.peer.to_string(), "bytes_in": ledger.bytes_in, "bytes_out": ledger.bytes_out,
        "reason": ledger.reason, "write_sizes": ledger.write_sizes, "faults": faults,
        "first_end": side(ledger.first_end), "reset_by": side(ledger.reset_by),
    })
}

/// The program, with nothing but its stdin and its stdout.
struct Pipe {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    unread: Vec<Value>,
    ids: HashMap<String, u64>,
    _watchdog: Watchdog,
}

impl Pipe {
    fn start(options: &Value) -> Pipe {
        let mut command = campanile();
        command.args(["serve", "--pipe", "-q", "--clock=2014-01-29T19:14:15Z"]);
        command.arg("--zone=utc").stdin(Stdio::piped()).stdout(Stdio::piped());
        for (name, value) in options.as_object().expect("options") {
            let flag = format!("--{}", name.replace('_', "-"));
            match value {
                Value::Bool(_) => _ = command.arg(flag),
                Value::Array(faults) => {
                    command.args(faults.iter().map(|fault| format!("--fault={}", text(fault))));
                }
                value => _ = command.arg(format!("{flag}={}", value.to_string().trim_matches('"'))),
            }
        }
        let mut child = command.spawn().expect("the program starts");
        Pipe {
            _watchdog: Watchdog::new(child.id()),
            stdin: child.stdin.take().unwrap(),
            stdout: BufReader::new(child.stdout.take().unwrap()),
            child,
            unread: Vec::new(),
            ids: HashMap::new(),
        }
    }

    /// Returns the next event that is wanted. The others stay.
    fn next(&mut self, is_wanted: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.unread.iter().position(&is_wanted) {
            return self.unread.remove(at);
        }
        loop {
            let mut line = String::new();
            self.stdout.read_line(&mut line).unwrap();
            let event: Value = serde_json::from_str(&line).expect("an event before stdout ends");
            if is_wanted(&event) {
                return event;
            }
            self.unread.push(event);
        }
    }

    fn ask(&mut self, command: &str, answer: &str) -> Result<Value, String> {
        writeln!(self.stdin, "{command}").unwrap();
        let event = self.next(|event| event["event"] == answer || event["event"] == "wrong_fault");
        if event["event"] == answer { Ok(event) } else { Err(text(&event["error"]).to_owned()) }
    }

    fn ended(mut self) {
        drop(self.stdin);
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

impl Server for Pipe {
    fn addr(&mut self, service: &str) -> SocketAddr {
        let is_wanted =
            |event: &Value| event["event"] == "listening" && event["service"] == service;
        let event = self.next(is_wanted);
        let addr = text(&event["addr"]).parse().unwrap();
        self.unread.push(event);
        addr
    }

    fn fault(&mut self, name: &str, spec: &str) -> Result<String, String> {
        let event = self.ask(spec, "fault")?;
        self.ids.insert(name.to_owned(), event["id"].as_u64().expect("an id"));
        Ok(text(&event["fault"]).to_owned())
    }

    fn remove(&mut self, name: &str) {
        let id = self.ids[name];
        let ended = self.ask(&format!("remove {id}"), "fault_ended").unwrap();
        assert_eq!(ended["id"], id);
    }

    fn clear(&mut self) -> u64 {
        self.ask("clear", "cleared").unwrap()["count"].as_u64().unwrap()
    }

    fn advance(&mut self, by: Duration) {
        self.ask(&format!("advance {}us", by.as_micros()), "advanced").unwrap();
    }

    fn open(&mut self) -> Vec<Value> {
        let count = self.ask("connections", "listed").unwrap()["count"].as_u64().unwrap();
        (0..count).map(|_| self.next(|event| event["event"] == "open")).collect()
    }

    fn closed(&mut self, peer: &str) -> Value {
        self.next(|event| event["event"] == "closed" && event["peer"] == peer)
    }
}

/// A client, until it closes, and its address.
type Client = (Option<TcpStream>, String);

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

fn contract() -> Value {
    let path = format!("{CLIENTS}/contract.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn situations() -> Vec<Value> {
    contract()["situations"].as_array().unwrap().clone()
}

/// The verb of a step: the first key in the text, which is the one that `verbs` documents.
fn verb<'a>(step: &'a Value, verbs: &Value) -> &'a str {
    let mut found = step.as_object().unwrap().keys().filter(|key| verbs.get(key).is_some());
    let verb = found.next().unwrap_or_else(|| panic!("{step} has no verb"));
    assert_eq!(found.next(), None, "{step} has two verbs");
    verb
}

/// Compares the keys of a ledger that a step names.
fn agrees(row: &Value, step: &Value, verb: &str) -> bool {
    let mut keys = step.as_object().unwrap().iter().filter(|(key, _)| *key != verb);
    keys.all(|(key, value)| row[key] == *value)
}

fn take(server: &mut dyn Server, clients: &mut HashMap<String, Client>, step: &Value, verb: &str) {
    let value = &step[verb];
    if let Some((client, peer)) = value.as_str().and_then(|name| clients.get_mut(name)) {
        match (verb, client) {
            ("open", _) => return wait_for_open(server, peer, step),
            ("closed", _) => {
                let row = server.closed(peer);
                assert!(agrees(&row, step, verb), "{step}: {row}");
            }
            ("close", client) => *client = None,
            (_, Some(client)) => talk(client, step, verb),
            (_, None) => panic!("{step}: the client has closed"),
        }
        return;
    }
    match verb {
        "fault" => {
            let name = step.get("as").map_or("", text);
            let answer = step.get("answer").unwrap_or(value);
            assert_eq!(server.fault(name, text(value)), Ok(text(answer).to_owned()), "{step}");
        }
        "wrong" => {
            let error = server.fault("", text(value)).expect_err("it is refused");
            assert!(error.contains(text(&step["error"])), "{step}: {error}");
        }
        "remove" => server.remove(text(value)),
        "clear" => assert_eq!(server.clear(), value.as_u64().unwrap(), "{step}"),
        "advance" => server.advance(Duration::from_secs_f64(value.as_f64().unwrap())),
        "listed" => assert_eq!(server.open().len() as u64, value.as_u64().unwrap(), "{step}"),
        "connect" => {
            let addr = server.addr(text(&step["to"]));
            if let Some(fails) = step.get("fails") {
                let (expected, timeout) = match text(fails) {
                    "refused" => (ErrorKind::ConnectionRefused, DEADLINE),
                    _ => (ErrorKind::TimedOut, Duration::from_millis(300)),
                };
                let failed = TcpStream::connect_timeout(&addr, timeout);
                let kind = failed.map(|_| ()).map_err(|error| error.kind());
                assert_eq!(kind, Err(expected), "{step}");
            } else {
                let client = connect(addr);
                let peer = client.local_addr().unwrap().to_string();
                clients.insert(text(value).to_owned(), (Some(client), peer));
            }
        }
        _ => panic!("{step}: no client of this name, or an unknown verb"),
    }
}

/// Waits until the list of open connections has the connection, with the ledger of the step.
fn wait_for_open(server: &mut dyn Server, peer: &str, step: &Value) {
    let began = Instant::now();
    loop {
        let rows = server.open();
        if rows.iter().any(|row| row["peer"] == peer && agrees(row, step, "open")) {
            return;
        }
        assert!(began.elapsed() < DEADLINE, "{step}: {rows:?}");
    }
}

/// Takes a step of an open client.
fn talk(client: &mut TcpStream, step: &Value, verb: &str) {
    match verb {
        "send" => client.write_all(text(&step["text"]).as_bytes()).unwrap(),
        "finish" => client.shutdown(Shutdown::Write).unwrap(),
        "receive" => {
            let expected = text(&step["text"]);
            let received = common::read_exactly(client, expected.len());
            assert_eq!(String::from_utf8_lossy(&received), expected, "{step}");
        }
        "end" => {
            let by = match client.read(&mut [0]) {
                Ok(0) => "eof",
                Err(error) if error.kind() == ErrorKind::ConnectionReset => "reset",
                other => panic!("{step}: {other:?}"),
            };
            assert_eq!(by, text(&step["by"]), "{step}");
        }
        "silent" => {
            client.set_nonblocking(true).unwrap();
            let found = client.read(&mut [0]).map_err(|error| error.kind());
            assert_eq!(found, Err(ErrorKind::WouldBlock), "{step}");
            client.set_nonblocking(false).unwrap();
        }
        _ => panic!("{step}: unknown verb"),
    }
}

/// Takes all steps of a situation.
fn hold(server: &mut dyn Server, situation: &Value, verbs: &Value) {
    let mut clients = HashMap::new();
    for step in situation["steps"].as_array().unwrap() {
        take(server, &mut clients, step, verb(step, verbs));
    }
}

#[test]
fn the_rust_api_holds_the_contract() {
    let verbs = &contract()["verbs"];
    let mut count = 0;
    for situation in situations() {
        if situation["pipe"] == true {
            continue;
        }
        println!("{}", situation["name"]);
        let mut builder = TestServer::builder();
        for (name, value) in situation["options"].as_object().unwrap() {
            builder = match &**name {
                "manual_time" => builder.manual_time(),
                "seed" => builder.seed(value.as_u64().unwrap()),
                "idle" => builder.limits(Limits::default().idle_timeout(Duration::from_secs(
                    text(value).trim_end_matches('s').parse().unwrap(),
                ))),
                "faults" => {
                    let faults = value.as_array().unwrap();
                    faults.iter().fold(builder, |builder, fault| builder.fault(text(fault)))
                }
                name => panic!("unknown option {name}"),
            };
        }
        let server = builder.start();
        hold(&mut Api { server: &server, guards: HashMap::new() }, &situation, verbs);
        count += 1;
    }
    assert_eq!(count, 39);
}

#[test]
fn the_pipe_holds_the_contract() {
    let (verbs, situations) = (&contract()["verbs"], situations());
    assert_eq!(situations.len(), 41);
    for situation in situations {
        println!("{}", situation["name"]);
        let mut pipe = Pipe::start(&situation["options"]);
        hold(&mut pipe, &situation, verbs);
        pipe.ended();
    }
}

/// Runs the tests of a client, if `probe` finds its language.
fn test_client(folder: &str, probe: &str, tests: &str) {
    let folder = Path::new(CLIENTS).join(folder);
    let shell = |text: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", text]).current_dir(&folder).stdin(Stdio::null());
        shell.env("CAMPANILE_PROGRAM", campanile().get_program());
        shell.env("PYTHONDONTWRITEBYTECODE", "1").env("PYTHONPATH", folder.join("src"));
        // A package that is installed is not loaded a second time.
        shell.env("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1");
        run(shell.env("PYTEST_PLUGINS", "campanile.plugin"))
    };
    if shell(probe).code != Some(0) {
        skip(format!("`{probe}` fails, so `{tests}` is not run"));
        return;
    }
    let ended = shell(tests);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
}

#[test]
fn the_package_for_python_holds_the_contract() {
    let probe = "python3 -c 'import pytest, sys; sys.exit(sys.version_info < (3, 10))'";
    // `.ci/run` runs all tests of the package.
    let tests =
        "python3 -m pytest -q tests/test_contract.py tests/test_fixture.py tests/test_clients.py";
    test_client("python", probe, tests);
}

#[test]
fn the_file_for_node_holds_the_contract() {
    test_client("", "node --version", "node --test contract.test.mjs naive.test.mjs");
}

#[test]
fn the_file_for_go_holds_the_contract() {
    let tests = "go test campanile_test.go naive_test.go contract_test.go";
    test_client("", "go version", tests);
}
