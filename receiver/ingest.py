"""Floor 3, flows: POST /webhooks/{platform}?sig=…, the one door for whatever is learned of a task.

Bare ASGI, since every callback passes here. The order is: token, headers, body, parse, record; a
2xx means that the store has committed (design §2, §4). Nothing is started after the answer.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple, Protocol
from urllib.parse import parse_qsl

from starlette.types import Receive, Scope, Send

from receiver.callbacks import Arrival, Outcome, Receipt, by_task, read, together
from receiver.clock import Clock
from receiver.errors import StoreUnavailable, TokenExpired, TokenRefused
from receiver.platforms import PARSERS
from receiver.platforms.items import Item
from receiver.problems import MEDIA_TYPE, REQUEST_ID, problem
from receiver.tokens import DEFAULT_PROJECT, MAX_QUERY, Claims, Source, TokenBox

MAX_BODY: Final = 1 << 20  # bytes
RETRY_AFTER: Final = "2"  # seconds; the platforms give up within a minute

Record = Callable[[Arrival], Awaitable[Receipt]]
Headers = Sequence[tuple[bytes, bytes]]


class Failures(Protocol):
    """Counts failed tokens an address; gives the seconds to wait when there were too many."""

    def note(self, address: str) -> int | None: ...


class Journal(Protocol):
    """Writes the one canonical line of a request: bytes read and seconds taken; never a token."""

    def __call__(
        self,
        outcome: str,
        status: int,
        claims: Claims | None,
        remote: str,
        size: int,
        seconds: float,
        request_id: str,
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class Answer:
    """A response; most are made once."""

    status: int
    body: bytes
    headers: Headers


def _json(status: int, body: bytes) -> Answer:
    return Answer(status, body, _headers(b"application/json", body))


def _refusal(status: int, code: str, detail: str, *headers: tuple[bytes, bytes]) -> Answer:
    body = problem(status, code, detail)
    shown = (*_headers(MEDIA_TYPE.encode(), body), *headers)
    return Answer(status, body, (*shown, *_CLOSES))


def _headers(kind: bytes, body: bytes) -> Headers:
    length = str(len(body)).encode()
    return (
        (b"content-type", kind),
        (b"content-length", length),
        (b"cache-control", b"no-store"),
    )


# The body was not read, so the connection must not be used again.
_CLOSES: Final = ((b"connection", b"close"), (b"referrer-policy", b"no-referrer"))


@lru_cache(maxsize=256)
def _recorded(results: int) -> Answer:
    return _json(200, b'{"status":"recorded","results":%d}' % results)


_RETRY: Final = (b"retry-after", RETRY_AFTER.encode())
_DUPLICATE: Final = _json(200, b'{"status":"duplicate"}')
_CONFLICT: Final = _json(200, b'{"status":"conflict"}')
_QUARANTINED: Final = _json(200, b'{"status":"quarantined"}')
_PROGRESS: Final = _json(200, b'{"status":"progress"}')
_UNAUTHORIZED: Final = _refusal(
    401, "token_refused", "This URL does not carry a credential that opens it."
)
_GONE: Final = _refusal(410, "token_gone", "This URL has expired or was revoked.")
_FOREIGN: Final = _refusal(403, "foreign_task", "The body is about another task than the URL.")
_METHOD: Final = _refusal(405, "method_not_allowed", "Send a POST.", (b"allow", b"POST"))
_PLATFORM: Final = _refusal(404, "unknown_platform", "There is no platform of that name here.")
_LARGE: Final = _refusal(413, "too_large", f"A callback has at most {MAX_BODY} bytes.")
_ENCODED: Final = _refusal(415, "encoded", "Send the body without Content-Encoding.")
_FORM: Final = _refusal(415, "not_json", "Send JSON, not a form.")
_BUSY: Final = _refusal(503, "store_unavailable", "Not stored; send it again.", _RETRY)
_FLOOD: Final = _refusal(429, "too_many", "Too many bodies that record nothing.", _RETRY)

_ANSWERS: Final[Mapping[Outcome, Answer]] = {
    Outcome.DUPLICATE: _DUPLICATE,
    Outcome.CONFLICT: _CONFLICT,
    Outcome.QUARANTINED: _QUARANTINED,
    Outcome.PROGRESS: _PROGRESS,
    Outcome.EXPIRED: _GONE,
    Outcome.REVOKED: _GONE,
    Outcome.LIMITED: _FLOOD,
}


class Refused(Exception):  # carries an answer up to the door, never further
    """A request that ends here, with its answer."""

    def __init__(self, answer: Answer, outcome: str) -> None:
        super().__init__(outcome)
        self.answer = answer
        self.outcome = outcome


class Gone(Exception):
    """The client went away before its body was complete: nothing to store, nobody to answer."""


class Credential(NamedTuple):
    """Who the URL says is calling. `claims` is None for a static key."""

    claims: Claims | None
    expired: bool = False
    tags: Mapping[str, str] | None = None


class Ingest:
    """The door. `record` stores an arrival durably, `admit` says beforehand whether it would try;
    `failures` and `journal` are the edges."""

    def __init__(
        self,
        record: Record,
        admit: Callable[[], None],
        tokens: TokenBox,
        *,
        clock: Clock,
        wall: Clock,
        failures: Failures,
        journal: Journal,
        static_keys: Sequence[str] = (),
        seconds: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._record = record
        self._is_admitted = admit
        self._tokens = tokens
        self._clock = clock
        self._wall = wall
        self._failures = failures
        self._journal = journal
        self._static_keys = [key.encode() for key in static_keys]
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        started, remote, body = self._seconds(), remote_of(scope), b""
        name: str = scope.get(REQUEST_ID, "")
        claims: Claims | None = None
        try:
            credential = self._admit(scope)
            claims = credential.claims
            _check_headers(scope["headers"])
            self._check_store()
            body = await _read(receive)
            answer, outcome = await self._store(self._arrivals(scope, credential, body, remote))
        except Refused as refused:
            answer, outcome = self._count(refused, remote), refused.outcome
        except Gone:
            self._journal("disconnected", 0, claims, remote, 0, self._seconds() - started, name)
            return
        except asyncio.CancelledError:  # a stop waits no longer, and the connection says so
            taken = self._seconds() - started
            self._journal("stopping", 503, claims, remote, len(body), taken, name)
            raise
        taken = self._seconds() - started
        self._journal(outcome, answer.status, claims, remote, len(body), taken, name)
        await _respond(send, answer, name)

    def _admit(self, scope: Scope) -> Credential:
        if scope["method"] != "POST":
            raise Refused(_METHOD, "method")
        if scope["path_params"]["platform"] not in PARSERS:
            raise Refused(_PLATFORM, "platform")
        return self._credential(scope["query_string"], scope["path_params"]["platform"])

    def _credential(self, query: bytes, platform: str) -> Credential:
        if len(query) > MAX_QUERY:
            raise Refused(_UNAUTHORIZED, "query_too_long")
        try:
            pairs = parse_qsl(
                query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=64
            )
        except ValueError:
            raise Refused(_UNAUTHORIZED, "query_malformed") from None
        given = [(name, value) for name, value in pairs if name in ("sig", "apiKey")]
        if len(given) != 1:
            raise Refused(_UNAUTHORIZED, "no_credential" if not given else "two_credentials")
        (name, value), tags = given[0], [pair for pair in pairs if pair not in given]
        if name == "apiKey":
            return self._static(value, tags)
        return self._signed(value, platform, tags)

    def _signed(self, token: str, platform: str, tags: list[tuple[str, str]]) -> Credential:
        try:
            claims = self._tokens.verify(
                token, platform=platform, tags=tags, now=self._clock(), wall=self._wall()
            )
        except TokenExpired as error:
            return Credential(error.claims, expired=True, tags=dict(tags))
        except TokenRefused as error:
            raise Refused(_UNAUTHORIZED, f"token_{error.evidence.get('reason')}") from None
        return Credential(claims, tags=dict(tags))

    def _static(self, key: str, tags: list[tuple[str, str]]) -> Credential:
        given = key.encode()
        if not any([hmac.compare_digest(given, known) for known in self._static_keys]):
            raise Refused(_UNAUTHORIZED, "static_key")
        return Credential(None, tags=dict(tags))

    def _check_store(self) -> None:
        # Before the body, which then is not read: what is refused for want of room must cost none.
        try:
            self._is_admitted()
        except StoreUnavailable as error:
            raise Refused(_BUSY, error.code) from None

    def _arrivals(
        self, scope: Scope, credential: Credential, body: bytes, remote: str
    ) -> list[Arrival]:
        platform = scope["path_params"]["platform"]
        claims = credential.claims
        items, unreadable = read(platform, body, claims.task if claims else None)
        draft = _Draft(platform, credential, body, self._clock(), remote, unreadable)
        if claims is None:
            return draft.by_task(items)
        own = [item for item in items if item.task_id == claims.task]
        if items and not own and not credential.expired:
            raise Refused(_FOREIGN, "foreign_task")
        return [draft.arrival(claims.task, own, foreign=len(items) - len(own))]

    async def _store(self, arrivals: Sequence[Arrival]) -> tuple[Answer, str]:
        try:
            if len(arrivals) == 1:
                outcome, results = await self._record(arrivals[0])
            else:
                receipts = await asyncio.gather(*map(self._record, arrivals))
                outcome, results = together(receipts)
        except StoreUnavailable as error:
            return _BUSY, error.code
        return (_recorded(results) if results else _ANSWERS[outcome]), outcome

    def _count(self, refused: Refused, remote: str) -> Answer:
        if refused.answer is not _UNAUTHORIZED:
            return refused.answer
        wait = self._failures.note(remote)
        if wait is None:
            return refused.answer
        retry = (b"retry-after", str(wait).encode())
        return _refusal(429, "too_many", "Too many credentials that open nothing.", retry)


class _Draft(NamedTuple):
    """What all arrivals of one request share."""

    platform: str
    credential: Credential
    body: bytes
    now: int
    remote: str
    unreadable: str | None

    def arrival(self, task: str | None, items: Sequence[Item], foreign: int = 0) -> Arrival:
        claims = self.credential.claims
        return Arrival(
            task_id=task,
            platform=self.platform,
            project=claims.project if claims else DEFAULT_PROJECT,
            expected=(claims.expected or None) if claims else None,
            source=claims.source if claims else Source.CALLBACK,
            issued_at=claims.issued_at if claims else self.now,
            jti=claims.jti if claims else None,
            body=self.body,
            sha256=hashlib.sha256(self.body).digest(),
            received_at=self.now,
            remote=self.remote,
            tags=self.credential.tags or {},
            items=items,
            foreign=foreign,
            unreadable=self.unreadable,
            expired=self.credential.expired,
        )

    def by_task(self, items: Sequence[Item]) -> list[Arrival]:
        """A static key says nothing of the task, so the items do."""
        return [self.arrival(task, found) for task, found in by_task(items).items()]


def remote_of(scope: Scope) -> str:
    """The peer's address. A proxy's word, so it has a bound; IPv6 takes 45 characters at most."""
    return scope["client"][0][:64] if scope.get("client") else "-"


def _check_headers(headers: Headers) -> None:
    for name, value in headers:
        if name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            raise Refused(_ENCODED, "encoded")
        if name == b"content-type" and value.lstrip().lower().startswith(b"multipart/"):
            raise Refused(_FORM, "not_json")
        if name == b"content-length" and int(value) > MAX_BODY:
            raise Refused(_LARGE, "too_large")


async def _read(receive: Receive) -> bytes:
    """The whole body. Its deadline is the connection's, which then says that the client is gone."""
    begun = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        body: bytes = message.get("body", b"")
        if len(begun) + len(body) > MAX_BODY:
            raise Refused(_LARGE, "too_large")
        if not message.get("more_body", False):
            return bytes(begun + body) if begun else body
        begun += body


async def _respond(send: Send, answer: Answer, name: str) -> None:
    headers = [*answer.headers, (b"x-request-id", name.encode())]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
