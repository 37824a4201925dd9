"""The dashboard's operating pages, without a screen: what stands on them, what their forms do."""

from __future__ import annotations

import html
import re
import shlex
from collections.abc import AsyncIterator, Sequence
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from receiver import ids
from receiver.admin.dashboard.access import place_of
from receiver.admin.dashboard.deliveries import curl_of
from receiver.admin.dashboard.door import Dashboard
from receiver.admin.dashboard.pages import NAVIGATION, PageRow
from receiver.clock import HOUR, MINUTE, to_datetime
from receiver.deliveries import Attempt, Failure, State
from receiver.delivery.health import FAILING
from receiver.delivery.policy import GONE
from receiver.endpoints import EndpointAsked
from receiver.endpoints import State as EndpointState
from receiver.shown import REDACTED
from receiver.store.protocol import Query
from tests.doubles import ADMIN_TOKEN, SIGNING_KEY, START, Assembled, assembled, sent
from tests.make import TASK, arrival, endpoint, failure, registration, settled, success, uuid
from tests.receiver.browsing import form_in, holding, logged_in, send, token_of
from tests.receiver.store.suite import arrival_of, claim, queued
from tests.receiver.test_access import table
from tests.test_docs import commands

HOSTILE = '<script>alert(1)</script><img src=x onerror="alert(2)">'

pytestmark = pytest.mark.anyio


@pytest.fixture
async def receiver(tmp_path: Path) -> AsyncIterator[Assembled]:
    async with assembled(tmp_path) as found:
        yield found


@pytest.fixture
async def browser(receiver: Assembled) -> AsyncIterator[httpx.AsyncClient]:
    async with logged_in(receiver) as found:
        yield found


async def got(browser: httpx.AsyncClient, path: str, status: int = 200) -> str:
    """A page's text as a person reads it, entities resolved; its markup stays."""
    answer = await browser.get(path)
    assert answer.status_code == status, answer.text
    return answer.text


def words(page: str) -> str:
    """A page's text without its markup."""
    return html.unescape(" ".join(re.sub("<[^>]*>", " ", page).split()))


async def dead(receiver: Assembled, count: int = 1, status: int = 500, **spec: Any) -> str:
    """An endpoint with so many dead letters; its id."""
    added = await queued(receiver.store, count, **spec)
    for claimed in await claim(receiver.store, receiver.clock.now):
        news = settled(claimed, State.DEAD, now=receiver.clock.now, outcome=sent(status))
        await receiver.store.settle(news)
    return added.id


async def first(receiver: Assembled, state: State = State.DEAD) -> str:
    """The id of the newest delivery in a state."""
    return (await receiver.store.deliveries(Query(state=state))).data[0].id


# Each page, empty and full

EMPTY = {
    "/callbacks": "reelhook demo",
    "/events": "reelhook trigger result.succeeded",
    "/deliveries": "reelhook endpoints add",
    "/dead-letters": "reelhook deliveries list --state dead",
    "/endpoints": "reelhook endpoints add",
    "/jobs": "reelhook deliveries retry",
    "/tokens": "reelhook tokens",
}
TWINS = {
    "/callbacks?outcome=conflict": "/v1/callbacks?outcome=conflict",
    "/events?event_type=task.completed": "/v1/events?event_type=task.completed",
    "/deliveries?state=dead&last_error=dns": "/v1/deliveries?state=dead&last_error=dns",
    "/dead-letters": "/v1/deliveries/dead",
    "/endpoints?project=film": "/v1/endpoints?project=film",
    "/jobs": "/v1/jobs",
    "/audit?actor=admin": "/v1/audit?actor=admin",
    "/tokens": "/v1/api-tokens",
    "/settings": "/v1/settings",
    "/health": "/v1/health",
}


@pytest.mark.parametrize("path", EMPTY)
async def test_an_empty_list_says_what_would_fill_it(browser: httpx.AsyncClient, path: str) -> None:
    page = await got(browser, path)
    assert f"<code>{EMPTY[path]}" in page
    assert 'aria-current="page"' in page


async def test_the_audit_begins_with_the_login_of_who_looks(browser: httpx.AsyncClient) -> None:
    """So whoever sees the page never sees it empty."""
    page = words(await got(browser, "/audit"))
    assert "session.begin admin" in page
    assert "Nothing was done by hand" not in page


@pytest.mark.parametrize(
    ("path", "chosen"),
    [
        ("/tasks", "All"),
        ("/tasks?status=partial&tag=team%3Da", "Partial"),
        ("/tasks?overdue=true", "Overdue"),
        ("/deliveries?state=dead", "Dead"),
        ("/callbacks?outcome=conflict", "Conflict"),
    ],
)
async def test_the_tab_of_what_is_shown_is_marked_and_no_other(
    browser: httpx.AsyncClient, path: str, chosen: str
) -> None:
    found = re.findall(r'aria-current="true">([^<]*)</a>', await got(browser, path))
    assert found == [chosen]


@pytest.mark.parametrize("path", EMPTY)
async def test_the_command_of_an_empty_list_is_one_that_there_is(
    browser: httpx.AsyncClient, path: str
) -> None:
    (said,) = re.findall(r"<code>(reelhook [^<]*)</code>", await got(browser, path))
    _, *line = shlex.split(html.unescape(said))
    known = commands()
    name = " ".join(line[:2]) if " ".join(line[:2]) in known else line[0]
    options = {option for one in known[name].params for option in (*one.opts, *one.secondary_opts)}
    assert {word for word in line if word.startswith("-")} <= options


