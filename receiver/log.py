"""Floor 2, edges: one canonical line a request or attempt, on stderr. structlog only.

Lines carry route names, ids and the token's `jti`; never a query string, a secret or a body.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import logging
import select
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import IO, Any, Final, TextIO, cast

import structlog
from pydantic_core import PydanticSerializationError, to_json

from receiver.clock import to_rfc3339, wall_clock
from receiver.shown import inert

Log = structlog.typing.FilteringBoundLogger


@dataclass(frozen=True, slots=True)
class Line:
    """An event of the log: its level, its fields, and what it tells.

    Each field may be missing or null where there is no such thing. `more`: what else may stand
    there, under names that are not known here.
    """

    event: str
    levels: str
    fields: str
    meaning: str
    more: str = ""


_PASSING: Final = "The store is away, which it says itself, once; the loop goes on."

# Every line there is. A test holds the code to it, and the page of them is made from it.
LINES: Final = (
    Line(
        "callback",
        "info error",
        "outcome status remote size duration_ms request_id task jti exception",
        "A request at the door for callbacks. `outcome` as the metrics have it, `size` in bytes of"
        " the body; `jti` is what its token is called. `status` 0: the client went away.",
    ),
    Line(
        "request",
        "info debug error",
        "method route status duration_ms request_id principal remote task delivery endpoint"
        " event_id callback job api_token exception",
        "Any other request; probes at `debug`. `route` and never the path, `principal` is who asked"
        " (`admin`, or an API token's id); the ids are those that the route is about.",
    ),
    Line(
        "attempt",
        "info",
        "delivery task number status failure state duration_ms trace span",
        "An attempt to deliver, once it is settled. `number` counts from 1, `failure` is why it did"
        " not succeed, `state` that of the delivery then; `trace` and `span` are those sent.",
    ),
    Line("refused", "info", "", "Connections refused before they were requests.", "a count a code"),
    Line("deadlines", "info debug", "overdue given_up error", "Tasks that became overdue."),
    Line(
        "retention",
        "info warning",
        "error",
        "What was too old went.",
        "a count for each kind of thing",
    ),
    Line(
        "job",
        "info error",
        "job kind state done total note",
        "A job of many deliveries is over.",
    ),
    Line("jobs", "debug", "error", _PASSING),
    Line("feed", "debug", "error", _PASSING),
    Line("alerts", "debug", "error", _PASSING),
    Line("access", "debug", "error", _PASSING),
    Line("loop failed", "error", "loop exception", "A defect of ours; the loop begins anew."),
    Line("endpoint disabled", "error", "endpoint host reason", "Its queue is held."),
    Line(
        "delivery exhausted",
        "error",
        "delivery endpoint host event_type attempts last_error last_status",
        "A delivery was given up.",
    ),
    Line(
        "alerts not sent to REELHOOK_ALERT_URL",
        "error",
        "count first status failure",
        "So many operational events were given up; `first` is the first one's id.",
    ),
    Line(
        "a look at the database failed",
        "warning",
        "error",
        "What other processes committed is seen later; the next look is a second away.",
    ),
    Line("the store can't write", "warning", "error", "Callbacks are answered 503 from now on."),
    Line("the store can write again", "warning", "", "They are taken in again."),
    Line(
        "the write-ahead log grows",
        "warning",
        "bytes why",
        "It can't be brought home into the database.",
    ),
    Line(
        "the receiver ends",
        "error",
        "exit_code code error",
        "No write can be trusted any more.",
        "the evidence",
    ),
    Line(
        "this machine's clock is not that of the database's server",
        "warning",
        "ahead_s",
        "The server's is ahead by so many seconds, and leases and schedules go by it.",
    ),
    Line(
        "the system's clock was set: what is scheduled follows slowly",
        "warning",
        "by_s",
        "By so many seconds.",
    ),
    Line(
        "WEB_CONCURRENCY is clamped to 1: `serve` is one process, see docs/scaling.md",
        "warning",
        "asked",
        "At the start.",
    ),
    Line(
        "FORWARDED_ALLOW_IPS=* believes whatever address a client makes up: name your proxies",
        "warning",
        "",
        "At the start.",
    ),
)


def configure(level: str, style: str) -> Log:
    """The receiver's logger. `style`: `json`, `console`, or `auto` for console on a terminal."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(name)s: %(message)s")
    # httpx tells whole URLs at INFO; ours carry tokens.
    for name in ("httpx", "httpcore", "aiohttp", "uvicorn"):
        logging.getLogger(name).setLevel(logging.WARNING)
    console = style == "console" or (style == "auto" and sys.stderr.isatty())
    structlog.configure(
        processors=_for_console(sys.stderr.isatty()) if console else [_as_json],
        wrapper_class=structlog.make_filtering_bound_logger(level.lower()),
        logger_factory=(
            structlog.PrintLoggerFactory(file=cast(TextIO, Unfailing(sys.stderr)))
            if console
            else _gathered
        ),
        cache_logger_on_first_use=True,
    )
    log: Log = structlog.get_logger().bind()  # the proxy before it would be asked at each line
    return log


