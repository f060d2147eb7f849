//! Parses the fault language. An error names the column and the nearest known word.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::fault::{Effect, Fault, GAP, Part, SIZES, TIMES, When, Who, Whom};

/// Why a text is not a fault: the column, and what was expected there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultError {
    column: usize,
    what: String,
}

impl FaultError {
    /// The first wrong character, counted from 1.
    pub fn column(&self) -> usize {
        self.column
    }
}

impl fmt::Display for FaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "column {}: {}", self.column, self.what)
    }
}

impl std::error::Error for FaultError {}

impl FromStr for Fault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Fault, FaultError> {
        Parser { tokens: tokens(text)?, end: text.chars().count() + 1, at: 0 }.fault()
    }
}

impl TryFrom<&str> for Fault {
    type Error = FaultError;

    fn try_from(text: &str) -> Result<Fault, FaultError> {
        text.parse()
    }
}

impl Fault {
    /// Checks that the fault names one of `services`.
    ///
    /// # Errors
    /// If it names another service, or none.
    pub fn check_service(&self, services: &[&str]) -> Result<(), FaultError> {
        let what = match &self.whom {
            Some(whom) if services.contains(&&*whom.service) => return Ok(()),
            Some(whom) => unknown(&whom.service, "service", services),
            None => {
                let service = services.first().unwrap_or(&"echo");
                format!("name a service, as in `{service}: {self}`")
            }
        };
        Err(FaultError { column: 1, what })
    }
}

const EFFECTS: [&str; 13] = [
    "delay",
    "slice",
    "rate",
    "short",
    "stall",
    "deaf",
    "corrupt",
    "hold-open",
    "shut",
    "close",
    "reset",
    "refuse",
    "never-accept",
];

#[derive(Debug, Clone, Copy)]
struct Token<'a> {
    column: usize,
    text: &'a str,
}

impl Token<'_> {
    fn is_number(&self) -> bool {
        self.text.starts_with(|c: char| c.is_ascii_digit())
    }
}

/// Splits a text into numbers, words and marks. Blanks only separate.
fn tokens(text: &str) -> Result<Vec<Token<'_>>, FaultError> {
    let (mut found, mut rest, mut column) = (Vec::new(), text, 1);
    while let Some(first) = rest.chars().next() {
        let length = if first.is_whitespace() {
            first.len_utf8()
        } else if first.is_ascii_digit() {
            number_length(rest)
        } else if is_of_word(first) && first != '-' {
            rest.find(|c| !is_of_word(c)).unwrap_or(rest.len())
        } else if let Some(mark) = ["..", "+-", "±"].iter().find(|mark| rest.starts_with(**mark)) {
            mark.len()
        } else if "#%:/".contains(first) {
            1
        } else {
            return Err(FaultError { column, what: format!("unexpected `{first}`") });
        };
        let (token, after) = rest.split_at(length);
        if !first.is_whitespace() {
            found.push(Token { column, text: token });
        }
        column += token.chars().count();
        rest = after;
    }
    Ok(found)
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '-' || c == '_'
}

/// The length of digits, and of a point with digits after it: `1..5` begins with a 1.
fn number_length(text: &str) -> usize {
    let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let whole = digits(text);
    match text[whole..].strip_prefix('.').map(digits) {
        Some(part) if part > 0 => whole + 1 + part,
        _ => whole,
    }
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    /// The column after the text.
    end: usize,
    at: usize,
}

impl<'a> Parser<'a> {
    fn fault(mut self) -> Result<Fault, FaultError> {
        let mut whom = None;
        let who_at = self.column() + 1;
        if self.tokens.iter().any(|token| token.text == ":") {
            whom = Some(self.whom()?);
        }
        let effect_at = self.column();
        let effect = self.effect()?;
        let when_at = self.column();
        let when = self.when()?;
        if let Some(token) = self.peek() {
            return Err(self.wrong(format!("unexpected `{}` after the fault", token.text)));
        }
        let fault = Fault { whom, effect, when };
        match fault.objection() {
            None => Ok(fault),
            Some((part, what)) => {
                let column = match part {
                    Part::Who => self.tokens.get(1).map_or(who_at, |token| token.column),
                    Part::Effect => effect_at,
                    Part::When => when_at,
                };
                Err(FaultError { column, what: what.into() })
            }
        }
    }

