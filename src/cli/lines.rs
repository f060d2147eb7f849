//! The lines of `--pipe`: bounded, and no line that cannot be read hides the next one.

use std::io::{self, BufRead, Read};

/// The longest line that is read, in bytes without its end.
pub const LONGEST: usize = 64 * 1024;

/// A line that cannot be a command.
#[derive(Debug, PartialEq, Eq)]
pub struct WrongLine {
    /// The line, or its beginning; bytes that are not UTF-8 are replaced.
    pub text: String,
    pub error: String,
}

/// The lines of an input, until it ends or a read fails.
#[derive(Debug)]
pub struct Lines<R> {
    input: R,
    /// The last line was too long, and its end has not been read yet.
    is_inside_long_line: bool,
}

impl<R: BufRead> Lines<R> {
    pub fn new(input: R) -> Lines<R> {
        Lines { input, is_inside_long_line: false }
    }

    fn read_line(&mut self) -> io::Result<Option<Result<String, WrongLine>>> {
        if self.is_inside_long_line {
            self.input.skip_until(b'\n')?;
            self.is_inside_long_line = false;
        }
        let mut line = Vec::new();
        self.input.by_ref().take(LONGEST as u64 + 1).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(None);
        }
        if line.ends_with(b"\n") {
            line.truncate(line.len() - 1);
            if line.ends_with(b"\r") {
                line.truncate(line.len() - 1);
            }
        } else if line.len() > LONGEST {
            // The answer does not wait for the end of the line, which may never come.
            self.is_inside_long_line = true;
            return Ok(Some(Err(WrongLine {
                text: String::from_utf8_lossy(&line).into_owned(),
                error: format!("the line is longer than {LONGEST} bytes: send one SPEC a line"),
            })));
        }
        Ok(Some(String::from_utf8(line).map_err(|error| WrongLine {
            text: String::from_utf8_lossy(error.as_bytes()).into_owned(),
            error: format!(
                "byte {} of the line is not UTF-8: send the SPEC as UTF-8",
                error.utf8_error().valid_up_to() + 1
            ),
        })))
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = io::Result<Result<String, WrongLine>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read_line().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(input: &[u8]) -> Vec<Result<String, WrongLine>> {
        // Small reads: no line depends on how the input is cut.
        Lines::new(io::BufReader::with_capacity(7, input)).map(Result::unwrap).collect()
    }

    #[test]
    fn an_undecodable_line_is_reported_and_the_next_line_is_read() {
        let wrong = |text: &str, byte| {
            let error = format!("byte {byte} of the line is not UTF-8: send the SPEC as UTF-8");
            Err(WrongLine { text: text.into(), error })
        };
        let read = lines(b"one\n\xff\r\ntwo\r\n\nab\xc3\nthree\n\xe2\x82");
        let expected = [
            Ok("one".into()),
            wrong("\u{fffd}", 1),
            Ok("two".into()),
            Ok(String::new()),
            wrong("ab\u{fffd}", 3),
            Ok("three".into()),
            wrong("\u{fffd}", 1),
        ];
        assert_eq!(read, expected);
    }

    #[test]
    fn the_longest_line_is_read_and_one_byte_more_is_refused_once() {
        for (length, is_read) in [(LONGEST, true), (LONGEST + 1, false), (5 * LONGEST, false)] {
            for end in ["\n", "\nnext\n"] {
                let mut input = vec![b'x'; length];
                input.extend(end.as_bytes());
                let read = lines(&input);
                assert_eq!(read[0].is_ok(), is_read, "{length}");
                let rest: Vec<_> = read[1..].iter().flatten().map(String::as_str).collect();
                assert_eq!(rest, end.trim().lines().collect::<Vec<_>>(), "{length}");
                assert_eq!(read.len(), 1 + rest.len(), "{length}");
            }
        }
        let endless = lines(&vec![b'x'; 3 * LONGEST]);
        assert!(matches!(&*endless, [Err(wrong)] if wrong.text.len() == LONGEST + 1));
    }

    #[test]
    fn a_failed_read_is_reported_after_the_lines_before_it() {
        struct Torn;
        impl Read for Torn {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("torn"))
            }
        }
        let mut read = Lines::new(io::BufReader::new(b"one\n".chain(Torn)));
        assert_eq!(read.next().unwrap().unwrap(), Ok("one".into()));
        assert_eq!(read.next().unwrap().unwrap_err().to_string(), "torn");
    }
}
