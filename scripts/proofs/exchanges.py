"""The bad inputs by name: what is sent, byte for byte, what may be answered, what is told and kept.

Rows are numbered as in the table that they were collected in (1 to 46). `told` is the `outcome` of
the request's log line, `kept` what the store has of its task afterwards. What takes more than one
exchange is in `scripts.proofs.scenes`.
"""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from itsdangerous import Signer

from receiver.tokens import WEBHOOK_SALT, StrictSigner
from scripts.proofs.harness import DAY, KEY, item, mint, new_uuid

LARGE: Final = (1 << 20) + 1  # bytes: over the cap of a body
MINUTE: Final = 60_000  # milliseconds
RETIRED: Final = "a-retired-key-for-proofs-only-0123456789abcd"


class Aim:
    """A task of its own for each case, and its signed URL."""

    def __init__(self, expected: int = 1, **claims: Any) -> None:
        self.task = new_uuid()
        self.item = item(self.task, new_uuid())
        self.path = mint(self.task, expected, **claims)

    @property
    def token(self) -> str:
        """The URL's."""
        return self.path.partition("sig=")[2].partition("&")[0]

    def body(self, **changes: Any) -> bytes:
        """A finished result."""
        return json.dumps({"data": [self.item | changes]}).encode()

    def with_token(self, token: str) -> str:
        """The path with another token."""
        return self.path.replace(self.token, token)

    def request(
        self,
        body: bytes | None = None,
        *lines: bytes,
        path: str | None = None,
        method: str = "POST",
    ) -> bytes:
        """A whole request of the right length."""
        content = self.body() if body is None else body
        length = b"Content-Length: %d" % len(content)
        return self.head(length, *lines, path=path, method=method) + content

    def head(self, *lines: bytes, path: str | None = None, method: str = "POST") -> bytes:
        """A request's head; `lines` may bring a Host of their own."""
        host = () if any(line.lower().startswith(b"host") for line in lines) else (b"Host: x",)
        first = f"{method} {path or self.path} HTTP/1.1".encode()
        return b"\r\n".join([first, *host, *lines]) + b"\r\n\r\n"


Send = Callable[[Aim], bytes]


@dataclass(frozen=True, slots=True)
class Case:
    """One exchange. `answers`: one of these statuses, 0 for an end without a word.

    `told` None: no line, since it was no request. `before`: done to the task beforehand.
    """

    row: int
    what: str
    send: Send
    answers: Sequence[int]
    told: str | None = None
    kept: Sequence[str] = ()
    aim: Callable[[], Aim] = Aim
    before: str | None = None

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.row} ({self.what})"


def cases() -> Iterable[Case]:
    """The whole table, in its order."""
    yield from (
        *_credentials(),
        *_times(),
        *_targets(),
        *_sizes(),
        *_bodies(),
        *_framing(),
        *_hosts(),
    )


# 1-6, 12-14: what is in the query


def _credentials() -> Iterable[Case]:
    refused = (401,)
    for row, what, send, told in (
        (1, "no sig", _at("/webhooks/runware"), "no_credential"),
        (2, "an empty sig", _token(lambda _: ""), "token_malformed"),
        (2, "a", _token(lambda _: "a"), "token_malformed"),
        (2, "a.b", _token(lambda _: "a.b"), "token_forged"),
        (2, "a.b.c", _token(lambda _: "a.b.c"), "token_malformed"),
        (2, "5,000 dots", _token(lambda _: "." * 5_000), "query_too_long"),
        (3, "a good sig, then a bad one", _path(lambda path: f"{path}&sig=x"), "two_credentials"),
        (3, "a bad one first", _path(lambda path: path.replace("?", "?sig=x&")), "two_credentials"),
        (3, "sig and apiKey", _path(lambda path: f"{path}&apiKey=x"), "two_credentials"),
        (4, "= behind it", _token(lambda token: f"{token}%3D"), "token_forged"),
        (4, "$$$$ behind it", _token(lambda token: f"{token}$$$$"), "token_forged"),
        (4, "another last character", _token(_other_last), "token_forged"),
        (5, "a retired key", _signed(StrictSigner([RETIRED], WEBHOOK_SALT)), "token_forged"),
        (5, "SHA-1", _signed(Signer(KEY, WEBHOOK_SALT, key_derivation="hmac")), "token_forged"),
        (5, "another salt", _signed(StrictSigner([KEY], "reelhook.webhook")), "token_forged"),
        (6, "a session's", _signed(StrictSigner([KEY], "reelhook.session.v1")), "token_forged"),
        (12, "a token of 5 KB", _token(lambda _: "A" * 5_000), "query_too_long"),
        (13, "bytes that are no UTF-8", _token(lambda _: "%ff%fe.x"), "query_malformed"),
        (13, "%00 behind it", _token(lambda token: f"{token}%00"), "token_forged"),
    ):
        yield Case(row, what, send, refused, told)
    yield Case(12, "a token of 100 KB", _token(lambda _: "A" * 100_000), (400, 414, 431, 0))
    yield Case(14, "a byte 0xFF", lambda aim: aim.request().replace(b"?sig=", b"?sig=\xff"), (400,))


