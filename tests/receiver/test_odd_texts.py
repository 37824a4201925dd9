"""NUL and half characters: refused in what somebody tells us, kept in what platforms send.

PostgreSQL takes neither in a text, nor escaped in `jsonb`; no strict client reads the latter.
"""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import AsyncExitStack, closing
from itertools import count
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from receiver.admin.dashboard.door import Dashboard
from receiver.admin.routes.rows import Row
from receiver.deliveries import Failure, State
from tests.doubles import START, Assembled, assembled, sent
from tests.make import endpoint, failure, settled, success, uuid, wrapped
from tests.receiver.browsing import form_in, logged_in
from tests.receiver.store.suite import claim
from tests.receiver.test_access import table
from tests.receiver.test_access_walk import furnished, is_stream, place

ODD: Final = ("\x00", "\ud800", "\udfff")
STATIC: Final = "a-static-key-for-consoles-0123456789"


# What somebody tells us


@pytest.fixture
def house(tmp_path: Path) -> Iterator[tuple[asyncio.Runner, Assembled, dict[str, str]]]:
    """A receiver with one of everything, in a loop of its own: Hypothesis has none."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        receiver = runner.run(stack.enter_async_context(assembled(tmp_path)))
        try:
            yield runner, receiver, runner.run(furnished(receiver))
        finally:
            runner.run(stack.aclose())


def bodies(row: Row, odd: str) -> Iterator[dict[str, Any]]:
    """The row's body with an odd text in each of its fields, at every depth that there is."""
    if row.body is None:
        return
    for name in row.body.model_json_schema()["properties"]:
        yield from ({name: odd}, {name: {odd: "x"}}, {name: [{"a": ["b", {"c": odd}]}]})
    yield {odd: 1}


@given(before=st.text(max_size=3), odd=st.sampled_from(ODD), after=st.text(max_size=3))
@settings(
    max_examples=6,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[*HealthCheck],
    deadline=None,
    derandomize=True,
    database=None,
)
def test_an_odd_text_is_refused_wherever_it_stands(
    house: tuple[asyncio.Runner, Assembled, dict[str, str]], before: str, odd: str, after: str
) -> None:
    runner, receiver, things = house
    text = f"{before}{odd}{after}"

    async def walk() -> None:
        before_all = (await receiver.client.get("/v1/audit")).json()
        for row in table(receiver):
            await _ask(receiver.client, row, things, text, odd)
        assert (await receiver.client.get("/v1/audit")).json() == before_all

    runner.run(walk())


async def _ask(
    api: httpx.AsyncClient, row: Row, things: dict[str, str], text: str, odd: str
) -> None:
    for body in bodies(row, text):
        found = await api.request(
            row.method,
            place(row, things),
            content=json.dumps(body),
            headers={"content-type": "application/json"},
        )
        _refused(found, f"{row.method} {row.path} {body!r}")
    for name in row.parameters:
        query = f"{name}={quote(text, errors='surrogatepass')}"
        where = place(row, things) + f"?{query}{'&wait=0' if is_stream(row) else ''}"
        if name == "wait" or row.method == "GET":
            found = await api.request(row.method, where)
            if odd == "\x00":
                _refused(found, where)
            assert found.status_code < 500, where
    at = row.path.replace("{id}", quote(text, safe="", errors="surrogatepass"))
    if "{id}" in row.path:
        found = await api.request(row.method, at, json={})
        assert 400 <= found.status_code < 500, at


def _refused(found: httpx.Response, where: str) -> None:
    assert (found.status_code, found.json()["code"]) == (422, "invalid"), where
    assert "NUL" in found.json()["detail"], where


@pytest.mark.anyio
async def test_an_odd_text_is_refused_in_a_form_and_in_a_page_s_url(tmp_path: Path) -> None:
    async with assembled(tmp_path) as receiver, logged_in(receiver) as browser:
        csrf = form_in((await browser.get("/")).text, "/logout")
        for row in _pages(receiver):
            if row.method == "POST":
                found = await browser.post(row.path, data={**csrf, "name": "a\x00b"})
            else:
                found = await browser.head(f"{row.path}?q=a%00b")  # a stream has no end
                assert found.status_code == 422, row.path
                if row.path == "/live":
                    continue
                found = await browser.get(f"{row.path}?q=a%00b")
            assert found.status_code == 422, row.path
            assert "NUL" in found.text, row.path
        found = await browser.post("/login", data={"token": "a\x00b"})
        assert found.status_code == 422


