//! The two programs that climb the ladder, at the servers that are always there.
#![cfg(unix)]

use std::process::{Command, Stdio};

/// Runs the program for the rows whose name contains `name` and returns the cells of each row.
fn rows(program: &str, name: &str) -> Vec<Vec<String>> {
    let output = Command::new(program).arg(name).stdin(Stdio::null()).output();
    let output = output.expect("cargo builds the program");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} failed: {errors}");
    let text = String::from_utf8(output.stdout).expect("the table is text");
    let table = text.lines().filter(|line| line.starts_with('|'));
    table.map(|row| row.split('|').map(|cell| cell.trim().into()).collect()).collect()
}

fn row<'a>(rows: &'a [Vec<String>], name: &str) -> Vec<&'a [String]> {
    rows.iter().filter(|cells| cells[1] == name).map(|cells| &cells[3..]).collect()
}

#[test]
fn our_server_reaches_every_rung_alone_and_behind_our_relay() {
    let rows = rows(env!("CARGO_BIN_EXE_through_a_proxy"), "nothing");
    for name in ["nothing", "campanile"] {
        assert_eq!(row(&rows, name), [["0.1.0", "8 of 8", "6 of 6", "yes", ""]], "{rows:?}");
    }
}

#[test]
fn a_table_of_servers_begins_with_ours() {
    let rows = rows(env!("CARGO_BIN_EXE_other_servers"), "no such server");
    let expected: [&[&str]; 2] = [&["0.1.0", "8 of 8", "yes", ""], &["0.1.0", "6 of 6", ""]];
    assert_eq!(row(&rows, "campanile"), expected, "{rows:?}");
}

#[test]
fn a_server_in_python_gets_a_row_with_the_rung_where_it_stops() {
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("SKIPPED: python3 is not installed");
        return;
    }
    let rows = rows(env!("CARGO_BIN_EXE_other_servers"), "Python, asyncio streams");
    let marks: Vec<_> = row(&rows, "Python").into_iter().map(|cells| &*cells[1]).collect();
    // The daytime server closes with unread bytes in its receive buffer: that is a reset.
    assert_eq!(marks, ["8 of 8", "2 of 6"], "{rows:?}");
}
