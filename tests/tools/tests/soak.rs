//! The soak, for a few seconds.
#![cfg(target_os = "linux")]

use std::process::{Command, Stdio};

#[test]
fn a_soak_of_a_few_seconds_finds_no_wrong_byte_and_draws_a_chart() {
    let svg = std::env::temp_dir().join(format!("campanile-soak-{}.svg", std::process::id()));
    let output = Command::new(env!("CARGO_BIN_EXE_soak"))
        .args(["--minutes", "0.05", "--svg"])
        .arg(&svg)
        .stdin(Stdio::null())
        .output()
        .expect("cargo builds the soak");
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{report}{}", String::from_utf8_lossy(&output.stderr));
    assert!(report.contains(" GiB, 0 wrong\n"), "{report}");
    assert!(std::fs::read_to_string(&svg).unwrap().contains("descriptors of the server"));
    std::fs::remove_file(svg).unwrap();
}
