"""Floor 2, edges: the receiver's public door, as anybody reaches it. httpx only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import httpx

TIMEOUT: Final = 10.0  # seconds
_JSON: Final = {"content-type": "application/json"}


async def post(webhook_url: str, body: Mapping[str, Any] | bytes) -> int:
    """Post what is known of a task to its own URL; the HTTP status. Raises OSError."""
    async with httpx.AsyncClient(trust_env=False, timeout=TIMEOUT) as http:
        try:
            if isinstance(body, bytes):  # as it came
                response = await http.post(webhook_url, content=body, headers=_JSON)
            else:
                response = await http.post(webhook_url, json=body)
            return response.status_code
        except httpx.RequestError as error:
            # The URL carries the token, so the cause is not passed on.
            raise OSError(type(error).__name__) from None


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