@pytest.mark.parametrize("path", ["/callbacks", "/events", "/deliveries", "/dead-letters"])
async def test_a_list_that_a_filter_empties_says_so(browser: httpx.AsyncClient, path: str) -> None:
    page = words(await got(browser, f"{path}?since=2026-01-01T00:00&until=2026-01-01T00:01"))
    assert "like that" in page
    assert "reelhook" not in page


async def test_every_page_has_its_twin_and_every_filter_its_field(
    receiver: Assembled, browser: httpx.AsyncClient
) -> None:
    found = await everything(receiver)
    rows = {row.path: row for row in table(receiver) if row.method == "GET"}
    for page in pages_of(receiver):
        if page.method != "GET" or page.path == "/live":  # a stream, and no page
            continue
        kind = page.path.split("/")[1]
        text = await got(browser, page.path.replace("{id}", found.get(kind, TASK)))
        (twin,) = re.findall('<link rel="alternate" type="application/json" href="([^"]*)">', text)
        answer = await browser.get(html.unescape(twin))
        assert answer.status_code == 200, (page.path, twin)
        assert page.twin is not None
        if "#" in twin:  # the description of what its form would be posted to
            steps = [step.replace("~1", "/") for step in twin.partition("#/")[2].split("/")]
            assert "requestBody" in reduce(getitem, steps, answer.json())
        row = rows[page.twin]
        wanted = set(row.parameters) - {"limit", "cursor"} if row.is_list else set[str]()
        wanted -= {"event"} if page.path == "/deliveries/retry" else set()  # what no job takes
        named = set(re.findall(r'<(?:input|select)[^>]* name="([a-z_]+)"', text))
        linked = set(re.findall(r'href="[^"]*[?;]([a-z_]+)=', text))
        assert wanted <= named | linked, (page.path, wanted - named - linked)


@pytest.mark.parametrize(
    ("scope", "project", "shut"),
    [
        ("admin", None, set()),
        ("admin", "film", {"/health", "/settings"}),
        ("read", None, {"/audit", "/tokens", "/settings"}),
        ("read", "film", {"/audit", "/tokens", "/settings", "/health"}),
    ],
)
async def test_the_navigation_leads_to_what_is_open_and_pages_ask_for_no_more(
    receiver: Assembled, scope: str, project: str | None, shut: set[str]
) -> None:
    found = await everything(receiver)
    asked = {"scope": scope} if project is None else {"scope": scope, "project": project}
    _, token = await token_of(receiver, **asked)
    everywhere = {entry.path for group in NAVIGATION for entry in group}
    async with holding(receiver, token) as visitor:
        nav = (await got(visitor, "/")).partition('<nav aria-label="Pages">')[2].partition("</nav>")
        led = set(re.findall('<a href="([^"]*)"', nav[0]))
        assert led == everywhere - shut
        for path in everywhere:
            assert (await visitor.get(path)).status_code == (403 if path in shut else 200), path
        if scope != "read" or project is not None:
            return
        for path in (*(led - {"/docs"}), *(f"/{kind}/{one}" for kind, one in found.items())):
            text = await got(visitor, path)
            forms = re.findall('<form method="post" action="([^"]*)"', text)
            assert set(forms) == {"/theme", "/logout"}, path
            for link in set(re.findall('href="(/[^"]*)"', text)):
                if not link.startswith("/static/"):
                    answer = await visitor.get(html.unescape(link))
                    assert answer.status_code == 200, (path, link)


def pages_of(receiver: Assembled) -> Sequence[PageRow]:
    ops = receiver.service.ops
    none = cast(Any, None)
    return Dashboard(ops, none, none, table(receiver), none).table()


@pytest.mark.parametrize("path", TWINS)
async def test_a_page_has_a_twin_for_programs(browser: httpx.AsyncClient, path: str) -> None:
    page = await got(browser, path)
    twin = html.escape(TWINS[path])
    assert f'<link rel="alternate" type="application/json" href="{twin}">' in page
    assert (await browser.get(TWINS[path])).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        f"/callbacks/{ids.CALLBACK}{ids.encode(1)}",
        f"/events/{ids.EVENT}{ids.encode(1)}",
        f"/deliveries/{ids.delivery_id(1, 1)}",
        f"/endpoints/{ids.ENDPOINT}{ids.encode(1)}",
        f"/jobs/{ids.JOB}{ids.encode(1)}",
        "/endpoints/nothing/edit",
    ],
)
async def test_what_is_not_there_has_a_page_that_says_so(
    browser: httpx.AsyncClient, path: str
) -> None:
    assert "not_found" in await got(browser, path, 404)


@pytest.mark.parametrize("path", ["/callbacks?outcome=x", "/deliveries?state=x", "/audit?action=x"])
async def test_a_filter_that_is_none_is_refused_on_a_page(
    browser: httpx.AsyncClient, path: str
) -> None:
    assert "must be one of" in await got(browser, path, 422)


# Callbacks


async def test_a_callback_is_shown_as_text_with_its_bytes_beside_it(
    receiver: Assembled, browser: httpx.AsyncClient
) -> None:
    body = f'{{"x": "{HOSTILE.replace(chr(34), chr(39))}"'.encode() + b"\xff"
    await receiver.store.record(arrival(body=body))
    (callback,) = (await receiver.store.callbacks(Query())).data
    listed = await got(browser, "/callbacks?outcome=quarantined")
    assert callback.id in listed
    page = await got(browser, f"/callbacks/{callback.id}")
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "what is no UTF-8 is escaped" in page
    assert callback.sha256 in page
    exact = await browser.get(f"/v1/callbacks/{callback.id}/body")
    assert exact.content == body
    assert "attachment" in exact.headers["content-disposition"]


