#!/usr/bin/env python3
"""Follows the links of the guide, on GitHub and in rustdoc.

`tests/lint.py` checks the sources. After `cargo doc --no-deps --all-features`, run
`python3 tests/links.py target/doc`, which follows the links of the built pages as well. `.ci/run`
does both. Each complaint says what to do.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GUIDE = ROOT / "src/guide"
RUSTDOC = GUIDE / "rustdoc_links.txt"
# In CommonMark a definition is a line of its own; names are compared without case.
# Types that are exported from `campanile::sys`.
SYS = {"`Kernel`", "`Stream`", "`Connection`", "`Snapshot`"}

DEFINITION = re.compile(r"^\[([^\]]+)\]: (\S+)$", re.M)


def prose(text):
    return "".join(text.split("```")[::2])


def slug(heading):
    """The anchor that GitHub, and rustdoc, give to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def module(page):
    return f"crate::guide::{'_' if page[0].isdigit() else ''}{page}"


def complaints_about_text(path, rustdoc):
    """Yields what is wrong with the links of a text. Takes the targets that it uses out of `rustdoc`."""
    text = prose(path.read_text())
    defined = {name.lower(): (name, target) for name, target in DEFINITION.findall(text)}
    body = DEFINITION.sub("", text)
    for name in re.findall(r"\[([^\]]+)\]\(", body):
        yield f"has the link [{name}](..), which works in one place only: write [{name}][..] and " \
              "define its target at the end, and in rustdoc_links.txt"
    pairs = re.findall(r"\[([^\[\]]+)\](?:\[([^\]]+)\])?", body)
    used = {" ".join((second or first).split()).lower() for first, second in pairs}
    for name in used - set(defined):
        yield f"does not define the link [{name}]: add its target at the end"
    for name in set(defined) - used:
        yield f"defines [{name}] and does not use it: remove the line"
    for key, (name, target) in defined.items():
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        place = (GUIDE / file).resolve()
        if not place.exists():
            yield f"links [{name}] to {file}, which does not exist: correct the target"
            continue
        headings = re.findall(r"^#+ (.+)$", prose(place.read_text()), re.M)
        if anchor and anchor not in map(slug, headings):
            yield f"links [{name}] to #{anchor}, which is no heading of {file}: correct the anchor"
        source = place.relative_to(ROOT / "src").as_posix()
        if name == f"`src/{source}`":
            expected = f"../../../src/campanile/{source}.html"
        elif place.suffix == ".rs":
            expected = f"crate::{'sys::' if name in SYS else ''}{name.strip('`')}"
        else:
            expected = module(place.stem) + ("#" + anchor if anchor else "")
        if rustdoc.get(key) != expected:
            yield f"needs the line `[{name}]: {expected}` in rustdoc_links.txt: add it"


def complaints_about_sources():
    """Yields a file and what is wrong with its links."""
    rustdoc = {name.lower(): target for name, target in DEFINITION.findall(RUSTDOC.read_text())}
    used, book = set(), (GUIDE / "mod.rs").read_text()
    for path in sorted(GUIDE.glob("*.md")):
        used |= {name.lower() for name, _ in DEFINITION.findall(path.read_text())}
        for complaint in complaints_about_text(path, rustdoc):
            yield path.name, complaint
        # The first definition of a name counts, so those for rustdoc come first.
        if not re.search(rf'include_str!\("{RUSTDOC.name}"\)\]\n#!?\[doc = include_str!\("{path.name}"\)',
                         book):
            yield "mod.rs", f"includes {path.name} without {RUSTDOC.name} on the line before: add it"
    for name in set(rustdoc) - used:
        yield RUSTDOC.name, f"defines [{name}], which no text uses: remove the line"


def complaints_about_pages(doc):
    """Yields a built page of rustdoc and what is wrong with its links."""
    count = 0
    for path in sorted(GUIDE.glob("*.md")):
        folder = module(path.stem).split("::")[2] if path.stem != "guide" else ""
        page = doc / "campanile/guide" / folder / "index.html"
        text = page.read_text().split("top-doc")[1].split("</details>")[0]
        for href in re.findall(r'href="([^"]+)"', text):
            file, _, anchor = href.partition("#")
            if href.startswith("https://"):
                continue
            count += 1
            target = page.parent / file if file else page
            if not target.exists():
                yield path.name, f"links to {href} in rustdoc, and no such page is built"
            elif anchor and f'id="{anchor}"' not in target.read_text():
                yield path.name, f"links to {href} in rustdoc, and the page has no such anchor"
    if count < 150:
        yield "tests/links.py", f"has found only {count} links in the pages: adapt it to rustdoc"


def main():
    found = list(complaints_about_sources())
    for doc in sys.argv[1:]:
        found += complaints_about_pages(Path(doc))
    for file, complaint in found:
        print(file, complaint)
    print(f"{len(found)} complaints about links")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
