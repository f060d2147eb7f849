//! Where the server listens, how many it serves, and what it says of them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Stdio};

use crate::common::namespace::LINK_LOCAL;
use crate::program::{Folder, Server, Watchdog, campanile, run, run_words, signal};

fn ask(server: &Server) -> String {
    ask_at(&server.daytime().to_string())
}

fn ask_at(addr: &str) -> String {
    let mut line = String::new();
    TcpStream::connect(addr).unwrap().read_to_string(&mut line).unwrap();
    line
}

fn says_back(stream: &mut TcpStream, word: &[u8]) -> bool {
    stream.write_all(word).unwrap();
    let mut back = vec![0; word.len()];
    stream.read_exact(&mut back).unwrap();
    back == word
}

#[test]
fn the_transcript_of_the_manual() {
    let server = Server::start(&["--clock", "2014-01-29T19:14:15Z", "--zone", "utc"]);
    let expected = format!("daytime {}\necho {}\n", server.daytime(), server.echo());
    assert_eq!(server.lines, expected);

    let daytime = run_words(["daytime", &server.daytime().to_string()]);
    assert_eq!(daytime.stdout, "The time got from the server is Wed Jan 29 19:14:15 2014\n");
    assert_eq!((daytime.code, &*daytime.stderr), (Some(0), ""));

    let echo = format!("localhost:{}", server.echo().port());
    let echo = run_words(["echo", &echo, "-m", "Hello, world"]);
    assert_eq!(echo.stdout, "Received 'Hello, world'\n");
    assert_eq!((echo.code, &*echo.stderr), (Some(0), ""));

    let said = server.stop();
    let said: Vec<_> = said.lines().map(|line| line.trim_end_matches(char::is_numeric)).collect();
    let expected = [
        "the clock stands still at 2014-01-29T19:14:15Z",
        "Got a connection from 127.0.0.1:",
        "Connected by 127.0.0.1:",
    ];
    assert_eq!(said, expected);
}

#[test]
fn the_clients_of_the_tutorial_get_what_it_shows() {
    if Command::new("python3").arg("-V").output().is_err() {
        crate::common::skip("python3 is not installed");
        return;
    }
    let server = Server::start(&["--clock", "2014-01-29T19:14:15Z", "--zone", "utc"]);
    let ask_for_the_time = format!(
        "import socket\n\
         s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)\n\
         s.connect(('127.0.0.1', {}))\n\
         tm = s.recv(1024)\n\
         s.close()\n\
         print('The time got from the server is %s' % tm.decode('ascii'))\n",
        server.daytime().port()
    );
    let said = run(Command::new("python3").args(["-c", &ask_for_the_time]));
    assert_eq!(said.stdout, "The time got from the server is Wed Jan 29 19:14:15 2014\r\n\n");
    let send_and_receive = format!(
        "import socket\n\
         s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)\n\
         s.connect(('127.0.0.1', {}))\n\
         s.sendall(b'Hello, world')\n\
         data = s.recv(1024)\n\
         s.close()\n\
         print('Received', repr(data))\n",
        server.echo().port()
    );
    let said = run(Command::new("python3").args(["-c", &send_and_receive]));
    assert_eq!(said.stdout, "Received b'Hello, world'\n", "{}", said.stderr);
}

#[test]
fn a_service_that_is_off_is_not_there() {
    let server = Server::spawn(campanile().args(["serve", "-d", "off", "-e", "0"]));
    assert_eq!((server.daytime.len(), server.echo.len()), (0, 1));
    let server = Server::spawn(campanile().args(["serve", "--echo", "off", "--daytime", "0"]));
    assert_eq!((server.daytime.len(), server.echo.len()), (1, 0));
}

#[test]
fn a_service_listens_at_every_address_it_was_given() {
    let server = Server::start(&["-d", "127.0.0.1:0", "127.0.0.2:0"]);
    // Those and the 0 that came first.
    assert_eq!(server.daytime.len(), 3);
    let mut line = String::new();
    TcpStream::connect(server.daytime[2]).unwrap().read_to_string(&mut line).unwrap();
    assert_eq!(line.len(), 26);
}

#[test]
fn the_same_address_twice_is_bound_once() {
    // A port that was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let port = free.port().to_string();
    let words = ["serve", "-e", "off", "-d", &port, &free.to_string()];
    let server = Server::spawn(campanile().args(words));
    assert_eq!(server.daytime, [free]);
}

