"""What nobody should send, made by chance from a seed: bodies, queries, heads, and no HTTP at all.

A `Shot` says whether its framing is right, so that exactly one answer must come, and whether it is
an honest callback, which must be recorded.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from scripts.proofs.harness import ADMIN, Callback, callbacks_of, item, mint, new_uuid, post

HONEST: Final = "honest"
HEAVY: Final = 0.004  # of the bodies have all the bytes that there may be
MOST: Final = 1 << 20
FEW: Final = 6  # bodies that share a task and its token; more would only be limited


@dataclass(frozen=True, slots=True)
class Shot:
    """Bytes for one connection. `answers`: how many must come; None when the framing is broken."""

    kind: str
    data: bytes
    answers: int | None = 1
    honest: tuple[Callback, ...] = ()


class Mutants:
    """An endless supply; equal seeds give equal choices (ids and tokens are random anyway)."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)
        self._left = 0
        self._task = self._path = ""
        self._kinds: Sequence[tuple[Callable[[], Shot], int]] = (
            (self._odd_body, 46),
            (self._honest, 8),
            (self._odd_query, 14),
            (self._odd_head, 10),
            (self._odd_path, 10),
            (self._odd_api, 4),
            (self._odd_chunks, 3),
            (self._pipelined, 3),
            (self._no_http, 2),
        )

    def next(self) -> Shot:
        """Another one."""
        makers, weights = zip(*self._kinds, strict=True)
        maker: Callable[[], Shot] = self._dice.choices(makers, weights)[0]
        return maker()

    # Tasks

    def _aim(self) -> tuple[str, str]:
        if not self._left:
            self._left, self._task = FEW, new_uuid()
            self._path = mint(self._task, self._dice.choice((1, 1, 2, 4, 100)))
        self._left -= 1
        return self._task, self._path

    def _honest(self) -> Shot:
        callback = callbacks_of(1)[0]
        return Shot(HONEST, callback.request, honest=(callback,))

    # Bodies

    def _odd_body(self) -> Shot:
        task, path = self._aim()
        return Shot("body", post(path, self.body(task)))

    def body(self, task: str) -> bytes:
        """A body as platforms send it, changed in one way or two; now and then a full one."""
        if self._dice.random() < HEAVY:
            return self._dice.choice(_FULL)[:MOST]
        value = self._dice.choice(_SHAPES)(task)
        if self._dice.random() < 0.5:
            value = self._changed(value)
        raw = json.dumps(value, ensure_ascii=self._dice.random() < 0.5)
        data = raw.encode("utf-8", "surrogatepass")
        for _ in range(self._dice.choice((0, 1, 1, 2))):
            data = self._dice.choice(_BYTES)(self._dice, data)
        return data[:MOST]

    def _changed(self, value: Any) -> Any:
        """The value with one place of it replaced, removed, doubled or buried."""
        places = list(_places(value))
        holder, key = self._dice.choice(places)
        odd = self._dice.choice(_ODD)
        match self._dice.randrange(6):
            case 0 if isinstance(holder, dict):
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[self._dice.choice(_NAMES)] = odd
            case 2 if isinstance(holder, list):
                holder.extend([holder[key]] * self._dice.choice((1, 3, 300)))
            case 3:
                holder[key] = [holder[key]]
            case _:
                holder[key] = odd
        return value

    # Credentials

    def _odd_query(self) -> Shot:
        callback = callbacks_of(1)[0]
        path, _, query = callback.path.partition("?")
        dice = self._dice
        odd = dice.choice(_QUERIES)(dice, query)
        if not odd.isascii() or any(character <= " " for character in odd):
            return Shot("query", post("/x", b"").replace(b"/x", f"{path}?{odd}".encode()), None)
        return Shot("query", post(f"{path}?{odd}", callback.body))

    # Heads

    def _odd_head(self) -> Shot:
        task, path = self._aim()
        data = post(path, self.body(task)[:2_000])
        head, _, rest = data.partition(b"\r\n\r\n")
        for _ in range(self._dice.choice((1, 1, 2))):
            head = self._dice.choice(_HEADS)(self._dice, head)
        return Shot("head", head + b"\r\n\r\n" + rest, None)

    def _odd_path(self) -> Shot:
        dice = self._dice
        method = dice.choice(_METHODS)
        path = dice.choice(_PATHS)
        if dice.random() < 0.5:
            path += "?" + "".join(dice.choice(_QUERY_TEXT) for _ in range(dice.randrange(60)))
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
        return Shot("path", head.encode(), None if method in ("HEAD", "CONNECT") else 1)

    def _odd_api(self) -> Shot:
        """Whoever has the admin token may send nonsense too."""
        dice, task = self._dice, new_uuid()
        path = dice.choice(_API).format(task)
        method = dice.choice(("GET", "GET", "PUT", "PATCH", "POST", "DELETE"))
        spec = {"platform": "runware", "model": "pixverse:1@6", "expected": 2, "tags": {"a": "b"}}
        body = b"" if method == "GET" else json.dumps(self._changed(spec)).encode()
        if dice.random() < 0.3:
            body = dice.choice(_BYTES)(dice, body)
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN}\r\n"
        return Shot("api", f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    # Framing

    def _odd_chunks(self) -> Shot:
        dice = self._dice
        task, path = self._aim()
        body = self.body(task)[:20_000]
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        pieces = [body[at : at + 997] for at in range(0, len(body), 997)]
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
        if dice.random() < 0.5:
            return Shot("chunks", head + chunks + b"0\r\n\r\n")
        return Shot("chunks", head + dice.choice(_BYTES)(dice, chunks) + b"0\r\n\r\n", None)

    def _pipelined(self) -> Shot:
        honest = tuple(callbacks_of(self._dice.choice((2, 3))))
        data = b"".join(callback.request for callback in honest)
        return Shot("pipelined", data, len(honest), honest)

    def _no_http(self) -> Shot:
        dice = self._dice
        if dice.random() < 0.5:
            return Shot("no http", dice.choice(_BANNERS), None)
        return Shot("no http", dice.randbytes(dice.choice((1, 16, 300, 5_000))), None)


def _both(task: str) -> Any:
    return {"data": [item(task, new_uuid())], "errors": [_error(task)]}


def _error(task: str) -> dict[str, Any]:
    message = "The external provider did not respond within the timeout window."
    return {"taskUUID": task, "status": "error", "code": "timeoutProvider", "message": message}


_SHAPES: Final[Sequence[Callable[[str], Any]]] = (
    lambda task: {"data": [item(task, new_uuid())]},
    lambda task: item(task, new_uuid()),
    lambda task: {"errors": [_error(task)]},
    lambda task: {"error": _error(task)},
    lambda task: [item(task, new_uuid()), item(task, new_uuid())],
    lambda task: {"data": [{"taskType": "videoInference", "taskUUID": task, "status": "error"}]},
    lambda task: {"data": [{"taskUUID": task, "status": "processing", "progress": 50}]},
    _both,
)

_NAMES: Final = (
    "taskUUID",
    "videoUUID",
    "status",
    "code",
    "error",
    "data",
    "",
    "\ud800",
    "__proto__",
)
_ODD: Final[Sequence[Any]] = (
    None,
    True,
    False,
    0,
    -1,
    0.1,
    1e300,
    -0.0,
    2**63,
    -(2**63) - 1,
    10**19,
    10**400,
    "",
    "\x00",
    "\ud800",
    "\udfff\ud800",
    "\u202e\u2028\ufeff",
    "'; DROP TABLE tasks; --",
    "%s%n{0}{x}",
    "=1+1",
    "<script>alert(1)</script>",
    "\x1b[2J\r\n",
    "A" * 5_000,
    "💥" * 700,
    [],
    {},
    [[]],
    {"": {}},
    [None] * 70,
    {"a": [{"b": [{"c": {}}]}]},
    "success",
    "error",
    "processing",
)


def _places(value: Any) -> Any:
    """Every (holder, key) of a value."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(pairs):
        yield value, key
        if isinstance(inner, dict | list):
            yield from _places(inner)


def _at(dice: random.Random, data: bytes) -> int:
    return dice.randrange(len(data) + 1)


def _flip(dice: random.Random, data: bytes) -> bytes:
    changed = bytearray(data or b"\x00")
    for _ in range(dice.choice((1, 1, 1, 4, 40))):
        changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
    return bytes(changed)


def _splice(dice: random.Random, data: bytes) -> bytes:
    first, second = sorted((_at(dice, data), _at(dice, data)))
    third = _at(dice, data)
    return data[:third] + data[first:second] + data[third:]


def _deep(dice: random.Random, data: bytes) -> bytes:
    levels = dice.choice((3, 63, 64, 65, 66, 70, 500, 500, 1_000, 2_000, 100_000))
    opening, closing = dice.choice(((b"[", b"]"), (b'{"a":', b"}")))
    return opening * levels + dice.choice((data, b"")) + closing * dice.choice((levels, 0))


def _insert(*pieces: bytes) -> Callable[[random.Random, bytes], bytes]:
    def insert(dice: random.Random, data: bytes) -> bytes:
        at = _at(dice, data)
        return data[:at] + dice.choice(pieces) + data[at:]

    return insert


_ODD_JSON: Final = (b"NaN", b"-Infinity", b"1e999", b"1" * 5_000, b'"a":1,"a":2,', b"\x00", b"\xff")
_BYTES: Final[Sequence[Callable[[random.Random, bytes], bytes]]] = (
    _flip,
    _flip,
    _splice,
    _deep,
    _insert(*_ODD_JSON),
    _insert(
        b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80", b"\xef\xbb\xbf", b"\\ud800", b"\\u0000"
    ),
    lambda dice, data: data[: _at(dice, data)],
    lambda dice, data: data[_at(dice, data) :],
    lambda dice, data: data + data,
    lambda dice, data: data.replace(b":", b":" + dice.choice(_ODD_JSON), 1),
    lambda dice, data: b'{"taskUUID":"a","taskUUID":"b",' + data[1:],
    lambda dice, data: data.decode(errors="replace").encode(dice.choice(("utf-16", "utf-32"))),
    lambda dice, data: b"\xef\xbb\xbf" + data,
    lambda dice, data: b" " * dice.choice((1, 2, 4, 8, 70_000)) + data,
    lambda dice, data: dice.randbytes(dice.choice((0, 1, 9, 30, 300, 3_000, 40_000))),
)

# What costs most to take apart within the cap.
_FULL: Final = (
    b"[" + b"[]," * (MOST // 3 - 2) + b"[]]",
    b'{"data":[' + b",".join([b'{"a":[[[[1]]]]}'] * (MOST // 17)) + b"]}",
    b"{" + b",".join(b'"%d":1' % number for number in range(95_000)) + b"}",
    b"[" + b"1," * (MOST // 2 - 2) + b"1]",
    b"[" + b",".join([b"1" * 4_300] * 240) + b"]",
    b'["' + b"[" * (MOST - 4) + b'"]',
    b"[" * 70 + b'"' + b'\\"' * (MOST // 2 - 40),
    b'["' + b"\\ud800" * (MOST // 6 - 1) + b'"]',
    b'{"a":"' + b"eyJ2Ijo" * (MOST // 7 - 2) + b'"}',
    b'{"a":"' + b"apiKey=a " * (MOST // 9 - 2) + b'"}',
    b" " * (MOST - 2) + b"{}",
)

_QUERY_TEXT: Final = "sig=apiKey&%0aA+;:/?#[]@!$'()*,.~-_é\\"


def _flip_text(dice: random.Random, text: str) -> str:
    at = dice.randrange(len(text))
    return text[:at] + chr(dice.randrange(33, 127)) + text[at + 1 :]


def _cut_text(dice: random.Random, text: str) -> str:
    at = dice.randrange(len(text))
    return text[:at] + text[at + dice.choice((1, 2, 20, 400)) :]


_QUERIES: Final[Sequence[Callable[[random.Random, str], str]]] = (
    _flip_text,
    _flip_text,
    _cut_text,
    lambda dice, query: (
        query + dice.choice(("=", "&sig=x", "&apiKey=x", "&a=b", "&&", "%00", "%ff"))
    ),
    lambda dice, query: dice.choice(("sig=x&", "apiKey=y&", "x=%", "=&")) + query,
    lambda dice, query: query.replace("projectId", dice.choice(("projectid", "", "%70rojectId"))),
    lambda dice, query: query.replace(".", dice.choice(("..", "%2e", ":", ""))),
    lambda dice, query: query.upper(),
    lambda dice, query: query.replace("&", ";"),
    lambda dice, query: query + "&a=b" * dice.choice((20, 60, 200)),
    lambda dice, query: query + "A" * dice.choice((600, 5_000, 9_000, 70_000)),
    lambda dice, query: "&".join(f"{chr(97 + dice.randrange(26))}=é%C3" for _ in range(5)),
    lambda dice, query: "".join(dice.choice(_QUERY_TEXT) for _ in range(dice.randrange(200))),
)

_LINES: Final = (
    b"Content-Length: 5",
    b"Content-Length: 0",
    b"Content-Length: -1",
    b"Content-Length: 99999999999999999999",
    b"Content-Length: 1e3",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: xchunked",
    b"Content-Encoding: gzip",
    b"Content-Type: multipart/form-data; boundary=x",
    b"Content-Type: \xff",
    b"Expect: 100-continue",
    b"Expect: nonsense",
    b"Host: y",
    b"Host: a/b?c#d",
    b"Connection: close",
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Upgrade: h2c",
    b"HTTP2-Settings: AAMAAABkAAQAAP__",
    b"X-Forwarded-For: 203.0.113.7, \x1b[31m",
    b"X-Forwarded-For: " + b"1.2.3.4, " * 500,
    b"X-Forwarded-Proto: \xff",
    b"X-Request-ID: a b",
    b"X-A : b",
    b"X-A: b\x00",
    b"X-A: a\rb",
    b" folded: line",
    b"nonsense",
    b": empty",
    b"X-Long: " + b"A" * 20_000,
    b"\r\n".join(b"X-%d: y" % number for number in range(70)),
)


def _add_line(dice: random.Random, head: bytes) -> bytes:
    lines = head.split(b"\r\n")
    lines.insert(dice.randrange(1, len(lines) + 1), dice.choice(_LINES))
    return b"\r\n".join(lines)


def _drop_line(dice: random.Random, head: bytes) -> bytes:
    lines = head.split(b"\r\n")
    del lines[dice.randrange(len(lines))]
    return b"\r\n".join(lines)


_HEADS: Final[Sequence[Callable[[random.Random, bytes], bytes]]] = (
    _add_line,
    _add_line,
    _add_line,
    _drop_line,
    _flip,
    _splice,
    lambda dice, head: head.replace(b"\r\n", b"\n", dice.choice((1, -1))),
    lambda dice, head: head.replace(
        b"HTTP/1.1", dice.choice((b"HTTP/1.0", b"HTTP/9.9", b"", b"HTTP/1.1 "))
    ),
    lambda dice, head: head.replace(b" /", b" http://evil.example/", 1),
    lambda dice, head: head.replace(
        b"POST", dice.choice((b"post", b"GET", b"PRI", b"P\x00ST", b""))
    ),
    lambda dice, head: head[: _at(dice, head)],
)

_METHODS: Final = (
    "GET",
    "HEAD",
    "PUT",
    "DELETE",
    "OPTIONS",
    "PATCH",
    "TRACE",
    "CONNECT",
    "PURGE",
    "POST",
)
_PATHS: Final = (
    "/",
    "//",
    "*",
    "/healthz",
    "/readyz",
    "/healthz/",
    "/webhooks",
    "/webhooks/",
    "/webhooks/runware",
    "/webhooks/runware/",
    "//webhooks/runware",
    "/webhooks/../webhooks/runware",
    "/WEBHOOKS/runware",
    "/webhooks/%2e",
    "/webhooks/runware%00",
    "/webhooks/%ff",
    "/webhooks/nanogpt",
    "/v1/tasks",
    "/v1/tasks/x",
    "/v1/callbacks/cb_0",
    "/v1/endpoints",
    "/v1",
    "/metrics",
    "/openapi.json",
    "/" + "a/" * 200,
    "/" + "%41" * 300,
)
_API: Final = (
    "/v1/tasks/{}",
    "/v1/tasks/{}",
    "/v1/tasks/{}/results",
    "/v1/tasks/{}/reconcile",
    "/v1/tasks/{}/revoke",
    "/v1/tasks/claim",
    "/v1/tasks?limit=-1",
    "/v1/tasks?cursor=%00&q=%25",
    "/v1/tasks?since=nonsense",
    "/v1/tasks?tag=a%22b",
    "/v1/callbacks?outcome=quarantined&limit=3",
    "/v1/callbacks/cb_0000000000000",
    "/v1/events?limit=2",
    "/v1/deliveries?state=dead",
    "/v1/deliveries/dlv_{}",
    "/v1/tasks/{}?wait=nan",
    "/v1/tasks/%2e%2e",
)
_BANNERS: Final = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"\x00" * 100,
    b"GET\r\n\r\n",
    b"GET /\r\n",
    b"\r\n\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\n",
)
