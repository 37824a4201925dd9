"""Floor 2, edges: a sample consumer of deliveries, of its own mind: it imports nothing of ours.

It checks signatures with the stdlib as Standard Webhooks 1.0 says, counts by webhook-id, and tells
at GET /seen what it saw. `python -m submitter.consumer --port 0` runs it; its secret comes by
POST /secret, so that no process list shows it.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import hmac
import json
import re
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

TOLERANCE = 300  # seconds


@dataclass
class Seen:
    """What came: each event once, how often its id came, and what was refused."""

    secret: bytes = field(default=b"", repr=False)
    events: dict[str, Any] = field(default_factory=dict)
    times: dict[str, int] = field(default_factory=dict)
    refused: int = 0


def verified(secret: bytes, headers: Any, body: bytes, now: float) -> bool:
    """Whether one of the signatures is ours and the delivery is fresh."""
    event, moment = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not secret or re.fullmatch("[0-9]{1,15}", moment) is None:
        return False
    if abs(now - int(moment)) > TOLERANCE:
        return False
    signed = hmac.digest(secret, f"{event}.{moment}.".encode() + body, hashlib.sha256)
    wanted = b"v1," + base64.b64encode(signed)
    given = headers.get("webhook-signature", "").encode().split(b" ")
    return any(hmac.compare_digest(wanted, one) for one in given)


def build(seen: Seen, answers: Sequence[int] = ()) -> Starlette:
    """The consumer's routes. `answers`: what each try of an event gets, the last for ever."""

    async def take_secret(request: Request) -> Response:
        text = (await request.json())["secret"]
        seen.secret = base64.b64decode(text.removeprefix("whsec_"))
        return Response(status_code=204)

    async def hook(request: Request) -> Response:
        body, event = await request.body(), request.headers.get("webhook-id", "")
        if not verified(seen.secret, request.headers, body, time.time()):
            seen.refused += 1
            return Response(status_code=400)
        payload = json.loads(body)
        seen.times[event] = seen.times.get(event, 0) + 1
        seen.events.setdefault(event, payload)
        task = payload["data"].get("task", {}).get("id", "")
        _print({"event": "delivery", "type": payload["type"], "task": task})
        tries = min(seen.times[event], len(answers))
        return Response(status_code=answers[tries - 1] if answers else 204)

    async def show(_request: Request) -> Response:
        types = {event: payload["type"] for event, payload in seen.events.items()}
        return JSONResponse({"events": types, "times": seen.times, "refused": seen.refused})

    return Starlette(
        routes=[
            Route("/hooks", hook, methods=["POST"]),
            Route("/secret", take_secret, methods=["POST"]),
            Route("/seen", show),
        ]
    )


def _print(line: dict[str, str]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


async def serve(port: int, answers: Sequence[int] = ()) -> None:
    """Serve on loopback until a signal; says when it is ready."""
    listening = socket.create_server(("127.0.0.1", port))
    config = uvicorn.Config(
        build(Seen(), answers), log_config=None, access_log=False, timeout_graceful_shutdown=2
    )
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    _print({"event": "ready", "url": url})
    await uvicorn.Server(config).serve([listening])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m submitter.consumer", description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--answers", default="", help="statuses, try by try: 503,204")
    given = parser.parse_args()
    asyncio.run(serve(given.port, [int(word) for word in given.answers.split(",") if word]))
