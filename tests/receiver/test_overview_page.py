"""The first page: whether anything comes, and what wants a person."""

from __future__ import annotations

import html
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from receiver.admin.dashboard import wording
from receiver.clock import HOUR, MINUTE
from receiver.deliveries import State
from receiver.figures import Figure
from receiver.tasks import DEADLINE
from tests.doubles import START, Assembled, assembled
from tests.make import TASK, arrival, endpoint, registration, settled, success, uuid
from tests.receiver.browsing import logged_in
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


def text(markup: str) -> str:
    return html.unescape(" ".join(re.sub("<[^>]*>", " ", markup).split()))


async def tiles(browser: httpx.AsyncClient) -> dict[str, str]:
    """Each figure with what stands under it."""
    page = (await browser.get("/")).text
    found = re.findall(r'class="tile".*?<h2>(.*?)</h2>(.*?)</(?:a|div)>', page, re.DOTALL)
    return {name: text(rest) for name, rest in found}


async def concerns(browser: httpx.AsyncClient) -> list[str]:
    """What the page wants a person to see to."""
    page = (await browser.get("/")).text
    return [text(found) for found in re.findall(r'<li><a class="badge.*?</li>', page, re.DOTALL)]


async def test_before_anything_has_come_the_page_says_what_to_do(
    browser: httpx.AsyncClient,
) -> None:
    page = (await browser.get("/")).text
    assert (await tiles(browser))["Last callback"] == "never waiting for the first one"
    assert await concerns(browser) == []
    assert "Nothing wants you at present." in page
    assert "reelhook submit" in page
    assert "reelhook demo" in page


async def test_the_time_since_the_last_callback_is_the_first_figure(
    receiver: Assembled, browser: httpx.AsyncClient
) -> None:
    await receiver.store.record(arrival(success(), expected=2))
    receiver.clock.advance(3 * MINUTE)
    found = await tiles(browser)
    assert next(iter(found.items())) == ("Last callback", "3m ago 2026-09-21 14:13:20")
    assert found["Open tasks"] == "1 0 overdue"
    assert found["Results, last hour"] == "1 100 % succeeded"
    assert found["Callbacks, last hour"] == "1 0 came again"
    assert found["Cost today"] == "$0.4715 since midnight in UTC"


async def test_what_is_wrong_is_said_with_the_way_to_it(
    receiver: Assembled, browser: httpx.AsyncClient
) -> None:
    store, clock = receiver.store, receiver.clock
    await store.add_endpoint(endpoint(event_types=["result.*"]))
    await store.register(registration(expected=3))
    await store.record(arrival(success(1)))
    for one in await claim(store, START):
        await store.settle(settled(one, State.DEAD, now=START))
    await store.record(arrival(success(1, seed=1)))
    for number in (1, 2):
        await store.record(arrival(body=b"{", task_id=uuid(number), unreadable="json"))
    clock.advance(DEADLINE)
    await store.note_overdue(clock.now)
    assert await concerns(browser) == [
        "1 dead letter",
        "2 callbacks in quarantine",
        "3 overdue tasks",
        "1 callback that contradicts another",
    ]
    page = (await browser.get("/")).text
    for href in ("/dead-letters", "/callbacks?outcome=quarantined", "/tasks?overdue=true"):
        assert f'href="{href}"' in page
    assert f'href="/tasks/{TASK}"' in page


async def test_what_the_door_refused_is_counted(
    receiver: Assembled, browser: httpx.AsyncClient
) -> None:
    clock = receiver.clock
    assert (
        await receiver.stranger.post("/webhooks/runware?sig=x", content=b"{}")
    ).status_code == 401
    clock.advance(HOUR)
    assert "1 refused" in (await tiles(browser))["Callbacks, last hour"]


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (wording.amount(Figure(count=2400, complete=True)), "2,400"),
        (wording.amount(Figure(count=10000, complete=False)), "10,000+"),
        (wording.percent(None), "–"),
        (wording.percent(1), "100 %"),
        (wording.percent(0.99999), "99.9 %"),
        (wording.percent(0.5), "50 %"),
        (wording.percent(0), "0 %"),
        (wording.span(0.0004), "0ms"),
        (wording.span(0.82), "820ms"),
        (wording.span(59.6), "1m"),
        (wording.span(3600), "1h"),
        (wording.span(3725), "1h 2m"),
        (wording.span(90061), "1d 1h"),
        (wording.span(86401), "1d"),
        (wording.size(0), "0 B"),
        (wording.size(1_450), "1.4 kB"),
        (wording.size(99_950), "100 kB"),
        (wording.size(999_950), "1.0 MB"),
        (wording.size(32_000_000), "32 MB"),
        (wording.size(5_000_000_000_000), "5,000 GB"),
        (wording.dollars(None), "–"),
        (wording.dollars(1234.5), "$1,234.50"),
        (wording.dollars(0.4715), "$0.4715"),
        (wording.counted(1, "task"), "1 task"),
        (wording.counted(2_400, "task"), "2,400 tasks"),
        (wording.counted(2, "entry", "entries"), "2 entries"),
        (wording.tone("made up"), "calm"),
        (wording.icon("made up"), "dot"),
        (wording.words("half_open"), "half open"),
        (wording.short(uuid(1)), uuid(1)[:8]),
        (wording.short("evt_0123456789abc"), "evt_0123456789abc"),
        (wording.link(None), None),
        (wording.link("https://a.example/x?y"), "https://a.example/x?y"),
        (wording.link("http://a.example"), "http://a.example"),
        (wording.link("javascript:alert(1)"), None),
        (wording.link("JaVaScRiPt://a.example/%0aalert(1)"), None),
        (wording.link("data:text/html,x"), None),
        (wording.link("//a.example/x"), None),
        (wording.link("https:a"), None),
        (wording.link("https://[a"), None),
        (wording.link("java\nscript:x"), None),
        (wording.pretty('{"a":1}'), '{\n  "a": 1\n}'),
        (wording.pretty("no json"), "no json"),
        (wording.pretty("[" * 10_000), "[" * 10_000),
        (wording.pretty("x" * 16_003), f"{'x' * 16_000}\n… and 3 more characters"),
        (
            wording.pretty({"a": "x" * 2_001}),
            '{\n  "a": "' + "x" * 200 + '… (2,001 characters)"\n}',
        ),
        (
            wording.pretty({"url": "https://a.example/?apiKey=secret"}),
            '{\n  "url": "https://a.example/?apiKey=[redacted]"\n}',
        ),
    ],
)
def test_figures_are_written_for_people(found: str | None, told: str | None) -> None:
    assert found == told


def test_what_is_deeper_than_anybody_could_read_is_shown_as_it_is() -> None:
    deep: object = "bottom"
    for _ in range(600):
        deep = [deep]
    assert "bottom" in wording.pretty(deep)
