//! Every way a stream can answer, up to a depth: not a sample but all of them.

mod common;

use std::time::{Duration, Instant};

use campanile::services::{Daytime, Echo};
use campanile::{
    Clock, CloseReason, Limits, Protocol,
    sys::{Connection, Context, Next},
};
use common::diary::Diary;
use common::script::{STEPS, Script, Step};
use common::{TUTORIAL, TUTORIAL_LINE, pattern};

const DEPTH: u32 = 7;

/// Runs one connection over one script, giving an edge only where WouldBlock promised one.
fn converse(script: &Script, protocol: impl Protocol + 'static, lent: &mut Context) -> CloseReason {
    let mut connection = Connection::new(script.clone(), Box::new(protocol), lent);
    let mut is_registered = false;
    for _ in 0..10_000 {
        match connection.run(lent) {
            Err(reason) => {
                let told = CloseReason::Failed(std::io::ErrorKind::Other.into());
                let told = match &reason {
                    CloseReason::Finished => CloseReason::Finished,
                    _ => told,
                };
                connection.end(reason, lent);
                return told;
            }
            Ok(Next { has_work: true, .. }) => {}
            Ok(Next { has_work: false, .. }) => {
                let wire = &mut *script.0.borrow_mut();
                let (mut read, write) = (wire.read_blocked, wire.write_blocked);
                // Registration tells of what is there already.
                read |= !std::mem::replace(&mut is_registered, true);
                assert!(read || write, "waits, but no event will come");
                (wire.read_blocked, wire.write_blocked) = (false, false);
                connection.on_event(read, write, false);
            }
        }
    }
    panic!("never ends");
}

fn limits(bound: usize) -> Limits {
    Limits::default().high_water(bound).low_water(bound / 4).read_buffer(8).leftover_budget(11)
}

/// Calls `check` with every script of `depth` steps.
fn every_script(depth: u32, mut check: impl FnMut(&[Step])) {
    let mut steps = vec![STEPS[0]; depth as usize];
    for number in 0..STEPS.len().pow(depth) {
        let mut rest = number;
        for step in &mut steps {
            *step = STEPS[rest % STEPS.len()];
            rest /= STEPS.len();
        }
        check(&steps);
    }
}

/// Sabotage: count what a short write left over as written; end at `WouldBlock`; at EOF, forget what
/// is owed.
#[test]
fn echo_gives_back_a_prefix_always_and_everything_whenever_the_script_allows() {
    let (script, diary, input) = (Script::default(), Diary::default(), pattern(13));
    for bound in [1, 3, 64] {
        let mut lent = Context::new(limits(bound), Instant::now());
        every_script(DEPTH, |steps| {
            script.0.borrow_mut().begin(steps, &input);
            diary.clear();
            let reason = converse(&script, diary.of(Echo), &mut lent);
            let wire = script.0.borrow();
            assert!(wire.input.starts_with(&wire.written), "{steps:?}");
            assert_eq!(matches!(reason, CloseReason::Finished), !wire.reset, "{steps:?}");
            if !wire.reset {
                assert_eq!(wire.written, wire.input[..wire.read], "{steps:?}: lost bytes");
                assert!(wire.shut && wire.eof && !wire.aborted, "{steps:?}");
            }
            assert!(diary.letters().ends_with('c'), "{steps:?}: {}", diary.letters());
        });
    }
}

/// Sabotage: count what a short write left over as written; end at `WouldBlock`; at EOF, forget what
/// is owed.
#[test]
fn daytime_delivers_its_line_ends_its_half_and_reads_to_the_peers_end() {
    let (script, diary, input) = (Script::default(), Diary::default(), pattern(13));
    let service = Daytime::new(Clock::fixed(TUTORIAL));
    for bound in [1, 3, 64] {
        let mut lent = Context::new(limits(bound), Instant::now());
        every_script(DEPTH, |steps| {
            script.0.borrow_mut().begin(steps, &input);
            diary.clear();
            let reason = converse(&script, diary.of(service.clone()), &mut lent);
            let wire = script.0.borrow();
            assert!(TUTORIAL_LINE.starts_with(&wire.written), "{steps:?}");
            assert_eq!(matches!(reason, CloseReason::Finished), !wire.reset, "{steps:?}");
            if !wire.reset {
                assert_eq!(wire.written, TUTORIAL_LINE, "{steps:?}");
                assert!(wire.shut && wire.eof && !wire.aborted, "{steps:?}");
            }
            assert_eq!(diary.letters(), "oc", "{steps:?}");
        });
    }
}

