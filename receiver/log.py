"""Floor 2, edges: one canonical line a request or attempt, on stderr. structlog only.

Lines carry route names, ids and the token's `jti`; never a query string, a secret or a body.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import IO, Any, BinaryIO, TextIO, cast

import structlog
from pydantic_core import PydanticSerializationError, to_json

from receiver.clock import to_rfc3339, wall_clock
from receiver.shown import inert

Log = structlog.typing.FilteringBoundLogger


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
            else structlog.BytesLoggerFactory(file=cast(BinaryIO, Unfailing(_unbuffered())))
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
