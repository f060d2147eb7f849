//! `campanile proxy` and `serve --proxy`: an own server behind faults.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use super::faults::{Telling, next};
use super::program::{Ended, Folder, Server, campanile, run_words};
use crate::common::{DEADLINE, TUTORIAL_LINE, pattern, ping, read_all, read_exactly, skip};

fn proxy<S: AsRef<std::ffi::OsStr>>(words: impl IntoIterator<Item = S>) -> Command {
    let mut command = campanile();
    command.arg("proxy").args(words);
    command
}

/// The address on the line of a service, as text.
fn line<'a>(server: &'a Server, name: &str) -> &'a str {
    let mut lines = server.lines.lines().filter_map(|line| line.split_once(' '));
    let found = lines.find(|(service, _)| *service == name);
    found.unwrap_or_else(|| panic!("no {name} in {:?}", server.lines)).1
}

fn addr(server: &Server, name: &str) -> SocketAddr {
    line(server, name).parse().unwrap()
}

/// A client. `connect_timeout` reads SO_ERROR, and would report a reset that follows at once.
fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// A port of loopback without a server.
fn unused() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Climbs both ladders through a proxy. `at` is an address for the server or the proxy of a service.
fn climb(at: impl Fn(&str) -> String) {
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let climbs = std::env::var("CAMPANILE_CLIMBS").map_or(2, |text| text.parse().unwrap());
    for _ in 0..climbs {
        let behind = ["-d", &at("time"), "-e", &at("voice"), "-q"];
        let behind = Server::spawn(campanile().arg("serve").args(behind));
        let front = Server::spawn(&mut proxy([
            format!("d={}>{}", at("front-time"), line(&behind, "daytime")),
            format!("e={}>{}", at("front-voice"), line(&behind, "echo")),
        ]));
        for (service, name, rungs) in [("echo", "e", 8), ("daytime", "d", 6)] {
            let words = ["check", service, line(&front, name), "--timeout", "30s"];
            let Ended { code, stdout, stderr } = run_words(words);
            let is_whole = stdout.contains(&format!("{rungs} of {rungs}"));
            assert!(code == Some(0) && is_whole, "{code:?} {stdout}{stderr}");
        }
        let log = front.stop();
        assert!(log.contains("Relaying for ") && !log.contains("cannot connect"), "{log}");
        behind.stop();
    }
}

#[test]
fn check_reaches_every_rung_through_a_proxy_over_ipv4() {
    climb(|_| "127.0.0.1:0".into());
}

#[test]
fn check_reaches_every_rung_through_a_proxy_over_ipv6() {
    if TcpListener::bind("[::1]:0").is_err() {
        return skip("this machine has no ::1");
    }
    climb(|_| "[::1]:0".into());
}

#[test]
fn check_reaches_every_rung_through_a_proxy_over_unix_sockets() {
    let folder = Folder::new("proxy-check");
    climb(|name| format!("unix:{}", folder.join(name).display()));
}

#[test]
fn two_addresses_are_a_proxy_named_proxy_and_it_stands_in_the_ready_file() {
    let behind = Server::start(&["-q"]);
    let folder = Folder::new("proxy-ready");
    let path = folder.join("ready");
    let words = ["0", &behind.echo().to_string(), "--ready-file", path.to_str().unwrap()];
    let front = Server::spawn(&mut proxy(words));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), front.lines);
    ping(&mut connect(addr(&front, "proxy")), b"Hello, world");
    front.stop();
    assert!(!path.exists());
}