def _at(path: str) -> Send:
    return lambda aim: aim.request(path=path)


def _path(change: Callable[[str], str]) -> Send:
    return lambda aim: aim.request(path=change(aim.path))


def _token(change: Callable[[str], str]) -> Send:
    return lambda aim: aim.request(path=aim.with_token(change(aim.token)))


def _signed(signer: Signer) -> Send:
    """The claims of the good token under another signature."""
    return _token(lambda token: signer.sign(token.partition(".")[0]).decode())


def _other_last(token: str) -> str:
    # The neighbour differs in a bit that base64 does not use: the same 32 bytes, another spelling.
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return token[:-1] + alphabet[alphabet.index(token[-1]) ^ 1]


# 7-11: what is authentic and not in order


def _times() -> Iterable[Case]:
    yield Case(7, "expired", _plain, (410,), "expired", aim=_moved(-DAY - 3 * MINUTE))
    known = ("expired",)
    expired = _moved(-DAY - 3 * MINUTE)
    yield Case(7, "expired, of an open task", _plain, (410,), "expired", known, expired, "register")
    yield Case(8, "minted 30 s ahead", _plain, (200,), "recorded", ("recorded",), _moved(30_000))
    yield Case(
        9, "minted an hour ahead", _plain, (401,), "token_from_the_future", aim=_moved(60 * MINUTE)
    )
    yield Case(10, "revoked", _plain, (410,), "revoked", aim=_moved(-MINUTE), before="revoke")
    foreign = Aim()
    yield Case(
        11,
        "a body of another task",
        lambda aim: aim.request(foreign.body()),
        (403,),
        "foreign_task",
    )
    yield Case(34, "a task nobody registered", _plain, (200,), "recorded", ("recorded",))


def _plain(aim: Aim) -> bytes:
    return aim.request()


def _moved(by: int) -> Callable[[], Aim]:
    def aim() -> Aim:
        issued = time.time_ns() // 1_000_000 + by
        return Aim(issued_at=issued, expires_at=issued + DAY)

    return aim


# 15, 16: where to


def _targets() -> Iterable[Case]:
    for method in ("GET", "PUT", "DELETE", "OPTIONS", "PATCH"):
        yield Case(15, method, _method(method), (405,), "method")
    for path, told in (
        ("/webhooks/runware/", None),
        ("//webhooks/runware", None),
        ("/webhooks/../webhooks/runware", None),
        ("/hooks/../webhooks/runware", None),
        ("/WEBHOOKS/runware", None),
        ("/webhooks/RUNWARE", "platform"),
        ("/webhooks/runware%2e", "platform"),
        ("/webhooks/%2e%2e", "platform"),
    ):
        yield Case(16, path, _path(_placed(path)), (404,), told)


def _method(method: str) -> Send:
    return lambda aim: aim.request(b"", method=method)


def _placed(place: str) -> Callable[[str], str]:
    return lambda path: path.replace("/webhooks/runware", place)


