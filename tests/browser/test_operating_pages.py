"""What operators do, in a real browser: send again, one or many; rotate; look at odd callbacks."""

from __future__ import annotations

import http.server
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.window import VIEWS, Stage, Window, barriers, kept, staged, window
from tests.make import failure

pytestmark = [pytest.mark.process, pytest.mark.timeout(600)]  # a browser shares its machine

HOSTILE = b'<script>window.pwned = 1</script><img src=x onerror="window.pwned = 2">'

# By Standard Webhooks 1.0, "symmetric": base64 of HMAC-SHA256 under what follows whsec_.
SIGN = """async signed => {
  const raw = text => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const hash = {name: "HMAC", hash: "SHA-256"};
  const secret = raw(sessionStorage.secret.slice("whsec_".length));
  const key = await crypto.subtle.importKey("raw", secret, hash, false, ["sign"]);
  const made = await crypto.subtle.sign("HMAC", key, new TextEncoder().encode(signed));
  return btoa(String.fromCharCode(...new Uint8Array(made)));
}"""
KEEP = """() => {
  sessionStorage.secret = document.querySelector(".secret code").innerText;
}"""
# That something was copied is shown for a moment, which a slow machine may miss.
HEED = """() => {
  const heed = ([change]) => { window.done ||= "done" in change.target.dataset; };
  const watched = document.querySelector("main");
  new MutationObserver(heed).observe(watched, {attributeFilter: ["data-done"], subtree: true});
}"""
SHOWN = "document.documentElement.outerHTML.includes(sessionStorage.secret)"


@dataclass
class Sink:
    """A downstream endpoint, which answers as a path of it was told to."""

    url: str
    answers: dict[str, int] = field(default_factory=dict)
    heard: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    def fails(self, path: str) -> str:
        """The URL of a path that answers 500 from now on."""
        self.answers[path] = 500
        return self.url + path

    def recovers(self, path: str) -> None:
        """It answers 200 from now on."""
        self.answers[path] = 200


@pytest.fixture(scope="module")
def sink() -> Iterator[Sink]:
    """It listens on loopback, in threads of this process."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            found.heard.append((self.path, dict(self.headers), body))
            status = found.answers.get(self.path, 200)
            told = HOSTILE if status >= 500 else b"{}"
            self.send_response(status)
            self.send_header("content-length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    found = Sink(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A receiver that tries once, so that what fails is dead."""
    folder = tmp_path_factory.mktemp("operating")
    with staged(folder, REELHOOK_DELIVERY_SCHEDULE="0") as found:
        yield found


def added(stage: Stage, url: str, **spec: Any) -> str:
    """The id of an endpoint for results."""
    given = {"url": url, "event_types": ["result.*"], **spec}
    answer = stage.api.post("/v1/endpoints", json=given)
    assert answer.status_code == 201, answer.text
    found: str = answer.json()["id"]
    return found


def told(stage: Stage, count: int = 1) -> None:
    """So many tasks have their one result."""
    for _ in range(count):
        task, url = stage.register(1)
        stage.call_back(url, stage.video(task))


def dead(desk: Window, endpoint: str, count: int) -> None:
    """Wait on the list until so many of an endpoint's deliveries are dead."""
    desk.open(f"/deliveries?state=dead&endpoint={endpoint}")
    expect(desk.page.locator("tbody tr")).to_have_count(count)


def test_a_retry_makes_an_attempt_appear(stage: Stage, sink: Sink, desk: Window) -> None:
    endpoint = added(stage, sink.fails("/retry"))
    told(stage)
    dead(desk, endpoint, 1)
    desk.page.locator("tbody a").first.click()
    attempts = desk.page.locator(".entry")
    expect(attempts).to_have_count(1)
    expect(attempts.first).to_contain_text("500")
    expect(attempts.first).to_contain_text("<script>window.pwned = 1</script>")

    sink.recovers("/retry")
    desk.page.get_by_role("button", name="Retry").click()
    # The page hears of it by itself: nothing is loaded anew.
    expect(attempts).to_have_count(2)
    expect(desk.page.locator(".lead .badge").first).to_have_text("succeeded")
    assert desk.page.evaluate("window.pwned") is None


