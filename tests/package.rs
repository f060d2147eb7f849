//! The package itself: its files, the crates that the library needs, and that it forbids unsafe code.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

fn cargo(words: &str) -> String {
    let output = Command::new(env!("CARGO"))
        .args(words.split(' '))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_published_package_has_every_module_and_no_bench_fuzz_tools_or_hidden_files() {
    let text = cargo("package --list --allow-dirty --offline").replace('\\', "/");
    let files: BTreeSet<_> = text.lines().collect();
    let is_left_out = |path: &&&str| {
        let folders = ["tests/bench/", "tests/fuzz/", "tests/tools/", "."];
        **path != ".cargo_vcs_info.json" && folders.iter().any(|folder| path.starts_with(folder))
    };
    assert_eq!(files.iter().find(is_left_out), None);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).canonicalize().unwrap();
    let mut modules = 0;
    for file in files.iter().filter(|file| file.ends_with(".rs")) {
        let source = std::fs::read_to_string(root.join(file)).unwrap();
        for path in source.lines().filter_map(|line| line.trim().strip_prefix("#[path = \"")) {
            let path = root.join(file).with_file_name(path.trim_end_matches("\"]"));
            let module = path.canonicalize().unwrap();
            let module = module.strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/");
            assert!(files.contains(&*module), "{file} needs {module}, which Cargo.toml excludes");
            modules += 1;
        }
    }
    assert!(modules > 10, "{modules} modules with a path");
}

#[test]
fn the_library_is_eight_crates() {
    let text = cargo(
        "tree --no-default-features --edges normal,build --prefix none --offline --locked \
         --target x86_64-unknown-linux-gnu",
    );
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