def _pages(receiver: Assembled) -> Any:
    ops = receiver.service.ops
    return Dashboard(ops, None, None, table(receiver), lambda _: None).table()  # type: ignore[arg-type]


# What platforms call back with

# Where a NUL or half a character may stand, and in which spelling: a store that takes neither has
# to keep these otherwise. All other columns are clean (`receiver.platforms.reading.text_of`, and
# the doors above).
RAW: Final = {
    "callbacks.body",  # bytes, as they came
    "attempts.response_body",  # bytes, as an endpoint answered
}
ESCAPED: Final = {  # as \u0000 or \ud800 in a JSON text
    "callbacks.body",
    "callbacks.tags",  # of a static key's URL; half a character can't be in a URL
    "events.payload",  # bytes: the platform's item is in it
    "results.raw",
    "tasks.tags",  # of a static key's URL
}
_HALF: Final = re.compile(r"(?<!\\)(?:\\\\)*\\u(?:0000|d[89a-f])", re.IGNORECASE)


@pytest.mark.anyio
async def test_what_a_platform_sends_is_kept_and_the_columns_of_it_are_known(
    tmp_path: Path,
) -> None:
    async with assembled(tmp_path, REELHOOK_STATIC_KEYS=STATIC) as receiver:
        await receiver.store.add_endpoint(endpoint())
        path = f"/webhooks/runware?apiKey={STATIC}&team=a%00b"
        for body in _odd_bodies():
            answer = await receiver.stranger.post(path, content=body)
            assert answer.status_code == 200, body
        for claimed in await claim(receiver.store, START):
            dead = settled(claimed, State.DEAD, outcome=sent(500, Failure.STATUS, b"a\x00\xff"))
            await receiver.store.settle(dead)
        await _everything_is_shown(receiver)
    found = _odd_columns(tmp_path / "reelhook.db")
    assert found == (RAW, ESCAPED)


def _odd_bodies() -> Iterator[bytes]:
    """Items with an odd text in every field, and as a name; and bytes that no parser takes."""
    tasks = map(uuid, count(1))  # more than a few odd bodies of one task are refused
    for odd in ODD:
        text = f"a{odd}b"
        for name in (*success(), text):
            yield wrapped({**success(task=next(tasks)), name: text, "extra": text})
        for name in (*failure(), text):
            yield json.dumps({"errors": [failure(task=next(tasks)) | {name: text}]}).encode()
        yield wrapped({"taskUUID": next(tasks), "error": text, text: text})
        yield json.dumps({text: text}).encode()
    yield b"\x00\xff"


async def _everything_is_shown(receiver: Assembled) -> None:
    async with logged_in(receiver) as browser:
        for row in table(receiver):
            if row.method == "GET" and "{id}" not in row.path and not is_stream(row):
                answer = await receiver.client.get(row.path)
                assert answer.status_code == 200, row.path
        for kind in ("tasks", "callbacks", "events", "deliveries"):
            for one in (await receiver.client.get(f"/v1/{kind}?limit=200")).json()["data"]:
                for where in (f"/v1/{kind}/{one['id']}", f"/{kind}/{one['id']}"):
                    assert (await browser.get(where)).status_code == 200, where


def _odd_columns(path: Path) -> tuple[set[str], set[str]]:
    """The columns with a NUL in them, and those with an escape of one or of half a character."""
    raw, escaped = set[str](), set[str]()
    with closing(sqlite3.connect(path)) as connection:
        query = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        for (name,) in connection.execute(query).fetchall():
            found = connection.execute(f"SELECT * FROM {name}")
            columns = [column[0] for column in found.description]
            for row in found:
                for column, value in zip(columns, row, strict=True):
                    where = f"{name}.{column}"
                    if _is_text(where, value) and _nul(value):
                        raw.add(where)
                    if _is_text(where, value) and _HALF.search(_text(value)):
                        escaped.add(where)
    return raw, escaped


# Numbers, digests and random bytes; ids of tasks are 16 bytes.
_NUMBERS: Final = re.compile(r"\.(id|jti|sha256|digest)$|^answers\.asked$")


def _is_text(where: str, value: object) -> bool:
    return isinstance(value, str | bytes) and not _NUMBERS.search(where)


def _nul(value: str | bytes) -> bool:
    return "\x00" in _text(value)


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")
