//! Parses the fault language. An error names the column and the nearest known word.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::fault::{EFFECTS, Effect, Fault, Part, SIZES, TIMES, When, Who, Whom};
use crate::record::UPSTREAM;

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
        let end = Token { column: text.chars().count() + 1, text: "" };
        Parser { tokens: tokens(text)?, end, at: 0 }.fault()
    }
}

impl TryFrom<&str> for Fault {
    type Error = FaultError;

    fn try_from(text: &str) -> Result<Fault, FaultError> {
        text.parse()
    }
}

impl TryFrom<String> for Fault {
    type Error = FaultError;

    fn try_from(text: String) -> Result<Fault, FaultError> {
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

#[derive(Debug, Clone, Copy)]
struct Token<'a> {
    column: usize,
    text: &'a str,
}

impl Token<'_> {
    fn is_number(&self) -> bool {
        self.text.starts_with(|c: char| c.is_ascii_digit())
    }

    fn error(&self, what: impl Into<String>) -> FaultError {
        FaultError { column: self.column, what: what.into() }
    }

    fn unknown(&self, what: &str, known: &[&str]) -> FaultError {
        self.error(unknown(self.text, what, known))
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
            let unexpected = Token { column, text: rest };
            let advice = if first == ';' { ": add one fault at a time" } else { "" };
            return Err(unexpected.error(format!("unexpected `{first}`{advice}")));
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
    /// Behind the last token, without text.
    end: Token<'a>,
    at: usize,
}

impl<'a> Parser<'a> {
    fn fault(mut self) -> Result<Fault, FaultError> {
        let is_addressed = self.tokens.iter().any(|token| token.text == ":");
        let whom = if is_addressed { Some(self.whom()?) } else { None };
        let effect_at = self.peek();
        let effect = self.effect()?;
        let when_at = self.peek();
        let when = self.when()?;
        let duration_at = self.peek();
        let duration = if self.take("for") { Some(self.time()?) } else { None };
        let rest = self.peek();
        if !rest.text.is_empty() {
            return Err(rest.error(format!("unexpected `{}` after the fault", rest.text)));
        }
        let fault = Fault { whom, effect, when, duration };
        let Some((part, what)) = fault.objection() else { return Ok(fault) };
        let wrong = match part {
            // The first token is the service.
            Part::Who => *self.tokens.get(1).unwrap_or(&self.end),
            Part::Effect => effect_at,
            Part::When => when_at,
            Part::Duration => duration_at,
        };
        Err(wrong.error(what))
    }

    fn whom(&mut self) -> Result<Whom, FaultError> {
        let mut service = self.word("a service, such as echo")?.text.to_owned();
        if self.take("upstream") {
            service += UPSTREAM;
        }
        let who = if self.peek().text == ":" {
            Who::Every
        } else if self.take("#") {
            let first = self.count()?;
            let last = if self.take("..") { self.count()? } else { first };
            Who::Numbers { first, last }
        } else if self.peek().is_number() {
            self.chance()?
        } else {
            let known = [("every", Who::Every), ("new", Who::New), ("once", Who::Once)];
            self.one_of("every, new, once, #3, #3..5 or 10%", "choice of connections", &known)?
        };
        self.expect(":", "a `:`")?;
        Ok(Whom { service, who })
    }

    fn chance(&mut self) -> Result<Who, FaultError> {
        let number = self.next("a number")?;
        self.expect("%", "a `%`")?;
        let (whole, part) = number.text.split_once('.').unwrap_or((number.text, ""));
        let millionths = format!("{whole}{part:0<4}").parse().ok().filter(|_| part.len() <= 4);
        let millionths = millionths.ok_or_else(|| {
            let text = number.text;
            number.error(format!("`{text}` is not a percentage with at most four decimals"))
        })?;
        Ok(Who::Chance { millionths })
    }

    fn effect(&mut self) -> Result<Effect, FaultError> {
        Ok(match self.one_of("an effect, such as reset", "effect", &EFFECTS)? {
            Effect::Delay { .. } => {
                let time = self.time()?;
                let has_jitter = self.take("+-") || self.take("±");
                let jitter = if has_jitter { self.time()? } else { Duration::ZERO };
                Effect::Delay { time, jitter }
            }
            Effect::Slice { gap, .. } => {
                let size = self.count()?;
                let gap = if self.take("/") { self.time()? } else { gap };
                Effect::Slice { size, gap }
            }
            Effect::Rate { .. } => {
                let per_second = self.size()?;
                self.expect("/", "`/s`")?;
                self.expect("s", "`s`")?;
                Effect::Rate { per_second }
            }
            Effect::Short { .. } => Effect::Short { size: self.count()? },
            without_value => without_value,
        })
    }

