//! The ready file holds every address line, appears once all addresses are bound, and is removed by
//! the server that wrote it.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use crate::program::{Folder, Server, campanile, run};

fn start(path: &Path) -> Server {
    Server::start(&["-q", "--ready-file", path.to_str().unwrap()])
}

#[test]
fn it_has_the_address_lines_and_is_removed_at_the_end() {
    let folder = Folder::new("ready-file");
    let path = folder.join("ready");
    fs::write(&path, "daytime 127.0.0.1:1\n").unwrap();
    let server = start(&path);
    assert_eq!(fs::read_to_string(&path).unwrap(), server.lines);
    assert_eq!(folder.names(), ["ready"], "nothing is left beside it");
    assert_eq!(server.stop(), "");
    assert!(folder.names().is_empty(), "{:?}", folder.names());
}

#[test]
fn a_server_leaves_the_file_of_a_later_server() {
    let folder = Folder::new("successor");
    let path = folder.join("ready");
    let (first, second) = (start(&path), start(&path));
    assert_eq!(first.stop(), "");
    assert_eq!(fs::read_to_string(&path).unwrap(), second.lines);
}

#[test]
fn a_second_start_that_fails_leaves_the_file_of_the_first() {
    let folder = Folder::new("twice");
    let path = folder.join("ready");
    let server = start(&path);
    let (daytime, echo) = (server.daytime().to_string(), server.echo().to_string());
    // The second command binds nothing, or one of two, or may not even be meant.
    for words in [["-d", &daytime, "-e", &echo], ["-d", "0", "-e", &echo], ["-d", "x", "-e", "0"]] {
        let mut command = campanile();
        let ended = run(command.arg("serve").args(words).arg("--ready-file").arg(&path));
        assert_eq!((&*ended.stdout, ended.code.unwrap() > 0), ("", true), "{words:?}");
        assert_eq!(fs::read_to_string(&path).unwrap(), server.lines, "{words:?}");
    }
    assert_eq!(folder.names(), ["ready"]);
    assert_eq!(server.stop(), "");
    assert!(folder.names().is_empty(), "{:?}", folder.names());
}

#[test]
fn a_start_that_fails_writes_no_file() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = Folder::new("none");
    let addr = taken.local_addr().unwrap().to_string();
    let mut command = campanile();
    command.args(["serve", "-e", "off", "-d", &addr, "--ready-file"]).arg(folder.join("ready"));
    assert_eq!(run(&mut command).code, Some(1));
    assert!(folder.names().is_empty(), "{:?}", folder.names());
}

/// As process 1 of a container every server has the same number.
#[test]
fn a_temporary_file_that_a_killed_server_left_is_replaced() {
    let folder = Folder::new("stale");
    let script = "echo stale > \"$1.$$\"; exec \"$0\" serve -d 0 -e 0 --ready-file \"$1\"";
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_campanile")]).arg(folder.join("ready"));
    let server = Server::spawn(command.env_clear());
    assert_eq!(folder.names(), ["ready"]);
    assert_eq!(fs::read_to_string(folder.join("ready")).unwrap(), server.lines);
    assert_eq!(server.stop(), "");
}

#[test]
fn where_it_cannot_be_written_nothing_is_served_and_nothing_is_left() {
    let folder = Folder::new("unwritable");
    fs::create_dir(folder.join("folder")).unwrap();
    let table = [
        (folder.join("none").join("ready"), "No such file or directory (os error 2)"),
        (folder.join("folder"), "Is a directory (os error 21)"),
        ("/".into(), "Is a directory (os error 21)"),
        ("/dev/fd/99".into(), "No such file or directory (os error 2)"),
        ("/dev/full".into(), "No space left on device (os error 28)"),
    ];
    for (path, word) in table {
        let mut command = campanile();
        let ended = run(command.args(["serve", "-d", "0", "-e", "0", "--ready-file"]).arg(&path));
        assert_eq!((ended.code, &*ended.stdout), (Some(1), ""), "{path:?}");
        let expected = format!(
            "error: cannot write the ready file {}: {word}\n  name a file in a folder that exists \
             and that you can write to: --ready-file ./ready.txt\n",
            path.display()
        );
        assert_eq!(ended.stderr, expected);
    }
    assert_eq!(folder.names(), ["folder"]);
}

#[test]
fn what_is_no_regular_file_is_written_and_never_removed() {
    let folder = Folder::new("device");
    let (target, link) = (folder.join("target"), folder.join("link"));
    fs::write(&target, "an older and longer text, which is replaced, daytime 127.0.0.1:1\n")
        .unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    let server = start(&link);
    assert_eq!(fs::read_to_string(&target).unwrap(), server.lines);
    assert_eq!(server.stop(), "");
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(start(Path::new("/dev/null")).stop(), "");
    assert!(!fs::symlink_metadata("/dev/null").unwrap().is_file());
}

#[test]
fn a_fifo_gets_the_lines_once_it_is_read_and_the_server_serves_before() {
    let folder = Folder::new("fifo");
    let path = folder.join("fifo");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let server = start(&path);
    std::net::TcpStream::connect(server.echo()).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), server.lines);
    assert_eq!(server.stop(), "");
    // Without a reader it ends all the same.
    assert_eq!(start(&path).stop(), "");
    assert_eq!(folder.names(), ["fifo"]);
}

#[test]
fn an_inherited_pipe_gets_the_lines() {
    // The pipe of stderr, to which a quiet server writes nothing else.
    let script = "exec \"$0\" serve -q -d 0 -e 0 --ready-file /dev/fd/3 3>&2";
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_campanile")]).env_clear();
    let server = Server::spawn(&mut command);
    let lines = server.lines.clone();
    server.wait_for(&lines);
    assert_eq!(server.stop(), lines);
}
