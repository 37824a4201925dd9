"""Repair as an operator does it: with commands, at a receiver that is served, and killed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from receiver.settings import write_local
from tests.doubles import ADMIN_TOKEN, LIMIT_S, Running, running
from tests.make import success, uuid, wrapped
from tests.receiver.shell import Said, reelhook
from tests.receiver.test_cli import FAILED, NOT_FOUND, OK, TIMED_OUT, USAGE
from tests.receiver.test_upkeep import typed

pytestmark = pytest.mark.process

ENVIRON = {"REELHOOK_DELIVERY_SCHEDULE": "0", "REELHOOK_ALLOW_NETWORKS": "127.0.0.0/8"}


@dataclass
class Downstream:
    """An application that is down, until it is not."""

    url: str = ""
    status: int = 500
    got: Counter[str] = field(default_factory=Counter)  # webhook-ids that were answered with 204

    def answer(self, request: Request) -> Response:
        if self.status == 204:
            self.got[request.headers["webhook-id"]] += 1
        return Response(status=self.status)


@pytest.fixture
def downstream(httpserver: HTTPServer) -> Downstream:
    found = Downstream(f"http://127.0.0.1:{httpserver.port}/hook")
    httpserver.expect_request("/hook").respond_with_handler(found.answer)
    return found


@dataclass
class Operator:
    """Somebody with the commands and the API of one receiver."""

    served: Running

    def ask(self, *arguments: str) -> Said:
        return reelhook(
            self.served.folder,
            *arguments,
            REELHOOK_URL=self.served.ready["url"],
            REELHOOK_ADMIN_TOKEN=ADMIN_TOKEN,
        )

    def api(self, method: str, path: str, **body: Any) -> Any:
        response = httpx.request(
            method,
            f"{self.served.ready['url']}{path}",
            json=body or None,
            headers={"authorization": f"Bearer {ADMIN_TOKEN}"},
        )
        assert response.is_success, response.text
        return response.json()

    def dead(self) -> int:
        return sum(one["count"] for one in self.api("GET", "/v1/deliveries/dead")["data"])

    def told(self, url: str, count: int, **spec: Any) -> dict[str, Any]:
        """An endpoint to which so many results were told in vain."""
        added: dict[str, Any] = self.api(
            "POST", "/v1/endpoints", url=url, event_types=["result.*"], **spec
        )
        task = self.api("PUT", f"/v1/tasks/{uuid(1)}", platform="runware", expected=count)
        items = [success(number, task["id"]) for number in range(count)]
        _, _, query = task["webhook_url"].partition("?")
        posted = httpx.post(
            f"{self.served.ready['url']}/webhooks/runware?{query}", content=wrapped(*items)
        )
        assert posted.status_code == 200
        until(lambda: self.dead() == count)
        return added


def until(condition: Callable[[], object]) -> None:
    """Let another process go on until something holds."""
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Operator]:
    with running(tmp_path, **ENVIRON) as served:
        yield Operator(served)


def test_an_operator_repairs_an_outage(operator: Operator, downstream: Downstream) -> None:
    ask = operator.ask
    added = operator.told(downstream.url, 4)
    (group,) = ask("deliveries", "dead", "--since", "1h", "--json").json
    assert (group["count"], group["error"], group["status"]) == (4, "status", 500)
    assert "500" in ask("deliveries", "dead").out
    listed = ask("deliveries", "list", "--last-status", "500").out
    assert (listed.count("status 500"), listed.count(added["id"])) == (4, 4)
    assert ask("deliveries", "list", "--last-error", "dns", "--json").out == ""
    assert ask("deliveries", "dead", "--until", "1h", "--json").out == ""
    assert ask("deliveries", "dead", "--project", "default", "--json").json == [group]
    assert ask("deliveries", "dead", "--project", "film", "--json").out == ""
    wrong = ask("deliveries", "dead", "--since", "soon")
    assert (wrong.code, "since" in wrong.err) == (USAGE, True)

    failed = ask("endpoints", "test", added["id"])
    assert failed.code == FAILED
    assert "status 500" in failed.err
    downstream.status = 204
    tried = ask("endpoints", "test", added["id"], "--json")
    assert tried.code == OK
    assert tried.json[0]["attempt_log"][0]["status"] == 204
    downstream.got.clear()

    by_endpoint = ("deliveries", "retry", "--state", "dead", "--endpoint", added["id"])
    only = ("--event-type", "result.succeeded", "--last-error", "status", "--last-status", "500")
    counted = ask(*by_endpoint, *only, "--since", "2h", "--dry-run", "--json").json
    assert counted == [{"dry_run": True, "count": 4, "complete": True}]
    assert ask(*by_endpoint, "--project", "film", "--dry-run", "--json").json[0]["count"] == 0
    begun = ask(*by_endpoint, *only, "--limit", "3")  # no terminal, so nobody is asked
    assert (begun.code, "jobs show job_" in begun.err) == (OK, True)
    until(lambda: len(downstream.got) == 3)
    (job,) = ask("jobs", "list", "--json").json
    assert ask("jobs", "list", "--project", "film", "--json").out == ""
    until(lambda: operator.api("GET", f"/v1/jobs/{job['id']}")["state"] == "done")
    (shown,) = ask("jobs", "show", job["id"], "--json").json
    assert (shown["done"], shown["total"]) == (3, 3)
    assert ask("jobs", "cancel", job["id"]).code == FAILED
    assert ask("jobs", "show", "job_0000000000001").code == NOT_FOUND

    recovered = ask("endpoints", "recover", added["id"], "--since", "2h", "--yes", "--json").json
    assert recovered[0]["total"] == 2  # the fourth, and the test that failed
    until(lambda: len(downstream.got) == 5)
    nothing = ask("deliveries", "retry", "--state", "canceled")
    assert (nothing.code, nothing.err) == (OK, "There is nothing to send.\n")

    results = ask("events", "list", "--type", "result.succeeded", "--json").json
    replayed = ask("events", "replay", results[0]["id"], "--endpoint", added["id"], "--json").json
    assert (replayed[0]["retried"], replayed[0]["created"]) == (1, 0)
    until(lambda: downstream.got[results[0]["id"]] == 2)

    assert ask("endpoints", "remove", added["id"]).code == OK
    unwanted = ask("events", "replay", results[0]["id"])
    assert (unwanted.code, unwanted.out) == (OK, "")
    assert "No endpoint wants it" in unwanted.err
    assert "reelhook endpoints add" in unwanted.err


def test_what_sends_in_bulk_asks_first_at_a_terminal(
    operator: Operator, downstream: Downstream
) -> None:
    added = operator.told(downstream.url, 2)
    asked = ("endpoints", "recover", added["id"], "--since", "2h", "--missing")
    local = {"url": operator.served.ready["url"], "admin_token": ADMIN_TOKEN}
    write_local(operator.served.folder / "data", **local)
    refused = typed(operator.served.folder, "n\n", *asked)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "Send 2 deliveries again?" in refused.stderr
    assert operator.api("GET", "/v1/jobs")["data"] == []
    downstream.status = 204
    agreed = typed(operator.served.folder, "y\n", *asked, "--json")
    assert agreed.returncode == OK, agreed.stderr
    until(lambda: len(downstream.got) == 2)


def test_commands_that_make_no_sense_are_usage_errors(operator: Operator) -> None:
    ask = operator.ask
    assert ask("deliveries", "retry").code == USAGE
    assert ask("deliveries", "retry", "dlv_x", "--state", "dead").code == USAGE
    assert ask("deliveries", "retry", "--state", "pending").code == USAGE
    assert ask("deliveries", "retry", "--state", "dead", "--since", "999999d").code == USAGE
    assert ask("endpoints", "recover", "ep_x", "--since", "soon").code == USAGE
    assert ask("endpoints", "recover", "ep_0000000000001", "--since", "2h").code == NOT_FOUND
    added = operator.api("POST", "/v1/endpoints", url="http://127.0.0.1:9/hook", rate_limit=0.01)
    operator.api("POST", f"/v1/endpoints/{added['id']}/test")  # takes what may go out in a minute
    until(lambda: operator.api("GET", "/v1/deliveries?state=dead")["data"])
    assert ask("endpoints", "test", added["id"], "--wait", "0.1").code == TIMED_OUT
    assert ask("endpoints", "test", added["id"], "--wait", "0").code == OK
    assert ask("endpoints", "remove", added["id"]).code == OK
    left = ask("deliveries", "dead")
    assert (added["id"] in left.out, "can't be sent again" in left.err) == (True, True)


def test_a_job_survives_sigkill(tmp_path: Path, downstream: Downstream) -> None:
    """Each delivery that it was asked for is sent again, and counted once."""
    with running(tmp_path, **ENVIRON) as served:
        operator = Operator(served)
        operator.told(downstream.url, 24, concurrency=1)  # a job rests long after a slow step
        downstream.status = 204
        job = operator.api("POST", "/v1/deliveries/retry", dry_run=False)
        until(lambda: len(downstream.got) >= 5)
        served.process.kill()
        served.process.wait(LIMIT_S)
    with running(tmp_path, **ENVIRON) as served:
        operator = Operator(served)
        until(lambda: operator.api("GET", f"/v1/jobs/{job['id']}")["state"] == "done")
        until(lambda: not operator.api("GET", "/v1/deliveries?state=pending")["data"])
        shown = operator.api("GET", f"/v1/jobs/{job['id']}")
        succeeded = operator.api("GET", "/v1/deliveries?state=succeeded&limit=200")["data"]
        attempts = {one["event_id"]: one["attempts"] for one in succeeded}
        assert (shown["done"], shown["total"], operator.dead()) == (24, 24, 0)
        assert set(downstream.got) == set(attempts)
        assert len(attempts) == 24
        # Only what was under way at the kill may have come twice, as an attempt of its own.
        assert sum(times - 1 for times in downstream.got.values()) <= 1
        assert 48 <= sum(attempts.values()) <= 49
