"""System calls that fail when a proof wants them to: strace around a receiver, or beside it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ATTACHING: Final = 20.0  # seconds


@dataclass(frozen=True, slots=True)
class Fault:
    """The first-th to last-th call of one kind, counted for each thread, fails."""

    call: str
    error: str
    first: int
    count: int = 1

    @property
    def ends_it(self) -> bool:
        """Whether the receiver must not go on."""
        return self.call in ("fdatasync", "fsync")

    @property
    def may_end_it(self) -> bool:
        """Whether it may: SQLite calls a failed read damage, if the writer made it."""
        return self.call == "pread64"

    @property
    def words(self) -> Sequence[str]:
        """For strace."""
        when = f"when={self.first}..{self.first + self.count - 1}"
        inject = f"inject={self.call}:error={self.error}:{when}"
        return ("-e", f"trace={self.call}", "-e", inject)

    def __str__(self) -> str:
        return f"{self.error} on {self.call} {self.first}+{self.count}"


def around(fault: Fault, log: Path, command: Sequence[str]) -> Sequence[str]:
    """The command under that fault; the started process is the traced one."""
    return ("strace", "-D", "-f", "-o", str(log), *fault.words, "--", *command)


def hits(log: Path) -> int:
    """How often it has struck so far."""
    return log.read_bytes().count(b"(INJECTED)") if log.exists() else 0


class CanNotTrace(Exception):
    """strace is missing, or may not attach to a process of ours."""


class Injection:
    """strace beside a running process, until it is detached or the process ends."""

    def __init__(self, fault: Fault, folder: Path) -> None:
        self.fault = fault
        self._log = folder / "strace.log"
        self._said = folder / "strace.err"
        self._process: asyncio.subprocess.Process

    @property
    def hits(self) -> int:
        """How often it has struck so far."""
        return hits(self._log)

    async def attach(self, pid: int) -> None:
        """Return once every thread is traced. Raises CanNotTrace."""
        if shutil.which("strace") is None:
            raise CanNotTrace("strace is missing: apt install strace")
        self._log.unlink(missing_ok=True)
        with self._said.open("wb") as said:
            self._process = await asyncio.create_subprocess_exec(
                *("strace", "-f", "-p", str(pid), "-o", str(self._log)),
                *self.fault.words,
                stderr=said,
            )
        begun = time.monotonic()
        while b"attached" not in self._said.read_bytes():
            if self._process.returncode is not None or time.monotonic() > begun + ATTACHING:
                raise CanNotTrace(self._said.read_text())
            await asyncio.sleep(0.01)

    async def detach(self) -> None:
        """Let the process go on untraced."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGINT)
        await self._process.wait()