# 17-19, 29, 37: too much


def _sizes() -> Iterable[Case]:
    large = b"Content-Length: 10000000000"
    yield Case(17, "a declared body of 10 GB", lambda aim: aim.head(large), (413,), "too_large")
    yield Case(18, "chunks past the limit", _chunks_past_the_limit, (413, 0), "too_large")
    expect = (large, b"Expect: 100-continue")
    yield Case(19, "asks to go on with 10 GB", lambda aim: aim.head(*expect), (413,), "too_large")
    bomb = gzip.compress(b" " * (1 << 25))
    yield Case(29, "a compressed bomb", _encoded(bomb), (415,), "encoded")
    yield Case(29, "compressed", _encoded(gzip.compress(b"{}")), (415,), "encoded")
    many = [b"X-%d: y" % number for number in range(5_000)]
    yield Case(37, "5,000 headers", lambda aim: aim.request(None, *many), (400, 431, 0))
    endless = b"X: " + b"A" * (5 << 20)
    yield Case(37, "a header of 5 MB", lambda aim: aim.request(None, endless), (400, 431, 0))
    yield Case(
        37, "a URL of 100 KB", _path(lambda path: f"{path}&a={'A' * 100_000}"), (400, 414, 431, 0)
    )


def _encoded(body: bytes) -> Send:
    return lambda aim: aim.request(body, b"Content-Encoding: gzip")


