"""Sends mutants over many connections, each next one when the last is answered, and counts what
came back. A connection that is closed is opened again, from another address of loopback: the limit
of failures is an address's."""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from scripts.proofs.harness import WAIT, Callback
from scripts.proofs.mutants import HONEST, Mutants, Shot

LINES: Final = 64
PATIENCE: Final = 0.02  # seconds for more after a request without right framing
_STATUS: Final = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_LENGTH: Final = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)


@dataclass(slots=True)
class Heard:
    """What came back."""

    shots: Counter[str] = field(default_factory=Counter)
    statuses: defaultdict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    recorded: list[Callback] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def note(self, shot: Shot, statuses: list[int]) -> None:
        """Judge the answers to a shot."""
        self.shots[shot.kind] += 1
        self.statuses[shot.kind].update(statuses)
        if shot.honest and statuses != [200] * len(shot.honest):
            self.problems.append(f"honest callbacks were answered {statuses}")
        else:
            self.recorded += shot.honest
        if any(status >= 500 for status in statuses):
            self.problems.append(f"{shot.kind} was answered {statuses}: {shot.data[:300]!r}")
        if shot.answers is not None and not shot.honest and not statuses:
            self.problems.append(f"{shot.kind} was not answered: {shot.data[:300]!r}")

    @property
    def figures(self) -> dict[str, Any]:
        """For the verdict."""
        total: Counter[int] = Counter()
        for counted in self.statuses.values():
            total.update(counted)
        return {
            "requests": self.shots.total(),
            "by_kind": dict(self.shots.most_common()),
            "answers_by_status": {str(status): total[status] for status in sorted(total)},
            "honest_recorded": len(self.recorded),
        }


async def barrage(port: int, mutants: Mutants, count: int, heard: Heard) -> None:
    """Send so many mutants to a port on loopback."""
    todo = iter(range(count))
    await asyncio.gather(
        *(_Gunner(port, number).fire(mutants, todo, heard) for number in range(LINES))
    )


class _Gunner:
    """One connection at a time."""

    def __init__(self, port: int, number: int) -> None:
        self._port = port
        self._dice = random.Random(number)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def fire(self, mutants: Mutants, todo: Iterator[int], heard: Heard) -> None:
        """Send what is still to do."""
        for _ in todo:
            shot = mutants.next()
            heard.note(shot, await self._ask(shot))
        self._close()

    async def _ask(self, shot: Shot) -> list[int]:
        for _ in range(3):  # an idle connection may be closed while we write
            fresh = self._streams is None
            reader, writer = self._streams = self._streams or await self._open()
            statuses = await self._exchange(shot, reader, writer)
            if statuses or fresh or shot.answers is None:
                return statuses
        return []

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        dice = self._dice
        source = f"127.{dice.randrange(1, 255)}.{dice.randrange(256)}.{dice.randrange(1, 255)}"
        return await asyncio.open_connection(
            "127.0.0.1", self._port, local_addr=(source, 0), limit=1 << 20
        )

    async def _exchange(
        self, shot: Shot, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> list[int]:
        statuses: list[int] = []
        try:
            writer.write(shot.data)
            if shot.answers is None:
                statuses = await self._all(reader)
                self._close()
                return statuses
            async with asyncio.timeout(WAIT):
                for _ in range(shot.answers):
                    status, closes = await _answer(reader)
                    statuses.append(status)
                    if closes:
                        self._close()
                        break
        except TimeoutError:
            raise SystemExit(f"No answer within {WAIT:g} s to {shot.data[:500]!r}") from None
        except (OSError, asyncio.IncompleteReadError):
            self._close()
        return statuses

    async def _all(self, reader: asyncio.StreamReader) -> list[int]:
        heard = b""
        try:
            while piece := await asyncio.wait_for(reader.read(1 << 16), PATIENCE):
                heard += piece
        except (TimeoutError, OSError):
            pass
        return [int(status) for status in _STATUS.findall(heard) if status != b"100"]

    def _close(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bool]:
    head = await reader.readuntil(b"\r\n\r\n")
    if head.startswith(b"HTTP/1.1 100 "):
        return await _answer(reader)
    length = _LENGTH.search(head)
    if length is not None:
        await reader.readexactly(int(length[1]))
    return int(head[9:12]), b"\r\nconnection: close\r\n" in head.lower()


def honest_problems(heard: Heard) -> list[str]:
    """Whether honest callbacks were among what was sent at all."""
    return [] if heard.shots[HONEST] else ["no honest callback was sent"]
