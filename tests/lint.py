#!/usr/bin/env python3
"""Checks the house rules: layers, crates, line counts, words, and the states in diagrams.

Run it with `python3 tests/lint.py`. Each complaint says what to do. `.ci/run` runs it, too;
`cargo test` tests behaviour only.
"""

import re
import sys
from pathlib import Path

sys.dont_write_bytecode = True
import links

ROOT = Path(__file__).resolve().parent.parent

TOP_LEVEL = {
    "Cargo.lock", "Cargo.toml", "LICENSE-APACHE", "LICENSE-MIT", "README.md",
    "examples", "src", "target", "tests",
}

# The order of the layers is the table "The map" in src/lib.rs. These layers import none.
STAND_ALONE = {"send_queue", "timers", "client"}
# These layers are at the same height: neither imports from the other.
SIBLINGS = {"testing", "ladder"}
# These are no layers: the crate's root, its book and the program.
NO_LAYERS = {"lib", "main", "guide", "cli"}

# The only modules that may name a crate.
CRATES = {
    "mio": ["kernel"],
    "socket2": ["kernel", "client/connect", "ladder/echo/urgent", "testing/faulty/sock_diag", "cli"],
    "slab": ["reactor"],
    "chrono": ["services/clock", "services/daytime", "cli"],
    "jiff": ["services/clock"],
    "libc": [
        "kernel", "listener", "client/connect", "record/line", "ladder/error", "testing/faulty/sock_diag", "cli",
    ],
    "log": ["services/clock", "services/relay", "kernel", "mailbox", "listener", "reactor", "background", "record", "testing", "cli", "main"],
}

CORE = {
    "send_queue", "protocol", "control", "stats", "timers", "limits", "connection", "kernel", "listener", "mailbox",
    "handle", "reactor", "background",
}
# The core does not know what hangs on its seams.
SEAMS = r"\b(faults?|Fault|Faulty|[lL]edger|record|Recorded)\b"
UNNAMED = r"\b(who|whoever|whom|nobody|somebody)\b"
RIDDLES = r"\b(What|Of)\b"

PANICS = r"\.unwrap\(\)|\b(?:todo|unimplemented|dbg|e?println)!"

# Strings and characters are matched so that a `//` inside of them is no comment.
TOKENS = re.compile(
    r'r(#*)".*?"\1|"(?:\\.|[^"\\])*"|\'(?:\\[^\']+|[^\'\\])\'|(//[^\n]*)', re.DOTALL
)

complaints = []


def complain(place, text):
    complaints.append(f"{place} {text}")


class Source:
    """A Rust file: its module path below `src`, and its text before its tests."""

    def __init__(self, path):
        self.file = path.relative_to(ROOT).as_posix()
        self.whole = path.read_text()
        self.text = re.split(r"\n#\[cfg\((?:test|all\(test)", self.whole)[0]
        self.code = TOKENS.sub(lambda token: "" if token[2] else token[0], self.text)
        if path.is_relative_to(ROOT / "src"):
            self.name = path.relative_to(ROOT / "src").with_suffix("").as_posix()
            self.layer = self.name.split("/")[0]

    def comments(self):
        """Yields each comment with the number of its line, without code in backticks."""
        for token in TOKENS.finditer(self.whole):
            if token[2]:
                line = self.whole.count("\n", 0, token.start()) + 1
                yield line, re.sub(r"`[^`]*`", "", token[2])

    def is_in(self, places):
        return any(self.name == place or self.name.startswith(place + "/") for place in places)


def count_code(text):
    lines = (line.strip() for line in text.splitlines())
    return sum(1 for line in lines if line and not line.startswith("//"))


def check_top_level():
    for path in ROOT.iterdir():
        if not path.name.startswith(".") and path.name not in TOP_LEVEL:
            complain(path.name, "is not part of the layout: move it below src, examples or tests, "
                     "or add it to TOP_LEVEL in tests/lint.py")
    for name in TOP_LEVEL - {"target"}:
        if not (ROOT / name).exists():
            complain(name, "is missing: restore it, or take it out of TOP_LEVEL in tests/lint.py")