def _chunks_past_the_limit(aim: Aim) -> bytes:
    chunk = b"%x\r\n%s\r\n" % (1 << 16, b" " * (1 << 16))
    return aim.head(b"Transfer-Encoding: chunked") + chunk * (LARGE // (1 << 16) + 2)


# 20-28, 33, 46: the body


def _bodies() -> Iterable[Case]:
    for row, what, body in _UNREADABLE:
        told = "quarantined"
        yield Case(row, what, _sent(body), (200,), told, (told,))
    for row, what, send in (
        (24, "a seed of 20 digits", lambda aim: aim.request(aim.body(seed=10**19))),
        (26, "a lone surrogate", lambda aim: aim.request(aim.body(note="\ud800"))),
        (26, "NUL in a text", lambda aim: aim.request(aim.body(note="\x00"))),
        (26, "a byte order mark", lambda aim: aim.request(b"\xef\xbb\xbf" + aim.body())),
        (
            27,
            "a bare list",
            lambda aim: aim.request(json.dumps([aim.item]).encode()),
        ),
        (28, "no Content-Type", _plain),
        (28, "text/plain", lambda aim: aim.request(None, b"Content-Type: text/plain")),
        (28, "a wrong charset", lambda aim: aim.request(None, b"Content-Type: a; charset=utf-16")),
        (33, "a failure", lambda aim: aim.request(_failure(aim))),
        (46, "escapes in headers", lambda aim: aim.request(None, b"User-Agent: \x9b31m%0d%0a{}")),
    ):
        yield Case(row, what, send, (200,), "recorded", ("recorded",))
    form = b"Content-Type: multipart/form-data; boundary=x"
    yield Case(28, "a form", lambda aim: aim.request(None, form), (415,), "not_json")


_UNREADABLE: Final = (
    (20, "empty", b""),
    (21, "no JSON", b"{"),
    (21, "more behind it", b"{}{}"),
    (21, "cut off", b'{"data":[{"taskUUID":"'),
    (22, "NaN", b'{"data":[{"cost":NaN}]}'),
    (22, "Infinity", b'{"data":[{"cost":-Infinity}]}'),
    (22, "1e999", b'{"data":[{"cost":1e999}]}'),
    (23, "duplicate keys", b'{"taskUUID":"a","taskUUID":"b"}'),
    (24, "a number of 5,000 digits", b'{"seed":' + b"1" * 5_000 + b"}"),
    (25, "100,000 levels", b"[" * 100_000 + b"]" * 100_000),
    (25, "100,000 objects", b'{"a":' * 100_000),
    (26, "bytes that are no UTF-8", b'{"data":"\xff\xfe"}'),
    (26, "UTF-16", '{"data":[]}'.encode("utf-16")),
    (27, "null", b"null"),
    (27, "a number", b"7"),
    (27, "a text", b'"text"'),
    (27, "an empty list", b"[]"),
)


def _sent(body: bytes) -> Send:
    return lambda aim: aim.request(body)


def _failure(aim: Aim) -> bytes:
    error = {"code": "timeoutProvider", "message": "No.", "taskUUID": aim.task}
    return json.dumps({"errors": [error]}).encode()


# 35, 38, 44: what two parsers may read differently, and what is no HTTP. A second request follows.


def _framing() -> Iterable[Case]:
    for what, lines in _DOUBTFUL:
        yield Case(35, what, _followed(*lines), (400,))
    for what, change in (
        ("bare line feeds", lambda data: data.replace(b"\r\n", b"\n")),
        ("a folded header", lambda data: data.replace(b"Host: x", b"Host: x\r\n folded")),
        ("a chunk of 0x5", lambda data: data.replace(b"\r\n\r\n", _HEX, 1)),
        ("no version", lambda data: data.replace(b" HTTP/1.1", b"")),
        ("version 9.9", lambda data: data.replace(b"HTTP/1.1", b"HTTP/9.9")),
    ):
        yield Case(35, what, _changed(change), (400, 0))
    for what, data in _NO_HTTP:
        yield Case(38, what, _said(data), (400, 0))
    yield Case(44, "a WebSocket", _upgrade, (400, 404, 405), "method")


_HEX: Final = b"\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\n{   }\r\n0\r\n\r\n"
_DOUBTFUL: Final[Sequence[tuple[str, Sequence[bytes]]]] = (
    ("a length and chunks", (b"Content-Length: 5", b"Transfer-Encoding: chunked")),
    ("chunks and a length", (b"Transfer-Encoding: chunked", b"Content-Length: 5")),
    ("two lengths", (b"Content-Length: 5", b"Content-Length: 6")),
    ("two equal lengths", (b"Content-Length: 5", b"Content-Length: 5")),
    ("a length with a sign", (b"Content-Length: +5",)),
    ("a negative length", (b"Content-Length: -5",)),
    ("an unknown coding", (b"Transfer-Encoding: xchunked",)),
    ("two codings", (b"Transfer-Encoding: gzip, chunked",)),
    ("chunked not last", (b"Transfer-Encoding: chunked, identity",)),
    ("a space before the colon", (b"Content-Length : 5",)),
    ("NUL in a header", (b"Content-Length: 5", b"X: a\x00b")),
    ("a bare CR in a header", (b"Content-Length: 5", b"X: a\rb")),
    ("a line without a colon", (b"Content-Length: 5", b"nonsense")),
)
_NO_HTTP: Final = (
    ("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200),
    ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n"),
    ("zeros", b"\x00" * 100),
    ("chance", bytes(range(128, 256)) * 4),
)


def _followed(*lines: bytes) -> Send:
    return lambda aim: aim.head(*lines) + b"{   }" + aim.request()


def _changed(change: Callable[[bytes], bytes]) -> Send:
    return lambda aim: change(aim.request(b"{   }"))


def _said(data: bytes) -> Send:
    return lambda _aim: data


def _upgrade(aim: Aim) -> bytes:
    lines = (b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13")
    return aim.head(*lines, b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", method="GET")


# 36: the Host opens nothing and decides nothing


def _hosts() -> Iterable[Case]:
    recorded = ("recorded",)
    yield Case(36, "no Host", lambda aim: aim.request().replace(b"Host: x\r\n", b""), (400,))
    yield Case(36, "two Hosts", lambda aim: aim.request(None, b"Host: a", b"Host: b"), (400,))
    odd = (b"Host: a/b?c#d",)
    yield Case(36, "an odd Host", lambda aim: aim.request(None, *odd), (200,), "recorded", recorded)
    absolute = _path(lambda path: f"http://evil.example{path}")
    yield Case(36, "an absolute target", absolute, (200,), "recorded", recorded)
