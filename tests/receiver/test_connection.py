"""One connection and its limits, over real sockets and uvloop; the sweep is told the time."""

from __future__ import annotations

import asyncio
import gc
import socket
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import Message, Receive, Scope, Send
from uvicorn import Config
from uvicorn.server import ServerState

from receiver import connection, refusals
from receiver.connection import Connection, Gate, Limits
from receiver.log import Gathering
from receiver.refusals import MAX_HEAD, MAX_HEADERS, MAX_TARGET, Refusal
from tests.doubles import LIMIT_S, ROOT, Wire, wire

pytestmark = pytest.mark.anyio

LIMITS = Limits()
Handler = Callable[[Scope, Receive, Send], Awaitable[None]]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """The loop that the receiver runs on."""
    return "asyncio", {"use_uvloop": True}


@dataclass
class Served:
    """A server in this process and what its application saw."""

    gate: Gate
    port: int = 0
    state: ServerState = field(default_factory=ServerState)
    heard: list[tuple[Scope, bytes]] = field(default_factory=list)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    def sweep(self, seconds: float) -> None:
        """Look at the deadlines as if so many seconds had passed since the last one was set."""
        # However long ago that is by now: a test that was held up must not look at a later moment.
        begun = max((found.since for found in self.gate.connections), default=0.0)
        self.gate.sweep(begun + seconds)

    async def settled(self, condition: Callable[[], bool]) -> None:
        """Until what was sent has been taken in."""
        async with asyncio.timeout(LIMIT_S):
            while not condition():  # noqa: ASYNC110 - what is waited for is in the kernel
                await asyncio.sleep(0.001)

    async def at(self, phase: connection.Phase, count: int = 1) -> None:
        """Until so many connections are in a phase."""
        await self.settled(lambda: [c.phase for c in self.gate.connections].count(phase) == count)

    async def echo(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers with the length of the body; notes what came whole, and who left."""
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.gone.set()
                return
            body += message["body"]
            if not message["more_body"]:
                break
        self.heard.append((scope, body))
        await answer(send, b"%d" % len(body))


async def answer(send: Send, body: bytes, *, more: bool = False) -> None:
    length = (b"content-length", b"%d" % (len(body) + more))
    start: Message = {"type": "http.response.start", "status": 200, "headers": [length]}
    await send(start)
    await send({"type": "http.response.body", "body": body, "more_body": more})


def configured(app: Handler) -> Config:
    """What uvicorn needs to know."""
    options: Mapping[str, Any] = {"ws": "none", "loop": "none", "lifespan": "off"}
    config = Config(app, interface="asgi3", log_config=None, **options)
    config.load()
    return config


@asynccontextmanager
async def serving(limits: Limits = LIMITS, handler: Handler | None = None) -> AsyncIterator[Served]:
    """Our protocol under an application that echoes, or the one that is given."""
    served = Served(Gate(limits))
    config = configured(handler or served.echo)
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(served.gate, config, served.state, {}), "127.0.0.1", 0
    )
    served.port = server.sockets[0].getsockname()[1]
    try:
        yield served
    finally:
        server.close()
        for found in tuple(served.gate.connections):
            found.abort()


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving() as found:
        yield found


@pytest.fixture
async def line(served: Served) -> AsyncIterator[Wire]:
    async with wire(served.port) as found:
        yield found


def request(*headers: bytes, target: bytes = b"/", body: bytes = b"") -> bytes:
    """A whole POST."""
    length = b"Content-Length: %d" % len(body)
    return b"\r\n".join([b"POST %s HTTP/1.1" % target, b"Host: x", length, *headers, b"", body])


def padded(size: int, *headers: bytes) -> bytes:
    """A whole request whose head has exactly so many bytes."""
    bare = len(request(b"X: ", *headers))
    return request(b"X: " + b"a" * (size - bare), *headers)


async def refused(line: Wire, status: int, code: str) -> None:
    found = await line.answer()
    assert (found.status, found.json["code"], found.json["status"]) == (status, code, status)
    assert found.closes
    assert found.headers["content-type"] == "application/problem+json"
    assert found.headers["cache-control"] == "no-store"
    assert await line.ended() == b""


# Bytes


async def test_a_head_may_fill_its_limit_and_no_more(served: Served) -> None:
    for size in (MAX_HEAD - 1, MAX_HEAD):
        async with wire(served.port) as line:
            await line.send(padded(size) * 2)
            assert [(await line.answer()).status for _ in range(2)] == [200, 200]
    for size in (MAX_HEAD + 40, 3 * MAX_HEAD, 1 << 20):
        async with wire(served.port) as line:
            await line.send(padded(size) + request())
            await refused(line, 431, "head_too_large")
    assert len(served.heard) == 4


async def test_a_header_without_end_is_cut_off(served: Served, line: Wire) -> None:
    await line.send(request()[:-2] + b"X: ")
    with suppress(OSError):
        async with asyncio.timeout(1):
            for _ in range(1_000):
                await line.send(b"a" * 100_000)
    await served.settled(lambda: not served.gate.connections or bool(served.gate.refused))
    assert served.gate.refused == {"head_too_large": 1}
    served.sweep(LIMITS.linger)
    await served.settled(lambda: not served.gate.connections)


async def test_headers_are_counted(served: Served) -> None:
    others = [b"X: 1"] * (MAX_HEADERS - 2)
    async with wire(served.port) as line:
        await line.send(request(*others))
        assert (await line.answer()).status == 200
        await line.send(request(b"Y: 1", *others) + request())
        await refused(line, 431, "too_many_headers")


@pytest.mark.parametrize("end", [b" HTTP/1.1\r\nHost: x\r\n\r\n", b""])
async def test_a_target_has_its_own_limit(served: Served, end: bytes) -> None:
    async with wire(served.port) as line:
        await line.send(request(target=b"/" + b"a" * (MAX_TARGET - 1)))
        assert (await line.answer()).status == 200
        # Without its end it is refused as soon as it is longer than any head.
        await line.send(b"GET /" + b"a" * (MAX_TARGET if end else 2 * MAX_HEAD) + end)
        await refused(line, 414, "target_too_long")


async def test_what_chunks_add_to_a_body_is_bounded(served: Served) -> None:
    head = request(b"Transfer-Encoding: chunked").replace(b"Content-Length: 0\r\n", b"")
    small = b"1;a=b\r\nx\r\n" * 3_000
    async with wire(served.port) as line:
        await line.send(head + small + b"0\r\nX: y\r\n\r\n")
        assert (await line.answer()).body == b"3000"
    for filler in (
        b"5;" + b"a" * (1 << 20),
        b"0\r\nX: " + b"a" * (1 << 20),
        b"0\r\n" + b"X: a\r\n" * 200_000,
    ):
        async with wire(served.port) as line:
            await line.send(head + filler)
            await refused(line, 400, "framing")
    assert served.gate.held == 0


async def test_trailers_are_nobodys_headers(served: Served, line: Wire) -> None:
    head = request(b"Transfer-Encoding: chunked").replace(b"Content-Length: 0\r\n", b"")
    await line.send(
        head + b"1\r\nx\r\n0\r\nX-Forwarded-For: 1.2.3.4\r\nHost: y\r\n\r\n" + request()
    )
    assert [(await line.answer()).status for _ in range(2)] == [200, 200]
    for scope, _ in served.heard:
        assert [value for name, value in scope["headers"] if name == b"host"] == [b"x"]
        assert b"x-forwarded-for" not in dict(scope["headers"])


async def test_bodies_under_way_are_bounded_together() -> None:
    async with serving(Limits(held=1 << 17)) as served:
        begun = request(body=b"a" * (1 << 20))[: 100 << 10]
        async with wire(served.port) as one, wire(served.port) as two:
            await one.send(begun)
            await served.settled(lambda: served.gate.held > 80 << 10)
            await two.send(begun)
            found = await two.answer()
            assert (found.status, found.json["code"]) == (503, "too_busy")
            assert found.headers["retry-after"] == "2"
            one.writer.transport.abort()
        await served.settled(lambda: served.gate.held == 0)
        async with wire(served.port) as three:
            await three.send(request(body=b"a" * (100 << 10)))
            assert (await three.answer()).status == 200
        assert served.gate.held == 0


class Pieces:
    """A transport that keeps what is written; `fed` pieces go to its connection."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    abort = write_eof = close

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, _name: str, default: Any = None) -> Any:
        return default

    def pause_reading(self) -> None: ...

    resume_reading = pause_reading


