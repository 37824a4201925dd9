"""Ears on everything that the suite writes; a secret that is heard fails the session.

A plugin of pytest (see conftest.py), so it works for any part of the suite. Heard are

- stdout, stderr and arguments of each process that is started in this one, by whatever code;
- every record of Python's logging, and what httpx and aiosqlite tell at debug level of our calls;
- every line of a receiver in this process, every answer to an HTTP client, every error of ours;
- what tests print, and at the end each file that they left: databases by column, all else whole.

Not heard: processes that a process of ours starts and keeps to itself, unless it passes on what
they say. `tests/leaks.py` judges; `tests/test_leaks.py` plants a leak in each place.

Spread over workers (pytest-xdist), each hears its own tests and hands over what it heard; who
started them judges all files by the keys that any of them knows, and fails for one that is silent.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import astuple
from itertools import count
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from xdist import is_xdist_controller, is_xdist_worker

from receiver.errors import ReelhookError
from receiver.settings import Settings
from submitter.errors import SubmitterError
from tests import warm
from tests.leaks import Leak, keys_in, keys_kept_in, leaks_in, leaks_in_folder

ROOT: Final = Path(__file__).parents[1]
# At debug level they tell URLs, headers, statements.
CHATTY: Final = ("httpx", "httpcore.connection", "httpcore.http11", "aiosqlite")
OUR_HOSTS: Final = frozenset({"127.0.0.1", "localhost", "::1", "receiver"})
_TESTS: Final = f"{ROOT / 'tests'}{os.sep}"
_OURS: Final = tuple(f"{ROOT / package}{os.sep}" for package in ("receiver", "submitter"))


class Ears:
    """What was heard so far. In-process words are judged at once, files at the end."""

    def __init__(self) -> None:
        # Replaced, not changed: threads look through it while others learn of more.
        self.known: frozenset[bytes] = frozenset()
        self.leaks: set[Leak] = set()
        self.heard = 0
        self._folders = [Path(tempfile.mkdtemp(prefix="reelhook-taps-"))]
        self._written: list[tuple[Path, str, str]] = []
        self._numbers = count()  # of sheets; several threads may start processes

    def hear(self, place: str, words: object, test: str = "") -> None:
        """Judge words that were written somewhere, by the test that runs unless it is named."""
        text = words if isinstance(words, bytes) else str(words).encode(errors="replace")
        self.heard += 1
        self.leaks |= set(leaks_in(text, place, test or _current_test(), self.known))

    def sheet(self, place: str) -> Path:
        """A file for what a process will write; it is judged at the end."""
        path = self._folders[0] / str(next(self._numbers))
        self._written.append((path, place, _current_test()))
        return path

    def hand_over(self) -> dict[str, Any]:
        """All that was heard, for `take` in another process. What is written stays."""
        return {
            "known": list(self.known),
            "leaks": [astuple(leak) for leak in self.leaks],
            "heard": self.heard,
            "folders": [str(folder) for folder in self._folders],
            "written": [(str(path), place, test) for path, place, test in self._written],
        }

    def take(self, heard: Mapping[str, Any]) -> None:
        """Go on with what another process has heard, too."""
        self.known |= set(heard["known"])
        self.leaks |= {Leak(*leak) for leak in heard["leaks"]}
        self.heard += heard["heard"]
        self._folders += map(Path, heard["folders"])
        self._written += [(Path(path), place, test) for path, place, test in heard["written"]]

    def conclude(self, folder: Path) -> list[Leak]:
        """Judge the sheets and the files under a folder; every leak there is."""
        self.known |= keys_kept_in(folder)
        for path, place, test in self._written:
            self.heard += 1
            self.leaks |= set(leaks_in(path.read_bytes(), place, test, self.known))
        self.leaks |= set(leaks_in_folder(folder, self.known))
        for each in self._folders:
            shutil.rmtree(each)
        return sorted(self.leaks, key=str)


EARS: Final = Ears()


def _current_test() -> str:
    return os.environ.get("PYTEST_CURRENT_TEST", "").partition(" ")[0]


# Processes


class TappedPopen(subprocess.Popen[Any]):
    """A process whose pipes are copied on their way, and whose arguments are read."""

    def __init__(self, args: Any, *rest: Any, **options: Any) -> None:
        words = [args] if isinstance(args, str | bytes | os.PathLike) else list(args)
        self._command = _command([os.fsdecode(word) for word in words])
        EARS.known |= keys_in((options.get("env") or os.environ).items())
        EARS.hear("arguments", "\0".join(os.fsdecode(word) for word in words))
        super().__init__(args, *rest, **options)

    def _get_handles(self, stdin: Any, stdout: Any, stderr: Any) -> Any:
        # The one place where all pipes pass, before anything is wrapped around them.
        *given, out_read, out_write, err_read, err_write = super()._get_handles(  # type: ignore[misc]
            stdin, stdout, stderr
        )
        if stdout == subprocess.PIPE:
            out_read = _copied(out_read, EARS.sheet(f"stdout: {self._command}"))
        if stderr == subprocess.PIPE:
            err_read = _copied(err_read, EARS.sheet(f"stderr: {self._command}"))
        return (*given, out_read, out_write, err_read, err_write)


def _command(words: Sequence[str]) -> str:
    """What a process is, in words that `ALLOWED` can name: `reelhook keys new`, or a program."""
    if words[1:3] in (["-m", "receiver"], ["-m", "reelhook"]):
        words = ["reelhook", *words[3:]]
    elif warm.CLIENT in words:
        words = ["reelhook", *words[words.index(warm.CLIENT) + 2 :]]
    plain = [word for word in words[1:3] if re.fullmatch(r"[a-z]+(-[a-z]+)*", word)]
    return " ".join([Path(words[0]).name, *plain, *(word for word in words if word == "--raw")])


def _copied(source: int, sheet: Path) -> int:
    reading, writing = os.pipe()

    def carry() -> None:
        with (
            open(source, "rb", buffering=0) as pipe,
            open(writing, "wb", buffering=0) as onward,
            sheet.open("wb", buffering=0) as copy,
            suppress(BrokenPipeError),  # nobody listens any more: the writer is told in turn
        ):
            for data in iter(lambda: pipe.read(65_536), b""):
                copy.write(data)
                onward.write(data)

    sheet.touch()
    threading.Thread(target=carry, daemon=True, name="tap").start()
    return reading


# In this process


class _Records(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        # A test's own client tells its URLs too, when the test asks to see all records.
        if record.name not in CHATTY or _caused_by_us():
            _hear_record(record)


def _hear_record(record: logging.LogRecord) -> None:
    text = record.getMessage()
    if record.exc_info:
        text += logging.Formatter().formatException(record.exc_info)
    EARS.hear(f"log: {record.name}", text)


def _overhear(record: logging.LogRecord) -> bool:
    """Hears what the level of the root hides; it stays hidden to all others."""
    hidden = record.levelno < logging.root.level
    if hidden and _caused_by_us():
        _hear_record(record)
    return not hidden


def _caused_by_us() -> bool:
    """Whether the nearest caller in this repository is the product, and not a test's own client."""
    frame = sys._getframe().f_back
    while frame := frame and frame.f_back:
        name = frame.f_code.co_filename
        if name.startswith((*_OURS, _TESTS)) and name != __file__:
            return name.startswith(_OURS)
    return False