async def test_a_long_body_is_cut_on_its_page(
    receiver: Assembled, browser: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("receiver.admin.dashboard.callbacks.BODY", 10)
    await receiver.store.record(arrival(success()))
    (callback,) = (await receiver.store.callbacks(Query())).data
    more = callback.size - 10
    assert f"{more:,} more characters" in await got(browser, f"/callbacks/{callback.id}")


async def test_a_callback_is_reprocessed_after_a_look(
    receiver: Assembled, browser: httpx.AsyncClient
) -> None:
    await receiver.store.record(arrival(success(), unreadable="bad_json", items=()))
    (callback,) = (await receiver.store.callbacks(Query())).data
    path = f"/callbacks/{callback.id}"
    form = form_in(await got(browser, path), f"{path}/reprocess")
    await browser.post(f"{path}/reprocess", data={**form, "dry_run": "true"})
    assert "it would be recorded, with 1 new result." in words(await got(browser, path))
    assert (await receiver.store.callback(callback.id)).outcome == "quarantined"
    await browser.post(f"{path}/reprocess", data={**form, "dry_run": ""})
    assert "it is recorded, with 1 new result." in words(await got(browser, path))
    assert (await receiver.store.callback(callback.id)).outcome == "recorded"


async def test_a_callback_that_brought_nothing_can_be_dropped(
    receiver: Assembled, browser: httpx.AsyncClient
) -> None:
    await receiver.store.record(arrival(body=b"{"))
    (callback,) = (await receiver.store.callbacks(Query())).data
    path = f"/callbacks/{callback.id}"
    answer = await send(browser, path, f"{path}/delete")
    assert answer.headers["location"] == "/callbacks"
    assert (await receiver.store.callbacks(Query())).data == []


# Events


async def test_an_event_is_replayed_to_one_or_to_all(
    receiver: Assembled, browser: httpx.AsyncClient
) -> None:
    first_one = await queued(receiver.store)
    (event,) = (await receiver.store.events(Query(event_type="result.*"))).data
    path = f"/events/{event.id}"
    assert event.id in await got(browser, f"/events?task={event.task_id}")
    page = await got(browser, path)
    assert "result.succeeded" in page
    await send(browser, path, f"{path}/replay", endpoint=first_one.id)
    assert "Deliveries: 1 on their way already." in words(await got(browser, path))
    second = await receiver.store.add_endpoint(endpoint(event_types=["result.*"]))
    await send(browser, path, f"{path}/replay")
    said = words(await got(browser, path))
    assert "Deliveries: 1 made anew, 1 on their way already." in said
    listed = await receiver.store.deliveries(Query(event=event.id))
    assert {one.endpoint_id for one in listed.data} == {first_one.id, second.id}


async def test_a_test_is_not_replayed(receiver: Assembled, browser: httpx.AsyncClient) -> None:
    added = await receiver.store.add_endpoint(endpoint())
    await receiver.store.test_endpoint(added.id, START)
    (event,) = (await receiver.store.events(Query())).data
    page = await got(browser, f"/events/{event.id}")
    assert event.type == "endpoint.test"
    assert f"/events/{event.id}/replay" not in page


async def test_an_event_that_nobody_wants_is_sent_to_nobody(
    receiver: Assembled, browser: httpx.AsyncClient
) -> None:
    await receiver.store.record(arrival(success()))
    event = (await receiver.store.events(Query())).data[0]
    assert "No endpoint wanted it." in await got(browser, f"/events/{event.id}")
    await send(browser, f"/events/{event.id}", f"/events/{event.id}/replay")
    assert "No endpoint wants it today, so" in await got(browser, f"/events/{event.id}")


# Deliveries


async def test_a_delivery_shows_each_attempt_and_is_retried(
    receiver: Assembled, browser: httpx.AsyncClient
) -> None:
    added = await dead(receiver)
    delivery = await first(receiver)
    page = await got(browser, f"/deliveries/{delivery}")
    said = words(page)
    assert "dead status 500 1 attempt" in said
    assert "A sentence." in said
    assert page.count('class="entry"') == 1
    assert 'data-copy="curl -i -X POST https://example.com/hook' in page
    answer = await send(browser, f"/deliveries/{delivery}", f"/deliveries/{delivery}/retry")
    assert answer.headers["location"] == f"/deliveries/{delivery}"
    assert (await receiver.store.delivery(delivery)).state is State.PENDING
    await receiver.client.post(f"/v1/endpoints/{added}/pause")
    said = words(await got(browser, f"/deliveries/{delivery}"))
    assert "it waits for its endpoint, which is paused" in said
    await send(browser, f"/deliveries/{delivery}", f"/deliveries/{delivery}/cancel")
    assert "It is canceled" in await got(browser, f"/deliveries/{delivery}")
    assert (await receiver.store.delivery(delivery)).state is State.CANCELED


@pytest.mark.parametrize(
    "path", ["/deliveries", "/deliveries/retry", "/tasks", "/events", "/audit"]
)
async def test_what_few_look_for_is_folded_away_until_it_is_set(
    browser: httpx.AsyncClient, path: str
) -> None:
    folded, unfolded = '<details class="more">', '<details class="more" open>'
    page = await got(browser, path)
    assert (folded in page, unfolded in page) == (True, False)
    page = await got(browser, f"{path}?project=film")
    assert (folded in page, unfolded in page) == (False, True)
    assert 'name="project" value="film"' in page.split(unfolded)[1].split("</details>")[0]


async def test_a_delivery_of_a_deleted_endpoint_can_be_seen(
    receiver: Assembled, browser: httpx.AsyncClient
) -> None:
    added = await dead(receiver)
    await receiver.store.delete_endpoint(added, START)
    page = await got(browser, f"/deliveries/{await first(receiver)}")
    assert "was deleted" in page
    assert "/retry" not in page
    assert 'data-copy="curl' not in page
    assert "was deleted" in await got(browser, "/dead-letters")
    (delivery,) = (await receiver.store.deliveries(Query(state=State.DEAD))).data
    for path in ("/deliveries?state=dead", f"/tasks/{delivery.task_id}"):
        page = await got(browser, path)
        assert "was deleted" in page
        assert f"/endpoints/{added}" not in page, path
    said = words(await got(browser, "/"))
    assert "Dead letters 0 given up, can be sent again; 1 of deleted endpoints can't" in said
    assert "Nothing wants you at present." in said
    assert "What a deleted endpoint left can't be." in await got(browser, "/deliveries/retry")


async def test_a_delivery_can_not_be_moved_where_its_state_forbids_it(
    receiver: Assembled, browser: httpx.AsyncClient
) -> None:
    await dead(receiver)
    delivery = await first(receiver)
    fields = form_in(await got(browser, f"/deliveries/{delivery}"), f"/deliveries/{delivery}/retry")
    answer = await browser.post(f"/deliveries/{delivery}/cancel", data=fields)
    assert answer.status_code == 409
    assert "can&#39;t be canceled" in answer.text


def test_a_command_for_curl_is_one_for_any_shell() -> None:
    attempt = Attempt(
        id="att_1",
        number=1,
        at=to_datetime(START),
        duration_ms=1,
        status=500,
        error="status",
        request_headers={
            "webhook-id": "evt_1",
            "x-odd": "it's $HOME; `id`",
            "content-length": "3",
            "Host": "example.com",
            "webhook-signature": REDACTED,
        },
        response_body="",
    )
    told = curl_of("https://example.com/a?b='c'", attempt, '{"a": "it\'s"}')
    assert shlex.split(told.replace("\\\n", "")) == [
        *("curl", "-i", "-X", "POST", "https://example.com/a?b='c'"),
        *("-H", "webhook-id: evt_1", "-H", "x-odd: it's $HOME; `id`"),
        *("--data-raw", '{"a": "it\'s"}'),
    ]


# Sending again in bulk


async def test_dead_letters_of_one_cause_are_counted_and_then_sent_again(
    receiver: Assembled, browser: httpx.AsyncClient
) -> None:
    refusing = await dead(receiver, 3, 503)
    await dead(receiver, 1, 410, url="https://example.org/other")
    page = await got(browser, "/dead-letters")
    said = words(page)
    assert "status 503 3" in said
    link = next(
        html.unescape(found)
        for found in re.findall(r'href="(/deliveries/retry\?[^"]*)"', page)
        if refusing in found and "503" in found
    )
    counting = await got(browser, link)
    assert "3 deliveries" in words(counting)
    assert "Nothing was sent yet." in counting
    assert (await receiver.store.jobs(Query())).data == []
    answer = await browser.post(link, data=form_in(counting, link))
    (job,) = (await receiver.store.jobs(Query())).data
    assert answer.headers["location"] == f"/jobs/{job.id}"
    assert (job.asked.endpoint, job.asked.last_status, job.total) == (refusing, 503, 3)
    assert "0 of 3" in words(await got(browser, f"/jobs/{job.id}"))
    again = await browser.post(link, data=form_in(counting, link))
    assert again.headers["location"] == f"/jobs/{job.id}"
    assert "under way already" in await got(browser, f"/jobs/{job.id}")
    await send(browser, f"/jobs/{job.id}", f"/jobs/{job.id}/cancel")
    assert "It goes no further." in await got(browser, f"/jobs/{job.id}")
    assert job.id in await got(browser, "/jobs")


async def test_a_retry_of_a_list_has_its_filters(
    receiver: Assembled, browser: httpx.AsyncClient
) -> None:
    await dead(receiver, 2)
    given = "state=dead&event_type=result.%2A&since=2026-01-01T00%3A00&until=2030-01-01T00%3A00"
    page = await got(browser, f"/deliveries?{given}")
    assert f'href="/deliveries/retry?{html.escape(given)}"' in page
    said = words(await got(browser, f"/deliveries/retry?{given}"))
    assert "2 deliveries" in said
    assert "of the type result.*, since 2026-01-01 00:00:00" in said
    assert "Nothing that could be sent again" in await got(
        browser, "/deliveries/retry?state=canceled"
    )
    assert "already, and get them once more" not in said


async def test_what_is_under_way_is_not_sent_again(browser: httpx.AsyncClient) -> None:
    assert "only what is settled" in await got(browser, "/deliveries/retry?state=pending", 409)


# Endpoints


async def test_an_endpoint_is_added_and_its_secret_shown_once(
    receiver: Assembled, browser: httpx.AsyncClient
) -> None:
    answer = await send(
        browser,
        "/endpoints/new",
        "/endpoints/new",
        url="https://example.com/hooks",
        event_types="result.*, task.completed",
        filters="tags.team=film\ntags.team=ads\nmodel=pixverse:*",
        headers="X-Team: film\nX-Path: a:b",
        rate_limit="2.5",
        concurrency="4",
        schedule="0, 5, 20",
        ordered="true",
        v1a="true",
        project="film",
        description="ours",
    )
    assert answer.status_code == 200
    (added,) = (await receiver.store.endpoints(Query())).data
    assert added.project == "film"
    assert added.filters == {"tags.team": ["film", "ads"], "model": ["pixverse:*"]}
    assert added.headers == {"X-Team": "film", "X-Path": "a:b"}
    assert (added.rate_limit, added.concurrency, added.schedule) == (2.5, 4, [0, 5, 20])
    assert (added.ordered, [*added.signatures]) == (True, ["v1", "v1a"])
    secret = re.search(r"whsec_[A-Za-z0-9+/=]+", html.unescape(answer.text))
    assert secret is not None
    assert answer.headers["cache-control"] == "no-store"
    assert "set-cookie" not in answer.headers
    for path in ("/endpoints", f"/endpoints/{added.id}", f"/endpoints/{added.id}/edit"):
        page = html.unescape(await got(browser, path))
        assert secret[0] not in page
    assert secret[0] not in str(receiver.log)


async def test_an_endpoint_is_changed_in_the_form_that_shows_it(
    receiver: Assembled, browser: httpx.AsyncClient
) -> None:
    spec: dict[str, Any] = {
        "event_types": ["result.*"],
        "filters": {"tags.team": ["film", "ads"], "platform": "runware"},
        "headers": {"X-Team": "film"},
        "rate_limit": 2,
        "schedule": [1, 2],
        "signatures": ["v1", "v1a"],
        "ordered": True,
    }
    answer = await receiver.client.post("/v1/endpoints", json={"url": "https://a.example", **spec})
    added = await receiver.store.endpoint(answer.json()["id"])
    path = f"/endpoints/{added.id}/edit"
    page = await got(browser, path)
    assert "tags.team=film\ntags.team=ads\nplatform=runware</textarea>" in page
    assert "X-Team: film</textarea>" in page
    fields = {
        **form_in(page, path),
        "filters": "tags.team=film\ntags.team=ads\nplatform=runware",
        "headers": "X-Team: film",
    }
    assert (await browser.post(path, data=fields)).status_code == 303
    same = await receiver.store.endpoint(added.id)
    kept = {"filters": {"tags.team": ["film", "ads"], "platform": ["runware"]}}
    assert same.model_dump() == {**added.model_dump(), **kept, "revision": same.revision}
    fields |= {"rate_limit": "", "schedule": "", "url": "https://example.com/new"}
    del fields["ordered"], fields["v1a"]
    await browser.post(path, data=fields)
    changed = await receiver.store.endpoint(added.id)
    assert changed.url == "https://example.com/new"
    assert (changed.rate_limit, changed.schedule, changed.ordered) == (None, None, False)
    assert "It is changed." in await got(browser, f"/endpoints/{added.id}")


@pytest.mark.parametrize(
    ("fields", "said", "field"),
    [
        ({"url": "http://example.com/"}, "https", ""),
        ({"url": "https://user@"}, "", ""),
        ({"event_types": ""}, "Event types", "event_types"),
        ({"event_types": "nothing.*"}, "matches nothing there is", "event_types"),
        ({"filters": "team"}, "is not a line such as tags.team=film", "filters"),
        ({"filters": "team=film"}, "There is no filter", "filters"),
        ({"headers": "X-A: 1\nX-A: 2"}, "is there twice", "headers"),
        ({"headers": "Host: x"}, "is set by Reelhook", "headers"),
        ({"concurrency": "many"}, "Concurrency", "concurrency"),
        ({"rate_limit": "0"}, "Rate limit", "rate_limit"),
        ({"schedule": "soon"}, "Schedule", "schedule"),
        ({"secret": "whsec_x"}, "can't sign", "secret"),
        ({"project": "a b"}, "project has", "project"),
    ],
)
async def test_a_form_that_is_refused_keeps_what_was_entered(
    receiver: Assembled, browser: httpx.AsyncClient, fields: dict[str, str], said: str, field: str
) -> None:
    form = form_in(await got(browser, "/endpoints/new"), "/endpoints/new")
    entered = {**form, "url": "https://example.com/hooks", "description": "kept", **fields}
    answer = await browser.post("/endpoints/new", data=entered)
    page = html.unescape(answer.text)
    assert answer.status_code == 422
    assert 'id="problem"' in page
    assert said in page
    assert 'value="kept"' in page
    if field:
        assert re.search(rf'name="{field}"[^>]* aria-invalid="true"', page)
    assert (await receiver.store.endpoints(Query())).data == []


async def test_a_change_that_is_refused_changes_nothing(
    receiver: Assembled, browser: httpx.AsyncClient
) -> None:
    added = await receiver.store.add_endpoint(endpoint())
    path = f"/endpoints/{added.id}/edit"
    answer = await send(browser, path, path, url="ftp://example.com")
    assert answer.status_code == 422
    assert (await receiver.store.endpoint(added.id)).url == added.url


async def test_a_preview_says_what_it_would_have_got_and_adds_nothing(
    receiver: Assembled, browser: httpx.AsyncClient
) -> None:
    await receiver.store.record(arrival(success()))
    entered = {"url": "https://example.com/x", "event_types": "result.*", "do": "preview"}
    answer = await send(browser, "/endpoints/new", "/endpoints/new", **entered)
    assert "It would have got 1 of the latest 2 events" in answer.text
    assert 'value="https://example.com/x"' in answer.text
    assert (await receiver.store.endpoints(Query())).data == []
    added = await receiver.store.add_endpoint(endpoint())
    path = f"/endpoints/{added.id}/edit"
    answer = await send(browser, path, path, event_types="result.failed", do="preview")
    assert "It would have got 0 of the latest 2 events" in answer.text
    assert (await receiver.store.endpoint(added.id)).event_types == added.event_types


async def test_an_endpoint_is_paused_resumed_and_disabled(
    receiver: Assembled, browser: httpx.AsyncClient
) -> None:
    added = await receiver.store.add_endpoint(endpoint())
    path = f"/endpoints/{added.id}"
    for move, state, said in (
        ("pause", "paused", "its queue is held"),
        ("resume", "enabled", "its queue goes on"),
        ("disable", "disabled", "its queue is held"),
    ):
        answer = await send(browser, path, f"{path}/{move}")
        assert answer.headers["location"] == path
        assert (await receiver.store.endpoint(added.id)).state == state
        assert said in words(await got(browser, path))
    assert "disabled by hand" in await got(browser, path)
    assert "disabled" in await got(browser, "/endpoints")


async def test_a_rotated_secret_is_shown_once(
    receiver: Assembled, browser: httpx.AsyncClient
) -> None:
    added = await receiver.store.add_endpoint(endpoint())
    path = f"/endpoints/{added.id}"
    answer = await send(browser, path, f"{path}/rotate-secret", overlap_h="2")
    said = words(answer.text)
    assert "whsec_" in said
    assert "The secret before signs along for 2h." in said
    assert "the earlier secret signs along until" in await got(browser, path)
    answer = await send(browser, path, f"{path}/rotate-secret", overlap_h="0")
    assert "signs nothing any more" in answer.text
    for hours in ("soon", "-1", "169", "inf", "nan"):
        answer = await send(browser, path, f"{path}/rotate-secret", overlap_h=hours)
        assert answer.status_code == 422


async def test_a_test_leads_to_its_delivery(
    receiver: Assembled, browser: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("receiver.admin.dashboard.endpoints.PATIENCE", 0)
    added = await receiver.store.add_endpoint(endpoint())
    answer = await send(browser, f"/endpoints/{added.id}", f"/endpoints/{added.id}/test")
    (delivery,) = (await receiver.store.deliveries(Query())).data
    assert answer.headers["location"] == f"/deliveries/{delivery.id}"
    assert "It was not tried yet." in await got(browser, f"/deliveries/{delivery.id}")


async def test_an_endpoint_shows_how_it_fares(
    receiver: Assembled, browser: httpx.AsyncClient
) -> None:
    added = await queued(receiver.store, 2)
    one, other = await claim(receiver.store)
    await receiver.store.settle(settled(one))
    await receiver.store.settle(settled(other, State.DEAD, outcome=sent(None, Failure.TIMEOUT)))
    receiver.clock.advance(MINUTE)
    said = ""
    for path in ("/endpoints", f"/endpoints/{added.id}"):
        page = await got(browser, path)
        said = words(page)
        assert "1 attempts succeeded and 1 failed in the last 24 hours" in page
        assert "50 %" in said
        assert f'href="/deliveries?state=dead&amp;endpoint={added.id}"' in page
    assert "Failing since" in said
    assert "1 attempt in a row without a 2xx" in said


async def test_what_an_endpoint_missed_is_counted_and_then_sent(
    receiver: Assembled, browser: httpx.AsyncClient
) -> None:
    added = await dead(receiver, 2)
    path = f"/endpoints/{added}/recover"
    assert "Nothing was sent yet" not in await got(browser, path)
    page = await got(browser, f"{path}?since=2026-01-01T00%3A00&until=2030-01-01T00%3A00")
    assert "2 deliveries" in words(page)
    answer = await browser.post(path, data=form_in(page, path))
    (job,) = (await receiver.store.jobs(Query())).data
    assert answer.headers["location"] == f"/jobs/{job.id}"
    assert (job.asked.endpoint, job.asked.missing) == (added, False)
    answer = await browser.post(path, data=form_in(page, path))
    assert "under way already" in await got(browser, f"/jobs/{job.id}")
    later = await got(browser, f"{path}?since=2029-01-01T00%3A00&missing=true")
    assert "It has got everything since" in later
    without = {"csrf": form_in(page, path)["csrf"]}
    assert (await browser.post(path, data=without)).status_code == 422
    wrong = await got(browser, f"{path}?since=soon", 422)
    assert "must be a time" in wrong
    assert f'<a href="{path}">Without the filters</a>' in wrong


async def test_a_disabled_endpoint_says_why_and_what_becomes_of_its_queue(
    receiver: Assembled, browser: httpx.AsyncClient
) -> None:
    added = await receiver.store.add_endpoint(endpoint())
    for reason, why in ((GONE, "It answered 410"), (FAILING, "It failed for days"), (None, "hand")):
        await receiver.store.set_endpoint_state(added.id, EndpointState.DISABLED, reason)
        said = words(await got(browser, f"/endpoints/{added.id}"))
        assert why in said
        assert "what is for it waits until it is enabled" in said


async def test_a_queue_is_canceled_and_an_endpoint_deleted(
    receiver: Assembled, browser: httpx.AsyncClient
) -> None:
    added = await queued(receiver.store, 3)
    path = f"/endpoints/{added.id}"
    await send(browser, path, f"{path}/cancel")
    assert "3 deliveries are canceled." in words(await got(browser, path))
    answer = await send(browser, path, f"{path}/delete")
    assert answer.headers["location"] == "/endpoints"
    gone = await got(browser, path, 404)
    assert "not_found" in gone
    onward = re.findall(r'href="(/(?:deliveries|audit)\?[^"]*)"', gone)
    assert onward == [f"/deliveries?endpoint={added.id}", f"/audit?target={added.id}"]
    assert words(await got(browser, onward[0])).count("was deleted") == 3
    assert "endpoint.delete" in words(await got(browser, onward[1]))


async def test_a_long_queue_is_canceled_bit_by_bit(
    receiver: Assembled, browser: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("receiver.admin.ops.endpoints.CANCEL_STEP", 1)
    monkeypatch.setattr("receiver.admin.ops.endpoints.CANCEL_STEPS", 2)
    added = await queued(receiver.store, 3)
    path = f"/endpoints/{added.id}"
    await send(browser, path, f"{path}/cancel")
    assert "2 deliveries are canceled. There are more" in words(await got(browser, path))


async def test_an_endpoint_that_goes_while_a_list_is_made_is_said_to_be_gone(
    receiver: Assembled, browser: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await receiver.store.add_endpoint(endpoint())

    async def none(_endpoints: Any, _now: int) -> list[Any]:
        return []

    monkeypatch.setattr(receiver.store, "endpoint_reports", none)
    assert "was deleted" in await got(browser, "/endpoints")


# Access


async def test_a_token_is_made_shown_once_and_revoked(
    receiver: Assembled, browser: httpx.AsyncClient
) -> None:
    fields = {"name": "ci", "scope": "read", "project": "film", "expires_at": "2030-01-01T00:00"}
    answer = await send(browser, "/tokens", "/tokens", **fields)
    found = re.search(r"rhk_[0-9a-z]{20,}", answer.text)
    assert found is not None
    assert "the project film" in answer.text
    page = await got(browser, "/tokens")
    assert found[0] not in page
    assert "ci" in words(page)
    (token,) = (await receiver.store.api_tokens(Query())).data
    assert (token.project, token.scope) == ("film", "read")
    bearer = {"authorization": f"Bearer {found[0]}"}
    assert (await receiver.stranger.get("/v1/tasks", headers=bearer)).status_code == 200
    await send(browser, "/tokens", f"/tokens/{token.id}/delete")
    assert (await receiver.stranger.get("/v1/tasks", headers=bearer)).status_code == 401
    assert "opens nothing any more" in await got(browser, "/tokens")


async def test_a_token_that_has_expired_says_so(
    receiver: Assembled, browser: httpx.AsyncClient
) -> None:
    await send(browser, "/tokens", "/tokens", name="old", scope="admin", expires_at="")
    asked = {"name": "short", "scope": "read", "expires_at": "2026-09-21T14:20:00Z"}
    assert (await receiver.client.post("/v1/api-tokens", json=asked)).status_code == 201
    receiver.clock.advance(HOUR)
    assert "expired" in words(await got(browser, "/tokens"))


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"name": ""}, "name"),
        ({"scope": "everything"}, "scope"),
        ({"project": "a b"}, "project"),
        ({"expires_at": "soon"}, "expires_at"),
        ({"expires_at": "2020-01-01T00:00"}, "expires_at"),
    ],
)
async def test_a_token_that_is_refused_is_not_made(
    receiver: Assembled, browser: httpx.AsyncClient, fields: dict[str, str], field: str
) -> None:
    answer = await send(
        browser, "/tokens", "/tokens", **{"name": "kept", "scope": "read", **fields}
    )
    assert answer.status_code == 422
    assert re.search(rf'name="{field}"[^>]* aria-invalid="true"', answer.text)
    assert (await receiver.store.api_tokens(Query())).data == []


