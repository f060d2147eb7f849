//! What the real kernel says in real conversations is held to the rules that every simulated kernel
//! keeps: whatever the model cannot do, the real one must not do either.

mod common;
mod sim;

use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Instant;

use campanile::{
    Limits, Reactor, echo,
    sys::{Event, Mio, Source},
};
use common::{DEADLINE, connect, pattern, ping, read_all, read_exactly, reset};
use sim::contract::{Contract, Got, Half, Step};
use sim::traced::{SharedTrace, Trace, Traced};

/// Whether every arrival has an event of its own.
const EDGES: bool = cfg!(all(target_os = "linux", not(mio_unsupported_force_poll_poll)));

/// Serves echo to `client`, which has a thread of its own, until it and its connections have ended;
/// the steps that were taken, none of them against the rules.
fn recorded(limits: Limits, client: impl FnOnce(SocketAddr) + Send + 'static) -> Vec<Step> {
    recorded_on(Traced::doubting, limits, bound(), client)
}

fn bound() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

fn recorded_on(
    kernel: fn(Mio, &SharedTrace) -> Traced<Mio>,
    limits: Limits,
    listener: TcpListener,
    client: impl FnOnce(SocketAddr) + Send + 'static,
) -> Vec<Step> {
    let trace = Trace::new(Contract::new(false, EDGES), true);
    let kernel = kernel(Mio::new(limits.events).unwrap(), &trace);
    let mut reactor = Reactor::with_kernel(kernel, limits);
    let addr = reactor.listen_on(listener, echo()).unwrap();
    let handle = reactor.handle();
    let talking = thread::spawn(move || {
        client(addr);
        handle.shutdown(DEADLINE);
    });
    let began = Instant::now();
    while !reactor.is_finished() {
        reactor.turn(Some(DEADLINE)).unwrap();
        assert!(began.elapsed() < DEADLINE, "an event is missing");
    }
    drop(reactor);
    talking.join().unwrap();
    let trace = trace.borrow();
    assert_eq!(trace.contract.violation, None, "{:#?}", trace.kept);
    trace.kept.clone().unwrap()
}

fn tries(steps: &[Step], wanted: Half) -> Vec<(usize, Got)> {
    let of = |step: &Step| match *step {
        Step::Try { half, asked, got, .. } if half == wanted => Some((asked, got)),
        _ => None,
    };
    steps.iter().filter_map(of).collect()
}

fn small_buffers() -> Limits {
    Limits::default().send_buffer(Some(64 << 10)).receive_buffer(Some(64 << 10))
}

#[test]
fn small_messages() {
    let steps = recorded(Limits::default(), |addr| {
        let mut client = connect(addr);
        (1..50).for_each(|size| ping(&mut client, &pattern(size)));
    });
    let bytes = tries(&steps, Half::Read).into_iter().map(|(asked, got)| match got {
        Got::Bytes(count) if asked > 1 => count,
        _ => 0,
    });
    assert_eq!(bytes.sum::<usize>(), (1..50).sum::<usize>());
}

