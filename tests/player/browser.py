#!/usr/bin/env python3
"""Opens the player in headless Chromium, and compares what it shows with the recording.

`browser.py` runs everything, `browser.py --quick` the short form of `.ci/run`. `--screenshots` writes
the committed pictures again. `--recording FILE` uses that recording instead of a synthetic one, and
`--page FILE` a page that `campanile play --html` has made of it. It needs Playwright, Chromium and Node;
where one is missing it prints a skip, and lists it in the file that CAMPANILE_SKIPS names.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
DEADLINE = 30_000  # milliseconds
SCHEMES = ("light", "dark")
WIDTHS = (360, 390, 768, 1024, 1280, 1600)
PICTURES = {1280: 900, 390: 844}
PICTURE_OF_THE_README = (1100, 800)
STORIES = HERE.parent.parent / "src/guide/stories"

HOSTILE = '</script><img src=x onerror="window.hacked=1">\0\u202e<b>&amp;\u2066\ufeff'


def skip(reason):
    line = f"tests/player/browser.py: {reason}"
    print(f"skipped: {line}")
    if os.environ.get("CAMPANILE_SKIPS"):
        with open(os.environ["CAMPANILE_SKIPS"], "a") as file:
            print(line, file=file)
    sys.exit(0)


try:
    from playwright.sync_api import sync_playwright
except ImportError:
    skip("Playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    skip("chromium is not installed")
if shutil.which("node") is None:
    skip("node is not installed")


def node(script, *arguments):
    run = subprocess.run(["node", HERE / script, *map(str, arguments)], check=True, capture_output=True)
    return run.stdout.decode()


class Recording:
    """A recording as the test reads it, independent of the player's decoder."""

    def __init__(self, path):
        lines = path.read_text().splitlines()
        self.path, self.records = path, [json.loads(line) for line in lines[1:]]

    def steps(self, holds):
        return [at for at, record in enumerate(self.records, 1) if holds(record)]

    def kind(self, kind):
        return self.steps(lambda record: record["k"] == kind)


def is_short(record):
    return record.get("f") in ("write", "write_last") and record.get("n", record.get("len", 0)) < record.get("len", 0)


def worst_short_write(recording):
    def left(step):
        record = recording.records[step - 1]
        return record["len"] - record["n"]
    return max(recording.steps(is_short), key=left)


class Player:
    """A page in a browser without a network."""

    def __init__(self, browser, path, width=1280, height=900, scheme="light", hash_=""):
        self.context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, offline=True)
        self.page = self.context.new_page()
        self.page.set_default_timeout(DEADLINE)
        self.requests, self.errors = [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda message: self.errors.append(message.text))
        self.page.goto(path.as_uri() + hash_)
        self.page.wait_for_selector("html[data-step], #summary.failed")

    def __enter__(self):
        return self

    def __exit__(self, failure, *_):
        if failure is None:
            assert not self.errors, f"the console has {self.errors}"
            assert len(self.requests) == 1, f"the page has requested {self.requests}"
        self.context.close()

    def step(self):
        self.settle()
        return int(self.page.evaluate("document.documentElement.dataset.step"))

    def settle(self):
        """Waits for the frame that draws the last change."""
        self.page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def wait_until(self, condition):
        """Waits in the page: Playwright's own wait needs `eval`, which the policy denies."""
        holds = self.page.evaluate(f"""new Promise((done) => {{
            setTimeout(done, {DEADLINE}, false);
            const look = () => (({condition}) ? done(true) : requestAnimationFrame(look));
            look();
        }})""")
        assert holds, f"never true: {condition}"

    def visit(self, step):
        self.page.evaluate(f"location.hash = '#step={step}'")
        self.wait_for_step(step)

    def wait_for_step(self, step):
        self.wait_until(f"document.documentElement.dataset.step === '{step}'")

    def press(self, *keys):
        for key in keys:
            self.page.keyboard.press(key)
        return self.step()

    def text(self, selector):
        return self.page.inner_text(selector)


def expect(found, wanted, what):
    assert found == wanted, f"{what}: {found!r}, not {wanted!r}"


