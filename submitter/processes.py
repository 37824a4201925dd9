"""Floor 2, edge: child processes, started, heard and ended. Touches processes of ours only."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Self

import anyio
import anyio.lowlevel
from anyio.abc import ByteReceiveStream, Process, TaskGroup

from submitter.errors import SubmitterError

OnLine = Callable[[str], None]

GRACE_S = 10.0
LAST_WORDS_S = 1.0
KEPT_LINES = 1_000
KEPT_ERRORS = 20
LONGEST_LINE = 65_536


@dataclass(kw_only=True, eq=False)
class ChildFailed(SubmitterError):
    """{name} {reason}"""

    name: str
    reason: str
    returncode: int | None = None
    stderr: tuple[str, ...] = ()
    code: str = field(default="child_failed", init=False)

    def default_message(self) -> str:
        return "\n".join([super().default_message(), *self.stderr])


class Lines:
    """Lines as they come; of those that nobody reads, only the latest are kept."""

    def __init__(self) -> None:
        self._kept: deque[str] = deque(maxlen=KEPT_LINES)
        self._news = anyio.Event()
        self._closed = False

    def put(self, line: str) -> None:
        self._kept.append(line)
        self._news.set()

    def close(self) -> None:
        self._closed = True
        self._news.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        while not self._kept:
            if self._closed:
                raise StopAsyncIteration
            self._news = anyio.Event()
            await self._news.wait()
        return self._kept.popleft()


class Child:
    """A process that ends with us. Make one with `async with Child.start(...)`."""

    def __init__(self, process: Process, name: str, *, grace_s: float) -> None:
        self.name = name
        self.lines = Lines()
        self.stderr: deque[str] = deque(maxlen=KEPT_ERRORS)
        self._process = process
        self._grace_s = grace_s
        self._silent = anyio.Event()
        self._buried = False
        self._attending = anyio.CancelScope(shield=True)

    @classmethod
    @asynccontextmanager
    async def start(
        cls,
        argv: Sequence[str],
        *,
        name: str,
        env: Mapping[str, str] | None = None,
        on_stderr: OnLine | None = None,
        merged: bool = False,
        grace_s: float = GRACE_S,
    ) -> AsyncIterator[Self]:
        """Run `argv` until the block is left; `merged` puts its stderr among `lines`.

        Raises `ChildFailed` when there is no such program.
        """
        child = cls(await _spawn(argv, name, env, merged=merged), name, grace_s=grace_s)
        async with _plain_errors() as group:
            group.start_soon(child._attend, on_stderr)
            try:
                yield child
            finally:
                with anyio.CancelScope(shield=True):
                    await child.stop()
                    await child._let_go()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """What it ended with (a negative number: that signal), None while it runs."""
        return self._process.returncode

    async def ready(self, timeout_s: float) -> dict[str, Any]:
        """Its line `{"event":"ready",…}`; `ChildFailed` when it ends, or stays silent, instead."""
        with anyio.move_on_after(timeout_s):
            async for line in self.lines:
                if ready := _ready_line(line):
                    return ready
            await self.wait()
            raise self.failure(f"ended with exit code {self.returncode} before it was ready.")
        raise self.failure(f"was not ready within {timeout_s:g} s.")

    async def wait(self) -> int:
        """What it ended with, once it has ended and its last words are read."""
        returncode = await self._process.wait()
        with anyio.move_on_after(LAST_WORDS_S):
            await self._silent.wait()
        return returncode

    async def stop(self) -> None:
        """Ask it to end (SIGTERM), and end it (SIGKILL) when it takes longer than its grace."""
        if self.returncode is None:
            with suppress(ProcessLookupError):
                self._process.terminate()
            with anyio.move_on_after(self._grace_s):
                await self._process.wait()
        if self.returncode is None:
            self.kill()
        await self._bury()

    def kill(self) -> None:
        """End it and whatever it has started, at once."""
        if self._buried:  # By now its number may be somebody else's.
            return
        # Its group is named after it. macOS says EPERM for a group of the dead.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def failure(self, reason: str) -> ChildFailed:
        """The error that carries how it ended and its last words."""
        return ChildFailed(
            name=self.name,
            reason=reason,
            returncode=self.returncode,
            stderr=tuple(self.stderr),
        )

    async def _attend(self, on_stderr: OnLine | None) -> None:
        # Shielded: what it says while it ends is heard too, and can't block it.
        with self._attending:
            async with anyio.create_task_group() as group:
                group.start_soon(self._listen, on_stderr)
                group.start_soon(self._bury)

    async def _listen(self, on_stderr: OnLine | None) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(_each_line, self._process.stdout, self.lines.put)
            group.start_soon(_each_line, self._process.stderr, self._note(on_stderr))
        self._silent.set()
        self.lines.close()

    def _note(self, on_stderr: OnLine | None) -> OnLine:
        def note(line: str) -> None:
            self.stderr.append(line)
            if on_stderr is not None:
                on_stderr(line)

        return note

    async def _bury(self) -> None:
        await self._process.wait()
        self.kill()
        self._buried = True

    async def _let_go(self) -> None:
        with anyio.move_on_after(LAST_WORDS_S):
            await self._silent.wait()
        self._attending.cancel()
        await self._process.aclose()


def free_port(host: str = "127.0.0.1", *, prefer: Sequence[int] = ()) -> int:
    """The first of `prefer` that can be bound on `host`, or any other that can."""
    for port in prefer:
        with suppress(OSError):
            return _bindable(host, port)
    return _bindable(host, 0)


def _bindable(host: str, port: int) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as listener:
        found: int = listener.getsockname()[1]
    return found


async def _spawn(
    argv: Sequence[str], name: str, env: Mapping[str, str] | None, *, merged: bool
) -> Process:
    await anyio.lowlevel.checkpoint()
    # Shielded: canceled amid its start, a process would be left to itself, its pipes open.
    with anyio.CancelScope(shield=True):
        try:
            process = await anyio.open_process(
                list(argv),
                env=env,
                stdin=subprocess.DEVNULL,
                stderr=subprocess.STDOUT if merged else subprocess.PIPE,
                # A Ctrl-C in the terminal reaches us alone, so that children end in our order.
                start_new_session=True,
            )
        except OSError as fault:
            reason = f"can't be started: {fault.strerror or fault}."
            raise ChildFailed(name=name, reason=reason) from fault
    return process


async def _each_line(stream: ByteReceiveStream | None, take: OnLine) -> None:
    if stream is None:
        return
    rest = b""
    async for chunk in stream:
        *whole, rest = (rest + chunk).split(b"\n")
        rest = rest[-LONGEST_LINE:]
        for line in whole:
            take(_text(line))
    if rest:
        take(_text(rest))


def _text(line: bytes) -> str:
    return line.decode(errors="replace").rstrip("\r")


def _ready_line(line: str) -> dict[str, Any] | None:
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) and said.get("event") == "ready" else None


@asynccontextmanager
async def _plain_errors() -> AsyncIterator[TaskGroup]:
    # The tasks of ours don't raise: a group of one error is the block's own, wrapped.
    try:
        async with anyio.create_task_group() as group:
            yield group
    except BaseExceptionGroup as wrapped:
        if len(wrapped.exceptions) == 1:
            raise wrapped.exceptions[0] from None
        raise
