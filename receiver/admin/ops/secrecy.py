"""Floor 3, flows: what of a thing is shown to whom. Pure.

Who may only read is shown no credential: header values of an endpoint, and the path and query of
its URL, which many chats have as their only secret. A project is not told which addresses are
behind the names that it gave: they may be those of the receiver's own network.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

from receiver.access import Scope
from receiver.admin.ops.asking import Principal
from receiver.deliveries import Delivery, Failure
from receiver.endpoints import Endpoint
from receiver.shown import REDACTED, without_addresses
from receiver.store.protocol import Page

_BLOCKED: Final = "This host can't be delivered to; ask whoever runs the receiver."


def endpoint_for(who: Principal, endpoint: Endpoint) -> Endpoint:
    """An endpoint as this principal may see it."""
    if who.scope is Scope.ADMIN:
        return endpoint
    headers = dict.fromkeys(endpoint.headers, REDACTED)
    return endpoint.model_copy(update={"url": origin_of(endpoint.url), "headers": headers})


def endpoints_for(who: Principal, page: Page[Endpoint]) -> Page[Endpoint]:
    """A page of them."""
    return replace(page, data=[endpoint_for(who, endpoint) for endpoint in page.data])


def origin_of(url: str) -> str:
    """A URL without what may be a credential in it."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    rest = parts.path.strip("/") or parts.query
    return f"{parts.scheme}://{host}/{REDACTED if rest else ''}"


def delivery_for(who: Principal, delivery: Delivery) -> Delivery:
    """A delivery as this principal may see it."""
    if who.project is None or delivery.attempt_log is None:
        return delivery
    log = [
        attempt.model_copy(update={"detail": _said(attempt.error, attempt.detail)})
        for attempt in delivery.attempt_log
    ]
    return delivery.model_copy(update={"attempt_log": log})


def _said(error: str | None, detail: str | None) -> str | None:
    if detail is None:
        return None
    # Even the kind of network would tell what is behind a name.
    return _BLOCKED if error == Failure.BLOCKED_ADDRESS else without_addresses(detail)