def test_an_attempt_can_be_copied_as_a_command(stage: Stage, sink: Sink, desk: Window) -> None:
    endpoint = added(stage, sink.fails("/copied"))
    told(stage)
    dead(desk, endpoint, 1)
    desk.page.locator("tbody a").first.click()
    desk.context.grant_permissions(["clipboard-read", "clipboard-write"])
    desk.page.evaluate(HEED)
    desk.page.get_by_role("button", name="Copy attempt 1 as a curl command").click()
    desk.until("() => window.done")
    copied = str(desk.page.evaluate("navigator.clipboard.readText()"))
    assert copied.startswith(f"curl -i -X POST {sink.url}/copied")
    assert "webhook-id: evt_" in copied


def test_dead_letters_are_counted_sent_again_and_seen_to_arrive(
    stage: Stage, sink: Sink, desk: Window
) -> None:
    endpoint = added(stage, sink.fails("/outage"))
    told(stage, 5)
    dead(desk, endpoint, 5)
    sink.recovers("/outage")
    desk.open(f"/dead-letters?endpoint={endpoint}")
    row = desk.page.locator("tbody tr")
    expect(row).to_contain_text("status 500")
    row.get_by_role("link", name="Retry").click()
    expect(desk.page.locator(".verdict .figure")).to_have_text("5 deliveries")
    assert stage.api.get(f"/v1/deliveries?state=dead&endpoint={endpoint}").json()["data"]

    desk.page.get_by_role("button", name="Send 5 deliveries again").click()
    desk.page.wait_for_url(re.compile("/jobs/job_"))
    expect(desk.page.locator(".lead .badge")).to_have_text("done")
    expect(desk.page.locator(".lead .of")).to_have_text("5 of 5")
    desk.open(f"/deliveries?state=succeeded&endpoint={endpoint}")
    expect(desk.page.locator("tbody tr")).to_have_count(5)
    desk.open(f"/dead-letters?endpoint={endpoint}")
    expect(desk.page.locator(".empty")).to_be_visible()


def test_a_rotated_secret_signs_from_then_on(stage: Stage, sink: Sink, desk: Window) -> None:
    endpoint = added(stage, f"{sink.url}/rotated")
    desk.open(f"/endpoints/{endpoint}")
    desk.page.locator("summary", has_text="Rotate").click()
    desk.page.get_by_label("Hours that").fill("0")
    desk.page.get_by_role("button", name="Rotate the secret").click()
    # The secret stays in the browser: nothing of this process may write it.
    desk.page.locator(".secret code").wait_for()
    desk.page.evaluate(KEEP)

    desk.page.get_by_role("link", name="To the endpoint").click()
    desk.is_live()
    assert desk.page.evaluate(f"!({SHOWN})")
    desk.page.get_by_role("button", name="Send a test").click()
    desk.page.wait_for_url(re.compile("/deliveries/dlv_"))
    expect(desk.page.locator(".lead .badge").first).to_have_text("succeeded")
    (heard,) = [one for one in sink.heard if one[0] == "/rotated"]
    headers = {name.lower(): value for name, value in heard[1].items()}
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.{heard[2].decode()}"
    assert f"v1,{desk.page.evaluate(SIGN, signed)}" == headers["webhook-signature"]


def test_an_endpoint_is_added_by_hand_and_gets_what_it_wants(
    stage: Stage, sink: Sink, desk: Window
) -> None:
    desk.open("/endpoints")
    desk.page.get_by_role("link", name="Add").click()
    desk.page.get_by_label("URL").fill(f"{sink.url}/by-hand")
    desk.page.get_by_label("Event types").fill("nothing.*")
    desk.page.get_by_role("button", name="Add the endpoint").click()
    expect(desk.page.get_by_role("alert")).to_contain_text("matches nothing there is")
    # The browser says it too, of every answer that is no 2xx.
    assert "422" in desk.problems.pop()

    desk.page.get_by_label("Event types").fill("result.succeeded")
    desk.page.get_by_role("button", name="Preview").click()
    expect(desk.page.locator(".preview h2")).to_contain_text("It would have got")
    desk.page.get_by_role("button", name="Add the endpoint").click()
    expect(desk.page.locator(".secret code")).to_contain_text("whsec_")
    desk.page.get_by_role("link", name="To the endpoint").click()
    desk.is_live()
    told(stage)
    expect(desk.page.locator("tbody .badge").first).to_have_text("succeeded")
    expect(desk.page.locator(".tiles")).to_contain_text("100 %")