async def test_what_is_done_on_a_page_stands_in_the_audit_log(
    receiver: Assembled, browser: httpx.AsyncClient
) -> None:
    await send(browser, "/tokens", "/tokens", name="ci", scope="read")
    (token,) = (await receiver.store.api_tokens(Query())).data
    await send(browser, "/tokens", f"/tokens/{token.id}/delete")
    said = words(await got(browser, "/audit"))
    assert f"api_token.delete admin {token.id}" in said
    assert f"api_token.create admin {token.id} – name=ci scope=read" in said
    filtered = words(await got(browser, f"/audit?action=api_token.delete&target={token.id}"))
    assert token.id in filtered
    assert "name=ci scope=read" not in filtered
    assert "Nothing like that" in await got(browser, "/audit?actor=nobody")


async def test_each_kind_of_deed_on_a_page_has_a_row_that_leads_to_it(
    receiver: Assembled, browser: httpx.AsyncClient
) -> None:
    await everything(receiver)
    endpoint_id, delivery = (
        (await receiver.store.endpoints(Query())).data[0].id,
        await first(receiver),
    )
    path = f"/endpoints/{endpoint_id}"
    await send(browser, path, f"{path}/pause")
    await send(browser, f"/deliveries/{delivery}", f"/deliveries/{delivery}/retry")
    await send(browser, path, f"{path}/delete")
    page = await got(browser, "/audit")
    said = words(page)
    for action in ("endpoint.pause", "delivery.retry", "endpoint.delete", "deliveries.retry"):
        assert f"{action} admin" in said
    assert f'href="/deliveries/{delivery}"' in page
    assert page.count(f'href="{path}"') == 1  # what was deleted is no place to go to


