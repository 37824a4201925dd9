"""A receiver's past: one of everything that the API shows, made over HTTP alone."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx

from receiver.events import TYPES
from tests.doubles import LIMIT_S
from tests.make import failure, success, uuid


@dataclass(frozen=True)
class Past:
    """What there is by now: ids by the kind of path that they stand in, and every event."""

    ids: Mapping[str, Sequence[str]]
    events: Sequence[dict[str, Any]]
    door: Mapping[str, str]  # the query of a signed webhookURL that is still open


def lived(api: httpx.Client, consumer: str) -> Past:
    """Let everything happen once. `consumer` answers as its path says: /204, /500, /410."""
    for path in ("/204", "/500", "/410"):
        spec = {"url": f"{consumer}{path}", "schedule": [0], "description": path}
        took(api.post("/v1/endpoints", json={**spec, "event_types": ["result.*", "task.*"]}))
    types = ["endpoint.*", "delivery.*"]
    made = api.post("/v1/endpoints", json={"url": f"{consumer}/204", "event_types": types})
    watching = took(made)["id"]
    door = _tasks(api)
    took(api.post(f"/v1/endpoints/{watching}/test", params={"wait": "25"}))
    took(api.post("/v1/deliveries/retry", json={"state": "dead", "dry_run": False}))
    took(api.post(f"/v1/endpoints/{watching}/pause"))
    return Past(_ids(api), _events(api), dict(parse_qsl(urlsplit(door).query)))


def took(response: httpx.Response) -> dict[str, Any]:
    """What a request that has to succeed was answered."""
    assert response.is_success, response.text
    found: dict[str, Any] = response.json()
    return found


def _tasks(api: httpx.Client) -> str:
    done, late, overdue = uuid(1), uuid(2), uuid(3)
    model, past = "pixverse:1@6", datetime.now(UTC) - timedelta(hours=1)
    spec = {"platform": "runware", "model": model, "tags": {"team": "film"}, "request": {"ttl": 60}}
    url = _door(api, done, {**spec, "expected": 2, "metadata": {"shot": [1, None]}})
    for body in (success(1, done), failure(task=done), success(1, done), success(1, done, seed=7)):
        took(api.post(url, json={"data": [body]}))
    took(api.post(url, content=b"not json"))
    url = _door(api, late, {**spec, "give_up_at": past.isoformat()})
    _until(api, "/v1/tasks/" + late, lambda task: bool(task["failed"]))
    took(api.post(url, json={"data": [success(2, late)]}))
    return _door(api, overdue, {**spec, "deadline_at": past.isoformat(), "project": "film"})


def _door(api: httpx.Client, task: str, spec: Mapping[str, Any]) -> str:
    url: str = took(api.put(f"/v1/tasks/{task}", json=spec))["webhook_url"]
    return urlsplit(url)._replace(scheme="", netloc="").geturl()


def _until(api: httpx.Client, path: str, is_so: Any) -> dict[str, Any]:
    ends = time.monotonic() + LIMIT_S
    while not is_so(found := took(api.get(path, params={"wait": "1"} if "tasks/" in path else {}))):
        assert time.monotonic() < ends, found
    return found


def _events(api: httpx.Client) -> Sequence[dict[str, Any]]:
    def has_all(page: dict[str, Any]) -> bool:
        return {event["type"] for event in page["data"]} == {*TYPES}

    page = _until(api, "/v1/events?limit=200", has_all)
    return [took(api.get(f"/v1/events/{event['id']}")) for event in page["data"]]


def _ids(api: httpx.Client) -> Mapping[str, Sequence[str]]:
    kinds = ("tasks", "callbacks", "endpoints", "events", "deliveries", "jobs")
    lists = {kind: took(api.get(f"/v1/{kind}"))["data"] for kind in kinds}
    assert all(lists.values()), lists
    return {kind: [one["id"] for one in found] for kind, found in lists.items()}
