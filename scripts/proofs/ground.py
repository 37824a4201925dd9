"""A receiver on ground that gives way: load that goes on, and whether it recovers or ends."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from scripts.proofs.book import Book
from scripts.proofs.harness import SERVE, Line, NotReady, Receiver
from scripts.proofs.sink import Sink
from scripts.proofs.stored import integrity_of

CONNECTIONS: Final = 16
WITHIN: Final = 5.0  # seconds in which a receiver has to recover, or to end with a code of its own
WARM: Final = 50  # acknowledged callbacks before anything happens
PULSE: Final = 20  # acknowledged callbacks that show that it has recovered
BROKEN: Final = 1
CANNOT_START: Final = 3
READYZ: Final = b"GET /readyz HTTP/1.1\r\nHost: proof\r\nConnection: close\r\n\r\n"


@dataclass(slots=True)
class Found:
    """What all cases together have seen."""

    outcomes: Counter[str] = field(default_factory=Counter)
    said: Counter[str] = field(default_factory=Counter)
    acknowledged: int = 0
    looks: int = 0
    longest_s: float = 0.0  # from the fault's end to the recovery, or to the end of the process
    problems: list[str] = field(default_factory=list)

    def note(self, outcome: str, seconds: float = 0.0) -> None:
        """Count one case."""
        self.outcomes[outcome] += 1
        self.longest_s = max(self.longest_s, round(seconds, 2))


class Ground:
    """One data directory, its receiver, and what it was told and answered."""

    def __init__(
        self,
        folder: Path,
        found: Found,
        *,
        command: Sequence[str] = SERVE,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.receiver = Receiver(folder, command=command, env=env)
        self.book = Book()
        self.found = found
        self.refused = 0

    @property
    def pid(self) -> int:
        """The receiver's process."""
        assert self.receiver.process is not None
        return self.receiver.process.pid

    @property
    def code(self) -> int | None:
        """The receiver's exit code; None while it runs."""
        assert self.receiver.process is not None
        return self.receiver.process.returncode

    def blame(self, what: str) -> None:
        """Note what must not be."""
        log = self.receiver.log.read_text(errors="replace")[-1_000:]
        self.found.problems.append(f"{self.receiver.folder.name}: {what}; its log ends: {log}")

    async def begin(self, sink: Sink) -> None:
        """Start it for the first time, with an endpoint that is paused and one that is not."""
        await self.receiver.start()
        await self.receiver.add_endpoint()
        await self.receiver.add_endpoint(sink.url, paused=False)

    @contextlib.asynccontextmanager
    async def posting(self) -> AsyncIterator[None]:
        """While inside, callbacks are posted, whatever is answered."""
        stop = asyncio.Event()
        lines = [asyncio.create_task(self._post(stop)) for _ in range(CONNECTIONS)]
        try:
            yield
        finally:
            stop.set()
            await asyncio.gather(*lines)

    async def _post(self, stop: asyncio.Event) -> None:
        while not stop.is_set() and self.code is None:
            with contextlib.suppress(OSError):  # it ends, and the next turn will see that
                await self._post_on(await Line.open(self.receiver.port), stop)
            await asyncio.sleep(0.05)  # a platform does not storm after a refusal

    async def _post_on(self, line: Line, stop: asyncio.Event) -> None:
        while not stop.is_set():
            callback = self.book.next()
            answer = await line.ask(callback.request)
            self.book.note(callback, answer)
            if answer is None or answer.status != 200:
                self.refused += 1
                break
        line.close()

    async def is_ready(self) -> bool:
        """What its readyz says."""
        try:
            line = await Line.open(self.receiver.port)
        except OSError:
            return False
        answer = await line.ask(READYZ)
        line.close()
        return answer is not None and answer.status == 200

    async def recovers(self, what: str, *, may_end: bool = False) -> None:
        """Within seconds it is ready and acknowledges again, in the same process.

        `may_end`: or it ends, with the code that says why.
        """
        begun, before = time.monotonic(), len(self.book.acknowledged)
        while not (len(self.book.acknowledged) >= before + PULSE and await self.is_ready()):
            if self.code is not None:
                if may_end:
                    await self.ends(what, begun)
                else:
                    self.blame(f"{what}: ended with {self.code} and should have recovered")
                return
            if time.monotonic() > begun + WITHIN:
                self.blame(f"{what}: not recovered after {WITHIN} s")
                return
            await asyncio.sleep(0.02)
        self.found.note(f"recovered: {what}", time.monotonic() - begun)

    async def ends(self, what: str, begun: float | None = None) -> None:
        """Within seconds it ends with the code that says why, and meanwhile is not ready."""
        begun = time.monotonic() if begun is None else begun
        assert self.receiver.process is not None
        try:
            code = await asyncio.wait_for(
                self.receiver.process.wait(), begun + WITHIN - time.monotonic()
            )
        except TimeoutError:
            self.blame(f"{what}: still there after {WITHIN} s")
            return
        if code != BROKEN or "the receiver ends" not in self.receiver.log.read_text():
            self.blame(f"{what}: ended with {code}, or without saying why")
        self.found.note(f"ended with {code}: {what}", time.monotonic() - begun)

    async def is_warm(self) -> None:
        """Wait until some callbacks were acknowledged."""
        await self.until(lambda: len(self.book.acknowledged) >= WARM, within=WITHIN)

    async def is_refusing(self, what: str) -> None:
        """Wait until somebody was refused; it must not be ready then."""
        if not await self.until(lambda: self.refused, within=2 * WITHIN):
            self.blame(f"{what}: nobody was refused")
        if await self.is_ready():
            self.blame(f"{what}: ready while it refuses")

    async def kill(self) -> None:
        """SIGKILL."""
        await self.receiver.end(signal.SIGKILL)

    async def until(self, condition: Callable[[], object], within: float) -> bool:
        """Whether it came within so many seconds."""
        begun = time.monotonic()
        while not condition():
            if time.monotonic() > begun + within:
                return False
            await asyncio.sleep(0.02)
        return True

    async def refuses_to_start(self, what: str) -> bool:
        """Whether it ended with the code for that; False if it started."""
        try:
            await self.receiver.start()
        except NotReady:
            if self.code != CANNOT_START:
                self.blame(f"{what}: refused to start with {self.code}")
            self.found.note(f"refused to start: {what}")
            return True
        return False

    async def restart(self) -> None:
        """Start it over the same data. Raises NotReady."""
        if self.code is not None:
            await self.receiver.start()

    async def compare(self) -> None:
        """Everything that was acknowledged since the last look, and samples of the rest."""
        database = self.receiver.database
        self.found.problems += await asyncio.to_thread(self.book.look, database)
        self.found.looks += 1

    async def finish(self) -> None:
        """Stop it in order, compare, and look at every page."""
        if self.code is None:
            code = await self.receiver.end()
            if code != 0:
                self.blame(f"ended with {code} when told to stop")
        await self.compare()
        self.found.problems += await asyncio.to_thread(integrity_of, self.receiver.database)
        if "Traceback" in self.receiver.log.read_text(errors="replace"):
            self.blame("a traceback")
        self.found.problems += self.book.problems
        self.found.acknowledged += len(self.book.acknowledged)
        self.found.said += self.book.said
