"""Floor 5, assembly: what a shell is offered for an argument: ids of the receiver, words of ours.

A shell waits for it at a key press, so one question of a second at most is asked; who can't answer
is passed over in silence, since a line of text would stand in the middle of what is typed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from receiver.client import Client

PATIENCE: Final = 1.0  # seconds
OFFERED: Final = 50

Offers = list[tuple[str, str]]
Completer = Callable[[str], Offers]


def ids_of(kind: str, *beside: str) -> Completer:
    """The newest ids of a list of the API, such as `tasks`; `beside` them stand these fields."""

    def offer(incomplete: str) -> Offers:
        import asyncio

        return [one for one in asyncio.run(_ids(kind, beside)) if one[0].startswith(incomplete)]

    return offer


async def _ids(kind: str, beside: tuple[str, ...]) -> Offers:
    import asyncio

    from receiver.client import Client
    from receiver.errors import ReelhookError
    from receiver.settings import Settings, address_of

    try:
        async with asyncio.timeout(PATIENCE), Client(*address_of(Settings.read(os.environ))) as api:
            return await _newest(api, kind, beside)
    except (ReelhookError, TimeoutError, OSError):
        return []


async def _newest(client: Client, kind: str, beside: tuple[str, ...]) -> Offers:
    page: Any = await getattr(client, kind)(limit=OFFERED)
    rows = [(row.id, [getattr(row, name) for name in beside]) for row in page.data]
    return [(found, " ".join(str(text) for text in texts if text)) for found, texts in rows]


def words_of(module: str, name: str) -> Completer:
    """The words of an enumeration, or of a list of texts, of ours."""

    def offer(incomplete: str) -> Offers:
        from importlib import import_module

        words = [str(word) for word in getattr(import_module(module), name)]
        return [(word, "") for word in words if word.startswith(incomplete)]

    return offer


task_ids = ids_of("tasks", "status", "model")
callback_ids = ids_of("callbacks", "outcome")
event_ids = ids_of("events", "type")
endpoint_ids = ids_of("endpoints", "url")
delivery_ids = ids_of("deliveries", "state", "event_type")
token_ids = ids_of("api_tokens", "name", "scope")
job_ids = ids_of("jobs", "state", "kind")

statuses = words_of("receiver.tasks", "Status")
outcomes = words_of("receiver.callbacks", "Outcome")
scopes = words_of("receiver.access", "Scope")
actions = words_of("receiver.access", "Action")
failures = words_of("receiver.deliveries", "Failure")
states = words_of("receiver.deliveries", "State")
platforms = words_of("receiver.platforms", "PLATFORMS")
event_types = words_of("receiver.events", "TYPES")