async def fed(pieces: list[bytes]) -> tuple[bytes, list[bytes]]:
    """What is answered to these pieces, and the bodies that were heard."""
    served, transport = Served(Gate()), Pieces()
    config = configured(served.echo)
    made = Connection(served.gate, config, served.state, {})
    made.connection_made(transport)  # type: ignore[arg-type]
    for piece in pieces:
        if not transport.closed:
            made.data_received(piece)
            await asyncio.sleep(0)
    for _ in range(100):
        await asyncio.sleep(0)
    return transport.written, [body for _, body in served.heard]


class Noted(Pieces):
    """A transport that notes in which pieces it is told to send."""

    def __init__(self, told: list[bytes]) -> None:
        super().__init__()
        self.told = told

    def write(self, data: bytes) -> None:
        self.told.append(data)

    def write_eof(self) -> None:
        self.told.append(b"end")


@pytest.mark.parametrize("ends", [False, True])
async def test_an_answer_leaves_in_one_piece_behind_the_lines_of_its_turn(ends: bool) -> None:
    told: list[bytes] = []
    lines = Gathering(told.append)

    async def tell(_scope: Scope, _receive: Receive, send: Send) -> None:
        lines.info(b"a line")
        await answer(send, b"done")

    for _ in range(2):
        made = Connection(Gate(), configured(tell), ServerState(), {})
        made.connection_made(Noted(told))  # type: ignore[arg-type]
        made.data_received(request(*([b"Connection: close"] * ends)))
    assert not told
    for _ in range(100):
        await asyncio.sleep(0)
    assert told[0] == b"a line\na line\n"
    sent = [piece.rpartition(b"\r\n")[2] for piece in told[1:]]
    assert sent == ([b"done", b"end"] * 2 if ends else [b"done", b"done"])