/// A port that was free for IPv4 and IPv6 a moment ago; none if this machine lacks one of them.
fn port_of_both_families() -> Option<u16> {
    let is_one_missing = ["127.0.0.1:0", "[::1]:0"].iter().any(|ip| TcpListener::bind(ip).is_err());
    if is_one_missing {
        crate::common::skip("this machine lacks IPv4 or IPv6");
        return None;
    }
    // The address of IPv6 takes the port of IPv4 as well, where the system is set so.
    let listener = TcpListener::bind("[::]:0").unwrap();
    Some(listener.local_addr().unwrap().port())
}

#[test]
fn every_address_of_ipv4_and_every_address_of_ipv6_share_a_port() {
    let Some(port) = port_of_both_families() else { return };
    let (four, six) = (format!("0.0.0.0:{port}"), format!("[::]:{port}"));
    for places in [[&four, &six], [&six, &four]] {
        let words = ["serve", "-d", "off", "-e", places[0], places[1]];
        let server = Server::spawn(campanile().args(words));
        assert_eq!(server.lines, format!("echo {}\necho {}\n", places[0], places[1]));
        for ip in ["127.0.0.1", "[::1]"] {
            let mut client = TcpStream::connect(format!("{ip}:{port}")).unwrap();
            assert!(says_back(&mut client, ip.as_bytes()));
        }
        drop(server);
    }
    // One for each service.
    let words = ["serve", "-d", &four, "-e", &six];
    let server = Server::spawn(campanile().args(words));
    assert_eq!(ask_at(&format!("127.0.0.1:{port}")).len(), 26);
    let mut client = TcpStream::connect(format!("[::1]:{port}")).unwrap();
    assert!(says_back(&mut client, b"six"));
    drop(server);
}

#[test]
fn an_address_in_use_says_by_which_process() {
    let Some(port) = port_of_both_families() else { return };
    let by_this = "  this command already listens on that address; ";
    let by_another = "  another process listens on that address; ";
    let (four, six) = (format!("127.0.0.1:{port}"), format!("[::1]:{port}"));
    let every = format!("0.0.0.0:{port}");
    for (daytime, echo, expected) in [(&four, &every, by_this), (&every, &four, by_this)] {
        let ended = run_words(["serve", "-d", daytime, "-e", echo]);
        assert!(ended.stderr.contains(expected), "{daytime} {echo}: {}", ended.stderr);
    }
    let _taken = TcpListener::bind(&six).unwrap();
    let ended = run_words(["serve", "-d", &four, "-e", &six]);
    assert!(ended.stderr.contains(by_another), "{}", ended.stderr);
}

#[test]
fn every_address_of_a_name_gets_the_same_port() {
    let server = Server::spawn(campanile().args(["serve", "-d", "off", "-e", "localhost:0"]));
    let port = server.echo().port();
    assert!(server.echo.iter().all(|addr| addr.port() == port), "{:?}", server.echo);
    let mut seen = server.echo.clone();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), server.echo.len(), "each once: {:?}", server.echo);
}

/// A shell with the program as `$0`, a network of its own, and a name that has four addresses, two of
/// which are the same.
fn in_own_network(folder: &Folder, script: &str) -> Option<Command> {
    let hosts = folder.join("hosts");
    std::fs::write(
        &hosts,
        "127.0.0.1 both\n::1 both\n127.0.0.1 both\n127.0.0.2 both\n\
                 127.0.0.1 stray\n192.0.2.1 stray\n",
    )
    .unwrap();
    let own = |script: &str| {
        let script =
            format!("ip link set lo up && mount --bind \"$1\" /etc/hosts || exit 98\n{script}");
        let mut command = Command::new("unshare");
        command.args(["-rnm", "/bin/sh", "-c", &script, env!("CARGO_BIN_EXE_campanile")]);
        command.arg(&hosts).stdin(Stdio::null());
        command
    };
    if !own("true").output().is_ok_and(|output| output.status.success()) {
        crate::common::skip("`unshare -rnm` or `ip` fails");
        return None;
    }
    Some(own(script))
}

fn elsewhere(folder: &Folder, before: &str, place: &str) -> Option<Command> {
    in_own_network(folder, &format!("{before} && exec \"$0\" serve -d '{place}' -e off"))
}

