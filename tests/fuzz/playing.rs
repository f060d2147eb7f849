//! What must hold for any file that `campanile play` is given.

use super::recording::Recording;
use super::{perfetto, timeline, traces};

/// Any file is played or refused, and never with a panic. What is printed moves no cursor, and what is
/// written is a trace whose slices nest, whatever is wrong with the file. Returns whether it is played to
/// its end.
pub fn recordings(file: &[u8]) -> bool {
    let Ok(mut recording) = Recording::open(file) else { return false };
    let mut text = Vec::new();
    let printed = timeline::print(&mut recording, &mut text, false);
    let text = String::from_utf8(text).expect("a timeline is a text");
    let is_harmless = |c: char| c == '\n' || !(c.is_control() || timeline::is_invisible(c));
    assert!(text.chars().all(is_harmless), "{text:?}");
    assert!(text.ends_with(" faults\n") || text.ends_with("was too slow\n"), "{text:?}");
    assert!(recording.length() <= file.len());

    let Ok(mut again) = Recording::open(file) else { panic!("it was a recording") };
    let mut trace = Vec::new();
    let written = perfetto::write(&mut again, &mut trace);
    assert_eq!(printed.is_ok(), written.is_ok());
    // Turns, and phases in them.
    let (mut depth, mut deepest) = (0, 0);
    for event in traces::check(&trace) {
        depth += i32::from(event["ph"] == "B") - i32::from(event["ph"] == "E");
        deepest = deepest.max(depth);
    }
    assert!(deepest <= 2);
    printed.is_ok()
}
