"""A real browser before the real service: Debian's Chromium, a receiver and a simulator, each a
process of its own.

Playwright's own loop runs in this thread while it is open, so a module of these tests has no test
that is a coroutine, and closes it at its end.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import httpx
import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    Dialog,
    Page,
    Response,
    expect,
    sync_playwright,
)

from tests.doubles import ADMIN_TOKEN, LIMIT_S, ROOT, Running, running
from tests.submitter.stage import simulator_process

CHROMIUM: Final = os.environ.get("CHROMIUM", "/usr/bin/chromium")
# Colours are a scheme's, what fits is a width's: two of the four pairs show all there is to see.
VIEWS: Final = ((1280, "light"), (390, "dark"))
HEIGHT: Final = 860
PATIENCE: Final = LIMIT_S * 1000  # milliseconds
AXE: Final = "axe-core@4.14.1"
AXE_SHA256: Final = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"


expect.set_options(timeout=PATIENCE)


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser. It is Debian's, so none is downloaded."""
    if not Path(CHROMIUM).exists():
        pytest.skip("Chromium is not installed (Debian: chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"],
        )
        yield browser
        browser.close()


@dataclass(frozen=True)
class Stage:
    """A receiver with a simulator, and a client with the admin token."""

    receiver: Running
    simulator: str
    api: httpx.Client

    @property
    def url(self) -> str:
        """Where the dashboard is."""
        return str(self.receiver.ready["url"])

    def register(self, expected: int = 1, **fields: Any) -> tuple[str, str]:
        """A task of ours: its id and its webhookURL."""
        task = str(uuid4())
        body = {"platform": "runware", "expected": expected, **fields}
        answer = self.api.put(f"/v1/tasks/{task}", json=body)
        assert answer.status_code == 201, answer.text
        return task, answer.json()["webhook_url"]

    def call_back(self, webhook_url: str, *items: dict[str, Any] | bytes) -> None:
        """What a platform does, each item in a request of its own."""
        for item in items:
            content = item if isinstance(item, bytes) else json.dumps({"data": [item]}).encode()
            answer = httpx.post(webhook_url, content=content)
            assert answer.status_code == 200, answer.text

    def video(self, task: str, **more: Any) -> dict[str, Any]:
        """An item with a video that the simulator really serves."""
        video = str(uuid4())
        return {
            "taskType": "videoInference",
            "taskUUID": task,
            "status": "success",
            "videoUUID": video,
            "videoURL": f"{self.simulator}/video/{video}.mp4",
            "seed": 44_372,
            "cost": 0.4715,
            **more,
        }

    def link(self) -> str:
        """What `reelhook login` prints."""
        environment = {
            **os.environ,
            "REELHOOK_URL": self.url,
            "REELHOOK_ADMIN_TOKEN": ADMIN_TOKEN,
        }
        found = subprocess.run(
            [sys.executable, "-m", "receiver", "login"],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=LIMIT_S,
        )
        return found.stdout.strip()


@contextmanager
def staged(folder: Path, **environ: str) -> Iterator[Stage]:
    """Both processes until the end of the block."""
    headers = {"authorization": f"Bearer {ADMIN_TOKEN}"}
    environ = {"REELHOOK_ALLOW_NETWORKS": "127.0.0.0/8", **environ}
    with (
        running(folder, **environ) as receiver,
        simulator_process("--delay-s", "0.05", "--spread-s", "0") as simulator,
        httpx.Client(base_url=receiver.ready["url"], headers=headers) as api,
    ):
        yield Stage(receiver, simulator, api)


@dataclass
class Window:
    """One window of the browser; `problems` is what it complained of, which ought to be nothing."""

    stage: Stage
    context: BrowserContext
    page: Page
    problems: list[str] = field(default_factory=list)

    def log_in(self) -> None:
        """By a link, as people do."""
        self.page.goto(self.stage.link())
        self.page.get_by_role("button", name="Log in").click()
        self.page.wait_for_url(f"{self.stage.url}/")

    def open(self, path: str) -> Response:
        """A page of the dashboard."""
        response = self.page.goto(f"{self.stage.url}{path}")
        assert response is not None
        return response

    def until(self, condition: str, given: Any = None) -> None:
        """Wait until a function in the page says yes.

        Playwright's own `wait_for_function` evaluates a text within the page at its second look,
        and the pages' policy forbids that.
        """
        script = f"""given => new Promise(done => {{
          const look = () => ({condition})(given) ? done() : requestAnimationFrame(look);
          look();
        }})"""
        self.page.evaluate(script, given)

    def is_live(self) -> None:
        """Wait until the page hears of changes."""
        self.page.locator("[data-live-switch][data-state=live]").wait_for()

    def overflow(self) -> int:
        """The pixels by which the page is wider than its window."""
        script = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        return max(int(self.page.evaluate(script)), 0)


@contextmanager
def window(stage: Stage, browser: Browser, width: int = 1280, **options: Any) -> Iterator[Window]:
    """A window with cookies of its own. What it complained of fails the test."""
    options = {"viewport": {"width": width, "height": HEIGHT}, **options}
    context = browser.new_context(**options)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    found = Window(stage, context, page)

    def hear_dialog(dialog: Dialog) -> None:
        found.problems.append(f"dialog: {dialog.message}")
        dialog.accept()

    page.on("console", lambda said: found.problems.append(said.text))
    page.on("pageerror", lambda error: found.problems.append(str(error)))
    page.on("dialog", hear_dialog)
    try:
        yield found
        assert found.problems == []
    finally:
        context.close()


@contextmanager
def axe() -> Iterator[str]:
    """The source of axe-core; installed from the registry for this session, by npm's cache."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed (Debian: npm)")
    with tempfile.TemporaryDirectory(prefix="reelhook-axe-") as folder:
        flags = "--no-save --no-package-lock --no-audit --no-fund --ignore-scripts --prefer-offline"
        command = [npm, "install", *flags.split(), "--prefix", folder, AXE]
        try:
            subprocess.run(
                command, cwd=folder, capture_output=True, timeout=2 * LIMIT_S, check=True
            )
        except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
            pytest.skip(f"{AXE} can't be installed: {error}")
        source = Path(folder, "node_modules", "axe-core", "axe.min.js").read_bytes()
        assert hashlib.sha256(source).hexdigest() == AXE_SHA256
        yield source.decode()


def barriers(window: Window, axe: str) -> Sequence[str]:
    """What axe finds serious or critical on this page, one line each."""
    window.page.evaluate(axe)
    found = window.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{one['id']}: {one['help']}: {node['target']} {node['failureSummary']}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


def kept(window: Window, name: str, folder: Path) -> Path:
    """A screenshot of the whole page; in REELHOOK_SCREENSHOTS if that is set."""
    folder = Path(os.environ.get("REELHOOK_SCREENSHOTS", folder))
    size = window.page.viewport_size
    assert size is not None
    path = folder / f"{name}-{size['width']}.png"
    window.page.screenshot(path=path, full_page=True)
    return path
