"""`scripts/prove kill`: SIGKILL at any moment, and every acknowledged callback is there.

Sixteen connections post the callbacks of tasks with 1-4 results, duplicates and repeats of what was
never answered among them; one endpoint is paused, another is delivered to meanwhile. The receiver
is killed at a random moment (under load, while it starts, while it stops), started again over the
same data, and its file is compared with what was acknowledged. The control answers before it
commits and must be caught.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from scripts.proofs.altered import BEFORE_COMMIT, OFTEN, altered
from scripts.proofs.book import Book, load
from scripts.proofs.copied import damage_in
from scripts.proofs.harness import (
    SERVE,
    NotReady,
    Receiver,
    Verdict,
    options,
    progress,
    run,
)
from scripts.proofs.postgres import NotInstalled
from scripts.proofs.preloaded import Forked, Parent
from scripts.proofs.sink import Sink
from scripts.proofs.stored import integrity_of, problems_of, succeeded_of
from scripts.proofs.stores import SQLITE, Databases, add_options, chosen, is_strict, one_of

MOST_LOAD: Final = 250  # callbacks acknowledged before a kill
LONGEST_LOAD: Final = 2.0  # seconds
LAST_MOMENTS: Final = 0.01  # seconds
INTEGRITY_EVERY: Final = 100  # cycles


@dataclass(slots=True)
class Found:
    """What all cycles together have seen."""

    cycles: int = 0
    stores: int = 0
    killed: Counter[str] = field(default_factory=Counter)
    said: Counter[str] = field(default_factory=Counter)
    acknowledged: int = 0
    integrity_checks: int = 0
    delivered: int = 0
    starts: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        """For the verdict. The time from start to ready is told, never judged."""
        ordered = sorted(self.starts) or [0.0]
        return {
            "cycles": self.cycles,
            "stores": self.stores,
            "killed": dict(self.killed),
            "acknowledged": self.acknowledged,
            "answers": dict(self.said),
            "delivered_meanwhile": self.delivered,
            "integrity_checks": self.integrity_checks,
            "lost_or_wrong": len(self.problems),
            "ready_after_s": {
                "p50": round(ordered[len(ordered) // 2], 3),
                "p99": round(ordered[int(len(ordered) * 0.99)], 3),
                "max": round(ordered[-1], 3),
            },
        }


class Store:
    """One data directory over many lives of its receiver."""

    def __init__(self, receiver: Receiver, found: Found, sink: Sink) -> None:
        self._receiver = receiver
        self._found = found
        self._sink = sink
        self._book = Book()

    async def begin(self) -> None:
        """Start it for the first time and register the endpoints."""
        await self._receiver.start()
        await self._receiver.add_endpoint()
        await self._receiver.add_endpoint(self._sink.url, paused=False)
        self._found.stores += 1

    async def cycle(self) -> None:
        """Load, kill, start, compare; the receiver runs before and after."""
        more = random.randint(0, MOST_LOAD)
        lines = await load(self._receiver.port, self._book, more, LONGEST_LOAD)
        await asyncio.sleep(random.uniform(0.0, LAST_MOMENTS))
        await self._kill()
        await asyncio.gather(*lines)
        await self._receiver.start()
        self._found.starts.append(self._receiver.seconds_to_ready)
        kept = await self._receiver.kept()
        self._found.problems += await asyncio.to_thread(self._book.look, kept)
        self._found.cycles += 1

    async def _kill(self) -> None:
        chance = random.random()
        if chance < 0.05:
            self._found.killed["while stopping"] += 1
            with suppress(TimeoutError):
                await self._receiver.end(signal.SIGTERM, random.uniform(0.001, 0.1))
                self._found.killed["stopped before the kill"] += 1
            return
        await self._receiver.end(signal.SIGKILL)
        self._found.killed["under load"] += 1
        if chance < 0.1:
            await self._receiver.launch()
            await asyncio.sleep(random.uniform(0.0, 2 * self._receiver.seconds_to_ready))
            await self._receiver.end(signal.SIGKILL)
            self._found.killed["while starting"] += 1

    async def check_integrity(self) -> None:
        """All pages of all tables, beside the running receiver."""
        if url := self._receiver.database_url:
            self._found.problems += await damage_in(url)
        else:
            database = self._receiver.database
            self._found.problems += await asyncio.to_thread(integrity_of, database)
        self._found.integrity_checks += 1

    async def finish(self) -> None:
        """Stop it, compare everything that was ever acknowledged."""
        await self._receiver.end()
        await asyncio.to_thread(self._compare_all, await self._receiver.kept())
        await self.check_integrity()
        book = self._book
        self._found.problems += book.problems
        self._found.acknowledged += len(book.acknowledged)
        self._found.said += book.said

    def _compare_all(self, kept: Path) -> None:
        book = self._book
        self._found.problems += problems_of(kept, book.acknowledged, sent=book.sent)
        delivered = succeeded_of(kept)
        self._found.delivered += len(delivered)
        self._found.problems += [
            f"{event} is marked as delivered, and never came"
            for event in delivered - self._sink.seen
        ]


async def loop(
    make: Callable[[Path, int, Mapping[str, str]], Receiver],
    cycles: int,
    *,
    where: Databases | None,
    cycles_a_store: int,
    seconds: float,
    until_a_problem: bool = False,
) -> Found:
    """So many cycles, or as many as fit into the seconds."""
    found, begun = Found(), time.monotonic()

    def over() -> bool:
        late = time.monotonic() - begun > seconds
        return found.cycles >= cycles or late or (until_a_problem and bool(found.problems))

    async with Sink() as sink:
        while not over():
            async with AsyncExitStack() as stack:
                opened = tempfile.TemporaryDirectory(prefix="reelhook-kill-")
                env = await stack.enter_async_context(one_of(where))
                folder = stack.enter_context(opened)
                receiver = make(Path(folder), found.stores, env)
                store = Store(receiver, found, sink)
                try:
                    await store.begin()
                    for number in range(cycles_a_store):
                        if over():
                            break
                        await store.cycle()
                        if number % INTEGRITY_EVERY == INTEGRITY_EVERY - 1:
                            await store.check_integrity()
                    await store.finish()
                except NotReady as error:
                    found.problems.append(f"did not start again: {error}")
                finally:
                    await receiver.end(signal.SIGKILL)
            sink.seen.clear()
            progress(
                f"{found.cycles} cycles, {found.acknowledged} acknowledged,"
                f" {len(found.problems)} problems, {time.monotonic() - begun:.0f} s"
            )
            if found.problems:
                break
    return found


@asynccontextmanager
async def receivers(preloaded: bool) -> AsyncIterator[Callable[..., Receiver]]:
    """How a receiver with alterations is made: exec'd as users do, or forked."""
    if not preloaded:
        yield lambda folder, env, *names: Receiver(
            folder, command=altered(*names) if names else SERVE, env=env
        )
        return
    async with Parent() as parent:
        yield lambda folder, env, *names: Forked(folder, parent, alterations=names, env=env)


