"""The way into the dashboard: links, sessions, forms, and what every page's headers allow."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from receiver.admin.dashboard.assets import HTMX, STATIC, Assets
from receiver.admin.dashboard.pages import NAVIGATION, local
from receiver.app import LOGINS
from receiver.clock import HOUR, MINUTE, to_rfc3339
from receiver.deliveries import State
from receiver.errors import StoreFull
from receiver.sessions import LIFE, NOTICE_SALT, Session, SessionBox, digest_code
from receiver.store.protocol import Query
from receiver.tokens import StrictSigner
from tests.doubles import ADMIN_TOKEN, SIGNING_KEY, START, Assembled, assembled
from tests.make import TASK, arrival, registration, settled, success, uuid
from tests.receiver.browsing import browsing, form_in, holding, logged_in, send, token_of
from tests.receiver.store.suite import claim

CLOSED = ("/settings", "/tokens", "/audit")  # to readers

pytestmark = pytest.mark.anyio


@pytest.fixture
async def receiver(tmp_path: Path) -> AsyncIterator[Assembled]:
    async with assembled(tmp_path) as found:
        yield found


@pytest.fixture
async def browser(receiver: Assembled) -> AsyncIterator[httpx.AsyncClient]:
    async with logged_in(receiver) as found:
        yield found


async def link_of(receiver: Assembled) -> str:
    answer = await receiver.client.post("/v1/login-links")
    assert answer.status_code == 201
    path: str = answer.json()["path"]
    return path


# The login


async def test_a_link_logs_in_once_and_a_preview_of_it_does_not_burn_it(
    receiver: Assembled,
) -> None:
    path = await link_of(receiver)
    async with browsing(receiver) as browser:
        await browser.get(path)  # a chat looks at it before a person does
        page = await browser.get(path)
        fields = form_in(page.text, "/login")

        assert (await browser.post("/login", data=fields)).headers["location"] == "/"
        assert (await browser.get("/")).status_code == 200

    async with browsing(receiver) as another:
        answer = await another.post("/login", data=fields)
        assert answer.status_code == 401
        assert "used before" in answer.text


async def test_logins_and_logouts_are_in_the_audit_log_and_no_secret_with_them(
    receiver: Assembled,
) -> None:
    token_id, token = await token_of(receiver, scope="read", project="film")
    path = (
        await receiver.stranger.post(
            "/v1/login-links", headers={"authorization": f"Bearer {token}"}
        )
    ).json()["path"]
    code = path.partition("=")[2]
    async with browsing(receiver) as browser:
        answer = await browser.post("/login", data={"code": code})
        await send(browser, "/", "/logout")
    for refused in ({"code": code}, {"token": "a guess"}):
        assert (await receiver.stranger.post("/login", data=refused)).status_code == 401
    async with logged_in(receiver):
        pass
    rows = (await receiver.client.get("/v1/audit?limit=4")).json()["data"][::-1]
    film = (token_id, "film", "film")
    told = [
        ((one["actor"], one["actor_name"], one["project"]), one["action"], one["details"])
        for one in rows
    ]
    here = {"remote": "127.0.0.1"}
    assert told == [
        (film, "login_link.create", here),
        (film, "session.begin", {**here, "by": "link"}),
        (film, "session.end", here),
        (("admin", "", None), "session.begin", {**here, "by": "token"}),
    ]
    assert rows[1]["request_id"] == answer.headers["x-request-id"]
    assert all(one["request_id"] for one in rows)
    for secret in (code, token, ADMIN_TOKEN, digest_code(code).hex()):
        assert secret not in str(rows)


async def test_a_login_that_can_not_be_noted_is_none(
    receiver: Assembled, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object) -> None:
        raise StoreFull

    monkeypatch.setattr(receiver.store, "note", full)
    async with browsing(receiver) as browser:
        answer = await browser.post("/login", data={"token": ADMIN_TOKEN})
    assert answer.status_code == 503
    assert "set-cookie" not in answer.headers


async def test_a_link_is_good_for_ten_minutes(receiver: Assembled) -> None:
    path = await link_of(receiver)
    receiver.clock.advance(10 * MINUTE)
    answer = await receiver.stranger.post("/login", data={"code": path.partition("=")[2]})
    assert answer.status_code == 401


async def test_neither_link_nor_token_nor_session_is_logged(
    receiver: Assembled, browser: httpx.AsyncClient
) -> None:
    path = await link_of(receiver)
    await receiver.stranger.get(path)
    await receiver.stranger.post("/login", data={"code": path.partition("=")[2]})
    said = str(receiver.log)
    assert "/login" in said
    for secret in (path.partition("=")[2], ADMIN_TOKEN, *browser.cookies.values()):
        assert secret not in said


async def test_whoever_tries_too_often_has_to_wait(receiver: Assembled) -> None:
    for _ in range(LOGINS):
        answer = await receiver.stranger.post("/login", data={"token": "a guess"})
        assert answer.status_code == 401
    answer = await receiver.stranger.post("/login", data={"token": "a guess"})
    assert answer.status_code == 429
    assert "set-cookie" not in answer.headers


async def test_after_the_login_the_page_that_was_asked_for_comes(receiver: Assembled) -> None:
    async with browsing(receiver) as browser:
        answer = await browser.get("/?a=1&b=%22")
        assert (answer.status_code, answer.headers["location"]) == (
            303,
            "/login?next=%2F%3Fa%3D1%26b%3D%2522",
        )
        page = await browser.get(answer.headers["location"])
        fields = {**form_in(page.text, "/login"), "token": ADMIN_TOKEN}
        assert (await browser.post("/login", data=fields)).headers["location"] == "/?a=1&b=%22"


@pytest.mark.parametrize(
    "place",
    [
        "//evil.example",
        "/\\evil.example",
        "https://evil.example",
        "javascript:alert(1)",
        "",
        "/\n/x",
    ],
)
def test_a_login_leads_to_no_other_site(place: str) -> None:
    assert local(place) == "/"


async def test_a_click_on_another_sites_page_leads_on_to_the_same_place(
    receiver: Assembled, browser: httpx.AsyncClient
) -> None:
    async with browsing(receiver) as outside:  # a strict cookie does not come along
        page = await outside.get("/?a=1", headers={"sec-fetch-site": "cross-site"})
        assert page.status_code == 200
        assert '<meta http-equiv="refresh" content="0; url=/?a=1">' in page.text
        page = await outside.get("/?a=1", headers={"sec-fetch-site": "same-origin"})
        assert page.headers["location"] == "/login?next=%2F%3Fa%3D1"


async def test_a_part_of_a_page_that_is_asked_for_after_the_end_leads_to_the_login(
    receiver: Assembled,
) -> None:
    answer = await receiver.stranger.get("/", headers={"hx-request": "true"})
    assert (answer.status_code, answer.headers["hx-redirect"]) == (401, "/login")


# The session


async def test_a_cookie_is_strict_and_out_of_reach_of_scripts(receiver: Assembled) -> None:
    async with browsing(receiver) as browser:
        answer = await browser.post("/login", data={"token": ADMIN_TOKEN})
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith("__Host-reelhook_")
        assert {"HttpOnly", "Secure", "SameSite=strict", "Path=/", f"Max-Age={12 * 3600}"} <= {
            part.strip() for part in cookie.split(";")
        }
        assert (await browser.get("/")).status_code == 200


async def test_on_loopback_a_cookie_works_in_clear(receiver: Assembled) -> None:
    async with browsing(receiver, "http://127.0.0.1:8000") as browser:
        answer = await browser.post("/login", data={"token": ADMIN_TOKEN})
        assert "Secure" not in answer.headers["set-cookie"]
        assert (await browser.get("/")).status_code == 200


async def test_a_session_ends_after_twelve_hours(
    receiver: Assembled, browser: httpx.AsyncClient
) -> None:
    receiver.clock.advance(12 * HOUR - 1)
    assert (await browser.get("/")).status_code == 200
    receiver.clock.advance(1)
    assert (await browser.get("/")).status_code == 303


async def test_who_logs_out_is_out_wherever_the_cookie_was_copied_to(
    receiver: Assembled, browser: httpx.AsyncClient
) -> None:
    copied = dict(browser.cookies)
    assert (await send(browser, "/", "/logout")).headers["location"] == "/login"
    assert not browser.cookies
    async with browsing(receiver) as thief:
        thief.cookies.update(copied)
        assert (await thief.get("/")).status_code == 303


def test_only_the_admin_token_makes_sessions() -> None:
    ours, session = SessionBox(ADMIN_TOKEN), Session("id", "admin", LIFE)
    assert ours.open(ours.seal(session), 0) == session
    assert ours.open(ours.seal(session), LIFE) is None
    for other in (SessionBox(SIGNING_KEY), SessionBox(f"{ADMIN_TOKEN}2")):
        assert ours.open(other.seal(session), 0) is None
        assert not ours.is_csrf(session, other.csrf(session))
    text = ours.seal(session)
    for altered in ("", ".", "x", f"{text}.", f"{text}=", text[:-1], "ä.b", "a" * 5_000):
        assert ours.open(altered, 0) is None
    # What is signed for another purpose is no session.
    signer = StrictSigner([ADMIN_TOKEN], NOTICE_SALT)
    assert ours.open(signer.sign(text.partition(".")[0]).decode(), 0) is None


async def test_a_session_may_look_at_the_api_and_change_nothing_there(
    browser: httpx.AsyncClient,
) -> None:
    assert (await browser.get("/v1/tasks")).json() == {"data": [], "next_cursor": None}
    for method, path in (("PUT", f"/v1/tasks/{uuid(1)}"), ("POST", "/v1/login-links")):
        answer = await browser.request(method, path, json={"platform": "runware"})
        assert answer.status_code == 401


async def test_a_wrong_token_is_not_made_good_by_a_session(browser: httpx.AsyncClient) -> None:
    answer = await browser.get("/v1/tasks", headers={"authorization": "Bearer wrong"})
    assert answer.status_code == 401


# API tokens


async def test_who_may_only_read_sees_everything_and_changes_nothing(receiver: Assembled) -> None:
    await receiver.store.register(registration())
    _, token = await token_of(receiver, scope="read")
    async with holding(receiver, token) as reader:
        page = (await reader.get(f"/tasks/{TASK}")).text
        assert "Reconcile now" not in page
        assert "Revoke" not in page
        csrf = form_in(page, "/logout")
        for path in (f"/tasks/{TASK}/reconcile", f"/tasks/{TASK}/revoke"):
            answer = await reader.post(path, data=csrf)
            assert answer.status_code == 403
            assert "needs admin" in answer.text
        assert (await reader.get("/v1/tasks")).status_code == 200
        assert (await reader.get("/v1/settings")).status_code == 403
        assert (await send(reader, "/", "/logout")).headers["location"] == "/login"


async def test_no_page_shows_a_reader_what_the_api_would_not(receiver: Assembled) -> None:
    secret = "hunter-of-two-worlds"
    spec = {
        "url": f"https://hooks.example.net/{secret}?key={secret}",
        "headers": {"x-key": secret},
        "description": "ours",
    }
    made = (await receiver.client.post("/v1/endpoints", json=spec)).json()
    await receiver.store.register(registration())
    await receiver.store.record(arrival(success()))
    for one in await claim(receiver.store, START):
        await receiver.store.settle(settled(one, State.DEAD, now=START))
    (delivery,) = (await receiver.store.deliveries(Query(event_type="result.succeeded"))).data
    (event,) = (await receiver.store.events(Query(event_type="result.succeeded"))).data
    (callback,) = (await receiver.store.callbacks(Query())).data
    ids = {
        "/tasks": TASK,
        "/endpoints": made["id"],
        "/deliveries": delivery.id,
        "/events": event.id,
        "/callbacks": callback.id,
    }
    _, token = await token_of(receiver, scope="read")
    pages = [entry.path for group in NAVIGATION for entry in group]
    async with holding(receiver, token) as reader, logged_in(receiver) as admin:
        shown_to_admin = ""
        for path in [*pages, *(f"{path}/{found}" for path, found in ids.items())]:
            page = await reader.get(path)
            assert page.status_code == (403 if path in CLOSED else 200), path
            assert secret not in page.text, path
            shown_to_admin += (await admin.get(path)).text
    assert secret in shown_to_admin


async def test_whose_token_is_for_submitting_is_not_let_in(receiver: Assembled) -> None:
    _, token = await token_of(receiver, scope="submit")
    answer = await receiver.stranger.post("/login", data={"token": token})
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


async def test_a_session_sees_the_project_of_its_token(receiver: Assembled) -> None:
    await receiver.store.register(registration())
    ours = uuid(7)
    await receiver.store.register(registration(ours, project="film"))
    _, token = await token_of(receiver, scope="admin", project="film")
    async with holding(receiver, token) as browser:
        page = (await browser.get("/tasks")).text
        assert ours in page
        assert TASK not in page
        assert (await browser.get(f"/tasks/{ours}")).status_code == 200
        assert (await browser.get(f"/tasks/{TASK}")).status_code == 404
        fields = form_in(page, "/logout")
        assert (await browser.post(f"/tasks/{TASK}/revoke", data=fields)).status_code == 404
        assert (await browser.post(f"/tasks/{ours}/revoke", data=fields)).status_code == 303


async def test_a_session_is_over_once_its_token_is(receiver: Assembled) -> None:
    lapses = to_rfc3339(START + HOUR)
    first, second = (
        await token_of(receiver, scope="read"),
        await token_of(receiver, scope="read", expires_at=lapses),
    )
    async with holding(receiver, first[1]) as one, holding(receiver, second[1]) as other:
        assert (await receiver.client.delete(f"/v1/api-tokens/{first[0]}")).status_code == 204
        assert (await one.get("/")).status_code == 303
        assert (await one.get("/v1/tasks")).status_code == 401
        assert (await other.get("/")).status_code == 200
        receiver.clock.advance(HOUR)
        assert (await other.get("/")).status_code == 303


async def test_a_link_logs_in_whoever_asked_for_it(receiver: Assembled) -> None:
    token_id, token = await token_of(receiver, scope="read", project="film")
    headers = {"authorization": f"Bearer {token}"}
    made = await receiver.stranger.post("/v1/login-links", headers=headers)
    async with browsing(receiver) as browser:
        page = await browser.get(made.json()["path"])
        await browser.post("/login", data=form_in(page.text, "/login"))
        assert "film, project film" in (await browser.get("/")).text
        await receiver.client.delete(f"/v1/api-tokens/{token_id}")
        assert (await browser.get("/")).status_code == 303


# Forms


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"sec-fetch-site": "cross-site", "origin": "https://hooks.example.com"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "https://hooks.example.com.evil.example"},
    ],
)
async def test_another_sites_form_is_refused_with_the_right_token_too(
    receiver: Assembled, browser: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    fields = form_in((await browser.get("/")).text, "/logout")
    del browser.headers["sec-fetch-site"]
    for path, data in (("/logout", fields), ("/login", {"token": ADMIN_TOKEN})):
        answer = await browser.post(path, data=data, headers=headers)
        assert answer.status_code == 403
        assert "another site" in answer.text
    assert (await browser.get("/")).status_code == 200


@pytest.mark.parametrize("headers", [{"origin": "https://hooks.example.com"}, {}])
async def test_without_the_browsers_word_the_origin_counts(
    browser: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    fields = form_in((await browser.get("/")).text, "/logout")
    del browser.headers["sec-fetch-site"]
    assert (await browser.post("/logout", data=fields, headers=headers)).status_code == 303


async def test_a_form_needs_the_token_of_its_session(
    receiver: Assembled, browser: httpx.AsyncClient
) -> None:
    receiver.clock.advance(1)
    async with logged_in(receiver) as other:
        theirs = form_in((await other.get("/")).text, "/logout")["csrf"]
    for data in ({}, {"csrf": ""}, {"csrf": "x"}, {"csrf": "ä"}, {"csrf": theirs}):
        answer = await browser.post("/logout", data=data)
        assert answer.status_code == 403
        assert "another session" in answer.text
    ours = form_in((await browser.get("/")).text, "/logout")["csrf"]
    answer = await browser.post("/logout", headers={"x-csrf-token": ours})
    assert answer.status_code == 303


@pytest.mark.parametrize("body", [b"\xff", b"&".join([b"a=b"] * 101)])
async def test_what_is_no_form_of_ours_is_refused(browser: httpx.AsyncClient, body: bytes) -> None:
    for path in ("/logout", "/login"):
        assert (await browser.post(path, content=body)).status_code == 422
    assert (await browser.post("/logout", content=b"a" * 300_000)).status_code == 413


async def test_while_nothing_can_be_written_a_page_says_so(
    receiver: Assembled, browser: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unavailable(*_: object) -> None:
        raise StoreFull

    await receiver.store.register(registration())
    fields = form_in((await browser.get(f"/tasks/{TASK}")).text, "/logout")
    path = await link_of(receiver)
    for verb in ("revoke_task", "log_in"):
        monkeypatch.setattr(receiver.service.ops, verb, unavailable)
    answer = await browser.post(f"/tasks/{TASK}/revoke", data=fields)
    assert answer.status_code == 503
    assert "The disk is nearly full" in answer.text
    async with browsing(receiver) as another:
        answer = await another.post("/login", data={"code": path.partition("=")[2]})
    assert answer.status_code == 503
    assert "The disk is nearly full" in answer.text


async def test_the_theme_is_kept(browser: httpx.AsyncClient) -> None:
    assert "data-theme" not in (await browser.get("/")).text
    await send(browser, "/", "/theme", theme="dark")
    assert '<html lang="en" data-theme="dark">' in (await browser.get("/")).text
    await send(browser, "/", "/theme", theme='"><script>')
    assert "data-theme" not in (await browser.get("/")).text


# What pages and files are sent with


@pytest.mark.parametrize("path", ["/", "/login", "/login?code=x"])
async def test_a_page_may_run_and_load_nothing_but_ours(
    browser: httpx.AsyncClient, path: str
) -> None:
    page = await browser.get(path)
    policy = dict(
        part.strip().partition(" ")[::2]
        for part in page.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["x-frame-options"] == "DENY"
    assert page.headers["cache-control"] == "no-store"
    assert page.headers["referrer-policy"] == "same-origin"
    assert not re.search(r"<style|style=|<script(?! src=)|\son\w+=|hx-on", page.text)


async def test_each_file_is_what_its_page_says_that_it_is(
    receiver: Assembled, browser: httpx.AsyncClient
) -> None:
    page = (await browser.get("/")).text
    found = re.findall(r'(?:src|href)="(/static/[^"]+)"(?: integrity="([^"]+)")?', page)
    assert {Path(url.partition("?")[0]).name for url, _ in found} == {
        "icon.svg",
        "htmx.min.js",
        "reelhook.css",
        "reelhook.js",
    }
    for url, integrity in found:
        file = await receiver.stranger.get(url)
        assert file.status_code == 200
        assert "immutable" in file.headers["cache-control"]
        digest = base64.b64encode(hashlib.sha384(file.content).digest()).decode()
        assert integrity in (f"sha384-{digest}", "" if url.startswith("/static/icon") else "-")
        again = await receiver.stranger.get(url, headers={"if-none-match": file.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    plain = await receiver.stranger.get("/static/reelhook.css?v=another")
    assert plain.headers["cache-control"] == "no-cache"


async def test_a_person_who_is_lost_gets_a_page_and_a_program_a_problem(
    receiver: Assembled,
) -> None:
    for path, accept, kind in (
        ("/nowhere", "text/html,*/*", "text/html; charset=utf-8"),
        ("/nowhere", "application/json", "application/problem+json"),
        ("/v1/nowhere", "text/html", "application/problem+json"),
        ("/static/nowhere", "text/html", "application/problem+json"),
    ):
        answer = await receiver.stranger.get(path, headers={"accept": accept})
        assert (answer.status_code, answer.headers["content-type"]) == (404, kind)
        assert ("content-security-policy" in answer.headers) == kind.startswith("text/html")


async def test_the_navigation_leads_to_the_api(browser: httpx.AsyncClient) -> None:
    page = (await browser.get("/")).text
    for path in re.findall('<li><a href="([^"]+)"', page):
        assert (await browser.get(path)).status_code == 200
    assert '<a href="/docs">' in page


async def test_there_are_no_other_files(receiver: Assembled) -> None:
    for name in ("nothing.css", "..%2fassets.py", ".", "%00", "htmx.min.js/x"):
        assert (await receiver.stranger.get(f"/static/{name}")).status_code == 404


def test_htmx_is_the_published_one_and_has_its_licence() -> None:
    assert Assets()["htmx.min.js"].integrity == HTMX
    assert "Zero-Clause BSD" in (STATIC / "htmx.LICENSE.txt").read_text()


async def test_an_admin_port_keeps_the_dashboard_from_the_public_one(tmp_path: Path) -> None:
    async with assembled(tmp_path) as receiver:
        receiver.door._public_port = 8080
        transport = httpx.ASGITransport(receiver.door)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://receiver:8080"
        ) as outside:
            for path in ("/", "/login", "/static/reelhook.css"):
                assert (await outside.get(path)).status_code == 404
