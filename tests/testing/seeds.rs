//! One seed, two runs: the same connections get the same faults at the same bytes.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;

use campanile::testing::TestServer;

use crate::common::pattern;

/// What a client got back, and how it ended.
type Delivered = (Vec<u8>, Option<ErrorKind>);

/// Connections under faults of chance; what each client got, and what was applied.
/// Of each connection, by its ordinal: the effects that were applied, and the bytes we sent.
type Applied = HashMap<u64, (Vec<String>, u64)>;

fn run(seed: u64, count: usize) -> (Vec<Delivered>, Applied) {
    let server = TestServer::builder().seed(seed).start();
    server.fault("echo 2%: reset after 5 bytes");
    server.fault("echo 10%: close after 7 bytes");
    server.fault("echo 20%: corrupt after 3 bytes");
    server.fault("echo 5%: delay 2ms+-2ms");
    server.fault("echo 0.5%: shut");
    let bytes = pattern(100);
    let converse = |_| {
        let mut client = server.echo().connect();
        // It may be over before everything is said.
        let _ = client.write_all(&bytes);
        let _ = client.shutdown(Shutdown::Write);
        let mut back = Vec::new();
        let end = client.read_to_end(&mut back).err().map(|error| error.kind());
        (back, end)
    };
    let delivered = (0..count).map(converse).collect();
    let applied = (0..count).map(|_| {
        let ledger = server.echo().ended();
        let faults = ledger.faults.iter().map(ToString::to_string).collect();
        (ledger.id, (faults, ledger.bytes_out))
    });
    let applied = applied.collect();
    (delivered, applied)
}

#[test]
fn one_seed_makes_the_same_faults_and_delivers_the_same_bytes() {
    let (delivered, applied) = run(42, 1000);
    let (again, applied_again) = run(42, 1000);
    assert!(delivered == again);
    assert_eq!(applied, applied_again);
    let closes = applied.values().filter(|(faults, _)| faults.iter().any(|f| f.contains("close")));
    let closes = closes.count();
    assert!((60..=140).contains(&closes), "{closes} of 1000 were to be closed, at 10%");
    let first: HashMap<_, _> = applied.into_iter().filter(|(number, _)| *number <= 200).collect();
    assert_eq!(first, run(42, 200).1, "a shorter run is the beginning of a longer one");
    assert_ne!(first, run(43, 200).1, "another seed, other faults");
}
