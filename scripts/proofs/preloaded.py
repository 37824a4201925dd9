"""Receivers that are forked, not started: importing costs half a second, ten thousand times.

A parent imports everything, starts no thread and no loop, and forks a child for each start. The
child is a whole receiver of its own and is killed for real; only the interpreter's start is saved.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from scripts.proofs.harness import START, WAIT, NotReady, Receiver


class Parent:
    """The process that forks. It ends when its stdin does."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process

    async def __aenter__(self) -> Parent:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "scripts.proofs.preloaded",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()

    def fork(self, order: Mapping[str, Any]) -> None:
        """Ask for a child."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")

    async def next(self) -> dict[str, Any]:
        """The next event of a child's life: forked, ready, ended. Raises TimeoutError."""
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), START)
        if not line:
            raise NotReady("the parent of all receivers is gone")
        found: dict[str, Any] = json.loads(line)
        return found


class Forked(Receiver):
    """A receiver out of a parent, otherwise as one that is started."""

    def __init__(
        self,
        folder: Path,
        parent: Parent,
        *,
        alterations: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(folder, env=env)
        self._parent = parent
        self._alterations = alterations
        self._pid = 0

    async def launch(self) -> None:
        """Fork a child; its ready line is still to come."""
        self.folder.mkdir(parents=True, exist_ok=True)
        order = {"env": self.env, "log": str(self.log), "alterations": self._alterations}
        self._parent.fork(order)
        self._pid = int((await self._parent.next())["pid"])

    async def ready(self) -> str:
        """Wait for the ready line; the URL in it. Raises NotReady."""
        event = await self._parent.next()
        if event["event"] != "ready":
            self._pid = 0
            log = self.log.read_text(errors="replace")[-2000:]
            raise NotReady(f"ended with {os.waitstatus_to_exitcode(event['status'])}: {log}")
        return str(event["url"])

    async def end(self, sig: signal.Signals = signal.SIGTERM, within: float = WAIT) -> int:
        """Send a signal and wait for the end; the exit code, negative for a signal.

        Raises TimeoutError when it does not end within so many seconds; it is killed then.
        """
        if not self._pid:
            return 0
        os.kill(self._pid, sig)  # not reaped yet, so the number is still its own
        try:
            async with asyncio.timeout(within):
                return await self._ended()
        except TimeoutError:
            os.kill(self._pid, signal.SIGKILL)
            await self._ended()
            raise

    async def _ended(self) -> int:
        event = await self._parent.next()
        while event["event"] != "ended":
            event = await self._parent.next()
        self._pid = 0
        return os.waitstatus_to_exitcode(event["status"])


def _say(event: Mapping[str, Any]) -> None:
    # One write, so that lines of parent and child never mix.
    os.write(1, json.dumps(event).encode() + b"\n")


def _become(order: Mapping[str, Any]) -> NoReturn:
    from receiver import cli
    from scripts.proofs.altered import alter

    code = 1
    try:
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.clear()
        os.environ.update(order["env"])
        alter(order["alterations"])
        sys.argv = ["reelhook", "serve"]
        cli.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        os._exit(code)


def main() -> None:
    """Fork a child for each line of stdin, one at a time."""
    from scripts.proofs import altered
    from submitter import cli

    loaded = [module.__name__ for module in (altered, cli)]
    if threading.active_count() != 1:
        raise SystemExit(f"{loaded} start threads, so a fork would lack them.")
    for line in iter(sys.stdin.buffer.readline, b""):
        pid = os.fork()
        if pid == 0:
            _say({"event": "forked", "pid": os.getpid()})
            _become(json.loads(line))
        _, status = os.waitpid(pid, 0)
        _say({"event": "ended", "status": status})


if __name__ == "__main__":
    main()