async def test_an_answer_without_end_is_not_held() -> None:
    told: list[bytes] = []

    async def tell(_scope: Scope, _receive: Receive, send: Send) -> None:
        length = (b"content-length", b"%d" % (100 * len(piece)))
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        for _ in range(100):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            assert max(map(len, told), default=0) <= connection.HELD + 2 * len(piece)
        assert sum(map(len, told)) > 99 * len(piece) - connection.HELD

    piece = b"a" * 1_000
    made = Connection(Gate(), configured(tell), ServerState(), {})
    made.connection_made(Noted(told))  # type: ignore[arg-type]
    made.data_received(request())
    await asyncio.gather(*made.tasks)


messages = st.one_of(
    st.builds(lambda body: request(body=body), st.binary(max_size=400)),
    st.builds(lambda size: padded(size), st.integers(100, MAX_HEAD)),
    st.builds(
        lambda sizes: (
            request(b"Transfer-Encoding: chunked").replace(b"Content-Length: 0\r\n", b"")
            + b"".join(b"%x\r\n%s\r\n" % (size, b"a" * size) for size in sizes)
            + b"0\r\n\r\n"
        ),
        st.lists(st.integers(1, 40), max_size=5),
    ),
)


@given(
    st.lists(messages, min_size=1, max_size=6),
    st.lists(st.integers(0, 100_000), max_size=8),
)
@settings(max_examples=150, deadline=None)
def test_how_requests_are_cut_into_pieces_changes_nothing(
    sent: list[bytes], cuts: list[int]
) -> None:
    whole = b"".join(sent)
    places = sorted({0, len(whole), *(cut % len(whole) for cut in cuts)})
    pieces = [whole[begin:end] for begin, end in pairwise(places)]

    async def both() -> None:
        written, bodies = await fed(pieces)
        assert written.count(b"HTTP/1.1 200 OK") == len(sent) == len(bodies)
        assert await fed([whole]) == (written, bodies)

    asyncio.run(both())


async def test_a_large_body_is_handed_on_as_it_comes(served: Served, line: Wire) -> None:
    await line.send(request(body=b"a" * (2 << 20)) + request(body=b"b"))
    assert [(await line.answer()).body for _ in range(2)] == [b"%d" % (2 << 20), b"1"]


