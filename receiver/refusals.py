"""Floor 0, nouns: what is answered to a request that never gets to be one. Pure.

receiver/connection.py decides; docs/http-api.md has the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from receiver.problems import MEDIA_TYPE, problem

MAX_HEAD: Final = 16 << 10  # bytes: request line, headers and their line ends
MAX_TARGET: Final = 8 << 10  # bytes of the request line's target
MAX_HEADERS: Final = 64


@dataclass(frozen=True, slots=True)
class Refusal:
    """What is answered to a request that is not served."""

    status: int
    code: str
    answer: bytes

    @classmethod
    def of(cls, status: int, code: str, detail: str, *headers: bytes) -> Refusal:
        """The whole answer, made once."""
        body = problem(status, code, detail)
        lines = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: {MEDIA_TYPE}".encode(),
            b"content-length: %d" % len(body),
            *headers,
            b"cache-control: no-store\r\nreferrer-policy: no-referrer\r\nconnection: close\r\n",
            body,
        )
        return cls(status, code, b"\r\n".join(lines))


_LATER: Final = b"retry-after: 2"
MALFORMED: Final = Refusal.of(400, "malformed", "This is no request as RFC 9112 has it.")
HOST: Final = Refusal.of(400, "host", "Send exactly one Host header.")
VERSION: Final = Refusal.of(400, "version", "Send version 1.1 of HTTP.")
CODING: Final = Refusal.of(400, "coding", "The only Transfer-Encoding taken is chunked, once.")
UPGRADE: Final = Refusal.of(400, "upgrade", "Send a body without asking for an upgrade.")
FRAMED: Final = Refusal.of(400, "framing", "The chunks hold more framing than body.")
SLOW_HEAD: Final = Refusal.of(408, "head_too_slow", "The request's head took too long.")
SLOW_BODY: Final = Refusal.of(408, "too_slow", "The request's body took too long.")
TARGET: Final = Refusal.of(414, "target_too_long", f"A target has at most {MAX_TARGET} bytes.")
HEAD: Final = Refusal.of(431, "head_too_large", f"A head has at most {MAX_HEAD} bytes.")
HEADERS: Final = Refusal.of(431, "too_many_headers", f"Send at most {MAX_HEADERS} headers.")
FULL: Final = Refusal.of(503, "too_busy", "Too much is under way; send it again.", _LATER)
STOPPING: Final = Refusal.of(503, "stopping", "The receiver is stopping; send it again.", _LATER)
