//! The ready file: there when it is true, whole, and gone when it is not true any more.

use std::fs;
use std::net::TcpListener;

use crate::program::{Folder, Server, campanile, run};

#[test]
fn it_has_the_address_lines_and_goes_with_the_server() {
    let folder = Folder::new("ready-file");
    let path = folder.join("ready");
    fs::write(&path, "daytime 127.0.0.1:1\n").unwrap();
    let server = Server::start(&["--ready-file", path.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(&path).unwrap(), server.lines);
    assert_eq!(folder.names(), ["ready"], "nothing is left beside it");
    assert_eq!(server.stop(), "");
    assert!(folder.names().is_empty(), "{:?}", folder.names());
}

#[test]
fn that_of_a_successor_stays() {
    let folder = Folder::new("successor");
    let path = folder.join("ready");
    let first = Server::start(&["--ready-file", path.to_str().unwrap()]);
    let second = Server::start(&["--ready-file", path.to_str().unwrap()]);
    assert_eq!(first.stop(), "");
    assert_eq!(fs::read_to_string(&path).unwrap(), second.lines);
}

#[test]
fn an_old_one_is_gone_if_nothing_can_be_bound() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = Folder::new("old");
    let path = folder.join("ready");
    fs::write(&path, "old").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let mut command = campanile();
    let ended = run(command.args(["serve", "-e", "off", "-d", &addr, "--ready-file"]).arg(&path));
    assert_eq!(ended.code, Some(1));
    assert!(folder.names().is_empty(), "{:?}", folder.names());
}

#[test]
fn where_none_can_be_written_nothing_is_served() {
    let folder = Folder::new("unwritable");
    fs::create_dir(folder.join("folder")).unwrap();
    let no_folder = folder.join("none").join("ready");
    let missing = "No such file or directory (os error 2)";
    let table = [
        (no_folder, missing),
        (folder.join("folder"), "not a regular file"),
        ("/dev/null".into(), "not a regular file"),
        ("/".into(), "not a regular file"),
    ];
    for (path, word) in table {
        let mut command = campanile();
        let ended = run(command.args(["serve", "-d", "0", "-e", "0", "--ready-file"]).arg(&path));
        assert_eq!((ended.code, &*ended.stdout), (Some(1), ""), "{path:?}");
        let expected = format!(
            "error: cannot write the ready file {}: {word}\n  give a file in a folder that exists \
             and may be written: --ready-file ./ready.txt\n",
            path.display()
        );
        assert_eq!(ended.stderr, expected);
    }
    assert!(fs::symlink_metadata("/dev/null").is_ok());
}
