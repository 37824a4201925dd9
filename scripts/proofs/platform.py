"""A platform that calls back: it sends each callback again until a receiver takes it, to one of its
receivers after the other, and some of them twice."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from scripts.proofs.harness import Answer, Callback, Line, callbacks_of

CONNECTIONS: Final = 16
OPEN_TASKS: Final = 24
TWICE: Final = 0.1  # of the callbacks: sent once more when they have been taken
PAUSE: Final = 0.2  # seconds until a callback that was not taken is sent again
PATIENCE: Final = 15.0  # seconds that an answer may take


def calls(count: int) -> Iterator[Callback]:
    """So many callbacks, of tasks with one to four results that go on at the same time."""
    going: list[list[Callback]] = []
    while count or going:
        while count and len(going) < OPEN_TASKS:
            made = callbacks_of(random.randint(1, min(4, count)))
            count -= len(made)
            going.append(made)
        place = random.randrange(len(going))
        yield going[place].pop()
        if not going[place]:
            del going[place]


class Platform:
    """Sends callbacks and keeps what it was told. `rate` a second; 0: as fast as it can."""

    def __init__(self, ports: Sequence[int], count: int, rate: float = 0.0) -> None:
        self.acknowledged: list[Callback] = []
        self.sent: dict[str, set[str]] = {}
        self.said: Counter[str] = Counter()
        self.problems: list[str] = []
        self._ports = ports
        self._calls = calls(count)
        self._rate = rate
        self._begun = 0.0
        self._number = 0
        self._waiting: list[tuple[int, asyncio.Event]] = []

    async def run(self) -> None:
        """Send everything, until all of it was taken."""
        self._begun = time.monotonic()
        await asyncio.gather(*[self._send_on(number) for number in range(CONNECTIONS)])

    async def until(self, acknowledged: int) -> None:
        """Wait until so many were taken."""
        enough = asyncio.Event()
        self._waiting.append((acknowledged, enough))
        self._tell()
        await enough.wait()

    def _tell(self) -> None:
        for wanted, enough in self._waiting:
            if len(self.acknowledged) >= wanted:
                enough.set()

    async def _send_on(self, number: int) -> None:
        caller = _Caller(self._ports, number)
        for callback in self._calls:
            self.sent.setdefault(callback.task, set()).update(callback.keys)
            self._number += 1
            await self._wait(self._number)
            first = await self._until_taken(caller, callback)
            if random.random() < TWICE:
                again = await self._until_taken(caller, callback)
                if again != "duplicate":
                    self.problems.append(f"{callback.keys} was {first}, then {again}")
        caller.close()

    async def _wait(self, number: int) -> None:
        if self._rate:
            due = self._begun + number / self._rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _until_taken(self, caller: _Caller, callback: Callback) -> str:
        for tries in range(1, 1_000):
            answer = await caller.post(callback)
            if answer is not None and answer.status == 200:
                return self._taken(callback, answer.said, tries)
            self._refused(callback, answer)
            await asyncio.sleep(random.uniform(PAUSE, 2 * PAUSE))
        raise RuntimeError(f"nobody takes {callback.keys}")

    def _taken(self, callback: Callback, said: str, tries: int) -> str:
        self.said[said] += 1
        if said not in ("recorded", "duplicate"):
            self.problems.append(f"{callback.keys} was answered {said}")
        if said == "duplicate" and tries > 1:
            self.said["duplicate: committed, and not answered"] += 1
        self.acknowledged.append(callback)
        self._tell()
        return said

    def _refused(self, callback: Callback, answer: Answer | None) -> None:
        if answer is None:
            self.said["unanswered"] += 1
            return
        self.said[str(answer.status)] += 1
        if answer.status != 503 or "retry-after" not in answer.headers:
            self.problems.append(f"{callback.keys} was answered {answer.status}")


class _Caller:
    """A connection at a time; each time one fails, the next receiver's."""

    def __init__(self, ports: Sequence[int], start: int) -> None:
        self._ports = ports
        self._turn = start
        self._line: Line | None = None

    async def post(self, callback: Callback) -> Answer | None:
        """What came back; None: no whole answer."""
        try:
            if self._line is None:
                self._turn += 1
                self._line = await Line.open(self._ports[self._turn % len(self._ports)])
            answer = await self._line.ask(callback.request, PATIENCE)
        except OSError:  # refused, or a time-out
            answer = None
        if answer is None or answer.status != 200 or answer.headers.get("connection") == "close":
            self.close()
        return answer

    def close(self) -> None:
        """End the connection."""
        if self._line is not None:
            self._line.close()
            self._line = None