def check_layers(sources):
    """A layer imports only from layers above it in the map of src/lib.rs."""
    layers = re.findall(r"^//! \| `(\w+)(?:\.rs|/)` \|", (ROOT / "src/lib.rs").read_text(), re.M)
    checked = 0
    for source in sources:
        if source.layer in NO_LAYERS:
            continue
        if source.layer not in layers:
            complain(source.file, "has no row in the map of src/lib.rs: add one below the layers "
                     "that it imports from")
            continue
        above = [] if source.layer in STAND_ALONE else layers[:layers.index(source.layer)]
        if source.layer in SIBLINGS:
            above = [name for name in above if name not in SIBLINGS]
        for names in re.findall(r"\bcrate::(\w+|\{[^}]*\})", source.code):
            for name in re.findall(r"(?:^|[{,])\s*(\w+)", names):
                checked += 1
                if name not in layers:
                    complain(source.file, f"imports crate::{name}: import it from the module that "
                             "defines it")
                elif name != source.layer and name not in above:
                    rule = ("it stands alone" if source.layer in STAND_ALONE else
                            "neither imports from the other" if {name, source.layer} == SIBLINGS else
                            "a layer imports only from layers above it in the map of src/lib.rs")
                    complain(source.file, f"imports crate::{name}, but {rule}: move the shared part "
                             "to a layer above both, or pass it in as a parameter")
    return checked


def check_crates(sources):
    checked = 0
    for crate, places in CRATES.items():
        for source in sources:
            if re.search(rf"(?<![\w:]){crate}::|\buse {crate};", source.code):
                checked += 1
                if not source.is_in(places):
                    complain(source.file, f"names the crate {crate}, which only {', '.join(places)} "
                             "may: call one of these, or change CRATES in tests/lint.py")
    return checked


def check_sizes(source):
    count = sum("// ANCHOR" not in line for line in source.text.splitlines())
    if count > 400:
        complain(source.file, f"has {count} lines before its tests; the limit is 400: give the idea "
                 "inside it a file of its own")
    begun = None
    for number, line in enumerate(source.text.splitlines(), 1):
        indent = len(line) - len(line.lstrip())
        is_head = re.search(r"\bfn\b", line) and not line.lstrip().startswith("//")
        if begun is None:
            if is_head and not line.rstrip().endswith((";", "}")):
                begun = (number, indent, line.strip())
        elif indent == begun[1] and line.rstrip().endswith("}"):
            count = number - begun[0] + 1
            if count > 60:
                complain(f"{source.file}:{begun[0]}", f"has {count} lines in `{begun[2]}`; the limit "
                         "is 60: give a step of it a function of its own")
            begun = None
        elif indent <= begun[1] and line.rstrip().endswith(";"):
            begun = None


def check_panics(source):
    for line in source.code.splitlines():
        found = re.search(PANICS, line)
        if found:
            complain(source.file, f"has `{found[0]}` in `{line.strip()}`: return an error, or write "
                     "through the log or cli/output.rs")


def check_words(source):
    checked = 0
    for line, comment in source.comments():
        checked += 1
        for word in re.findall(UNNAMED, comment, re.I):
            complain(f"{source.file}:{line}", f'says "{word}" in a comment: name the subject (the '
                     "peer, the client, the kernel, the caller)")
        for word in re.findall(RIDDLES, comment):
            complain(f"{source.file}:{line}", f'begins a sentence with "{word}" in a comment: begin '
                     "with the subject, then the verb")
    found = re.search(SEAMS, source.text)
    if found:
        complain(source.file, f'says "{found[0]}": the core does not know what hangs on its seams, '
                 "so say it in testing/")
    return checked


def check_examples():
    paths = sorted((ROOT / "examples").glob("*.rs"))
    for path in paths:
        example, text = Source(path), path.read_text()
        count, limit = len(example.text.splitlines()), 125
        if path.name == "one_file.rs":
            count, limit = count_code(text), 200
            for found in re.findall(r"unwrap\(\)|expect\(|panic!|campanile|unsafe|allow\(", text):
                complain(example.file, f"has `{found}`: it stands alone and handles every error")
            for crate in re.findall(r"^use (\w+)", text, re.M):
                if crate not in ("std", "mio", "slab"):
                    complain(example.file, f"uses {crate}: it uses std, mio and slab only")
        if count > limit:
            complain(example.file, f"has {count} lines; the limit is {limit}: show one thing less")
        for words in ("//! ", "Run it with `cargo run --example", "Look at"):
            if words not in text:
                complain(example.file, f'has no "{words}": say in its head what it shows, how to run '
                         "it and where to look")
    return len(paths)


def check_readme():
    text = (ROOT / "README.md").read_text()
    lines = text.splitlines()
    if len(lines) > 200:
        complain("README.md", f"has {len(lines)} lines; the limit is 200: move a part to the docs")
    first = next((at for at, line in enumerate(lines) if line.startswith("## ")), len(lines))
    if first > 30:
        complain("README.md", f"has {first} lines before its first heading; the limit is 30, one "
                 "screen: shorten them")