def test_what_is_quarantined_runs_nowhere(stage: Stage, desk: Window) -> None:
    task, url = stage.register(1)
    stage.call_back(url, b'{"data": "' + HOSTILE.replace(b'"', b"'"), HOSTILE)
    desk.open(f"/callbacks?outcome=quarantined&task={task}")
    expect(desk.page.locator("tbody tr")).to_have_count(2)
    for number in range(2):
        desk.open(f"/callbacks?outcome=quarantined&task={task}")
        desk.page.locator("tbody a").nth(2 * number).click()
        expect(desk.page.locator("pre")).to_contain_text("<script>window.pwned = 1</script>")
        with desk.page.expect_download() as download:
            desk.page.get_by_role("link", name="Exact bytes").click()
        assert HOSTILE[:33] in Path(download.value.path()).read_bytes()
        assert desk.page.evaluate("window.pwned") is None
        desk.page.locator("summary", has_text="Reprocess").click()
        desk.page.get_by_role("button", name="Only look").click()
        expect(desk.page.get_by_role("status")).to_contain_text("would be quarantined")


def test_all_of_it_works_without_javascript(stage: Stage, sink: Sink, browser: Browser) -> None:
    endpoint = added(stage, sink.fails("/plain"))
    told(stage, 2)
    with window(stage, browser, java_script_enabled=False) as desk:
        desk.log_in()
        desk.open(f"/endpoints/{endpoint}")
        desk.page.get_by_role("button", name="Pause").click()
        expect(desk.page.locator(".lead .badge").first).to_have_text("paused")
        desk.page.get_by_role("button", name="Resume").click()
        expect(desk.page.locator(".lead .badge").first).to_have_text("enabled")
        sink.recovers("/plain")
        desk.open(f"/deliveries/retry?endpoint={endpoint}")
        desk.page.get_by_role("button", name="again").click()
        expect(desk.page.locator("h1")).to_contain_text("job_")
        stage.api.post("/v1/api-tokens", json={"name": "first", "scope": "read"})
        desk.open("/tokens")
        desk.page.locator("summary", has_text="Make a token").click()
        desk.page.get_by_label("Name").fill("plain")
        desk.page.get_by_role("button", name="Make the token").click()
        expect(desk.page.locator(".secret code")).to_contain_text("rhk_")


def pages(stage: Stage, sink: Sink) -> dict[str, str]:
    """Every page of operators by its name, each with something on it."""
    good = added(stage, f"{sink.url}/good", description="Production", headers={"X-Team": "film"})
    bad = added(stage, sink.fails("/bad"), filters={"model": "pixverse:*"}, ordered=True)
    task, url = stage.register(2, model="pixverse:1@6")
    stage.call_back(url, stage.video(task), failure(task=task), b"{not json")
    asked = {"dry_run": False, "endpoint": bad, "state": "dead"}
    job = stage.api.post("/v1/deliveries/retry", json=asked).json()["id"]
    stage.api.post("/v1/api-tokens", json={"name": "ci", "scope": "submit"})
    (callback,) = stage.api.get(f"/v1/callbacks?task={task}&outcome=quarantined").json()["data"]
    event = stage.api.get(f"/v1/events?task={task}").json()["data"][0]["id"]
    delivery = stage.api.get(f"/v1/deliveries?endpoint={bad}").json()["data"][0]["id"]
    since = "since=2026-01-01T00%3A00"
    return {
        "callbacks": "/callbacks",
        "callback": f"/callbacks/{callback['id']}",
        "events": "/events",
        "event": f"/events/{event}",
        "deliveries": "/deliveries?state=dead",
        "delivery": f"/deliveries/{delivery}",
        "dead-letters": "/dead-letters",
        "retry": "/deliveries/retry?state=dead&project=default",
        "endpoints": "/endpoints",
        "endpoint": f"/endpoints/{good}",
        "endpoint-new": "/endpoints/new",
        "endpoint-edit": f"/endpoints/{bad}/edit",
        "recover": f"/endpoints/{bad}/recover?{since}&missing=true",
        "jobs": "/jobs",
        "job": f"/jobs/{job}",
        "audit": "/audit",
        "tokens": "/tokens",
        "settings": "/settings",
        "health": "/health",
    }


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_nothing_keeps_anybody_out_and_everything_fits(
    stage: Stage,
    sink: Sink,
    browser: Browser,
    axe_core: str,
    width: int,
    scheme: str,
    tmp_path: Path,
) -> None:
    with window(stage, browser, width, color_scheme=scheme) as desk:
        desk.log_in()
        for name, path in pages(stage, sink).items():
            assert desk.open(path).status == 200, path
            assert barriers(desk, axe_core) == [], path
            assert desk.overflow() == 0, path
            assert kept(desk, f"{name}-{scheme}", tmp_path).stat().st_size > 10_000
            desk.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
            assert desk.overflow() == 0, f"{path} with all unfolded"
