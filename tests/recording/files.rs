//! The recordings of a [`TestServer`].

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use campanile::testing::TestServer;

use crate::common::recording::{check, records};
use crate::common::{Folder, ping};

#[test]
fn a_test_server_records_calls_faults_and_the_payload_that_was_asked_for() {
    let folder = Folder::new("recorded");
    let path = folder.join("run.jsonl");
    let server = TestServer::builder().record(&path).record_bytes(4).start();
    // It stays open, and the fault is not its own.
    let mut first = server.echo().connect();
    ping(&mut first, b"Hello");
    let _short = server.echo().once("short 2");
    ping(&mut server.echo().connect(), b"Hello");
    server.echo().ended();
    let refusing = server.echo().always("never-accept");
    drop(refusing);
    drop(first);
    server.echo().ended();
    drop(server);
    let text = fs::read_to_string(&path).unwrap();
    let totals = check(&text);
    assert_eq!(totals.bytes, (10, 10));
    assert_eq!(totals.ended.values().copied().collect::<Vec<_>>(), [(5, 5), (5, 5)]);
    let records = records(&text);
    assert_eq!(records[0]["services"], serde_json::json!(["daytime", "echo"]));
    assert_eq!(records[0]["bytes"], 4);
    let of = |kind: &'static str| records.iter().filter(move |record| record["k"] == kind);
    let fault = of("fault").next().unwrap();
    assert_eq!((&fault["c"], &fault["fault"]), (&2.into(), &"echo once: short 2".into()));
    let listener = of("fault").nth(1).unwrap();
    assert_eq!((&listener["l"], &listener["fault"]), (&1.into(), &"echo: never-accept".into()));
    assert_eq!(of("heal").next().unwrap()["fault"], "echo: never-accept");
    let data: Vec<_> = of("call").filter_map(|call| call["data"].as_str()).collect();
    // "Hell" of each read and of the first write; in the second conversation "He" and "ll".
    assert_eq!(data, ["SGVsbA==", "SGVsbA==", "SGVsbA==", "SGU=", "bGw="]);
    let taken: Vec<_> = of("call")
        .filter(|call| call["f"] == "write" && call["c"] == 2 && call["e"].is_null())
        .map(|call| (call["len"].as_u64(), call["n"].as_u64()))
        .collect();
    let expected = [(5, 2), (3, 2), (1, 1)].map(|(len, n)| (Some(len), Some(n)));
    assert_eq!(taken, expected);
}

#[test]
fn payload_is_recorded_only_if_it_is_asked_for() {
    let folder = Folder::new("no-payload");
    let path = folder.join("run.jsonl");
    let server = TestServer::builder().record(&path).start();
    ping(&mut server.echo().connect(), b"a secret");
    drop(server);
    assert!(!fs::read_to_string(&path).unwrap().contains("\"data\""));
}

#[test]
fn the_recording_of_a_test_that_passes_is_removed_and_that_of_one_that_fails_is_kept() {
    let folder = Folder::new("on-failure");
    let path = folder.join("run.jsonl");
    drop(TestServer::builder().record_on_failure(&path).start());
    assert!(!path.exists());

    let failing = catch_unwind(|| {
        let server = TestServer::builder().record_on_failure(&path).start();
        ping(&mut server.echo().connect(), b"Hello");
        panic!("the test fails while {:?} runs", server.echo().addr());
    });
    assert!(failing.is_err());
    assert_eq!(check(&fs::read_to_string(&path).unwrap()).bytes, (5, 5));
    fs::remove_file(&path).unwrap();

    let unmet = catch_unwind(AssertUnwindSafe(|| {
        let server = TestServer::builder().record_on_failure(&path).start();
        server.echo().expect_connections(1..);
    }));
    let message = *unmet.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains(&format!("campanile play {}", path.display())), "{message}");
    assert!(path.exists());
}

#[test]
fn with_manual_time_the_recording_has_the_time_that_has_passed() {
    let folder = Folder::new("manual-time");
    let path = folder.join("run.jsonl");
    let server = TestServer::builder().record(&path).manual_time().start();
    server.advance(Duration::from_secs(20));
    ping(&mut server.echo().connect(), b"x");
    drop(server);
    let text = fs::read_to_string(&path).unwrap();
    check(&text);
    let last = records(&text).last().unwrap()["t"].as_u64().unwrap();
    assert!((20_000_000..50_000_000).contains(&last), "{last}");
}

#[test]
fn a_fault_that_begins_and_ends_on_an_open_connection_is_recorded() {
    let folder = Folder::new("healed");
    let path = folder.join("run.jsonl");
    let server = TestServer::builder().record(&path).start();
    let mut client = server.echo().connect();
    ping(&mut client, b"before");
    let sliced = server.echo().always("slice 3");
    ping(&mut client, b"Hello");
    drop(sliced);
    ping(&mut client, b"after");
    drop((client, server));
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(check(&text).bytes, (16, 16));
    let of_fault = |kind: &str| {
        let records = records(&text);
        let of_kind = records.iter().filter(|record| record["k"] == kind);
        of_kind
            .map(|record| (record["c"].as_u64(), record["fault"].to_string()))
            .collect::<Vec<_>>()
    };
    assert_eq!(of_fault("fault").len(), 1);
    assert_eq!(of_fault("fault"), of_fault("heal"));
    assert_eq!(of_fault("heal")[0].0, Some(1));
}
