"""Floor 4, doors: what goes on, as it happens: `text/event-stream`, and long polls.

Ours, since sse-starlette patches uvicorn's signal handling when it is imported. A stream ends when
the client goes, when the receiver stops, after an hour, and when the token or the session that it
was asked with is no more: nothing is told behind that, and the last message says so. None of these
loses anything, since browsers and clients come back with the last id.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from datetime import datetime
from functools import partial
from typing import Any, Final

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from receiver.access import READERS
from receiver.admin.ops import Ops, Principal
from receiver.admin.ops.broadcast import Watcher
from receiver.admin.routes.parameters import QUERY
from receiver.admin.routes.requests import parameter_of
from receiver.admin.routes.rows import Row
from receiver.errors import StoreUnavailable, Unauthenticated
from receiver.events import Event
from receiver.feed import Place, Told, Wanted
from receiver.problems import problem

EVENT_STREAM: Final = "text/event-stream"
HEARTBEAT: Final = 15.0  # seconds; proxies cut what is silent for 55 s (Heroku) to 100 (Cloudflare)
RETRY: Final = 2_000  # milliseconds until a browser comes back
LIFE: Final = 3_600.0  # seconds
LAST_ID: Final = "last-event-id"

IsStill = Callable[[], Awaitable[bool]]

# The last message of whoever may be told no more: for a program, the same as it would be answered.
_WHY: Final = "The token or the session of this stream is no more."
GONE: Final = b"event: problem\ndata: %b\n\n" % problem(401, Unauthenticated.code, _WHY)

# Proxies must neither keep nor hold back what they pass on.
HEADERS: Final[Mapping[str, str]] = {
    "cache-control": "no-store, no-transform",
    "x-accel-buffering": "no",
    "x-content-type-options": "nosniff",
}


async def streamed(request: Request, messages: AsyncGenerator[bytes]) -> Response:
    """An answer of messages, such as `at` makes them; it ends with them, and they with it.

    Raises what the first of them raises, before anything is answered.
    """
    if request.method == "HEAD":
        return Response(headers=HEADERS, media_type=EVENT_STREAM)
    return _Stream(await anext(messages), messages)


class _Stream(StreamingResponse):
    """Closes what it streams, also when the client is gone."""

    def __init__(self, first: bytes, messages: AsyncGenerator[bytes]) -> None:
        self._messages = messages
        super().__init__(self._all(first), headers=HEADERS, media_type=EVENT_STREAM)

    async def _all(self, first: bytes) -> AsyncGenerator[bytes]:
        yield first
        async for message in self._messages:
            yield message

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._messages):
            await super().__call__(scope, receive, send)


def at(place: Place) -> bytes:
    """A message that nobody sees: it says where to go on (WHATWG HTML §9.2.6, an empty data
    buffer), and keeps proxies from taking the silence for an end."""
    return f"id: {place}\n\n".encode()


async def feed_of(watcher: Watcher, wanted: Wanted, is_still: IsStill) -> AsyncGenerator[bytes]:
    """The messages of a watcher: what it wants of the feed, and a sign of life now and then.

    `is_still`: whether it may be told so; it is asked before each word. Raises StoreUnavailable at
    the first of them; later it ends instead.
    """
    yield f"retry: {RETRY}\n".encode() + at(await watcher.place())
    with suppress(StoreUnavailable):  # whoever comes back is told why, or goes on
        async for message in _following(watcher, wanted, is_still):
            yield message


async def _following(watcher: Watcher, wanted: Wanted, is_still: IsStill) -> AsyncGenerator[bytes]:
    time = asyncio.get_running_loop().time
    now = spoke = begun = time()
    while not watcher.is_over and now < begun + LIFE:
        found = await watcher.next(max(spoke + HEARTBEAT - now, 0))
        now, shown = time(), [one for one in found if wanted.lets(one)]
        if not shown and now < spoke + HEARTBEAT:
            continue
        if not await is_still():
            yield GONE
            return
        yield b"".join(one.message for one in shown) or at(await watcher.place())
        spoke = now


class ToldAgain(Event):
    """An event at its place in the stream; with `resent_at`, it is there once more."""

    payload: Any
    resent_at: datetime | None
    cursor: str


class ListedTold(BaseModel):
    """What a long poll found, the oldest first; `next_cursor` is where the next one goes on."""

    data: list[ToldAgain]
    next_cursor: str


class StreamRoutes:
    """`GET /v1/events/stream`."""

    def __init__(self, ops: Ops) -> None:
        self._ops = ops

    def table(self) -> Sequence[Row]:
        """The route."""
        return (
            Row(
                "GET",
                "/v1/events/stream",
                self._stream,
                READERS,
                "Events as they happen, those that are sent again too",
                query="event_type filter project cursor wait",
                headers=LAST_ID,
                answers={200: (EVENT_STREAM, ListedTold)},
            ),
        )

    async def _stream(self, who: Principal, request: Request) -> Response:
        wanted = self._ops.wanted(who, *_asked(request))
        if "wait" in request.query_params:
            seconds = parameter_of(request, "wait")
            return _listed(*await self._ops.wait_events(wanted, _after(request), seconds))
        is_still = partial(self._ops.is_still, who)
        return await streamed(request, self._messages(wanted, _after(request), is_still))

    async def _messages(
        self, wanted: Wanted, after: Place | None, is_still: IsStill
    ) -> AsyncGenerator[bytes]:
        with self._ops.feed.watching(after) as watcher:
            async with aclosing(feed_of(watcher, wanted, is_still)) as messages:
                async for message in messages:
                    yield message


def _after(request: Request) -> Place | None:
    # A browser that comes back sends the header, with the query of its first request.
    given = request.headers.get(LAST_ID) or request.query_params.get("cursor")
    return Place.read(given) if given else None


def _asked(request: Request) -> tuple[list[str], dict[str, list[str]], str | None]:
    """Patterns of types, filters as endpoints have them, and a project."""
    query = request.query_params
    types = [part for text in query.getlist("event_type") for part in text.split(",") if part]
    filters: dict[str, list[str]] = {}
    for text in query.getlist("filter"):
        name, value = QUERY["filter"].read(text, "filter")
        filters.setdefault(name, []).append(value)
    return types or ["*"], filters, parameter_of(request, "project")


def _listed(found: Sequence[Told], place: Place) -> Response:
    items = b",".join(one.json for one in found)
    body = b'{"data":[%b],"next_cursor":"%b"}' % (items, str(place).encode())
    return Response(body, headers={"cache-control": "no-store"}, media_type="application/json")
