//! The line of a daytime server (RFC 867), in every form that is found in the wild.

use super::{is_printable, repr};

/// Finds the one line of printable text in a reply, or says what is wrong with it. Returns the line
/// without its end, and how it ends (`"CR LF"`, `"LF CR"`, `"LF"`, `"CR"` or `""`).
///
/// The RFC prescribes no syntax, so blank lines around the text and NUL bytes after it are skipped.
pub(crate) fn one_line(reply: &[u8]) -> Result<(&[u8], &'static str), String> {
    let mut found = None;
    let mut at = 0;
    for line in reply.split(|byte| is_line_end(*byte)) {
        let nuls = line.iter().rev().take_while(|byte| **byte == 0).count();
        let text = &line[..line.len() - nuls];
        if text.iter().any(|byte| *byte != b' ') {
            if found.is_some() {
                return Err("more than one line".into());
            }
            found = Some((text, &reply[at + line.len()..]));
        }
        at += line.len() + 1;
    }
    let Some((text, rest)) = found else {
        return Err("an empty line".into());
    };
    if let Some(byte) = text.iter().find(|byte| !is_printable(**byte)) {
        return Err(format!("{} is not printable", repr(&[*byte])));
    }
    let end = match rest {
        [b'\r', b'\n', ..] => "CR LF",
        [b'\n', b'\r', ..] => "LF CR",
        [b'\n', ..] => "LF",
        [b'\r', ..] => "CR",
        _ => "",
    };
    Ok((text, end))
}

fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

#[cfg(test)]
mod tests {
    use super::one_line;

    #[test]
    fn a_line_is_found_whatever_surrounds_it() {
        for (reply, expected) in [
            (&b"noon\r\n"[..], ("noon", "CR LF")),
            (b"noon\n\r", ("noon", "LF CR")),
            (b"noon\n", ("noon", "LF")),
            (b"noon\r", ("noon", "CR")),
            (b"noon", ("noon", "")),
            (b"noon\0\0", ("noon", "")),
            (b"noon\r\n\0", ("noon", "CR LF")),
            (b"noon\0\r\n", ("noon", "CR LF")),
            (b"\r\n\r\n  noon \r\n   \r\n", ("  noon ", "CR LF")),
            (b"\n\r\n\rnoon\n\r\n\r\0", ("noon", "LF CR")),
        ] {
            let found =
                one_line(reply).map(|(text, end)| (std::str::from_utf8(text).unwrap(), end));
            assert_eq!(found, Ok(expected), "{reply:?}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_the_reason() {
        for (reply, why) in [
            (&b""[..], "an empty line"),
            (b"\r\n\0", "an empty line"),
            (b"   \r\n", "an empty line"),
            (b"one\r\ntwo\r\n", "more than one line"),
            (b"one\rtwo", "more than one line"),
            (b"\0noon", "'\\x00' is not printable"),
            (b"19\x0014", "'\\x00' is not printable"),
            (b"\tnoon", "'\\t' is not printable"),
            (b"\x1b[2Jnoon", "'\\x1b' is not printable"),
        ] {
            assert_eq!(one_line(reply), Err(why.into()), "{reply:?}");
        }
    }
}
