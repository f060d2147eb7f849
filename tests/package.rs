//! The package itself: the crates that the library needs, and that it forbids unsafe code.

use std::path::Path;
use std::process::Command;

#[test]
fn the_library_is_eight_crates() {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--no-default-features", "--edges", "normal,build", "--prefix", "none"])
        .args(["--offline", "--locked", "--target", "x86_64-unknown-linux-gnu"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let mut names: Vec<_> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    names.sort_unstable();
    names.dedup();
    let eight = ["autocfg", "chrono", "libc", "log", "mio", "num-traits", "slab", "socket2"];
    names.retain(|name| *name != "campanile" && !name.is_empty());
    assert_eq!(names, eight);
}

#[test]
fn the_library_and_the_program_forbid_unsafe_code() {
    for name in ["lib.rs", "main.rs"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(name);
        let text = std::fs::read_to_string(path).unwrap();
        let attributes = text.lines().filter(|line| line.starts_with("#!["));
        assert_eq!(
            attributes.filter(|line| *line == "#![forbid(unsafe_code)]").count(),
            1,
            "{name}"
        );
    }
}
