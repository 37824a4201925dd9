"""What an endpoint answers, and what becomes of it. No test sleeps or asserts a time."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
from types import SimpleNamespace

import pytest

from receiver.deliveries import Failure, Outcome
from receiver.delivery import sender as module
from receiver.delivery.guard import Guard
from receiver.delivery.sender import REDACTED, Sender
from tests.receiver.sender.remotes import (
    BODY,
    HASTY,
    HEADERS,
    LOOPBACK,
    OK,
    Handler,
    Zone,
    answered,
    answering,
    breaking,
    canary,
    dripping,
    flooding,
    one_turn,
    request,
    resetting,
    sent,
    serving,
    stalling,
)
from tests.receiver.store.bench import until

pytestmark = pytest.mark.anyio


async def test_what_is_sent_is_what_is_recorded() -> None:
    seen: list[tuple[str, bytes]] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await request(reader))
        writer.write(OK)

    custom = {
        "Authorization": "Bearer abc",
        "X-Api-Key": "def",
        "x-env": "prod",
        "x-odd": "Basic eA==",
    }
    outcome = await answered(handle, headers=custom)
    (head, body) = seen[0]
    lines = head.split("\r\n")[1:-2]
    received = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    assert head.startswith("POST /hook?token=SECRET HTTP/1.1\r\n")
    assert body == BODY
    assert received["accept-encoding"] == "identity"
    assert received["user-agent"].startswith("reelhook/")
    assert received["webhook-signature"] == HEADERS["webhook-signature"]
    assert outcome.request_headers is not None
    recorded = {name.lower(): value for name, value in outcome.request_headers.items()}
    hidden = {"webhook-signature", "authorization", "x-api-key", "x-odd"}
    assert recorded == {n: REDACTED if n in hidden else v for n, v in received.items()}


@pytest.mark.parametrize(
    ("written", "requested"),
    [
        ("/a%2Fb/%40x/%7Eu/%3Ay", "/a%2Fb/%40x/%7Eu/%3Ay"),
        ("/?sp=%2Ftriggers%2Fmanual&sig=a%2Bb%3D%3D", "/?sp=%2Ftriggers%2Fmanual&sig=a%2Bb%3D%3D"),
        ("/a/../b//c;d?e[]=1&f=g?h", "/a/../b//c;d?e[]=1&f=g?h"),
        ("", "/"),
        ("?a=b", "/?a=b"),
        ("/ü?ü=%zz", "/%C3%BC?%C3%BC=%25zz"),  # can't be requested as it stands
        ('/a"b', "/a%22b"),
    ],
)
async def test_a_url_is_requested_as_it_was_written(written: str, requested: str) -> None:
    heads: list[str] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await request(reader))[0])
        writer.write(OK)

    async with serving(handle) as port:
        outcome = await sent(f"HTTP://127.0.0.1:{port}{written}")
    assert outcome.status == 200
    first, *_ = heads[0].split("\r\n")
    assert first == f"POST {requested} HTTP/1.1"
    assert f"Host: 127.0.0.1:{port}".lower() in heads[0].lower()


@pytest.mark.parametrize("escaped", [False, True], ids=["plain", "as PHP writes JSON"])
async def test_what_an_endpoint_echoes_of_our_secrets_is_struck_out(escaped: bool) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head, body = await request(reader)
        said = (head.replace("/", "\\/") if escaped else head).encode() + body
        writer.write(b"HTTP/1.1 400 No\r\nContent-Length: %d\r\n\r\n%s" % (len(said), said))

    key = {"Authorization": "Bearer a-key/of+a+consumer", "x-env": "production"}
    text = (await answered(echo, headers=key)).response_body.decode()
    for part in ("g0hM9SsE+OTPJTGt", "a-key", "consumer"):
        assert part not in text
    assert text.count(REDACTED) == 2
    assert f"Bearer {REDACTED}" in text
    assert "production" in text
    assert text.endswith(BODY.decode())


@pytest.mark.parametrize("status", [200, 201, 204, 299])
async def test_any_2xx_is_success(status: int) -> None:
    outcome = await answered(answering(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status))
    assert (outcome.status, outcome.failure) == (status, None)
    assert not outcome.truncated


async def test_a_2xx_with_an_error_text_is_success() -> None:
    outcome = await answered(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nerror"))
    assert (outcome.failure, outcome.response_body) == (None, b"error")


@pytest.mark.parametrize(
    ("status", "failure"),
    [
        (101, Failure.PROTOCOL),
        (302, Failure.REDIRECT),
        (304, Failure.REDIRECT),
        (404, Failure.STATUS),
        (410, Failure.STATUS),
        (500, Failure.STATUS),
        (999, Failure.PROTOCOL),
    ],
)
async def test_any_other_status_is_failure(status: int, failure: Failure) -> None:
    outcome = await answered(answering(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status))
    assert (outcome.status, outcome.failure) == (status, failure)
    assert str(status) in outcome.detail


async def test_retry_after_is_passed_on_as_received() -> None:
    outcome = await answered(
        answering(b"HTTP/1.1 429 X\r\nRetry-After: 120.6\r\nContent-Length: 0\r\n\r\n")
    )
    assert (outcome.status, outcome.retry_after) == (429, "120.6")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(status: int) -> None:
    async with canary() as (port, hits):
        location = b"http://user:SECRET@127.0.0.1:%d/next?x=SECRET#SECRET" % port
        outcome = await answered(
            answering(
                b"HTTP/1.1 %d X\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % (status, location)
            )
        )
    assert outcome.failure is Failure.REDIRECT
    assert f"(to http://127.0.0.1:{port}/next)" in outcome.detail
    assert hits == []


@pytest.mark.parametrize(
    "handler",
    [
        stalling(),
        stalling(b"HTTP/1.1 200 OK\r\nContent-"),
        dripping(b"HTTP/1.1 200 OK\r\nX: ", b"x"),
        dripping(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    ],
    ids=["silent", "half a head", "dripping head", "dripping 1xx"],
)
async def test_no_head_within_the_deadline_is_a_timeout(handler: Handler) -> None:
    outcome = await answered(handler, deadline_s=HASTY)
    assert (outcome.status, outcome.failure) == (None, Failure.TIMEOUT)


_ANSWER = module._Answer


async def cut_off(handler: Handler, monkeypatch: pytest.MonkeyPatch, body: bytes) -> Outcome:
    """An attempt whose deadline comes once the head and so much are there, and not by the clock."""
    deadlines, answers = list[asyncio.Timeout](), list[module._Answer]()

    def begin(seconds: float) -> asyncio.Timeout:
        deadlines.append(asyncio.timeout(seconds))
        return deadlines[-1]

    def answer(cap: int) -> module._Answer:
        answers.append(made := _ANSWER(cap))
        return made

    monkeypatch.setattr(module, "asyncio", SimpleNamespace(timeout=begin))
    monkeypatch.setattr(module, "_Answer", answer)
    attempt = asyncio.create_task(answered(handler))
    await until(lambda: answers and answers[0].status and answers[0]._body.startswith(body))
    for _ in range(3):  # what else there is may come, and end it
        await one_turn()
    if not attempt.done():
        deadlines[0].reschedule(asyncio.get_running_loop().time())
    return await attempt


@pytest.mark.parametrize(
    ("handler", "body"),
    [
        (stalling(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart"), b"part"),
        (answering(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart"), b"part"),
        (resetting(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"), b""),
        (breaking(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"zz\r\n"), b""),
        (answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), b""),
    ],
    ids=["stalls", "cut", "reset", "bad chunk", "bad chunk at once"],
)
async def test_a_2xx_in_time_is_success_whatever_its_body_does(
    monkeypatch: pytest.MonkeyPatch, handler: Handler, body: bytes
) -> None:
    outcome = await cut_off(handler, monkeypatch, body)
    assert (outcome.failure, outcome.truncated, outcome.response_body) == (None, True, body)


NO_CONTENT = b"HTTP/1.1 204 No Content\r\n"


@pytest.mark.parametrize(
    ("handler", "body"),
    [
        (answering(NO_CONTENT + b"Content-Length: 5\r\n\r\nhello"), b""),
        (answering(NO_CONTENT + b"\r\nhello"), b""),
        (breaking(NO_CONTENT + b"\r", b"\nhello"), b""),
        (breaking(NO_CONTENT, b"\r\nhello"), b""),
        (breaking(NO_CONTENT + b"\r\n", b"hello"), b""),
        (answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokay"), b"ok"),
        (answering(b"\r\nHTTP/1.1 103 Early Hints\r\n\r\n" + OK + b"ay"), b"ok"),
    ],
    ids=["204", "no length", "torn", "torn before", "late", "too long", "after hints"],
)
async def test_what_follows_an_answer_takes_nothing_from_it(handler: Handler, body: bytes) -> None:
    outcome = await answered(handler)
    assert (outcome.failure, outcome.truncated, outcome.response_body) == (None, False, body)


async def test_a_dripping_2xx_is_success_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"
    outcome = await cut_off(dripping(head, b"x"), monkeypatch, b"x")
    assert (outcome.failure, outcome.truncated) == (None, True)
    assert set(outcome.response_body) == {ord("x")}


async def test_an_error_stays_an_error_when_its_body_breaks() -> None:
    outcome = await answered(answering(b"HTTP/1.1 500 X\r\nContent-Length: 9\r\n\r\npart"))
    assert (outcome.status, outcome.failure, outcome.truncated) == (500, Failure.STATUS, True)


@pytest.mark.parametrize(
    ("size", "truncated"), [(65_536, False), (65_537, True), (1_000_000, True)]
)
async def test_a_body_is_kept_up_to_the_cap(size: int, truncated: bool) -> None:
    outcome = await answered(
        answering(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size, b"x" * size)
    )
    assert (outcome.failure, outcome.truncated) == (None, truncated)
    assert outcome.response_body == b"x" * min(size, 65_536)


async def test_an_endless_body_is_cut() -> None:
    outcome = await answered(flooding(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65_536))
    assert (outcome.failure, outcome.truncated) == (None, True)
    assert len(outcome.response_body) == 65_536


async def test_a_gzip_bomb_is_never_decoded() -> None:
    bomb = gzip.compress(bytes(30_000_000))
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    outcome = await answered(answering(head, bomb))
    assert outcome.response_body == bomb[:65_536]


@pytest.mark.parametrize(
    "handler",
    [
        answering(),
        resetting(),
        answering(b"HTTP/1.1 200 OK\r\nX-Half"),
        answering(b"ICY 200 OK\r\n\r\n"),
        answering(b"HTTP/1.1 000 X\r\nContent-Length: 0\r\n\r\n"),
        answering(b"SSH-2.0-OpenSSH_9.2\r\n"),
        answering(b"\x00\xff" * 100),
        answering(b"HTTP/1.1 200 OK\r\nX: SECRET\x00\r\n\r\n"),
        answering(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5000 + b"\r\n"),
        flooding(b"HTTP/1.1 200 OK\r\n", b"X-Header: y\r\n" * 100),
        flooding(b"HTTP/1.1 200 OK\r\nX: ", b"y" * 10_000),
    ],
    ids=[
        "fin", "rst", "half a head", "ICY", "status 0", "ssh", "noise", "NUL", "5,000 headers",
        "endless headers", "endless header",
    ],
)  # fmt: skip
async def test_what_is_not_http_is_a_protocol_failure(handler: Handler) -> None:
    outcome = await answered(handler)
    assert outcome.failure is Failure.PROTOCOL
    assert outcome.status in (None, 0)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("handler", "failure"),
    [
        (flooding(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 2000), Failure.PROTOCOL),
        (flooding(b"", b"\r\n" * 30_000), Failure.PROTOCOL),
        (flooding(b"", OK * 2000), None),
        (flooding(CHUNKED + b"1;", b"x" * 60_000), None),
        (flooding(CHUNKED, b"0" * 60_000), None),
        (flooding(CHUNKED, b"1\r\nx\r\n" * 9000), None),
        (flooding(CHUNKED + b"0\r\n", b"X: y\r\n" * 9000), None),
    ],
    ids=["1xx", "line ends", "answers", "chunk extension", "chunk size", "chunks", "trailers"],
)
async def test_a_flood_ends_long_before_the_deadline(
    handler: Handler, failure: Failure | None
) -> None:
    outcome = await answered(handler)  # with the patient deadline, so only a cut can end it
    assert outcome.failure in (failure, Failure.PROTOCOL)
    assert outcome.failure is not Failure.TIMEOUT


async def test_early_hints_before_the_answer_are_fine() -> None:
    outcome = await answered(answering(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 3, OK))
    assert (outcome.status, outcome.response_body) == (200, b"ok")


@pytest.mark.parametrize("size", [0, 1 << 20, (1 << 20) + 1, 5_000_000])
async def test_bodies_of_any_size_arrive(size: int) -> None:
    sizes: list[int] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sizes.append(len((await request(reader))[1]))
        writer.write(OK)

    assert (await answered(handle, body=b"x" * size)).failure is None
    assert sizes == [size]


async def test_an_answer_before_the_body_was_read_counts() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 X\r\nContent-Length: 0\r\n\r\n")
        await asyncio.Event().wait()

    outcome = await answered(handle, body=b"x" * 20_000_000)
    assert outcome.status == 413


async def test_a_refused_connection() -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as gone:
        port = gone.getsockname()[1]
    outcome = await sent(f"http://127.0.0.1:{port}/?token=SECRET")
    assert outcome.failure is Failure.CONNECT
    assert f"127.0.0.1:{port}" in outcome.detail


async def test_a_name_that_does_not_resolve() -> None:
    outcome = await sent("https://gone.example/?token=SECRET", resolver=Zone([]))
    assert outcome.failure is Failure.DNS
    assert outcome.detail == "The name gone.example did not resolve: Domain name not found."


@pytest.mark.parametrize("host", ["a" * 300, "xn--", "a..b", "a" * 64 + ".example"])
async def test_a_host_that_can_not_exist_is_a_dns_failure(host: str) -> None:
    assert (await sent(f"https://{host}/")).failure is Failure.DNS


async def test_headers_that_frame_the_request_are_ours() -> None:
    heads: list[str] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await request(reader))[0].lower())
        writer.write(OK)

    await answered(handle, headers={"Host": "evil.example", "Content-Length": "3"})
    assert "evil" not in heads[0]
    assert f"content-length: {len(BODY)}\r\n" in heads[0]


async def test_header_injection_is_a_failed_attempt_and_nothing_is_sent() -> None:
    async with canary() as (port, hits):
        outcome = await sent(f"http://127.0.0.1:{port}/", headers={"x-env": "a\r\nx-evil: b"})
    assert outcome.failure is Failure.PROTOCOL
    assert b"evil" not in b"".join(hits)


async def test_the_duration_comes_from_the_clock_passed_in() -> None:
    readings = iter([7.0, 7.25])
    sender = Sender(Guard(LOOPBACK), monotonic=lambda: next(readings))
    async with serving(answering(OK)) as port, sender:
        outcome = await sender.send(f"http://127.0.0.1:{port}/", BODY, HEADERS)
    assert outcome.duration_ms == 250


async def test_cancellation_passes_through() -> None:
    arrived = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        arrived.set()
        await asyncio.Event().wait()

    async with serving(handle) as port, Sender(Guard(LOOPBACK)) as sender:
        attempt = asyncio.create_task(sender.send(f"http://127.0.0.1:{port}/", BODY, HEADERS))
        await arrived.wait()
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt
