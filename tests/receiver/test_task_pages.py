"""The pages of tasks, without a screen: what stands on them, and what they refuse."""

from __future__ import annotations

import asyncio
import html
import json
import re
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from receiver.admin.dashboard import live
from receiver.admin.ops import ADMIN, ANYTHING
from receiver.clock import DAY, HOUR
from receiver.deliveries import State
from receiver.store.connection import Values
from receiver.store.protocol import Query
from receiver.store.verbs.reads import Reads
from receiver.tasks import DEADLINE
from tests.doubles import LIMIT_S, START, Assembled, assembled
from tests.make import TASK, arrival, endpoint, failure, registration, settled, success, uuid
from tests.receiver.browsing import logged_in, send
from tests.receiver.store.suite import claim

pytestmark = pytest.mark.anyio


@pytest.fixture
async def receiver(tmp_path: Path) -> AsyncIterator[Assembled]:
    async with assembled(tmp_path) as found:
        yield found


@pytest.fixture
async def browser(receiver: Assembled) -> AsyncIterator[httpx.AsyncClient]:
    async with logged_in(receiver) as found:
        yield found


def lines(page: str, css_class: str) -> Sequence[str]:
    """The text of each item of a list."""
    found = re.search(rf'<ol class="{css_class}">(.*?)</ol>', page, re.DOTALL)
    assert found is not None
    items = re.findall(r"<li.*?</li>", found[1], re.DOTALL)
    return [html.unescape(" ".join(re.sub("<[^>]*>", " ", item).split())) for item in items]


async def test_a_task_tells_its_story_newest_first(
    receiver: Assembled, browser: httpx.AsyncClient
) -> None:
    store, clock = receiver.store, receiver.clock
    ours = await store.add_endpoint(endpoint(event_types=["result.*"]))
    await store.register(registration(expected=2))
    await store.record(arrival(success(1)))
    await store.record(arrival(success(1)))
    for one in await claim(store, START):
        await store.settle(settled(one, State.SUCCEEDED, now=clock.advance(1_000)))
    clock.advance(DEADLINE)
    await store.note_overdue(clock.now)
    await store.record(arrival(failure(), received_at=clock.advance(1_000)))
    for one in await claim(store, clock.now):
        await store.settle(settled(one, State.DEAD, now=clock.advance(1_000)))

    page = (await browser.get(f"/tasks/{TASK}")).text
    told = [re.sub(r" 2026-.*", "", line) for line in lines(page, "timeline")]
    assert told == [
        f"result.failed given up after 1 attempt at {ours.id}",
        "Complete 1 succeeded, 1 failed",
        "Result 2 failed timeoutProvider, by callback",
        "Callback recorded from 203.0.113.7",
        "Overdue its deadline has passed",
        f"result.succeeded delivered to {ours.id}",
        "Result 1 by callback",
        "Callback recorded, 2 times from 203.0.113.7",
        "Registered",
    ]


async def test_what_comes_after_the_end_and_what_expires_is_said(
    receiver: Assembled, browser: httpx.AsyncClient
) -> None:
    await receiver.store.register(registration(expected=1, request={"ttl": 3600}))
    await receiver.store.record(arrival(success(1), received_at=START))
    await receiver.store.record(arrival(success(2), received_at=START + 1))
    page = (await browser.get(f"/tasks/{TASK}")).text
    assert "Result 2, after the task was complete" in page
    assert re.search(r"expires\s*<time", page)
    receiver.clock.advance(2 * HOUR)
    assert re.search(r"expired\s*<time", (await browser.get(f"/tasks/{TASK}")).text)


async def test_a_task_that_nobody_registered(
    receiver: Assembled, browser: httpx.AsyncClient
) -> None:
    await receiver.store.record(arrival(success(), expected=None))
    page = (await browser.get(f"/tasks/{TASK}")).text
    assert "First heard of, from a callback" in page
    assert "Waiting" not in page


async def test_long_bodies_are_cut_and_dropped_ones_missed(
    receiver: Assembled, browser: httpx.AsyncClient
) -> None:
    image, many = "x" * 100_000, ["y" * 100] * 1_000
    await receiver.store.record(arrival(success(1, image=image, many=many)))
    page = (await browser.get(f"/tasks/{TASK}")).text
    assert "xxx… (100,000 characters)" in page
    assert re.search(r"… and [\d,]+ more characters", page)
    assert len(page) < 100_000
    for number in range(2, 12):
        await receiver.store.record(arrival(success(number)))
    page = (await browser.get(f"/tasks/{TASK}")).text
    assert len(re.findall("has the body", page)) == 11 - 8


