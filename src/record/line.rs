//! [`Line`]: one record under construction, as JSON that is appended to a text.

use std::io::{self, ErrorKind};

use super::base64;

/// A JSON object that is appended to a text, ended by a newline. Its keys are literals and need no
/// escaping. A key whose value is absent, false or `None` is left out.
#[derive(Debug)]
pub(super) struct Line<'a>(&'a mut String);

impl<'a> Line<'a> {
    /// Begins a record of this kind at this time, in microseconds.
    pub(super) fn begin(text: &'a mut String, time: u64, kind: &str) -> Line<'a> {
        text.push_str("{\"t\":");
        push_number(text, time);
        text.push_str(",\"k\":\"");
        text.push_str(kind);
        text.push('"');
        Line(text)
    }

    fn key(&mut self, key: &str) -> &mut String {
        self.0.push_str(",\"");
        self.0.push_str(key);
        self.0.push_str("\":");
        self.0
    }

    pub(super) fn number(mut self, key: &str, value: impl Into<Option<u64>>) -> Self {
        if let Some(value) = value.into() {
            push_number(self.key(key), value);
        }
        self
    }

    /// Adds a word of this program, which needs no escaping.
    pub(super) fn word(mut self, key: &str, word: &'static str) -> Self {
        let text = self.key(key);
        text.push('"');
        text.push_str(word);
        text.push('"');
        self
    }

    pub(super) fn text<'t>(mut self, key: &str, value: impl Into<Option<&'t str>>) -> Self {
        if let Some(value) = value.into() {
            push_string(self.key(key), value);
        }
        self
    }

    pub(super) fn flag(mut self, key: &str, value: bool) -> Self {
        if value {
            self.key(key).push_str("true");
        }
        self
    }

    /// Adds bytes in base64, if there are any.
    pub(super) fn bytes(mut self, key: &str, bytes: &[u8]) -> Self {
        if !bytes.is_empty() {
            let text = self.key(key);
            text.push('"');
            base64::encode(text, bytes);
            text.push('"');
        }
        self
    }

    /// Adds an error: the name of its errno, or its text if it has none.
    pub(super) fn error(self, error: &io::Error) -> Self {
        match errno(error) {
            Some(name) => self.word("e", name),
            None => self.text("e", &*error.to_string()),
        }
    }

    pub(super) fn end(self) {
        self.0.push_str("}\n");
    }
}

/// Appends a number. `write!` takes several times as long, and a record has several numbers.
pub(super) fn push_number(text: &mut String, mut value: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    // One copy takes fewer instructions than a push for each digit.
    text.push_str(std::str::from_utf8(&digits[at..]).unwrap_or_default());
}

/// Appends a JSON string.
pub fn push_string(text: &mut String, value: &str) {
    text.push('"');
    for c in value.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            c if c.is_control() => text.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => text.push(c),
        }
    }
    text.push('"');
}

/// Returns the name of the errno that an error stands for. An error with a text of its own has none.
fn errno(error: &io::Error) -> Option<&'static str> {
    if error.get_ref().is_some() {
        return None;
    }
    #[cfg(unix)]
    match error.raw_os_error() {
        Some(libc::EMFILE) => return Some("EMFILE"),
        Some(libc::ENFILE) => return Some("ENFILE"),
        Some(libc::ENOBUFS) => return Some("ENOBUFS"),
        Some(libc::EPROTO) => return Some("EPROTO"),
        _ => {}
    }
    Some(match error.kind() {
        ErrorKind::WouldBlock => "EAGAIN",
        ErrorKind::Interrupted => "EINTR",
        ErrorKind::ConnectionReset => "ECONNRESET",
        ErrorKind::ConnectionAborted => "ECONNABORTED",
        ErrorKind::ConnectionRefused => "ECONNREFUSED",
        ErrorKind::BrokenPipe => "EPIPE",
        ErrorKind::NotConnected => "ENOTCONN",
        ErrorKind::TimedOut => "ETIMEDOUT",
        ErrorKind::HostUnreachable => "EHOSTUNREACH",
        ErrorKind::NetworkUnreachable => "ENETUNREACH",
        ErrorKind::AddrInUse => "EADDRINUSE",
        ErrorKind::AddrNotAvailable => "EADDRNOTAVAIL",
        ErrorKind::AlreadyExists => "EEXIST",
        ErrorKind::NotFound => "ENOENT",
        ErrorKind::PermissionDenied => "EACCES",
        ErrorKind::InvalidInput => "EINVAL",
        ErrorKind::OutOfMemory => "ENOMEM",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_leaves_out_what_is_absent_and_escapes_what_is_hostile() {
        let mut text = String::new();
        Line::begin(&mut text, 0, "call")
            .word("f", "read")
            .number("n", u64::MAX)
            .number("len", None)
            .flag("r", true)
            .flag("w", false)
            .text("peer", "a\"\\\0\u{1b}\u{202e}</script>")
            .text("service", None)
            .bytes("data", b"")
            .end();
        let expected = concat!(
            r#"{"t":0,"k":"call","f":"read","n":18446744073709551615,"r":true,"#,
            "\"peer\":\"a\\\"\\\\\\u0000\\u001b\u{202e}</script>\"}\n"
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn an_error_has_the_name_of_its_errno_or_its_own_text() {
        let named = |error: io::Error| {
            let mut text = String::new();
            Line::begin(&mut text, 1, "call").error(&error).end();
            text
        };
        let blocked = named(ErrorKind::WouldBlock.into());
        assert_eq!(blocked, "{\"t\":1,\"k\":\"call\",\"e\":\"EAGAIN\"}\n");
        #[cfg(unix)]
        assert!(named(io::Error::from_raw_os_error(libc::EMFILE)).contains("\"e\":\"EMFILE\""));
        let own = named(io::Error::new(ErrorKind::ConnectionAborted, "closed by fault: close"));
        assert!(own.contains("\"e\":\"closed by fault: close\""), "{own}");
    }
}