    fn when(&mut self) -> Result<When, FaultError> {
        let word = self.peek();
        if ["", "for"].contains(&word.text) {
            return Ok(When::AtOnce);
        }
        self.at += 1;
        match word.text {
            "at" => {
                let known =
                    [("accept", When::AtOnce), ("eof", When::Eof), ("write", When::Write(1))];
                match self.one_of("accept, eof or write", "moment", &known)? {
                    When::Write(_) => self.count().map(When::Write),
                    moment => Ok(moment),
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
            _ => Err(word.unknown("trigger", &["after", "at", "for"])),
        }
    }

    /// A size in bytes.
    fn size(&mut self) -> Result<u64, FaultError> {
        let (number_at, number, unit) = (self.peek(), self.count()?, self.peek());
        let mut factor = 1;
        if !["", "in", "/", "for"].contains(&unit.text) {
            let known = SIZES.iter().find(|(name, _)| *name == unit.text);
            let times = TIMES.iter().map(|(name, _)| *name);
            let names: Vec<_> = SIZES.iter().map(|(name, _)| *name).chain(times).collect();
            (_, factor) = *known.ok_or_else(|| unit.unknown("unit", &names))?;
            self.at += 1;
        }
        number.checked_mul(factor).ok_or_else(|| number_at.error("the number is too large"))
    }

    fn time(&mut self) -> Result<Duration, FaultError> {
        let (number_at, number) = (self.peek(), self.number()?);
        let unit = self.one_of("a unit: ns, us, ms, s, m or h", "unit", &TIMES)?;
        let time = number.checked_mul(unit).and_then(|nanos| {
            let seconds = u64::try_from(nanos / 1_000_000_000).ok()?;
            Some(Duration::new(seconds, (nanos % 1_000_000_000) as u32))
        });
        time.ok_or_else(|| number_at.error("the duration is too long"))
    }

    fn count(&mut self) -> Result<u64, FaultError> {
        let (number_at, number) = (self.peek(), self.number()?);
        u64::try_from(number).map_err(|_| number_at.error("the number is too large"))
    }

    fn number(&mut self) -> Result<u128, FaultError> {
        let token = self.next("a whole number")?;
        let wrong = |_| token.error(format!("`{}` is not a whole number", token.text));
        token.text.parse().map_err(wrong)
    }

    /// Takes a word of this table, and returns the value beside it.
    fn one_of<T: Clone>(
        &mut self,
        expected: &str,
        what: &str,
        table: &[(&str, T)],
    ) -> Result<T, FaultError> {
        let word = self.word(expected)?;
        let found = table.iter().find(|(name, _)| *name == word.text);
        found.map(|(_, value)| value.clone()).ok_or_else(|| {
            let names: Vec<_> = table.iter().map(|(name, _)| *name).collect();
            word.unknown(what, &names)
        })
    }

    fn word(&mut self, expected: &str) -> Result<Token<'a>, FaultError> {
        let token = self.peek();
        let is_word = token.text.starts_with(is_of_word) && !token.is_number();
        if is_word { self.next(expected) } else { Err(self.expected(expected)) }
    }

    fn next(&mut self, expected: &str) -> Result<Token<'a>, FaultError> {
        let token = self.tokens.get(self.at).copied();
        self.at += 1;
        token.ok_or_else(|| self.expected(expected))
    }

    fn expect(&mut self, text: &str, expected: &str) -> Result<(), FaultError> {
        if self.take(text) { Ok(()) } else { Err(self.expected(expected)) }
    }

    /// Takes the next token if it is this one.
    fn take(&mut self, text: &str) -> bool {
        let is_next = self.peek().text == text;
        self.at += usize::from(is_next);
        is_next
    }

    fn peek(&self) -> Token<'a> {
        self.tokens.get(self.at).copied().unwrap_or(self.end)
    }

    fn expected(&self, expected: &str) -> FaultError {
        let token = self.peek();
        token.error(match token.text {
            "" => format!("expected {expected}, but the text ends"),
            text => format!("expected {expected}, not `{text}`"),
        })
    }
}

/// Says that a word is unknown, and names the nearest known word, or all of them.
fn unknown(word: &str, what: &str, known: &[&str]) -> String {
    let begins_otherwise = |name: &str| name.chars().next() != word.chars().next();
    let nearest = known.iter().map(|name| (distance(word, name), begins_otherwise(name), name));
    match nearest.min() {
        Some((steps, _, name)) if steps <= 2 && steps < name.len() => {
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
