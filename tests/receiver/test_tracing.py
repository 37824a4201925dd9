"""`traceparent`: what is one, and how it comes from a task's PUT to each attempt to deliver."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest

from receiver.clock import MINUTE
from receiver.deliveries import Outcome
from receiver.delivery.signing import new_secret, verify
from receiver.store.protocol import Query
from receiver.tracing import child, given, parse, span_of, trace_of
from tests.doubles import LIMIT_S, Assembled, Consumer, Heard, assembled, consuming
from tests.make import TASK, arrival, endpoint, failure, registration, success, wrapped

pytestmark = pytest.mark.anyio

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GIVEN = f"00-{TRACE}-{SPAN}-01"
SECRET = new_secret(bytes(24))
FAILS = b"HTTP/1.1 503 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def test_what_is_kept_of_one() -> None:
    for text, kept in (
        (GIVEN, GIVEN),
        (f"00-{TRACE}-{SPAN}-00", f"00-{TRACE}-{SPAN}-00"),
        (f"00-{TRACE}-{SPAN}-ff", f"00-{TRACE}-{SPAN}-03"),  # reserved flags are not passed on
        (f"cc-{TRACE}-{SPAN}-01", GIVEN),  # of a later version, what we understand of it
        (f"cc-{TRACE}-{SPAN}-01-what-else-there-may-be", GIVEN),
    ):
        assert parse(text) == kept


@pytest.mark.parametrize(
    "text",
    [
        "",
        GIVEN.upper(),
        f"{GIVEN}-00",
        f"{GIVEN}\n",
        f" {GIVEN}",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-0",
        f"00-{TRACE}-{SPAN}",
        f"0٠-{TRACE}-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01-{'x' * 200}",
    ],
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="traceparent"):
        parse(text)
    assert given(text) == (GIVEN if text == f" {GIVEN}" or text == f"{GIVEN}\n" else None)


def test_a_span_of_its_own_in_the_same_trace() -> None:
    made = child(f"00-{TRACE}-{SPAN}-03", bytes(range(8)))
    assert made == f"00-{TRACE}-0001020304050607-03"
    assert (trace_of(made), span_of(made)) == (TRACE, "0001020304050607")
    assert parse(child(GIVEN, bytes(8)))


async def put(receiver: Assembled, body: object = None, header: str | None = None) -> str | None:
    """Register the task; the trace that it has then, or the code of a refusal."""
    asked = {"platform": "runware", "expected": 2} | ({} if body is None else {"traceparent": body})
    headers = {} if header is None else {"traceparent": header, "tracestate": "vendor=secret"}
    answer = await receiver.client.put(f"/v1/tasks/{TASK}", json=asked, headers=headers)
    found: str | None = answer.json().get("code", answer.json().get("traceparent"))
    return found


async def test_a_put_names_the_trace_by_field_or_header_and_only_once(tmp_path: Path) -> None:
    other = f"00-{TRACE[::-1]}-{SPAN}-00"
    async with assembled(tmp_path) as receiver:
        assert await put(receiver, "nonsense") == "invalid"
        assert await put(receiver, GIVEN.upper()) == "invalid"
        assert await put(receiver, header="nonsense") is None
        assert await put(receiver, other, header=GIVEN) == other
        assert await put(receiver, header=GIVEN) == other
        shown = (await receiver.client.get("/v1/tasks")).json()["data"]
        assert [task["traceparent"] for task in shown] == [other]
    async with assembled(tmp_path / "again") as receiver:
        await receiver.store.record(arrival(success(), expected=2))  # it is known before its PUT
        assert await put(receiver, header=GIVEN) == GIVEN


async def test_each_attempt_is_a_span_of_the_tasks_trace(tmp_path: Path) -> None:
    """Over real sockets: a failed attempt, its retry, and an endpoint that named a trace itself."""
    async with (
        consuming() as one,
        consuming() as other,
        assembled(tmp_path, REELHOOK_ALLOW_NETWORKS="127.0.0.0/8") as receiver,
    ):
        one.answer = FAILS
        made = {"url": one.url, "secret": SECRET, "event_types": ["result.*"]}
        assert (await receiver.client.post("/v1/endpoints", json=made)).status_code == 201
        headers = {"Traceparent": "of-the-endpoint", "X-Own": "1"}  # before that was refused
        await receiver.store.add_endpoint(
            endpoint(url=other.url, secret=SECRET, event_types=["result.*"], headers=headers)
        )
        assert await put(receiver, header=GIVEN) == GIVEN
        registered = (await receiver.client.put(f"/v1/tasks/{TASK}", json=ASKED)).json()
        path = registered["webhook_url"].removeprefix("https://hooks.example.com")
        await receiver.stranger.post(path, content=wrapped(success()))
        first = [await sent(receiver, one), await sent(receiver, other)]
        receiver.clock.advance(MINUTE)
        first.append(await sent(receiver, one))
        spans = [heard.headers["traceparent"] for heard in first]
        assert {trace_of(span) for span in spans} == {TRACE}
        assert len({span_of(span) for span in spans} | {SPAN}) == 4
        assert {span[-2:] for span in spans} == {"01"}
        assert first[1].headers["x-own"] == "1"
        assert not any("tracestate" in heard.head.lower() for heard in first)
        for heard in first:
            assert heard.head.lower().count("traceparent") == 1
            assert TRACE.encode() not in heard.body
            timestamp = int(heard.headers["webhook-timestamp"])
            verify([SECRET], heard.headers, heard.body, now=timestamp)
        lines = [line for line in receiver.log if line["event"] == "attempt"]
        assert sorted(line["span"] for line in lines) == sorted(map(span_of, spans))
        assert {(line["trace"], line["task"]) for line in lines} == {(TRACE, TASK)}
        kept = await receiver.store.deliveries(Query())
        for delivery in kept.data:
            log = (await receiver.store.delivery(delivery.id)).attempt_log
            assert log is not None
            assert {attempt.request_headers["traceparent"] for attempt in log} <= {*spans}


ASKED = {"platform": "runware", "expected": 2}


async def sent(receiver: Assembled, consumer: Consumer) -> Heard:
    """What a consumer hears once everything that is due was sent."""
    await receiver.service.worker.tick()
    await receiver.service.worker.drain()
    return await asyncio.wait_for(consumer.heard.get(), LIMIT_S)


async def test_the_one_of_an_endpoint_is_left_out_whatever_its_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed: list[dict[str, str]] = []

    async def send(_url: str, _body: bytes, headers: dict[str, str]) -> Outcome:
        handed.append(headers)
        return Outcome(204, None, "", 1)

    async with assembled(tmp_path) as receiver:
        monkeypatch.setattr(receiver.service.worker, "_sender", SimpleNamespace(send=send))
        headers = {"TraceParent": "x", "TRACESTATE": "y", "X-Own": "1"}
        await receiver.store.add_endpoint(endpoint(secret=SECRET, headers=headers))
        await receiver.store.register(registration(traceparent=GIVEN))
        await receiver.store.record(arrival(success()))
        await receiver.service.worker.tick()
        await receiver.service.worker.drain()
    assert handed
    for found in handed:
        assert {name for name in found if name.lower().startswith("trace")} == {"traceparent"}
        assert found["X-Own"] == "1"


async def test_without_one_nothing_is_made_up(tmp_path: Path) -> None:
    async with (
        consuming() as consumer,
        assembled(tmp_path, REELHOOK_ALLOW_NETWORKS="127.0.0.0/8") as receiver,
    ):
        await receiver.client.post("/v1/endpoints", json={"url": consumer.url})
        await receiver.store.record(arrival(failure()))
        assert "traceparent" not in (await sent(receiver, consumer)).headers
        assert not {"trace", "span"} & {name for line in receiver.log for name in line}


async def test_an_endpoint_can_not_set_it(tmp_path: Path) -> None:
    async with assembled(tmp_path) as receiver:
        for name in ("traceparent", "TraceState"):
            asked = {"url": "https://example.com/hook", "headers": {name: GIVEN}}
            answer = await receiver.client.post("/v1/endpoints", json=asked)
            assert (answer.status_code, answer.json()["parameter"]) == (422, f"headers.{name}")