def check_skips():
    """libtest hides what a passing test prints, so a skip must be recorded."""
    exempt = {"tests/common/mod.rs", "tests/bench/src/main.rs"}
    calls = 0
    for path in sorted((ROOT / "tests").rglob("*.rs")):
        file = path.relative_to(ROOT).as_posix()
        if file in exempt or file.startswith("tests/tools/") or "/target/" in file:
            continue
        for number, line in enumerate(Source(path).whole.splitlines(), 1):
            if re.search(r"\be?print(ln)?!.*skip", line, re.I):
                complain(f"{file}:{number}", "prints a skip, which libtest hides: call common::skip")
            calls += bool(re.search(r"(?<!\.)\bskip\(", line))
    return calls


def check_budgets():
    tests = [
        path for path in (ROOT / "tests").rglob("*.rs")
        if path.relative_to(ROOT / "tests").parts[0] not in ("bench", "fuzz", "release", "tools")
    ]
    for folder, paths, most in [
        ("src", (ROOT / "src").rglob("*.rs"), 14_600), ("tests", tests, 22_400),
    ]:
        count = sum(
            count_code(Source(path).text if folder == "src" else path.read_text()) for path in paths
        )
        if count > most:
            complain(folder, f"has {count} lines of code; the limit is {most}: delete something first")


def check_guide():
    texts = {path: path.read_text() for path in sorted((ROOT / "src/guide").glob("*.md"))}

    def count_words(text):
        # The targets of links are no words that a person reads.
        text = re.sub(r"^\[[^\]]+\]: .*$", "", text, flags=re.M)
        return sum(bool(re.search(r"\w", word)) for word in text.split())

    # These are no chapters: the tables of other programs and of figures, the sheet of exercises, the
    # recipes, the promises.
    besides = ("last_bytes.md", "cost.md", "exercises.md", "own_server.md", "stability.md")
    for file, complaint in links.complaints_about_sources():
        complain(f"src/guide/{file}", complaint)
    total = sum(count_words(text) for path, text in texts.items() if path.name not in besides)
    if total > 7000:
        complain("src/guide", f"has {total} words; the limit is 7,000: shorten a chapter")
    chapters = [path for path in texts if path.name[0].isdigit()]
    for path in chapters:
        text = texts[path]
        count = count_words("".join(text.split("```")[::2]))
        limit = 300 + 100 * text.count("```diff")
        if not 200 <= count <= limit:
            complain(f"src/guide/{path.name}", f"has {count} words besides its blocks; the limits "
                     f"are 200 and {limit}: shorten it, or say what it leaves out")
    return len(chapters)


def check_diagrams():
    """The diagrams of the guide draw the states of their enums, and no others."""
    place = "src/guide/states.md"
    diagrams = re.findall(r"^%% enum (\w+) in (\S+)\n(.*?)^```", (ROOT / place).read_text(),
                          re.M | re.S)
    for name, file, diagram in diagrams:
        text = (ROOT / file).read_text() if (ROOT / file).exists() else ""
        found = re.search(rf"\benum {name} \{{\n(.*?)^\}}", text, re.M | re.S)
        if not found:
            complain(place, f"draws the enum {name}, which {file} does not have: name the enum that "
                     "replaces it, and its file")
            continue
        # The fields of a variant are indented further.
        variants = set(re.findall(r"^    (\w+)", found[1], re.M))
        drawn = set(re.findall(r"^ *(\w+) -->|--> (\w+)", diagram, re.M))
        drawn = {name for pair in drawn for name in pair if name}
        for state in sorted(drawn - variants):
            complain(place, f"draws the state {state}, which the enum {name} in {file} does not "
                     "have: rename or remove it in the diagram")
        for state in sorted(variants - drawn):
            complain(place, f"does not draw the state {state} of the enum {name} in {file}: add it "
                     "to the diagram")
    return len(diagrams)


def main():
    sources = [Source(path) for path in sorted((ROOT / "src").rglob("*.rs"))]
    core = [source for source in sources if source.layer in CORE]
    check_top_level()
    check_readme()
    check_budgets()
    for source in sources:
        check_sizes(source)
        check_panics(source)
    # A rule that finds nothing to check has lost its subject.
    checked = {
        "files of the core": (len(core), 11),
        "imports": (check_layers(sources), 20),
        "uses of crates": (check_crates(sources), 6),
        "comments of the core": (sum(check_words(source) for source in core), 300),
        "examples": (check_examples(), 8),
        "skips of tests": (check_skips(), 10),
        "chapters of the guide": (check_guide(), 10),
        "diagrams of the guide": (check_diagrams(), 5),
    }
    for what, (count, least) in checked.items():
        if count < least:
            complain("tests/lint.py", f"has found only {count} {what}, at least {least} are there: "
                     "adapt it to the new layout")
    for complaint in complaints:
        print(complaint)
    print(f"{len(complaints)} complaints about {len(sources)} files")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
