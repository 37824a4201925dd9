"""Open pages and a receiver that stops: nobody waits for the other. A real process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.doubles import ADMIN_TOKEN, LIMIT_S, running

pytestmark = pytest.mark.process

GRACE = "60"  # seconds; a stop that waited for a page would last longer than a test may


def words(response: httpx.Response) -> Iterator[str]:
    """What an open page hears."""
    return (
        line.removeprefix("data: ") for line in response.iter_lines() if line.startswith("data")
    )


def test_a_stop_ends_what_open_pages_listen_to(tmp_path: Path) -> None:
    with running(tmp_path, REELHOOK_GRACE=GRACE) as receiver:
        with httpx.Client(base_url=receiver.ready["url"], timeout=LIMIT_S) as browser:
            answer = browser.post("/login", data={"token": ADMIN_TOKEN})
            assert answer.status_code == 303
            with browser.stream("GET", "/live") as one, browser.stream("GET", "/live") as other:
                heard, also_heard = words(one), words(other)
                assert next(heard) == next(also_heard) == "hello"
                headers = {"authorization": f"Bearer {ADMIN_TOKEN}"}
                task = "/v1/tasks/24cd5dff-cb81-4db5-8506-b72a9425f9d1"
                browser.put(task, json={"platform": "runware"}, headers=headers).raise_for_status()
                assert next(heard) == next(also_heard) == "change"
                receiver.process.terminate()
                assert {*heard, *also_heard} <= {"change"}  # and no error: they came to their end
        assert receiver.process.wait(LIMIT_S) == 0
