"""Floor 2, edges: what the clients of all platforms share: what was sent, and when to send again.

What may have been accepted is never sent again here: only what never left, and what the platform
itself refuses for now.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpx
import stamina

from receiver.client import redact
from submitter.errors import AmbiguousSubmit, PlatformUnavailable

TIMEOUT: Final = httpx.Timeout(30.0, connect=10.0)
ATTEMPTS: Final = 3
LONGEST_WAIT: Final = 30.0  # seconds that a Retry-After may ask for before we give up instead

SHORTEST_SECRET: Final = 8  # characters; the platforms' keys have 32 and more

MOST_PORT: Final = 65_535

UNAUTHORIZED: Final = 401
FORBIDDEN: Final = 403
TOO_MANY: Final = 429
SERVER: Final = 500
UNAVAILABLE: Final = 503

# Not one byte of a request has reached the platform.
NOT_SENT: Final = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)


@dataclass(slots=True)
class TryLater(Exception):
    """A failure after which sending again can't bill twice."""

    reason: str
    status: int | None = None
    after: float | None = None
    args: tuple[Any, ...] = field(default=(), init=False)

    def of(self, platform: str, task_id: str) -> PlatformUnavailable:
        """The same about one task, for whoever tries again later."""
        return PlatformUnavailable(
            platform=platform,
            task_id=task_id,
            reason=self.reason,
            http_status=self.status,
            retry_after_s=self.after,
        )


async def attempts() -> AsyncIterator[AbstractContextManager[Any]]:
    """Tries of one submit, with growing pauses and jitter; only TryLater leads to another."""
    async for attempt in stamina.retry_context(
        on=_wait_before, attempts=ATTEMPTS, timeout=None, wait_initial=1.0, wait_max=10.0
    ):
        yield attempt


def _wait_before(error: Exception) -> bool | float:
    if not isinstance(error, TryLater):
        return False
    if error.after is None:
        return True
    return error.after if error.after <= LONGEST_WAIT else False


def not_sent(error: httpx.RequestError) -> TryLater:
    """What to raise for one of NOT_SENT."""
    return TryLater(f"no connection ({type(error).__name__})")


def lost(platform: str, task_id: str, error: httpx.RequestError) -> AmbiguousSubmit:
    """The outcome of a request that was sent, and whose answer never came."""
    reason = f"{type(error).__name__} after the request was sent"
    return AmbiguousSubmit(platform=platform, task_id=task_id, reason=reason)


def retry_after(response: httpx.Response) -> float | None:
    """The seconds of a Retry-After header, which may be a date (RFC 9110 §10.2.3).

    A date is compared with the platform's own clock where it shows it.
    """
    text = response.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    until = _date(text)
    if until is None:
        return None
    now = _date(response.headers.get("date", "")) or datetime.now(UTC)
    return max((until - now).total_seconds(), 0.0)


def _date(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
    except ValueError:
        return None
    return found if found.tzinfo else None  # an HTTP date ends with GMT


def object_of(response: httpx.Response, key: str) -> dict[str, Any] | None:
    """The JSON object of an answer, without our secrets; None where it is none."""
    try:
        # A platform may quote our key and our URL back at us; what is passed on must not.
        text = response.text.replace(key, "…") if _is_secret(key) else response.text
        body = json.loads(redact(text))
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def bytes_of(response: httpx.Response, key: str) -> bytes:
    """The bytes of an answer as they came, but for our key."""
    content = response.content
    return content.replace(key.encode(), "…".encode()) if _is_secret(key) else content


def _is_secret(key: str) -> bool:
    # `x` is what one types for a simulator, and striking it out would leave no answer readable.
    return len(key) >= SHORTEST_SECRET


def is_url(text: str) -> bool:
    """Whether requests can be sent to it."""
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        return False
    return url.scheme in ("http", "https") and bool(url.host) and (url.port or 0) <= MOST_PORT


def is_local(base_url: str) -> bool:
    """Whether a URL leads to this machine."""
    return httpx.URL(base_url).host in ("127.0.0.1", "localhost", "::1")