def test_a_row_of_the_audit_log_leads_to_what_is_still_there() -> None:
    assert place_of("endpoint.pause", "ep_1") == "/endpoints/ep_1"
    assert place_of("deliveries.retry", "job_1") is None
    assert place_of("endpoint.delete", "ep_1") is None
    assert place_of("prune", None) is None


# The receiver itself


async def test_health_and_settings(receiver: Assembled, browser: httpx.AsyncClient) -> None:
    await receiver.stranger.post("/webhooks/runware?sig=forged", content=b"{}")
    said = words(await got(browser, "/health"))
    assert "All is well" in said
    assert "SQLite" in said
    assert "token malformed 1" in said
    page = await got(browser, "/settings")
    assert "REELHOOK_ADMIN_TOKEN" in page
    for secret in (ADMIN_TOKEN, SIGNING_KEY):
        assert secret not in page
    receiver.clock.advance(2 * MINUTE)
    assert "Something fails" in await got(browser, "/health")


# Who may


async def everything(receiver: Assembled) -> dict[str, str]:
    """One of all there is, in the default project; the pages that show it, by the path's kind."""
    added = await dead(receiver, 1)
    await receiver.store.record(arrival(body=b"{"))
    callback = (await receiver.store.callbacks(Query(outcome="quarantined"))).data[0]
    event = (await receiver.store.events(Query())).data[0]
    asked = {"dry_run": False, "endpoint": added}
    job = (await receiver.client.post("/v1/deliveries/retry", json=asked)).json()["id"]
    return {
        "callbacks": callback.id,
        "events": event.id,
        "deliveries": await first(receiver),
        "endpoints": added,
        "jobs": job,
    }


