"""The plugin as pytest sees it: options, reports, and finding the program."""

from __future__ import annotations

import stat
import sys
import sysconfig
from pathlib import Path

import pytest

from campanile import ServerError, find_program

# Where CI is set, pytest repeats whole messages in its short summary.
NO_SUMMARY = "-rN"

FILE = """
import pytest, socket

pytestmark = pytest.mark.campanile(clock="2014-01-29T19:14:15Z", zone="utc", seed=7)

def read(addr):
    with socket.create_connection(addr, 30) as client:
        return b"".join(iter(lambda: client.recv(1024), b""))

@pytest.mark.campanile(faults=["daytime: close after 3 bytes"], args=["--max-connections", "5"])
def test_options_add_up(campanile):
    assert campanile.seed == 7
    assert read(campanile.daytime.addr) == b"Wed"

def test_options_of_another_test_do_not_stay(campanile):
    assert read(campanile.daytime.addr) == b"Wed Jan 29 19:14:15 2014\\r\\n"
"""


def test_options_come_from_markers(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(FILE)
    pytester.runpytest("--strict-markers").assert_outcomes(passed=2)


def test_nothing_stays_open_after_a_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("import gc\ndef test_it(campanile): pass\ndef test_then(): gc.collect()")
    pytester.runpytest_subprocess("-W", "error").assert_outcomes(passed=2)


def test_a_failed_test_shows_what_the_server_did(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import socket

        def test_red(campanile):
            campanile.fault("daytime: close after 3 bytes")
            with socket.create_connection(campanile.daytime.addr, 30) as client:
                assert client.recv(1024) == b"", "red"
        """
    )
    result = pytester.runpytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*AssertionError: red*",
            "*- campanile -*",
            "campanile, seed *",
            "* s  fault: daytime: close after 3 bytes",
            "* s  daytime #1 from 127.0.0.1:*: accepted",
        ]
    )


def test_the_table_is_printed_once(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_red(campanile): campanile.event('closed', within=0)")
    result = pytester.runpytest(NO_SUMMARY)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines("*no closed within 0 s*")
    assert str(result.stdout).count("campanile, seed ") == 1
    # The report ends at the line of the test, not inside of the package.
    assert "server.py" not in str(result.stdout)


RECORDED = """
import pytest, socket

def ask(server):
    with socket.create_connection(server.echo.addr, 30) as client:
        client.sendall(b"hello")
        return client.recv(16)

@pytest.mark.campanile(record_on_failure=True, record_bytes=16)
@pytest.mark.parametrize("wanted", [b"hello", b"a/b"])
def test_it(campanile, wanted):
    assert ask(campanile) == wanted

@pytest.mark.campanile(record_on_failure="kept.jsonl")
def test_with_a_path(campanile):
    ask(campanile)
    campanile.event("closed", within=0, id=99)

@pytest.mark.campanile(record_on_failure="removed.jsonl")
def test_green(campanile):
    ask(campanile)
"""


def test_the_recording_of_a_failed_test_is_kept_and_its_path_is_printed(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(RECORDED)
    result = pytester.runpytest()
    result.assert_outcomes(passed=2, failed=2)
    lines = [line for line in result.outlines if line.startswith("recording: ")]
    paths = [line.split("`campanile play ")[1].rstrip("`") for line in lines]
    assert len(paths) == 2 and paths[1] == "kept.jsonl", lines
    assert lines[1] == "recording: kept.jsonl; see it with `campanile play kept.jsonl`"
    texts = [Path(pytester.path, path).read_text() for path in paths]
    for text in texts:
        assert text.startswith('{"recording":"campanile",') and text.endswith("}\n")
        assert '"k":"end"' in text
    # The test without a path has asked for the payload, too: base64 of `hello`.
    assert ['"data":"aGVsbG8="' in text for text in texts] == [True, False]
    assert not (pytester.path / "removed.jsonl").exists()
    # The recording of the other parameter, which passed, is removed.
    assert len(list(Path(paths[0]).parent.parent.rglob("*.jsonl"))) == 1


def test_a_marker_without_names_is_refused(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.campanile("1s")
        def test_it(campanile): pass
        """
    )
    result = pytester.runpytest()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines('*takes names and values, not*write @pytest.mark.campanile(idle="1s")*')


def test_a_wrong_option_is_reported_once(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.campanile(idel="1s")
        def test_it(campanile): pass
        """
    )
    result = pytester.runpytest(NO_SUMMARY)
    result.assert_outcomes(errors=1)
    assert str(result.stdout).count("similar argument exists: '--idle'") == 1


def program(folder: Path) -> Path:
    path = folder / ("campanile" + (sysconfig.get_config_var("EXE") or ""))
    path.write_text("#!/bin/sh\nexit 3\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The folder of scripts and a folder on PATH, both empty."""
    scripts, on_path = tmp_path / "scripts", tmp_path / "path"
    scripts.mkdir()
    on_path.mkdir()
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(scripts))
    monkeypatch.setenv("PATH", str(on_path))
    monkeypatch.delenv("CAMPANILE_PROGRAM", raising=False)
    return scripts, on_path


def test_the_program_beside_python_comes_before_path(folders: tuple[Path, Path]) -> None:
    scripts, on_path = folders
    second = program(on_path)
    assert find_program() == str(second)
    first = program(scripts)
    assert find_program() == str(first)


def test_an_explicit_path_comes_first(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(folders[0])
    explicit = program(tmp_path)
    monkeypatch.setenv("CAMPANILE_PROGRAM", str(explicit))
    assert find_program() == str(explicit)
    monkeypatch.setenv("CAMPANILE_PROGRAM", str(tmp_path / "missing"))
    with pytest.raises(ServerError, match=r"missing', which \$CAMPANILE_PROGRAM names"):
        find_program()


def test_a_missing_program_is_reported_with_the_ways_to_get_it(
    folders: tuple[Path, Path], pytester: pytest.Pytester
) -> None:
    pytester.makepyfile("def test_it(campanile): pass")
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        [
            f"*it is neither {folders[0]}*campanile* nor on PATH*",
            "*pip install*",
            "*cargo install --path .*",
            "*CAMPANILE_PROGRAM*",
        ]
    )
    assert "Traceback" not in str(result.stdout) and sys.version_info >= (3, 10)
