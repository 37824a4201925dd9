"""Tasks in a real browser: they fill up by themselves, and what plays goes on playing."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Route, expect

from tests.browser.window import VIEWS, Stage, Window, barriers, kept, window
from tests.make import failure

pytestmark = [pytest.mark.process, pytest.mark.timeout(600)]  # a browser shares its machine

HOSTILE = '<script>window.pwned = 1</script><img src=x onerror="window.pwned = 2">'
HEAR = """() => {
  window.heard = [];
  new EventSource("/live").onmessage = (event) => heard.push(event.data);
}"""
PLAYS = "video => !video.paused && video.currentTime > 0 && !video.error"


def test_results_appear_while_a_video_goes_on_playing(stage: Stage, desk: Window) -> None:
    task, url = stage.register(3, model="pixverse:1@6")
    stage.call_back(url, stage.video(task))
    desk.open(f"/tasks/{task}")
    desk.is_live()
    expect(desk.page.locator(".lead .of")).to_have_text("1 of 3")
    video = desk.page.locator("video").first
    video.evaluate("video => { video.loop = video.muted = true; return video.play() }")
    desk.until(f"() => ({PLAYS})(document.querySelector('video'))")
    video.evaluate(
        "video => { window.mine = video; window.stops = 0; video.onpause = () => stops++ }"
    )

    for number in (2, 3):
        played = float(desk.page.evaluate("mine.played.end(0)"))
        stage.call_back(url, stage.video(task))
        expect(desk.page.locator(".lead .of")).to_have_text(f"{number} of 3")
        expect(desk.page.locator("video")).to_have_count(number)
        # The very same player has played on; a page that was loaded anew would not know `mine`.
        assert desk.page.evaluate("mine === document.querySelector('video') && mine.isConnected")
        desk.until(f"played => mine.currentTime !== played && ({PLAYS})(mine)", played)
        assert desk.page.evaluate("stops") == 0
    expect(desk.page.locator(".lead .badge").first).to_have_text("succeeded")


def test_a_real_run_of_the_simulator_ends_on_an_open_page(stage: Stage, desk: Window) -> None:
    task, url = stage.register(2, model="pixverse:1@6")
    desk.open("/tasks")
    desk.is_live()
    row = desk.page.locator("tbody tr", has=desk.page.locator(f"a[href='/tasks/{task}']"))
    expect(row.locator(".of")).to_have_text("0 of 2")
    request = {
        "taskType": "videoInference",
        "taskUUID": task,
        "model": "pixverse:1@2",
        "positivePrompt": "a reel turns",
        "duration": 5,
        "width": 640,
        "height": 360,
        "numberResults": 2,
        "deliveryMethod": "async",
        "includeCost": True,
        "webhookURL": url,
    }
    answer = stage.api.post(
        f"{stage.simulator}/v1", json=[request], headers={"authorization": "Bearer test"}
    )
    assert answer.status_code == 200
    expect(row.locator(".of")).to_have_text("2 of 2")
    expect(row.locator(".badge")).to_have_text("succeeded")


def test_where_a_tunnel_holds_the_stream_back_the_page_asks_now_and_then(
    stage: Stage, browser: Browser
) -> None:
    with window(stage, browser) as desk:
        desk.log_in()
        held: list[Route] = []
        desk.page.route("**/live", lambda route: held.append(route))  # it never answers
        task, url = stage.register(1)
        desk.open(f"/tasks/{task}")
        stage.call_back(url, stage.video(task))
        expect(desk.page.locator(".lead .of")).to_have_text("1 of 1")
        expect(desk.page.locator("[data-live-switch]")).to_have_text("Polling")
        assert held
        for route in held:
            route.abort()
        desk.problems.clear()  # the stream that was cut


def test_a_page_can_be_kept_as_it_is(stage: Stage, desk: Window) -> None:
    task, url = stage.register(2)
    desk.open(f"/tasks/{task}")
    desk.is_live()
    switch = desk.page.locator("[data-live-switch]")
    switch.click()
    expect(switch).to_have_text("Paused")
    asked: list[str] = []
    desk.page.on("request", lambda request: asked.append(request.url))
    desk.page.evaluate(HEAR)
    desk.until("() => heard.includes('hello')")
    stage.call_back(url, stage.video(task))
    desk.until("() => heard.includes('change')")  # so would the page have
    assert [found.rpartition("/")[2] for found in asked] == ["live"]  # which was ours
    expect(desk.page.locator(".lead .of")).to_have_text("0 of 2")
    switch.click()
    expect(desk.page.locator(".lead .of")).to_have_text("1 of 2")
    expect(switch).to_have_text("Live")


def test_a_session_that_is_over_leads_an_open_page_to_the_login(
    stage: Stage, browser: Browser
) -> None:
    with window(stage, browser) as desk:
        desk.log_in()
        task, url = stage.register(1)
        desk.open(f"/tasks/{task}")
        desk.is_live()
        desk.context.clear_cookies()
        stage.call_back(url, stage.video(task))
        desk.page.wait_for_url(f"{stage.url}/login?next=%2Ftasks%2F{task}")
        desk.problems = [found for found in desk.problems if "401" not in found]  # as it should be


def test_reconcile_and_revoke(stage: Stage, desk: Window) -> None:
    task, url = stage.register(1)
    desk.open(f"/tasks/{task}")
    desk.page.get_by_role("button", name="Reconcile now").click()
    expect(desk.page.get_by_role("status")).to_contain_text("The task is due")
    due = stage.api.post("/v1/tasks/claim", json={}).json()["data"]  # others' tasks may be due, too
    assert task in {one["id"] for one in due}
    desk.page.reload()
    expect(desk.page.get_by_role("status")).to_have_count(0)  # it is said once

    desk.page.get_by_text("Revoke URLs").click()
    desk.page.get_by_role("button", name="Revoke", exact=True).click()
    expect(desk.page.get_by_role("status")).to_contain_text("is refused from now on")
    assert stage.api.post(url, json=stage.video(task)).status_code == 410


# Without JavaScript


def test_everything_works_without_javascript(stage: Stage, browser: Browser) -> None:
    task, url = stage.register(2, model="pixverse:1@6", tags={"plain": "html"})
    stage.call_back(url, stage.video(task))
    with window(stage, browser, java_script_enabled=False) as desk:
        desk.log_in()
        desk.page.get_by_role("link", name="Tasks").first.click()
        desk.page.get_by_label("Tag").fill("plain=html")
        desk.page.get_by_role("button", name="Filter").click()
        desk.page.wait_for_url("**/tasks?*tag=plain%3Dhtml*")
        expect(desk.page.locator("tbody tr")).to_have_count(1)
        desk.page.locator("tbody a").click()
        expect(desk.page.locator(".lead .of")).to_have_text("1 of 2")
        expect(desk.page.locator("video")).to_have_attribute("controls", "")
        desk.page.locator("details.entry summary").click()
        expect(desk.page.locator("details.entry pre")).to_contain_text(task)
        desk.page.get_by_role("button", name="Reconcile now").click()
        expect(desk.page.get_by_role("status")).to_contain_text("The task is due")
        desk.page.get_by_role("button", name="Dark").click()
        expect(desk.page.locator("html")).to_have_attribute("data-theme", "dark")
        desk.page.get_by_role("button", name="Log out").click()
        expect(desk.page.get_by_label("Admin token")).to_be_visible()
        assert desk.open("/tasks").url == f"{stage.url}/login?next=%2Ftasks"


def test_a_list_goes_on_and_back_by_links(stage: Stage, desk: Window) -> None:
    for _ in range(3):
        stage.register(1, model="pager")
    desk.open("/tasks?model=pager&limit=2")
    rows = desk.page.locator("tbody a")
    first = rows.all_inner_texts()
    desk.page.get_by_role("link", name="Older").click()
    desk.page.wait_for_url("**cursor=*")
    expect(rows).to_have_count(1)
    assert not {*first} & {*rows.all_inner_texts()}
    desk.page.get_by_role("link", name="Newest").click()
    expect(rows).to_have_count(2)


# What strangers wrote


def test_what_strangers_wrote_is_text(stage: Stage, desk: Window) -> None:
    task, url = stage.register(
        4,
        model=HOSTILE,
        tags={HOSTILE[:30]: HOSTILE},
        metadata={HOSTILE: HOSTILE},
        request={"positivePrompt": HOSTILE},
        client_ref=HOSTILE,
    )
    stage.call_back(
        url,
        failure(task=task, code=HOSTILE[:40], message=HOSTILE),
        stage.video(task, videoURL="javascript:window.pwned=3"),
        stage.video(task, videoURL="data:text/html,<script>window.pwned=4</script>"),
        stage.video(task, videoURL='https://"onerror="window.pwned=5', extra=HOSTILE),
        b"\xff<script>window.pwned = 6</script>",
    )
    for path in ("/", "/tasks", f"/tasks/{task}"):
        desk.open(path)
        for details in desk.page.locator("details.entry, details.raw").all():
            details.evaluate("one => { one.open = true }")
        assert desk.page.evaluate("window.pwned") is None
        assert (
            desk.page.locator("main script, img[src=x], [href^=javascript], [src^=data]").count()
            == 0
        )
    expect(desk.page.locator(".screen.failed span")).to_have_text(HOSTILE)
    # Media on another host can't be there in a test; that is no fault of the page.
    desk.problems = [found for found in desk.problems if "ERR_" not in found]


@contextmanager
def another_site(html: str) -> Iterator[str]:
    """A page on another port, which browsers take for the same site; its URL."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(html.encode())

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: it would stand between the tests' lines."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()
            thread.join()