async def test_a_page_asks_for_many_callbacks_at_once(
    receiver: Assembled, browser: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    real = Reads.rows

    async def rows(self: Reads, sql: str, values: Values = ()) -> Sequence[Any]:
        asked.append(sql)
        return await real(self, sql, values)

    monkeypatch.setattr(Reads, "rows", rows)
    page = ""
    for number in range(1, 10):
        await receiver.store.record(arrival(success(number, seed=number), expected=9))
        page = (await browser.get(f"/tasks/{TASK}")).text
        assert len(asked) == 6  # the session; the task, its results, callbacks, bodies, deliveries
        asked.clear()
    for entry in re.findall('<details class="entry".*?</details>', page, re.DOTALL):
        shown = re.search("&#34;seed&#34;: ([0-9]+)", entry)
        (callback_id,) = set(re.findall(r"/callbacks/(cb_\w+)\"", entry))
        body = (await receiver.store.callback(callback_id)).body or ""
        assert f'"seed": {shown[1]}' in body if shown else '"seed": 1,' in body


async def test_half_a_character_that_a_platform_sent_is_shown_escaped(
    receiver: Assembled, browser: httpx.AsyncClient
) -> None:
    body = json.dumps({"data": [success(1, note="\ud800")]}).encode()
    await receiver.store.record(arrival(success(1), body=body))
    (callback,) = (await receiver.store.callbacks(Query())).data
    for path in (f"/tasks/{TASK}", f"/callbacks/{callback.id}"):
        page = await browser.get(path)
        assert page.status_code == 200
        assert "&#34;note&#34;: &#34;\\ud800&#34;" in page.text


async def test_each_page_names_what_gives_a_program_the_same(
    receiver: Assembled, browser: httpx.AsyncClient
) -> None:
    await receiver.store.record(arrival(success()))
    for path in ("/tasks?status=partial&q=%22", f"/tasks/{TASK}"):
        page = (await browser.get(path)).text
        found = re.search('<link rel="alternate" type="application/json" href="([^"]*)">', page)
        assert found is not None
        assert html.unescape(found[1]) == f"/v1{path}"
        assert (await browser.get(html.unescape(found[1]))).status_code == 200


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/tasks?status=odd", 422, "status must be one of"),
        ("/tasks?odd=1", 422, "There is no parameter"),
        ("/tasks?cursor=odd", 422, "cursor is not one"),
        (f"/tasks/{uuid(99)}", 404, "There is no task"),
        ("/tasks/odd", 404, "There is no task"),
        ("/tasks/%00", 404, "There is no task"),
    ],
)
async def test_what_cant_be_shown_is_said_on_a_page(
    browser: httpx.AsyncClient, path: str, status: int, said: str
) -> None:
    page = await browser.get(path)
    assert page.status_code == status
    assert page.headers["content-type"].startswith("text/html")
    assert said in html.unescape(page.text)


async def test_a_rejected_task_can_be_revoked_and_not_reconciled(
    receiver: Assembled, browser: httpx.AsyncClient
) -> None:
    await receiver.store.register(registration(TASK))
    answer = await receiver.client.patch(f"/v1/tasks/{TASK}", json={"submit_state": "rejected"})
    assert answer.status_code == 200
    page = f"/tasks/{TASK}"
    assert "/reconcile" not in (await browser.get(page)).text
    answer = await send(browser, page, f"{page}/revoke")
    assert answer.headers["location"] == page
    assert "is refused from now on" in (await browser.get(page)).text
    assert "is refused from now on" not in (await browser.get(page)).text


async def test_an_empty_list_prints_the_command_that_would_fill_it(
    browser: httpx.AsyncClient,
) -> None:
    assert "reelhook submit" in (await browser.get("/tasks")).text
    assert "No task is like that." in (await browser.get("/tasks?q=x")).text


# Word of changes


async def words(receiver: Assembled) -> AsyncIterator[bytes]:
    """What `/live` says, as its door makes it."""
    pages = live.LivePages(receiver.service.ops)
    async for word in pages._words(ADMIN):
        yield word


async def test_a_page_hears_of_changes_once_however_many(
    receiver: Assembled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "GAP", 0)
    async with asyncio.timeout(LIMIT_S):
        heard = words(receiver)
        assert await anext(heard) == live.HELLO
        await receiver.store.record(arrival(success(1)))
        await receiver.store.record(arrival(success(2)))
        assert await anext(heard) == live.CHANGE

        monkeypatch.setattr(live, "HEARTBEAT", 0.01)
        assert await anext(heard) == live.SILENCE
        receiver.service.ops.watch.wake_all()
        assert [word async for word in heard] == []
        assert [word async for word in words(receiver)] == [live.HELLO]
    assert ANYTHING not in receiver.service.ops.watch._waiting


async def test_a_stream_ends_so_that_the_session_is_shown_again(
    receiver: Assembled, browser: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "HEARTBEAT", 0)
    monkeypatch.setattr(live, "LIFE", 0)
    answer = await browser.get("/live")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.content == live.HELLO
    assert (await receiver.stranger.get("/live")).status_code == 303


async def test_what_changed_nothing_that_is_shown_wakes_nobody(receiver: Assembled) -> None:
    watch = receiver.service.ops.watch
    with watch.listening(ANYTHING) as changed:
        await receiver.store.ready()
        assert not changed.is_set()
        receiver.clock.advance(DAY)
        await receiver.store.record(arrival(success()))
        assert changed.is_set()
