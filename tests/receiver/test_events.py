"""The messages for downstream, to the letter of the contract."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver import ids
from receiver.events import (
    OPERATIONAL,
    TYPES,
    Announcement,
    announce,
    announce_disabled,
    announce_exhausted,
    announce_overdue,
    announce_test,
)
from receiver.platforms.reading import dollars, dumps
from receiver.tasks import TaskState, absorb, give_up
from receiver.tokens import Source
from tests.doubles import START
from tests.make import TASK, failure, items_of, success, task, uuid

NOW = START + 120


def tell(state: TaskState, *items: dict[str, Any], now: int = NOW) -> list[Announcement]:
    changes = absorb(state, items_of(*items), source=Source.CALLBACK, now=now)
    for number, result in enumerate(changes.new, 1):
        result.id = number
    return announce(state, changes, now)


def read(announcement: Announcement) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(announcement.payload)
    assert found["type"] == announcement.type
    return found


def test_a_success_is_told_as_the_contract_shows_it() -> None:
    state = task(4, model="pixverse:1@6", tags='{"projectId":"proj_789"}', metadata='{"a":[1]}')
    (told,) = tell(state, success())
    assert read(told) == {
        "type": "result.succeeded",
        "timestamp": "2026-09-21T14:13:20.120Z",
        "data": {
            "task": {
                "id": TASK,
                "platform": "runware",
                "model": "pixverse:1@6",
                "project": "default",
                "status": "partial",
                "expected": 4,
                "succeeded": 1,
                "failed": 0,
                "cost": 0.4715,
                "tags": {"projectId": "proj_789"},
                "metadata": {"a": [1]},
            },
            "result": {
                "id": ids.RESULT + ids.encode(1),
                "index": 0,
                "kind": "succeeded",
                "media": [
                    {
                        "kind": "video",
                        "id": uuid(1),
                        "url": success()["videoURL"],
                        "expires_at": None,
                    }
                ],
                "seed": 44_372,
                "cost": 0.4715,
                "nsfw": None,
                "raw": success(),
            },
        },
    }


def test_a_failure_is_told_with_its_error() -> None:
    (told,) = tell(task(2), failure("timeoutProvider", message="Too late."))
    result = read(told)["data"]["result"]
    assert told.type == "result.failed"
    assert result["error"] == {
        "code": "timeoutProvider",
        "category": "timeout",
        "message": "Too late.",
        "retryable": True,
    }
    assert (result["media"], result["raw"]["code"]) == ([], "timeoutProvider")


def test_a_completed_task_is_told_last_with_all_its_results_and_without_raw() -> None:
    state = task(2)
    tell(state, success(2))
    told = tell(state, success(1))
    assert [one.type for one in told] == ["result.succeeded", "task.completed"]
    data = read(told[-1])["data"]
    assert (data["task"]["status"], data["task"]["succeeded"]) == ("succeeded", 2)
    assert [result["index"] for result in data["results"]] == [0, 1]
    assert [result["media"][0]["id"] for result in data["results"]] == [uuid(2), uuid(1)]
    assert all("raw" not in result for result in data["results"])


def test_a_late_result_is_marked_and_revises_without_the_placeholder_it_replaces() -> None:
    state = task(1)
    give_up(state, NOW)
    told = tell(state, success())
    assert [one.type for one in told] == ["result.succeeded", "task.revised"]
    assert read(told[0])["data"]["result"]["late"] is True
    results = read(told[1])["data"]["results"]
    assert [result["media"][0]["id"] for result in results] == [uuid(1)]


def test_what_changes_nothing_is_not_told() -> None:
    state = task(2)
    tell(state, success())
    assert tell(state, success()) == []
    assert tell(state, success(seed=1)) == []


def test_an_overdue_task_is_told_with_the_task_alone() -> None:
    told = announce_overdue(task(2, overdue=True), NOW)
    assert told.type == "task.overdue"
    assert list(read(told)["data"]) == ["task"]


def test_every_type_that_is_told_is_a_known_one() -> None:
    state = task(1)
    told = [*tell(state, success()), *tell(state, failure()), announce_overdue(state, NOW)]
    about = {"id": "ep_1", "state": "disabled"}
    operational = [
        announce_test("ep_1", "default", "", NOW),
        announce_disabled(about, NOW),
        announce_exhausted(None, about, {"id": "dlv_1"}, NOW),
    ]
    assert {one.type for one in operational} == OPERATIONAL
    assert {one.type for one in (*told, *operational)} == set(TYPES)


@pytest.mark.parametrize(("micros", "shown"), [(None, None), (0, 0.0), (471_500, 0.4715)])
def test_money_is_shown_in_dollars(micros: int | None, shown: float | None) -> None:
    assert dollars(micros) == shown


@given(st.text(st.characters(exclude_categories=())), st.integers(0, 2**200))
def test_a_payload_is_json_in_utf8_whatever_the_platform_sends(text: str, seed: int) -> None:
    metadata = dumps({text: text})
    state = task(1, model="m\x00ä", metadata=metadata)
    told = tell(state, success(seed=seed, note=text), failure(message=text))
    for announcement in told:
        assert b"\x00" not in announcement.payload
        data = read(announcement)["data"]
        assert data["task"]["metadata"] == {text: text}
    raw = read(told[0])["data"]["result"]["raw"]
    assert (raw["note"], raw["seed"]) == (text, seed)