def test_another_pages_form_changes_nothing(stage: Stage, browser: Browser) -> None:
    task, url = stage.register(1)
    with window(stage, browser) as desk:
        desk.log_in()
        desk.open(f"/tasks/{task}")
        csrf = desk.page.locator("input[name=csrf]").first.input_value()  # even if it were known
        form = (
            f'<form method="post" action="{stage.url}/tasks/{task}/revoke">'
            f'<input name="csrf" value="{csrf}"><button>Win</button></form>'
        )
        with another_site(form) as trap:
            desk.page.goto(trap)
            desk.page.get_by_role("button", name="Win").click()
            expect(desk.page.get_by_role("alert")).to_contain_text("another site's page")
        desk.problems.clear()  # the 403, and the trap's missing icon
    stage.call_back(url, stage.video(task))  # nothing was revoked


def test_no_other_page_may_show_ours_within_itself(stage: Stage, browser: Browser) -> None:
    with window(stage, browser) as desk:
        desk.log_in()
        with another_site(f'<iframe src="{stage.url}/"></iframe>') as trap:
            desk.page.goto(trap)
            assert not desk.page.frames[1].locator("h1").is_visible()
        desk.problems.clear()


# Keys, times, looks


def test_a_list_can_be_walked_through_by_keys(stage: Stage, desk: Window) -> None:
    first, second = (stage.register(1, model="keys")[0] for _ in range(2))
    desk.open("/tasks?model=keys")
    desk.page.keyboard.press("j")
    desk.page.keyboard.press("j")
    desk.page.keyboard.press("k")
    desk.page.keyboard.press("j")
    expect(desk.page.locator("tr[aria-selected=true]")).to_contain_text(first[:8])
    desk.page.keyboard.press("/")
    desk.page.keyboard.type("jk")
    expect(desk.page.get_by_label("Search")).to_have_value("jk")
    desk.page.keyboard.press("Escape")
    desk.page.keyboard.press("k")
    desk.page.keyboard.press("o")
    desk.page.wait_for_url(f"**/tasks/{second}")


