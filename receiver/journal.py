"""Floor 5, assembly: the one canonical line of each request that is no callback. Pure ASGI.

A callback's own line is written by ingest, which knows what became of it. What a connection refuses
is no request and has no line of its own, only a count: strangers could fill the log with it.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from receiver import ids
from receiver.admin.auth import PRINCIPAL
from receiver.errors import NotFound
from receiver.ingest import remote_of
from receiver.log import Log
from receiver.problems import MEDIA_TYPE, problem
from receiver.problems import REQUEST_ID as ID

REQUEST_ID: Final = b"x-request-id"
PROBES: Final = frozenset({"/healthz", "/readyz"})
CLAIM: Final = "/v1/tasks/claim"  # what each reconciler asks for every platform, second by second

# What a proxy in front may call a request: it stands in our log and in our answer as it came, so
# it is short, and too short for a token.
_SANE: Final = re.compile(rb"[A-Za-z0-9._:-]{1,64}")


def new_id() -> str:
    """128 random bits. Names must differ and need not be secret: whoever asks the system for them
    lets go of the interpreter's lock, and at the door waits half a millisecond to have it back."""
    return f"{random.getrandbits(128):032x}"


class Journaled:
    """Writes a line for each request of `app`, and answers 500 when `app` fails."""

    def __init__(
        self,
        app: ASGIApp,
        log: Log,
        *,
        new_id: Callable[[], str] = new_id,
        seconds: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._app = app
        self._log = log
        self._new_id = new_id
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on. Its id is the proxy's, or a new one, and stands in the answer."""
        answer = Answering(send, named(scope, self._new_id))
        scope[ID] = answer.request_id
        started = self._seconds()
        try:
            await self._app(scope, receive, answer.send)
        except ClientDisconnect:
            answer.status, write = 0, self._log.info  # nobody was there to be answered
        except asyncio.CancelledError:  # a stop waits no longer, and the connection says so
            answer.status = answer.status or 503
            self._log.info("request", **_line(scope, answer, self._seconds() - started))
            raise
        except Exception as error:  # a defect of ours, whatever it is: it has its line too
            if not answer.status:
                await internal_error(scope, receive, answer.send)
            write = partial(self._log.error, exc_info=error)
        else:
            quiet = scope["path"] in PROBES or (scope["path"] == CLAIM and answer.status == 200)
            write = self._log.debug if quiet else self._log.info
        write("request", **_line(scope, answer, self._seconds() - started))


@dataclass(slots=True)
class Answering:
    """What goes back; `status` is 0 until it begins."""

    forward: Send
    request_id: str
    status: int = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            given = (REQUEST_ID, self.request_id.encode())
            message = {**message, "headers": [*message.get("headers", ()), given]}
        await self.forward(message)


def named(scope: Scope, new_id: Callable[[], str] = new_id) -> str:
    """What a request is called: as the proxy calls it, if that is sane, or anew."""
    given = [value for name, value in scope["headers"] if name == REQUEST_ID]
    return given[0].decode() if len(given) == 1 and _SANE.fullmatch(given[0]) else new_id()


def _line(scope: Scope, answer: Answering, seconds: float) -> dict[str, Any]:
    # The route and never the path: what stands in a path is the stranger's.
    return {
        "method": scope["method"],
        "route": getattr(scope.get("route"), "path", None),
        "status": answer.status,
        "duration_ms": round(seconds * 1000, 1),
        "request_id": answer.request_id,
        "principal": scope.get(PRINCIPAL),
        "remote": remote_of(scope),
        **_about(scope),
    }


# What a route is about, by the word before its id, and what such an id begins with.
_KINDS: Final = {
    "deliveries": ("delivery", ids.DELIVERY),
    "endpoints": ("endpoint", ids.ENDPOINT),
    "events": ("event_id", ids.EVENT),
    "callbacks": ("callback", ids.CALLBACK),
    "jobs": ("job", ids.JOB),
    "api-tokens": ("api_token", ids.API_TOKEN),
}


def _about(scope: Scope) -> dict[str, str]:
    """Whom a request was about: an id that is one, of a caller that is known."""
    before, found, _ = getattr(scope.get("route"), "path", "").partition("/{id}")
    if not found or scope.get(PRINCIPAL) is None:
        return {}
    kind, text = before.rpartition("/")[2], scope["path_params"]["id"]
    try:
        if kind == "tasks":
            return {"task": ids.canonical_task(text)}
        name, prefix = _KINDS[kind]
        ids.parse_delivery(text) if kind == "deliveries" else ids.parse(prefix, text)
    except (KeyError, NotFound, ValueError):
        return {}
    return {name: text}


async def internal_error(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer 500; what follows on the connection may be an unread body, so it ends."""
    named = {"request_id": scope[ID]} if ID in scope else {}
    body = problem(500, "internal", "That was our fault; it is in the log.", **named)
    headers = {"connection": "close"}
    await Response(body, 500, headers, media_type=MEDIA_TYPE)(scope, receive, send)
