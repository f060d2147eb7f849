//! Random conversations, recorded with and without gaps, and compared with the ledgers.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use campanile::record::{Recorded, Recorder};
use campanile::sys::{Kernel, Logged};
use campanile::testing::{Book, Ledger};
use campanile::{Clock, Limits, Reactor, daytime, echo};

use crate::common::recording::{Paper, Totals, check};
use crate::common::{DEADLINE, TUTORIAL, eventually, pattern};
use crate::sim::fake::{Client, Fake, NOW, World, settle};
use crate::sim::random::Random;

type Kernels = Recorded<Logged<Fake>>;

fn serve(world: &World, book: &Book, recorder: &Recorder, limits: Limits) -> Reactor<Kernels> {
    let logged = Logged::new(world.kernel(), book);
    let kernel = Recorded::new(logged, Some(recorder.clone()), &limits).unwrap();
    let mut reactor = Reactor::with_kernel(kernel, limits);
    let name = |service| {
        book.serving(service);
        recorder.serving(service);
    };
    name("daytime");
    reactor.listen("127.0.0.1:0", daytime(Clock::fixed(TUTORIAL))).unwrap();
    name("echo");
    reactor.listen("127.0.0.1:0", echo()).unwrap();
    reactor
}

/// Clients come, send, stop reading, end and reset, as the seed says.
fn converse<K: Kernel>(seed: u64, world: &World, reactor: &mut Reactor<K>, most: usize) {
    let (mut random, mut clients) = (Random::new(seed), Vec::<Client>::new());
    for _ in 0..100 {
        if clients.is_empty() || random.percent(15) {
            clients.push(world.connect(random.below(2)));
        }
        let at = random.below(clients.len());
        match random.below(9) {
            0 | 1 => clients[at].send(&pattern(1 + random.below(most))),
            2 => clients[at].make_room(random.below(most)),
            3 => clients[at].make_room(usize::MAX),
            4 => clients.swap_remove(at).end(),
            5 if random.percent(40) => clients.swap_remove(at).reset(),
            6 => world.advance(Duration::from_millis(random.below(3_000) as u64)),
            7 if random.percent(20) => world.fail_accepts(1, &[libc::EMFILE]),
            _ => {}
        }
        reactor.turn(NOW).unwrap();
    }
    settle(reactor);
}

/// Each connection has the bytes of its ledger, and all calls together have those of all.
fn agree(totals: &Totals, ledgers: &[Ledger]) {
    let mut sums = (0, 0);
    for ledger in ledgers {
        sums = (sums.0 + ledger.bytes_in, sums.1 + ledger.bytes_out);
    }
    assert_eq!(totals.bytes, sums);
    for service in ["daytime", "echo"] {
        let of_service = |(id, name): (&u64, &String)| (name == service).then_some(*id);
        let ids: Vec<u64> = totals.accepted.iter().filter_map(of_service).collect();
        if totals.gaps > 0 {
            continue;
        }
        let mut ledgers: Vec<_> = ledgers.iter().filter(|of| of.service == service).collect();
        ledgers.sort_by_key(|ledger| ledger.id);
        assert_eq!(ids.len(), ledgers.len());
        for (id, ledger) in ids.iter().zip(ledgers) {
            assert_eq!(totals.ended[id], (ledger.bytes_in, ledger.bytes_out), "{ledger}");
        }
    }
}

#[test]
fn slices_nest_and_reads_and_writes_add_up_to_the_ledgers_bytes() {
    for seed in 0..150 {
        let (world, book, paper) = (World::new(), Book::new(10_000), Paper::default());
        world.excuse();
        let recorder = Recorder::to(paper.clone(), "paper").record_bytes(seed as usize % 3 * 10);
        let limits = Limits::default().high_water(5_000).low_water(1_000);
        let mut reactor = serve(&world, &book, &recorder, limits);
        converse(seed, &world, &mut reactor, 20_000);
        drop(reactor);
        assert!(recorder.finish(DEADLINE));
        let totals = check(&paper.text());
        assert_eq!(totals.gaps, 0);
        assert!(totals.turns > 100 && !totals.accepted.is_empty());
        agree(&totals, &book.ended());
    }
}

/// A disk that takes nothing until it is opened.
#[derive(Clone, Default)]
struct SlowDisk {
    paper: Paper,
    gate: Arc<(Mutex<bool>, Condvar)>,
}

impl SlowDisk {
    fn open(&self) {
        *self.gate.0.lock().unwrap() = true;
        self.gate.1.notify_all();
    }
}

impl Write for SlowDisk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let is_open = self.gate.0.lock().unwrap();
        drop(self.gate.1.wait_while(is_open, |is_open| !*is_open).unwrap());
        self.paper.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_gap_has_the_sums_of_the_records_that_a_slow_disk_has_dropped() {
    for seed in 0..10 {
        let (world, book, disk) = (World::new(), Book::new(10_000), SlowDisk::default());
        world.excuse();
        let recorder = Recorder::to(disk.clone(), "disk").record_bytes(usize::MAX);
        let mut reactor = serve(&world, &book, &recorder, Limits::default());
        let client = world.connect(1);
        // In base64, either direction alone is more than the queue holds.
        for _ in 0..8 {
            client.send(&pattern(500_000));
            settle(&mut reactor);
        }
        client.end();
        converse(seed, &world, &mut reactor, 50_000);
        disk.open();
        eventually("the gap", || disk.paper.text().contains("\"k\":\"gap\"").then_some(()));
        converse(seed + 1, &world, &mut reactor, 500);
        drop(reactor);
        assert!(recorder.finish(DEADLINE));
        let totals = check(&disk.paper.text());
        assert!(totals.gaps > 0);
        assert!(!totals.ended.is_empty(), "nothing is recorded after the gap");
        agree(&totals, &book.ended());
    }
}

/// A disk with room for a number of bytes.
struct FullDisk(Paper, usize);

impl Write for FullDisk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.1);
        self.1 -= count;
        self.0.write_all(&bytes[..count])?;
        if count > 0 { Ok(count) } else { Err(io::ErrorKind::StorageFull.into()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_ends_the_recording_and_not_the_loop() {
    let (world, book, paper) = (World::new(), Book::new(10_000), Paper::default());
    let recorder = Recorder::to(FullDisk(paper.clone(), 3_000), "disk");
    let mut reactor = serve(&world, &book, &recorder, Limits::default());
    let client = world.connect(1);
    for size in 1..200 {
        client.send(&pattern(size));
        settle(&mut reactor);
        assert_eq!(client.received(), pattern(size));
    }
    client.end();
    settle(&mut reactor);
    drop(reactor);
    assert!(!recorder.finish(DEADLINE), "the recording claims to be complete");
    assert_eq!(paper.text().len(), 3_000);
    assert_eq!(book.ended()[0].reason, "finished");
}

#[test]
fn a_recorder_records_one_kernel() {
    let (world, paper) = (World::new(), Paper::default());
    let (recorder, limits) = (Recorder::to(paper, "paper"), Limits::default());
    let first = Recorded::new(world.kernel(), Some(recorder.clone()), &limits);
    let error = Recorded::new(world.kernel(), Some(recorder), &limits).err().unwrap();
    assert!(error.to_string().contains("create one for each kernel"), "{error}");
    drop(first);
}