def _hear_answer(response: httpx.Response) -> None:
    request = response.request
    # What a test lets some platform answer is the platform's.
    if response.is_closed and request.url.host in OUR_HOSTS:
        place = f"answer: {request.method} {request.url.path} {response.status_code}"
        EARS.hear(place, b"\n".join([str(response.headers).encode(), response.content]))


def _tapped_errors(patch: pytest.MonkeyPatch) -> None:
    build, complete = ReelhookError.__init__, SubmitterError.__post_init__

    def built(self: ReelhookError, *arguments: Any, **evidence: Any) -> None:
        build(self, *arguments, **evidence)
        EARS.hear(f"error: {type(self).__name__}", f"{self} {self!r} {self.evidence}")

    def completed(self: SubmitterError) -> None:
        complete(self)
        EARS.hear(f"error: {type(self).__name__}", f"{self} {self!r}")

    patch.setattr(ReelhookError, "__init__", built)
    patch.setattr(SubmitterError, "__post_init__", completed)


def _tapped_settings(patch: pytest.MonkeyPatch) -> None:
    """A receiver in this process is given its keys, as one that is started is."""
    read = Settings.read

    def overheard(environ: Mapping[str, str]) -> Settings:
        EARS.known |= keys_in(environ.items())
        return read(environ)

    patch.setattr(Settings, "read", overheard)


def _tapped_clients(patch: pytest.MonkeyPatch) -> None:
    ask, ask_async = httpx.Client.send, httpx.AsyncClient.send

    def send(self: httpx.Client, *arguments: Any, **options: Any) -> httpx.Response:
        response = ask(self, *arguments, **options)
        _hear_answer(response)
        return response

    async def send_async(self: httpx.AsyncClient, *arguments: Any, **options: Any) -> Any:
        response = await ask_async(self, *arguments, **options)
        _hear_answer(response)
        return response

    patch.setattr(httpx.Client, "send", send)
    patch.setattr(httpx.AsyncClient, "send", send_async)


@contextmanager
def _tapped_logs() -> Iterator[None]:
    handler = _Records()
    logging.root.addHandler(handler)
    for logger in map(logging.getLogger, CHATTY):
        logger.setLevel(logging.DEBUG)
        logger.addFilter(_overhear)
    yield
    logging.root.removeHandler(handler)
    for logger in map(logging.getLogger, CHATTY):
        logger.setLevel(logging.NOTSET)
        logger.removeFilter(_overhear)


# The plugin


class Taps:
    """Listens from the first test to the last."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._found: list[Leak] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        if is_xdist_controller(session):  # it runs no test, and its workers are no test's processes
            return
        patch = self._stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(subprocess, "Popen", TappedPopen)
        _tapped_errors(patch)
        _tapped_settings(patch)
        _tapped_clients(patch)
        self._stack.enter_context(_tapped_logs())

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # The last one has the sections of all. A worker's report is the worker's to hear.
        if report.when != "teardown" or hasattr(report, "node"):
            return
        for name, text in report.sections:
            if "log" not in name:  # records are heard one by one
                EARS.hear(f"{name.lower()} of a test", text, report.nodeid)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self._stack.close()
        if is_xdist_worker(session):
            session.config.workeroutput["heard"] = EARS.hand_over()  # type: ignore[attr-defined]
            return
        self._found = EARS.conclude(session.config._tmp_path_factory.getbasetemp())  # type: ignore[attr-defined]
        if self._found and session.exitstatus in (pytest.ExitCode.OK, 0):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """A worker has ended: what it heard is judged here, by all that is known."""
        output: dict[str, Any] = getattr(node, "workeroutput", {})
        if "heard" in output:
            EARS.take(output["heard"])
        else:
            silent = f"worker {node.gateway.id}"
            EARS.leaks.add(
                Leak("anything", silent, "", "It ended without a word of what it heard.")
            )

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self._found:
            terminalreporter.section("secrets that were written", red=True)
        for leak in self._found:
            terminalreporter.line(f"LEAK {leak}")
