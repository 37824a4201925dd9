"""Every route under /v1: what it gives, and how it refuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest

from receiver import ids
from receiver.admin.api import MAX_BODY
from receiver.admin.ops import Principal
from receiver.clock import DAY
from receiver.deliveries import State
from receiver.store.protocol import QueueCancel
from receiver.store.writer import Transaction
from receiver.tasks import TaskClaim
from receiver.tokens import TokenBox, webhook_url
from tests.doubles import ADMIN_TOKEN, LIMIT_S, PUBLIC_URL, START, Assembled, assembled, reaching
from tests.make import (
    KEY,
    OTHER,
    TASK,
    arrival,
    claims,
    endpoint,
    failure,
    registration,
    settled,
    success,
    uuid,
    wrapped,
)
from tests.receiver.store.jobs_suite import begin, repair
from tests.receiver.store.suite import arrival_of, claim

ABSENT = {
    "task": uuid(99),
    "callback": ids.CALLBACK + ids.encode(1),
    "endpoint": ids.ENDPOINT + ids.encode(1),
    "event": ids.EVENT + ids.encode(1),
    "delivery": ids.delivery_id(1, 1),
    "job": ids.JOB + ids.encode(1),
    "token": ids.API_TOKEN + ids.encode(1),
}
ROUTES = [
    ("GET", "/v1/tasks"),
    ("PUT", "/v1/tasks/{task}"),
    ("PATCH", "/v1/tasks/{task}"),
    ("GET", "/v1/tasks/{task}"),
    ("DELETE", "/v1/tasks/{task}"),
    ("GET", "/v1/tasks/{task}/results"),
    ("POST", "/v1/tasks/{task}/revoke"),
    ("POST", "/v1/tasks/{task}/reconcile"),
    ("POST", "/v1/tasks/claim"),
    ("POST", "/v1/tasks/release"),
    ("GET", "/v1/costs"),
    ("GET", "/v1/callbacks"),
    ("GET", "/v1/callbacks/{callback}"),
    ("DELETE", "/v1/callbacks/{callback}"),
    ("GET", "/v1/callbacks/{callback}/body"),
    ("POST", "/v1/callbacks/{callback}/reprocess"),
    ("GET", "/v1/endpoints"),
    ("POST", "/v1/endpoints"),
    ("GET", "/v1/endpoints/{endpoint}"),
    ("PATCH", "/v1/endpoints/{endpoint}"),
    ("DELETE", "/v1/endpoints/{endpoint}"),
    ("POST", "/v1/endpoints/{endpoint}/test"),
    ("GET", "/v1/endpoints/{endpoint}/recover"),
    ("POST", "/v1/endpoints/{endpoint}/recover"),
    ("POST", "/v1/endpoints/{endpoint}/pause"),
    ("POST", "/v1/endpoints/{endpoint}/resume"),
    ("POST", "/v1/endpoints/{endpoint}/enable"),
    ("POST", "/v1/endpoints/{endpoint}/disable"),
    ("POST", "/v1/endpoints/{endpoint}/cancel"),
    ("POST", "/v1/endpoints/{endpoint}/rotate-secret"),
    ("POST", "/v1/endpoints/preview"),
    ("GET", "/v1/events"),
    ("GET", "/v1/events/{event}"),
    ("POST", "/v1/events/{event}/replay"),
    ("GET", "/v1/deliveries"),
    ("GET", "/v1/deliveries/dead"),
    ("GET", "/v1/deliveries/{delivery}"),
    ("POST", "/v1/deliveries/{delivery}/retry"),
    ("POST", "/v1/deliveries/retry"),
    ("GET", "/v1/jobs"),
    ("GET", "/v1/jobs/{job}"),
    ("POST", "/v1/jobs/{job}/cancel"),
    ("POST", "/v1/deliveries/{delivery}/cancel"),
    ("GET", "/v1/api-tokens"),
    ("POST", "/v1/api-tokens"),
    ("DELETE", "/v1/api-tokens/{token}"),
    ("GET", "/v1/audit"),
]
LISTS = ["/v1/tasks", "/v1/callbacks", "/v1/endpoints", "/v1/events", "/v1/deliveries", "/v1/jobs"]
URL = "https://example.com/hook"
TOKEN = TokenBox([KEY]).mint(claims(expected=2))

pytestmark = pytest.mark.anyio


@pytest.fixture
async def receiver(tmp_path: Path) -> AsyncIterator[Assembled]:
    async with assembled(tmp_path) as found:
        yield found


@pytest.fixture
def api(receiver: Assembled) -> httpx.AsyncClient:
    return receiver.client


def refused(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    found: dict[str, Any] = response.json()
    assert (response.status_code, found["status"], found["code"]) == (status, status, code)
    assert response.headers["content-type"] == "application/problem+json"
    assert found["detail"]
    return found


async def added(api: httpx.AsyncClient, **spec: Any) -> dict[str, Any]:
    response = await api.post("/v1/endpoints", json={"url": URL, **spec})
    assert response.status_code == 201
    found: dict[str, Any] = response.json()
    return found


async def somebody_waits(receiver: Assembled) -> None:
    """Let others run until a long poll listens."""
    async with asyncio.timeout(LIMIT_S):
        for _ in count():
            if receiver.service.ops.watch._waiting:
                return
            await asyncio.sleep(0)


# Who may ask


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_nobody_is_let_in_without_a_token_on_loopback_neither(
    receiver: Assembled, method: str, path: str
) -> None:
    url = path.format(**ABSENT)
    for headers in (
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": f"Bearer {ADMIN_TOKEN}x"},
        {"authorization": f"Basic {ADMIN_TOKEN}"},
        {"authorization": ADMIN_TOKEN},
        {"authorization": "Bearer ä"},
        {"x-forwarded-for": "127.0.0.1"},
        {"cookie": f"token={ADMIN_TOKEN}"},
    ):
        encoded = {name.encode(): value.encode() for name, value in headers.items()}
        response = await receiver.stranger.request(method, url, headers=encoded)
        refused(response, 401, "unauthenticated")
        assert response.headers["www-authenticate"] == "Bearer"
    response = await receiver.stranger.request(method, f"{url}?token={ADMIN_TOKEN}")
    refused(response, 401, "unauthenticated")


async def test_the_scheme_may_be_written_in_any_case(receiver: Assembled) -> None:
    headers = {"authorization": f"bEARER  {ADMIN_TOKEN} "}
    assert (await receiver.stranger.get("/v1/tasks", headers=headers)).status_code == 200


async def test_without_an_admin_token_nobody_is_let_in(tmp_path: Path) -> None:
    async with assembled(tmp_path, REELHOOK_ADMIN_TOKEN="") as receiver:
        for token in (None, "", " ", ADMIN_TOKEN):
            async with reaching(receiver.door, token) as client:
                refused(await client.get("/v1/tasks"), 401, "unauthenticated")


@pytest.mark.parametrize(
    ("method", "path"),
    [(method, path) for method, path in ROUTES if "{" in path and method != "PUT"],
)
@pytest.mark.parametrize("odd", [None, "..", "x", "%00", "%F0%9F%98%80", "1" * 10_000])
async def test_what_does_not_exist_is_not_found(
    api: httpx.AsyncClient, method: str, path: str, odd: str | None
) -> None:
    names = ABSENT if odd is None else dict.fromkeys(ABSENT, odd)
    response = await api.request(method, path.format(**names))
    assert response.status_code in ((404,) if odd != ".." else (404, 405))
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_a_trailing_slash_is_no_redirect(
    api: httpx.AsyncClient, method: str, path: str
) -> None:
    response = await api.request(method, path.format(**ABSENT) + "/")
    refused(response, 404, "not_found")
    assert "location" not in response.headers


async def test_head_has_the_headers_of_get_and_other_methods_are_not_allowed(
    api: httpx.AsyncClient,
) -> None:
    response = await api.head("/v1/tasks")
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    for method in ("OPTIONS", "TRACE", "DELETE"):
        response = await api.request(method, "/v1/tasks")
        refused(response, 405, "method_not_allowed")
        assert "GET" in response.headers["allow"]


async def test_the_allowed_methods_of_a_path_are_all_named(api: httpx.AsyncClient) -> None:
    response = await api.post(f"/v1/tasks/{TASK}")
    assert set(response.headers["allow"].split(", ")) >= {"GET", "PUT", "PATCH", "DELETE"}


@pytest.mark.parametrize("path", ["/v1", "/v2/tasks", "/v1/nothing", "/x"])
async def test_another_path_is_a_problem_too(api: httpx.AsyncClient, path: str) -> None:
    refused(await api.get(path), 404, "not_found")


@pytest.mark.parametrize("path", [f"/v1/endpoints/{ABSENT['endpoint']}/explode",
                                  f"/v1/deliveries/{ABSENT['delivery']}/explode"])  # fmt: skip
async def test_an_unknown_verb_is_not_found(api: httpx.AsyncClient, path: str) -> None:
    refused(await api.post(path), 404, "not_found")


# Tasks


async def test_a_registered_task_comes_with_a_url_that_opens_the_door(
    receiver: Assembled, api: httpx.AsyncClient
) -> None:
    tags = {"projectId": "proj_789", "team": "a/b ä"}
    body = {"platform": "runware", "expected": 2, "tags": tags, "metadata": {"a": 1}, "model": "m"}
    response = await api.put(f"/v1/tasks/{TASK}", json=body)
    assert response.status_code == 201
    found = response.json()
    assert (found["id"], found["may_submit"], found["submit_state"]) == (TASK, True, "registered")
    assert found["webhook_url"].startswith(f"{PUBLIC_URL}/webhooks/runware?sig=")
    query = parse_qsl(urlsplit(found["webhook_url"]).query)
    claims = TokenBox([KEY]).verify(query[0][1], platform="runware", tags=query[1:], now=START)
    assert (claims.task, claims.expected, claims.source) == (TASK, 2, "callback")
    path = found["webhook_url"].removeprefix(PUBLIC_URL)
    assert (await receiver.stranger.post(path, json={"data": [success()]})).status_code == 200
    shown = (await api.get(f"/v1/tasks/{TASK}")).json()
    assert (shown["status"], shown["received"], shown["tags"]) == ("partial", 1, tags)
    assert "webhook_url" not in shown
    again = await api.put(f"/v1/tasks/{TASK}", json=body)
    assert (again.status_code, again.json()["may_submit"]) == (200, False)
    assert again.json()["webhook_url"] != found["webhook_url"]


@pytest.mark.parametrize("source", ["callback", "poll", "submit"])
async def test_a_url_may_be_asked_for_who_speaks(api: httpx.AsyncClient, source: str) -> None:
    response = await api.put(f"/v1/tasks/{TASK}?src={source}", json={"platform": "runware"})
    query = parse_qsl(urlsplit(response.json()["webhook_url"]).query)
    claims = TokenBox([KEY]).verify(query[0][1], platform="runware", tags=[], now=START)
    assert claims.source == source


@pytest.mark.parametrize("source", ["deadline", "", "x"])
async def test_nobody_else_may_speak(api: httpx.AsyncClient, source: str) -> None:
    response = await api.put(f"/v1/tasks/{TASK}?src={source}", json={"platform": "runware"})
    assert refused(response, 422, "invalid")["parameter"] == "src"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"platform":"runware","nonsense":1}',
        b'{"platform":"elsewhere"}',
        b'{"platform":"runware","expected":0}',
        b'{"platform":"runware","expected":"many"}',
        b'{"platform":"runware","tags":{"sig":"x"}}',
        b'{"platform":"runware","tags":{"a":"\\u0000"}}',
        b'{"platform":"runware","project":"a b"}',
        b'{"platform":"runware","deadline_at":"soon"}',
        b'{"platform":"runware","metadata":"text"}',
        b'{"platform":"runware","metadata":' + b"[" * 5_000,
        b'{"platform":"runware","metadata":{"a":"\\ud83d"}}',
        b'{"platform":"runware","metadata":{"\\uDE00":1}}',
        b'{"platform":"runware","request":{"a":["\\ud83d"]}}',
        b"\xff",
    ],
)
async def test_a_registration_that_is_not_valid_says_what_to_change(
    api: httpx.AsyncClient, body: bytes
) -> None:
    refused(await api.put(f"/v1/tasks/{TASK}", content=body), 422, "invalid")
    refused(await api.get(f"/v1/tasks/{TASK}"), 404, "not_found")


async def test_a_whole_character_may_be_escaped_in_halves(api: httpx.AsyncClient) -> None:
    body = b'{"platform":"runware","metadata":{"a":"\\ud83d\\ude00"}}'
    await api.put(f"/v1/tasks/{TASK}", content=body)
    assert (await api.get(f"/v1/tasks/{TASK}")).json()["metadata"] == {"a": "\U0001f600"}


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
async def test_what_is_no_json_is_not_valid(api: httpx.AsyncClient, number: str) -> None:
    body = f'{{"platform":"runware","metadata":{{"a":{number}}}}}'
    refused(await api.put(f"/v1/tasks/{TASK}", content=body), 422, "invalid")


async def test_tags_that_no_url_can_hold_store_nothing(api: httpx.AsyncClient) -> None:
    body = {"platform": "runware", "tags": {"a": "x" * 1_200}}
    refused(await api.put(f"/v1/tasks/{TASK}", json=body), 422, "invalid")
    refused(await api.get(f"/v1/tasks/{TASK}"), 404, "not_found")


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
async def test_a_moment_at_the_edge_of_time_is_no_error(
    api: httpx.AsyncClient, moment: str
) -> None:
    body = {"platform": "runware", "deadline_at": moment}
    response = await api.put(f"/v1/tasks/{TASK}", json=body)
    assert response.status_code in (201, 422)


async def test_a_webhook_url_in_a_noted_request_is_not_kept(api: httpx.AsyncClient) -> None:
    body: dict[str, Any] = {"platform": "runware"}
    url = (await api.put(f"/v1/tasks/{TASK}", json=body)).json()["webhook_url"]
    image = "https://cdn.example.com/ä.png?apiKey=of-somebody-else"
    body["request"] = {"webhookURL": url, "inputImage": image}
    body["metadata"] = {"note": f"sent {url}"}
    assert (await api.put(f"/v1/tasks/{TASK}", json=body)).status_code == 200
    task = (await api.get(f"/v1/tasks/{TASK}")).json()
    struck = f"{PUBLIC_URL}/webhooks/runware?sig=[redacted]"
    assert task["request"] == {"webhookURL": struck, "inputImage": image}
    assert task["metadata"] == {"note": f"sent {struck}"}


async def test_a_differing_size_is_a_conflict(api: httpx.AsyncClient) -> None:
    await api.put(f"/v1/tasks/{TASK}", json={"platform": "runware", "expected": 2})
    response = await api.put(f"/v1/tasks/{TASK}", json={"platform": "runware", "expected": 3})
    assert refused(response, 409, "conflict")["expected"] == 2


async def test_the_right_to_submit_is_taken_and_given_back(
    receiver: Assembled, api: httpx.AsyncClient
) -> None:
    await api.put(f"/v1/tasks/{TASK}", json={"platform": "runware"})
    asked = {"submit_state": "registered"}
    found = refused(await api.patch(f"/v1/tasks/{TASK}", json=asked), 409, "conflict")
    assert found["lease_until"] > START
    receiver.clock.advance(120_000)
    assert (await api.patch(f"/v1/tasks/{TASK}", json=asked)).status_code == 200
    done = {"submit_state": "submitted", "platform_id": "run-1"}
    shown = (await api.patch(f"/v1/tasks/{TASK}", json=done)).json()
    assert (shown["submit_state"], shown["platform_id"]) == ("submitted", "run-1")
    refused(await api.patch(f"/v1/tasks/{TASK}", json={"status": "failed"}), 422, "invalid")


async def test_a_task_is_revoked_and_deleted(receiver: Assembled, api: httpx.AsyncClient) -> None:
    url = (await api.put(f"/v1/tasks/{TASK}", json={"platform": "runware"})).json()["webhook_url"]
    path = url.removeprefix(PUBLIC_URL)
    assert (await api.post(f"/v1/tasks/{TASK}/revoke")).json()["id"] == TASK
    assert (await receiver.stranger.post(path, json=success())).status_code == 410
    response = await api.delete(f"/v1/tasks/{TASK}")
    assert (response.status_code, response.content) == (204, b"")
    refused(await api.get(f"/v1/tasks/{TASK}"), 404, "not_found")
    refused(await api.delete(f"/v1/tasks/{TASK}"), 404, "not_found")


async def test_the_results_of_a_task_are_listed_with_what_the_platform_said(
    receiver: Assembled, api: httpx.AsyncClient
) -> None:
    await receiver.store.record(arrival(success(), expected=2))
    found = (await api.get(f"/v1/tasks/{TASK}/results")).json()
    assert found["next_cursor"] is None
    (result,) = found["data"]
    moment = datetime.fromtimestamp(START / 1_000, UTC).isoformat().replace("+00:00", "Z")
    assert result["received_at"] == moment
    assert (result["task_id"], result["raw"], result["cost"]) == (TASK, success(), 0.4715)


# Waiting


async def test_half_a_character_is_shown_as_the_platform_sent_it(
    receiver: Assembled, api: httpx.AsyncClient
) -> None:
    """Who cuts a text in UTF-16 leaves the half of an emoji at its end."""
    item = success(note="\ud83d", deeper=[{"\ude00": "\ud83d"}])
    await receiver.store.record(arrival(item))
    shown = await api.get(f"/v1/tasks/{TASK}/results")
    assert [found["raw"] for found in shown.json()["data"]] == [item]
    for event in (await api.get("/v1/events")).json()["data"]:
        told = (await api.get(f"/v1/events/{event['id']}")).json()
        if event["type"] == "result.succeeded":
            assert told["payload"]["data"]["result"]["raw"] == item
            assert told["created_at"] == event["created_at"]


async def test_a_known_revision_is_not_told_again(
    receiver: Assembled, api: httpx.AsyncClient
) -> None:
    await receiver.store.register(registration(expected=2))
    response = await api.get(f"/v1/tasks/{TASK}")
    etag = response.headers["etag"]
    assert etag == f'"{response.json()["revision"]}"'
    same = await api.get(f"/v1/tasks/{TASK}", headers={"if-none-match": etag})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
    await receiver.store.record(arrival(success(), expected=2))
    other = await api.get(f"/v1/tasks/{TASK}", headers={"if-none-match": etag})
    assert other.status_code == 200
    assert other.headers["etag"] != etag


async def test_a_weakened_validator_is_known_again(
    receiver: Assembled, api: httpx.AsyncClient
) -> None:
    await receiver.store.register(registration())
    etag = (await api.get(f"/v1/tasks/{TASK}")).headers["etag"]
    same = await api.get(f"/v1/tasks/{TASK}", headers={"if-none-match": f"W/{etag}"})
    assert same.status_code == 304


@pytest.mark.parametrize("path", [TASK, TASK.upper()])
async def test_a_change_during_the_wait_answers_at_once(
    receiver: Assembled, api: httpx.AsyncClient, path: str
) -> None:
    await receiver.store.register(registration(expected=2))
    etag = (await api.get(f"/v1/tasks/{TASK}")).headers["etag"]
    asked = {"params": {"wait": 30}, "headers": {"if-none-match": etag}}
    waiting = asyncio.create_task(api.get(f"/v1/tasks/{path}", **asked))  # type: ignore[arg-type]
    await somebody_waits(receiver)
    await receiver.store.record(arrival_of(OTHER, success()))
    assert not waiting.done()
    await receiver.store.record(arrival(success(), expected=2))
    async with asyncio.timeout(10):
        response = await waiting
    assert (response.status_code, response.json()["received"]) == (200, 1)
    assert not receiver.service.ops.watch._waiting


async def test_a_wait_that_ends_without_a_change_says_so(
    receiver: Assembled, api: httpx.AsyncClient
) -> None:
    await receiver.store.register(registration())
    etag = (await api.get(f"/v1/tasks/{TASK}")).headers["etag"]
    response = await api.get(f"/v1/tasks/{TASK}?wait=0.01", headers={"if-none-match": etag})
    assert response.status_code == 304


async def test_a_wait_ends_when_the_task_is_deleted(
    receiver: Assembled, api: httpx.AsyncClient
) -> None:
    await receiver.store.register(registration())
    waiting = asyncio.create_task(api.get(f"/v1/tasks/{TASK}?wait=30"))
    await somebody_waits(receiver)
    await api.delete(f"/v1/tasks/{TASK}")
    async with asyncio.timeout(10):
        refused(await waiting, 404, "not_found")


async def test_nobody_waits_for_a_complete_task_or_another_revision(
    receiver: Assembled, api: httpx.AsyncClient
) -> None:
    await receiver.store.register(registration(expected=1))
    async with asyncio.timeout(10):
        stale = await api.get(f"/v1/tasks/{TASK}?wait=30", headers={"if-none-match": '"77"'})
        assert stale.status_code == 200
        await receiver.store.record(arrival(success()))
        assert (await api.get(f"/v1/tasks/{TASK}?wait=30")).json()["status"] == "succeeded"


@pytest.mark.parametrize(
    "wait",
    ["soon", "", "1,5", pytest.param("nan")],
)
async def test_a_wait_is_a_number_of_seconds(
    receiver: Assembled, api: httpx.AsyncClient, wait: str
) -> None:
    await receiver.store.register(registration())
    async with asyncio.timeout(10):
        response = await api.get(f"/v1/tasks/{TASK}", params={"wait": wait})
    assert refused(response, 422, "invalid")["parameter"] == "wait"


async def test_a_negative_wait_is_none(receiver: Assembled, api: httpx.AsyncClient) -> None:
    await receiver.store.register(registration())
    assert (await api.get(f"/v1/tasks/{TASK}?wait=-5")).status_code == 200


# Lists


@pytest.mark.parametrize("path", LISTS)
async def test_a_list_is_paged_by_the_cursor_it_gave(
    receiver: Assembled, api: httpx.AsyncClient, path: str
) -> None:
    for number in range(3):
        await receiver.store.add_endpoint(endpoint(event_types=["result.*"]))
        await receiver.store.record(arrival_of(uuid(number), success(number), expected=2))
        await begin(receiver.store, repair(limit=number + 1))
    whole = (await api.get(path)).json()
    assert whole["next_cursor"] is None
    found: list[Any] = []
    cursor: str | None = ""
    while cursor is not None:
        page = (await api.get(path, params={"limit": 2, "cursor": cursor})).json()
        found += page["data"]
        cursor = page["next_cursor"]
    assert found == whole["data"]
    assert len(found) >= 3


@pytest.mark.parametrize("path", [*LISTS, "/v1/costs"])
@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=-1",
        "limit=201",
        "limit=1000000000",
        "limit=ten",
        "limit=%D9%A3",
        "limit=1.5",
        "cursor=x",
        "cursor=0000000000000-0000000000000-0000000000000",
        "cursor=%27;--",
        "nonsense=1",
        "project=%00",
        "project=" + "x" * 501,
    ],
)
async def test_a_query_that_means_nothing_says_which_parameter(
    api: httpx.AsyncClient, path: str, query: str
) -> None:
    response = await api.get(f"{path}?{query}")
    found = refused(response, 422, "invalid")
    assert found.get("parameter", query.partition("=")[0]) == query.partition("=")[0]


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/v1/tasks", "overdue=maybe"),
        ("/v1/tasks", "since=yesterday"),
        ("/v1/tasks", "until=2026-13-01"),
        ("/v1/tasks", "tag=team"),
        ("/v1/tasks", "tag=%22=x"),
        ("/v1/tasks", "endpoint=ep_x"),
        ("/v1/tasks", "by=model"),
        ("/v1/costs", "by=seed"),
        ("/v1/costs", "by=tag"),
        ("/v1/costs", "by=tag:"),
        ("/v1/costs", "by=model:x"),
        ("/v1/costs", "by=tag:%22"),
        ("/v1/costs", "by=tag:%00"),
        ("/v1/costs", "overdue=true"),
        ("/v1/costs", "since=yesterday"),
        ("/v1/endpoints", "state=enabled"),
        ("/v1/callbacks", "status=x"),
        ("/v1/events", "state=dead"),
        pytest.param("/v1/tasks", "tag=%00=x"),
        pytest.param("/v1/tasks", "limit=000001999"),
        pytest.param("/v1/deliveries", "state=x"),
        pytest.param("/v1/tasks", "status=x"),
    ],
)
async def test_a_filter_that_means_nothing_is_not_valid(
    api: httpx.AsyncClient, path: str, query: str
) -> None:
    refused(await api.get(f"{path}?{query}"), 422, "invalid")


async def test_costs_are_summed_up_page_by_page(
    receiver: Assembled, api: httpx.AsyncClient
) -> None:
    for number in range(3):
        tags = {"team": "ab"[number % 2]}
        await receiver.store.record(arrival_of(uuid(number), success(number), tags=tags))
    path, paid = "/v1/costs", {"results": 1, "failed": 0, "without_cost": 0, "tasks": 1}
    whole = (await api.get(path, params={"by": "task"})).json()
    assert whole["data"] == [{"cost": 0.4715, **paid, "value": uuid(n)} for n in (2, 1, 0)]
    assert (whole["next_cursor"], whole["total"]) == (
        None,
        {"cost": 1.4145, **paid, "results": 3, "tasks": 3},
    )
    first = (await api.get(path, params={"by": "task", "limit": 2})).json()
    assert (first["data"], first["total"]) == (whole["data"][:2], whole["total"])
    rest = {"by": "task", "limit": 2, "cursor": first["next_cursor"]}
    second = (await api.get(path, params=rest)).json()
    assert second == {"data": whole["data"][2:], "total": None, "next_cursor": None}
    tagged = (await api.get(path, params={"by": "tag:team", "tag": "team=b"})).json()
    assert tagged["data"] == [{"cost": 0.4715, **paid, "value": "b"}]
    (model,) = (await api.get(path)).json()["data"]
    assert (model["value"], model["cost"]) == (None, 1.4145)


async def test_tasks_are_found_by_what_is_asked(
    receiver: Assembled, api: httpx.AsyncClient
) -> None:
    await receiver.store.register(registration(model="m", tags={"team": "a b"}))
    await receiver.store.register(registration(OTHER, now=START + 60_000))

    async def found(query: str) -> list[str]:
        response = await api.get(f"/v1/tasks?{query}")
        assert response.status_code == 200
        return [task["id"] for task in response.json()["data"]]

    assert await found("tag=team=a+b") == [TASK]
    assert await found("model=m") == [TASK]
    assert await found("model=") == [OTHER, TASK]
    assert await found("since=2026-09-21T14:14:00Z") == [OTHER]
    assert await found("until=2026-09-21T14:14:00%2B00:00") == [TASK]
    assert await found("q=%25") == []
    assert await found("project=other") == []
    assert await found("status=pending&overdue=false&limit=1") == [OTHER]


# Callbacks, events, deliveries


async def test_a_callback_is_shown_with_its_body_alone(
    receiver: Assembled, api: httpx.AsyncClient
) -> None:
    await receiver.store.record(arrival(success()))
    (listed,) = (await api.get("/v1/callbacks", params={"task": TASK})).json()["data"]
    assert listed["body"] is None
    shown = (await api.get(f"/v1/callbacks/{listed['id']}")).json()
    assert '"videoUUID"' in shown["body"]
    assert shown["body_exact"] is True
    assert {name: shown[name] for name in listed if "body" not in name} == {
        name: value for name, value in listed.items() if "body" not in name
    }


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"\xff\x00<script>\x1b[2J", "\\xff\x00<script>\x1b[2J"),
        (b'"%s"' % TOKEN.encode(), '"[redacted]"'),
    ],
)
async def test_the_bytes_of_a_callback_are_given_exactly_and_run_by_nobody(
    receiver: Assembled, api: httpx.AsyncClient, body: bytes, text: str
) -> None:
    await receiver.store.record(arrival(body=body))
    (listed,) = (await api.get("/v1/callbacks")).json()["data"]
    shown = (await api.get(f"/v1/callbacks/{listed['id']}")).json()
    assert (shown["body"], shown["body_exact"]) == (text, False)
    response = await api.get(f"/v1/callbacks/{listed['id']}/body")
    assert (response.status_code, response.content) == (200, body)
    headers = {
        "content-type": "application/octet-stream",
        "content-disposition": f'attachment; filename="{listed["id"]}"',
        "x-content-type-options": "nosniff",
        "content-security-policy": "sandbox; default-src 'none'",
        "cross-origin-resource-policy": "same-origin",
        "cache-control": "no-store",
    }
    assert headers.items() <= response.headers.items()


async def test_a_callback_is_taken_once_more(receiver: Assembled, api: httpx.AsyncClient) -> None:
    # As if an earlier release had not been able to read it.
    await receiver.store.record(arrival(body=wrapped(success()), unreadable="unknown_shape"))
    (listed,) = (await api.get("/v1/callbacks?outcome=quarantined")).json()["data"]
    path = f"/v1/callbacks/{listed['id']}/reprocess"
    refused(await api.post(path, json={"dry": True}), 422, "invalid")
    dry = (await api.post(path, json={"dry_run": True})).json()
    assert dry == listed | {"status": "recorded", "results": 1}
    done = (await api.post(path)).json()
    assert done == dry | {"outcome": "recorded", "reason": None}
    again = (await api.post(path)).json()
    assert again == done | {"status": "duplicate", "results": 0}
    assert (await api.get(f"/v1/tasks/{TASK}")).json()["status"] == "succeeded"
    await api.post(f"/v1/tasks/{TASK}/revoke")
    refused(await api.post(path), 409, "conflict")


async def test_bytes_that_are_not_kept_any_more_can_not_be_taken_again(
    receiver: Assembled, api: httpx.AsyncClient
) -> None:
    await receiver.store.record(arrival(success()))
    receiver.clock.advance(31 * DAY)
    pruned = (await api.post("/v1/prune", json={"dry_run": False})).json()
    assert pruned["bodies"] == 1
    (listed,) = (await api.get("/v1/callbacks")).json()["data"]
    path = f"/v1/callbacks/{listed['id']}"
    shown = (await api.get(path)).json()
    assert (shown["body"], shown["body_exact"], shown["size"]) == (None, None, listed["size"])
    assert "not kept" in refused(await api.get(f"{path}/body"), 404, "not_found")["detail"]
    assert "not kept" in refused(await api.post(f"{path}/reprocess"), 409, "conflict")["detail"]


async def test_what_nobody_registered_and_what_names_no_task_is_listed_and_dropped(
    receiver: Assembled, api: httpx.AsyncClient
) -> None:
    await receiver.store.record(arrival(success()))
    await receiver.store.record(arrival(task_id=None, jti=None, body=b"{"))
    await api.put(f"/v1/tasks/{OTHER}", json={"platform": "runware"})
    for registered, of in (("false", TASK), ("true", OTHER)):
        (found,) = (await api.get(f"/v1/tasks?registered={registered}")).json()["data"]
        assert (found["id"], found["registered"]) == (of, registered == "true")
    (orphan,) = (await api.get("/v1/callbacks?orphan=true")).json()["data"]
    (other,) = (await api.get("/v1/callbacks?orphan=false")).json()["data"]
    assert (orphan["task_id"], orphan["reason"]) == (None, "bad_json")
    assert (await api.delete(f"/v1/callbacks/{orphan['id']}")).status_code == 204
    refused(await api.delete(f"/v1/callbacks/{orphan['id']}"), 404, "not_found")
    refused(await api.delete(f"/v1/callbacks/{other['id']}"), 409, "conflict")
    refused(await api.get("/v1/callbacks?orphan=1"), 422, "invalid")


async def test_a_platforms_echo_of_its_url_is_told_to_nobody(
    receiver: Assembled, api: httpx.AsyncClient
) -> None:
    url = webhook_url(PUBLIC_URL, "runware", TOKEN, {})
    body = wrapped(success(1, webhookURL=url), failure(message=f"could not reach {url}"))
    assert (await receiver.stranger.post(url.removeprefix(PUBLIC_URL), content=body)).is_success
    (listed,) = (await api.get("/v1/callbacks")).json()["data"]
    paths = [f"/v1/callbacks/{listed['id']}", f"/v1/tasks/{TASK}/results"]
    for event in (await api.get("/v1/events")).json()["data"]:
        paths.append(f"/v1/events/{event['id']}")
    for path in paths:
        text = (await api.get(path)).text
        assert TOKEN not in text
        assert "[redacted]" in text
    assert (await api.get(f"/v1/callbacks/{listed['id']}/body")).content == body


async def test_an_event_is_shown_with_its_payload_alone(
    receiver: Assembled, api: httpx.AsyncClient
) -> None:
    await receiver.store.record(arrival(success()))
    query = {"event_type": "task.completed"}
    (listed,) = (await api.get("/v1/events", params=query)).json()["data"]
    assert (listed["payload"], listed["seq"]) == (None, 2)
    shown = (await api.get(f"/v1/events/{listed['id']}")).json()
    assert shown["payload"]["data"]["results"][0]["index"] == 0


async def test_a_delivery_is_shown_with_its_attempts_retried_and_canceled(
    receiver: Assembled, api: httpx.AsyncClient
) -> None:
    await added(api, event_types=["result.*"])
    await receiver.store.record(arrival(success()))
    (claimed,) = await claim(receiver.store)
    path = f"/v1/deliveries/{ids.delivery_id(claimed.event_id, claimed.endpoint_id)}"
    refused(await api.post(f"{path}/retry"), 409, "conflict")
    found = refused(await api.post(f"{path}/cancel"), 409, "conflict")
    assert found["state"] == "sending"
    await receiver.store.settle(settled(claimed, State.DEAD))
    (listed,) = (await api.get("/v1/deliveries?state=dead")).json()["data"]
    assert "attempt_log" not in listed
    assert listed["attempts"] == 1
    shown = (await api.get(path)).json()
    assert [attempt["status"] for attempt in shown["attempt_log"]] == [500]
    assert (await api.post(f"{path}/retry")).json()["state"] == "pending"
    assert (await api.post(f"{path}/cancel")).json()["state"] == "canceled"


# Endpoints


async def test_a_secret_is_shown_once(api: httpx.AsyncClient) -> None:
    made = await added(api, description="mine", rate_limit=5, schedule=[0, 5])
    secret = made["secret"]
    assert secret.startswith("whsec_")
    path = f"/v1/endpoints/{made['id']}"
    for response in (
        await api.get(path),
        await api.get("/v1/endpoints"),
        await api.patch(path, json={"description": "yours"}),
        await api.post(f"{path}/pause"),
        await api.post(f"{path}/resume"),
    ):
        assert response.status_code == 200
        assert "secret" not in response.text
    assert (await added(api))["secret"] != secret


async def test_what_waits_for_an_endpoint_is_canceled_by_hand_in_bounded_steps(
    receiver: Assembled, api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("receiver.admin.ops.endpoints.CANCEL_STEP", 1)
    monkeypatch.setattr("receiver.admin.ops.endpoints.CANCEL_STEPS", 2)
    path = f"/v1/endpoints/{(await added(api, ordered=True))['id']}/cancel"
    assert (await api.post(path)).json() == {"canceled": 0, "more": False}
    await receiver.store.record(arrival(success()))
    assert (await api.post(path)).json() == {"canceled": 2, "more": True}
    assert (await api.post(path)).json() == {"canceled": 0, "more": False}
    assert (await api.post("/v1/endpoints/ep_x/cancel")).status_code == 404


async def test_deleting_an_endpoint_cancels_a_long_queue_step_by_step(
    receiver: Assembled, api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    cancel_queue = receiver.store.cancel_queue

    async def counted(asked: QueueCancel) -> int:
        steps.append(await cancel_queue(asked))
        return steps[-1]

    monkeypatch.setattr("receiver.admin.ops.endpoints.CANCEL_STEP", 1)
    monkeypatch.setattr(receiver.store, "cancel_queue", counted)
    made = await added(api)
    await receiver.store.record(arrival(success()))
    assert (await api.delete(f"/v1/endpoints/{made['id']}")).status_code == 204
    assert steps == [1, 1, 0]
    found = (await api.get("/v1/deliveries")).json()["data"]
    assert [one["state"] for one in found] == ["canceled", "canceled"]


async def test_an_endpoint_is_paused_resumed_disabled_enabled_and_deleted(
    api: httpx.AsyncClient,
) -> None:
    path = f"/v1/endpoints/{(await added(api))['id']}"
    found = []
    for verb in ("pause", "resume", "disable", "enable"):
        shown = (await api.post(f"{path}/{verb}")).json()
        found.append((shown["state"], shown["reason"]))
    assert found == [
        ("paused", "paused by hand"),
        ("enabled", None),
        ("disabled", "disabled by hand"),
        ("enabled", None),
    ]
    assert (await api.delete(path)).status_code == 204
    refused(await api.get(path), 404, "not_found")


async def test_a_patch_keeps_what_it_does_not_name(api: httpx.AsyncClient) -> None:
    made = await added(api, event_types=["result.*"], concurrency=3)
    shown = (await api.patch(f"/v1/endpoints/{made['id']}", json={"concurrency": 4})).json()
    del made["secret"]
    assert shown == {**made, "concurrency": 4, "revision": made["revision"] + 1}


BAD_ENDPOINTS: list[dict[str, Any]] = [
    {"url": "http://example.com/plain"},
    {"url": "https://127.0.0.1/"},
    {"url": "https://169.254.169.254/"},
    {"url": "ftp://example.com"},
    {"url": "nonsense"},
    {"url": ""},
    {"url": None},
    {"event_types": []},
    {"event_types": ["a*b"]},
    {"filters": {"project": "x"}},
    {"headers": {"Host": "x"}},
    {"headers": {"webhook-id": "x"}},
    {"headers": {"a": "b\r\nc: d"}},
    {"rate_limit": 0},
    {"concurrency": 0},
    {"concurrency": "many"},
    {"signatures": ["v1a"]},
    {"event_types": ["result.finished"]},
    {"filters": {"status": "done"}},
    {"headers": {"Connection": "x"}},
    {"headers": {"a": "b\x00"}},
    {"schedule": [-1]},
    {"secret": "whsec_mine"},
    {"state": "disabled"},
    {"nonsense": 1},
]


@pytest.mark.parametrize("wrong", BAD_ENDPOINTS)
async def test_an_endpoint_that_could_never_work_is_not_valid(
    api: httpx.AsyncClient, wrong: dict[str, Any]
) -> None:
    response = await api.post("/v1/endpoints", json={"url": URL, **wrong})
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    made = await added(api)
    response = await api.patch(f"/v1/endpoints/{made['id']}", json=wrong)
    assert response.status_code == 422
    del made["secret"]
    assert (await api.get("/v1/endpoints")).json()["data"] == [made]


async def test_an_endpoint_belongs_to_the_project_that_was_asked_for(
    api: httpx.AsyncClient,
) -> None:
    response = await api.post("/v1/endpoints?project=film", json={"url": URL})
    assert response.json()["project"] == "film"
    assert (await api.get("/v1/endpoints?project=default")).json()["data"] == []


# When something is wrong


async def test_a_body_over_the_cap_is_too_large(api: httpx.AsyncClient) -> None:
    response = await api.put(f"/v1/tasks/{TASK}", content=b" " * (MAX_BODY + 1))
    assert response.status_code == 413


async def test_while_nothing_can_be_stored_the_api_says_so(
    receiver: Assembled, api: httpx.AsyncClient
) -> None:
    await receiver.store._writer.close()
    response = await api.put(f"/v1/tasks/{TASK}", json={"platform": "runware"})
    refused(response, 503, "store_unavailable")
    assert response.headers["retry-after"] == "2"


async def test_an_error_of_ours_tells_nothing_of_itself(
    receiver: Assembled, api: httpx.AsyncClient
) -> None:
    def break_it(tx: Transaction, payloads: Sequence[None]) -> list[None]:
        tx.connection.execute("DROP TABLE attempts")
        return [None for _ in payloads]

    await receiver.store._writer.call(break_it, None)
    await receiver.store.add_endpoint(endpoint())
    await receiver.store.record(arrival(success()))
    (delivery, *_) = (await api.get("/v1/deliveries")).json()["data"]
    response = await api.get(f"/v1/deliveries/{delivery['id']}")
    assert response.status_code in (500, 503)
    assert "attempts" not in response.text
    assert "sqlite" not in response.text


# Reconcile


async def due(receiver: Assembled, task: str = TASK, **fields: Any) -> None:
    """A task that is due for reconcile by hand."""
    body = {"platform": "runware", "expected": 2, **fields}
    assert (await receiver.client.put(f"/v1/tasks/{task}", json=body)).status_code == 201
    answer = await receiver.client.post(f"/v1/tasks/{task}/reconcile")
    assert (answer.status_code, answer.json()["id"]) == (200, task)


async def test_a_due_task_is_claimed_once_with_a_url_for_its_poll(receiver: Assembled) -> None:
    await due(receiver, tags={"a": "b"}, request={"image": "x" * 1_000})
    response = await receiver.client.post("/v1/tasks/claim", json={"limit": 1, "lease_s": 5})
    assert response.status_code == 200
    (claimed,) = response.json()["data"]
    assert (claimed["id"], claimed["expected"], claimed["request"]) == (TASK, 2, None)
    again = await receiver.client.post("/v1/tasks/claim")
    assert again.json()["data"] == []
    posted = await receiver.stranger.post(
        claimed["webhook_url"].removeprefix(PUBLIC_URL), json={"data": [success(), success(2)]}
    )
    assert posted.json() == {"status": "recorded", "results": 2}
    results = (await receiver.client.get(f"/v1/tasks/{TASK}/results")).json()["data"]
    assert [result["source"] for result in results] == ["poll", "poll"]


async def test_what_was_claimed_can_be_handed_back(receiver: Assembled) -> None:
    await due(receiver)
    (claimed,) = (await receiver.client.post("/v1/tasks/claim")).json()["data"]
    release = {"tasks": [TASK.upper()], "lease_until": claimed["lease_until"]}
    for left in (1, 0):
        released = await receiver.client.post("/v1/tasks/release", json=release)
        assert (released.status_code, released.json()) == (200, {"released": left})
    (again,) = (await receiver.client.post("/v1/tasks/claim")).json()["data"]
    assert again["id"] == TASK


@pytest.mark.parametrize(
    "odd",
    [
        {"tasks": []},
        {"tasks": ["x"]},
        {"tasks": [TASK] * 101},
        {"lease_until": "soon"},
        {"lease_until": "1066-10-14T09:00:00Z"},
        {"polled": "perhaps"},
        {"other": 1},
    ],
)
async def test_an_odd_release_is_refused(api: httpx.AsyncClient, odd: dict[str, Any]) -> None:
    release = {"tasks": [TASK], "lease_until": "2026-11-20T19:40:04.120Z", **odd}
    refused(await api.post("/v1/tasks/release", json=release), 422, "invalid")


async def test_a_poll_of_a_task_of_unknown_size_does_not_invent_one(tmp_path: Path) -> None:
    key = "a-static-key-of-more-than-32-characters"
    async with assembled(tmp_path, REELHOOK_STATIC_KEYS=key) as receiver:
        pasted = await receiver.stranger.post(
            f"/webhooks/runware?apiKey={key}", json={"data": [success()]}
        )
        assert pasted.json()["status"] == "recorded"
        await receiver.client.post(f"/v1/tasks/{TASK}/reconcile")
        (claimed,) = (await receiver.client.post("/v1/tasks/claim")).json()["data"]
        door = claimed["webhook_url"].removeprefix(PUBLIC_URL)
        working = {**success(2), "status": "processing"}
        for name in ("videoUUID", "videoURL"):
            del working[name]
        await receiver.stranger.post(door, json={"data": [success(), working]})
        task = (await receiver.client.get(f"/v1/tasks/{TASK}")).json()
        assert (task["expected"], task["status"]) == (None, "partial")
        await receiver.stranger.post(door, json={"data": [success(), success(2)]})
        task = (await receiver.client.get(f"/v1/tasks/{TASK}")).json()
        assert (task["expected"], task["status"], task["succeeded"]) == (None, "succeeded", 2)


@pytest.mark.parametrize(
    "body",
    [
        {"limit": 0},
        {"limit": 101},
        {"lease_s": 4},
        {"lease_s": 601},
        {"limit": "many"},
        {"due_by": "soon"},
        {"due_by": "9999-01-01T00:00:00Z"},
        {"platforms": []},
        {"platforms": "runware"},
        {"platforms": ["runware", "elsewhere"]},
        {"other": 1},
        [],
    ],
)
async def test_an_odd_claim_is_refused(api: httpx.AsyncClient, body: Any) -> None:
    refused(await api.post("/v1/tasks/claim", json=body), 422, "invalid")


async def test_a_claim_gives_out_the_tasks_of_the_platforms_that_it_names(
    receiver: Assembled,
) -> None:
    await due(receiver)
    await due(receiver, OTHER, platform="nanogpt", expected=1, platform_id="vid_m1abc123def456")

    async def claimed(**asked: Any) -> list[tuple[str, str | None]]:
        answer = await receiver.client.post("/v1/tasks/claim", json=asked)
        return [(task["id"], task["platform_id"]) for task in answer.json()["data"]]

    assert await claimed(platforms=["nanogpt"]) == [(OTHER, "vid_m1abc123def456")]
    assert await claimed(platforms=["nanogpt"]) == []
    assert await claimed() == [(TASK, None)]


async def test_a_claim_of_an_unknown_platform_is_told_the_known_ones(
    api: httpx.AsyncClient,
) -> None:
    answer = await api.post("/v1/tasks/claim", json={"platforms": ["elsewhere"]})
    assert "'elsewhere'; known: nanogpt, runware." in answer.json()["detail"]


async def test_what_can_not_be_asked_after_is_not_made_due(receiver: Assembled) -> None:
    await receiver.client.put(f"/v1/tasks/{TASK}", json={"platform": "nanogpt"})
    answer = await receiver.client.post(f"/v1/tasks/{TASK}/reconcile")
    refused(answer, 409, "conflict")
    assert "PATCH it with" in answer.json()["detail"]
    run = {"platform_id": "vid_m1abc123def456"}
    await receiver.client.patch(f"/v1/tasks/{TASK}", json=run)
    assert (await receiver.client.post(f"/v1/tasks/{TASK}/reconcile")).status_code == 200


async def test_a_rejected_task_is_not_reconciled(receiver: Assembled) -> None:
    await due(receiver)
    rejected = {"submit_state": "rejected"}
    await receiver.client.patch(f"/v1/tasks/{TASK}", json=rejected)
    refused(await receiver.client.post(f"/v1/tasks/{TASK}/reconcile"), 409, "conflict")
    assert (await receiver.client.post("/v1/tasks/claim")).json()["data"] == []


async def test_a_claim_gives_out_ones_own_project_alone(receiver: Assembled) -> None:
    await due(receiver, project="film")
    ops = receiver.service.ops
    assert await ops.claim_tasks(Principal("stranger", "music"), TaskClaim()) == []
    (claimed,) = await ops.claim_tasks(Principal("owner", "film"), TaskClaim())
    assert claimed.id == TASK