#[test]
fn an_address_with_an_interface_is_served_reached_and_shown_as_it_was_written() {
    let folder = Folder::new("interface");
    let script = format!(
        "{LINK_LOCAL} && mkfifo \"$1.ready\" || exit 99
         \"$0\" serve -q -d '[fe80::1%lo]:9999' -e '[fe80::1%lo]:12345' '[fe80::1%1]:7' \
             --clock 2014-01-29T19:14:15Z --zone utc --ready-file \"$1.ready\" >/dev/null &
         cat \"$1.ready\"
         \"$0\" daytime '[fe80::1%lo]:9999' --json
         \"$0\" echo '[fe80::1%lo]:12345' -m one
         \"$0\" echo '[fe80::1%1]:7' -m two
         \"$0\" check daytime --rung 1 '[fe80::1%lo]:9999' 2>/dev/null | tail -1
         kill $! && wait $!"
    );
    let Some(mut command) = in_own_network(&folder, &script) else { return };
    let ended = run(&mut command);
    let expected = "daytime [fe80::1%lo]:9999\necho [fe80::1%lo]:12345\necho [fe80::1%1]:7\n\
                    {\"v\":1,\"service\":\"daytime\",\"addr\":\"[fe80::1%lo]:9999\",\
                    \"time\":\"Wed Jan 29 19:14:15 2014\"}\n\
                    Received 'one'\nReceived 'two'\n";
    let (talked, checked) = ended.stdout.split_at(expected.len().min(ended.stdout.len()));
    assert_eq!((talked, &*ended.stderr, ended.code), (expected, "", Some(0)));
    assert!(checked.contains("[fe80::1%lo]:9999"), "{checked}");
}

#[test]
fn a_free_port_and_a_wrong_interface_are_shown_with_the_interface() {
    let folder = Folder::new("interfaces");
    let serve = |place: &str| {
        let place = format!("exec \"$0\" serve -e off -d '{place}'");
        in_own_network(&folder, &format!("{LINK_LOCAL} && {place}"))
    };
    let Some(mut command) = serve("[fe80::1%lo]:0") else { return };
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let watchdog = Watchdog::new(child.id());
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    signal(child.id(), libc::SIGTERM);
    child.wait().unwrap();
    drop(watchdog);
    let port = line.strip_prefix("daytime [fe80::1%lo]:").unwrap_or("none");
    assert!(port.trim().parse::<u16>().is_ok_and(|port| port > 0), "{line}");

    let table = [
        (
            "[fe80::1%lo9]:7",
            "error: cannot listen on [fe80::1%lo9]:7 for daytime: this machine has no interface \
             lo9\n  list the interfaces with: ip link\n",
        ),
        (
            "[fe80::2%lo]:7",
            "error: cannot listen on [fe80::2%lo]:7 for daytime: Cannot assign requested address \
             (os error 99)\n  this machine does not have that address; use --daytime \
             127.0.0.1:7 or 0.0.0.0:7\n",
        ),
        (
            "[fe80::1]:7",
            "error: cannot listen on [fe80::1]:7 for daytime: Invalid argument (os error 22)\n  \
             a link-local address needs its interface: --daytime [fe80::1%eth0]:7\n",
        ),
    ];
    for (place, expected) in table {
        let Some(mut command) = serve(place) else { return };
        let ended = run(&mut command);
        assert_eq!((ended.code, &*ended.stdout, &*ended.stderr), (Some(1), "", expected));
    }
}

const WITHOUT_IPV6: &str = "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6";

#[test]
fn a_name_is_every_address_it_has_once_and_at_one_port() {
    let folder = Folder::new("both");
    let Some(mut command) = elsewhere(&folder, "true", "both:0") else { return };
    let server = Server::spawn(&mut command);
    let mut ips: Vec<_> = server.daytime.iter().map(|addr| addr.ip().to_string()).collect();
    ips.sort();
    assert_eq!(ips, ["127.0.0.1", "127.0.0.2", "::1"]);
    let port = server.daytime().port();
    assert!(server.daytime.iter().all(|addr| addr.port() == port), "{}", server.lines);
    assert_eq!(server.stop(), "");
}

