//! The fault language: what to do wrong, to whom and when, as data and as text.

use std::fmt;
use std::mem::discriminant;
use std::time::Duration;

/// What to do wrong, to whom and when: `echo once: reset after 5 bytes`.
///
/// ```text
/// FAULT  = [ SERVICE [WHO] ":" ] EFFECT [WHEN]
/// WHO    = "every" | "once" | "#"N[".."N] | P"%"
/// EFFECT = delay T[+-T] | slice N[/T] | rate SIZE/s | short N | stall | deaf | corrupt | hold-open
///        | shut | close | reset | refuse | never-accept
/// WHEN   = after SIZE [in] | after T | at eof | at write N           (else: at accept)
/// SIZE   = N ["bytes" | "KiB" | "MiB"]     bytes we sent; with `in`, bytes received
/// T      = N ("ns" | "us" | "ms" | "s" | "m" | "h")
/// ```
///
/// Whom may be left out where something else says it, such as
/// [`Service::once`](super::Service::once). What is printed parses to the same fault again.
///
/// ```
/// use campanile::testing::{Effect, Fault, When};
///
/// let fault: Fault = "echo #3: reset after 64KiB".parse()?;
/// assert_eq!((&fault.effect, &fault.when), (&Effect::Reset, &When::Sent(65_536)));
/// assert_eq!(fault.to_string(), "echo #3: reset after 64KiB");
///
/// let error = "echo: rest after 5 bytes".parse::<Fault>().unwrap_err();
/// assert_eq!(error.to_string(), "column 7: unknown effect `rest`: did you mean `reset`?");
/// # Ok::<(), campanile::testing::FaultError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[doc(alias("toxic", "SocketPolicy", "SocketEffect", "chaos"))]
#[must_use]
#[non_exhaustive]
pub struct Fault {
    /// Whose connections.
    pub whom: Option<Whom>,
    /// What to do.
    pub effect: Effect,
    /// From when on.
    pub when: When,
}

/// Whose connections a fault is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Whom {
    /// The service's name.
    pub service: String,
    /// Which of its connections.
    pub who: Who,
}

/// Which connections of a service.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Who {
    /// All of them.
    Every,
    /// The next one. Several such faults queue up, one a connection.
    #[doc(alias("enqueue", "limit"))]
    Once,
    /// Those with these numbers, counted from 1; the last one is meant, too.
    Numbers {
        /// The first.
        first: u64,
        /// The last.
        last: u64,
    },
    /// So many of a million, chosen by the seed and the connection's number.
    #[doc(alias("toxicity", "percentage"))]
    Chance {
        /// Millionths: 10,000 are one percent.
        millionths: u32,
    },
}

/// What a server does wrong.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Effect {
    /// Everything we say is held back that long.
    #[doc(alias("latency", "fixedDelayMilliseconds", "headersDelay", "bodyDelay"))]
    Delay {
        /// How long.
        time: Duration,
        /// At most so much more or less, by the seed.
        jitter: Duration,
    },
    /// At most so many bytes a write, and a pause after each.
    #[doc(alias("slicer", "chunkedDribbleDelay", "dribble"))]
    Slice {
        /// Bytes.
        size: u64,
        /// The pause; without one, TCP glues the pieces together again.
        gap: Duration,
    },
    /// So many bytes a second.
    #[doc(alias("bandwidth", "throttleBody", "throttle"))]
    Rate {
        /// Bytes.
        per_second: u64,
    },
    /// The kernel seems to take at most so many bytes at once.
    Short {
        /// Bytes.
        size: u64,
    },
    /// We stop writing and keep the connection.
    #[doc(alias("timeout", "NO_RESPONSE", "STALL_SOCKET_AT_START", "NoResponse"))]
    Stall,
    /// We stop reading.
    Deaf,
    /// One bit of the byte there is flipped.
    #[doc(alias("MALFORMED_RESPONSE_CHUNK", "RANDOM_DATA_THEN_CLOSE"))]
    Corrupt,
    /// The client's end is ignored, and ours is not said.
    #[doc(alias("slow_close", "KEEP_OPEN"))]
    HoldOpen,
    /// Our half ends; we go on reading.
    #[doc(alias("SHUTDOWN_OUTPUT_AT_END", "ShutdownConnection", "half-close"))]
    Shut,
    /// An orderly end: FIN.
    #[doc(alias("limit_data", "DISCONNECT_AT_START", "DISCONNECT_AT_END", "EMPTY_RESPONSE"))]
    #[doc(alias("DISCONNECT_AFTER_REQUEST", "DISCONNECT_DURING_RESPONSE_BODY", "CloseSocket"))]
    #[doc(alias("truncate"))]
    Close,
    /// An end by RST.
    #[doc(alias("reset_peer", "CONNECTION_RESET_BY_PEER", "CloseStream"))]
    Reset,
    /// The listener is closed.
    #[doc(alias("down", "disabled"))]
    Refuse,
    /// Clients stay in the backlog.
    NeverAccept,
}

/// From when on a fault acts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum When {
    /// At once.
    Accept,
    /// When so many bytes were written.
    Sent(u64),
    /// When so many bytes were read.
    Received(u64),
    /// So long after the connection was accepted.
    Time(Duration),
    /// When the client has ended its half.
    Eof,
    /// Before our write with this number, counted from 1.
    Write(u64),
}

/// The part of a fault that an objection is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Who,
    Effect,
    When,
}

impl Fault {
    /// A fault of nobody in particular.
    pub fn new(effect: Effect, when: When) -> Fault {
        Fault { whom: None, effect, when }
    }

    /// The same for some connections of a service.
    pub fn of(self, service: impl Into<String>, who: Who) -> Fault {
        Fault { whom: Some(Whom { service: service.into(), who }), ..self }
    }