async def test_a_head_is_counted_from_its_own_first_byte() -> None:
    large, much = padded(MAX_HEAD - 10), padded(MAX_HEAD + 5_000)
    written, bodies = await fed([large + large[:100], large[100:1_100], large[1_100:]])
    assert (written.count(b"HTTP/1.1 200"), len(bodies)) == (2, 2)
    written, bodies = await fed([large, much[:10_000], much[10_000:]])
    assert (written.count(b"HTTP/1.1 200"), written.count(b"HTTP/1.1 431")) == (1, 1)
    written, bodies = await fed([large + much[:10_000], much[10_000:]])
    assert (written.count(b"HTTP/1.1 200"), len(bodies)) == (1, 1)


async def test_pipelined_requests_wait_up_to_a_bound(served: Served, line: Wire) -> None:
    many = connection.MAX_WAITING + 10
    await line.send(b"".join(request(body=b"a" * number) for number in range(many)))
    found = [(await line.answer()).body for _ in range(1 + connection.MAX_WAITING)]
    assert found == [b"%d" % number for number in range(1 + connection.MAX_WAITING)]
    assert await line.ended() == b""
    assert len(served.heard) == len(found)


# Deadlines


async def test_a_connection_that_says_nothing_is_closed_without_a_word(
    served: Served, line: Wire
) -> None:
    await served.at(connection.WAITING)
    served.sweep(LIMITS.head - 1)
    await served.at(connection.WAITING)
    served.sweep(LIMITS.head)
    assert await line.ended() == b""
    assert not served.gate.refused


async def test_line_ends_alone_begin_nothing(served: Served, line: Wire) -> None:
    await line.send(b"\r\n" * 40_000)
    await line.send(b"\r\n")
    await served.at(connection.WAITING)
    served.sweep(LIMITS.head)
    assert await line.ended() == b""


async def test_a_head_has_its_time_from_its_first_byte(served: Served, line: Wire) -> None:
    await line.send(b"POST / HT")
    await served.at(connection.HEAD)
    deadlines = {found.deadline for found in served.gate.connections}
    for byte in b"TP/1.1\r\nHost: x":
        await line.send(bytes([byte]))
        await asyncio.sleep(0.005)
    assert {found.deadline for found in served.gate.connections} == deadlines
    served.sweep(LIMITS.head - 1)
    await served.at(connection.HEAD)
    served.sweep(LIMITS.head)
    await refused(line, 408, "head_too_slow")
    assert served.gate.refused == {"head_too_slow": 1}


async def test_a_body_has_its_time_from_the_end_of_the_head(served: Served, line: Wire) -> None:
    whole = request(body=b"a" * 100)
    await line.send(whole[:-100])
    await served.at(connection.BODY)
    deadlines = {found.deadline for found in served.gate.connections}
    for _ in range(50):
        await line.send(b"a")
        await asyncio.sleep(0.002)
    assert {found.deadline for found in served.gate.connections} == deadlines
    served.sweep(LIMITS.body - 1)
    await served.at(connection.BODY)
    served.sweep(LIMITS.body)
    await refused(line, 408, "too_slow")
    await served.gone.wait()  # the application is not left waiting
    assert served.heard == []


async def test_a_kept_connection_is_closed_when_idle_and_each_request_has_its_own_time(
    served: Served, line: Wire
) -> None:
    await line.send(request())
    await line.answer()
    await served.at(connection.WAITING)
    served.sweep(LIMITS.idle - 1)
    whole = request(body=b"abc")
    await line.send(whole[:20])
    await served.at(connection.HEAD)
    served.sweep(LIMITS.idle + 1)  # the time between requests is over, the head's is not
    await line.send(whole[20:-1])
    await served.at(connection.BODY)
    served.sweep(LIMITS.head + 1)
    await line.send(whole[-1:])
    assert (await line.answer()).body == b"3"
    await served.at(connection.WAITING)
    served.sweep(LIMITS.idle)
    assert await line.ended() == b""
    assert not served.gate.refused


