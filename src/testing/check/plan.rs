//! The rungs of both ladders, and the rules they stand for.

use super::lab::{Climbed, Lab};
use super::{daytime, echo};

/// A rule that can be seen from outside.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) number: &'static str,
    pub(super) says: &'static str,
}

/// A rung before it is climbed.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) name: &'static str,
    pub(super) rule: Rule,
    /// The chapter of the guide that shows how it is done right.
    pub(super) chapter: &'static str,
    pub(super) climb: fn(&mut Lab) -> Climbed,
}

const fn plan(
    name: &'static str,
    number: &'static str,
    says: &'static str,
    chapter: &'static str,
    climb: fn(&mut Lab) -> Climbed,
) -> Plan {
    Plan { name, rule: Rule { number, says }, chapter, climb }
}

const BLOCKING: &str = "src/guide/01_blocking.md";
const BUSY: &str = "src/guide/02_busy.md";
const DRAIN: &str = "src/guide/04_drain.md";
const PARTIAL_WRITES: &str = "src/guide/06_partial_writes.md";
const BACK_PRESSURE: &str = "src/guide/07_back_pressure.md";
const LINGER: &str = "src/guide/08_linger.md";
const TIMERS: &str = "src/guide/10_timers_and_signals.md";
const LIBRARY: &str = "src/guide/library.md";

/// Of an echo server (RFC 862).
pub(super) static ECHO: [Plan; 8] = [
    plan(
        "one client",
        "E1",
        "every byte comes back, in order, at once: no greeting, no waiting for a line's end",
        BLOCKING,
        echo::one_client,
    ),
    plan(
        "the next client",
        "L1",
        "when a client has gone, the next one is accepted and served",
        BUSY,
        echo::the_next_client,
    ),
    plan(
        "two at once",
        "L1",
        "who is connected is served, whoever else is connected and says nothing",
        DRAIN,
        echo::two_at_once,
    ),
    plan(
        "1 MiB",
        "E1",
        "every byte comes back, of whatever value, in order",
        DRAIN,
        echo::one_mebibyte,
    ),
    plan(
        "a slow reader",
        "E4",
        "a write that takes fewer bytes than offered keeps the rest and sends it later: \
         send is not sendall",
        PARTIAL_WRITES,
        echo::a_slow_reader,
    ),
    plan(
        "half-close",
        "E2",
        "after the client's EOF everything that is owed is delivered, and only then comes EOF",
        BACK_PRESSURE,
        echo::half_close,
    ),
    plan(
        "a client that never reads",
        "E3",
        "what is owed to a client that does not read is bounded, and everybody else is served",
        BACK_PRESSURE,
        echo::a_client_that_never_reads,
    ),
    plan(
        "resets, an urgent byte, 1,000 idle",
        "E6",
        "a reset ends that connection and no other",
        LINGER,
        echo::a_rough_crowd,
    ),
];

/// Of a daytime server (RFC 867).
pub(super) static DAYTIME: [Plan; 6] = [
    plan(
        "said without being asked",
        "D1",
        "the time is said at once, to a client that says nothing and goes on listening",
        LIBRARY,
        daytime::unasked,
    ),
    plan(
        "one line, then EOF",
        "D1",
        "it is one line of printable text, ended by CR LF or LF, and then EOF",
        LINGER,
        daytime::one_line,
    ),
    plan(
        "a client that talks first",
        "D3",
        "what the client says is thrown away, which means that it is read: closing with bytes \
         unread resets the connection and can destroy the line",
        LINGER,
        daytime::a_client_that_talks_first,
    ),
    plan(
        "many at once",
        "L1",
        "whoever connects is told, however many do",
        DRAIN,
        daytime::many_at_once,
    ),
    plan(
        "resets",
        "D4",
        "clients that reset, close or half-close at once disturb nobody",
        LINGER,
        daytime::resets,
    ),
    plan(
        "a client that never closes",
        "D3",
        "nobody waits for a client that does not end its side",
        TIMERS,
        daytime::a_client_that_never_closes,
    ),
];
