"""What the door answers, case by case, over a real store and under a clock that stands still."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import quote

import anyio
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from receiver.clock import DAY, HOUR
from receiver.limits import ALLOWED
from receiver.platforms import PLATFORMS
from receiver.store.protocol import Query, TaskChange
from receiver.tokens import MAX_QUERY, Claims, Source, StrictSigner, TokenBox, webhook_url
from tests.doubles import START, Assembled, assembled
from tests.golden import Golden, golden
from tests.make import (
    KEY,
    OLD_KEY,
    OTHER,
    TASK,
    claims,
    endpoint,
    failure,
    processing,
    registration,
    success,
    uuid,
    wrapped,
)

STATIC = "a-static-key-for-consoles-0123456789"

pytestmark = pytest.mark.anyio


@pytest.fixture
async def receiver(tmp_path: Path) -> AsyncIterator[Assembled]:
    async with assembled(
        tmp_path, REELHOOK_SIGNING_KEYS=f"{KEY},{OLD_KEY}", REELHOOK_STATIC_KEYS=STATIC
    ) as found:
        yield found


def path_of(minted: Claims | None = None, tags: Mapping[str, str] | None = None) -> str:
    minted = minted or claims(tags=tags or {})
    token = TokenBox([KEY]).mint(minted)
    return webhook_url("", minted.platform, token, tags or {})


async def post(
    receiver: Assembled, body: bytes, path: str | None = None, **headers: str
) -> httpx.Response:
    return await receiver.stranger.post(path or path_of(), content=body, headers=headers)


def said(response: httpx.Response) -> Any:
    """The status and the JSON of an acknowledgement."""
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    assert "connection" not in response.headers
    return response.status_code, response.json()


def refused(response: httpx.Response) -> tuple[int, str]:
    """The status and the code of a refusal, which has the form of every other."""
    found = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["connection"] == "close"
    assert response.headers["cache-control"] == "no-store"
    assert found["status"] == response.status_code
    assert {"type", "title", "detail"} <= set(found)
    return response.status_code, found["code"]


async def kept(receiver: Assembled) -> list[str]:
    found = (await receiver.store.callbacks(Query(limit=200))).data
    return [callback.outcome.value for callback in reversed(found)]


# What is acknowledged


async def test_a_new_result_is_recorded(receiver: Assembled) -> None:
    response = await post(receiver, wrapped(success(1), success(2)))
    assert said(response) == (200, {"status": "recorded", "results": 2})
    assert (await receiver.store.task(TASK)).received == 2


async def test_what_was_seen_before_is_a_duplicate(receiver: Assembled) -> None:
    await post(receiver, wrapped(success()))
    for body in (wrapped(success()), json.dumps(success()).encode()):
        assert said(await post(receiver, body)) == (200, {"status": "duplicate"})


async def test_other_content_of_a_result_is_a_conflict(receiver: Assembled) -> None:
    await post(receiver, wrapped(success()))
    response = await post(receiver, wrapped(success(seed=1)))
    assert said(response) == (200, {"status": "conflict"})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"NaN",
        b'{"cost":1e999}',
        b'{"taskUUID":"a","taskUUID":"b"}',
        b'{"seed":' + b"1" * 5_000 + b"}",
        b"[" * 100_000,
        b"null",
        b'"text"',
        b"[]",
        b"\xff",
        '{"a":1}'.encode("utf-16"),
        b'{"data":[{"hello":"world"}]}',
        b'{"data":[{"taskType":"videoInference"}]}',
    ],
)
async def test_an_authentic_body_that_can_not_be_read_is_quarantined_byte_for_byte(
    receiver: Assembled, body: bytes
) -> None:
    await receiver.store.register(registration())
    assert said(await post(receiver, body)) == (200, {"status": "quarantined"})
    (callback,) = (await receiver.store.callbacks(Query(outcome="quarantined"))).data
    assert (callback.size, callback.task_id) == (len(body), TASK)
    assert callback.reason


async def test_work_under_way_is_progress(receiver: Assembled) -> None:
    response = await post(receiver, wrapped(processing(progress=47)))
    assert said(response) == (200, {"status": "progress"})
    assert (await receiver.store.task(TASK)).received == 0


@pytest.mark.parametrize(
    "known", [known for platform in PLATFORMS for known in golden(platform)], ids=str
)
async def test_the_documents_own_examples_are_taken(receiver: Assembled, known: Golden) -> None:
    minted = claims(
        platform=known.platform,
        task=known.task or TASK,
        expected=len(known.items),
        source=known.src,
    )
    response = await post(receiver, known.body, path_of(minted))
    owed = sum(kind in ("succeeded", "failed") for kind in known.kinds)
    nothing = "progress" if "progress" in known.kinds else "quarantined"
    recorded = {"status": "recorded", "results": owed}
    assert said(response)[1] == (recorded if owed else {"status": nothing})
    again = "duplicate" if owed else nothing
    assert said(await post(receiver, known.body, path_of(minted)))[1] == {"status": again}
    found = await receiver.store.results(minted.task)
    assert [result.key for result in found] == [
        item["key"] for item in known.items if "key" in item
    ]


async def test_a_mixed_body_is_recorded_and_its_foreign_items_quarantined(
    receiver: Assembled,
) -> None:
    response = await post(receiver, wrapped(success(), success(2, OTHER)))
    assert said(response) == (200, {"status": "recorded", "results": 1})
    assert sorted(await kept(receiver)) == ["quarantined", "recorded"]
    assert (await receiver.store.tasks(Query())).data[0].id == TASK


async def test_an_item_without_an_id_belongs_to_the_tokens_task(receiver: Assembled) -> None:
    nameless = success()
    del nameless["taskUUID"]
    response = await post(receiver, json.dumps(nameless).encode())
    assert said(response) == (200, {"status": "recorded", "results": 1})
    assert (await receiver.store.task(TASK)).received == 1


async def test_who_speaks_is_what_the_token_says(receiver: Assembled) -> None:
    path = path_of(claims(source=Source.POLL, expected=4))
    await post(receiver, wrapped(success(1)), path)
    task = await receiver.store.task(TASK)
    assert (task.status, task.received, task.expected) == ("succeeded", 1, 4)


async def test_tags_and_project_of_the_token_become_the_tasks(receiver: Assembled) -> None:
    tags = {"projectId": "proj_789", "team": "a b/c"}
    minted = claims(tags=tags, project="film")
    assert (await post(receiver, wrapped(success()), path_of(minted, tags))).status_code == 200
    task = await receiver.store.task(TASK)
    assert (task.tags, task.project) == (tags, "film")


@pytest.mark.parametrize(
    "content_type", [None, "", "text/plain", "application/json; charset=latin-1", "x/y"]
)
async def test_no_content_type_is_asked_for(receiver: Assembled, content_type: str | None) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    response = await post(receiver, wrapped(success()), **headers)
    assert response.status_code == 200


async def test_a_hundred_equal_callbacks_at_once_are_one_result(receiver: Assembled) -> None:
    await receiver.store.add_endpoint(endpoint())
    posts = [post(receiver, wrapped(success())) for _ in range(100)]
    found = [said(response)[1]["status"] for response in await asyncio.gather(*posts)]
    assert (found.count("recorded"), found.count("duplicate")) == (1, 99)
    assert len((await receiver.store.deliveries(Query())).data) == 2


@pytest.mark.parametrize("count", [127, 128, 200, 1_000])
async def test_a_body_with_very_many_items_causes_no_error(receiver: Assembled, count: int) -> None:
    response = await post(receiver, wrapped(*[success(number) for number in range(count)]))
    assert response.status_code in (200, 429)
    assert b"internal" not in response.content


async def test_costs_beyond_any_sum_cause_no_error(receiver: Assembled) -> None:
    found = [success(number, cost=9e11) for number in range(20)]
    response = await post(receiver, wrapped(*found), path_of(claims(expected=20)))
    assert said(response) == (200, {"status": "recorded", "results": 20})
    assert (await receiver.store.task(TASK)).cost == 1_000_000


# What is refused


def bad_queries() -> dict[str, str]:
    token = TokenBox([KEY]).mint(claims())
    body, _, signature = token.partition(".")
    tagged = TokenBox([KEY]).mint(claims(tags={"a": "b"}))
    other = StrictSigner([KEY], "reelhook.session.v1").sign(body).decode()
    return {
        "none": "",
        "empty": "sig=",
        "word": "sig=a",
        "three parts": "sig=a.b.c",
        "dots": "sig=" + "." * 900,
        "5,000 dots": "sig=" + "." * 5_000,
        "twice": f"sig={token}&sig={token}",
        "good then bad": f"sig={token}&sig=x",
        "bad then good": f"sig=x&sig={token}",
        "both kinds": f"sig={token}&apiKey={STATIC}",
        "appended =": f"sig={token}%3D",
        "appended $$$$": f"sig={token}$$$$",
        "another last character": f"sig={token[:-1]}{'A' if token[-1] != 'A' else 'B'}",
        "signature of another": f"sig={body}.{tagged.partition('.')[2]}",
        "payload of another": f"sig={tagged.partition('.')[0]}.{signature}",
        "another salt": f"sig={other}",
        "an unknown key": f"sig={TokenBox(['k' * 40]).mint(claims())}",
        "another platform": f"sig={TokenBox([KEY]).mint(claims(platform='nanogpt'))}",
        "from the future": f"sig={TokenBox([KEY]).mint(claims(issued_at=START + HOUR))}",
        "a tag added": f"sig={token}&a=b",
        "a tag left out": f"sig={tagged}",
        "a tag altered": f"sig={tagged}&a=c",
        "a tag twice": f"sig={tagged}&a=b&a=b",
        "bad utf-8": "sig=%ff%fe",
        "bad utf-8 in a tag": f"sig={tagged}&a=%ff",
        "nul": f"sig={token}%00",
        "60 kB": "sig=" + "A" * 60_000,
        "many fields": f"sig={token}" + "&a=b" * 80,
        "wrong case": f"SIG={token}",
        "in the wrong place": f"token={token}",
        "static key": "apiKey=not-it",
        "static key, empty": "apiKey=",
        "static key, odd": f"apiKey={quote('ä😀')}",
    }


@pytest.mark.parametrize("name", bad_queries())
async def test_whatever_is_wrong_with_the_credential_is_told_in_the_same_words(
    receiver: Assembled, name: str
) -> None:
    expected = await post(receiver, b"{}", "/webhooks/runware")
    assert refused(expected) == (401, "token_refused")
    response = await post(receiver, wrapped(success()), f"/webhooks/runware?{bad_queries()[name]}")
    assert refused(response) == (401, "token_refused")
    assert response.content == expected.content
    names = [answer.headers.pop("x-request-id") for answer in (response, expected)]
    assert len({*names, ""}) == 3
    assert dict(response.headers) == dict(expected.headers)
    assert await kept(receiver) == []


async def test_a_token_of_any_live_key_opens(receiver: Assembled) -> None:
    for number, key in enumerate((KEY, OLD_KEY)):
        url = webhook_url("", "runware", TokenBox([key]).mint(claims()), {})
        assert (await post(receiver, wrapped(success(number)), url)).status_code == 200


async def test_a_clock_that_is_30_seconds_ahead_is_let_in(receiver: Assembled) -> None:
    path = path_of(claims(issued_at=START + 30_000))
    assert (await post(receiver, wrapped(success()), path)).status_code == 200


async def test_an_expired_token_is_gone_and_the_bytes_of_an_open_task_are_kept(
    receiver: Assembled,
) -> None:
    await receiver.store.register(registration())
    receiver.clock.advance(2 * DAY)
    response = await post(receiver, wrapped(success()))
    assert refused(response) == (410, "token_gone")
    assert await kept(receiver) == ["expired"]
    assert (await receiver.store.task(TASK)).received == 0


async def test_an_expired_token_of_an_unknown_task_leaves_nothing(receiver: Assembled) -> None:
    receiver.clock.advance(2 * DAY)
    assert refused(await post(receiver, wrapped(success()))) == (410, "token_gone")
    assert (await receiver.store.tasks(Query())).data == []


async def test_a_revoked_token_is_gone_and_a_fresh_one_is_not(receiver: Assembled) -> None:
    await receiver.store.register(registration())
    await receiver.store.revoke_task(TaskChange(TASK, receiver.clock.advance(5)))
    assert refused(await post(receiver, wrapped(success()))) == (410, "token_gone")
    assert await kept(receiver) == []
    receiver.clock.advance(5)
    path = path_of(claims(issued_at=receiver.clock()))
    assert (await post(receiver, wrapped(success()), path)).status_code == 200


async def test_a_body_about_another_task_is_forbidden(receiver: Assembled) -> None:
    response = await post(receiver, wrapped(success(task=OTHER)))
    assert refused(response) == (403, "foreign_task")
    assert (await receiver.store.tasks(Query())).data == []
    assert await kept(receiver) == []


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_only_a_post_is_allowed(receiver: Assembled, method: str) -> None:
    response = await receiver.stranger.request(method, path_of())
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"
    assert response.headers["connection"] == "close"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert (await receiver.store.tasks(Query())).data == []


@pytest.mark.parametrize(
    "path",
    [
        "/webhooks/runware/",
        "//webhooks/runware",
        "/webhooks//runware",
        "/WEBHOOKS/runware",
        "/webhooks/Runware",
        "/webhooks",
        "/webhooks/",
        "/webhooks/nanogpt2",
        "/webhooks/%2e",
        "/webhooks/runware%00",
    ],
)
async def test_another_path_is_not_there_and_never_a_redirect(
    receiver: Assembled, path: str
) -> None:
    query = path_of().partition("?")[2]
    response = await post(receiver, wrapped(success()), f"{path}?{query}")
    assert response.status_code == 404
    assert "location" not in response.headers
    assert response.headers["content-type"] == "application/problem+json"
    assert query not in response.text


async def test_a_body_over_the_cap_is_too_large(receiver: Assembled) -> None:
    exact = b" " * ((1 << 20) - 2) + b"{}"
    assert said(await post(receiver, exact)) == (200, {"status": "quarantined"})
    assert refused(await post(receiver, exact + b" ")) == (413, "too_large")


async def test_a_body_over_the_cap_is_too_large_without_a_declared_length(
    receiver: Assembled,
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(33):
            yield b" " * (1 << 15)

    response = await receiver.stranger.post(path_of(), content=chunks())
    assert refused(response) == (413, "too_large")
    assert await kept(receiver) == []


@pytest.mark.parametrize("encoding", ["gzip", "br", "GZIP, identity", "x"])
async def test_an_encoded_body_is_refused(receiver: Assembled, encoding: str) -> None:
    response = await post(receiver, wrapped(success()), **{"content-encoding": encoding})
    assert refused(response) == (415, "encoded")
    assert (await post(receiver, b"{}", **{"content-encoding": "identity"})).status_code == 200


async def test_a_form_is_refused(receiver: Assembled) -> None:
    headers = {"content-type": "multipart/form-data; boundary=x"}
    assert refused(await post(receiver, b"--x--", **headers)) == (415, "not_json")


async def test_the_credential_is_looked_at_before_anything_else(receiver: Assembled) -> None:
    response = await post(receiver, b"x", "/webhooks/runware?sig=x", **{"content-encoding": "gzip"})
    assert refused(response) == (401, "token_refused")


async def test_bodies_that_record_nothing_are_bounded_but_never_an_owed_result(
    receiver: Assembled,
) -> None:
    found = [(await post(receiver, b"%d{" % number)).status_code for number in range(12)]
    assert found == [200] * 10 + [429] * 2
    response = await post(receiver, b"12{")
    assert refused(response) == (429, "too_many")
    assert int(response.headers["retry-after"]) > 0
    assert (await post(receiver, wrapped(success()))).status_code == 200
    assert (await post(receiver, b"0{")).status_code == 200


async def test_who_guesses_credentials_has_to_wait_and_who_has_one_does_not(
    receiver: Assembled,
) -> None:
    for _ in range(ALLOWED):
        assert (await post(receiver, b"{}", "/webhooks/runware?sig=x")).status_code == 401
    response = await post(receiver, b"{}", "/webhooks/runware?sig=x")
    assert refused(response) == (429, "too_many")
    assert response.headers["retry-after"] == "61"
    assert (await post(receiver, wrapped(success()))).status_code == 200
    receiver.clock.advance(60_000)
    assert (await post(receiver, b"{}", "/webhooks/runware?sig=x")).status_code == 401


async def ask_without_body(receiver: Assembled, path: str) -> tuple[int, str]:
    """What is answered to a head alone; reading on is a failure of the test."""
    sent: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("the body was asked for")

    async def send(message: Any) -> None:
        sent.append(message)

    where, _, query = path.partition("?")
    scope = {
        "type": "http",
        "method": "POST",
        "path": where,
        "path_params": {"platform": "runware"},
        "query_string": query.encode(),
        "headers": [(b"content-length", b"1000000")],
        "client": ("203.0.113.7", 1),
    }
    await receiver.service.ingest(scope, receive, send)
    headers = dict(sent[0]["headers"])
    assert (headers[b"retry-after"], headers[b"connection"]) == (b"2", b"close")
    return sent[0]["status"], receiver.log[-1]["outcome"]


async def test_what_there_is_no_room_for_is_refused_before_its_body(receiver: Assembled) -> None:
    writer, place = receiver.store._writer, receiver.store._place
    with patch.object(writer, "_capacity", 0):
        assert await ask_without_body(receiver, path_of()) == (503, "store_saturated")
    with patch.object(writer, "_most_held", 0):
        assert await ask_without_body(receiver, path_of()) == (503, "store_saturated")
    with patch.object(place, "_least_free", 1 << 62):
        assert await ask_without_body(receiver, path_of()) == (503, "store_full")
    await receiver.store.close()
    assert await ask_without_body(receiver, path_of()) == (503, "store_unavailable")


async def test_who_has_no_credential_learns_nothing_of_the_store(receiver: Assembled) -> None:
    await receiver.store.close()
    assert refused(await post(receiver, b"{}", "/webhooks/runware?sig=x")) == (401, "token_refused")


async def test_while_nothing_can_be_stored_nothing_is_acknowledged(receiver: Assembled) -> None:
    await receiver.store.close()
    response = await post(receiver, wrapped(success()))
    assert refused(response) == (503, "store_unavailable")
    assert int(response.headers["retry-after"]) > 0
    await receiver.store._readers.open()  # what the fixture closes


# Static keys


async def test_a_static_key_takes_the_task_from_the_body(receiver: Assembled) -> None:
    path = f"/webhooks/runware?apiKey={STATIC}&team=a"
    response = await post(receiver, wrapped(success(1), success(2, OTHER)), path)
    assert said(response) == (200, {"status": "recorded", "results": 2})
    for task in (TASK, OTHER):
        found = await receiver.store.task(task)
        assert (found.received, found.expected, found.status) == (1, None, "partial")
        assert found.tags == {"team": "a"}
    (first, *_) = (await receiver.store.callbacks(Query())).data
    assert first.jti is None


async def test_a_static_keys_task_has_the_size_that_was_registered(receiver: Assembled) -> None:
    await receiver.store.register(registration(expected=1))
    await post(receiver, wrapped(success()), f"/webhooks/runware?apiKey={STATIC}")
    assert (await receiver.store.task(TASK)).status == "succeeded"


@pytest.mark.parametrize(
    "body", [b"{", b"[]", wrapped({"status": "success", "videoUUID": uuid(1)}),
             wrapped(success(task="no-uuid")), wrapped(success(task="x" * 10_000)),
             wrapped(success(task=f"{TASK[:-4]}-{TASK[-4:]}")), wrapped(success(task="-" * 36))]
)  # fmt: skip
async def test_with_a_static_key_a_body_without_a_task_is_kept_apart(
    receiver: Assembled, body: bytes
) -> None:
    response = await post(receiver, body, f"/webhooks/runware?apiKey={STATIC}")
    assert said(response) == (200, {"status": "quarantined"})
    (callback,) = (await receiver.store.callbacks(Query())).data
    assert callback.task_id is None


@pytest.mark.parametrize("query", ["apiKey", "sig"])
@pytest.mark.parametrize("spelling", [TASK.replace("-", ""), TASK.upper()])
async def test_a_task_may_be_spelled_otherwise_by_the_platform(
    receiver: Assembled, query: str, spelling: str
) -> None:
    path = f"/webhooks/runware?apiKey={STATIC}" if query == "apiKey" else path_of()
    for number, task in enumerate((TASK, spelling)):
        response = await post(receiver, wrapped(success(number, task)), path)
        assert said(response) == (200, {"status": "recorded", "results": 1})
    assert (await receiver.store.task(TASK)).received == 2


async def test_static_keys_are_off_unless_they_are_set(tmp_path: Path) -> None:
    async with assembled(tmp_path) as receiver:
        for key in (STATIC, "", "None"):
            path = f"/webhooks/runware?apiKey={key}"
            assert refused(await post(receiver, b"{}", path)) == (401, "token_refused")


# What nobody may ever see


async def test_no_credential_is_logged_stored_or_shown(
    receiver: Assembled, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    token = TokenBox([KEY]).mint(claims())
    path = f"/webhooks/runware?sig={token}"
    for body in (wrapped(success()), wrapped(failure()), b"{", wrapped(success(seed=2))):
        assert (await post(receiver, body, path)).status_code == 200
    await post(receiver, b"{}", f"{path}x")
    await post(receiver, b"{}", f"/webhooks/runware?apiKey={STATIC}")
    (callback, *_) = (await receiver.store.callbacks(Query())).data
    paths = ["tasks", f"tasks/{TASK}", f"tasks/{TASK}/results", "callbacks", "events", "deliveries"]
    paths.append(f"callbacks/{callback.id}")
    shown = [(await receiver.client.get(f"/v1/{path}")).text for path in paths]
    await receiver.store.ready()
    files = [await anyio.Path(tmp_path, name).read_bytes() for name in os.listdir(tmp_path)]
    logged = [record.getMessage() for record in caplog.records if record.name != "httpx"]
    everything = "\n".join([str(receiver.log), *shown, *logged])
    for secret in (token, token.partition(".")[2], STATIC, KEY):
        assert secret not in everything
        assert not any(secret.encode() in content for content in files)
    assert claims().jti.hex() in str(receiver.log)


async def test_each_request_is_one_line_with_its_outcome_task_and_jti(
    receiver: Assembled,
) -> None:
    await post(receiver, wrapped(success()))
    await post(receiver, b"{}", "/webhooks/runware?sig=x")
    taken, denied = receiver.log
    assert (taken["event"], taken["outcome"], taken["status"]) == ("callback", "recorded", 200)
    assert (taken["task"], taken["jti"]) == (TASK, claims().jti.hex())
    assert (denied["outcome"], denied["status"]) == ("token_malformed", 401)
    assert "jti" not in denied


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(query=st.text(max_size=MAX_QUERY), body=st.binary(max_size=300), good=st.booleans())
def test_no_request_ever_causes_an_error_of_ours(
    tmp_path_factory: pytest.TempPathFactory, query: str, body: bytes, good: bool
) -> None:
    async def ask() -> int:
        async with assembled(tmp_path_factory.mktemp("receiver")) as receiver:
            path = path_of() if good else f"/webhooks/runware?{quote(query, safe='=&%')}"
            return (await post(receiver, body, path)).status_code

    assert asyncio.run(ask()) in ((200,) if good else (401,))
