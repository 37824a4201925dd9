"""`reelhook trigger`: events on demand, through the wire format of a platform."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from receiver.client import Client, Event
from receiver.platforms import runware
from scripts.proofs.ports import held_port
from submitter import trigger
from submitter.cli.triggering import _as_line
from submitter.trigger import (
    COMPLETED,
    FAILED,
    OVERDUE,
    REVISED,
    SUCCEEDED,
    DoorShut,
    NothingCame,
    Trigger,
    bodies,
)
from tests.doubles import ADMIN_TOKEN, Running, running
from tests.submitter.shell import Shell
from tests.submitter.stage import RECEIVER, command_environment

TASK = "24cd5dff-cb81-4db5-8506-b72a9425f9d1"


def items(asked: Trigger, dice: int = 0) -> list[dict[str, Any]]:
    """What the callbacks say."""
    found: list[dict[str, Any]] = []
    for body in bodies(asked, TASK, Random(dice)):
        text = json.loads(body)
        assert runware.parse(text, TASK)
        found += [*text.get("data", ()), *text.get("errors", ())]
    return found


# What is sent


def test_a_callback_is_one_of_the_platform() -> None:
    (item,) = items(Trigger(SUCCEEDED))
    assert (item["taskUUID"], item["taskType"]) == (TASK, "videoInference")
    assert item["videoURL"].startswith("http://127.0.0.1:8100/video/")
    assert item["cost"] > 0
    (fault,) = items(Trigger(FAILED))
    assert fault["code"] == "timeoutProvider"


@pytest.mark.parametrize(
    ("asked", "sent", "distinct"),
    [
        (Trigger(SUCCEEDED, results=3), 3, 3),
        (Trigger(COMPLETED, results=3, duplicate=True), 6, 3),
        (Trigger(REVISED, results=2), 3, 3),
        (Trigger(OVERDUE, results=2), 0, 0),
    ],
)
def test_as_many_are_sent_as_the_event_needs(asked: Trigger, sent: int, distinct: int) -> None:
    found = Counter(item["videoUUID"] for item in items(asked))
    assert (found.total(), len(found)) == (sent, distinct)


def test_shuffled_they_come_in_another_order_and_none_is_lost() -> None:
    asked = Trigger(SUCCEEDED, results=9, duplicate=True)
    plain = bodies(asked, TASK, Random(1))
    shuffled = bodies(Trigger(SUCCEEDED, results=9, duplicate=True, shuffle=True), TASK, Random(1))
    assert shuffled != plain
    assert sorted(shuffled) == sorted(plain)


def test_what_is_overridden_stands_in_every_item() -> None:
    overrides = {"cost": 0.1, "seed": None, "a.b": [1], "a.c": "x", "videoURL.no": True}
    for item in items(Trigger(SUCCEEDED, results=2, overrides=overrides)):
        assert (item["cost"], item["seed"]) == (0.1, None)
        assert item["a"] == {"b": [1], "c": "x"}
        assert item["videoURL"] == {"no": True}
    (fault,) = items(Trigger(FAILED, overrides={"code": "contentPolicy"}))
    assert fault["code"] == "contentPolicy"


# The command


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("receiver"), **RECEIVER) as found:
        yield found


@pytest.fixture(scope="module")
def shell(receiver: Running, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A shell that finds the receiver, and no platform's key."""
    folder = tmp_path_factory.mktemp("home")
    environ = command_environment(receiver.ready["url"], "http://127.0.0.1:1")
    del environ["RUNWARE_API_KEY"]
    return Shell({**environ, "REELHOOK_DATA_DIR": str(folder)})


def ask(receiver: Running, path: str) -> Any:
    headers = {"authorization": f"Bearer {ADMIN_TOKEN}"}
    found = httpx.get(f"{receiver.ready['url']}{path}", headers=headers)
    found.raise_for_status()
    return found.json()


def told(documents: list[Any], kind: str) -> list[Any]:
    return [one for one in documents if one["event"] == kind]


@pytest.mark.process
def test_results_come_twice_in_any_order_and_are_told_once(shell: Shell, receiver: Running) -> None:
    flags = ("-n", "3", "--duplicate", "--shuffle", "--delay", "10ms", "--tag", "team=film")
    ended = shell("trigger", SUCCEEDED, *flags, "--override", "cost=0.25", "--json")
    assert ended.code == 0, ended.err
    callbacks, events = told(ended.documents, "callback"), told(ended.documents, "event")
    assert [(one["number"], one["total"], one["status"]) for one in callbacks] == [
        (number, 6, 200) for number in range(1, 7)
    ]
    assert [one["type"] for one in events] == [SUCCEEDED] * 3 + [COMPLETED]
    task = ask(receiver, f"/v1/tasks/{events[0]['task']}")
    assert (task["status"], task["cost"], task["model"]) == ("succeeded", 0.75, trigger.MODEL)
    assert task["tags"] == {"team": "film", "trigger": task["id"]}


@pytest.mark.process
@pytest.mark.parametrize("event_type", [FAILED, COMPLETED, REVISED, OVERDUE])
def test_every_event_of_a_task_can_be_had(shell: Shell, receiver: Running, event_type: str) -> None:
    ended = shell("trigger", event_type, "--json", "--project", "film")
    assert ended.code == 0, ended.err
    events = told(ended.documents, "event")
    assert event_type in [one["type"] for one in events]
    assert ask(receiver, f"/v1/tasks/{events[0]['task']}")["project"] == "film"


