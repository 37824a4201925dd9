"""Floor 2, edges: one HTTP/1.1 connection, bounded in bytes and time. uvicorn and httptools only.

uvicorn bounds neither the bytes of a head nor the time that a head or a body may take, and it goes
on reading behind an early answer. httptools takes some requests whose length or host two parsers
may read differently (RFC 9112 §3.2, §6.1, §6.3). What can't be served is answered once, after the
requests before it, and nothing behind it is heard.

    waiting ──> head ──> body ──> answering ──> waiting
       │          └───┬────┘           │
       └──────────────┴──> closing <───┘       by deadline, refusal or `Connection: close`

The deadlines have no timers: a sweep over all open connections looks at them, so that a request
costs an assignment for each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from math import inf
from typing import TYPE_CHECKING, Any, Final, cast

from httptools import HttpParserError, HttpParserUpgrade
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from receiver import refusals
from receiver.refusals import MAX_HEAD, MAX_HEADERS, MAX_TARGET, Refusal

if TYPE_CHECKING:
    import asyncio

    from uvicorn import Config
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
    from uvicorn.server import ServerState

MAX_WAITING: Final = 16  # pipelined requests behind the one that is being answered
# What chunks may add to a body: chunks of one byte pass, a megabyte of extensions does not.
FRAMING: Final = 16 << 10  # bytes, and
FRAMING_RATE: Final = 8  # for each byte of the body
UNHEARD: Final = 64 << 10  # bytes that are read and dropped behind a refusal
HELD: Final = 16 << 10  # bytes of an answer that wait for the rest of it
NOT_YET: Final = 0.0  # a deadline that is set if the piece that is read does not end its part


@dataclass(frozen=True, slots=True)
class Limits:
    """Deadlines in seconds, and what all connections of a server may hold together."""

    head: float = 10.0  # from its first byte; who says nothing at all has as long
    body: float = 30.0  # from the end of its head
    idle: float = 5.0  # between two requests
    stalled: float = 30.0  # for an answer that the client does not take
    linger: float = 1.0  # for the client to read why it was refused
    connections: int = 4_096
    held: int = 128 << 20  # bytes of bodies that are not complete


class Phase(Enum):
    """What a connection is doing; the drawing is at the top."""

    WAITING = auto()
    HEAD = auto()
    BODY = auto()
    ANSWERING = auto()
    CLOSING = auto()


# An enum's attribute takes as long as ten names of the module, and each request passes them all.
WAITING, HEAD, BODY, ANSWERING, CLOSING = Phase


class _Refused(Exception):  # carries a refusal out of the parser's callbacks, never further
    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.code)
        self.refusal = refusal


class _Enough(Exception):  # ends the parser behind the last request of a connection
    pass


@dataclass(eq=False)
class Gate:
    """What all connections of a server share. `refused` counts by code what was not served."""

    limits: Limits = field(default_factory=Limits)
    stopping: bool = False
    refused: Counter[str] = field(default_factory=Counter)
    held: int = 0  # bytes of bodies that are not complete
    connections: set[Connection] = field(default_factory=set)

    def enter(self, connection: Connection) -> None:
        """Take a connection in; beyond the limit, those that have waited longest make room."""
        self.connections.add(connection)
        if len(self.connections) <= self.limits.connections:
            return
        waiting = sorted(
            (found for found in self.connections if found.phase is not ANSWERING),
            key=lambda found: found.since,
        )
        # Many at once, so that the next ones need no search.
        for found in waiting[: 1 + len(waiting) // 16]:
            found.abort()
            self.refused["crowded_out"] += 1

    def sweep(self, now: float) -> None:
        """End what is past its deadline. `now` is the loop's time."""
        for connection in [found for found in self.connections if found.deadline <= now]:
            connection.expire()

    def cut(self) -> None:
        """Refuse the bodies that are still not complete, and drop the answers nobody takes."""
        for connection in tuple(self.connections):
            connection.cut()

    def end(self) -> None:
        """Wait for nobody any longer: what is not answered by now is told to come again."""
        for connection in tuple(self.connections):
            connection.end()


class _Line:
    """The transport as uvicorn sees it, but for what closing means, and for when it sends: once a
    turn of the loop, since each piece costs a call of the system, and an answer comes in two."""

    def __init__(
        self, transport: asyncio.Transport, close: Callable[[], None], soon: Callable[..., object]
    ) -> None:
        self.is_closing = transport.is_closing
        self.close = close
        self._transport = transport
        self._soon = soon
        self._held = b""
        self._then: Callable[[], None] | None = None

    def write(self, piece: bytes) -> None:
        """Send a piece when this turn ends, or when there is much of it."""
        if not self._held:
            self._soon(self.flush)
        self._held += piece
        if len(self._held) > HELD:
            self.flush()

    def flush(self) -> None:
        """Send what is held, and do what was to be done then."""
        held, self._held = self._held, b""
        then, self._then = self._then, None
        if self._transport.is_closing():
            return
        if held:
            self._transport.write(held)
        if then is not None:
            then()

    def end(self, then: Callable[[], None]) -> None:
        """Do this once what is held is sent: an answer that ends its connection waits, too."""
        self._then = then
        if not self._held:
            self.flush()

    def shut(self) -> None:
        """uvicorn has nothing more to do here, and sees it."""
        self.is_closing = _yes

    def lose(self) -> None:
        """The transport is gone. Answers that are still made go nowhere, and nothing is held."""
        self._held = b""
        self.close = _nothing
        self.is_closing = _yes


