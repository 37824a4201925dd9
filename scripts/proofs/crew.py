"""The processes that share a database, how they are killed, and how the database is restarted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from scripts.proofs.harness import WAIT, NotReady, Receiver, progress
from scripts.proofs.postgres import Server

SERVE: Final = "serve"
WORKER: Final = "worker"
RECONCILE: Final = "reconcile"
COMMANDS: Final[Mapping[str, Sequence[str]]] = {
    SERVE: ("serve", "--no-worker"),
    WORKER: ("worker",),
    RECONCILE: ("reconcile", "--json", "--rate", "20"),
}
AWAY: Final = 1.0  # seconds at most until a process that was killed is started again
STARTING: Final = 3  # processes at most that are missing at once
REFUSED: Final = 60  # starts at most that fail while the database is away
HOW: Final = {signal.SIGINT: "fast", signal.SIGQUIT: "immediate"}


class Member(Receiver):
    """One process. A reconciler has no ready line; it tells what it polled."""

    def __init__(
        self, folder: Path, role: str, env: Mapping[str, str], alterations: Sequence[str] = ()
    ) -> None:
        module = ("scripts.proofs.altered", *alterations) if alterations else ("receiver",)
        command = (sys.executable, "-m", *module, *COMMANDS[role])
        super().__init__(folder, command=command, env=env)
        self.role = role
        self.polls = 0
        self.is_wanted = False
        self._hearing: asyncio.Task[None] | None = None

    async def ready(self) -> str:
        """Wait until it works. Raises NotReady."""
        if self.role != RECONCILE:
            return await super().ready()
        assert self.process is not None
        assert self.process.stdout is not None
        self._hearing = asyncio.create_task(self._hear(self.process.stdout))
        return ""

    async def _hear(self, lines: asyncio.StreamReader) -> None:
        async for line in lines:
            with contextlib.suppress(ValueError):  # its last one may be half a line
                json.loads(line)
                self.polls += 1

    @property
    def died(self) -> int | None:
        """What it ended with that nobody asked for."""
        ended = None if self.process is None else self.process.returncode
        return ended if self.is_wanted else None

    @property
    def last_words(self) -> str:
        """The end of what it wrote."""
        return self.log.read_text(errors="replace")[-1_500:]


class Crew:
    """All members, and what was done to them. Times are the monotonic clock's, in seconds."""

    def __init__(self, members: Sequence[Member], server: Server | None, seed: int) -> None:
        self.members = members
        self.crashes: list[float] = []
        self.killed: Counter[str] = Counter()
        self.restarts: list[str] = []
        self.refused_starts = 0
        self.problems: list[str] = []
        self._server = server
        self._random = random.Random(seed)
        self._is_away = asyncio.Event()
        self._last_away = -1.0
        self._starting: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Start everybody. Raises NotReady."""
        await asyncio.gather(*map(self._start, self.members))
        if self.problems:
            raise NotReady(self.problems[0])

    async def _start(self, member: Member) -> None:
        for _ in range(REFUSED):
            begun = time.monotonic()
            try:
                await member.start()
            except NotReady as error:
                if not self._is_away.is_set() and self._last_away < begun:
                    self.problems.append(f"{member.role} did not start: {error}")
                    return
                self.refused_starts += 1
                await asyncio.sleep(AWAY)
            else:
                member.is_wanted = True
                return

    async def kill(self, role: str | None = None) -> None:
        """SIGKILL one of them, of any role or of this one; a new one then takes its place."""
        self.look()
        chosen = [each for each in self.members if role in (None, each.role) and each.is_wanted]
        if not chosen or len(self._starting) >= STARTING:
            return  # on a slow machine the next one has to wait
        member = self._random.choice(chosen)
        member.is_wanted = False
        self.killed[member.role] += 1
        self.crashes.append(time.monotonic())
        await member.end(signal.SIGKILL)
        starting = asyncio.create_task(self._replace(member))
        self._starting.add(starting)
        starting.add_done_callback(self._starting.discard)

    async def _replace(self, member: Member) -> None:
        await asyncio.sleep(self._random.uniform(0.0, AWAY))
        await self._start(member)

    async def restart_database(self, how: signal.Signals) -> None:
        """End PostgreSQL, and start it again."""
        if self._server is None:
            return  # it is somebody else's
        self._is_away.set()
        self.restarts.append(HOW[how])
        self.crashes.append(time.monotonic())
        await asyncio.to_thread(self._server.stop, how)
        await asyncio.sleep(self._random.uniform(0.0, AWAY))
        await asyncio.to_thread(self._server.start)
        self._last_away = time.monotonic()
        self._is_away.clear()
        progress(f"PostgreSQL was restarted: {HOW[how]}")

    def look(self) -> None:
        """Whoever ended by itself is a problem."""
        for member in self.members:
            if (code := member.died) is not None:
                member.is_wanted = False
                self.problems.append(
                    f"{member.role} ended by itself with {code}: {member.last_words}"
                )

    async def stop(self) -> None:
        """Tell everybody to end; each has to, with 0."""
        await asyncio.gather(*self._starting)
        self.look()
        left = [member for member in self.members if member.is_wanted]
        for member in left:
            member.is_wanted = False
        codes = await asyncio.gather(*map(self._stop, left))
        for member, code in zip(left, codes, strict=True):
            if code:
                self.problems.append(f"{member.role} was stopped, and ended with {code}")

    async def _stop(self, member: Member) -> int | str:
        try:
            return await member.end()
        except TimeoutError:
            return f"nothing, within {WAIT:g} s"

    async def end(self) -> None:
        """Whatever is left ends at once."""
        for starting in self._starting:
            starting.cancel()
        await asyncio.gather(*self._starting, return_exceptions=True)
        for member in self.members:
            member.is_wanted = False
            if member.process is not None:
                await member.end(signal.SIGKILL)