async def test_an_answer_takes_as_long_as_it_takes() -> None:
    go = asyncio.Event()

    async def slow(_scope: Scope, _receive: Receive, send: Send) -> None:
        await go.wait()
        await answer(send, b"late")

    async with serving(handler=slow) as served, wire(served.port) as line:
        await line.send(request() + b"POST / HTTP/1.1\r\n")
        await served.at(connection.HEAD)
        served.sweep(1_000)  # the half head behind it is given up, silently
        await served.at(connection.ANSWERING)
        served.sweep(1_000)
        go.set()
        assert (await line.answer()).body == b"late"
        assert await line.ended() == b""
        assert served.gate.refused == {"head_too_slow": 1}


async def test_an_answer_that_nobody_takes_is_dropped() -> None:
    async def large(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(1_000):
            await send({"type": "http.response.body", "body": b"a" * 100_000, "more_body": True})

    async with serving(handler=large) as served, wire(served.port) as line:
        line.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await line.send(request())
        await served.settled(
            lambda: any(found.flow.write_paused for found in served.gate.connections)
        )
        served.sweep(LIMITS.stalled - 1)
        assert served.gate.connections
        served.sweep(LIMITS.stalled)
        await served.settled(lambda: not served.gate.connections)


async def test_a_body_that_never_comes_ends_an_answer_that_has_begun() -> None:
    async def early(_scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"begun", more=True)
        while (await receive())["type"] != "http.disconnect":
            pass

    async with serving(handler=early) as served, wire(served.port) as line:
        await line.send(request(body=b"abc")[:-1])
        assert await line.reader.readuntil(b"begun")
        served.sweep(LIMITS.body)
        assert await line.ended() == b""


# What is refused

HEADLESS = b"POST / HTTP/1.1\r\n"
NO_REQUESTS = {
    "no host": HEADLESS + b"Content-Length: 0\r\n\r\n",
    "two hosts": HEADLESS + b"Host: a\r\nHost: b\r\nContent-Length: 0\r\n\r\n",
    "the same host twice": HEADLESS + b"Host: a\r\nhost: a\r\n\r\n",
    "two hosts in 1.0": b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/0.9, said so": b"GET / HTTP/0.9\r\nHost: x\r\n\r\n",
    "HTTP/2.0": b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
    "HTTP/9.9": b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
    "h2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "zeros": b"\x00" * 100,
    "lower-case method": b"post / HTTP/1.1\r\nHost: x\r\n\r\n",
    "no target": b"GET HTTP/1.1\r\nHost: x\r\n\r\n",
    "a space in the target": b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
    "a raw byte in the target": b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    "a target without a path": b"GET http://evil.example HTTP/1.1\r\nHost: x\r\n\r\n",
    "bare LF": b"GET / HTTP/1.1\nHost: x\n\n",
    "bare LF after a header": b"GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n",
    "bare CR": b"GET / HTTP/1.1\rHost: x\r\r",
    "obs-fold": b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
    "a space first": b"GET / HTTP/1.1\r\n Host: x\r\n\r\n",
    "a space before the colon": b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
    "no name": b"GET / HTTP/1.1\r\nHost: x\r\n: y\r\n\r\n",
    "NUL in a header": request(b"X: a\x00b"),
    "CONNECT": b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n",
}
LENGTHS = {
    "length and chunked": [b"Content-Length: 5", b"Transfer-Encoding: chunked"],
    "chunked and length": [b"Transfer-Encoding: chunked", b"Content-Length: 5"],
    "two lengths": [b"Content-Length: 5", b"Content-Length: 6"],
    "a length twice": [b"Content-Length: 5", b"Content-Length: 5"],
    "a list of lengths": [b"Content-Length: 5, 5"],
    "a length with a sign": [b"Content-Length: +5"],
    "a negative length": [b"Content-Length: -5"],
    "a length in hexadecimal": [b"Content-Length: 0x5"],
    "a length with an underscore": [b"Content-Length: 0_5"],
    "a length of two words": [b"Content-Length: 5 5"],
    "no length": [b"Content-Length:"],
    "a huge length": [b"Content-Length: " + b"9" * 400],
    "gzip, chunked": [b"Transfer-Encoding: gzip, chunked"],
    "gzip and chunked": [b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked"],
    "chunked twice": [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
    "chunked, identity": [b"Transfer-Encoding: chunked, identity"],
    "an unknown coding": [b"Transfer-Encoding: xchunked"],
    "a quoted coding": [b'Transfer-Encoding: "chunked"'],
    "no coding": [b"Transfer-Encoding:"],
    "an upgrade with a body": [b"Connection: upgrade", b"Upgrade: h2c", b"Content-Length: 5"],
}
CHUNKS = {
    "0x": b"0x5\r\n{   }\r\n0\r\n\r\n",
    "negative": b"-1\r\n",
    "no number": b"g\r\n",
    "huge": b"10000000000000005\r\n",
    "LF": b"5\n{   }\n0\n\n",
    "LF in an extension": b"5;\n{   }",
    "space": b"5 \r\n{   }\r\n0\r\n\r\n",
    "longer than said": b"5\r\n{    }\r\n0\r\n\r\n",
    "a length in the trailers": b"0\r\nContent-Length: 5\r\n\r\n",
}


@pytest.mark.parametrize("sent", NO_REQUESTS.values(), ids=NO_REQUESTS)
async def test_what_is_no_request_is_refused_once(served: Served, line: Wire, sent: bytes) -> None:
    await line.send(sent + request())
    assert (await line.answer()).status == 400
    assert await line.ended() == b""
    assert served.heard == []
    assert served.gate.refused.total() == 1


@pytest.mark.parametrize("headers", LENGTHS.values(), ids=LENGTHS)
async def test_a_doubtful_length_is_refused_with_all_that_follows(
    served: Served, line: Wire, headers: list[bytes]
) -> None:
    lines = [b"POST / HTTP/1.1", b"Host: x", *headers, b"", b"5\r\n{   }\r\n0\r\n\r\n"]
    await line.send(b"\r\n".join(lines) + request())
    assert (await line.answer()).status == 400
    assert await line.ended() == b""
    assert served.heard == []


@pytest.mark.parametrize("chunks", CHUNKS.values(), ids=CHUNKS)
async def test_broken_chunks_end_the_request(served: Served, line: Wire, chunks: bytes) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    await line.send(head + chunks + request())
    await refused(line, 400, "malformed")
    assert served.heard == []


async def test_chunks_do_not_exist_in_1_0(served: Served, line: Wire) -> None:
    head = b"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    await line.send(head + b"0\r\n\r\n" + request())
    await refused(line, 400, "coding")


async def test_requests_before_a_refused_one_are_answered_and_it_is_not(
    served: Served, line: Wire
) -> None:
    for bad in (HEADLESS + b"\r\n", request(b"Transfer-Encoding: chunked"), b"\x00"):
        async with wire(served.port) as other:
            await other.send(request(body=b"ab") + request(body=b"abc") + bad + request())
            assert [(await other.answer()).body for _ in range(2)] == [b"2", b"3"]
            assert await other.ended() == b""
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    await line.send(request(body=b"ab") + head + b"g\r\n" + request())
    assert (await line.answer()).body == b"2"
    assert await line.ended() == b""
    assert len(served.heard) == 7


async def test_what_is_odd_and_clear_is_served(served: Served) -> None:
    odd = [
        b"GET / HTTP/1.0\r\n\r\n",
        b"POST / HTTP/1.0\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nab",
        b"\r\n\r\nGET / HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n",
        b"POST http://evil.example/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    ]
    for sent in odd:
        async with wire(served.port) as line:
            await line.send(sent + request())
            found = await line.answer()
            assert (found.status, found.closes) == (200, True)
            assert await line.ended() == b""
    assert len(served.heard) == len(odd)


# Closing


async def test_an_early_answer_says_that_it_ends_the_connection() -> None:
    async def early(_scope: Scope, _receive: Receive, send: Send) -> None:
        await answer(send, b"no")

    async with serving(handler=early) as served:
        for sent in (request(body=b"abc")[:-1], request(b"Expect: 100-continue", body=b"abc")[:-3]):
            async with wire(served.port) as line:
                await line.send(sent)
                found = await line.answer()
                assert (found.body, found.closes) == (b"no", True)
                assert await line.ended() == b""
        async with wire(served.port) as line:
            await line.send(request(body=b"abc"))
            assert not (await line.answer()).closes


async def test_what_an_answer_said_of_the_connection_holds() -> None:
    async def early(_scope: Scope, receive: Receive, send: Send) -> None:
        length = (b"content-length", b"2")
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        while (await receive())["more_body"]:
            pass
        await send({"type": "http.response.body", "body": b"ok"})

    async with serving(handler=early) as served, wire(served.port) as line:
        await line.send(request(body=b"abc")[:-1])
        head = await line.reader.readuntil(b"\r\n\r\n")
        assert b"connection: close" in head
        await line.send(b"c" + request())
        assert await line.ended() == b"ok"


async def test_pipelined_requests_leave_the_connection_open() -> None:
    async def deaf(_scope: Scope, _receive: Receive, send: Send) -> None:
        await answer(send, b"ok")

    async with serving(handler=deaf) as served, wire(served.port) as line:
        for count in (1, 2, 5, 1):
            await line.send(request() * count)
            assert [(await line.answer()).status for _ in range(count)] == [200] * count


async def test_who_goes_on_sending_behind_a_refusal_can_read_it_and_is_cut_off(
    served: Served,
) -> None:
    loop = asyncio.get_running_loop()
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        client.setblocking(False)
        await loop.sock_sendall(client, HEADLESS + b"Content-Length: 100000000\r\n\r\n")
        await served.at(connection.CLOSING)
        taken = 0
        with suppress(TimeoutError):
            while taken < 50 << 20:
                await asyncio.wait_for(loop.sock_sendall(client, b"a" * 100_000), 0.2)
                taken += 100_000
        # What is beyond this has filled the kernel's buffers, and nobody reads it.
        assert {found._dropped < 1 << 20 for found in served.gate.connections} == {True}
        assert taken < 20 << 20
        assert (await loop.sock_recv(client, 4_096)).startswith(b"HTTP/1.1 400 ")
        served.sweep(LIMITS.linger)
        await served.settled(lambda: not served.gate.connections)
        with pytest.raises(OSError):
            await asyncio.wait_for(loop.sock_sendall(client, b"a" * (20 << 20)), 10)


async def test_a_client_that_leaves_is_forgotten(served: Served) -> None:
    for sent in (b"", b"POST", request(body=b"abc")[:-1], HEADLESS + b"\r\n"):
        async with wire(served.port) as line:
            await line.send(sent)
            await served.settled(lambda: len(served.gate.connections) == 1)
        await served.settled(lambda: not served.gate.connections)
    assert served.state.connections == set()


async def test_who_leaves_before_all_pipelined_answers_are_made_is_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    go, made = asyncio.Event(), asyncio.Semaphore(0)

    async def slow(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await go.wait()
        await answer(send, b"to nobody")
        made.release()

    async with serving(handler=slow) as served:
        async with wire(served.port) as line:
            await line.send(request() * 3)
            await served.settled(lambda: any(c.pipeline for c in served.gate.connections))
        await served.settled(lambda: not served.gate.connections)
        go.set()
        await asyncio.wait_for(made.acquire(), LIMIT_S)
        await served.settled(lambda: not served.state.tasks)
    assert caplog.text == ""


async def test_a_connection_that_is_gone_leaves_nothing_behind(served: Served) -> None:
    gone: list[weakref.ref[Connection]] = []
    gc.disable()
    try:
        for sent in (b"", b"POST", request(body=b"abc")[:-1], request(), request() * 3, b"\x00"):
            async with wire(served.port) as line:
                await line.send(sent)
                await served.settled(lambda: bool(served.gate.connections))
                gone += [weakref.ref(found) for found in served.gate.connections]
                await asyncio.sleep(0.01)
            await served.settled(lambda: not served.gate.connections)
        await served.settled(lambda: not any(reference() for reference in gone))
    finally:
        gc.enable()
    assert len(gone) == 6


# All connections together


async def test_beyond_the_limit_those_that_have_waited_longest_make_room() -> None:
    async with serving(Limits(connections=8)) as served, AsyncExitStack() as stack:
        lines = [await stack.enter_async_context(wire(served.port)) for _ in range(8)]
        await served.at(connection.WAITING, 8)
        await asyncio.sleep(0.005)  # the loop's clock has milliseconds
        for line in lines[2:]:
            await line.send(request(body=b"abc")[:-1])
        await served.at(connection.BODY, 6)
        await lines[1].send(request())  # with the least time left
        await lines[1].answer()
        async with wire(served.port) as line:
            await line.send(request())
            assert (await line.answer()).status == 200
        assert await lines[0].ended() == b""
        for line in lines[2:]:
            await line.send(b"c")
            assert (await line.answer()).status == 200
        await lines[1].send(request())
        assert (await lines[1].answer()).status == 200


async def test_when_all_are_being_served_a_further_one_is_turned_away() -> None:
    go = asyncio.Event()

    async def slow(_scope: Scope, _receive: Receive, send: Send) -> None:
        await go.wait()
        await answer(send, b"late")

    async with serving(Limits(connections=20), slow) as served, AsyncExitStack() as stack:
        lines = [await stack.enter_async_context(wire(served.port)) for _ in range(20)]
        for line in lines:
            await line.send(request())
        await served.at(connection.ANSWERING, 20)
        async with wire(served.port) as further:
            await further.send(request())
            assert await further.ended() == b""
        go.set()
        assert {(await line.answer()).status for line in lines} == {200}


# Stopping


def stop(door: Served) -> None:
    """What the server does at a signal."""
    door.gate.stopping = True
    for found in tuple(door.gate.connections):
        found.shutdown()


async def test_a_request_on_a_kept_connection_is_told_that_the_receiver_stops(
    served: Served, line: Wire
) -> None:
    await line.send(request())
    await line.answer()
    served.gate.stopping = True
    await line.send(request())
    found = await line.answer()
    assert (found.status, found.json["code"], found.headers["retry-after"]) == (
        503,
        "stopping",
        "2",
    )
    assert found.closes
    assert await line.ended() == b""
    assert len(served.heard) == 1


async def test_at_a_stop_what_asks_nothing_is_closed_and_what_was_asked_is_answered() -> None:
    go = asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await go.wait()
        await door.echo(scope, receive, send)

    async with serving(handler=slow) as door:
        half = request(body=b"abc")
        async with (
            wire(door.port) as silent,
            wire(door.port) as headless,
            wire(door.port) as bodiless,
            wire(door.port) as asking,
            wire(door.port) as never,
        ):
            await headless.send(half[:10])
            await bodiless.send(half[:-1])
            await never.send(half[:-2])
            await asking.send(half + half[:10])
            await door.at(connection.HEAD, 2)
            await door.at(connection.BODY, 2)
            stop(door)
            assert await silent.ended() == b""
            assert await headless.ended() == b""
            await bodiless.send(half[-1:] + half)
            go.set()
            for line in (asking, bodiless):
                found = await line.answer()
                assert (found.status, found.body, found.closes) == (200, b"3", True)
                assert await line.ended() == b""
            door.gate.cut()
            found = await never.answer()
            assert (found.status, found.json["code"]) == (503, "stopping")
            await door.gone.wait()


async def test_at_the_end_of_the_grace_who_is_not_answered_is_told_to_come_again() -> None:
    async def stuck(_scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        await answer(send, b"too late")

    async with serving(handler=stuck) as door, wire(door.port) as one, wire(door.port) as two:
        await one.send(request())
        await two.send(request() * 2)
        await door.at(connection.ANSWERING, 2)
        await door.settled(lambda: any(found.pipeline for found in door.gate.connections))
        stop(door)
        door.gate.end()
        found = await one.answer()
        assert (found.status, found.json["code"]) == (503, "stopping")
        assert await one.ended() == b""
        assert await two.ended() == b""  # which of them is being answered is not known
        assert not door.gate.connections


# The page


def test_every_refusal_is_documented() -> None:
    found = [refusal for refusal in vars(refusals).values() if isinstance(refusal, Refusal)]
    page = (ROOT / "docs" / "http-api.md").read_text()
    assert len({refusal.code for refusal in found}) == len(found) > 10
    assert [refusal.code for refusal in found if f"`{refusal.code}`" not in page] == []