def _nothing() -> None:
    pass


def _yes() -> bool:
    return True


class Connection(HttpToolsProtocol):
    """uvicorn's protocol behind a Gate. `since` and `deadline` of its phase are in the loop's time;
    who is answering has no deadline."""

    def __init__(
        self,
        gate: Gate,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.phase = WAITING
        self.since = inf
        self.deadline = inf
        self._gate = gate
        self._socket: asyncio.Transport
        self._line: _Line
        self._deaf = False  # what comes now is not heard
        self._keep_alive = True  # of the request whose body is read
        self._piece = 0  # bytes that the parser has at this moment
        self._head = 0  # bytes of the head before them
        self._received = 0  # bytes of the body with its framing
        self._body = 0  # bytes of the body alone
        self._dropped = 0
        self._stalled = False

    # What the transport says

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._socket = transport
        self._line = _Line(transport, self._close, self.loop.call_soon)
        self.transport = cast("asyncio.Transport", self._line)
        self._wait(WAITING, self._gate.limits.head)
        self._gate.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        super().connection_lost(exc)
        # uvicorn tells the newest request alone; an earlier one may still be answered.
        self._line.lose()
        self.pipeline.clear()
        self.phase = CLOSING
        self.cycle = None  # type: ignore[assignment]  # as before the first; it holds us, and we it

    def data_received(self, data: bytes) -> None:
        size = len(data)
        if size > MAX_HEAD:
            for start in range(0, size, MAX_HEAD):
                self.data_received(data[start : start + MAX_HEAD])
        elif self._deaf:
            self._drop(size)
        else:
            self._hear(data, size)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.phase is ANSWERING:
            self._wait(self.phase, self._gate.limits.stalled)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.phase is ANSWERING:
            self.deadline = inf

    # What the parser says

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= MAX_WAITING:
            raise _Enough
        super().on_message_begin()
        self.phase, self.deadline = HEAD, NOT_YET

    def on_headers_complete(self) -> None:
        refusal = self._refusal()
        if refusal is not None:
            raise _Refused(refusal)
        super().on_headers_complete()
        # Until the body is complete, an answer says that it ends the connection.
        self._keep_alive, self.cycle.keep_alive = self.cycle.keep_alive, False
        self.headers = []  # the request has the others: trailers are nobody's headers
        self._received = self._body = 0
        self.phase, self.deadline = BODY, NOT_YET

    def on_body(self, body: bytes) -> None:
        cycle = self.cycle
        cycle.body += body
        self._body += len(body)
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        cycle = self.cycle
        cycle.more_body = False
        if not cycle.response_started:
            cycle.keep_alive = self._keep_alive
        cycle.message_event.set()
        if self._received:
            self._release()
        self._head = -self._piece
        self.phase = ANSWERING
        self.deadline = inf

    # What the server and the application say

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.phase is CLOSING:
            return
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._deaf:
            self._close()
        else:
            self.flow.resume_reading()
            if self.phase is ANSWERING:
                self._wait(WAITING, self._gate.limits.idle)

    def shutdown(self) -> None:
        """Answer what was asked, as far as its body comes in time; nothing else."""
        if self.phase is CLOSING:
            return
        if not self._owes():
            self._line.end(self._socket.close)
        else:
            self._keep_alive = self.cycle.keep_alive = False

    def expire(self) -> None:
        """End what is past its deadline; who has begun to say something is told why."""
        if self.phase is WAITING:
            self._close()
        elif self.phase is HEAD:
            self._refuse(refusals.SLOW_HEAD)
        elif self.phase is BODY:
            self._refuse(refusals.SLOW_BODY)
        elif self.phase is CLOSING and self._socket.get_write_buffer_size() and not self._stalled:
            self._stalled = True
            self._wait(CLOSING, self._gate.limits.stalled)
        else:
            self.abort()

    def cut(self) -> None:
        """The time for answers is over."""
        if self.phase is BODY:
            self._refuse(refusals.STOPPING)
        elif self.phase is CLOSING or self.flow.write_paused:
            self.abort()

    def end(self) -> None:
        """The time for everything is over."""
        self.cut()
        if self.phase is ANSWERING and self._owes() and not self.pipeline:
            self._answer(refusals.STOPPING)
        self.abort()

    def abort(self) -> None:
        """End at once."""
        self.phase = CLOSING
        self._leave()
        self._line.flush()
        self._socket.abort()

    # Our own

    def _wait(self, phase: Phase, seconds: float) -> None:
        self.phase = phase
        self.since = self.loop.time()
        self.deadline = self.since + seconds

    def _hear(self, data: bytes, size: int) -> None:
        before, self._piece = self.phase, size
        if self._head < 0:
            self._head = 0
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade:  # the request is served as it is, and ends the connection
            self._deaf, self.cycle.keep_alive = True, False
        except HttpParserError as error:
            self._give_up(error.__context__)
        else:
            if self.phase is not ANSWERING:
                self._hold(before)

    def _give_up(self, reason: BaseException | None) -> None:
        if isinstance(reason, _Enough):
            self._deaf = True
        else:
            self._refuse(reason.refusal if isinstance(reason, _Refused) else refusals.MALFORMED)

    def _hold(self, before: Phase) -> None:
        """Hold a message that has not come whole to its limits."""
        limits = self._gate.limits
        if self.phase is HEAD:
            if self.deadline == NOT_YET:
                self._wait(HEAD, limits.head)
            self._head += self._piece  # now zero when it began behind another message's end
            if self._head > MAX_HEAD:
                self._refuse(refusals.TARGET if len(self.url) > MAX_TARGET else refusals.HEAD)
        elif self.phase is BODY:
            if self.deadline == NOT_YET:
                self._wait(BODY, limits.body)
            if before is BODY:
                self._received += self._piece
                self._gate.held += self._piece
            if self._received > FRAMING + FRAMING_RATE * self._body:
                self._refuse(refusals.FRAMED)
            elif self._gate.held > limits.held:
                self._refuse(refusals.FULL)

    def _refusal(self) -> Refusal | None:
        """Why a request whose head is complete is not served."""
        headers = self.headers
        if len(self.url) > MAX_TARGET:
            return refusals.TARGET
        if len(headers) > MAX_HEADERS:
            return refusals.HEADERS
        if self._head + self._piece > MAX_HEAD and self._head_size() > MAX_HEAD:
            return refusals.HEAD
        version = self.parser.get_http_version()
        if version != "1.1" and version != "1.0":
            return refusals.VERSION
        fields = dict(headers)
        if b"host" not in fields and version == "1.1":
            return refusals.HOST
        if len(fields) != len(headers) and self._values(b"host")[1:]:
            return refusals.HOST
        coding = fields.get(b"transfer-encoding")
        if coding is not None and (version == "1.0" or not self._is_chunked()):
            return refusals.CODING
        # The parser takes what follows for another protocol, and a proxy may take it for the body.
        if (coding or b"content-length" in fields) and self.parser.should_upgrade():
            return refusals.UPGRADE
        return refusals.STOPPING if self._gate.stopping else None

    def _values(self, name: bytes) -> list[bytes]:
        return [value for found, value in self.headers if found == name]

    def _is_chunked(self) -> bool:
        return [coding.strip().lower() for coding in self._values(b"transfer-encoding")] == [
            b"chunked"
        ]

    def _head_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _refuse(self, refusal: Refusal) -> None:
        """Hear nothing more, and say why: but for those who still wait for earlier answers."""
        self._deaf = True
        self._release()
        self._gate.refused[refusal.code] += 1
        if self.phase is BODY:
            if self.pipeline:
                self.pipeline.popleft()
                self.phase, self.deadline = ANSWERING, inf
                return
            self._answer(refusal)
        elif self._owes():
            self.phase, self.deadline = ANSWERING, inf
            return
        else:
            self._line.write(refusal.answer)
        self._close()

    def _answer(self, refusal: Refusal) -> None:
        """Answer for the application, unless it has begun to; it is told that nobody listens."""
        cycle = self.cycle
        if not cycle.response_started:
            self._line.write(refusal.answer)
        cycle.disconnected = True
        cycle.message_event.set()

    def _owes(self) -> bool:
        """Whether the newest request whose head was served still waits for its answer."""
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return cycle is not None and not cycle.response_complete

    def _drop(self, size: int) -> None:
        self._dropped += size
        if self._dropped > UNHEARD:
            self._socket.pause_reading()

    def _close(self) -> None:
        """Close. Behind an answer in stages (RFC 9112 §9.6): where the client is still sending,
        closing at once would reset the connection and take the answer away."""
        if self.phase is CLOSING:
            return
        answered = self.phase is not WAITING
        self._wait(CLOSING, self._gate.limits.linger)
        self._deaf = True
        self._line.shut()
        self._line.end(self._socket.write_eof if answered else self._socket.close)

    def _leave(self) -> None:
        self._gate.connections.discard(self)
        self._release()

    def _release(self) -> None:
        self._gate.held -= self._received
        self._received = 0
