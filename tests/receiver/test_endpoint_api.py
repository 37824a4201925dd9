"""Secrets, signatures and previews of endpoints, by the API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from receiver import ids
from receiver.clock import HOUR, to_datetime
from receiver.delivery.signing import new_secret, own_secret, public_key
from receiver.store.protocol import Claimed, Query
from tests.doubles import START, Assembled, assembled
from tests.make import failure, success, uuid
from tests.receiver.store.suite import arrival_of, claim

URL = "https://example.com/hook"
MINE = new_secret(bytes(range(32)))

pytestmark = pytest.mark.anyio


@pytest.fixture
async def receiver(tmp_path: Path) -> AsyncIterator[Assembled]:
    async with assembled(tmp_path) as found:
        yield found


@pytest.fixture
def api(receiver: Assembled) -> httpx.AsyncClient:
    return receiver.client


async def added(api: httpx.AsyncClient, **spec: Any) -> dict[str, Any]:
    response = await api.post("/v1/endpoints", json={"url": URL, **spec})
    assert response.status_code == 201
    found: dict[str, Any] = response.json()
    return found


async def rotated(api: httpx.AsyncClient, made: dict[str, Any], **asked: Any) -> dict[str, Any]:
    response = await api.post(f"/v1/endpoints/{made['id']}/rotate-secret", json=asked)
    assert response.status_code == 200
    found: dict[str, Any] = response.json()
    return found


def problem(response: httpx.Response) -> tuple[int, str, str | None]:
    assert response.headers["content-type"] == "application/problem+json"
    found = response.json()
    return response.status_code, found["code"], found.get("parameter")


async def next_sent(receiver: Assembled, number: int) -> Claimed:
    """What the next delivery is signed with, at this moment."""
    await receiver.store.record(arrival_of(uuid(number), success(number), expected=2))
    claimed = await claim(receiver.store, receiver.clock())
    return claimed[-1]


# Rotation


async def test_a_new_secret_is_shown_once_and_signs_beside_the_old_one_for_a_day(
    receiver: Assembled, api: httpx.AsyncClient
) -> None:
    made = await added(api, event_types=["result.*"])
    new = await rotated(api, made)
    assert new["secret"] != made["secret"]
    assert new["overlap_until"] == to_datetime(START + 24 * HOUR).isoformat().replace("+00:00", "Z")
    shown = (await api.get(f"/v1/endpoints/{made['id']}")).json()
    assert shown == {name: value for name, value in new.items() if name != "secret"}
    receiver.clock.advance(24 * HOUR - 1)
    assert (await next_sent(receiver, 1)).secrets == (new["secret"], made["secret"])
    receiver.clock.advance(1)
    assert (await next_sent(receiver, 2)).secrets == (new["secret"],)


async def test_the_overlap_may_be_nothing_or_a_week(
    receiver: Assembled, api: httpx.AsyncClient
) -> None:
    made = await added(api)
    week = await rotated(api, made, overlap_s=7 * 86_400)
    assert week["overlap_until"].startswith(f"{to_datetime(START + 7 * 24 * HOUR):%Y-%m-%d}")
    at_once = await rotated(api, made, overlap_s=0)
    assert at_once["overlap_until"] is None
    assert (await next_sent(receiver, 1)).secrets == (at_once["secret"],)


async def test_an_ed25519_key_rotates_along(receiver: Assembled, api: httpx.AsyncClient) -> None:
    made = await added(api, signatures=["v1", "v1a"])
    new = await rotated(api, made)
    assert made["public_key"].startswith("whpk_")
    assert new["public_key"].startswith("whpk_")
    keys = (await next_sent(receiver, 1)).private_keys
    assert [public_key(key) for key in keys] == [new["public_key"], made["public_key"]]


@pytest.mark.parametrize("asked", [{"overlap_s": -1}, {"overlap_s": 7 * 86_400 + 1},
    {"overlap_s": 1.5}, {"overlap_s": None}, {"overlap": 5}, {"secret": "whsec_"}, {"secret": 5},
    {"secret": "whsec_" + "A" * 12}, {"secret": "x" * 300}, [], "x"])  # fmt: skip
async def test_a_rotation_that_can_not_be_changes_nothing(
    receiver: Assembled, api: httpx.AsyncClient, asked: Any
) -> None:
    made = await added(api)
    response = await api.post(f"/v1/endpoints/{made['id']}/rotate-secret", json=asked)
    assert problem(response)[:2] == (422, "invalid")
    assert (await next_sent(receiver, 1)).secrets == (made["secret"],)


async def test_an_eleventh_rotation_within_the_overlap_is_a_conflict(
    api: httpx.AsyncClient,
) -> None:
    made = await added(api)
    for _ in range(10):
        await rotated(api, made)
    response = await api.post(f"/v1/endpoints/{made['id']}/rotate-secret", json={})
    assert problem(response)[:2] == (409, "conflict")
    assert "overlap_s" in response.json()["detail"]
    await rotated(api, made, overlap_s=0)


async def test_rotating_takes_no_body_at_all(api: httpx.AsyncClient) -> None:
    made = await added(api)
    response = await api.post(f"/v1/endpoints/{made['id']}/rotate-secret")
    assert response.json()["secret"] != made["secret"]


# A secret of one's own


async def test_a_secret_of_ones_own_is_taken_and_signs(
    receiver: Assembled, api: httpx.AsyncClient
) -> None:
    made = await added(api, secret=MINE.rstrip("="))
    assert made["secret"] == MINE == own_secret(MINE)
    assert (await next_sent(receiver, 1)).secrets == (MINE,)
    other = new_secret(bytes(24))
    assert (await rotated(api, made, secret=other))["secret"] == other


async def test_the_same_secret_again_is_a_conflict(api: httpx.AsyncClient) -> None:
    made = await added(api, secret=MINE)
    path = f"/v1/endpoints/{made['id']}/rotate-secret"
    assert problem(await api.post(path, json={"secret": MINE}))[:2] == (409, "conflict")


@pytest.mark.parametrize("secret", ["", "whsec_mine", "whpk_" + "A" * 43 + "=", MINE[6:]])
async def test_a_secret_that_can_not_sign_is_not_valid(api: httpx.AsyncClient, secret: str) -> None:
    response = await api.post("/v1/endpoints", json={"url": URL, "secret": secret})
    assert problem(response) == (422, "invalid", "secret")
    assert (await api.get("/v1/endpoints")).json()["data"] == []


# v1a


async def test_a_public_key_is_there_once_v1a_is_asked_for_and_no_private_one_ever(
    receiver: Assembled, api: httpx.AsyncClient
) -> None:
    made = await added(api)
    assert (made["signatures"], made["public_key"]) == (["v1"], None)
    path = f"/v1/endpoints/{made['id']}"
    asked = await api.patch(path, json={"signatures": ["v1a", "v1"]})
    assert asked.json()["signatures"] == ["v1", "v1a"]
    key = asked.json()["public_key"]
    listed = await api.get("/v1/endpoints")
    new = await rotated(api, made)
    for text in (asked.text, listed.text, (await api.get(path)).text, str(new)):
        assert "whsk_" not in text
    assert listed.json()["data"][0]["public_key"] == key
    null = await api.patch(path, json={"signatures": None})
    assert null.json()["signatures"] == ["v1"]
    assert (await next_sent(receiver, 1)).private_keys == ()


# Changes


async def test_null_clears_what_has_a_default(api: httpx.AsyncClient) -> None:
    bare = await added(api)
    made = await added(
        api, description="d", filters={"model": "m"}, headers={"X-A": "1"}, rate_limit=1,
        schedule=[1], concurrency=2, event_types=["task.*"],
    )  # fmt: skip
    nulls = dict.fromkeys(
        [
            "description",
            "filters",
            "headers",
            "rate_limit",
            "schedule",
            "concurrency",
            "event_types",
        ]
    )
    shown = (await api.patch(f"/v1/endpoints/{made['id']}", json=nulls)).json()
    own = ("id", "created_at", "secret", "revision")
    assert {n: v for n, v in shown.items() if n not in own} == {
        n: v for n, v in bare.items() if n not in own
    }
    response = await api.patch(f"/v1/endpoints/{made['id']}", json={"url": None})
    assert problem(response)[:2] == (422, "invalid")


# Previews


@pytest.fixture
async def told(receiver: Assembled) -> Assembled:
    """Twenty-five tasks of two teams, each with a result; every fifth failed."""
    for number in range(25):
        item = success(number) if number % 5 else failure()
        tags = {"team": "film" if number % 2 else "music"}
        await receiver.store.record(arrival_of(uuid(number), item, expected=2, tags=tags))
    return receiver


async def preview(api: httpx.AsyncClient, **asked: Any) -> dict[str, Any]:
    response = await api.post("/v1/endpoints/preview", json=asked)
    assert response.status_code == 200
    found: dict[str, Any] = response.json()
    return found


async def test_a_preview_says_which_of_the_latest_events_would_have_come(
    told: Assembled, api: httpx.AsyncClient
) -> None:
    every = await preview(api)
    assert (every["examined"], every["matched"]) == (25, 25)
    listed = (await api.get("/v1/events?limit=200")).json()["data"]
    assert [found["id"] for found in every["data"]] == [found["id"] for found in listed]
    film = await preview(api, event_types=["result.succeeded"], filters={"tags.team": "fi*"})
    assert (film["examined"], film["matched"]) == (25, 10)
    assert {found["type"] for found in film["data"]} == {"result.succeeded"}
    assert film["data"] == sorted(film["data"], key=lambda found: -found["seq"])
    assert all(found["payload"] is None for found in film["data"])
    none = await preview(api, filters={"model": "veo*"})
    assert none == {"examined": 25, "matched": 0, "data": []}


async def test_a_preview_agrees_with_what_an_endpoint_then_gets(
    receiver: Assembled, api: httpx.AsyncClient
) -> None:
    asked = {"event_types": ["*.failed", "task.*"], "filters": {"tags.team": ["music", "x"]}}
    await added(api, **asked)
    for number in range(12):
        item = success(number) if number % 3 else failure()
        tags = {"team": "film" if number % 2 else "music"}
        await receiver.store.record(arrival_of(uuid(number), item, tags=tags))
    shown = await preview(api, **asked)
    sent = (await receiver.store.deliveries(Query(limit=200))).data
    assert {found["id"] for found in shown["data"]} == {found.event_id for found in sent}
    assert 0 < shown["matched"] < shown["examined"]


@pytest.mark.parametrize("last", [1, 7, 20, 21, 25, 1_000])
async def test_a_preview_looks_no_further_than_it_was_asked_to(
    told: Assembled, api: httpx.AsyncClient, last: int
) -> None:
    shown = await preview(api, last=last)
    assert shown["examined"] == shown["matched"] == min(last, 25)
    newest = (await api.get("/v1/events?limit=1")).json()["data"][0]["id"]
    assert shown["data"][0]["id"] == newest


async def test_a_preview_changes_and_sends_nothing(told: Assembled, api: httpx.AsyncClient) -> None:
    await preview(api, event_types=["result.*"])
    assert (await api.get("/v1/endpoints")).json()["data"] == []
    assert (await api.get("/v1/deliveries")).json()["data"] == []
    assert await claim(told.store) == []


@pytest.mark.parametrize(
    ("asked", "parameter"),
    [
        ({"event_types": ["results.*"]}, "event_types"),
        ({"filters": {"status": "done"}}, "filters.status"),
        ({"filters": {"nonsense": "x"}}, "filters.nonsense"),
        ({"last": 0}, None),
        ({"last": 1_001}, None),
        ({"event_types": []}, None),
        ({"url": URL}, None),
    ],
)
async def test_a_preview_is_refused_what_an_endpoint_is(
    api: httpx.AsyncClient, asked: dict[str, Any], parameter: str | None
) -> None:
    response = await api.post("/v1/endpoints/preview", json=asked)
    assert problem(response) == (422, "invalid", parameter)


async def test_preview_is_no_endpoints_id(api: httpx.AsyncClient) -> None:
    response = await api.get("/v1/endpoints/preview")
    assert problem(response)[:2] == (404, "not_found")
    missing = ids.ENDPOINT + ids.encode(1)
    response = await api.post(f"/v1/endpoints/{missing}/preview")
    assert response.status_code == 404


@pytest.mark.parametrize("path", ["/v1/endpoints", "/v1/endpoints/preview"])
@pytest.mark.parametrize("name", ["", "a b", "a\x00", "x" * 65, "ünder"])
async def test_a_project_has_a_name_that_tasks_may_have(
    api: httpx.AsyncClient, path: str, name: str
) -> None:
    spec = {"url": URL} if path == "/v1/endpoints" else {}
    response = await api.post(path, json=spec, params={"project": name})
    assert problem(response) == (422, "invalid", "project")
    response = await api.post(path, json=spec, params={"project": "under-64_.x"})
    assert response.is_success
