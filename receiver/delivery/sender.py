"""Floor 2, edges: one HTTP attempt, as an Outcome. aiohttp, and the guard inside its connector.

Whatever a remote does is a value; only cancellation passes through `send`.
"""

from __future__ import annotations

import asyncio
import errno
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from contextvars import ContextVar
from functools import lru_cache, partial
from io import BytesIO
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from aiohttp import (
    AsyncResolver,
    ClientConnectorDNSError,
    ClientConnectorError,
    ClientOSError,
    ClientResponse,
    ClientResponseError,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    ServerDisconnectedError,
    TCPConnector,
)
from aiohttp.abc import AbstractResolver
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import RawResponseMessage
from aiohttp.streams import StreamReader
from multidict import CIMultiDict
from yarl import URL

from receiver import __version__
from receiver.deliveries import Failure, Outcome
from receiver.delivery.guard import (
    ConnectionBlocked,
    Guard,
    GuardedResolver,
    HostUnreadable,
    UrlRefused,
    as_written,
    guarded_socket,
)
from receiver.errors import SettingsRefused

DEADLINE_S: Final = 20.0
LOOKUP_S: Final = 5.0  # less than the deadline, so that silent name servers are told apart
BODY_CAP: Final = 65_536
USER_AGENT: Final = f"reelhook/{__version__}"
REDACTED: Final = "[redacted]"
CA_SETTING: Final = "REELHOOK_CA_FILE"

# Below the 5 s after which common servers (Node, uvicorn) drop an idle connection, so that a
# request seldom meets one that is being closed; and short enough for NATs that forget silently.
KEEPALIVE_S: Final = 4.0

# The session's own timeout is off: it rounds up to whole seconds. `send` keeps the deadline.
_NO_TIMEOUT: Final = ClientTimeout(total=None, connect=None, sock_read=None, sock_connect=None)
_MOST_HEADS: Final = 100  # in answer to one request, 1xx included
_MOST_BYTES: Final = 1 << 20  # on the wire; any sane answer is cut by the body's cap long before
_INLINE_BODY: Final = 1 << 20  # aiohttp warns when it is handed more bytes at once
_HEAD_ENDS: Final = re.compile(rb"\n\r?\n")
_STALE: Final = frozenset({errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED})
_SECRET_NAME: Final = re.compile(
    r"auth|cookie|credential|key|pass|pwd|secret|session|signature|token|jwt", re.IGNORECASE
)
_SECRET_VALUE: Final = re.compile(r"(?:bearer|basic|digest|whsec_|whsk_)\b", re.IGNORECASE)
# Ours to write, and nobody else's (receiver/endpoints.py).
_PLAIN: Final = {"host", "user-agent", "accept-encoding", "content-length", "content-type"} | {
    "webhook-id",
    "webhook-timestamp",
}
_SHORTEST_SECRET: Final = 8  # characters; shorter words, such as Bearer, may stand in any answer
_DECISIVE: Final = (ConnectionBlocked, ssl.SSLError)  # what they are wrapped in says less
_UNPRINTABLE: Final = re.compile(r"[^\x21-\x7e]")

_dialled: ContextVar[list[bool] | None] = ContextVar("dialled", default=None)


