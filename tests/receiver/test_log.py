"""The log as a process writes it: one line each on stderr, and what must never be in it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.doubles import ROOT, environment

PROGRAM = """
import logging, sys
from receiver.log import configure
log = configure(sys.argv[1], sys.argv[2])
log.debug("quiet", n=1)
log.info("callback", outcome="recorded", odd="\\x1b[31m\\n\\u0000", status=200)
log.warning("loud")
logging.getLogger("httpx").info("HTTP Request: POST https://example.com/?sig=secret")
logging.getLogger("uvicorn.error").info("started")
logging.getLogger("uvicorn.error").warning("foreign")
local = "a secret"
try:
    raise ValueError("why \\ud800")
except ValueError:
    log.exception("failed", loop="worker")
"""

pytestmark = pytest.mark.process


def written(folder: Path, level: str, style: str) -> list[str]:
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM, level, style],
        cwd=ROOT,
        env=environment(folder),
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout == ""
    assert "secret" not in found.stderr
    return found.stderr.splitlines()


@pytest.mark.parametrize("style", ["json", "auto"])
def test_without_a_terminal_each_line_is_a_json_object(tmp_path: Path, style: str) -> None:
    lines = [line for line in written(tmp_path, "info", style) if not line.startswith("uvicorn")]
    callback, warning, failure = [json.loads(line) for line in lines]
    assert callback["odd"] == "\x1b[31m\n\x00"
    assert (callback["event"], callback["level"], callback["status"]) == ("callback", "info", 200)
    assert callback["timestamp"].endswith("Z")
    assert warning["level"] == "warning"
    assert "ValueError: why \ud800" in failure["exception"]


def test_the_level_decides_what_is_written(tmp_path: Path) -> None:
    events = [line for line in written(tmp_path, "DEBUG", "json") if '"event"' in line]
    assert len(events) == 4
    events = [line for line in written(tmp_path, "error", "json") if '"event"' in line]
    assert len(events) == 1


def test_foreign_loggers_are_heard_from_warning_on(tmp_path: Path) -> None:
    lines = written(tmp_path, "debug", "json")
    assert [line for line in lines if "uvicorn" in line] == ["uvicorn.error: foreign"]


def test_on_a_console_the_lines_are_for_people(tmp_path: Path) -> None:
    text = "\n".join(written(tmp_path, "info", "console"))
    assert "callback" in text
    assert '{"' not in text


def test_on_a_console_nobody_can_send_escapes(tmp_path: Path) -> None:
    assert "\x1b[31m" not in "\n".join(written(tmp_path, "info", "console"))