def test_the_first_tab_skips_the_navigation(desk: Window) -> None:
    desk.page.keyboard.press("Tab")
    expect(desk.page.get_by_text("Skip to the content")).to_be_focused()
    desk.page.keyboard.press("Enter")
    expect(desk.page.locator("main")).to_be_focused()


def test_times_are_in_utc_or_local_as_one_likes(stage: Stage, browser: Browser) -> None:
    task, _ = stage.register(1)
    with window(stage, browser, timezone_id="Asia/Kolkata") as desk:
        desk.log_in()
        desk.open(f"/tasks/{task}")
        time = desk.page.locator("time[data-when]").first
        told = time.get_attribute("datetime")
        assert told is not None
        assert time.inner_text() == f"{told[:10]} {told[11:19]}"
        desk.page.get_by_role("button", name="UTC").click()
        ours = desk.page.evaluate("told => new Date(told).toLocaleTimeString('en-GB')", told)
        expect(time).to_contain_text(ours)
        assert ours != told[11:19]
        desk.page.reload()
        expect(time).to_contain_text(ours)


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_nothing_keeps_anybody_out_and_everything_fits(
    stage: Stage, browser: Browser, axe_core: str, width: int, scheme: str, tmp_path: Path
) -> None:
    task, url = stage.register(4, model="pixverse:1@6", tags={"projectId": "proj_789"})
    stage.call_back(url, stage.video(task), failure(task=task), b"{not json")
    with window(stage, browser, width, color_scheme=scheme) as desk:
        desk.open("/login")
        assert barriers(desk, axe_core) == []
        desk.log_in()
        for name, path in (("overview", "/"), ("tasks", "/tasks"), ("task", f"/tasks/{task}")):
            assert desk.open(path).status == 200
            assert barriers(desk, axe_core) == [], path
            assert desk.overflow() == 0, path
            assert kept(desk, f"{name}-{scheme}", tmp_path).stat().st_size > 10_000