@pytest.mark.process
def test_a_person_reads_lines(shell: Shell) -> None:
    ended = shell("trigger", SUCCEEDED, "--override", "note=a word")
    assert ended.code == 0
    first, second, third = ended.out.splitlines()
    assert first[19:] == "  <--  callback 1 of 1 [200]"
    assert second[19:].startswith("   --> result.succeeded [evt_")
    assert third[19:].startswith("   --> task.completed [evt_")
    assert "reelhook tasks show" in ended.err


@pytest.mark.process
def test_a_receiver_that_may_not_deliver_here_is_told_how_to(tmp_path: Path) -> None:
    strict = {**RECEIVER, "REELHOOK_ALLOW_NETWORKS": ""}
    with running(tmp_path, **strict) as receiver:
        environ = command_environment(receiver.ready["url"], "http://127.0.0.1:1")
        ended = Shell(environ)("trigger", SUCCEEDED, "--status", "503")
    assert (ended.code, ended.out) == (1, "")
    assert "start it on this machine with REELHOOK_ALLOW_NETWORKS=127.0.0.0/8" in ended.err


def test_an_event_has_the_time_at_which_it_was_told(capsys: pytest.CaptureFixture[str]) -> None:
    """With a delay between callbacks it is read back long after it happened."""
    at = datetime(2026, 11, 28, 7, 55, 47).astimezone()
    given = {"id": "evt_1", "seq": 1, "type": SUCCEEDED, "task_id": None, "project": "default"}
    _as_line(Event.model_validate({**given, "created_at": at.astimezone(UTC)}))
    said = "2026-11-28 07:55:47   --> result.succeeded [evt_1]\n"
    assert capsys.readouterr().out == said


@pytest.mark.process
def test_a_consumer_that_fails_at_first_shows_how_it_is_tried_again(
    shell: Shell, receiver: Running
) -> None:
    ended = shell("trigger", SUCCEEDED, "--status", "503,500", "--status", "204", "--json")
    assert ended.code == 0, ended.err
    attempts = told(ended.documents, "attempt")
    assert [(one["number"], one["status"]) for one in attempts] == [(1, 503), (2, 500), (3, 204)]
    assert attempts[-1]["state"] == "succeeded"
    assert ask(receiver, "/v1/endpoints")["data"] == []
    line = shell("trigger", COMPLETED, "--status", "418").out.splitlines()[-1]
    assert "  ==> attempt 1: 418, dead [dlv_" in line


@pytest.mark.process
def test_a_consumer_that_is_gone_has_its_endpoint_disabled(shell: Shell, receiver: Running) -> None:
    ended = shell("trigger", SUCCEEDED, "--status", "410", "--json")
    assert ended.code == 0, ended.err
    assert [one["status"] for one in told(ended.documents, "attempt")] == [410]
    newest = ask(receiver, "/v1/events?event_type=endpoint.disabled")["data"]
    assert len(newest) == 1


@pytest.mark.process
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("result.gone",), "there are result.succeeded"),
        (("endpoint.test",), "reelhook endpoints test"),
        (("delivery.exhausted",), "--status 503"),
        ((SUCCEEDED, "--delay", "soon"), "--delay as 2s"),
        ((SUCCEEDED, "--status", "99"), "--status as HTTP statuses"),
        ((SUCCEEDED, "--override", "cost"), "--override as name=value"),
        ((SUCCEEDED, "--tag", "x"), "key=value"),
    ],
)
def test_what_can_not_be_asked_is_usage(
    shell: Shell, arguments: tuple[str, ...], said: str
) -> None:
    ended = shell("trigger", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err


@pytest.mark.process
def test_an_item_of_another_task_meets_a_shut_door(shell: Shell) -> None:
    ended = shell("trigger", SUCCEEDED, "--override", f"taskUUID={TASK}")
    assert (ended.code, ended.out) == (1, "")
    assert "answered a callback with 403" in ended.err


@pytest.mark.process
def test_without_a_receiver_it_says_so(shell: Shell) -> None:
    url = f"http://127.0.0.1:{held_port()}"
    assert shell("trigger", SUCCEEDED, REELHOOK_URL=url).code == 3
    assert shell("trigger", SUCCEEDED, REELHOOK_ADMIN_TOKEN="wrong").code == 4


@pytest.mark.anyio
async def test_what_does_not_follow_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trigger, "PATIENCE", 0.05)
    nothing = httpx.Response(200, json={"data": [], "next_cursor": None})
    transport = httpx.MockTransport(lambda _request: nothing)
    async with Client("http://receiver", "token", transport=transport) as ledger:
        with pytest.raises(NothingCame) as refused:
            await trigger._followed(Trigger(SUCCEEDED), ledger, TASK)
    assert f"reelhook tasks show {TASK}" in str(refused.value)


@pytest.mark.anyio
async def test_a_door_that_does_not_answer_is_named_without_its_token() -> None:
    url = f"http://127.0.0.1:{held_port()}"
    hook = f"https://hooks.example.com/webhooks/runware?sig={'s' * 40}"
    with pytest.raises(DoorShut) as refused:
        await trigger._call_back(Trigger(SUCCEEDED), url, hook, [b"{}"], lambda _news: None)
    assert "sig" not in str(refused.value)
    assert url in str(refused.value)
