"""Floor 2, edges: one call to a receiver's API: what is sent, what went wrong. httpx only."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from receiver.errors import ReelhookError

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)

TIMEOUT: Final = 10.0  # seconds; a long poll gets its wait on top


# What a proxy answers while the receiver restarts, or the receiver while it stops or can't write.
_NOT_NOW: Final = frozenset({502, 503, 504})


class Unreachable(ReelhookError):
    """The receiver did not answer, or not now; start `reelhook serve`, or set REELHOOK_URL."""

    code = "unreachable"


class ApiRefused(ReelhookError):
    """The receiver answered with a problem (RFC 9457); `problem` is its stable code."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail, status=status)
        self.status = status
        self.problem = code


class Listing(BaseModel, Generic[T]):
    """One page of a list."""

    data: list[T]
    next_cursor: str | None


class Caller:
    """Talks to one receiver. `transport` is for tests; a proxy in the environment is ignored."""

    def __init__(
        self, url: str, token: str, *, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self.url = url.rstrip("/")
        try:
            self._http = httpx.AsyncClient(
                base_url=self.url,
                headers={"authorization": f"Bearer {token}"} if token else {},
                timeout=TIMEOUT,
                transport=transport,
                trust_env=False,
            )
        except httpx.InvalidURL as error:
            shown = _without_user(self.url)
            raise Unreachable(f"{shown!r} is no URL ({error}). Check REELHOOK_URL.") from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _list(self, kind: type[T], path: str, filters: Mapping[str, Any]) -> Listing[T]:
        params = {name: value for name, value in filters.items() if value is not None}
        response = await self._ask("GET", path, params=params)
        page: Listing[T] = read(Listing[kind], response)  # type: ignore[valid-type]
        return page

    async def _ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        with self._reached():
            response = await self._http.request(method, path, **options)
        self._check(response)
        return response

    @asynccontextmanager
    async def _streaming(
        self, method: str, path: str, **options: Any
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The pieces of an answer that does not end by itself, as they come."""
        with self._reached():
            async with self._http.stream(method, path, **options) as response:
                if not response.is_success:
                    await response.aread()
                self._check(response)
                if not response.headers.get("content-type", "").startswith("text/event-stream"):
                    raise _not_reelhook(response)
                yield response.aiter_bytes()

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except (httpx.RequestError, httpx.InvalidURL) as error:
            raise Unreachable(
                f"The receiver at {_without_user(self.url)} did not answer"
                f" ({type(error).__name__}). Start it with `reelhook serve`, or set REELHOOK_URL."
            ) from error

    def _check(self, response: httpx.Response) -> None:
        if response.is_success or response.status_code == 304:
            return
        refused = _refused(response)
        if response.status_code == 401:
            text = f"{refused} Commands and the submitter take it from REELHOOK_ADMIN_TOKEN."
            raise ApiRefused(401, refused.problem, text)
        if response.status_code in _NOT_NOW:
            raise Unreachable(
                f"The receiver at {self.url} takes nothing now ({response.status_code}). {refused}"
            )
        raise refused


def _without_user(url: str) -> str:
    # A password in front of the host is nobody's to read in an error.
    return re.sub(r"//[^/]*@", "//", url)


def read(kind: type[M], response: httpx.Response) -> M:
    try:
        return kind.model_validate_json(_whole(response.content))
    except ValidationError:
        raise _not_reelhook(response) from None


def _not_reelhook(response: httpx.Response) -> ApiRefused:
    said = f"What answers there (status {response.status_code}) is not a receiver of this release."
    text = f"{said} Check REELHOOK_URL."
    return ApiRefused(response.status_code, "not_reelhook", text)


def _whole(content: bytes) -> bytes:
    # Half a character, as a platform leaves one that cuts a text in UTF-16, is in no text that can
    # be printed or sent on: `?` stands for it.
    if b"\\ud" not in content:
        return content
    with suppress(ValueError):
        return json.dumps(json.loads(content), ensure_ascii=False).encode("utf-8", "replace")
    return content


def _refused(response: httpx.Response) -> ApiRefused:
    try:
        problem = response.json()
        return ApiRefused(response.status_code, problem["code"], problem["detail"])
    except (ValueError, KeyError, TypeError):
        if response.status_code < 500:
            return _not_reelhook(response)
        text = f"The receiver answered {response.status_code} without a problem document."
        return ApiRefused(response.status_code, "not_reelhook", text)