def for_tests() -> Log:
    """The lines go to the standard library's logger `reelhook`, which pytest shows of a test that
    fails; nothing of the process is configured."""
    log: Log = structlog.wrap_logger(
        logging.getLogger("reelhook"),
        processors=[structlog.processors.format_exc_info, structlog.processors.LogfmtRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger("info"),
    ).bind()
    return log


class Unfailing:
    """A stream whose failures are nobody's.

    A full disk under a log, or a reader of it that is gone, must not turn a callback that is stored
    into a 500, nor keep a receiver whose store is broken from ending.
    """

    def __init__(self, stream: IO[Any]) -> None:
        self._stream = stream

    def write(self, line: Any) -> None:
        """Write a line, if that can be done."""
        with contextlib.suppress(OSError):
            self._stream.write(line)

    def flush(self) -> None:
        """Send on what is written, if that can be done."""
        with contextlib.suppress(OSError):
            self._stream.flush()


class Gathering:
    """Writes lines: those of one turn of the event loop together, at its end.

    Each call of the system lets go of the interpreter's lock, which the writer's thread then has
    for up to half a millisecond, and a turn answers dozens of callbacks. Answers leave no sooner
    than their lines (`receiver.connection`). From a warning on, a line and those before it are
    written at once, since it may be the last one; so is what another thread tells.
    """

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._lines: list[bytes] = []
        atexit.register(self.write)

    def info(self, line: bytes) -> None:
        """Write a line when this turn ends."""
        self._tell(line + b"\n", at_once=False)

    def error(self, line: bytes) -> None:
        """Write a line at once."""
        self._tell(line + b"\n", at_once=True)

    debug, warning, critical, exception = info, error, error, error

    def write(self) -> None:
        """Write what was told."""
        lines, self._lines = self._lines, []
        for piece in _pieces(lines):
            self._write(piece)

    def _tell(self, line: bytes, *, at_once: bool) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # another thread, or none yet
            self._write(line)
            return
        self._lines.append(line)
        if at_once:
            self.write()
        elif len(self._lines) == 1:
            loop.call_soon(self.write)


def _gathered(*_: object) -> Gathering:
    return Gathering(Unfailing(_unbuffered()).write)


def _pieces(lines: Iterable[bytes]) -> Iterator[bytes]:
    # As many whole lines as a pipe takes in one piece (write(2)): it may have other writers.
    piece = b""
    for line in lines:
        if piece and len(piece) + len(line) > select.PIPE_BUF:
            yield piece
            piece = b""
        piece += line
    if piece:
        yield piece


def _unbuffered() -> IO[bytes]:
    # A line that could not be written must not wait for the next, nor for the interpreter's end.
    return open(sys.stderr.fileno(), "wb", buffering=0, closefd=False)


def _for_console(colors: bool) -> list[Any]:
    return [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _inert,
        structlog.dev.ConsoleRenderer(colors=colors),
    ]


def _inert(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    # A terminal acts on control characters; JSON escapes them by itself.
    return {
        name: inert(value) if isinstance(value, str) else value for name, value in event.items()
    }


def _as_json(logger: Any, method: str, event: MutableMapping[str, Any]) -> bytes:
    # Every callback passes here, so one function does what a chain of processors would.
    if "exc_info" in event:
        structlog.processors.format_exc_info(logger, method, event)
    event["level"] = "error" if method == "exception" else method
    event["timestamp"] = to_rfc3339(wall_clock())
    try:
        return to_json(event, fallback=str)
    except PydanticSerializationError:  # lone surrogates; the stdlib is slower and escapes them
        return json.dumps(event, default=str).encode()