def opens_on_the_worst_first_list(browser, path, recording):
    with Player(browser, path) as player:
        first = player.page.locator("#groups a").first
        expect(player.step(), int(first.get_attribute("data-step")), "the first step")
        shown = {
            item.locator("summary").inner_text().split("\n")[0]: item.locator(".count").inner_text()
            for item in player.page.locator("#groups details").all()
        }
        counts = {
            "Short writes": len(recording.steps(is_short)),
            "WouldBlock": len(recording.steps(lambda record: record.get("e") == "EAGAIN")),
            "Longest turns": len(recording.kind("poll")),
        }
        for name, count in counts.items():
            assert count > 0, f"the recording has no {name}"
            expect(shown.get(name), f"{count:,}", name)


def steps_by_each_unit(browser, path, recording):
    with Player(browser, path, hash_="#step=5") as player:
        expect(player.step(), 5, "the hash")
        for key, kind in (("c", "call"), ("e", "event"), ("t", "turn")):
            here = player.step()
            for step in [step for step in recording.kind(kind) if step > here][:5]:
                expect(player.press(key), step, f"the next {kind}")
        here = player.step()
        expect(player.press("s", "s"), here + 2, "two steps on")
        expect(player.press("S"), here + 1, "a step back")
        earlier = [step for step in recording.kind("turn") if step <= here][-1]
        expect(player.press("T"), earlier, "the turn before")
        player.page.check("input[value=step]", force=True)
        player.page.click("#forward")
        expect(player.step(), earlier + 1, "the button")
        expect(player.press("Home"), 1, "the first step")
        expect(player.press("End"), len(recording.records), "the last step")
        player.press("g")
        player.page.keyboard.type("123")
        expect(player.press("Enter"), 123, "the step by its number")
        player.press("?")
        assert player.page.is_visible("#help"), "the help is hidden"
        player.press("Escape")
        assert player.page.is_hidden("#help"), "the help is still open"


def scrubs(browser, path, recording):
    with Player(browser, path) as player:
        box = player.page.locator("#scrub").bounding_box()
        player.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        middle = len(recording.records) / 2
        assert abs(player.step() - middle) < middle * 0.02 + 2, f"{player.step()} is not the middle"
        player.wait_until(f"location.hash === '#step={player.step()}'")
        here = player.step()
        player.page.focus("#scrub")
        expect(player.press("ArrowRight"), here + 1, "the slider's key")


def follows_links_and_the_history(browser, path, recording):
    with Player(browser, path, hash_="#step=9") as player:
        wanted = worst_short_write(recording)
        group = player.page.locator("details.kind-short")
        group.locator("a").first.click()
        here, record = player.step(), recording.records[player.step() - 1]
        left = recording.records[wanted - 1]
        expect(record["len"] - record["n"], left["len"] - left["n"], "the bytes left by the worst short write")
        expect(player.page.evaluate("location.hash"), f"#step={here}", "the hash")
        assert "A short write" in player.text("#sentence")
        assert f"{record['n']:,} byte" in player.text("#sentence"), player.text("#sentence")
        group.locator("a").nth(1).click()
        assert player.step() != here
        player.page.go_back()
        player.wait_for_step(here)
        player.page.go_back()
        player.wait_for_step(9)
        player.page.go_forward()
        player.wait_for_step(here)


