"""One attempt against real sockets, most of them hostile. No test sleeps or asserts a time."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, ip_network
from pathlib import Path
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from receiver.deliveries import Failure, Outcome
from receiver.delivery.guard import Guard, Network, UrlRefused
from receiver.delivery.sender import REDACTED, Sender
from receiver.errors import SettingsRefused

pytestmark = pytest.mark.anyio

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

LOOPBACK: list[Network] = [ip_network("127.0.0.0/8"), ip_network("::1")]
HEADERS = {
    "webhook-id": "evt_1",
    "webhook-timestamp": "1614265330",
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    "content-type": "application/json",
}
BODY = b'{"type":"result.succeeded"}'
PATIENT, HASTY = 30.0, 0.25  # deadlines: never reached, and reached by those who stall
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Both loops: the receiver runs on uvloop, whose errors are not always asyncio's."""
    return "asyncio", {"use_uvloop": request.param}


@asynccontextmanager
async def serving(
    handler: Handler, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    tasks: set[asyncio.Task[Any]] = set()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with suppress(OSError, asyncio.CancelledError, asyncio.IncompleteReadError):
            await handler(reader, writer)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(run, host, port, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


async def request(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    """The head and the body of one request."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = next(
        int(line.split(":")[1])
        for line in head.split("\r\n")
        if line.lower().startswith("content-l")
    )
    return head, await reader.readexactly(length)


def answering(*chunks: bytes) -> Handler:
    """Reads a request, writes the chunks, closes."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.writelines(chunks)
        await writer.drain()

    return handle


def stalling(*chunks: bytes) -> Handler:
    """Reads a request, writes the chunks, and stays."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answering(*chunks)(reader, writer)
        await asyncio.Event().wait()

    return handle


def dripping(head: bytes, drop: bytes) -> Handler:
    """Reads a request, then writes a drop whenever it gets a turn, without end."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(head)
        while not writer.is_closing():
            writer.write(drop)
            await writer.drain()
            await one_turn()

    return handle


def flooding(head: bytes, piece: bytes) -> Handler:
    """Reads a request, then writes as fast as the other side takes it."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(head)
        while not writer.is_closing():
            writer.write(piece)
            await writer.drain()

    return handle


async def one_turn() -> None:
    """Long enough for the client, which lives on the same loop, to read what has been written."""
    with suppress(TimeoutError):
        await asyncio.wait_for(asyncio.Event().wait(), 0.005)


def breaking(head: bytes, rest: bytes) -> Handler:
    """Reads a request, writes the head, and the rest only when the head has been read."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answering(head)(reader, writer)
        await one_turn()
        writer.write(rest)

    return handle


def resetting(*chunks: bytes) -> Handler:
    """Reads a request, writes the chunks, and resets the connection when they have been read."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answering(*chunks)(reader, writer)
        await one_turn()
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    return handle


class Zone(AbstractResolver):
    """Every name has the same answers; several lists are given out in turn, the last for ever."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = [list(answer) for answer in answers]
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked.append(host)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if not answer:
            raise OSError(None, "Domain name not found")
        return [
            ResolveResult(
                hostname=host,
                host=each,
                port=port,
                family=socket.AF_INET6 if ":" in each else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for each in answer
        ]

    async def close(self) -> None:
        raise AssertionError("whoever passes a resolver in closes it")


async def sent(
    url: str,
    *,
    deadline_s: float = PATIENT,
    allow: Sequence[Network] = LOOPBACK,
    resolver: AbstractResolver | None = None,
    ca_file: str | None = None,
    headers: dict[str, str] | None = None,
    body: bytes = BODY,
) -> Outcome:
    """One attempt by a sender of its own."""
    guard = Guard(allow)
    zone = resolver or Zone(["127.0.0.1"])
    async with Sender(guard, deadline_s=deadline_s, resolver=zone, ca_file=ca_file) as sender:
        return checked(await sender.send(url, body, HEADERS | (headers or {})))


def checked(outcome: Outcome) -> Outcome:
    """The same, with what has to hold for all of them."""
    assert "SECRET" not in outcome.detail
    assert outcome.detail.endswith(".")
    assert outcome.detail.isprintable()
    assert outcome.request_headers is not None
    assert HEADERS["webhook-signature"] not in outcome.request_headers.values()
    return outcome


async def answered(handler: Handler, **options: Any) -> Outcome:
    async with serving(handler) as port:
        return await sent(f"http://127.0.0.1:{port}/hook?token=SECRET", **options)


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


@pytest.mark.parametrize(
    ("handler", "body"),
    [
        (stalling(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart"), b"part"),
        (answering(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart"), b"part"),
        (resetting(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"), b""),
        (breaking(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"zz\r\n"), b""),
    ],
    ids=["stalls", "cut", "reset", "bad chunk"],
)
async def test_a_2xx_in_time_is_success_whatever_its_body_does(
    handler: Handler, body: bytes
) -> None:
    outcome = await answered(handler, deadline_s=HASTY)
    assert (outcome.failure, outcome.truncated, outcome.response_body) == (None, True, body)


async def test_a_dripping_2xx_is_success_at_the_deadline() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"
    outcome = await answered(dripping(head, b"x"), deadline_s=HASTY)
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


# Kept connections


@asynccontextmanager
async def counting(second: bytes | None) -> AsyncIterator[tuple[int, list[int]]]:
    """A server whose connections answer once, then with `second` and an end; None: for ever."""
    requests: list[int] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(0)
        mine = len(requests) - 1
        while True:
            await request(reader)
            requests[mine] += 1
            if second is not None and requests[mine] == 2:
                writer.write(second)
                return
            writer.write(OK)

    async with serving(handle) as port:
        yield port, requests


async def twice(port: int) -> list[Outcome]:
    async with Sender(Guard(LOOPBACK)) as sender:
        return [await sender.send(f"http://127.0.0.1:{port}/", BODY, HEADERS) for _ in range(2)]


async def test_connections_are_kept() -> None:
    async with counting(None) as (port, requests):
        assert [outcome.status for outcome in await twice(port)] == [200, 200]
    assert requests == [2]


async def test_a_kept_connection_that_died_is_no_failed_attempt() -> None:
    async with counting(b"") as (port, requests):
        assert [outcome.status for outcome in await twice(port)] == [200, 200]
    assert requests == [2, 1]


async def test_an_answer_that_began_is_not_asked_for_again() -> None:
    async with counting(b"HTTP/1.1 200 OK\r\nX-Half") as (port, requests):
        assert [outcome.failure for outcome in await twice(port)] == [None, Failure.PROTOCOL]
    assert requests == [2]


async def test_a_new_connection_that_died_is_a_failed_attempt() -> None:
    connections: list[int] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(1)
        await request(reader)

    assert (await answered(handle)).failure is Failure.PROTOCOL
    assert connections == [1]


async def test_a_cut_connection_is_not_used_again() -> None:
    connections: list[int] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(1)
        await flooding(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n", b"x" * 9999)(
            reader, writer
        )

    async with serving(handle) as port:
        assert all(outcome.truncated for outcome in await twice(port))
    assert connections == [1, 1]


async def test_cookies_are_forgotten() -> None:
    heads: list[str] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            heads.append((await request(reader))[0].lower())
            writer.write(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n")

    async with serving(handle) as port:
        await twice(port)
    assert len(heads) == 2
    assert not any("\ncookie:" in head for head in heads)


# The environment


async def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    async with canary() as (port, hits):
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "WS_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
            monkeypatch.setenv(name.lower(), f"http://127.0.0.1:{port}")
        outcome = await answered(answering(OK))
    assert outcome.status == 200
    assert hits == []


# TLS


def certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, str]:
    """A server's context with a self-signed certificate for `name`, and the file to trust it by."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.DNSName(name), x509.IPAddress(IPv4Address("127.0.0.9"))]
            ),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public, private = folder / "cert.pem", folder / "key.pem"
    public.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(public, private)
    return context, str(public)


async def test_https_with_a_trusted_certificate(tmp_path: Path) -> None:
    context, ca_file = certificate(tmp_path, "sink.example")
    async with serving(answering(OK), tls=context) as port:
        outcome = await sent(f"https://sink.example:{port}/", ca_file=ca_file)
    assert (outcome.status, outcome.failure) == (200, None)


async def test_a_self_signed_certificate_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, ca_file = certificate(tmp_path, "sink.example")
    monkeypatch.setenv("SSL_CERT_FILE", ca_file)  # the environment widens no trust
    async with canary(tls=context) as (port, hits):
        outcome = await sent(f"https://sink.example:{port}/?token=SECRET")
    assert outcome.failure is Failure.TLS
    assert "self-signed" in outcome.detail
    assert hits == []


@pytest.mark.parametrize(
    ("written", "says"),
    [
        (None, "No such file"),
        (b"", "no certificate"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "no certificate"),
        (b"\xff" * 100, "no certificate"),
    ],
    ids=["missing", "empty", "broken", "noise"],
)
def test_a_file_of_authorities_that_is_none_is_refused_at_once(
    tmp_path: Path, written: bytes | None, says: str
) -> None:
    file = tmp_path / "ca.pem"
    if written is not None:
        file.write_bytes(written)
    with pytest.raises(SettingsRefused, match=f"REELHOOK_CA_FILE: {file} .*{says}"):
        Sender(Guard(), ca_file=str(file))


async def test_a_certificate_for_another_name_is_refused(tmp_path: Path) -> None:
    context, ca_file = certificate(tmp_path, "sink.example")
    async with canary(tls=context) as (port, hits):
        outcome = await sent(f"https://other.example:{port}/", ca_file=ca_file)
    assert outcome.failure is Failure.TLS
    assert "other.example" in outcome.detail
    assert hits == []


async def test_http_on_a_tls_port_is_a_tls_failure() -> None:
    async with serving(answering_at_once(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as port:
        outcome = await sent(f"https://127.0.0.1:{port}/?token=SECRET")
    assert outcome.failure is Failure.TLS


def answering_at_once(data: bytes) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await reader.read()

    return handle


async def test_a_handshake_that_hangs_is_a_timeout() -> None:
    async with serving(stalled_from_the_start) as port:
        outcome = await sent(f"https://127.0.0.1:{port}/", deadline_s=HASTY)
    assert outcome.failure is Failure.TIMEOUT


async def stalled_from_the_start(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    await asyncio.Event().wait()


# The guard in the pipe


@asynccontextmanager
async def canary(tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A listener on both loopbacks that notes every byte it hears, and even an empty visit."""
    hits: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hits.append(b"")
        hits.append(await reader.read(4096))

    async with serving(handle, tls=tls) as port, contextlib.AsyncExitStack() as stack:
        with suppress(OSError):  # a machine without IPv6
            await stack.enter_async_context(serving(handle, "::1", port, tls))
        yield port, hits


BYPASSES = [
    "127.0.0.1", "127.1", "127.0.1", "127.127.127.127", "2130706433", "0x7f000001", "0x7f.1",
    "0177.0.0.1", "017700000001", "0", "0.0.0.0", "[::]", "[::1]", "[0000::1]",
    "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:127.0.0.1]", "[::127.0.0.1]",
    "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[fe80::1%25lo]", "[fe80::1%lo]", "localhost",
    "LOCALHOST", "localhost.", "ip6-localhost", "127。0。0。1", "①②⑦.⓪.⓪.①", "ⓛocalhost",
    "169.254.169.254", "2852039166", "0xa9fea9fe", "[::ffff:a9fe:a9fe]",
    "metadata.google.internal", "[fd00:ec2::254]", "100.100.100.200", "168.63.129.16",
    "192.0.0.192", "a.127.0.0.1.nip.io", "localtest.me", "127.0.0.1.", "%31%32%37.0.0.1",
    "１２７.0.0.1", "1.1.1.1 &@127.0.0.1#@x", "public#@127.0.0.1", "127.0.0.1\\@public",
    "public:80\\@127.0.0.1", "user:pw@127.0.0.1", "[::1%2525lo]", "127.0.0.1%00.example",
]  # fmt: skip
ODD_URLS = [
    "file://127.0.0.1:{port}/", "gopher://127.0.0.1:{port}/", "ftp://127.0.0.1:{port}/",
    "dict://127.0.0.1:{port}/", "jar:http://127.0.0.1:{port}/", "//127.0.0.1:{port}/",
    "http:127.0.0.1:{port}/", "ws://127.0.0.1:{port}/", "tcp://127.0.0.1:{port}/",
    "http+unix://127.0.0.1:{port}/", "https:127.0.0.1:{port}/", "127.0.0.1:{port}", "",
]  # fmt: skip


async def test_no_spelling_of_a_local_address_reaches_it() -> None:
    async with canary() as (port, hits):
        urls = [f"{scheme}://{host}:{port}/" for host in BYPASSES for scheme in ("http", "https")]
        urls += [odd.format(port=port) for odd in ODD_URLS]
        for zone in (Zone(["127.0.0.1"]), Zone(["::1"]), Zone(["8.8.8.8", "127.0.0.1"])):
            async with Sender(Guard(), resolver=zone) as sender:
                for url in urls:
                    outcome = checked(await sender.send(url, BODY, HEADERS))
                    assert outcome.failure in (Failure.BLOCKED_ADDRESS, Failure.DNS), url
    assert hits == []


@pytest.mark.parametrize("host", BYPASSES)
async def test_the_connector_blocks_even_what_the_url_check_lets_through(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Guard, "check_url", lambda self, url: None)
    async with canary() as (port, hits):
        for scheme in ("http", "https"):
            outcome = await sent(f"{scheme}://{host}:{port}/", allow=())
            assert outcome.failure is not None
    assert hits == []


async def test_the_canary_sings_when_it_may() -> None:
    async with canary() as (port, hits):
        await sent(f"http://localhost:{port}/")
    assert hits


async def test_a_blocked_attempt_names_the_address_and_the_setting() -> None:
    outcome = await sent("https://rebound.example/", allow=(), resolver=Zone(["10.1.2.3"]))
    assert outcome.failure is Failure.BLOCKED_ADDRESS
    assert "10.1.2.3" in outcome.detail
    assert "REELHOOK_ALLOW_NETWORKS" in outcome.detail


async def test_a_name_is_vetted_on_every_connection() -> None:
    zone = Zone(["127.0.0.1"], ["10.1.2.3"])
    closing = answering(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    async with serving(closing) as port, Sender(Guard(LOOPBACK), resolver=zone) as sender:
        url = f"http://sink.example:{port}/"
        failures = [(await sender.send(url, BODY, HEADERS)).failure for _ in range(2)]
    assert failures == [None, Failure.BLOCKED_ADDRESS]
    assert len(zone.asked) == 2


async def test_plain_http_reaches_only_the_allowed_networks() -> None:
    networks: list[Network] = [ip_network("10.0.0.0/8")]
    for answer in (["8.8.8.8"], ["10.0.0.1", "8.8.8.8"]):
        outcome = await sent("http://sink.example/", allow=networks, resolver=Zone(answer))
        assert outcome.failure is Failure.BLOCKED_ADDRESS


def test_the_url_check_refuses_each_bypass_that_is_no_name() -> None:
    names = {"a.127.0.0.1.nip.io", "localtest.me"}
    for host in BYPASSES:
        if host not in names:
            with pytest.raises(UrlRefused):
                Guard().check_url(f"https://{host}/")
