//! The fault language: an effect, the connections it is for, and its time, as data and as text.

use std::fmt;
use std::mem::discriminant;
use std::time::Duration;

use crate::record::UPSTREAM;

/// An effect, the connections it is for, and its time: `echo once: reset after 5 bytes`.
///
/// ```text
/// FAULT  = [ SERVICE ["upstream"] [WHO] ":" ] EFFECT [WHEN] ["for" T]
/// WHO    = "every" | "new" | "once" | "#"N[".."N] | P"%"             (default: every)
/// EFFECT = delay T[+-T] | slice N[/T] | rate SIZE/s | short N | stall | deaf | corrupt | hold-open
///        | shut | close | reset | refuse | never-accept | unreachable
/// WHEN   = after SIZE [in] | after T | at eof | at write N           (default: at once)
/// SIZE   = N ["bytes" | "KiB" | "MiB"]     bytes the server sent; with `in`, bytes received
/// T      = N ("ns" | "us" | "ms" | "s" | "m" | "h")
/// ```
///
/// The service and the choice of connections can be left out where the call names them, as
/// [`Service::once`](super::Service::once) does. Printing a fault and parsing the text returns the same
/// fault.
///
/// The service `NAME upstream` is the server's side of a proxy: its faults are what the *server* behind
/// the proxy experiences, and `#N` is the number of the conversation.
///
/// On a connection that is open when the fault is added, `after SIZE`, `after T` and `at write N` count
/// from that moment. `for T` counts from the moment at which the effect begins.
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
    /// The connections it is for.
    pub whom: Option<Whom>,
    /// What the server does.
    pub effect: Effect,
    /// When the effect begins.
    pub when: When,
    /// How long the effect lasts on a connection. `None` means until the fault is removed.
    pub duration: Option<Duration>,
}

/// The connections that a fault is for.
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
    /// All connections: those that are open now, and those to come.
    Every,
    /// The connections to come.
    New,
    /// The next connection. Several such faults queue up, one per connection.
    #[doc(alias("enqueue", "limit"))]
    Once,
    /// The connections with these numbers, counted from 1, open ones too. The range includes `last`.
    Numbers {
        /// The first.
        first: u64,
        /// The last.
        last: u64,
    },
    /// This many of a million connections, open ones too, drawn from the seed, the connection's number
    /// and the text of the fault: adding the same fault twice chooses the same connections.
    #[doc(alias("toxicity", "percentage"))]
    Chance {
        /// Millionths: 10,000 are one percent.
        millionths: u32,
    },
}

/// The way in which a server misbehaves.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Effect {
    /// Holds each answer back that long.
    #[doc(alias("latency", "fixedDelayMilliseconds", "headersDelay", "bodyDelay"))]
    Delay {
        /// The delay.
        time: Duration,
        /// The most by which a delay, drawn from the seed, is longer or shorter.
        jitter: Duration,
    },
    /// Writes at most this many bytes at once, and pauses after each write.
    #[doc(alias("slicer", "chunkedDribbleDelay", "dribble"))]
    Slice {
        /// Bytes.
        size: u64,
        /// The pause. Without one, TCP joins the pieces again.
        gap: Duration,
    },
    /// Writes this many bytes a second.
    #[doc(alias("bandwidth", "throttleBody", "throttle"))]
    Rate {
        /// Bytes.
        per_second: u64,
    },
    /// Makes the kernel seem to take at most this many bytes per write.
    Short {
        /// Bytes.
        size: u64,
    },
    /// Stops writing and keeps the connection.
    #[doc(alias("timeout", "NO_RESPONSE", "STALL_SOCKET_AT_START", "NoResponse"))]
    Stall,
    /// Stops reading.
    Deaf,
    /// Flips one bit of the byte at the fault's moment.
    #[doc(alias("MALFORMED_RESPONSE_CHUNK", "RANDOM_DATA_THEN_CLOSE"))]
    Corrupt,
    /// Ignores the client's EOF, and does not end the server's half.
    #[doc(alias("slow_close", "KEEP_OPEN"))]
    HoldOpen,
    /// Ends the server's half, and goes on reading.
    #[doc(alias("SHUTDOWN_OUTPUT_AT_END", "ShutdownConnection", "half-close"))]
    Shut,
    /// Closes the connection with a FIN.
    #[doc(alias("limit_data", "DISCONNECT_AT_START", "DISCONNECT_AT_END", "EMPTY_RESPONSE"))]
    #[doc(alias("DISCONNECT_AFTER_REQUEST", "DISCONNECT_DURING_RESPONSE_BODY", "CloseSocket"))]
    #[doc(alias("truncate"))]
    Close,
    /// Closes the connection with a RST.
    #[doc(alias("reset_peer", "CONNECTION_RESET_BY_PEER", "CloseStream"))]
    Reset,
    /// Closes the listener.
    #[doc(alias("down", "disabled"))]
    Refuse,
    /// Leaves the clients in the backlog.
    NeverAccept,
    /// Keeps the backlog full, so that a connect gets no answer. Needs TCP on Linux.
    #[doc(alias("timeout", "blackhole", "drop"))]
    Unreachable,
}