async def test_who_may_only_read_finds_no_button_and_opens_no_form(receiver: Assembled) -> None:
    found = await everything(receiver)
    _, token = await token_of(receiver, scope="read")
    async with holding(receiver, token) as reader:
        lists, page = [f"/{kind}" for kind in (*found, "dead-letters")], ""
        for path in (*lists, *(f"/{kind}/{name}" for kind, name in found.items())):
            page = await got(reader, path)
            forms = re.findall(r'<form method="post" action="([^"]*)"', page)
            assert set(forms) == {"/theme", "/logout"}, path
            assert "Send all of these again" not in page
        csrf = {"csrf": form_in(page, "/logout")["csrf"]}
        tried = 0
        for route in receiver.service.app.routes:
            path, methods = getattr(route, "path", ""), getattr(route, "methods", None) or ()
            ours = "POST" in methods and not path.startswith(("/v1/", "/webhooks/"))
            if ours and path not in ("/login", "/logout", "/theme"):
                kind = path.split("/")[1]
                answer = await reader.post(path.replace("{id}", found.get(kind, TASK)), data=csrf)
                assert answer.status_code == 403, path
                tried += 1
        assert tried > 15
        edit = f"/endpoints/{found['endpoints']}/edit"
        for path in ("/endpoints/new", edit, "/deliveries/retry", "/tokens", "/audit"):
            await got(reader, path, 403)
        gone = await got(reader, "/endpoints/ep_0000000000001", 404)
        assert ("/deliveries?endpoint=" in gone, "/audit" in gone) == (True, False)


