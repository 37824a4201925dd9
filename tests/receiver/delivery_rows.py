"""Deliveries, attempts and endpoints as a store has them, and as their model does, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from receiver import ids
from receiver.clock import from_datetime
from receiver.endpoints import Endpoint
from tests.receiver.delivery_model import Model


def stored(
    sql: Callable[..., list[Any]], endpoints: Sequence[Endpoint], now: int
) -> dict[str, Any]:
    """What is kept, by the words of the model. `endpoints` as the API shows them."""
    names = {number: name_in(url) for number, url in sql("SELECT id, url FROM endpoints")}
    deliveries: dict[Any, Any] = {}
    for event, endpoint, *row in sql(
        "SELECT event_id, endpoint_id, state, attempts, next_attempt_at, last_error,"
        " settled_at IS NOT NULL FROM deliveries"
    ):
        key = ids.EVENT + ids.encode(event), names[endpoint]
        deliveries[key] = {"is": tuple(row), "log": {}}
    for event, endpoint, number, *row in sql(
        "SELECT event_id, endpoint_id, number, at, status, error FROM attempts"
    ):
        key = ids.EVENT + ids.encode(event), names[endpoint]
        deliveries[key]["log"][number] = tuple(row)
    shown = {name_in(one.url): _shown(one, now) for one in endpoints}
    return {"deliveries": deliveries, "endpoints": shown}


def name_in(url: str) -> str:
    """The endpoint's name in its URL."""
    return url.split("/")[3]


def _shown(one: Endpoint, now: int) -> tuple[Any, ...]:
    health = one.health
    since, held = (
        moment and from_datetime(moment) for moment in (health.failing_since, health.held_until)
    )
    return (
        one.url,
        str(one.state),
        one.reason,
        str(health.breaker),
        health.consecutive_failures,
        since,
        health.concurrency,
        held if held and held > now else None,
    )


def expected_of(model: Model, now: int) -> dict[str, Any]:
    """The model as `_stored` gives it."""
    settled = ("succeeded", "dead", "canceled")
    deliveries = {
        one.key: {
            "is": (one.state, one.attempts, one.next_at, one.last_error, int(one.state in settled)),
            "log": one.log,
        }
        for one in model.deliveries
    }
    endpoints = {
        one.name: (
            one.url,
            one.state,
            one.reason,
            one.breaker,
            one.failures,
            one.failing_since,
            one.at_once if one.at_once < one.concurrency else None,
            one.held_until if one.held_until > now else None,
        )
        for one in model.alive
    }
    return {"deliveries": deliveries, "endpoints": endpoints}