#[test]
fn a_mebibyte_to_a_slow_reader() {
    let steps = recorded(small_buffers(), |addr| {
        let mut reader = connect(addr);
        let mut writer = reader.try_clone().unwrap();
        let writing = thread::spawn(move || {
            writer.write_all(&pattern(1 << 20)).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        // It takes odd pieces, far smaller than what is sent to it.
        let (mut back, mut size) = (Vec::new(), 1);
        while back.len() < 1 << 20 {
            let count = size.min((1 << 20) - back.len());
            back.extend(read_exactly(&mut reader, count));
            size = size % 3000 + 7;
        }
        assert!(back == pattern(1 << 20));
        writing.join().unwrap();
        assert_eq!(read_all(&mut reader).unwrap(), b"");
    });
    let writes = tries(&steps, Half::Write);
    assert!(writes.iter().any(|(_, got)| *got == Got::WouldBlock), "it was never full");
}

#[test]
fn whoever_never_reads_and_then_does() {
    let steps = recorded(small_buffers(), |addr| {
        let mut client = connect(addr);
        client.set_nonblocking(true).unwrap();
        let (bytes, mut sent) = (pattern(32 << 20), 0);
        // Until nothing goes in any more, for as long as it takes the loop to be sure.
        let mut refusals = 0;
        while refusals < 1000 && sent < bytes.len() {
            match client.write(&bytes[sent..(sent + 4096).min(bytes.len())]) {
                Ok(count) => (sent, refusals) = (sent + count, 0),
                Err(_) => refusals += 1,
            }
            thread::yield_now();
        }
        client.set_nonblocking(false).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert!(read_all(&mut client).unwrap() == bytes[..sent]);
    });
    assert!(tries(&steps, Half::Write).iter().any(|(_, got)| *got == Got::WouldBlock));
}

#[test]
fn a_half_that_ends_before_anything_came_back() {
    let steps = recorded(Limits::default(), |addr| {
        let mut client = connect(addr);
        client.write_all(&pattern(100_000)).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert!(read_all(&mut client).unwrap() == pattern(100_000));
    });
    assert!(tries(&steps, Half::Read).iter().any(|(_, got)| *got == Got::Bytes(0)), "no EOF");
}

#[test]
fn a_reset_in_the_middle() {
    let steps = recorded(Limits::default(), |addr| {
        for size in [0, 1, 100_000] {
            let mut client = connect(addr);
            ping(&mut client, b"here");
            client.write_all(&pattern(size)).unwrap();
            reset(&client);
        }
    });
    let all = [tries(&steps, Half::Read), tries(&steps, Half::Write)].concat();
    assert!(all.iter().any(|(_, got)| *got == Got::Failed), "nobody heard of a reset");
}

/// A read stops before it: whoever took that for the end of what is there would wait for ever.
///
/// Sabotage: call an event plain that tells of an urgent byte.
#[test]
fn an_urgent_byte_between_others() {
    recorded_on(Traced::new, Limits::default(), bound(), |addr| {
        let mut client = connect(addr);
        for _ in 0..20 {
            client.write_all(b"before").unwrap();
            socket2::SockRef::from(&client).send_out_of_band(b"!").unwrap();
            client.write_all(b"behind").unwrap();
            assert_eq!(read_exactly(&mut client, 12), b"beforebehind");
        }
    });
}

#[test]
fn many_clients_at_once_in_batches_of_three() {
    // All clients are connected before the loop begins: its first turn registers many streams, so the
    // next poll reports more than one batch.
    let limits = Limits::default().events(3);
    let listener = bound();
    let addr = listener.local_addr().unwrap();
    let mut clients: Vec<TcpStream> = (0..40).map(|_| connect(addr)).collect();
    let steps = recorded_on(Traced::doubting, limits, listener, move |_| {
        for round in 1..20 {
            clients.iter_mut().for_each(|client| client.write_all(&pattern(round)).unwrap());
            for client in &mut clients {
                assert_eq!(read_exactly(client, round), pattern(round));
            }
        }
    });
    assert!(steps.contains(&Step::Poll { is_full: true }), "no batch was full");
}

const KEY: Source = Source::Connection(3);

fn event(readable: bool, data_only: bool) -> Step {
    Step::Event(Event { source: KEY, readable, writable: true, data_only })
}

fn read(asked: usize, got: Got) -> Step {
    Step::Try { id: 1, half: Half::Read, asked, got }
}

fn write(asked: usize, got: Got) -> Step {
    Step::Try { id: 1, half: Half::Write, asked, got }
}

fn judged(edges: bool, steps: &[Step]) -> Option<String> {
    let begin = [Step::Register { id: 1, source: KEY }];
    Contract::new(false, edges).judge(&[&begin, steps].concat())
}

const POLL: Step = Step::Poll { is_full: false };
const FULL: Step = Step::Poll { is_full: true };

#[test]
fn sequences_that_no_kernel_may_show_are_not_admitted() {
    let wrong: [(&str, &[Step]); 13] = [
        // Data came after WouldBlock, and no event in all the polls since.
        ("no event ever", &[read(9, Got::WouldBlock), read(9, Got::Bytes(5)), POLL, POLL, POLL]),
        (
            "no event ever",
            &[
                POLL,
                event(true, true),
                read(9, Got::Bytes(5)),
                read(9, Got::Bytes(0)),
                POLL,
                POLL,
                POLL,
            ],
        ),
        ("more than was asked", &[read(9, Got::Bytes(10))]),
        ("more taken", &[write(9, Got::Bytes(10))]),
        ("nothing taken", &[write(9, Got::Bytes(0))]),
        ("data after EOF", &[read(9, Got::Bytes(0)), read(9, Got::Bytes(1))]),
        ("EOF taken back", &[read(9, Got::Bytes(0)), read(9, Got::WouldBlock)]),
        ("after our end", &[Step::Shut { id: 1 }, write(9, Got::Bytes(1))]),
        ("after the failure", &[read(9, Got::Failed), write(9, Got::Bytes(1))]),
        ("what has ended", &[read(9, Got::Bytes(0)), POLL, event(true, true)]),
        ("what has ended", &[write(9, Got::Failed), POLL, event(true, true)]),
        ("for nobody", &[Step::Drop { id: 1 }, POLL, event(true, true)]),
        ("one key for two", &[Step::Register { id: 2, source: KEY }]),
    ];
    for (rule, steps) in wrong {
        let verdict = judged(true, steps);
        assert!(verdict.as_ref().is_some_and(|said| said.contains(rule)), "{steps:?}: {verdict:?}");
    }
}

#[test]
fn sequences_that_a_kernel_may_show_are_admitted() {
    let right: [&[Step]; 8] = [
        // Data may come between a WouldBlock and the next try: its event follows.
        &[read(9, Got::WouldBlock), read(9, Got::Bytes(5)), POLL, event(true, true), POLL, POLL],
        &[
            read(9, Got::WouldBlock),
            read(9, Got::Bytes(5)),
            FULL,
            FULL,
            FULL,
            POLL,
            event(true, true),
        ],
        &[read(9, Got::WouldBlock), read(9, Got::Bytes(5)), Step::Drop { id: 1 }, POLL, POLL, POLL],
        // A read that gave less says nothing if an urgent byte may stand in the way.
        &[
            POLL,
            event(true, false),
            read(9, Got::Bytes(5)),
            read(9, Got::Bytes(5)),
            POLL,
            POLL,
            POLL,
        ],
        // An event for what was read already.
        &[POLL, event(true, true), read(9, Got::WouldBlock), POLL, event(true, true)],
        &[read(9, Got::Bytes(0)), read(9, Got::Bytes(0)), POLL, event(true, false)],
        // Room comes in pieces, and only a good piece is told.
        &[write(9, Got::WouldBlock), write(9, Got::Bytes(1)), POLL, POLL, POLL],
        &[Step::Drop { id: 1 }, Step::Register { id: 2, source: KEY }, POLL, event(true, true)],
    ];
    for steps in right {
        assert_eq!(judged(true, steps), None, "{steps:?}");
    }
    // poll(2) tells what is there, and not what was.
    let seen_in_passing = [read(9, Got::WouldBlock), read(9, Got::Bytes(5)), POLL, POLL, POLL];
    assert_eq!(judged(false, &seen_in_passing), None);
}
