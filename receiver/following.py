"""Floor 2, edges: the feed of a receiver over HTTP: a stream, or long polls. httpx only."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import httpx

from receiver.calling import TIMEOUT, Caller
from receiver.heard import Heard, Message, Messages, page_of

SILENCE: Final = 45.0  # seconds; a sign of life comes every 15


@dataclass(frozen=True, slots=True)
class Asked:
    """What of the feed is asked for: types as patterns, filters as endpoints have them."""

    event_types: Sequence[str] = ()
    filters: Mapping[str, Sequence[str]] = field(default_factory=dict)
    project: str | None = None

    @property
    def parameters(self) -> list[tuple[str, str]]:
        """The same as a query."""
        found = [("event_type", pattern) for pattern in self.event_types]
        for name, values in self.filters.items():
            found += [("filter", f"{name}={value}") for value in values]
        return found if self.project is None else [*found, ("project", self.project)]


EVERYTHING: Final = Asked()


class Follower(Caller):
    """The part of the client that hears what happens."""

    async def stream_events(
        self, asked: Asked = EVERYTHING, *, after: str | None = None
    ) -> AsyncGenerator[Message]:
        """What happens behind a place (None: from now on), as it happens, resent events too.

        Each message says where to go on; the first one, and signs of life, say nothing else. It
        ends when the receiver ends it. Raises Unreachable when it breaks off or falls silent.
        """
        headers = {"accept": "text/event-stream"}
        if after is not None:
            headers["last-event-id"] = after
        timeout = httpx.Timeout(TIMEOUT, read=SILENCE)
        messages = Messages()
        async with self._streaming(
            "GET",
            "/v1/events/stream",
            params=asked.parameters,
            headers=headers,
            timeout=timeout,
        ) as pieces:
            async for piece in pieces:
                for message in messages.take(piece):
                    yield message

    async def wait_events(
        self, asked: Asked = EVERYTHING, *, after: str | None = None, wait: float = 25
    ) -> tuple[list[Heard], str]:
        """What happened behind a place (None: from now on) as soon as there is something, or
        nothing after `wait` seconds; and the place to ask on with."""
        params = [*asked.parameters, ("wait", str(wait))]
        if after is not None:
            params.append(("cursor", after))
        response = await self._ask(
            "GET", "/v1/events/stream", params=params, timeout=TIMEOUT + wait
        )
        return page_of(response.content)