    /// What cannot be meant, if anything.
    pub(super) fn objection(&self) -> Option<(Part, &'static str)> {
        let who = self.whom.as_ref().map(|whom| &whom.who);
        Some(match (&self.effect, &self.when, who) {
            (Effect::Slice { size: 0, .. } | Effect::Short { size: 0 }, ..)
            | (Effect::Rate { per_second: 0 }, ..) => {
                (Part::Effect, "nothing would ever be written: use `stall`")
            }
            (Effect::Delay { time, jitter }, ..) if jitter > time => {
                (Part::Effect, "the jitter is longer than the delay: use at most the same")
            }
            (_, When::Write(0), _) => (Part::When, "writes are counted from 1"),
            (Effect::Deaf, When::Eof, _) => {
                (Part::When, "nothing is left to read at the client's EOF: use another moment")
            }
            (_, When::Sent(_) | When::Received(_) | When::Eof | When::Write(_), _)
                if self.is_of_listener() =>
            {
                (Part::When, "a listener sends and receives no bytes: use `after T`")
            }
            (.., Some(Who::Numbers { first: 0, .. })) => {
                (Part::Who, "connections are counted from 1")
            }
            (.., Some(Who::Numbers { first, last })) if first > last => {
                (Part::Who, "the first number is greater than the last")
            }
            (.., Some(Who::Chance { millionths: 1_000_001.. })) => {
                (Part::Who, "the percentage is greater than 100%")
            }
            (.., Some(Who::Once | Who::Chance { .. })) if self.is_of_listener() => (
                Part::Who,
                "this effect holds for all clients: use `every`, or `#N` to begin at connection N",
            ),
            _ => return None,
        })
    }

    /// Whether it is done to the listener and not to a connection.
    pub(super) fn is_of_listener(&self) -> bool {
        matches!(self.effect, Effect::Refuse | Effect::NeverAccept)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Whom { service, who }) = &self.whom {
            write!(f, "{service}{who}: ")?;
        }
        write!(f, "{}{}", self.effect, self.when)
    }
}

impl fmt::Display for Who {
    /// With a blank before it, or nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Who::Every => Ok(()),
            Who::Once => f.write_str(" once"),
            Who::Numbers { first, last } if first == last => write!(f, " #{first}"),
            Who::Numbers { first, last } => write!(f, " #{first}..{last}"),
            Who::Chance { millionths } => match (millionths / 10_000, millionths % 10_000) {
                (whole, 0) => write!(f, " {whole}%"),
                (whole, part) => {
                    let digits = format!("{part:04}");
                    write!(f, " {whole}.{}%", digits.trim_end_matches('0'))
                }
            },
        }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_this = |effect| discriminant(effect) == discriminant(self);
        let name = EFFECTS.iter().find(|(_, effect)| is_this(effect)).map(|(name, _)| *name);
        f.write_str(name.unwrap_or_default())?;
        match *self {
            Effect::Delay { time, jitter: Duration::ZERO } => write!(f, " {}", Time(time)),
            Effect::Delay { time, jitter } => write!(f, " {}+-{}", Time(time), Time(jitter)),
            Effect::Slice { size, gap: GAP } | Effect::Short { size } => write!(f, " {size}"),
            Effect::Slice { size, gap } => write!(f, " {size}/{}", Time(gap)),
            Effect::Rate { per_second } => write!(f, " {}/s", Size(per_second)),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for When {
    /// With a blank before it, or nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            When::Accept => Ok(()),
            When::Sent(size) => write!(f, " after {}", Size(size)),
            When::Received(size) => write!(f, " after {} in", Size(size)),
            When::Time(time) => write!(f, " after {}", Time(time)),
            When::Eof => f.write_str(" at eof"),
            When::Write(number) => write!(f, " at write {number}"),
        }
    }
}

/// The name of each effect. The values of the first four are examples; [`GAP`] is the default.
pub(super) const EFFECTS: [(&str, Effect); 13] = [
    ("delay", Effect::Delay { time: Duration::ZERO, jitter: Duration::ZERO }),
    ("slice", Effect::Slice { size: 1, gap: GAP }),
    ("rate", Effect::Rate { per_second: 1 }),
    ("short", Effect::Short { size: 1 }),
    ("stall", Effect::Stall),
    ("deaf", Effect::Deaf),
    ("corrupt", Effect::Corrupt),
    ("hold-open", Effect::HoldOpen),
    ("shut", Effect::Shut),
    ("close", Effect::Close),
    ("reset", Effect::Reset),
    ("refuse", Effect::Refuse),
    ("never-accept", Effect::NeverAccept),
];

/// The pause of `slice` where none is said.
pub(super) const GAP: Duration = Duration::from_millis(1);

/// Units of length, in nanoseconds, and of size, in bytes; the greatest first.
pub(super) const TIMES: [(&str, u128); 6] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];
pub(super) const SIZES: [(&str, u64); 4] =
    [("MiB", 1 << 20), ("KiB", 1 << 10), ("bytes", 1), ("byte", 1)];

struct Time(Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        if nanos == 0 {
            return f.write_str("0s");
        }
        let fits = TIMES.iter().find(|(_, length)| nanos % length == 0);
        let (unit, length) = fits.unwrap_or(&("ns", 1));
        write!(f, "{}{unit}", nanos / length)
    }
}

struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = self.0;
        match SIZES.iter().find(|(_, unit)| *unit > 1 && size > 0 && size % unit == 0) {
            Some((name, unit)) => write!(f, "{}{name}", size / unit),
            None if size == 1 => f.write_str("1 byte"),
            None => write!(f, "{size} bytes"),
        }
    }
}