class Sender:
    """Sends one attempt at a time, many at once: `async with Sender(guard) as sender`.

    `ca_file` holds authorities to trust beside the system's. Raises SettingsRefused if it can't.
    """

    def __init__(
        self,
        guard: Guard,
        *,
        deadline_s: float = DEADLINE_S,
        body_cap: int = BODY_CAP,
        user_agent: str = USER_AGENT,
        ca_file: str | None = None,
        resolver: AbstractResolver | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._guards = {"https": guard, "http": guard.for_plain_http()}
        self._deadline_s = deadline_s
        self._lookup_s = min(LOOKUP_S, deadline_s / 2)
        self._body_cap = body_cap
        self._base_headers = CIMultiDict(
            {"user-agent": user_agent, "accept": "*/*", "accept-encoding": "identity"}
        )
        self._tls = _trust(ca_file)
        self._given_resolver = resolver
        self._monotonic = monotonic
        self._aim: Callable[[str], URL] = lru_cache(maxsize=1024)(partial(_aim, guard))
        self._pooled: dict[str, ClientSession] = {}
        self._stack = AsyncExitStack()

    @property
    def deadline_s(self) -> float:
        """Seconds that an attempt may take, from the lookup of its name to its last byte."""
        return self._deadline_s

    async def __aenter__(self) -> Self:
        self._resolver = self._given_resolver or self._own_resolver()
        for scheme in self._guards:
            session = self._session(scheme, force_close=False)
            self._pooled[scheme] = await self._stack.enter_async_context(session)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    async def send(self, url: str, body: bytes, headers: Mapping[str, str]) -> Outcome:
        """POST once, within the deadline. Raises nothing but cancellation."""
        started = self._monotonic()
        sent = self._base_headers.copy()
        sent.update(headers)
        sent["content-length"] = str(len(body))
        answer = _Answer(self._body_cap)
        try:
            async with asyncio.timeout(self._deadline_s):
                await self._exchange(self._aim(url), body, sent, answer)
        except Exception as error:  # odd hosts and odd servers raise far more than aiohttp's own
            answer.break_off(error, self._deadline_s)
        elapsed = round((self._monotonic() - started) * 1000)
        answer.forget(sent)
        return answer.outcome(elapsed, _shown(sent))

    async def _exchange(
        self, url: URL, body: bytes, headers: CIMultiDict[str], answer: _Answer
    ) -> None:
        headers["host"] = url.host_port_subcomponent or ""
        dialled: list[bool] = []
        _dialled.set(dialled)
        try:
            await _post(self._pooled[url.scheme], url, body, headers, answer)
        except (ServerDisconnectedError, ClientOSError) as error:
            # The server had closed a kept connection before this request came: the endpoint did
            # not fail, and the event's id makes a second copy harmless. So once more, on a
            # connection of its own.
            if dialled or answer.status is not None or not _looks_stale(error):
                raise
            async with self._session(url.scheme, force_close=True) as fresh:
                await _post(fresh, url, body, headers, answer)

    def _session(self, scheme: str, *, force_close: bool) -> ClientSession:
        guard = self._guards[scheme]
        connector = _BoundedConnector(
            resolver=GuardedResolver(guard, self._resolver, timeout_s=self._lookup_s),
            socket_factory=_noting(guarded_socket(guard)),
            use_dns_cache=False,
            ssl=self._tls,
            limit=0,  # the worker bounds concurrency
            force_close=force_close,
            keepalive_timeout=None if force_close else KEEPALIVE_S,
        )
        return ClientSession(
            connector=connector,
            timeout=_NO_TIMEOUT,
            cookie_jar=DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )

    def _own_resolver(self) -> AbstractResolver:
        resolver = AsyncResolver()
        self._stack.push_async_callback(resolver.close)
        return resolver


class _Flooded(Exception):
    """The endpoint sent far more than an answer."""


class _BoundedHandler(ResponseHandler):
    """A connection that hears one answer per request, and only so much.

    aiohttp bounds a head and we cut the body, but 1xx answers, padding between answers and chunk
    extensions are free. Under uvloop one endpoint that flooded us with 1xx held the loop for
    seconds, and with it every other delivery.
    """

    _bytes = 0
    _heads = 0
    _is_answered = False  # the head of the answer is there
    _end = b""  # of what came before that: a head may end in the middle of its last line

    def set_response_params(self, **options: Any) -> None:
        self._bytes = self._heads = 0
        self._is_answered, self._end = False, b""
        super().set_response_params(**options)

    def data_received(self, data: bytes) -> None:
        self._bytes += len(data)
        if data and self._is_answered and (self._payload is None or self._payload.is_eof()):
            # The next request on this connection would take it for its own answer.
            self.force_close()
            self._drop()
        elif self._bytes > _MOST_BYTES:
            self._give_up()
        elif not data or (data := self._past_heads(data)):  # aiohttp resumes with no data
            super().data_received(data)

    def feed_data(self, data: tuple[RawResponseMessage, StreamReader], size: int = 0) -> None:
        self._is_answered = data[0].code >= 200
        super().feed_data(data, size)

    def _past_heads(self, data: bytes) -> bytes:
        """Hear each head by itself; what follows the last one is left.

        What follows may be broken, a 204 with a body for one, and aiohttp forgets the answer then.
        """
        while not self._is_answered and (end := _HEAD_ENDS.search(self._end + data)):
            self._heads += 1
            if self._heads > _MOST_HEADS:
                self._give_up()
                return b""
            at = end.end() - len(self._end)
            self._end = b""
            super().data_received(data[:at])
            data = data[at:]
        self._end = (self._end + data)[-2:]
        return data  # also what is only a part of a head

    def _give_up(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.set_exception(_Flooded())
            self._drop()

    def _drop(self) -> None:
        if self.transport is not None:
            self.transport.abort()


class _BoundedConnector(TCPConnector):
    """aiohttp's connector with our handler. The factory is not public: a flood test watches it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._factory = partial(_bounded, self._loop)


def _bounded(loop: asyncio.AbstractEventLoop) -> ResponseHandler:
    return _BoundedHandler(loop)


class _Answer:
    """What has arrived of an answer so far; it survives the exception that ended it."""

    __slots__ = ("_body", "_cap", "_detail", "_failure", "_retry_after", "_truncated", "status")

    def __init__(self, cap: int) -> None:
        self.status: int | None = None
        self._cap = cap
        self._body = b""
        self._truncated = False
        self._retry_after: str | None = None
        self._failure: Failure | None = None
        self._detail = ""

    async def take(self, response: ClientResponse) -> None:
        """The head, then the body up to the cap."""
        self.status = response.status
        self._retry_after = response.headers.get("Retry-After", "")[:100] or None
        self._failure, self._detail = _judge(response)
        await self._read(response)

    async def _read(self, response: ClientResponse) -> None:
        content = response.content
        while chunk := await content.readany():
            room = self._cap - len(self._body)
            self._body += chunk[:room]
            if len(chunk) > room:
                self._truncated = True
                response.close()
                return

    def break_off(self, error: Exception, deadline_s: float) -> None:
        """The exchange ended early: fatal before the head, a shorter body after it."""
        if self.status is None:
            self._failure, self._detail = _explain(error, deadline_s)
        else:
            self._truncated = True

    def forget(self, sent: CIMultiDict[str]) -> None:
        """Strike out what the endpoint echoes of the request's secrets; it is kept and shown."""
        for secret in _secrets_of(sent) if self._body else ():
            self._body = self._body.replace(secret, REDACTED.encode())

    def outcome(self, duration_ms: int, request_headers: Mapping[str, str]) -> Outcome:
        """The whole attempt as a value."""
        return Outcome(
            status=self.status,
            failure=self._failure,
            detail=self._detail,
            duration_ms=duration_ms,
            retry_after=self._retry_after,
            response_body=self._body,
            truncated=self._truncated,
            request_headers=request_headers,
        )


async def _post(
    session: ClientSession, url: URL, body: bytes, headers: CIMultiDict[str], answer: _Answer
) -> None:
    data = body if len(body) <= _INLINE_BODY else BytesIO(body)
    async with session.post(url, data=data, headers=headers, allow_redirects=False) as response:
        await answer.take(response)


def _aim(guard: Guard, url: str) -> URL:
    """The parsed URL, if the guard's rules of today still let it pass."""
    guard.check_url(url)
    return as_written(url)


def _trust(ca_file: str | None) -> ssl.SSLContext:
    """The system's authorities, and those of `ca_file`."""
    # the paths OpenSSL was built with: SSL_CERT_FILE in the environment must not widen trust
    paths = ssl.get_default_verify_paths()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for cafile, capath in ((paths.openssl_cafile, None), (None, paths.openssl_capath)):
        _load_if_there(context, cafile, capath)
    if ca_file is not None:
        _trust_also(context, ca_file)
    context.set_alpn_protocols(["http/1.1"])
    return context


def _trust_also(context: ssl.SSLContext, ca_file: str) -> None:
    try:
        context.load_verify_locations(ca_file)
    except ssl.SSLError:
        raise SettingsRefused(f"{CA_SETTING}: {ca_file} holds no certificate in PEM.") from None
    except OSError as error:
        raise SettingsRefused(f"{CA_SETTING}: {ca_file} can't be read: {error.strerror}.") from None


def _load_if_there(context: ssl.SSLContext, cafile: str | None, capath: str | None) -> None:
    try:
        context.load_verify_locations(cafile, capath)
    except FileNotFoundError:
        return


def _noting(
    make: Callable[[tuple[Any, ...]], socket.socket],
) -> Callable[[tuple[Any, ...]], socket.socket]:
    """The same socket factory, telling the attempt that it dialled instead of reusing."""

    def make_noted(info: tuple[Any, ...]) -> socket.socket:
        dialled = _dialled.get()
        if dialled is not None:
            dialled.append(True)
        return make(info)

    return make_noted


def _looks_stale(error: ServerDisconnectedError | ClientOSError) -> bool:
    if isinstance(error, ServerDisconnectedError):
        return isinstance(error.message, str)  # else it is the part of a head that did arrive
    return error.errno in _STALE


class _Verdict(NamedTuple):
    failure: Failure | None
    detail: str


def _judge(response: ClientResponse) -> _Verdict:
    status = response.status
    if 200 <= status < 300:
        return _Verdict(None, f"The endpoint answered {status}.")
    if 300 <= status < 400:
        return _Verdict(Failure.REDIRECT, _redirect(response))
    if 400 <= status < 600:
        return _Verdict(Failure.STATUS, f"The endpoint answered {status}.")
    return _Verdict(Failure.PROTOCOL, f"The endpoint answered {status}, which is no final status.")


def _redirect(response: ClientResponse) -> str:
    sentence = f"The endpoint answered {response.status}; redirects are not followed."
    location = response.headers.get("Location")
    return f"{sentence[:-1]} (to {_place(location)})." if location else sentence


def _place(location: str) -> str:
    """Where a redirect points, without what may be secret in it."""
    bare = re.split(r"[?#]", location, maxsplit=1)[0]
    nameless = re.sub(r"//[^/]*@", "//", bare)
    return _UNPRINTABLE.sub("?", nameless)[:200]


def _explain(error: Exception, deadline_s: float) -> _Verdict:
    """Class and sentence of an attempt that got no answer. Remote bytes are never quoted."""
    decisive = [cause for cause in _causes(error) if isinstance(cause, _DECISIVE)]
    root = decisive[-1] if decisive else error  # aiohttp's TLS errors are SSLErrors too, but empty
    match root:
        case ConnectionBlocked(blocked=blocked):
            return _Verdict(Failure.BLOCKED_ADDRESS, str(blocked))
        case HostUnreadable():
            return _Verdict(Failure.DNS, str(root))
        case UrlRefused():
            return _Verdict(Failure.BLOCKED_ADDRESS, f"The URL is refused: {root}")
        case ssl.SSLError():
            return _Verdict(Failure.TLS, f"TLS failed: {_tls_reason(root)}.")
        case ClientConnectorError():
            return _unconnected(root)
        case TimeoutError():
            return _Verdict(Failure.TIMEOUT, f"No answer within {deadline_s:g} s.")
        case _:
            return _Verdict(Failure.PROTOCOL, _protocol_reason(root))


def _unconnected(error: ClientConnectorError) -> _Verdict:
    reason = (error.os_error.strerror or type(error.os_error).__name__).rstrip(".")
    if isinstance(error, ClientConnectorDNSError):
        return _Verdict(Failure.DNS, f"The name {error.host} did not resolve: {reason}.")
    if isinstance(error.os_error, ConnectionResetError):
        # TCP itself is refused and never reset: this is how servers leave a handshake
        return _Verdict(Failure.TLS, f"{error.host}:{error.port} broke off the TLS handshake.")
    return _Verdict(Failure.CONNECT, f"No connection to {error.host}:{error.port}: {reason}.")


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = getattr(seen, "os_error", None) or seen.__cause__


def _tls_reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message.rstrip(".")
    return (error.reason or type(error).__name__).replace("_", " ").lower()


def _protocol_reason(error: Exception) -> str:
    if isinstance(error, _Flooded):
        return "The endpoint sent far more than an answer."
    if isinstance(error, ServerDisconnectedError | ConnectionError):
        return "The endpoint closed the connection without an answer."
    name = type(error.__cause__ if isinstance(error, ClientResponseError) else error).__name__
    return f"The exchange broke: what came is not an HTTP/1.1 answer ({name})."


def _shown(headers: CIMultiDict[str]) -> dict[str, str]:
    """The request's headers, fit for the attempt log."""
    return {name: REDACTED if _is_secret(name, value) else value for name, value in headers.items()}


def _secrets_of(headers: CIMultiDict[str]) -> Iterator[bytes]:
    """The words of secret headers, as they stand in an echo: plain, or in JSON of PHP's kind."""
    for name, value in headers.items():
        if _is_secret(name, value):
            for word in value.split():
                if len(word) >= _SHORTEST_SECRET:
                    yield word.encode()
                    yield word.replace("/", "\\/").encode()


def _is_secret(name: str, value: str) -> bool:
    return name not in _PLAIN and (_is_secret_name(name) or bool(_SECRET_VALUE.match(value)))


@lru_cache(maxsize=1024)
def _is_secret_name(name: str) -> bool:
    return _SECRET_NAME.search(name) is not None
