//! `unix:PATH`, wherever an address is written.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::program::{Folder, Server, Watchdog, campanile, campanile_without_privileges, run};
use crate::program::{run_words, signal};
use crate::schema::checked;

#[test]
fn both_services_are_served_at_paths_reached_and_removed() {
    let folder = Folder::new("unix");
    let time = format!("unix:{}", folder.join("time").display());
    let voice = "unix:my echo.sock";
    let mut command = campanile();
    command.args(["serve", "-d", &time, "-e", voice, voice, "--max-per-peer", "1"]);
    command.args(["--clock", "2014-01-29T19:14:15Z", "--zone", "utc", "--ready-file", "ready"]);
    let server = Server::spawn(command.current_dir(folder.join("")));
    assert_eq!(server.lines, format!("daytime {time}\necho {voice}\n"));
    assert_eq!(fs::read_to_string(folder.join("ready")).unwrap(), server.lines);
    let said = |words: &[&str]| {
        let ended = run(campanile().args(words).current_dir(folder.join("")));
        assert_eq!((ended.code, &*ended.stderr), (Some(0), ""), "{words:?}");
        ended.stdout
    };
    let _other = UnixStream::connect(folder.join("my echo.sock")).unwrap();
    let shown = "The time got from the server is Wed Jan 29 19:14:15 2014\n";
    assert_eq!(said(&["daytime", &time]), shown);
    assert_eq!(said(&["echo", voice]), "Received 'Hello, world'\n");
    let shown = format!(
        "{{\"v\":1,\"service\":\"echo\",\"addr\":\"{voice}\",\"bytes\":2,\"received\":\"hi\"}}\n"
    );
    assert_eq!(said(&["echo", voice, "-m", "hi", "--json"]), shown);
    let table = said(&["check", "daytime", &time]);
    assert!(table.ends_with(&format!("daytime {time}: 6 of 6 rungs\n")), "{table}");
    let table = said(&["check", "echo", voice]);
    assert!(table.ends_with(&format!("echo {voice}: 8 of 8 rungs\n")), "{table}");
    assert!(table.contains("reached, without urgent data, which a Unix socket lacks\n"), "{table}");
    let log = server.stop();
    assert!(log.contains("Got a connection from unix:\nConnected by unix:\n"), "{log}");
    assert_eq!(folder.names(), [""; 0]);
}

#[test]
fn a_start_that_is_refused_says_why_and_leaves_nothing() {
    let folder = Folder::new("unix-refused");
    let path = |name: &str| format!("unix:{}", folder.join(name).display());
    fs::write(folder.join("file"), "precious").unwrap();
    let _live = UnixListener::bind(folder.join("live")).unwrap();
    let long = path(&"x".repeat(120));
    let length = long.len() - "unix:".len();
    let too_long = format!(
        "the path has {length} bytes, and a Unix socket takes 1 to 107 bytes without a NUL\n  \
         choose a shorter path, or a relative one"
    );
    for (place, why) in [
        (path("live"), "a server listens there\n  stop that server, or choose another path"),
        (
            path("file"),
            "a file that is not a socket is there\n  move that file away, or choose another path",
        ),
        (
            path("none/echo"),
            "No such file or directory (os error 2)\n  create the folder of this path, or choose \
             another path",
        ),
        (long, &*too_long),
        (
            path("time"),
            "a server listens there\n  this command already listens there; give each service a path \
             of its own",
        ),
    ] {
        let ended = run_words(["serve", "-d", &path("time"), "-e", &place]);
        let (why, advice) = why.split_once('\n').unwrap();
        let expected = format!("error: cannot listen on {place}: {why} (for echo)\n{advice}\n");
        assert_eq!((ended.code, &*ended.stdout, ended.stderr), (Some(1), "", expected));
    }
    // The address that fails need not be a path.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    assert_eq!(run_words(["serve", "-d", &path("time"), "-e", &addr]).code, Some(1));
    let mut names = folder.names();
    names.sort();
    assert_eq!(names, ["file", "live"]);
    assert_eq!(fs::read_to_string(folder.join("file")).unwrap(), "precious");
}

#[test]
fn the_path_of_a_killed_server_is_taken_over_and_the_umask_sets_its_mode() {
    let folder = Folder::new("unix-killed");
    let path = folder.join("echo");
    let place = format!("unix:{}", path.display());
    let start = |umask: &str| {
        let script = format!("umask {umask}; exec \"$0\" serve -q -d off -e \"$1\"");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_campanile"), &place]).env_clear();
        Server::spawn(&mut command)
    };
    for (umask, expected) in [("077", 0o700), ("002", 0o775)] {
        let server = start(umask);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, expected);
        assert_eq!(run_words(["echo", &place]).code, Some(0));
        signal(server.pid(), libc::SIGKILL);
        drop(server);
        assert!(path.exists(), "it had no time to remove it");
    }
    assert_eq!(run_words(["echo", &place]).code, Some(1));
    assert_eq!(start("077").stop(), "");
    assert!(!path.exists());
}

