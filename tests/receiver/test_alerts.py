"""What the receiver says about itself: to the log, and to a URL."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from receiver.alerts import LONGEST_PAUSE, PAUSES, Alerts
from receiver.clock import SECOND
from receiver.deliveries import Failure, Outcome
from receiver.delivery.guard import Guard
from receiver.errors import SettingsRefused
from receiver.serve import check_alert_url
from receiver.store.protocol import Alert
from receiver.store.sqlite import SqliteStore
from tests.doubles import LIMIT_S, FakeClock, ScriptedSender, assembled, consuming, sent
from tests.receiver.store.operations_suite import SECRET_URL, exhaust
from tests.receiver.store.suite import queued

URL = "https://chat.example.com/services/T0/hunter2"

pytestmark = pytest.mark.anyio


@dataclass
class Told:
    """What was written into the log."""

    payloads: list[Mapping[str, Any]] = field(default_factory=list)
    given_up: list[tuple[int, Outcome]] = field(default_factory=list)

    def tell(self, payload: Mapping[str, Any]) -> None:
        self.payloads.append(payload)

    def give_up(self, alerts: Sequence[Alert], outcome: Outcome) -> None:
        self.given_up.append((len(alerts), outcome))


@dataclass
class Bench:
    """Alerts that only move when told."""

    store: SqliteStore
    clock: FakeClock
    sender: ScriptedSender = field(default_factory=ScriptedSender)
    told: Told = field(default_factory=Told)

    def alerts(self, url: str = URL) -> Alerts:
        return Alerts(self.store, self.sender, url, clock=self.clock, journal=self.told)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    clock = FakeClock()
    async with await SqliteStore.open(tmp_path / "db", clock=clock) as store:
        yield Bench(store, clock)


async def test_where_all_is_well_nothing_is_said(bench: Bench) -> None:
    assert await bench.alerts().tick() == 0
    assert (bench.sender.calls, bench.told.payloads) == ([], [])


async def test_each_event_is_posted_once_with_words_for_a_chat(bench: Bench) -> None:
    await queued(bench.store, url=SECRET_URL)
    await exhaust(bench.store, outcome=sent(410), disable="gone")
    alerts = bench.alerts()
    assert await alerts.tick() == 2
    assert await alerts.tick() == 0
    (url, first, headers), (_, second, _) = bench.sender.calls
    found = [json.loads(first), json.loads(second)]
    assert (url, headers["content-type"]) == (URL, "application/json")
    assert headers["webhook-id"].startswith("evt_")
    assert sorted(one["type"] for one in found) == ["delivery.exhausted", "endpoint.disabled"]
    disabled, exhausted = sorted(found, key=lambda one: str(one["type"]), reverse=True)
    assert "disabled endpoint ep_" in disabled["text"]
    assert "(hooks.example.com, project default): gone." in disabled["text"]
    assert "after 1 attempts: status 410." in exhausted["text"]
    assert "task" not in exhausted["data"]  # a consumer's own; its id is there
    assert exhausted["data"]["delivery"]["task_id"]
    assert b"hunter2" not in first + second
    assert len(bench.told.payloads) == 2


async def test_without_a_url_the_log_alone_has_it(bench: Bench) -> None:
    await queued(bench.store)
    await exhaust(bench.store, outcome=sent(None, Failure.DNS))
    assert await bench.alerts("").tick() == 1
    assert bench.sender.calls == []
    assert [one["type"] for one in bench.told.payloads] == ["delivery.exhausted"]
    assert await bench.store.alerts(9) == []


async def test_a_failed_alert_is_tried_again_and_given_up_in_the_end(bench: Bench) -> None:
    bench.sender.outcomes = [sent(500)]
    await queued(bench.store, 3)
    await exhaust(bench.store)
    alerts = bench.alerts()
    for number, pause in enumerate(PAUSES, 1):
        assert await alerts.tick() == 0
        assert len(bench.sender.calls) == number
        bench.clock.advance(pause * SECOND - 1)
        assert await alerts.tick() == 0
        assert len(bench.sender.calls) == number  # not before its time
        bench.clock.advance(1)
    assert bench.told.given_up == []
    assert await alerts.tick() == 3
    assert [count for count, _ in bench.told.given_up] == [3]
    assert len({call[2]["webhook-id"] for call in bench.sender.calls}) == 1
    assert len(bench.told.payloads) == 3  # each had its line once
    assert await bench.store.alerts(9) == []


async def test_a_success_in_between_begins_the_tries_anew(bench: Bench) -> None:
    bench.sender.outcomes = [sent(500), sent(200), sent(500), sent(200), sent(200)]
    await queued(bench.store, 3)
    await exhaust(bench.store)
    alerts = bench.alerts()
    dealt = []
    for _ in range(3):
        dealt.append(await alerts.tick())
        bench.clock.advance(PAUSES[0] * SECOND)
    assert dealt == [0, 1, 2]
    assert bench.told.given_up == []


@pytest.mark.parametrize(
    ("retry_after", "seconds"), [("1", PAUSES[0]), ("60", 60), ("86400", LONGEST_PAUSE), ("x", 5)]
)
async def test_a_chat_that_has_too_much_says_when_it_goes_on(
    bench: Bench, retry_after: str, seconds: int
) -> None:
    asked = Outcome(429, Failure.STATUS, "Too many.", 1, retry_after=retry_after)
    bench.sender.outcomes = [asked, sent(200)]
    await queued(bench.store)
    await exhaust(bench.store)
    alerts = bench.alerts()
    assert await alerts.tick() == 0
    bench.clock.advance(seconds * SECOND - 1)
    assert await alerts.tick() == 0
    bench.clock.advance(1)
    assert await alerts.tick() == 1


async def test_what_was_not_told_before_a_restart_is_told_after_it(bench: Bench) -> None:
    bench.sender.outcomes = [sent(500), sent(200)]
    await queued(bench.store)
    await exhaust(bench.store)
    assert await bench.alerts().tick() == 0
    assert await bench.alerts().tick() == 1


async def test_a_receiver_posts_its_alerts_through_guard_and_sender(tmp_path: Path) -> None:
    async with consuming() as chat, asyncio.timeout(LIMIT_S):
        url = f"{chat.url}/hunter2"
        async with assembled(
            tmp_path, REELHOOK_ALERT_URL=url, REELHOOK_ALLOW_NETWORKS="127.0.0.0/8"
        ) as receiver:
            added = await queued(receiver.store, url=SECRET_URL)
            await exhaust(receiver.store, outcome=sent(410), disable="gone")
            assert await receiver.service.alerts.tick() == 2
            heard = [await chat.heard.get(), await chat.heard.get()]
        assert all(json.loads(one.body)["text"].startswith("Reelhook ") for one in heard)
        lines = [one for one in receiver.log if one["log_level"] == "error"]
        (disabled,) = [one for one in lines if one["event"] == "endpoint disabled"]
        (dead,) = [one for one in lines if one["event"] == "delivery exhausted"]
        assert (disabled["endpoint"], disabled["reason"]) == (added.id, "gone")
        assert (dead["last_status"], dead["event_type"]) == (410, "result.succeeded")
        assert "hunter2" not in str(receiver.log)


async def test_an_alert_that_leads_into_a_private_network_is_blocked_and_said(
    tmp_path: Path,
) -> None:
    async with consuming() as canary:
        async with assembled(tmp_path, REELHOOK_ALERT_URL=canary.url) as receiver:
            await queued(receiver.store)
            await exhaust(receiver.store)
            for pause in (*PAUSES, 0):
                await receiver.service.alerts.tick()
                receiver.clock.advance(pause * SECOND)
            (line,) = [one for one in receiver.log if "not sent" in one["event"]]
            assert (line["failure"], line["count"]) == ("blocked_address", 1)
            assert canary.url not in str(receiver.log)
        assert canary.heard.empty()


@pytest.mark.parametrize(
    "url", ["http://chat.example.com/x", "https://127.0.0.1/x", "chat", "https://10.1.2.3/hunter2"]
)
def test_a_url_that_no_alert_could_be_sent_to_keeps_the_receiver_from_starting(url: str) -> None:
    with pytest.raises(SettingsRefused, match="REELHOOK_ALERT_URL") as caught:
        check_alert_url(Guard([]), url)
    assert "hunter2" not in str(caught.value)


def test_a_url_that_can_be_sent_to_lets_it_start() -> None:
    check_alert_url(Guard([]), "")
    check_alert_url(Guard([]), URL)
    check_alert_url(Guard([ip_network("10.0.0.0/8")]), "http://10.1.2.3/x")