def shows_what_the_recording_holds(browser, path, recording):
    with Player(browser, path) as player:
        ends = [step for step in recording.kind("end")]
        for step in ends[:: max(1, len(ends) // 12)]:
            record = recording.records[step - 1]
            player.visit(step)
            shown = player.text("#connection")
            assert f"{record['bin']:,} bytes in, {record['bout']:,} out" in shown, f"step {step}: {shown}"
            assert record["reason"] in shown, f"step {step}: {shown}"
        for step in range(1, len(recording.records), max(1, len(recording.records) // 40)):
            record = recording.records[step - 1]
            player.visit(step)
            turn = [r["n"] for r in recording.records[:step] if r["k"] == "turn"][-1:] or [0]
            assert f"Step {step:,} of {len(recording.records):,} · turn {turn[0]:,} ·" in player.text("#where")
            if record["k"] == "phase":
                expect(player.text("#phases [aria-current]"), record["p"].replace("_", " "), "the phase")
            if record.get("f") == "read" and "n" in record:
                title = player.text("#title")
                assert title.startswith(f"read(#{record['c']}, ") and title.endswith(f"{record['len']}) = {record['n']}"), title
            if record["k"] == "state":
                assert f"Send queue: {record['unsent']:,} byte" in player.text("#connection")
                bits = [player.page.locator(".io .bit").nth(at).get_attribute("class") == "bit on" for at in range(3)]
                expect(bits, [record.get("r", False), record.get("wr", False), record.get("w", False)], f"the bits at step {step}")


def plays_and_pauses(browser, path, recording):
    with Player(browser, path, hash_="#step=2") as player:
        player.page.press("#speed", "End")
        player.page.locator("#speed").blur()
        player.press("Space")
        expect(player.text("#play"), "Pause", "the button")
        player.wait_until("Number(document.documentElement.dataset.step) > 20")
        player.press("Space")
        here = player.step()
        player.settle()
        expect(player.step(), here, "the step after a pause")
        player.press("j", "f", "]", "[", "+", "-", "n", "p")


# The colour at the middle of the selected lane's mark in the column of the current step.
MARK = """() => {
    const canvas = document.getElementById('canvas'), ratio = canvas.width / canvas.clientWidth;
    const label = document.querySelector('#labels [aria-pressed=true]');
    const y = label.getBoundingClientRect().top - canvas.getBoundingClientRect().top + 13;
    const pixel = canvas.getContext('2d').getImageData(canvas.width / 2, y * ratio, 1, 1).data;
    return [...pixel.slice(0, 3)].map((part) => part.toString(16).padStart(2, '0')).join('');
}"""


def draws_the_lanes(browser, path, recording):
    reads = recording.steps(lambda record: record.get("f") == "read" and record.get("n", 0) > 0)
    writes = recording.steps(lambda record: record.get("f") == "write" and record.get("n") == record.get("len"))
    for scheme in SCHEMES:
        for name, steps in (("read", reads), ("write", writes)):
            # In the middle of the run the current step is in the middle of the view.
            step = steps[len(steps) // 2]
            with Player(browser, path, 1280, 900, scheme, f"#step={step}") as player:
                player.settle()
                colour = player.page.evaluate(
                    f"getComputedStyle(document.documentElement).getPropertyValue('--{name}')")
                expect("#" + player.page.evaluate(MARK), colour.strip(), f"the mark of the {name} at step {step}")
    with Player(browser, path, hash_=f"#step={step}") as player:
        box = player.page.locator("#canvas").bounding_box()
        player.page.mouse.click(box["x"] + box["width"] / 2 + 3 * 14, box["y"] + 10)
        expect(player.step(), step + 3, "the column that was clicked")
        player.page.locator("#labels button").first.click()
        player.settle()
        chosen = player.text("#connection-title")
        assert player.page.is_checked("#pin"), "the choice of a connection does not pin it"
        player.press("c", "c", "c", "t")
        expect(player.text("#connection-title"), chosen, "the pinned connection")


def opens_hostile_text(browser, folder):
    header = {"recording": "campanile", "v": 1, "version": HOSTILE, "services": [HOSTILE]}
    records = [
        {"k": "turn", "n": 1}, {"k": "phase", "p": HOSTILE}, {"k": "poll", "events": 1, "e": HOSTILE},
        {"k": "call", "f": "listen", "l": 0, "addr": HOSTILE, "service": HOSTILE},
        {"k": "call", "f": "accept", "l": 0, "c": 1, "peer": HOSTILE, "service": HOSTILE},
        {"k": "call", "f": HOSTILE, "c": 1, "e": HOSTILE},
        {"k": "call", "f": "read", "c": 1, "len": 9, "n": 9, "data": HOSTILE},
        {"k": "call", "f": "write", "c": 1, "len": 9, "n": 3, "data": "PC9zY3JpcHQ+AOKArg=="},
        {"k": "fault", "c": 1, "fault": HOSTILE}, {"k": "fault", "l": 0, "fault": HOSTILE},
        {"k": "event", "src": HOSTILE, "c": 1}, {"k": "state", "c": 1, "in": HOSTILE, "out": HOSTILE},
        {"k": "end", "c": 1, "reason": HOSTILE, "bin": 1e300, "bout": -1},
    ]
    file = folder / "hostile.jsonl"
    file.write_text("\n".join(map(json.dumps, [header, *records])))
    page = folder / "hostile.html"
    page.write_text(node("assemble.mjs", file))
    with Player(browser, page) as player:
        for step in range(1, len(records) + 1):
            player.visit(step)
            player.settle()
            expect(player.page.evaluate("window.hacked"), None, "the hostile script")
            expect(player.page.locator("main :is(img, script, b b)").count(), 0, "elements made from text")
            shown = player.page.evaluate("document.body.innerText")
            for char in "\0\u202e\u2066":
                assert char not in shown, f"step {step} shows {char!r}"
        assert "</script><img src=x" in player.text("#connection"), "the hostile text is not shown"
        assert "\\u{202e}" in player.text("#connection"), "the hidden character is not shown"


def opens_every_story(browser, folder):
    files = sorted(STORIES.glob("*.jsonl"))
    headers = [json.loads(file.read_text().split("\n")[0]) for file in files]
    page = folder / "stories.html"
    page.write_text(node("assemble.mjs", *files))
    with Player(browser, page) as player:
        expect(player.page.locator("#story-list a").all_inner_texts(), [header["title"] for header in headers], "the stories")
        for at, (file, header) in enumerate(zip(files, headers)):
            player.page.click(f"#story-list a >> nth={at}")
            length = len(file.read_text().splitlines()) - 1
            player.wait_until(f"document.getElementById('length').textContent === 'of {length}'")
            player.settle()
            expect(player.text("#name"), header["title"], "the title")
            expect(player.text("#story-text"), header["text"], "the text")
            player.press("t")
            player.wait_until(f"location.hash.startsWith('#story={at + 1}&step=')")
        player.page.go_back()
        player.wait_until(f"location.hash.startsWith('#story={at}')")
        player.settle()
        expect(player.text("#name"), headers[-2]["title"], "the story before")


def shows_both_sides_of_a_proxy(browser, folder):
    call = {"t": 1, "k": "call"}
    records = [
        call | {"f": "accept", "l": 0, "c": 1, "service": "db"}, call | {"f": "accept", "l": 0, "c": 2, "service": "db"},
        call | {"f": "connect", "c": 3, "parent": 1, "peer": "127.0.0.1:5432"},
        {"t": 2, "k": "fault", "c": 3, "fault": "db upstream: stall"}, {"t": 3, "k": "fault", "l": 0, "fault": "db: refuse"},
        {"t": 4, "k": "heal", "c": 3, "fault": "db upstream: stall"},
    ]
    file, page = folder / "proxy.jsonl", folder / "proxy.html"
    header = {"recording": "campanile", "v": 1, "services": ["db"]}
    file.write_text("\n".join(map(json.dumps, [header, *records])))
    page.write_text(node("assemble.mjs", file))
    with Player(browser, page, hash_="#step=5") as player:
        player.settle()
        expect(player.page.locator("#labels button").all_inner_texts(), ["#1\ndb", "#3\nto server", "#2\ndb"], "the lanes")
        expect(player.text("#title"), "fault begins: listener 0", "the title")
        assert "2 accepted, fault: db: refuse" in player.text("#loop"), player.text("#loop")
        player.page.locator("#labels button").first.click()
        player.settle()
        player.page.click("#connection .chip")
        player.settle()
        expect(player.text("#connection-title"), "Connection #3", "the other side")
        assert "db upstream: stall" in player.text("#connection"), player.text("#connection")
        player.visit(6)
        player.settle()
        assert "db upstream: stall" not in player.text("#connection"), "the fault is shown after its end"


def reports_what_it_cannot_open(browser, folder):
    for name, text, wanted in (
        ("later", '{"recording":"campanile","v":2}\n', "version 2"), ("other", "hello\n", "no recording"),
        ("empty", '{"recording":"campanile","v":1}\n', "is empty"),
    ):
        (folder / name).write_text(text)
        page = folder / f"{name}.html"
        page.write_text(node("assemble.mjs", folder / name))
        with Player(browser, page) as player:
            assert wanted in player.text("#summary"), player.text("#summary")


# Returns the texts that leave the viewport, and the pairs of texts that overlap. What scrolls out of
# its box, or lies behind the fixed controls, is not visible and does not count.
LAYOUT = """() => {
    const complaints = [], boxes = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const wide = document.documentElement.clientWidth;
    if (document.documentElement.scrollWidth > wide) complaints.push('the page scrolls sideways');
    const footer = document.getElementById('transport').getBoundingClientRect();
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
        const element = node.parentElement;
        if (!node.data.trim() || !element.checkVisibility() || element.closest('script, style, .skip')) continue;
        const range = document.createRange();
        range.selectNodeContents(node);
        const clip = element.closest('.side')?.getBoundingClientRect();
        for (const { left, right, top, bottom } of range.getClientRects()) {
            if (right - left < 1 || (clip && (bottom > clip.bottom || top < clip.top))) continue;
            if (left < -1000) continue;
            const text = node.data.trim().slice(0, 40);
            if (left < -0.5 || right > wide + 0.5) complaints.push(`"${text}" leaves the viewport`);
            const isFixed = footer.height > 0 && element.closest('#transport');
            boxes.push({ text, left, right, top, bottom, isFixed });
        }
        const box = element.closest('button, td, th, dd, .card');
        if (box && box.scrollWidth > box.clientWidth + 1 && getComputedStyle(box).overflow !== 'hidden') {
            complaints.push(`"${node.data.trim().slice(0, 40)}" leaves its box`);
        }
    }
    boxes.forEach((a, at) => boxes.slice(at + 1).forEach((b) => {
        if (a.isFixed !== b.isFixed && (!!a.isFixed !== !!b.isFixed)) return;
        const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
        const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
        if (across > 1 && down > 1) complaints.push(`"${a.text}" and "${b.text}" overlap`);
    }));
    return { complaints, texts: boxes.length };
}"""


def has_room_for_every_text(browser, path, recording, widths, schemes, axe):
    worst = recording.steps(is_short)[0]
    phases = [recording.steps(lambda record: record.get("p") == phase)[0] for phase in ("note_readiness", "accept")]
    steps = [
        worst, *phases, *(recording.kind(kind)[0] for kind in ("poll", "state", "end")), len(recording.records)]
    for width in widths:
        for scheme in schemes:
            with Player(browser, path, width, 900, scheme, f"#step={worst}") as player:
                for step in steps:
                    player.visit(step)
                    player.settle()
                    layout = player.page.evaluate(LAYOUT)
                    assert layout["texts"] > 50, f"the test sees {layout['texts']} texts only"
                    assert not layout["complaints"], f"{width} px, {scheme}, step {step}: {layout['complaints']}"
                if axe:
                    check_with_axe(player, axe, f"{width} px, {scheme}")
                    player.press("?")
                    check_with_axe(player, axe, f"{width} px, {scheme}, help")


def check_with_axe(player, axe, place):
    # The browser's debugger runs it, so the page's policy stays in force.
    player.page.evaluate(axe)
    found = player.page.evaluate("axe.run()")
    assert len(found["passes"]) > 15, f"axe has checked only {len(found['passes'])} rules"
    serious = [
        (item["id"], [node["html"][:120] for node in item["nodes"][:3]])
        for item in found["violations"] if item["impact"] in ("serious", "critical")
    ]
    assert not serious, f"{place}: {serious}"
    rest = [item["id"] for item in found["violations"]]
    if rest:
        print(f"  axe, not serious: {rest} at {place}")


def holds_300_000_records(browser, folder):
    file, page = folder / "large.jsonl", folder / "large.html"
    file.write_text(node("synthetic.mjs", 300_000))
    page.write_text(node("assemble.mjs", file))
    size = page.stat().st_size
    assert size <= 5_000_000, f"the page has {size:,} bytes"
    begun = time.monotonic()
    with Player(browser, page, hash_="#step=150500") as player:
        elapsed = time.monotonic() - begun
        opened = float(player.page.evaluate("document.documentElement.dataset.opened"))
        seeks, worst = [], 0
        for at in range(100):
            step = (at * 7919 * 31) % 300_000 + 1
            player.visit(step)
            data = player.page.evaluate("({ ...document.documentElement.dataset })")
            seeks.append(float(data["seek"]))
            worst = max(worst, int(data["replayed"]))
        assert worst <= 1000, f"a seek has replayed {worst} records"
        seeks.sort()
        print(f"  300,000 records: {size / 1e6:.2f} MB, decoded in {opened / 1000:.2f} s, open after "
              f"{elapsed:.2f} s; a seek takes {seeks[50]:.2f} ms (median), {seeks[-1]:.2f} ms (worst), "
              f"and replays at most {worst}")


def take_pictures(browser, folder):
    """The pictures are those of a story: the first short write, with unsent bytes behind it."""
    file, page = STORIES / "back_pressure.jsonl", folder / "picture.html"
    story = Recording(file)
    page.write_text(node("assemble.mjs", file, *(other for other in sorted(STORIES.glob("*.jsonl")) if other != file)))
    step = story.steps(is_short)[0]
    pictures = [(HERE / "screenshots" / f"{width}-{scheme}.png", width, height, scheme)
                for width, height in PICTURES.items() for scheme in SCHEMES]
    pictures.append((STORIES.parent / "player.png", *PICTURE_OF_THE_README, "light"))
    for picture, width, height, scheme in pictures:
        with Player(browser, page, width, height, scheme, f"#story=1&step={step}") as player:
            if width < 760:
                player.page.evaluate("document.getElementById('now').scrollIntoView()")
            player.settle()
            player.page.screenshot(path=picture)
            # `apt install pngquant` brings it: a quarter of the size, and no visible difference.
            if shutil.which("pngquant"):
                subprocess.run(["pngquant", "--force", "--output", picture, "128", picture], check=True)


def find_axe():
    """Returns the source of axe-core, or None. `npm install axe-core` in AXE_FOLDER brings it."""
    folder = os.environ.get("AXE_FOLDER")
    file = folder and Path(folder) / "node_modules/axe-core/axe.min.js"
    if file and file.exists():
        return file.read_text()
    print("  axe-core is not in AXE_FOLDER: contrast and labels are not checked")
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--screenshots", action="store_true")
    parser.add_argument("--recording", type=Path)
    parser.add_argument("--page", type=Path)
    parser.add_argument("names", nargs="*", help="runs the checks with these words in their names")
    options = parser.parse_args()
    axe = find_axe()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        folder = Path(folder)
        file = options.recording or folder / "run.jsonl"
        if options.recording is None:
            file.write_text(node("synthetic.mjs", 4000, 3))
        path = options.page or folder / "page.html"
        if options.page is None:
            path.write_text(node("assemble.mjs", file))
        path, recording = path.resolve(), Recording(file)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        widths, schemes = ((390, 1280), ("light",)) if options.quick else (WIDTHS, SCHEMES)
        checks = [
            (opens_on_the_worst_first_list, path, recording), (steps_by_each_unit, path, recording),
            (scrubs, path, recording), (follows_links_and_the_history, path, recording),
            (draws_the_lanes, path, recording), (opens_hostile_text, folder),
            (has_room_for_every_text, path, recording, widths, schemes, axe),
        ]
        if not options.quick:
            checks += [
                (shows_what_the_recording_holds, path, recording), (plays_and_pauses, path, recording),
                (opens_every_story, folder), (shows_both_sides_of_a_proxy, folder), (reports_what_it_cannot_open, folder),
                (holds_300_000_records, folder),
            ]
        if options.names:
            checks = [c for c in checks if any(name in c[0].__name__ for name in options.names)]
            assert checks, f"no check has one of {options.names} in its name"
        failed = 0
        for check, *arguments in checks:
            begun = time.monotonic()
            try:
                check(browser, *arguments)
                print(f"{check.__name__} ... ok, {time.monotonic() - begun:.1f} s", flush=True)
            except Exception as error:  # One failure does not hide the next.
                failed += 1
                print(f"{check.__name__} ... FAILED\n  {type(error).__name__}: {error}", flush=True)
        if options.screenshots:
            take_pictures(browser, folder)
        browser.close()
    print(f"{len(checks) - failed} hold, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
