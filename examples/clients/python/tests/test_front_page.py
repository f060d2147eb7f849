"""The README shows what happens: its files are run, and its output is compared."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from campanile import find_program

PAGE = (Path(__file__).parent.parent / "README.md").read_text()


def file(title: str) -> str:
    """The block of Python whose first line is this comment."""
    blocks = re.findall(rf"^```python\n# {re.escape(title)}\n(.*?)^```", PAGE, re.M | re.S)
    assert len(blocks) == 1, title
    return str(blocks[0])


def outputs() -> list[list[str]]:
    """The lines of each block that shows a run of pytest, as patterns.

    Numbers differ each time, and versions of pytest shorten values in other places.
    """
    blocks = re.findall(r"^```console\n\$ pytest [^\n]*\n(.*?)^```", PAGE, re.M | re.S)

    def pattern(line: str) -> str:
        line = line.strip("- >")
        words = re.split(r"\d[\d.]*", line.replace("RAISE ", "RAISE ...").replace("...", "\0"))
        return ".*" + r"[\d.]+".join(map(re.escape, words)).replace("\0", ".*").replace("\\.*", ".*")

    return [[pattern(line) for line in block.splitlines()] for block in blocks]


def test_the_client_with_three_bugs_is_red_and_the_repaired_one_is_green(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(test_client=file("test_client.py"))
    red, green, _ = outputs()
    for client, lines, outcome in (
        ("client.py: red", red, {"failed": 3}),
        ("client.py: green", green, {"passed": 3}),
    ):
        pytester.makepyfile(client=file(client))
        result = pytester.runpytest_subprocess()
        result.assert_outcomes(**outcome)
        result.stdout.re_match_lines(lines)


def test_the_recording_of_a_failed_test_is_named_in_its_report(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(client=file("client.py: red"), test_recorded=file("test_recorded.py"))
    *_, lines = outputs()
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(failed=1)
    result.stdout.re_match_lines(lines)
    # The timeline of the README, without what differs each time.
    played = pytester.run(find_program(), "play", "pieces.jsonl")
    (shown,) = re.findall(r"^\$ campanile play pieces.jsonl\n(.*?)^```", PAGE, re.M | re.S)
    wanted = [re.escape(line.split(None, 1)[1]) for line in shown.splitlines()]
    played.stdout.re_match_lines([f" *[0-9.]+ +{line}$" for line in wanted])


def test_the_recipes_pass(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(file("test_recipes.py"))
    pytester.runpytest_subprocess().assert_outcomes(passed=3)


def test_the_proxy_passes_in_front_of_redis(pytester: pytest.Pytester, redis: tuple[str, int]) -> None:
    pytester.makepyfile(file("test_own_server.py").replace("127.0.0.1:6379", "%s:%d" % redis))
    pytester.runpytest_subprocess().assert_outcomes(passed=2)
