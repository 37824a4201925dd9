"""Hostile and broken requests, byte by byte, against a receiver that runs as its own process.

Not here: what the connection itself refuses and how long it waits, see test_connection.py.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from receiver.clock import wall_clock
from receiver.tokens import TokenBox, webhook_url
from tests.doubles import ADMIN_TOKEN, LIMIT_S, Running, Wire, running, wire
from tests.make import KEY, claims, failure, success, uuid, wrapped

pytestmark = [pytest.mark.anyio, pytest.mark.process]

_numbers = count(1)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("receiver")) as found:
        yield found
        log = found.stderr()
        assert "Traceback" not in log
        assert "eyJ" not in log  # how each token begins


@pytest.fixture
async def api(served: Running) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": f"Bearer {ADMIN_TOKEN}"}
    async with httpx.AsyncClient(base_url=served.ready["url"], headers=headers) as found:
        yield found


class Target:
    """A task of its own for each test, and the path of its signed URL."""

    def __init__(self, **changes: Any) -> None:
        self.task = uuid(next(_numbers))
        now = wall_clock()
        minted = claims(task=self.task, issued_at=now, expires_at=now + 86_400_000, **changes)
        self.path = webhook_url("", "runware", TokenBox([KEY]).mint(minted), {})

    def body(self, number: int = 1) -> bytes:
        return wrapped(success(number, self.task))

    def post(self, body: bytes | None = None, *headers: bytes, path: str | None = None) -> bytes:
        """A whole request, with a length that is right."""
        content = self.body() if body is None else body
        return self.head(b"Content-Length: %d" % len(content), *headers, path=path) + content

    def head(self, *headers: bytes, method: str = "POST", path: str | None = None) -> bytes:
        lines = [f"{method} {path or self.path} HTTP/1.1".encode(), b"Host: x", *headers]
        return b"\r\n".join(lines) + b"\r\n\r\n"

    async def received(self, api: httpx.AsyncClient) -> int | None:
        """How many results the task has; None when nobody has heard of it."""
        response = await api.get(f"/v1/tasks/{self.task}")
        return int(response.json()["received"]) if response.status_code == 200 else None


@pytest.fixture
def target() -> Target:
    return Target()


@pytest.fixture
async def line(served: Running) -> AsyncIterator[Wire]:
    async with wire(served.port) as found:
        yield found


def only_refused(answer: Any, status: int, code: str) -> None:
    assert (answer.status, answer.json["code"]) == (status, code)
    assert answer.closes
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_callback_is_recorded_and_the_connection_stays(
    line: Wire, target: Target, api: httpx.AsyncClient
) -> None:
    await line.send(target.post())
    answer = await line.answer()
    assert (answer.status, answer.json) == (200, {"status": "recorded", "results": 1})
    assert not answer.closes
    await line.send(target.post())
    assert (await line.answer()).json == {"status": "duplicate"}
    assert await target.received(api) == 1


async def test_pipelined_callbacks_are_answered_in_order_and_all_recorded(
    line: Wire, api: httpx.AsyncClient
) -> None:
    target = Target(expected=3)
    await line.send(b"".join(target.post(target.body(number)) for number in (1, 2, 1)))
    found = [(await line.answer()).json["status"] for _ in range(3)]
    assert found == ["recorded", "recorded", "duplicate"]
    assert await target.received(api) == 2


@pytest.mark.parametrize(
    ("headers", "path", "status", "code"),
    [
        ([], "/webhooks/runware", 401, "token_refused"),
        ([], "/webhooks/runware?sig=" + "A" * 5_000, 401, "token_refused"),
        ([], "/webhooks/runware?sig=" + "A" * 60_000, 414, "target_too_long"),
        ([], "/webhooks/other", 404, "unknown_platform"),
        ([b"Content-Encoding: gzip"], None, 415, "encoded"),
        ([b"Content-Type: multipart/form-data; boundary=x"], None, 415, "not_json"),
    ],
)
async def test_after_a_refusal_the_body_is_not_read_and_nothing_more_is_answered(
    line: Wire,
    target: Target,
    api: httpx.AsyncClient,
    headers: list[bytes],
    path: str | None,
    status: int,
    code: str,
) -> None:
    await line.send(target.post(target.body(), *headers, path=path) + target.post())
    only_refused(await line.answer(), status, code)
    assert await line.ended() == b""
    assert await target.received(api) is None


async def test_a_url_of_100_kb_is_refused_by_the_parser(line: Wire, target: Target) -> None:
    await line.send(target.post(path="/webhooks/runware?sig=" + "A" * 100_000))
    answer = await line.answer()
    assert answer.status in (400, 401, 414, 431)
    assert answer.closes
    assert await line.ended() == b""


@pytest.mark.parametrize("length", [(1 << 20) + 1, 10 * 10**9, 2**63 - 1])
async def test_a_declared_length_over_the_cap_is_refused_at_once(
    line: Wire, target: Target, length: int
) -> None:
    await line.send(target.head(b"Content-Length: %d" % length))
    only_refused(await line.answer(), 413, "too_large")
    assert await line.ended() == b""


async def test_no_continue_is_sent_for_a_body_that_will_not_be_taken(
    line: Wire, target: Target
) -> None:
    await line.send(target.head(b"Content-Length: 9999999", b"Expect: 100-continue"))
    only_refused(await line.answer(), 413, "too_large")


async def test_a_continue_is_sent_for_a_body_that_will(line: Wire, target: Target) -> None:
    body = target.body()
    await line.send(target.head(b"Content-Length: %d" % len(body), b"Expect: 100-continue"))
    assert (await line.answer()).status == 100
    await line.send(body)
    assert (await line.answer()).status == 200


async def test_a_chunked_body_is_read(line: Wire, target: Target, api: httpx.AsyncClient) -> None:
    body = target.body()
    chunks = b"".join(b"%x\r\n%s\r\n" % (1, body[n : n + 1]) for n in range(len(body)))
    await line.send(target.head(b"Transfer-Encoding: chunked") + chunks + b"0\r\n\r\n")
    assert (await line.answer()).status == 200
    assert await target.received(api) == 1


async def test_a_chunked_body_over_the_cap_is_cut_off(
    line: Wire, target: Target, api: httpx.AsyncClient
) -> None:
    await line.send(target.head(b"Transfer-Encoding: chunked"))
    # A sender that goes on sending may meet the closed connection before it reads the answer.
    with suppress(ConnectionError, asyncio.IncompleteReadError):
        for _ in range(20):
            await line.send(b"%x\r\n%s\r\n" % (1 << 16, b" " * (1 << 16)))
        only_refused(await line.answer(), 413, "too_large")
        await line.ended()
    assert await target.received(api) is None


async def test_a_compressed_bomb_is_refused_unread(line: Wire, target: Target) -> None:
    bomb = gzip.compress(b" " * (1 << 25))
    await line.send(target.head(b"Content-Length: %d" % len(bomb), b"Content-Encoding: gzip"))
    only_refused(await line.answer(), 415, "encoded")


async def test_a_header_that_comes_twice_counts_twice(served: Running, target: Target) -> None:
    cases = [
        (b"Content-Type: application/json", b"Content-Type: text/plain", 200),
        (b"Content-Type: application/json", b"Content-Type: multipart/form-data", 415),
        (b"Content-Encoding: identity", b"Content-Encoding: identity", 200),
        (b"Content-Encoding: identity", b"Content-Encoding: gzip", 415),
        (b"Content-Encoding: gzip", b"Content-Encoding: identity", 415),
    ]
    for one, other, status in cases:
        async with wire(served.port) as line:
            await line.send(target.post(None, one, other))
            assert (await line.answer()).status == status


async def test_a_header_of_100_mb_takes_no_memory(served: Running, target: Target) -> None:
    def resident() -> int:
        status = Path(f"/proc/{served.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0])  # kB, the most it ever was

    async with wire(served.port) as line:
        await line.send(target.post())
        await line.answer()
        before = resident()
        await line.send(target.head()[:-2] + b"X: ")
        with suppress(ConnectionError):
            async with asyncio.timeout(LIMIT_S):
                for _ in range(1_000):
                    await line.send(b"a" * 100_000)
                    if line.writer.is_closing():
                        break
    assert resident() - before < 10_000


async def test_a_client_of_the_api_that_leaves_in_the_middle_of_its_body_is_no_error(
    served: Running, target: Target
) -> None:
    token = f"Authorization: Bearer {ADMIN_TOKEN}".encode()
    async with wire(served.port) as line:
        path = f"/v1/tasks/{target.task}"
        head = target.head(token, b"Content-Length: 500", method="PUT", path=path)
        await line.send(head + b'{"platform":')
        line.writer.write_eof()
        assert await line.ended() == b""  # and the fixture looks for a traceback


async def test_a_head_has_no_body_and_an_options_no_effect(
    served: Running, target: Target, api: httpx.AsyncClient
) -> None:
    for method in ("HEAD", "OPTIONS", "GET", "PUT", "DELETE"):
        async with wire(served.port) as line:
            await line.send(target.head(method=method))
            answer = await line.answer(head=method == "HEAD")
            assert (answer.status, answer.headers["allow"]) == (405, "POST")
            assert answer.closes
            assert await line.ended() == b""
    assert await target.received(api) is None


async def test_raw_bytes_in_the_query_open_nothing(line: Wire, target: Target) -> None:
    await line.send(target.head(b"Content-Length: 0").replace(b"?sig=", b"?sig=\xff"))
    answer = await line.answer()
    assert answer.status in (400, 401)
    assert answer.closes


SMUGGLED = {
    "length and chunked": [b"Content-Length: 5", b"Transfer-Encoding: chunked"],
    "chunked and length": [b"Transfer-Encoding: chunked", b"Content-Length: 5"],
    "two lengths": [b"Content-Length: 5", b"Content-Length: 6"],
    "a length with a sign": [b"Content-Length: +5"],
    "a negative length": [b"Content-Length: -5"],
    "a length in hexadecimal": [b"Content-Length: 0x5"],
    "a huge length": [b"Content-Length: " + b"9" * 400],
    "an unknown coding": [b"Transfer-Encoding: xchunked"],
    "chunked not last": [b"Transfer-Encoding: chunked, identity"],
    "a space before the colon": [b"Content-Length : 5"],
    "NUL in a header": [b"Content-Length: 5", b"X: a\x00b"],
    "a bare CR in a header": [b"Content-Length: 5", b"X: a\rb"],
    "no header at all": [b"Content-Length: 5", b"nonsense"],
    "an escape in a header": [b"Content-Length: 5", b"X-Forwarded-For: \x1b[31m"],
}


@pytest.mark.parametrize("name", SMUGGLED)
async def test_a_request_of_doubtful_length_is_refused_and_nothing_after_it_answered(
    line: Wire, target: Target, api: httpx.AsyncClient, name: str
) -> None:
    await line.send(target.head(*SMUGGLED[name]) + b"{   }" + target.post())
    answer = await line.answer()
    assert answer.status == 400
    assert answer.closes
    assert await line.ended() == b""
    assert await target.received(api) is None


@pytest.mark.parametrize(
    "chunks", [b"0x5\r\n{   }\r\n0\r\n\r\n", b"-1\r\n", b"g\r\n", b"5;\n{   }"]
)
async def test_broken_chunks_record_nothing(
    line: Wire, target: Target, api: httpx.AsyncClient, chunks: bytes
) -> None:
    await line.send(target.head(b"Transfer-Encoding: chunked") + chunks + target.post())
    rest = await line.ended()
    assert rest == b"" or rest.startswith(b"HTTP/1.1 400")
    assert rest.count(b"HTTP/1.1") <= 1
    assert await target.received(api) is None


@pytest.mark.parametrize(
    "host", [None, b"Host: a/b?c#d", b"Host: a\r\nHost: b", b"Host:", b"Host: evil.example"]
)
async def test_the_host_header_opens_nothing_and_decides_nothing(
    line: Wire, target: Target, host: bytes | None
) -> None:
    lines = b"" if host is None else host + b"\r\n"
    await line.send(target.post().replace(b"Host: x\r\n", lines))
    answer = await line.answer()
    assert answer.status in (200, 400)
    assert b"evil" not in answer.body


async def test_an_absolute_form_is_routed_by_its_path(line: Wire, target: Target) -> None:
    await line.send(target.post(path=f"http://evil.example{target.path}"))
    assert (await line.answer()).status == 200


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x00" * 100,
        b"GET\r\n\r\n",
        b"POST / HTTP/9.9\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_closed(line: Wire, garbage: bytes) -> None:
    await line.send(garbage)
    rest = await line.ended()
    assert rest == b"" or rest.startswith(b"HTTP/1.1 400")


async def test_an_upgrade_is_no_way_in(line: Wire, target: Target, api: httpx.AsyncClient) -> None:
    upgrade = [b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13"]
    key = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    await line.send(target.head(*upgrade, key, method="GET"))
    assert (await line.answer()).status == 405
    assert await target.received(api) is None


async def test_a_client_that_leaves_in_the_middle_of_its_body_leaves_nothing(
    served: Running, target: Target, api: httpx.AsyncClient
) -> None:
    for how in ("fin", "rst"):
        async with wire(served.port) as line:
            await line.send(target.head(b"Content-Length: 500") + b'{"data":')
            if how == "fin":
                line.writer.write_eof()
            else:
                found = line.writer.get_extra_info("socket")
                found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                line.writer.close()
            await line.ended()
    assert await target.received(api) is None


async def test_a_client_that_does_not_wait_for_the_answer_is_recorded_once(
    served: Running, target: Target
) -> None:
    async with wire(served.port) as line:
        await line.send(target.post())
        line.writer.write_eof()
    async with wire(served.port) as line:
        await line.send(target.post())
        assert (await line.answer()).status == 200
        await line.send(target.post())
        assert (await line.answer()).json == {"status": "duplicate"}


async def test_equal_callbacks_on_many_connections_are_one_result(
    served: Running, api: httpx.AsyncClient
) -> None:
    target = Target(expected=2)

    async def post() -> str:
        async with wire(served.port) as line:
            await line.send(target.post())
            return str((await line.answer()).json["status"])

    found = await asyncio.gather(*[post() for _ in range(50)])
    assert sorted(set(found)) == ["duplicate", "recorded"]
    assert found.count("recorded") == 1
    assert await target.received(api) == 1


async def test_a_forwarded_address_is_believed_of_the_trusted_proxy_alone(
    served: Running, api: httpx.AsyncClient
) -> None:
    seen = {}
    for source in ("127.0.0.1", "127.0.0.9"):
        target = Target()
        async with wire(served.port, source) as line:
            await line.send(target.post(None, b"X-Forwarded-For: 203.0.113.7"))
            assert (await line.answer()).status == 200
        found = await api.get("/v1/callbacks", params={"task": target.task})
        seen[source] = found.json()["data"][0]["remote"]
    assert seen == {"127.0.0.1": "203.0.113.7", "127.0.0.9": "127.0.0.9"}


@pytest.mark.parametrize(
    "value", [b"", b",,,", b"[", b"x" * 5_000, b"1.2.3.4:x", b"\xff\x9b31m", b"a, " * 3_000]
)
async def test_garbage_in_a_forwarded_address_does_no_harm(
    line: Wire, target: Target, api: httpx.AsyncClient, value: bytes
) -> None:
    await line.send(target.post(None, b"X-Forwarded-For: " + value))
    assert (await line.answer()).status == 200
    found = await api.get("/v1/callbacks", params={"task": target.task})
    assert found.status_code == 200


async def test_ten_thousand_forwarded_addresses_are_too_many(line: Wire, target: Target) -> None:
    await line.send(target.post(None, b"X-Forwarded-For: " + b"1.2.3.4, " * 10_000))
    only_refused(await line.answer(), 431, "head_too_large")


async def test_a_forwarded_address_has_a_bound(
    line: Wire, target: Target, api: httpx.AsyncClient
) -> None:
    await line.send(target.post(None, b"X-Forwarded-For: " + b"x" * 5_000))
    await line.answer()
    found = await api.get("/v1/callbacks", params={"task": target.task})
    assert len(found.json()["data"][0]["remote"]) < 200


async def test_who_guesses_is_told_to_wait_and_his_neighbour_is_not(
    served: Running, target: Target
) -> None:
    async def ask(request: bytes, source: str) -> int:
        async with wire(served.port, source) as line:
            await line.send(request)
            return (await line.answer()).status

    bad = target.post(path="/webhooks/runware?sig=x.y")
    assert [await ask(bad, "127.0.0.77") for _ in range(61)] == [401] * 60 + [429]
    assert await ask(bad, "127.0.0.78") == 401
    assert await ask(target.post(), "127.0.0.77") == 200


@pytest.mark.parametrize("path", ["/nothing", "/webhooks/runware/", "/v1/endpoints"])
async def test_any_refusal_before_the_body_closes_the_connection(
    line: Wire, target: Target, path: str
) -> None:
    await line.send(target.head(b"Content-Length: 100000", path=path))
    answer = await line.answer()
    assert answer.status in (401, 404)
    assert answer.closes


async def test_the_log_has_one_line_for_each_callback_and_never_a_token(
    served: Running, line: Wire, target: Target
) -> None:
    await line.send(target.post(wrapped(failure(task=target.task))))
    await line.answer()
    lines = [json.loads(text) for text in served.stderr().splitlines() if target.task in text]
    assert [(found["event"], found["outcome"], found["status"]) for found in lines] == [
        ("callback", "recorded", 200)
    ]
    assert target.path.partition("sig=")[2] not in served.stderr()