def _alterations(number: int) -> Iterable[str]:
    # Every other store checkpoints all the time, so that kills lie inside checkpoints, too.
    return (OFTEN,) if number % 2 else ()


def _asked() -> argparse.Namespace:
    parser = options("kill", __doc__)
    add_options(parser)
    parser.add_argument("--cycles", type=int, default=200)
    parser.add_argument("--cycles-a-store", type=int, default=100, help="then a fresh one")
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after so many, at most")
    parser.add_argument("--preloaded", action="store_true", help="fork receivers, don't exec them")
    asked = parser.parse_args()
    if asked.ci:
        # Few cycles a store, so that a slow machine sees both kinds of store, too.
        seconds = 60.0 if asked.store == SQLITE else 25.0
        asked.cycles, asked.cycles_a_store, asked.seconds = 40, 10, seconds
    return asked


async def main() -> int:
    """Run the control, then the proof."""
    asked, verdict = _asked(), Verdict("kill")
    try:
        async with chosen(asked) as where, receivers(asked.preloaded) as make:
            return await _prove(asked, verdict, make, where)
    except NotInstalled as reason:
        return verdict.skip(str(reason), strict=is_strict(asked))


async def _prove(
    asked: argparse.Namespace,
    verdict: Verdict,
    make: Callable[..., Receiver],
    where: Databases | None,
) -> int:
    begun = time.monotonic()
    control = await loop(
        lambda folder, _, env: make(folder, env, BEFORE_COMMIT),
        30,
        where=where,
        cycles_a_store=10,
        seconds=20.0,
        until_a_problem=True,
    )
    verdict.control = {
        "answers before commit": {"cycles": control.cycles, "found": control.problems[:3]}
    }
    verdict.control_failed = any("acknowledged" in problem for problem in control.problems)
    found = await loop(
        lambda folder, number, env: make(folder, env, *_alterations(number)),
        asked.cycles,
        where=where,
        cycles_a_store=asked.cycles_a_store,
        seconds=asked.seconds,
    )
    verdict.problems = found.problems
    verdict.figures = found.figures() | {
        "store": asked.store,
        "preloaded": asked.preloaded,
        "seconds": round(time.monotonic() - begun),
    }
    return verdict.tell()


if __name__ == "__main__":
    sys.exit(run(main()))
