//! The result of a check as JUnit XML, which CI systems show as test cases.

use std::fmt::Display;
use std::time::Duration;

use campanile::ladder::{Error, Outcome, Report, RungReport};

use super::check::word;

/// Why a test case did not pass: the element, its `type` and its `message`.
type Problem = (&'static str, &'static str, String);

/// One test case for each rung; if the server could not be checked, one that says so.
pub fn xml(service: &str, addr: impl Display, outcome: &Result<Report, Error>) -> String {
    let (mut counts, mut cases, mut time) = ([0; 3], String::new(), Duration::ZERO);
    let mut add = |name: &str, took: Duration, problem: Option<Problem>, text: &str| {
        let (name, seconds) = (escape(name), took.as_secs_f64());
        time += took;
        cases += &format!(
            "    <testcase classname=\"campanile.check.{service}\" name=\"{name}\" time=\"{seconds:.3}\""
        );
        let Some((element, kind, message)) = problem else {
            return cases += "/>\n";
        };
        for (count, counted) in counts.iter_mut().zip(["failure", "error", "skipped"]) {
            *count += usize::from(counted == element);
        }
        // A line end stays one in a text, and would become a space in an attribute.
        let text: Vec<_> = text.lines().map(escape).collect();
        let (message, text) = (escape(&message), text.join("\n"));
        cases += &format!(
            ">\n      <{element} type=\"{kind}\" message=\"{message}\">{text}</{element}>\n    </testcase>\n"
        );
    };
    match outcome {
        Ok(report) => {
            for rung in &report.rungs {
                let name = format!("{} {}", rung.number, rung.rung.name);
                add(&name, rung.took, problem(rung), &rung.to_string());
            }
        }
        Err(error) => {
            let problem = ("error", word(error), error.to_string());
            add("connect", Duration::ZERO, Some(problem), error.advice());
        }
    }
    let [failures, errors, skipped] = counts;
    let tests = outcome.as_ref().map_or(1, |report| report.rungs.len());
    let (name, time) = (escape(&format!("campanile check {service} {addr}")), time.as_secs_f64());
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  \
         <testsuite name=\"{name}\" tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\" \
         skipped=\"{skipped}\" time=\"{time:.3}\">\n{cases}  </testsuite>\n</testsuites>\n"
    )
}

fn problem(rung: &RungReport) -> Option<Problem> {
    match &rung.outcome {
        Outcome::Reached { .. } => None,
        Outcome::Stopped(failure) => {
            let rule = failure.rule;
            Some(("failure", rule.number, format!("{}: {}", rule.number, rule.text)))
        }
        Outcome::TimedOut { bound, .. } => {
            Some(("error", "timed-out", format!("did not finish within the bound of {bound}")))
        }
        Outcome::NotTried { reason, .. } => Some(("skipped", "not-tried", reason.clone())),
        _ => Some(("skipped", "untried", "a lower rung was not reached".into())),
    }
}

/// Escapes a text for an attribute or an element. XML 1.0 has no way to write most control characters,
/// so the replacement character stands for them.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\t' | '\n' | '\r' => escaped += &format!("&#{};", u32::from(c)),
            '\0'..' ' | '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_is_escaped_or_replaced_as_xml_1_0_demands() {
        let expected =
            "a&amp;b&lt;c&gt;d&quot;e'f&#9;g&#10;h&#13;i\u{fffd}\u{fffd}j\u{7f}k\u{fffd}\u{1f514}";
        assert_eq!(escape("a&b<c>d\"e'f\tg\nh\ri\0\x1bj\x7fk\u{ffff}\u{1f514}"), expected);
    }

    #[test]
    fn a_server_that_cannot_be_checked_is_one_error() {
        let error = Error::Absent { addr: "<x>".into(), error: "\x1b".into() };
        let text = xml("echo", "<x>", &Err(error));
        let (head, case) = text.split_once("    <testcase").unwrap();
        assert!(head.ends_with(
            "name=\"campanile check echo &lt;x&gt;\" tests=\"1\" failures=\"0\" errors=\"1\" \
             skipped=\"0\" time=\"0.000\">\n"
        ));
        assert!(case.contains(
            "<error type=\"not-connected\" message=\"cannot connect to &lt;x&gt;: \u{fffd}\">check the \
             address and the port"
        ));
    }
}
