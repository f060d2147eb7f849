//! The rungs of both ladders, and their rules.

use super::lab::{Climbed, Lab};
use super::{daytime, echo};

/// A rule that a client can check.
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
    /// The chapter of the guide that shows how to do it.
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

/// The rungs of an echo server (RFC 862).
pub(super) static ECHO: [Plan; 8] = [
    plan(
        "one client",
        "E1",
        "the server returns every byte at once and in order: it sends no greeting, and does not \
         wait for the end of a line",
        BLOCKING,
        echo::one_client,
    ),
    plan(
        "the next client",
        "L1",
        "after a client has left, the server accepts and serves the next one",
        BUSY,
        echo::the_next_client,
    ),
    plan(
        "two at once",
        "L1",
        "the server serves each client, also while another one is connected and silent",
        DRAIN,
        echo::two_at_once,
    ),
    plan(
        "1 MiB",
        "E1",
        "the server returns every byte, whatever its value, in order",
        DRAIN,
        echo::one_mebibyte,
    ),
    plan(
        "a slow reader",
        "E4",
        "if a write takes fewer bytes than offered, the server keeps the rest and sends it later: \
         send is not sendall",
        PARTIAL_WRITES,
        echo::a_slow_reader,
    ),
    plan(
        "half-close",
        "E2",
        "after the client's EOF the server sends everything that is pending, and only then its \
         own EOF",
        BACK_PRESSURE,
        echo::half_close,
    ),
    plan(
        "a client that never reads",
        "E3",
        "the server bounds what it keeps for a client that does not read, and serves the others",
        BACK_PRESSURE,
        echo::a_client_that_never_reads,
    ),
    plan(
        "resets, urgent data, 1,000 idle",
        "E6",
        "a reset ends that connection and no other",
        LINGER,
        echo::a_rough_crowd,
    ),
];

/// The rungs of a daytime server (RFC 867).
pub(super) static DAYTIME: [Plan; 6] = [
    plan(
        "a client that sends nothing",
        "D1",
        "the server sends the time at once, without waiting for a request or for the client's EOF",
        LIBRARY,
        daytime::unasked,
    ),
    plan(
        "one line, then EOF",
        "D1",
        "the server sends one line of printable text with a line end, and then EOF",
        LINGER,
        daytime::a_line,
    ),
    plan(
        "a client that sends first",
        "D3",
        "the server reads and discards what the client sends: closing with unread bytes resets \
         the connection, and that can destroy the line",
        LINGER,
        daytime::a_client_that_sends_first,
    ),
    plan(
        "100 clients at once",
        "L1",
        "the server serves every client, however many connect at once",
        DRAIN,
        daytime::many_at_once,
    ),
    plan(
        "resets",
        "D4",
        "a client that resets, closes or half-closes at once does not affect the others",
        LINGER,
        daytime::resets,
    ),
    plan(
        "a client that never closes",
        "D3",
        "the server serves the others while a client does not close its side",
        TIMERS,
        daytime::a_client_that_never_closes,
    ),
];