#[test]
fn a_kind_of_address_that_this_machine_lacks_is_skipped_with_a_word() {
    let folder = Folder::new("one-kind");
    let Some(mut command) = elsewhere(&folder, WITHOUT_IPV6, "both:0") else { return };
    let server = Server::spawn(&mut command);
    assert_eq!(server.daytime.len(), 2, "{}", server.lines);
    let expected = "warning: skipped the address ::1 of both:0, because this machine has no IPv6: \
                    Cannot assign requested address (os error 99); to avoid this warning, give the \
                    other addresses instead of the name\n";
    assert_eq!(server.stop(), expected);
    // But not an address of another machine.
    let Some(mut command) = elsewhere(&folder, WITHOUT_IPV6, "stray:0") else { return };
    let ended = run(&mut command);
    assert!(ended.stderr.starts_with("error: cannot listen on 192.0.2.1:"), "{}", ended.stderr);
    assert_eq!((ended.code, &*ended.stdout), (Some(1), ""));
    // And not if it is all there is.
    let Some(mut command) = elsewhere(&folder, WITHOUT_IPV6, "[::1]:0") else { return };
    let ended = run(&mut command);
    let start = "error: cannot listen on [::1]:0 for daytime: Cannot assign requested address";
    assert!(ended.stderr.starts_with(start), "{}", ended.stderr);
    assert_eq!((ended.code, &*ended.stdout), (Some(1), ""));
}

#[test]
fn every_flag_comes_from_the_environment_too_and_the_command_line_wins() {
    let mut command = campanile();
    command.env("CAMPANILE_DAYTIME", "off").env("CAMPANILE_ECHO", "127.0.0.1:0,127.0.0.2:0");
    command.env("CAMPANILE_MAX_PER_PEER", "1").env("CAMPANILE_QUIET", "1").arg("serve");
    let server = Server::spawn(&mut command);
    assert_eq!((server.daytime.len(), server.echo.len()), (0, 2));
    let mut first = TcpStream::connect(server.echo()).unwrap();
    assert!(says_back(&mut first, b"one"));
    let mut second = TcpStream::connect(server.echo()).unwrap();
    // The server may close it before the write, which then fails.
    let _ = second.write_all(b"two");
    assert!(!matches!(second.read(&mut [0]), Ok(1)), "a second connection of one peer is served");
    drop((first, second));
    assert_eq!(server.stop(), "");

    let server = Server::spawn(command.args(["-e", "off", "-d", "0"]));
    assert_eq!((server.daytime.len(), server.echo.len()), (1, 0));
}

/// The long flags of `serve`, as its help has them.
fn flags() -> Vec<String> {
    let help = run_words(["serve", "--help"]).stdout;
    let (listed, _) = help.split_once("Examples:").unwrap();
    let flags = listed.lines().filter_map(|line| line.trim_start().split_once("--"));
    let flags = flags.filter(|(before, _)| before.is_empty() || before.ends_with(", "));
    let name = |flag: &str| flag.split([' ', '.']).next().unwrap().to_owned();
    flags.map(|(_, flag)| name(flag)).filter(|flag| flag != "help").collect()
}

fn variable(flag: &str) -> String {
    format!("CAMPANILE_{}", flag.to_uppercase().replace('-', "_"))
}

#[test]
fn an_empty_variable_counts_as_unset_for_every_flag() {
    let flags = flags();
    assert!(flags.len() >= 18, "{flags:?}");
    let mut command = campanile();
    command.args(["serve", "-d", "0"]).env("CAMPANILE_ECHO", "").env("RUST_LOG", "");
    // Port 12345 may be taken here, and this is about the others.
    for flag in flags.iter().filter(|flag| *flag != "daytime" && *flag != "echo") {
        command.env(variable(flag), "");
    }
    let server = Server::spawn(command.args(["-e", "0"]));
    assert_eq!((server.daytime.len(), server.echo.len()), (1, 1));
    assert_eq!(server.stop(), "");
    // One at a time, in a command that ends: what is still wrong is the address.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    for flag in flags {
        let mut command = campanile();
        command.arg("serve").env(variable(&flag), "");
        let words = if flag == "daytime" { ["-e", &addr] } else { ["-d", &addr] };
        let ended = run(command.args(words));
        assert_eq!(ended.code, Some(1), "{flag}: {}", ended.stderr);
        assert!(ended.stderr.starts_with("error: cannot listen on "), "{flag}: {}", ended.stderr);
    }
}