    fn whom(&mut self) -> Result<Whom, FaultError> {
        let service = self.word("a service, such as echo")?.to_owned();
        let who = match self.peek() {
            Some(token) if token.text == ":" => Who::Every,
            Some(token) if token.text == "#" => {
                self.at += 1;
                let first = self.count()?;
                let last = if self.take("..") { self.count()? } else { first };
                Who::Numbers { first, last }
            }
            Some(token) if token.is_number() => self.chance()?,
            _ => {
                let column = self.column();
                match self.word("every, once, #3, #3..5 or 10%")? {
                    "every" => Who::Every,
                    "once" => Who::Once,
                    other => {
                        let what = unknown(other, "choice of connections", &["every", "once"]);
                        return Err(FaultError { column, what });
                    }
                }
            }
        };
        if self.take(":") { Ok(Whom { service, who }) } else { Err(self.expected("a `:`")) }
    }

    fn chance(&mut self) -> Result<Who, FaultError> {
        let token = self.next("a number")?;
        let (whole, part) = token.text.split_once('.').unwrap_or((token.text, ""));
        let millionths = format!("{whole}{part:0<4}").parse().ok().filter(|_| part.len() <= 4);
        let error = FaultError {
            column: token.column,
            what: format!("`{}` is not a percentage with at most four decimals", token.text),
        };
        if !self.take("%") {
            return Err(self.expected("a `%`"));
        }
        Ok(Who::Chance { millionths: millionths.ok_or(error)? })
    }

    fn effect(&mut self) -> Result<Effect, FaultError> {
        let column = self.column();
        let effect = match self.word("an effect, such as reset")? {
            "delay" => {
                let time = self.time()?;
                let jitter = self.take("+-") || self.take("±");
                let jitter = if jitter { self.time()? } else { Duration::ZERO };
                Effect::Delay { time, jitter }
            }
            "slice" => {
                let size = self.count()?;
                let gap = if self.take("/") { self.time()? } else { GAP };
                Effect::Slice { size, gap }
            }
            "rate" => {
                let per_second = self.size()?;
                if !self.take("/") {
                    return Err(self.expected("`/s`"));
                }
                if !self.take("s") {
                    return Err(self.expected("`s`"));
                }
                Effect::Rate { per_second }
            }
            "short" => Effect::Short { size: self.count()? },
            "stall" => Effect::Stall,
            "deaf" => Effect::Deaf,
            "corrupt" => Effect::Corrupt,
            "hold-open" => Effect::HoldOpen,
            "shut" => Effect::Shut,
            "close" => Effect::Close,
            "reset" => Effect::Reset,
            "refuse" => Effect::Refuse,
            "never-accept" => Effect::NeverAccept,
            other => {
                return Err(FaultError { column, what: unknown(other, "effect", &EFFECTS) });
            }
        };
        Ok(effect)
    }

    fn when(&mut self) -> Result<When, FaultError> {
        let column = self.column();
        let Some(token) = self.peek() else { return Ok(When::Accept) };
        self.at += 1;
        match token.text {
            "at" => {
                let column = self.column();
                match self.word("accept, eof or write")? {
                    "accept" => Ok(When::Accept),
                    "eof" => Ok(When::Eof),
                    "write" => self.count().map(When::Write),
                    other => {
                        let what = unknown(other, "moment", &["accept", "eof", "write"]);
                        Err(FaultError { column, what })
                    }
                }
            }
            "after" => match self.tokens.get(self.at + 1) {
                Some(unit) if TIMES.iter().any(|(name, _)| *name == unit.text) => {
                    self.time().map(When::Time)
                }
                _ => {
                    let size = self.size()?;
                    Ok(if self.take("in") { When::Received(size) } else { When::Sent(size) })
                }
            },
            other => Err(FaultError { column, what: unknown(other, "trigger", &["after", "at"]) }),
        }
    }