async def test_another_projects_things_are_on_no_page(receiver: Assembled) -> None:
    found = await everything(receiver)
    _, token = await token_of(receiver, scope="admin", project="film")
    async with holding(receiver, token) as stranger:
        for kind, name in found.items():
            assert name not in await got(stranger, f"/{kind}")
            await got(stranger, f"/{kind}/{name}", 404)
        assert found["endpoints"] not in await got(stranger, "/dead-letters")
        page = await got(stranger, "/deliveries/retry?state=dead")
        assert "Nothing that could be sent again" in page
        await got(stranger, f"/deliveries/retry?endpoint={found['endpoints']}", 404)
        for path in ("/health", "/settings"):
            await got(stranger, path, 403)


# What strangers wrote


async def test_what_strangers_wrote_is_text_everywhere(
    receiver: Assembled, browser: httpx.AsyncClient
) -> None:
    spec = EndpointAsked(url="https://example.com/hook", description=HOSTILE, headers={"X-A": "b"})
    await receiver.client.post("/v1/endpoints", json=spec.model_dump(exclude={"secret"}))
    await receiver.store.register(registration(TASK, model=HOSTILE, tags={"a": HOSTILE}))
    await receiver.store.record(arrival(failure(HOSTILE, message=HOSTILE)))
    (claimed, *_) = await claim(receiver.store)
    outcome = sent(500, body=HOSTILE.encode())
    await receiver.store.settle(settled(claimed, State.DEAD, outcome=outcome))
    await receiver.store.record(arrival_of(uuid(9), success(9)))
    (added,) = (await receiver.store.endpoints(Query())).data
    event = (await receiver.store.events(Query(event_type="result.failed"))).data[0]
    delivery, page = await first(receiver), ""
    for path in (
        "/callbacks",
        "/events",
        f"/events/{event.id}",
        f"/deliveries/{delivery}",
        "/endpoints",
        f"/endpoints/{added.id}",
        f"/endpoints/{added.id}/edit",
    ):
        page = await got(browser, path)
        assert "<script>alert" not in page
        assert "<img" not in page
    assert "&lt;script&gt;" in page


async def test_a_person_is_shown_fewer_rows_than_a_program(
    receiver: Assembled, browser: httpx.AsyncClient
) -> None:
    await queued(receiver.store, 30)
    for path, rows in (("/deliveries", 25), ("/deliveries?limit=28", 28)):
        page = await got(browser, path)
        assert page.count("<tr>") == rows + 1  # the head
        assert 'rel="next"' in page
    assert len((await receiver.client.get("/v1/deliveries")).json()["data"]) == 30