#[test]
fn a_variable_with_a_blank_is_a_value() {
    for flag in ["echo", "idle", "quiet", "json", "max-per-peer"] {
        let ended = run(campanile().arg("serve").env(variable(flag), " "));
        assert_eq!(ended.code, Some(2), "{flag}: {}", ended.stderr);
        assert!(ended.stderr.starts_with("error: invalid value ' ' for "), "{}", ended.stderr);
    }
}

#[test]
fn a_busy_connection_is_reset_at_the_end_of_its_lifetime() {
    let server = Server::start(&["--idle", "off", "--lifetime", "300ms", "-v"]);
    let mut busy = TcpStream::connect(server.echo()).unwrap();
    let mut back = [0; 1];
    let mut rounds = 0;
    while busy.write_all(b".").is_ok() && busy.read(&mut back).is_ok_and(|count| count > 0) {
        rounds += 1;
    }
    assert!(rounds > 0);
    server.wait_for("closed: lived for too long");
    // Without one, bytes keep it open: only the number of turns is counted, never the time.
    let server = Server::start(&["--idle", "1s"]);
    let mut busy = TcpStream::connect(server.echo()).unwrap();
    assert!((0..1000).all(|_| says_back(&mut busy, b".")));
}

#[test]
fn at_the_limit_a_client_waits_and_is_served_when_another_leaves() {
    let server = Server::start(&["--max-connections", "1"]);
    let mut first = TcpStream::connect(server.echo()).unwrap();
    assert!(says_back(&mut first, b"one"));
    let mut second = TcpStream::connect(server.echo()).unwrap();
    second.write_all(b"two").unwrap();
    drop(first);
    let mut back = [0; 3];
    second.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"two");
}

#[test]
fn more_connections_than_descriptors_are_promised_to_nobody() {
    let start = |words: &str| {
        let script = format!("ulimit -n 100; exec \"$0\" serve -d 0 -e 0 {words}");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_campanile")]).env_clear();
        Server::spawn(&mut command).stop()
    };
    assert_eq!(start(""), "", "nobody asked");
    let said = start("--max-connections 5000");
    assert!(said.starts_with("warning: the limit of open files is 100, so at most "), "{said}");
    assert!(said.contains(" instead of 5000; raise it with ulimit -n\n"), "{said}");
    assert_eq!(start("--max-connections 20"), "", "there is room");
}

#[test]
fn idle_peers_are_reset() {
    let server = Server::start(&["--idle", "200ms", "-v"]);
    let mut silent = TcpStream::connect(server.echo()).unwrap();
    let mut nothing = Vec::new();
    assert!(silent.read_to_end(&mut nothing).is_err(), "a reset, not an end");
    server.wait_for("closed: idle for too long");
}

#[test]
fn the_log_says_as_much_as_was_asked_for() {
    let talk = |words: &[&str], rust_log: Option<&str>| {
        let mut command = campanile();
        command.args(["serve", "-d", "0", "-e", "0"]).args(words);
        if let Some(spec) = rust_log {
            command.env("RUST_LOG", spec);
        }
        let server = Server::spawn(&mut command);
        assert_eq!(ask(&server).len(), 26);
        let mut stream = TcpStream::connect(server.echo()).unwrap();
        assert!(says_back(&mut stream, b"\x1b[31m"));
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(stream.read(&mut [0; 9]).unwrap(), 0);
        server.stop()
    };
    let closed = "debug: #1 closed: finished; 0 bytes in, 26 out\n";
    let said = talk(&[], None);
    assert_eq!(said.lines().count(), 2, "{said}");
    let said = talk(&["-v"], None);
    assert!(said.contains(closed), "{said}");
    assert!(said.contains("debug: #2 closed: finished; 5 bytes in, 5 out\n"), "{said}");
    assert!(!said.contains('\x1b'), "the client's bytes are not in the log");
    assert_eq!(talk(&["-q"], None), "");
    let said = talk(&[], Some("debug"));
    assert!(said.contains(closed), "{said}");
    let said = talk(&[], Some("campanile::reactor=debug"));
    assert!(said.contains(closed) && !said.contains("Connected by"), "{said}");
    assert_eq!(talk(&["-q"], Some("debug")), "", "the command line wins");
    let said = talk(&[], Some("campanile=loud"));
    assert!(said.starts_with("warning: cannot parse RUST_LOG ("), "{said}");
    assert_eq!(said.lines().count(), 3, "{said}");
}