    fn size(&mut self) -> Result<u64, FaultError> {
        let (column, number) = (self.column(), self.count()?);
        let unit = match self.peek() {
            Some(token) if !["in", "/"].contains(&token.text) => {
                let known = SIZES.iter().find(|(name, _)| *name == token.text);
                let (_, unit) = known.ok_or_else(|| {
                    let names: Vec<_> = SIZES.iter().map(|(name, _)| *name).collect();
                    let names = names.into_iter().chain(TIMES.map(|(name, _)| name));
                    self.wrong(unknown(token.text, "unit", &names.collect::<Vec<_>>()))
                })?;
                self.at += 1;
                *unit
            }
            _ => 1,
        };
        let what = "the number is too large".to_owned();
        number.checked_mul(unit).ok_or(FaultError { column, what })
    }

    fn time(&mut self) -> Result<Duration, FaultError> {
        let (column, number) = (self.column(), self.number()?);
        let (unit_at, unit) = (self.column(), self.word("a unit: ns, us, ms, s, m or h")?);
        let names = TIMES.map(|(name, _)| name);
        let known = TIMES.iter().find(|(name, _)| *name == unit);
        let (_, nanos) =
            known.ok_or(FaultError { column: unit_at, what: unknown(unit, "unit", &names) })?;
        let nanos = number.checked_mul(*nanos);
        let seconds = nanos.and_then(|nanos| u64::try_from(nanos / 1_000_000_000).ok());
        match (seconds, nanos) {
            (Some(seconds), Some(nanos)) => {
                Ok(Duration::new(seconds, (nanos % 1_000_000_000) as u32))
            }
            _ => Err(FaultError { column, what: "the duration is too long".into() }),
        }
    }

    fn count(&mut self) -> Result<u64, FaultError> {
        let (column, number) = (self.column(), self.number()?);
        let what = "the number is too large".into();
        u64::try_from(number).map_err(|_| FaultError { column, what })
    }

    fn number(&mut self) -> Result<u128, FaultError> {
        let token = self.next("a whole number")?;
        token.text.parse().map_err(|_| FaultError {
            column: token.column,
            what: format!("`{}` is not a whole number", token.text),
        })
    }

    fn word(&mut self, what: &str) -> Result<&'a str, FaultError> {
        match self.peek() {
            Some(token) if token.text.starts_with(is_of_word) && !token.is_number() => {
                self.at += 1;
                Ok(token.text)
            }
            _ => Err(self.expected(what)),
        }
    }

    fn next(&mut self, what: &str) -> Result<Token<'a>, FaultError> {
        let token = self.peek().ok_or_else(|| self.expected(what))?;
        self.at += 1;
        Ok(token)
    }

    fn take(&mut self, text: &str) -> bool {
        let is_there = self.peek().is_some_and(|token| token.text == text);
        self.at += usize::from(is_there);
        is_there
    }

    fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.at).copied()
    }

    fn column(&self) -> usize {
        self.peek().map_or(self.end, |token| token.column)
    }

    fn wrong(&self, what: String) -> FaultError {
        FaultError { column: self.column(), what }
    }

    fn expected(&self, what: &str) -> FaultError {
        match self.peek() {
            Some(token) => self.wrong(format!("expected {what}, not `{}`", token.text)),
            None => self.wrong(format!("expected {what}, but the text ends")),
        }
    }
}

/// Says that a word is unknown, and names the nearest known word, or all of them.
fn unknown(word: &str, what: &str, known: &[&str]) -> String {
    let nearest = known.iter().map(|name| (distance(word, name), name)).min();
    match nearest {
        Some((steps, name)) if steps <= 2 && steps < name.len() => {
            format!("unknown {what} `{word}`: did you mean `{name}`?")
        }
        _ => format!("unknown {what} `{word}`: use {}", known.join(", ")),
    }
}

/// The number of letters to add, remove or change.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in other.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}
