"""What was sent to one store, what became of it, and the clients that send it."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

from scripts.proofs.harness import Answer, Callback, Line, callbacks_of
from scripts.proofs.stored import problems_of

CONNECTIONS: Final = 16
OPEN_TASKS: Final = 12
REPEATED: Final = 0.1  # of what is sent: a callback that was sent before
SAMPLE: Final = 50  # acknowledged earlier, looked at again with each look


class Book:
    """What was sent to one store, and what became of it."""

    def __init__(self) -> None:
        self.sent: dict[str, set[str]] = {}
        self.acknowledged: list[Callback] = []
        self.fresh: list[Callback] = []  # acknowledged since the last look
        self.in_doubt: list[Callback] = []  # sent since the last look, not answered
        self.said: Counter[str] = Counter()
        self.problems: list[str] = []
        self._open: list[list[Callback]] = []
        self._sends: Counter[bytes] = Counter()
        self._recorded: set[bytes] = set()
        self._answered: set[bytes] = set()
        self._unanswered: dict[bytes, Callback] = {}
        self._last: Callback | None = None

    def next(self) -> Callback:
        """What is posted next: mostly new, sometimes what was posted before, answered or not."""
        chosen = self._again() if random.random() < REPEATED else None
        if chosen is None:
            chosen = self._new()
        self._sends[chosen.sha256] += 1
        self._last = chosen
        return chosen

    def _again(self) -> Callback | None:
        kind = random.randrange(3)
        if kind == 0:
            return self._last  # most likely still in flight
        earlier = list(self._unanswered.values()) if kind == 1 else self.acknowledged
        return random.choice(earlier) if earlier else None

    def _new(self) -> Callback:
        while len(self._open) < OPEN_TASKS:
            made = callbacks_of(random.randint(1, 4))
            self.sent[made[0].task] = {key for callback in made for key in callback.keys}
            self._open.append(made)
        place = random.randrange(OPEN_TASKS)
        chosen = self._open[place].pop()
        if not self._open[place]:
            del self._open[place]
        return chosen

    def note(self, callback: Callback, answer: Answer | None) -> None:
        """Keep what became of one request; None: no whole answer came."""
        if answer is None:
            self.said["unanswered"] += 1
            self._doubt(callback)
            return
        said = answer.said if answer.status == 200 else str(answer.status)
        self.said[said] += 1
        if answer.status != 200:
            if answer.status != 503 or "retry-after" not in answer.headers:
                self.problems.append(f"{callback.keys} was answered {answer.status}")
            self._doubt(callback)
            return
        if said == "recorded" and callback.sha256 in self._recorded:
            self.problems.append(f"{callback.keys} was recorded twice")
        if said == "duplicate" and self._sends[callback.sha256] == 1:
            self.problems.append(f"{callback.keys} was sent once and is called a duplicate")
        if said not in ("recorded", "duplicate"):
            self.problems.append(f"{callback.keys} was answered {said}")
        if said == "recorded":
            self._recorded.add(callback.sha256)
        unanswered = self._unanswered.pop(callback.sha256, None)
        if said == "duplicate" and unanswered is not None:
            self.said["duplicate: committed, killed before the answer"] += 1
        self._answered.add(callback.sha256)
        self.acknowledged.append(callback)
        self.fresh.append(callback)

    def _doubt(self, callback: Callback) -> None:
        # A 503 promises nothing either way: a failed fsync may have kept it.
        if callback.sha256 not in self._answered:
            self._unanswered[callback.sha256] = callback
            self.in_doubt.append(callback)

    def look(self, database: Path) -> list[str]:
        """Compare what came since the last look, and samples of what came before, with the file."""
        earlier = random.sample(self.acknowledged, min(SAMPLE, len(self.acknowledged)))
        wanted = [*self.fresh, *earlier]
        doubtful = [callback for callback in self.in_doubt if callback.sha256 not in self._answered]
        found = problems_of(database, wanted, in_doubt=doubtful, sent=self.sent)
        self.fresh, self.in_doubt = [], []
        return found


async def load(
    port: int,
    book: Book,
    more: int,
    within: float,
    on_sent: Callable[[int, Callback], None] = lambda *_: None,
) -> list[asyncio.Task[None]]:
    """Post over many connections; return when so many more are acknowledged, or after the seconds.

    The posting goes on until the receiver is dead; wait for the tasks then. The load is counted and
    not timed, so that a slow machine sees as much of it. `on_sent(own port, callback)` is called
    before each request.
    """
    enough, target = asyncio.Event(), len(book.acknowledged) + more

    def note(own_port: int, callback: Callback) -> None:
        on_sent(own_port, callback)
        if len(book.acknowledged) >= target:
            enough.set()

    tasks = [asyncio.create_task(_post_until_dead(port, book, note)) for _ in range(CONNECTIONS)]
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(enough.wait(), within)
    return tasks


async def _post_until_dead(port: int, book: Book, on_sent: Callable[[int, Callback], None]) -> None:
    try:
        line = await Line.open(port)
    except OSError:
        return
    answer: Answer | None = Answer(0, {}, b"")
    while answer is not None and answer.headers.get("connection") != "close":
        callback = book.next()
        on_sent(line.port, callback)
        answer = await line.ask(callback.request)
        book.note(callback, answer)
    line.close()
