"""Every route, as another project's token sees it; and what each leaves in the audit log."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from receiver.access import Action
from receiver.admin.routes.rows import Row
from receiver.clock import to_datetime
from receiver.deliveries import Failure, State
from tests.doubles import START, Assembled, assembled, sent
from tests.make import TASK, arrival, settled, success
from tests.receiver.store.suite import claim
from tests.receiver.test_access import holding, made, table
from tests.receiver.test_api import ABSENT, refused

pytestmark = pytest.mark.anyio

URL = "https://example.com/hooks/a-secret-path?token=a-secret-query"
HEADER = "a-secret-header-value"
ADDRESS = "10.1.2.3"
DETAIL = f"No connection to {ADDRESS}:443: Connect call failed ('{ADDRESS}', 443)."
SINCE = to_datetime(START).isoformat()

# What a row's path begins with, and what is there.
KINDS = {
    "tasks": "task",
    "callbacks": "callback",
    "endpoints": "endpoint",
    "events": "event",
    "deliveries": "delivery",
    "jobs": "job",
    "api-tokens": "token",
}
BODIES: dict[str, Any] = {
    "POST /v1/tasks/release": {"tasks": [TASK], "lease_until": SINCE},
    "PATCH /v1/tasks/{id}": {"submit_state": "submitted"},
    "PATCH /v1/endpoints/{id}": {"url": "https://example.org/other", "headers": {"x-a": HEADER}},
    "POST /v1/endpoints": {"url": URL, "headers": {"x-secret": HEADER}},
    "POST /v1/endpoints/{id}/recover": {"since": SINCE, "dry_run": False},
    "POST /v1/deliveries/retry": {"dry_run": False},
    "POST /v1/callbacks/{id}/reprocess": {},
    "POST /v1/api-tokens": {"name": "x", "scope": "read"},
    "POST /v1/prune": {"dry_run": False},
    "PUT /v1/tasks/{id}": {"platform": "runware", "project": "secret-film"},
}


@dataclass
class House:
    """One of everything in the project film, and whom to ask with."""

    receiver: Assembled
    film: dict[str, str]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with assembled(tmp_path) as receiver:
        yield House(receiver, await furnished(receiver))


async def furnished(receiver: Assembled) -> dict[str, str]:
    api = receiver.client
    await api.put(f"/v1/tasks/{TASK}", json={"platform": "runware", "project": "secret-film"})
    body = {"url": URL, "headers": {"x-secret": HEADER}, "event_types": ["*", "delivery.*"]}
    endpoint = (await api.post("/v1/endpoints?project=secret-film", json=body)).json()["id"]
    await receiver.store.record(arrival(success()))
    await receiver.store.record(arrival(body=b"unreadable"))
    for claimed in await claim(receiver.store):
        dead = settled(claimed, State.DEAD, outcome=sent(None, Failure.CONNECT))
        await receiver.store.settle(_with_detail(dead))
    (callback, *_) = (await api.get("/v1/callbacks?outcome=quarantined")).json()["data"]
    delivery = (await api.get("/v1/deliveries?state=dead")).json()["data"][0]
    recovery = f"/v1/endpoints/{endpoint}/recover"
    job = (await api.post(recovery, json={"since": SINCE, "dry_run": False})).json()["id"]
    return {
        "task": TASK,
        "callback": callback["id"],
        "endpoint": endpoint,
        "event": delivery["event_id"],
        "delivery": delivery["id"],
        "job": job,
        "token": (await made(receiver, project="secret-film"))["id"],
    }


def _with_detail(dead: Any) -> Any:
    from dataclasses import replace

    return replace(dead, outcome=replace(dead.outcome, detail=DETAIL))


def place(row: Row, things: dict[str, str]) -> str:
    kind = KINDS.get(row.path.split("/")[-1 if "{id}" not in row.path else 2], "")
    return row.path.replace("{id}", things.get(kind, "x"))


def name(row: Row) -> str:
    return f"{row.method} {row.path}"


def is_stream(row: Row) -> bool:
    return row.path.endswith("/stream")


async def ask(client: httpx.AsyncClient, row: Row, things: dict[str, str], **query: Any) -> Any:
    if is_stream(row):
        query["wait"] = 0
    body = BODIES.get(name(row), {})
    return await client.request(row.method, place(row, things), json=body, params=query)


def told(response: httpx.Response, things: dict[str, str]) -> str:
    """An answer without what differs between any two."""
    text = re.sub(r'"request_id": ?"[^"]*"', "", response.text)
    for thing in things.values():
        text = text.replace(thing, "ID")
    return f"{response.status_code} {text}"


async def test_a_foreign_id_is_answered_as_one_that_is_not_there(house: House) -> None:
    token = await made(house.receiver, project="music")
    async with holding(house.receiver, token["token"]) as stranger:
        for row in table(house.receiver):
            if "{id}" not in row.path or name(row) == "PUT /v1/tasks/{id}":
                continue
            foreign = await ask(stranger, row, house.film)
            absent = await ask(stranger, row, ABSENT)
            assert foreign.status_code == 404, name(row)
            assert told(foreign, house.film) == told(absent, ABSENT), name(row)
    (entry, *_) = (await house.receiver.client.get("/v1/audit")).json()["data"]
    assert entry["action"] == "api_token.create"  # nothing was done since


async def test_a_foreign_tasks_id_is_taken_and_no_more_is_said(house: House) -> None:
    token = await made(house.receiver, "submit", project="music")
    async with holding(house.receiver, token["token"]) as stranger:
        body = {"platform": "nanogpt", "expected": 9, "tags": {"a": "b"}}
        found = refused(await stranger.put(f"/v1/tasks/{TASK}", json=body), 409, "conflict")
        assert found["detail"] == "That task id is taken. Use another."
    seen = (await house.receiver.client.get(f"/v1/tasks/{TASK}")).json()
    assert (seen["tags"], seen["expected"]) == ({}, 1)


async def test_no_list_shows_what_is_another_projects(house: House) -> None:
    token = await made(house.receiver, project="music")
    hidden = [*house.film.values(), "secret-film", ADDRESS, HEADER]
    async with holding(house.receiver, token["token"]) as stranger:
        for row in table(house.receiver):
            if row.method != "GET" or "{id}" in row.path:
                continue
            queries: list[dict[str, Any]] = [{}]
            for parameter in ("task", "endpoint", "target", "status", "event_type"):
                if parameter in row.parameters:
                    value = {"status": "succeeded", "event_type": "result.*"}
                    wanted = house.film.get(parameter) or value.get(parameter) or TASK
                    queries.append({parameter: wanted})
            for query in queries:
                response = await ask(stranger, row, house.film, **query)
                assert response.status_code in (200, 403), (name(row), response.text)
                shown = [word for word in hidden if word in response.text]
                assert shown == [], (name(row), query)
                if row.is_list and "token" not in row.path and row.path != "/v1/audit":
                    assert response.json()["data"] == [], (name(row), query)
            if "project" in row.parameters:
                refused(
                    await ask(stranger, row, house.film, project="secret-film"), 403, "forbidden"
                )


async def test_a_bulk_of_foreign_things_is_none(house: House) -> None:
    token = await made(house.receiver, project="music")
    async with holding(house.receiver, token["token"]) as stranger:
        retry = "/v1/deliveries/retry"
        assert (await stranger.post(retry, json={"task": TASK})).json()["count"] == 0
        foreign = await stranger.post(retry, json={"endpoint": house.film["endpoint"]})
        refused(foreign, 404, "not_found")
        refused(await stranger.post(retry, json={"project": "secret-film"}), 403, "forbidden")
        assert (await stranger.post("/v1/tasks/claim")).json()["data"] == []
        release = {"tasks": [TASK], "lease_until": SINCE}
        assert (await stranger.post("/v1/tasks/release", json=release)).json()["released"] == 0
        preview = (await stranger.post("/v1/endpoints/preview")).json()
        assert (preview["examined"], preview["matched"]) == (0, 0)
        refused(await stranger.post("/v1/prune"), 403, "forbidden")


async def test_a_project_is_not_told_what_addresses_are_behind_a_name(house: House) -> None:
    token = await made(house.receiver, project="secret-film")
    path = f"/v1/deliveries/{house.film['delivery']}"
    async with holding(house.receiver, token["token"]) as owner:
        for answer in (await owner.get(path), await owner.post(f"{path}/retry")):
            (attempt,) = answer.json()["attempt_log"]
            assert (attempt["error"], ADDRESS in answer.text) == ("connect", False)
            assert attempt["detail"].startswith("No connection to [redacted]:443")
        events = (await owner.get("/v1/events?event_type=delivery.exhausted")).json()["data"]
        assert events
        payload = (await owner.get(f"/v1/events/{events[0]['id']}")).json()["payload"]
        assert ADDRESS not in json.dumps(payload)
        assert payload["data"]["delivery"]["last_detail"].startswith("No connection to [redacted]")
    assert ADDRESS in (await house.receiver.client.get(path)).text


async def test_a_reader_is_shown_no_secret(house: House) -> None:
    token = await made(house.receiver, "read")
    async with holding(house.receiver, token["token"]) as reader:
        for row in table(house.receiver):
            if row.method == "GET":
                text = (await ask(reader, row, house.film)).text
                leaks = [word for word in ("secret-path", "secret-query", HEADER) if word in text]
                assert leaks == [], name(row)
        endpoint = (await reader.get(f"/v1/endpoints/{house.film['endpoint']}")).json()
        assert endpoint["url"] == "https://example.com/[redacted]"
        assert endpoint["headers"] == {"x-secret": "[redacted]"}
        refused(await reader.get(f"/v1/callbacks/{house.film['callback']}/body"), 403, "forbidden")
    whole = (await house.receiver.client.get(f"/v1/endpoints/{house.film['endpoint']}")).json()
    assert (whole["url"], whole["headers"]) == (URL, {"x-secret": HEADER})


# Audit

# What each route that changes something leaves; None: it is no manual action.
ACTIONS = {
    "PUT /v1/tasks/{id}": None,
    "PATCH /v1/tasks/{id}": None,
    "POST /v1/tasks/claim": None,
    "POST /v1/tasks/release": None,
    "POST /v1/endpoints/preview": None,
    "POST /v1/tasks/{id}/revoke": Action.TASK_REVOKE,
    "POST /v1/tasks/{id}/reconcile": Action.TASK_RECONCILE,
    "DELETE /v1/tasks/{id}": Action.TASK_DELETE,
    "POST /v1/callbacks/{id}/reprocess": Action.CALLBACK_REPROCESS,
    "DELETE /v1/callbacks/{id}": Action.CALLBACK_DELETE,
    "POST /v1/endpoints": Action.ENDPOINT_CREATE,
    "PATCH /v1/endpoints/{id}": Action.ENDPOINT_CHANGE,
    "POST /v1/endpoints/{id}/rotate-secret": Action.ENDPOINT_ROTATE_SECRET,
    "POST /v1/endpoints/{id}/pause": Action.ENDPOINT_PAUSE,
    "POST /v1/endpoints/{id}/disable": Action.ENDPOINT_DISABLE,
    "POST /v1/endpoints/{id}/resume": Action.ENDPOINT_ENABLE,
    "POST /v1/endpoints/{id}/enable": Action.ENDPOINT_ENABLE,
    "POST /v1/endpoints/{id}/test": Action.ENDPOINT_TEST,
    "POST /v1/endpoints/{id}/cancel": Action.ENDPOINT_CANCEL,
    "POST /v1/endpoints/{id}/recover": Action.ENDPOINT_RECOVER,
    "DELETE /v1/endpoints/{id}": Action.ENDPOINT_DELETE,
    "POST /v1/events/{id}/replay": Action.EVENT_REPLAY,
    "POST /v1/deliveries/{id}/retry": Action.DELIVERY_RETRY,
    "POST /v1/deliveries/{id}/cancel": Action.DELIVERY_CANCEL,
    "POST /v1/deliveries/retry": Action.DELIVERIES_RETRY,
    "POST /v1/jobs/{id}/cancel": Action.JOB_CANCEL,
    "POST /v1/api-tokens": Action.API_TOKEN_CREATE,
    "DELETE /v1/api-tokens/{id}": Action.API_TOKEN_DELETE,
    "POST /v1/login-links": Action.LOGIN_LINK_CREATE,
    "POST /v1/prune": Action.PRUNE,
    "POST /v1/backup": Action.BACKUP,
}
# What no route of the API does: see test_dashboard.py.
OF_PAGES = {Action.SESSION_BEGIN, Action.SESSION_END}
# So that each finds what it needs: what is under way before what ends it, what is deleted last.
ORDER = [
    "POST /v1/jobs/{id}/cancel",
    "POST /v1/deliveries/{id}/retry",
    "POST /v1/deliveries/{id}/cancel",
    "POST /v1/endpoints/{id}/recover",
]


def order(row: Row) -> tuple[int, bool, str]:
    place = ORDER.index(name(row)) if name(row) in ORDER else len(ORDER)
    return place, row.method == "DELETE", name(row)


async def test_every_manual_action_leaves_its_row(house: House) -> None:
    rows = [row for row in table(house.receiver) if row.method != "GET"]
    assert {name(row) for row in rows} == set(ACTIONS)
    assert {action for action in ACTIONS.values() if action} == set(Action) - OF_PAGES
    api = house.receiver.client
    for row in sorted(rows, key=order):
        before = (await api.get("/v1/audit?limit=1")).json()["data"][0]
        if name(row) in ("POST /v1/endpoints/{id}/test", "POST /v1/endpoints/{id}/cancel"):
            await api.post(f"/v1/endpoints/{house.film['endpoint']}/enable")
            before = (await api.get("/v1/audit?limit=1")).json()["data"][0]
        response = await ask(api, row, house.film)
        assert response.is_success, (name(row), response.text)
        (entry,) = (await api.get("/v1/audit?limit=1")).json()["data"]
        if ACTIONS[name(row)] is None:
            assert entry == before, name(row)
            continue
        assert (entry["seq"], entry["action"]) == (before["seq"] + 1, ACTIONS[name(row)])
        assert entry["request_id"] == response.headers["x-request-id"]
        assert (entry["actor"], entry["actor_name"]) == ("admin", "")
        if "{id}" in row.path:
            assert entry["target"] == house.film[KINDS[row.path.split("/")[2]]], name(row)
            assert entry["project"] == "secret-film", name(row)
        told = json.dumps(entry)
        assert not any(word in told for word in ("secret-path", "secret-query", HEADER, "whsec_"))


async def test_what_was_refused_or_only_tried_leaves_no_row(house: House) -> None:
    api = house.receiver.client
    before = (await api.get("/v1/audit")).json()
    endpoint = f"/v1/endpoints/{house.film['endpoint']}"
    dry = {"dry_run": True}
    assert (await api.patch(endpoint, json={"url": "http://127.0.0.1/"})).status_code == 422
    assert (await api.post(f"/v1/jobs/{ABSENT['job']}/cancel")).status_code == 404
    reprocess = f"/v1/callbacks/{house.film['callback']}/reprocess"
    assert (await api.post(reprocess, json=dry)).status_code == 200
    assert (await api.post("/v1/deliveries/retry", json=dry)).status_code == 200
    recovery = {"since": SINCE, "dry_run": True}
    assert (await api.post(f"{endpoint}/recover", json=recovery)).status_code == 200
    assert (await api.post("/v1/prune", json=dry)).status_code == 200
    # The same job again is there already: nobody began it now.
    again = await api.post(f"{endpoint}/recover", json={"since": SINCE, "dry_run": False})
    assert again.status_code == 200
    assert (await api.get("/v1/audit")).json() == before


async def test_rows_say_who_and_what(house: House) -> None:
    token = await made(house.receiver, project="secret-film")
    endpoint = house.film["endpoint"]
    async with holding(house.receiver, token["token"]) as owner:
        patch = {"headers": {"x-new": HEADER}, "concurrency": 3, "url": URL}
        answer = await owner.patch(f"/v1/endpoints/{endpoint}", json=patch)
        assert answer.status_code == 200
        (entry,) = (await owner.get(f"/v1/audit?target={endpoint}&limit=1")).json()["data"]
    assert (entry["actor"], entry["actor_name"]) == (token["id"], "a admin")
    assert (entry["target"], entry["project"]) == (endpoint, "secret-film")
    assert entry["details"] == {
        "set": ["concurrency", "headers", "url"],
        "url": "https://example.com/[redacted]",
        "headers": ["x-new"],
    }
    recovered = (await house.receiver.client.get("/v1/audit?action=endpoint.recover")).json()
    (entry,) = recovered["data"]
    assert (entry["target"], entry["details"]["job"]) == (endpoint, house.film["job"])


async def test_a_project_sees_its_own_rows(house: House) -> None:
    mine = await made(house.receiver, project="secret-film")
    async with holding(house.receiver, mine["token"]) as owner:
        rows = (await owner.get("/v1/audit")).json()["data"]
        assert {row["project"] for row in rows} == {"secret-film"}
        refused(await owner.get("/v1/audit?project=music"), 403, "forbidden")


@pytest.mark.parametrize("odd", ["action=nonsense", "since=soon", "cursor=x", "what=x"])
async def test_an_odd_question_is_refused(house: House, odd: str) -> None:
    refused(await house.receiver.client.get(f"/v1/audit?{odd}"), 422, "invalid")
