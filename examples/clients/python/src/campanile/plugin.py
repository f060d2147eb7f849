"""The pytest plugin: the fixture `campanile`, and its options as a marker."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Dict, Generator, Iterator, Optional

import pytest

from .server import Campanile, NoEvent, ServerError

_SERVER: pytest.StashKey[Campanile] = pytest.StashKey()
#: The recording that is kept if the test fails, and whether the test has failed.
_RECORDING: pytest.StashKey[Path] = pytest.StashKey()
_FAILED: pytest.StashKey[bool] = pytest.StashKey()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "campanile(proxies={...}, faults=[...], args=[...], **flags): options of the server of the "
        'fixture campanile, such as idle="1s" or manual_time=True; see `campanile serve --help`. '
        "With record_on_failure=True, or a path, the recording of a failed test is kept",
    )


@pytest.fixture
def campanile(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Campanile]:
    """A server for this test: echo and daytime on free ports, with faults on request."""
    options: Dict[str, Any] = {}
    # The marker of the test comes first, then those of its class and its module.
    for marker in reversed(list(request.node.iter_markers("campanile"))):
        if marker.args:
            pytest.fail(
                f"the marker campanile takes names and values, not {marker.args!r}: "
                'write @pytest.mark.campanile(idle="1s")',
                pytrace=False,
            )
        options.update(marker.kwargs)
    kept = options.pop("record_on_failure", None)
    recording: Optional[Path] = None
    if kept:
        name = re.sub(r"[^\w.-]+", "_", request.node.name) + ".jsonl"
        recording = tmp_path_factory.mktemp("campanile") / name if kept is True else Path(kept)
        request.node.stash[_RECORDING] = recording
        options["record"] = recording
    try:
        server = Campanile(**options)
    except ServerError as error:
        # `from None`: pytest would print the error a second time, as the cause of this one.
        raise pytest.fail.Exception(str(error), pytrace=False) from None
    request.node.stash[_SERVER] = server
    yield server
    # The report of the test is complete; its events need no memory from here on.
    del request.node.stash[_SERVER]
    server.stop()
    if recording and not request.node.stash.get(_FAILED, False):
        recording.unlink()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, Any, None]:
    """Adds what happened on the server, and the path of its recording, to the report of a failed test."""
    report: pytest.TestReport = (yield).get_result()
    server = item.stash.get(_SERVER, None)
    if server and report.when == "call" and report.failed and call.excinfo:
        item.stash[_FAILED] = True
        recording = item.stash.get(_RECORDING, None)
        # The message of this one has the table already.
        lines = [] if isinstance(call.excinfo.value, NoEvent) else [server.table()]
        if recording:
            lines.append(f"recording: {recording}; see it with `campanile play {recording}`")
        if lines:
            report.sections.append(("campanile", "\n".join(lines)))
