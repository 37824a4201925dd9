"""Floor 3, flows: whoever waits for a change hears of it with the commit that makes it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Set
from contextlib import contextmanager
from typing import Final

MAX_WAIT: Final = 30.0  # seconds of a long poll; proxies cut longer ones
_DELIVERIES: Final = ""  # no task has that id
ANYTHING: Final = "*"  # nor this one


class Watch:
    """Lets long polls wait for a task's next change, or for one of any delivery."""

    def __init__(self) -> None:
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._seen: dict[asyncio.Event, tuple[str, int]] = {}
        self.is_over = False

    def hear(self, tasks: set[str], work: bool) -> None:
        """Wake whoever waits for one of these tasks, or for work that was done or came."""
        if not (self._waiting and (tasks or work)):
            return
        for key in (ANYTHING, *tasks, _DELIVERIES) if work else (ANYTHING, *tasks):
            for event in self._waiting.get(key, ()):
                event.set()

    def saw(self, event: asyncio.Event, task_id: str, revision: int) -> None:
        """Who waits for this event has seen the task, and waits for another revision of it."""
        self._seen[event] = (task_id, revision)

    def seen(self) -> Set[tuple[str, int]]:
        """The tasks that somebody waits for, each as it was seen."""
        return set(self._seen.values())

    def wake_all(self) -> None:
        """Wake everybody: the receiver is about to stop."""
        self.is_over = True
        for events in self._waiting.values():
            for event in events:
                event.set()

    @contextmanager
    def listening(self, task_id: str = _DELIVERIES) -> Iterator[asyncio.Event]:
        """An event that is set at the next change of the task, of ANYTHING, or of deliveries.

        Look at what is waited for after entering. Once everybody was woken it is set at once.
        """
        event = asyncio.Event()
        if self.is_over:
            event.set()
        self._waiting[task_id].add(event)
        try:
            yield event
        finally:
            self._seen.pop(event, None)
            self._waiting[task_id].discard(event)
            if not self._waiting[task_id]:
                del self._waiting[task_id]