#[test]
fn a_client_without_a_server_says_what_to_do() {
    let folder = Folder::new("unix-clients");
    let path = |name: &str| format!("unix:{}", folder.join(name).display());
    drop(UnixListener::bind(folder.join("stale")).unwrap());
    let start = "check the path, and start the server; ours is: campanile serve -e unix:PATH";
    for (place, why, advice) in [
        (path("none"), "No such file or directory (os error 2)", start),
        (path("stale"), "Connection refused (os error 111)", start),
        (
            path(&"x".repeat(120)),
            "path must be shorter than SUN_LEN",
            "choose a shorter path, or a relative one",
        ),
    ] {
        let expected = format!("error: cannot connect to {place}: {why}\n  {advice}\n");
        for service in ["daytime", "echo"] {
            let ended = run_words([service, &place]);
            assert_eq!((ended.code, &*ended.stdout, &*ended.stderr), (Some(1), "", &*expected));
        }
        assert_eq!(run_words(["check", "echo", &place]).code, Some(1));
    }
    // Its backlog is full, so it accepts no more clients.
    let full = UnixListener::bind(folder.join("full")).unwrap();
    socket2::SockRef::from(&full).listen(0).unwrap();
    let _waiting = UnixStream::connect(folder.join("full")).unwrap();
    let place = path("full");
    let began = Instant::now();
    let ended = run_words(["echo", &place, "--timeout", "300ms"]);
    assert!(began.elapsed() >= Duration::from_millis(300), "it waits for room in the backlog");
    let expected = format!(
        "error: cannot connect to {place}: no answer within 300ms\n  \
         the server accepts no clients: restart it, or set a longer --timeout\n"
    );
    assert_eq!((ended.code, ended.stderr), (Some(124), expected));

    let locked = UnixListener::bind(folder.join("locked")).unwrap();
    fs::set_permissions(folder.join("locked"), fs::Permissions::from_mode(0o000)).unwrap();
    let Some(mut command) = campanile_without_privileges() else { return };
    let ended = run(command.args(["echo", &path("locked")]));
    let advice =
        "\n  clients need write permission on the socket: ask its owner, or change its mode\n";
    assert!(ended.code == Some(1) && ended.stderr.ends_with(advice), "{}", ended.stderr);
    drop(locked);
}

#[test]
fn an_unreachable_path_is_reported_at_the_start() {
    let folder = Folder::new("unix-unreachable");
    let place = format!("unix:{}", folder.join("echo").display());
    let words = ["serve", "-d", "off", "-e", &place, "--fault", "echo: unreachable"];
    let server = Server::spawn(campanile().args(words));
    server.wait_for(&format!("cannot make {place} unreachable: "));
    server.stop();
}

/// The ledgers of two clients. A reset needs TCP, and the reason says so.
#[test]
fn events_name_the_path_and_faults_act_on_its_clients() {
    let folder = Folder::new("unix-events");
    let place = format!("unix:{}", folder.join("echo").display());
    let mut command = campanile();
    // With --pipe it ends with its stdin, even if this test panics.
    command.args(["serve", "-d", "off", "-e", &place, "--pipe"]).stdin(Stdio::piped());
    command.args(["--fault", "echo #1: slice 3;echo #2: reset after 4 bytes"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let _watchdog = Watchdog::new(child.id());
    let mut events = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || checked(&events.next().unwrap().unwrap());
    assert_eq!(next()["addr"], *place);
    for (expected, sizes, reason) in [
        ("abcdefgh", "[3,3,2]", "finished"),
        (
            "abcd",
            "[4]",
            "closed by fault: echo #2: reset after 4 bytes (a Unix socket has no reset)",
        ),
    ] {
        let mut client = UnixStream::connect(folder.join("echo")).unwrap();
        client.write_all(b"abcdefgh").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut back = String::new();
        client.read_to_string(&mut back).unwrap();
        assert_eq!(back, expected);
        let (accepted, closed) = (next(), next());
        assert_eq!((&accepted["peer"], &closed["peer"]), (&"unix:".into(), &"unix:".into()));
        assert_eq!(closed["write_sizes"].to_string(), sizes);
        assert!(closed["reason"].as_str().unwrap().ends_with(reason), "{closed}");
    }
    signal(child.id(), libc::SIGTERM);
    assert_eq!(next()["event"], "stopped");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(folder.names(), [""; 0]);
}