#[test]
fn nothing_is_read_beyond_the_room_that_is_left() {
    let script = Script::default();
    let mut lent = Context::new(
        Limits::default().high_water(100).low_water(10).read_buffer(64),
        Instant::now(),
    );
    // The first read is echoed, the write of it refused: from then on everything is owed.
    let steps = [Step::All, Step::WouldBlock];
    script.0.borrow_mut().begin(&steps, &pattern(1000));
    let mut connection = Connection::new(script.clone(), Box::new(Echo), &lent);
    assert!(matches!(connection.run(&mut lent), Ok(Next { has_work: false, .. })));
    assert_eq!(script.0.borrow().read, 100, "64 and then the 36 that were left");
    assert!(!connection.wants_read(&lent) && connection.wants_write());
}

#[test]
fn a_congested_producer_resumes_without_an_edge() {
    /// Sends until congested, three hundred pieces in all.
    struct Producer(u32);
    impl Producer {
        fn produce(&mut self, out: &mut campanile::Outbox) {
            while self.0 > 0 && !out.is_congested() {
                self.0 -= 1;
                out.send(b"0123456789");
            }
            if self.0 == 0 {
                out.close();
            }
        }
    }
    impl Protocol for Producer {
        fn on_open(&mut self, out: &mut campanile::Outbox) {
            self.produce(out);
        }
        fn on_data(&mut self, _: &[u8], _: &mut campanile::Outbox) {}
        fn on_drain(&mut self, out: &mut campanile::Outbox) {
            self.produce(out);
        }
    }
    for bound in [1, 64, 1000] {
        let script = Script::default();
        let mut lent = Context::new(limits(bound), Instant::now());
        script.0.borrow_mut().begin(&[], b"");
        converse(&script, Producer(300), &mut lent);
        assert_eq!(script.0.borrow().written.len(), 3000, "bound {bound}");
    }
}

#[test]
fn a_peer_that_never_pauses_does_not_keep_a_protocol_from_its_drain() {
    /// Bounds by itself what it reads, and sends more than the high-water mark at the first byte.
    struct Relay(u32);
    impl Protocol for Relay {
        fn on_data(&mut self, _: &[u8], out: &mut campanile::Outbox) {
            out.resume();
            if self.0 == 0 {
                out.send(&[7; 100]);
            }
            self.0 += 1;
        }
        fn on_drain(&mut self, out: &mut campanile::Outbox) {
            assert!(self.0 < 3, "{} reads came first", self.0);
            out.close();
        }
        fn on_eof(&mut self, _: &mut campanile::Outbox) {
            panic!("the peer's EOF came first");
        }
    }
    let script = Script::default();
    let limits = Limits::default().high_water(50).low_water(10).read_buffer(8);
    let mut lent = Context::new(limits, Instant::now());
    // Every read returns bytes, for far longer than one budget.
    script.0.borrow_mut().begin(&[], &pattern(1 << 20));
    let reason = converse(&script, Relay(0), &mut lent);
    assert!(matches!(reason, CloseReason::Finished));
    assert_eq!(script.0.borrow().written.len(), 100);
}

#[test]
fn a_peer_that_sends_and_never_reads_is_stalled() {
    struct Answer;
    impl Protocol for Answer {
        fn on_data(&mut self, _: &[u8], out: &mut campanile::Outbox) {
            out.resume();
            out.send(b"answer");
        }
    }
    let began = Instant::now();
    let script = Script::default();
    let limits = Limits::default().write_timeout(Duration::from_secs(5));
    let mut lent = Context::new(limits, began);
    let mut connection = Connection::new(script.clone(), Box::new(Answer), &lent);
    for second in 0..10 {
        // A byte each second, and no room for an answer.
        let read_then_write = [Step::One, Step::WouldBlock, Step::WouldBlock];
        let write_then_read = [Step::WouldBlock, Step::One, Step::WouldBlock];
        let steps = if second == 0 { read_then_write } else { write_then_read };
        script.0.borrow_mut().begin(&steps, b"xx");
        lent.begin_turn(began + Duration::from_secs(second));
        connection.on_event(true, false, false);
        connection.on_deadline();
        match connection.run(&mut lent) {
            Ok(_) => assert!(second < 5, "second {second}"),
            Err(reason) => {
                assert!(
                    second >= 5 && matches!(reason, CloseReason::Stalled),
                    "{second}: {reason}"
                );
                return;
            }
        }
    }
    panic!("never stalled");
}

