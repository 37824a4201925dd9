"""API tokens over the API: made, used, lapsed, taken back, and what each scope may do."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from receiver import ids
from receiver.access import Scope
from receiver.admin.api import Api
from receiver.admin.auth import Auth
from receiver.admin.routes.rows import Row
from receiver.clock import HOUR, to_datetime
from tests.doubles import START, Assembled, assembled, reaching
from tests.make import TASK
from tests.receiver.test_api import refused

pytestmark = pytest.mark.anyio


@pytest.fixture
async def receiver(tmp_path: Path) -> AsyncIterator[Assembled]:
    async with assembled(tmp_path) as found:
        yield found


async def made(receiver: Assembled, scope: str = "admin", **asked: Any) -> dict[str, Any]:
    """An API token, as the answer that alone has its text."""
    body = {"name": f"a {scope}", "scope": scope, **asked}
    response = await receiver.client.post("/v1/api-tokens", json=body)
    assert response.status_code == 201, response.text
    found: dict[str, Any] = response.json()
    return found


def holding(receiver: Assembled, token: str) -> AbstractAsyncContextManager[httpx.AsyncClient]:
    return reaching(receiver.door, token)


def table(receiver: Assembled) -> list[Row]:
    return [*Api(receiver.service.ops, cast(Auth, None)).table()]


async def listed(receiver: Assembled) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await receiver.client.get("/v1/api-tokens")).json()["data"]
    return found


async def test_a_token_is_shown_once_and_opens_the_door(receiver: Assembled) -> None:
    token = await made(receiver, "submit", project="film")
    text = token.pop("token")
    assert re.fullmatch(r"rhk_[0-9a-hjkmnp-tv-z]{52}", text)
    assert token == {
        "id": token["id"],
        "name": "a submit",
        "scope": "submit",
        "project": "film",
        "hint": text[-4:],
        "created_at": "2026-09-21T14:13:20Z",
        "created_by": "admin",
        "expires_at": None,
        "last_used_at": None,
    }
    assert await listed(receiver) == [token]
    async with holding(receiver, text) as client:
        assert (await client.get("/v1/tasks")).status_code == 200
    for path in receiver.store.path.parent.iterdir():
        assert text.encode() not in path.read_bytes()
    lines = [line for line in receiver.log if line.get("route") == "/v1/tasks"]
    assert lines[-1]["principal"] == token["id"]
    assert text not in str(receiver.log)


async def test_no_two_tokens_are_the_same(receiver: Assembled) -> None:
    assert len({(await made(receiver))["token"] for _ in range(3)}) == 3


@pytest.mark.parametrize("odd", ["rhk_", "rhk_x", "tok_1", "rhk_" + "0" * 52, "rhk_" + "ä" * 52])
async def test_what_is_no_token_opens_nothing(receiver: Assembled, odd: str) -> None:
    await made(receiver)
    headers = [(b"authorization", f"Bearer {odd}".encode())]
    response = await receiver.stranger.get("/v1/tasks", headers=headers)
    refused(response, 401, "unauthenticated")


async def test_a_token_that_is_deleted_opens_nothing_from_then_on(receiver: Assembled) -> None:
    token = await made(receiver)
    async with holding(receiver, token["token"]) as client:
        assert (await client.get("/v1/tasks")).status_code == 200
        gone = await receiver.client.delete(f"/v1/api-tokens/{token['id']}")
        assert (gone.status_code, gone.content) == (204, b"")
        refused(await client.get("/v1/tasks"), 401, "unauthenticated")
    again = await receiver.client.delete(f"/v1/api-tokens/{token['id']}")
    refused(again, 404, "not_found")


async def test_a_token_lapses(receiver: Assembled) -> None:
    token = await made(receiver, expires_at=to_datetime(START + HOUR).isoformat())
    async with holding(receiver, token["token"]) as client:
        receiver.clock.advance(HOUR - 1)
        assert (await client.get("/v1/tasks")).status_code == 200
        receiver.clock.advance(1)
        refused(await client.get("/v1/tasks"), 401, "unauthenticated")
    assert [found["id"] for found in await listed(receiver)] == [token["id"]]


async def test_when_a_token_was_used_is_noted_now_and_then(receiver: Assembled) -> None:
    token = await made(receiver)
    async with holding(receiver, token["token"]) as client:
        for _ in range(3):
            receiver.clock.advance(1_000)
            await client.get("/v1/tasks")
    (before,) = await listed(receiver)
    await receiver.service.ops.tidy()
    (after,) = await listed(receiver)
    assert (before["last_used_at"], after["last_used_at"]) == (None, "2026-09-21T14:13:23Z")


async def test_a_use_that_could_not_be_noted_is_noted_later(receiver: Assembled) -> None:
    token = await made(receiver)
    async with holding(receiver, token["token"]) as client:
        await client.get("/v1/tasks")
    ops = receiver.service.ops
    noted = ops.store.note_token_uses

    async def fail(uses: Any) -> None:
        raise OSError

    ops.store.note_token_uses = fail  # type: ignore[method-assign]
    with pytest.raises(OSError):
        await ops.tidy()
    ops.store.note_token_uses = noted  # type: ignore[method-assign]
    await ops.tidy()
    assert (await listed(receiver))[0]["last_used_at"] is not None


@pytest.mark.parametrize(
    "odd",
    [
        {"name": ""},
        {"name": "x" * 101},
        {"name": "a\nb"},
        {"scope": "root"},
        {"scope": None},
        {"project": "a b"},
        {"project": ""},
        {"expires_at": "soon"},
        {"expires_at": "2020-01-01T00:00:00Z"},
        {"expires_at": "9999-01-01T00:00:00Z"},
        {"token": "rhk_mine"},
    ],
)
async def test_an_odd_token_is_refused(receiver: Assembled, odd: dict[str, Any]) -> None:
    body = {"name": "ci", "scope": "read", **odd}
    refused(await receiver.client.post("/v1/api-tokens", json=body), 422, "invalid")


# Scopes


@pytest.mark.parametrize("scope", [*Scope])
async def test_each_route_lets_in_its_scopes_alone(receiver: Assembled, scope: Scope) -> None:
    token = await made(receiver, scope)
    absent = {"id": ids.ENDPOINT + ids.encode(1)}
    async with holding(receiver, token["token"]) as client:
        for row in table(receiver):
            if scope in row.scopes and row.path.endswith("/stream"):
                continue  # it would go on for ever
            response = await client.request(row.method, row.path.format(**absent), json={"x": 1})
            allowed = scope in row.scopes
            assert (response.status_code != 403) == allowed, (row.method, row.path)
            if not allowed:
                found = refused(response, 403, "forbidden")
                assert scope in found["detail"]
                assert found["scopes"] == sorted(row.scopes)


async def test_a_submitter_needs_no_more_than_its_scope(receiver: Assembled) -> None:
    token = await made(receiver, "submit")
    async with holding(receiver, token["token"]) as client:
        path = f"/v1/tasks/{TASK}"
        asked = {"platform": "runware", "expected": 2}
        assert (await client.put(path, json=asked)).status_code == 201
        assert (await client.patch(path, json={"submit_state": "submitted"})).status_code == 200
        assert (await client.get(path)).status_code == 200
        assert (await client.get(f"{path}/results")).status_code == 200
        assert (await client.post(f"{path}/reconcile")).status_code == 200
        (claimed,) = (await client.post("/v1/tasks/claim")).json()["data"]
        release = {"tasks": [TASK], "lease_until": claimed["lease_until"]}
        assert (await client.post("/v1/tasks/release", json=release)).status_code == 200
        for path in ("/v1/endpoints", "/v1/callbacks", "/v1/audit", "/v1/api-tokens"):
            refused(await client.get(path), 403, "forbidden")
        refused(await client.delete(f"/v1/tasks/{TASK}"), 403, "forbidden")


# Projects


async def test_a_projects_admin_makes_tokens_of_that_project_alone(receiver: Assembled) -> None:
    everywhere, elsewhere = await made(receiver), await made(receiver, project="music")
    owner = await made(receiver, project="film")
    async with holding(receiver, owner["token"]) as client:
        body = {"name": "x", "scope": "admin"}
        mine = await client.post("/v1/api-tokens", json=body)
        assert (mine.status_code, mine.json()["project"]) == (201, "film")
        assert mine.json()["created_by"] == owner["id"]
        other = await client.post("/v1/api-tokens", json={**body, "project": "music"})
        refused(other, 403, "forbidden")
        seen = (await client.get("/v1/api-tokens")).json()["data"]
        assert [token["id"] for token in seen] == [mine.json()["id"], owner["id"]]
        refused(await client.get("/v1/api-tokens?project=music"), 403, "forbidden")
        for foreign in (everywhere, elsewhere):
            gone = await client.delete(f"/v1/api-tokens/{foreign['id']}")
            refused(gone, 404, "not_found")


async def test_a_refusal_names_the_request(receiver: Assembled) -> None:
    for given in ("a-name-of-a-proxys", None):
        headers = {} if given is None else {"x-request-id": given}
        response = await receiver.client.get("/v1/tasks/x", headers=headers)
        found = refused(response, 404, "not_found")
        assert found["request_id"] == response.headers["x-request-id"]
        assert given in (None, found["request_id"])
