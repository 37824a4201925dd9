"""Floor 2, edges: what answers at a URL, as anybody would see it. httpx only."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpx

PATIENCE: Final = 5.0  # seconds for the whole answer
MOST: Final = 64 << 10  # bytes of it


@dataclass(frozen=True, slots=True)
class Seen:
    """What a probe brought. `fault`: why there is no answer; `ahead_s`: our clock against its
    `Date`; `reason`: why it is not ready."""

    url: str
    fault: str | None = None
    status: int | None = None
    instance: str | None = None
    moved_to: str | None = None
    ahead_s: float | None = None
    reason: str | None = None

    @property
    def is_receiver(self) -> bool:
        """Whether one of ours answers there."""
        return self.instance is not None


async def look(
    url: str, path: str = "/healthz", *, transport: httpx.AsyncBaseTransport | None = None
) -> Seen:
    """What answers at a receiver's base URL. Never raises; redirects are not followed, as no
    platform follows them."""
    try:
        async with (
            asyncio.timeout(PATIENCE),
            httpx.AsyncClient(transport=transport, trust_env=False, timeout=PATIENCE) as http,
        ):
            asked = time.time()
            answer = await http.get(url.rstrip("/") + path)
            between = (asked + time.time()) / 2
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError, ValueError) as error:
        return Seen(url, fault=str(error) or type(error).__name__)
    said = _said(answer)
    return Seen(
        url,
        status=answer.status_code,
        instance=said.get("instance") if answer.status_code == 200 else None,
        reason=said.get("reason"),
        moved_to=answer.headers.get("location") if answer.is_redirect else None,
        ahead_s=_ahead(answer.headers.get("date", ""), between),
    )


def _said(answer: httpx.Response) -> dict[str, str]:
    try:
        found: Any = answer.json() if len(answer.content) < MOST else {}
    except (ValueError, RecursionError):
        found = {}
    texts = found.items() if isinstance(found, dict) else ()
    return {name: text for name, text in texts if isinstance(text, str)}


def _ahead(date: str, now: float) -> float | None:
    # RFC 9110 §6.6.1: who has a clock says what it shows, in whole seconds.
    try:
        theirs = parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return now - (theirs + 0.5)