/// The moment at which a fault begins to act.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum When {
    /// At once.
    AtOnce,
    /// When the server has written this many bytes.
    Sent(u64),
    /// When the server has read this many bytes.
    Received(u64),
    /// This long after the connection was accepted, or after the fault was added to it.
    Time(Duration),
    /// When the client has ended its half.
    Eof,
    /// Before the server's write with this number, counted from 1.
    Write(u64),
}

/// The part of a fault that an objection is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Who,
    Effect,
    When,
    Duration,
}

impl Fault {
    /// Creates a fault that names no connections and does not end by itself.
    pub fn new(effect: Effect, when: When) -> Fault {
        Fault { whom: None, effect, when, duration: None }
    }

    /// Returns the same fault, which ends by itself after this time.
    pub fn lasting(self, duration: Duration) -> Fault {
        Fault { duration: Some(duration), ..self }
    }

    /// Returns the same fault for connections of a service.
    pub fn of(self, service: impl Into<String>, who: Who) -> Fault {
        Fault { whom: Some(Whom { service: service.into(), who }), ..self }
    }

    /// Returns the part that makes no sense, and the reason.
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
            _ if self.is_of_listener() && self.is_upstream() => {
                (Part::Effect, "a proxy has no listener upstream: leave out `upstream`")
            }
            (.., Some(Who::New | Who::Once | Who::Chance { .. })) if self.is_of_listener() => (
                Part::Who,
                "this effect holds for all clients: use `every`, or `#N` to begin at connection N",
            ),
            (Effect::Corrupt | Effect::Shut | Effect::Close | Effect::Reset, ..)
                if self.duration.is_some() =>
            {
                (Part::Duration, "this effect cannot be undone: leave out `for`")
            }
            _ => return None,
        })
    }

    fn is_upstream(&self) -> bool {
        self.whom.as_ref().is_some_and(|whom| whom.service.ends_with(UPSTREAM))
    }

    /// Returns whether the fault acts on a listener instead of a connection.
    pub(super) fn is_of_listener(&self) -> bool {
        matches!(self.effect, Effect::Refuse | Effect::NeverAccept | Effect::Unreachable)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Whom { service, who }) = &self.whom {
            write!(f, "{service}{who}: ")?;
        }
        write!(f, "{}{}", self.effect, self.when)?;
        self.duration.map_or(Ok(()), |duration| write!(f, " for {}", Time(duration)))
    }
}

impl fmt::Display for Who {
    /// Writes a space and the choice, or nothing for `every`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Who::Every => Ok(()),
            Who::New => f.write_str(" new"),
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
    /// Writes a space and the moment, or nothing for "at once".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            When::AtOnce => Ok(()),
            When::Sent(size) => write!(f, " after {}", Size(size)),
            When::Received(size) => write!(f, " after {} in", Size(size)),
            When::Time(time) => write!(f, " after {}", Time(time)),
            When::Eof => f.write_str(" at eof"),
            When::Write(number) => write!(f, " at write {number}"),
        }
    }
}

/// The name of each effect. The values of the first four are examples; [`GAP`] is the default.
pub(super) const EFFECTS: [(&str, Effect); 14] = [
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
    ("unreachable", Effect::Unreachable),
];

/// The pause of `slice` if the text has none.
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
