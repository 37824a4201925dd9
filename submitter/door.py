"""Floor 2, edges: the receiver's public door, as anybody reaches it. httpx only."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

import httpx

TIMEOUT: Final = 10.0  # seconds for the whole answer
_JSON: Final = {"content-type": "application/json"}


class Door:
    """Connections to the door, for who posts often. Use as an async context manager."""

    def __init__(self) -> None:
        # No client: it tells the log the whole URL, token included.
        self._connections = httpx.AsyncHTTPTransport(trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._connections.aclose()

    async def post(self, webhook_url: str, body: Mapping[str, Any] | bytes) -> int:
        """Post what is known of a task to its own URL; the HTTP status. Raises OSError."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()  # as it came
        asked = httpx.Request("POST", webhook_url, content=content, headers=_JSON)
        try:
            async with asyncio.timeout(TIMEOUT):
                response = await self._connections.handle_async_request(asked)
                await response.aread()
                return response.status_code
        except httpx.RequestError as error:
            # The URL carries the token, so the cause is not passed on.
            raise OSError(type(error).__name__) from None
        except TimeoutError:
            raise OSError(f"no answer within {TIMEOUT:g} s") from None


async def post(webhook_url: str, body: Mapping[str, Any] | bytes) -> int:
    """Post once. Raises OSError."""
    async with Door() as door:
        return await door.post(webhook_url, body)


async def instance_at(base_url: str) -> str:
    """Which receiver answers at a base URL, through the proxies of the environment.

    Raises OSError when none does.
    """
    async with httpx.AsyncClient(timeout=TIMEOUT) as http:
        try:
            found = (await http.get(f"{base_url}healthz")).json()
            return str(found["instance"])
        except (httpx.RequestError, ValueError, KeyError, TypeError) as error:
            raise OSError(type(error).__name__) from None


def base_of(webhook_url: str) -> str:
    """The public URL that a webhookURL was minted from, with a slash at its end."""
    return webhook_url.partition("?")[0].rpartition("/webhooks/")[0] + "/"