#[test]
fn what_is_more_than_a_budget_is_tried_before_the_cap_is_held_against_it() {
    struct Speech;
    impl Protocol for Speech {
        fn on_open(&mut self, out: &mut campanile::Outbox) {
            // Each send is within the cap; together they are not.
            out.send(&[0; 1500]);
            out.send(&[0; 1500]);
            out.close();
        }
        fn on_data(&mut self, _: &[u8], _: &mut campanile::Outbox) {}
    }
    let script = Script::default();
    let limits = Limits::default().max_send_queue(2500).leftover_budget(500);
    let mut lent = Context::new(limits, Instant::now());
    script.0.borrow_mut().begin(&[], b"");
    let mut connection = Connection::new(script.clone(), Box::new(Speech), &lent);
    for turn in 1..=6 {
        let next = connection.run(&mut lent);
        assert!(next.is_ok(), "turn {turn}: {next:?}");
        assert_eq!(script.0.borrow().written.len(), 500 * turn, "the budget of turn {turn}");
    }
}

#[test]
fn a_protocol_that_ignores_congestion_is_cut_at_the_cap() {
    struct Flood;
    impl Protocol for Flood {
        fn on_open(&mut self, out: &mut campanile::Outbox) {
            out.send(&[0; 3000]);
        }
        fn on_data(&mut self, _: &[u8], _: &mut campanile::Outbox) {}
    }
    for (cap, overflows) in [(2999, true), (3000, false)] {
        let script = Script::default();
        let mut lent = Context::new(Limits::default().max_send_queue(cap), Instant::now());
        script.0.borrow_mut().begin(&[Step::WouldBlock, Step::WouldBlock], b"");
        let mut connection = Connection::new(script.clone(), Box::new(Flood), &lent);
        let next = connection.run(&mut lent);
        assert_eq!(matches!(next, Err(CloseReason::Overflow)), overflows, "{next:?}");
    }
}

#[test]
fn a_wake_up_comes_once_at_its_time_and_a_cancelled_one_never() {
    struct Alarm(Duration);
    impl Protocol for Alarm {
        fn on_open(&mut self, out: &mut campanile::Outbox) {
            out.timer_after(self.0);
        }
        fn on_data(&mut self, _: &[u8], out: &mut campanile::Outbox) {
            out.cancel_timer();
        }
        fn on_timer(&mut self, out: &mut campanile::Outbox) {
            out.send(b"awake");
        }
    }
    let began = Instant::now();
    for (input, awake) in [(&b""[..], true), (b"x", false)] {
        let (script, diary) = (Script::default(), Diary::default());
        let mut lent = Context::new(Limits::default(), began);
        let steps = if input.is_empty() {
            vec![Step::WouldBlock]
        } else {
            vec![Step::All, Step::WouldBlock]
        };
        script.0.borrow_mut().begin(&steps, input);
        let mut connection = Connection::new(
            script.clone(),
            Box::new(diary.of(Alarm(Duration::from_secs(7)))),
            &lent,
        );
        for (second, expected) in [(0, false), (6, false), (7, awake), (8, awake)] {
            lent.begin_turn(began + Duration::from_secs(second));
            assert!(matches!(connection.run(&mut lent), Ok(Next { has_work: false, .. })));
            assert_eq!(script.0.borrow().written == b"awake", expected, "second {second}");
        }
    }
}

#[test]
fn a_panic_ends_its_connection_without_another_call() {
    struct Bomb;
    impl Protocol for Bomb {
        fn on_data(&mut self, _: &[u8], _: &mut campanile::Outbox) {
            panic!("boom");
        }
        fn on_close(&mut self, _: &CloseReason) {
            unreachable!("not called after a panic");
        }
    }
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("boom, too");
        }
    }
    let script = Script::default();
    let mut lent = Context::new(Limits::default(), Instant::now());
    script.0.borrow_mut().begin(&[], b"x");
    let mut connection = Connection::new(script.clone(), Box::new(Bomb), &lent);
    let Err(reason) = connection.run(&mut lent) else { panic!("goes on") };
    assert!(matches!(reason, CloseReason::Panicked));
    connection.end(reason, &mut lent);
    assert!(script.0.borrow().aborted, "the peer sees that it went wrong");
    let panic = lent.take_panic().expect("the panic is kept for the owner of the reactor");
    assert_eq!(panic.downcast_ref(), Some(&"boom"));
    assert!(lent.take_panic().is_none(), "the protocol was called again");
}
