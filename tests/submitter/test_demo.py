"""`reelhook demo` as a user runs it: real processes, a code that means something, no leftovers."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from submitter.demo import Report, _play, _stage
from submitter.processes import Child

pytestmark = [pytest.mark.anyio, pytest.mark.process]

PATIENCE = 90.0


def environment(folder: Path) -> Mapping[str, str]:
    """Temporary files where they can be counted, and a key that must not be used."""
    return {**os.environ, "TMPDIR": str(folder), "RUNWARE_API_KEY": "never-used"}


def leftovers(folder: Path) -> list[Path]:
    """Data directories that a demo did not remove."""
    return list(folder.glob("reelhook-demo-*"))


def test_the_demo_checks_what_it_shows(tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "receiver", "demo", "--json"],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    report = json.loads(found.stdout)
    assert found.returncode == 0, found.stderr
    assert report["ok"] is True
    assert all(check["holds"] for check in report["checks"])
    assert (report["tasks"], report["results"]) == (11, 14)
    assert report["duplicates"] > 0
    assert report["fetched"] > 0
    told = found.stderr
    for step in (
        *("--> submitted", "<-- callback", "??? overdue", "<-- fetched", "==> delivered"),
        *("=== succeeded", "=== failed"),
    ):
        assert step in told
    assert not leftovers(tmp_path)


async def test_its_processes_are_given_no_secret_that_others_could_see() -> None:
    # Started from here, so that their arguments and all that they write are heard (tests/taps.py).
    async with _stage() as stage:
        assert (await _play(stage)).holds


async def test_a_signal_ends_the_demo_and_its_processes(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "receiver", "demo", "--keep"]
    async with (
        asyncio.timeout(PATIENCE),
        Child.start(argv, name="demo", env=environment(tmp_path), merged=True) as demo,
    ):
        pids = []
        async for line in demo.lines:
            pids += [int(found) for found in re.findall(r"\(process (\d+)\)", line)]
            if "Still running" in line:
                break
        os.kill(demo.pid, signal.SIGTERM)
        assert await demo.wait() == 130
    assert len(pids) == 4
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert not leftovers(tmp_path)


def test_a_report_without_checks_or_with_a_failed_one_does_not_hold() -> None:
    empty, good, bad = Report(), Report(), Report()
    good.check("one", True)
    bad.check("one", True)
    bad.check("another", False)
    assert [report.holds for report in (empty, good, bad)] == [False, True, False]