#[test]
fn serve_runs_proxies_beside_its_services_and_each_has_its_faults() {
    let behind = Server::start(&["-q", "--clock", "2014-01-29T19:14:15Z", "--zone", "utc"]);
    let (a, b) = (format!("a=0>{}", behind.echo()), format!("b=0>{}", behind.daytime()));
    let faults = ["--fault", "a: reset after 5 bytes; b: close after 3 bytes"];
    let front = Server::start(&["--proxy", &a, &b, faults[0], faults[1]]);
    ping(&mut connect(front.echo()), b"no fault here");
    let mut client = connect(addr(&front, "a"));
    client.write_all(b"0123456789").unwrap();
    let mut back = Vec::new();
    assert_eq!(client.read_to_end(&mut back).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(back.len() <= 5 && b"01234".starts_with(&back[..]), "{back:?}");
    assert_eq!(read_all(&mut connect(addr(&front, "b"))).unwrap(), TUTORIAL_LINE[..3]);
    front.stop();
}

#[test]
fn the_pipe_adds_a_fault_that_names_a_proxy() {
    let behind = Server::start(&["-q"]);
    let route = format!("db=0>{}", behind.echo());
    let mut child = proxy([&*route, "--pipe"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (mut stdin, mut stdout) =
        (child.stdin.take().unwrap(), std::io::BufReader::new(child.stdout.take().unwrap()));
    let listening = next(&mut stdout);
    assert_eq!((&listening["event"], &listening["service"]), (&"listening".into(), &"db".into()));
    let mut client = connect(listening["addr"].as_str().unwrap().parse().unwrap());
    ping(&mut client, b"before");
    drop(client);
    for (spec, event) in [("db: close after 2 bytes", "fault"), ("echo: reset", "wrong_fault")] {
        writeln!(stdin, "{spec}").unwrap();
        let answer = std::iter::repeat_with(|| next(&mut stdout))
            .find(|event| event["event"].as_str().unwrap().ends_with("fault"));
        assert_eq!(answer.unwrap()["event"], event);
    }
    let mut client = connect(listening["addr"].as_str().unwrap().parse().unwrap());
    client.write_all(b"0123").unwrap();
    assert_eq!(read_all(&mut client).unwrap(), b"01");
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_proxy_that_refuses_from_the_start_refuses_its_first_client() {
    let there = unused().to_string();
    for fault in ["proxy: refuse", "proxy: unreachable"] {
        for _ in 0..20 {
            let front = Server::spawn(&mut proxy(["0", &there, "-q", "--fault", fault]));
            let front_addr = addr(&front, "proxy");
            let limit = Duration::from_millis(if fault.ends_with("refuse") { 5000 } else { 20 });
            let error = TcpStream::connect_timeout(&front_addr, limit).unwrap_err().kind();
            let expected = [ErrorKind::ConnectionRefused, ErrorKind::TimedOut];
            assert_eq!(error, expected[usize::from(!fault.ends_with("refuse"))]);
            front.stop();
        }
    }
}

/// `serve --pipe` with a proxy named db. Returns the proxy's address as well.
fn telling(upstream: &str, words: &[&str]) -> (Telling, SocketAddr) {
    let route = format!("db=0>{upstream}");
    let mut telling = Telling::start(&[&["--pipe", "--proxy", &route], words].concat());
    let listening = telling.next();
    assert_eq!(listening["service"], "db");
    (telling, listening["addr"].as_str().unwrap().parse().unwrap())
}

#[test]
fn the_pipe_faults_and_lists_both_sides_of_a_conversation() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let there = upstream.local_addr().unwrap().to_string();
    let (mut front, db) = telling(&there, &[]);
    let open = || {
        let mut client = connect(db);
        client.write_all(b"query").unwrap();
        let mut server = upstream.accept().unwrap().0;
        assert_eq!(read_exactly(&mut server, 5), b"query");
        (client, server)
    };
    let (mut client, mut server) = open();
    let began: Vec<_> = [(); 2].map(|()| front.next()).into();
    for (event, kind, service) in [(0, "accepted", "db"), (1, "connecting", "db upstream")] {
        let row = &began[event];
        assert_eq!((&row["event"], &row["service"]), (&kind.into(), &service.into()));
        assert_eq!(row["id"], 1);
    }
    assert_eq!(began[1]["peer"], there);
    // A fault of one side acts on that side of the open conversation.
    assert_eq!(front.ask("db upstream #1: deaf")["fault"], "db upstream #1: deaf");
    server.write_all(b"answer").unwrap();
    let rows = front.ask_all("connections");
    let side = |at: usize| {
        let row = &rows[at];
        (row["service"].as_str().unwrap(), row["id"].as_u64(), row["bytes_out"].as_u64())
    };
    assert_eq!((rows.len(), &rows[2]["count"]), (3, &2.into()));
    assert_eq!((side(0), side(1)), (("db", Some(1), Some(0)), ("db upstream", Some(1), Some(5))));
    assert_eq!(rows[1]["faults"], serde_json::json!(["db upstream #1: deaf"]));
    assert_eq!(front.ask("remove 1")["event"], "fault_ended");
    assert_eq!(read_exactly(&mut client, 6), b"answer");
    // The server receives four bytes more and then a reset, which passes on to the client.
    front.ask("db upstream: reset after 4 bytes");
    client.write_all(b"0123456789").unwrap();
    assert_eq!(read_exactly(&mut server, 4), b"0123");
    for end in [&mut server, &mut client] {
        assert_eq!(end.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    let mut closed = [(); 2].map(|()| front.next());
    closed.sort_by_key(|row| row["service"].as_str().unwrap().len());
    assert_eq!((&closed[0]["event"], &closed[1]["event"]), (&"closed".into(), &"closed".into()));
    assert_eq!((&closed[0]["bytes_out"], &closed[1]["bytes_out"]), (&6.into(), &9.into()));
    assert_eq!(closed[1]["reset_by"], "we");
    for (spec, error) in [
        ("dc upstream: reset", "unknown service `dc upstream`: did you mean `db upstream`?"),
        ("echo upstream: reset", "unknown service `echo upstream`"),
        ("db upstream: refuse", "a proxy has no listener upstream: leave out `upstream`"),
        ("db upstrem: reset", "`upstrem`"),
    ] {
        let answer = front.ask(spec);
        assert_eq!(answer["event"], "wrong_fault", "{spec}");
        assert!(answer["error"].as_str().unwrap().contains(error), "{answer}");
    }
}

#[test]
fn a_conversation_whose_server_cannot_be_reached_has_the_reason_and_keeps_no_descriptor() {
    let silent = Telling::start(&["--json", "--fault", "echo: unreachable"]);
    let is_silent = TcpStream::connect_timeout(&silent.echo, Duration::from_millis(50)).is_err();
    let silent_addr = silent.echo.to_string();
    for (upstream, reason) in [
        (unused().to_string(), "cannot connect: Connection refused (os error 111)"),
        (silent_addr, "cannot connect: timed out"),
    ] {
        if reason.ends_with("timed out") && !is_silent {
            skip("the backlog of this kernel does not fill up");
            continue;
        }
        let words = ["--manual-time", "--fault", "db upstream: slice 3"];
        let (mut front, db) = telling(&upstream, &words);
        let descriptors = |front: &Telling| {
            std::fs::read_dir(format!("/proc/{}/fd", front.child.id())).unwrap().count()
        };
        let before = descriptors(&front);
        for _ in 0..5 {
            let mut clients: Vec<_> = (0..20).map(|_| connect(db)).collect();
            let mut events = Vec::new();
            let count = |events: &[serde_json::Value], kind| {
                events.iter().filter(|event| event["event"] == kind).count()
            };
            while count(&events, "connecting") < 20 {
                events.push(front.next());
            }
            events.extend(front.ask_all("advance 15s"));
            while count(&events, "closed") < 40 {
                events.push(front.next());
            }
            for client in &mut clients {
                let end = client.read(&mut [0]).map_err(|error| error.kind());
                assert_eq!(end, Err(ErrorKind::ConnectionReset));
            }
            let is_far = |event: &&serde_json::Value| {
                event["event"] == "closed" && event["service"] == "db upstream"
            };
            let reasons: Vec<_> =
                events.iter().filter(is_far).map(|event| event["reason"].as_str()).collect();
            assert_eq!(reasons, [Some(reason); 20]);
        }
        assert_eq!(front.ask_all("connections").pop().unwrap()["count"], 0);
        assert_eq!(descriptors(&front), before, "{reason}");
    }
}

#[test]
fn an_end_after_so_many_bytes_is_exact_for_the_client_of_a_proxy() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let there = upstream.local_addr().unwrap().to_string();
    let bytes = pattern(200_000);
    let sent = bytes.clone();
    thread::spawn(move || {
        for stream in upstream.incoming() {
            let sent = sent.clone();
            thread::spawn(move || {
                let mut stream = stream.unwrap();
                let _ = stream.write_all(&sent).and_then(|()| stream.shutdown(Shutdown::Write));
                let _ = stream.read(&mut [0]);
            });
        }
    });
    for count in [1, 5, 1_000, 65_536] {
        for effect in ["reset", "close", "shut", "corrupt"] {
            let fault = format!("proxy: {effect} after {count} bytes");
            let front = Server::spawn(&mut proxy(["0", &there, "-q", "--fault", &fault]));
            for _ in 0..10 {
                let mut client = connect(addr(&front, "proxy"));
                let mut back = Vec::new();
                let outcome = client.read_to_end(&mut back).map_err(|error| error.kind());
                match effect {
                    "reset" => assert_eq!(outcome, Err(ErrorKind::ConnectionReset), "{fault}"),
                    _ => assert!(outcome.is_ok(), "{fault}: {outcome:?}"),
                }
                match effect {
                    "corrupt" => {
                        let wrong = back.iter().zip(&bytes).map(|(a, b)| (a ^ b).count_ones());
                        let wrong: Vec<_> =
                            wrong.enumerate().filter(|(_, bits)| *bits > 0).collect();
                        assert_eq!(
                            (back.len(), &wrong[..]),
                            (bytes.len(), &[(count, 1)][..]),
                            "{fault}"
                        );
                    }
                    _ => assert!(back == bytes[..count], "{fault}: {} bytes", back.len()),
                }
            }
            front.stop();
        }
    }
}

#[test]
fn a_wrong_proxy_is_refused_with_its_own_message_and_nothing_is_started() {
    let folder = Folder::new("proxy-wrong");
    let (socket, ready) = (folder.join("front.sock"), folder.join("ready"));
    let unix = format!("a=unix:{}>1", socket.display());
    let port = unused().port();
    let (own, any) = (port.to_string(), format!("b=0.0.0.0:{port}>7"));
    let (to_b, to_a) = (format!("a=1>{port}"), format!("b={port}>localhost:1"));
    let unix_loop =
        format!("a=unix:{0}/x/../front.sock>unix:{0}/front.sock", folder.join("").display());
    std::fs::create_dir(folder.join("x")).unwrap();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = format!("b={}>7", other.local_addr().unwrap());
    for (words, code, wrong) in [
        (&["0"][..], 2, "'0' is no route: expected 'NAME=LISTEN>UPSTREAM'"),
        (&["0", "0"], 2, "'0' is no address of an upstream: port 0 cannot be connected to"),
        (&["off", "7"], 2, "'off' is no address to listen on: a proxy cannot be off; remove it"),
        (&[&unix, "B=1>2"], 2, "the name \"B\" is not usable in a fault"),
        (&[&unix, "a=1>2"], 2, "two services are named a"),
        (&[&unix, "echo=1>2"], 2, "two services are named echo"),
        (&[&unix, "--fault", "b: reset"], 2, "unknown service `b`: use a"),
        (&[&unix, "--fault", "echo: reset"], 2, "unknown service `echo`"),
        (
            &[&unix, "--fault", "b upstream: reset"],
            2,
            "did you mean `a upstream`?\n  write it as in --fault 'a #3: ",
        ),
        (&[&unix, "--fault", "echo upstream: reset"], 2, "unknown service `echo upstream`"),
        (&[&unix, "--fault", "a upstream: refuse"], 2, "a proxy has no listener upstream"),
        (&["7", "9", "--fault", "db upstream: deaf"], 2, "unknown service `db upstream`"),
        (
            &[&unix, "b=0>nowhere.invalid:1", "--seed=1", "--fault", "b upstream: reset"],
            1,
            "cannot resolve the upstream nowhere.invalid:1 of b",
        ),
        (
            &[&own, &own, "--seed=1", "--fault", "proxy upstream: deaf"],
            2,
            "of proxy is proxy itself",
        ),
        (
            &[&unix, "b=0>nowhere.invalid:1"],
            1,
            "cannot resolve the upstream nowhere.invalid:1 of b",
        ),
        (&[&own, &own], 2, &format!("the upstream 127.0.0.1:{port} of proxy is proxy itself")),
        (
            &[&any, &format!("c=0>{port}"), "e=1>localhost:1"],
            2,
            "the upstream localhost:1 of e is e",
        ),
        (&[&unix, &taken], 1, "for b: Address already in use"),
        (&[&to_b, &to_a], 2, "leads back to a, through b"),
        (&[&unix_loop], 2, "is a itself"),
        (&[&own, "7", "--daytime", "0"], 2, "cannot be used with '--daytime"),
    ] {
        let ready = ["--ready-file", ready.to_str().unwrap()];
        let Ended { code: ended, stdout, stderr } =
            run_words(["proxy"].iter().chain(words).chain(&ready));
        assert_eq!((ended, &*stdout), (Some(code), ""), "{words:?}: {stderr}");
        assert!(stderr.starts_with("error: ") && stderr.contains(wrong), "{words:?}: {stderr}");
        assert_eq!(folder.names(), ["x"], "{words:?}");
    }
}

#[test]
fn a_refused_upstream_is_logged_once_until_it_can_be_reached() {
    let there = unused();
    let front = Server::spawn(&mut proxy(["0", &there.to_string()]));
    let front_addr = addr(&front, "proxy");
    for _ in 0..3 {
        let error = read_all(&mut connect(front_addr)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    let upstream = TcpListener::bind(there).unwrap();
    let mut client = connect(front_addr);
    client.write_all(b"now").unwrap();
    let mut server: TcpStream = upstream.accept().unwrap().0;
    let mut back = [0; 3];
    server.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"now");
    drop((client, server));
    let log = front.stop();
    let line = format!(
        "warning: cannot connect to the upstream {there}: Connection refused (os error 111); \
         clients are reset until a server listens there\n"
    );
    assert_eq!(
        (log.matches(&line).count(), log.matches("cannot connect").count()),
        (1, 1),
        "{log}"
    );
    assert!(log.contains(&format!("the upstream {there} can be reached\n")), "{log}");
}
