"""The submitter's commands for many tasks and for every platform."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from scripts.proofs.ports import held_port
from tests.doubles import ADMIN_TOKEN, running
from tests.submitter.shell import Ended, Shell
from tests.submitter.stage import (
    API_KEY,
    MODEL,
    RECEIVER,
    a_key,
    command_environment,
    simulator_process,
)

pytestmark = pytest.mark.process

GOOD = {
    "model": MODEL,
    "positivePrompt": "a paper boat",
    "width": 1280,
    "height": 720,
    "duration": 5,
}
POLLED = {"model": "sora-2", "platform": "nanogpt", "prompt": "a paper boat", "seconds": "4"}
PNG = b"\x89PNG\r\n\x1a\n" + bytes(32)


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A shell in which a receiver and both platforms are found."""
    with (
        running(tmp_path_factory.mktemp("receiver"), **RECEIVER) as receiver,
        simulator_process("--delay-s", "0.05", "--spread-s", "0.05") as simulator,
    ):
        environ = {
            "REELHOOK_DATA_DIR": str(tmp_path_factory.mktemp("home")),
            "COLUMNS": "80",
            "NO_COLOR": "1",
            "NANOGPT_API_KEY": API_KEY,
            "NANOGPT_BASE_URL": f"{simulator}/api",
        }
        yield Shell(command_environment(receiver.ready["url"], simulator, **environ))


def lines(*tasks: Any) -> str:
    return "".join(f"{task if isinstance(task, str) else json.dumps(task)}\n" for task in tasks)


def kept(shell: Shell, task_id: str) -> dict[str, Any]:
    url = f"{shell.environ['REELHOOK_URL']}/v1/tasks/{task_id}"
    headers = {"authorization": f"Bearer {ADMIN_TOKEN}"}
    found: dict[str, Any] = httpx.get(url, headers=headers, trust_env=False).json()
    return found


def ids_of(ended: Ended) -> list[str]:
    return [str(UUID(line.split()[-1])) for line in ended.out.splitlines()]


def test_a_file_of_tasks_is_submitted(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "tasks.jsonl"
    named = str(uuid4())
    file.write_text(
        lines(
            {**GOOD, "tags": {"n": "1"}, "metadata": {"n": 1}, "numberResults": 2},
            "",
            {"model": MODEL, "parameters": {k: GOOD[k] for k in GOOD if k != "model"}},
            {**GOOD, "taskType": "videoInference", "taskUUID": named},
        )
    )
    ended = shell("submit", "--file", str(file), "--tag", "all=yes", "--tag", "n=0")
    assert (ended.code, ended.err) == (0, "")
    assert [line.split()[0] for line in ended.out.splitlines()] == ["1", "3", "4"]
    first, second, third = (kept(shell, task) for task in ids_of(ended))
    assert (first["tags"], first["metadata"], first["expected"]) == (
        {"all": "yes", "n": "1"},
        {"n": 1},
        2,
    )
    assert (second["tags"], second["expected"]) == ({"all": "yes", "n": "0"}, 1)
    assert third["id"] == named


def test_lines_of_both_platforms_are_watched_to_their_ends(shell: Shell) -> None:
    with simulator_process("--delay-s", "0.05", "--spread-s", "0.05") as simulator:
        here = {
            "RUNWARE_BASE_URL": f"{simulator}/v1",
            "NANOGPT_BASE_URL": f"{simulator}/api",
        }
        submitted = shell("submit", "--file", "-", stdin=lines(GOOD, POLLED), **here)
        assert submitted.code == 0, submitted.err
        ids = ids_of(submitted)
        for task in ids:
            asked = shell("tasks", "reconcile", task)
            assert asked.code == 0, asked.err
        told = shell("reconcile", "--once", "--json", **here)
        assert told.code == 0, told.err
        assert {found["task"] for found in told.documents} >= set(ids)
        again = shell("submit", "--resume", ids[1], "--watch", "--json", **here)
    assert again.code == 0, again.err
    assert [found.get("succeeded") for found in again.documents] == [None, None, 1]
    assert kept(shell, ids[1])["platform"] == "nanogpt"


def test_lines_are_told_as_json(shell: Shell) -> None:
    task = {**GOOD, "model": "simulator:partial@1", "numberResults": 2}
    ended = shell("submit", "--file", "-", "--watch", "--json", stdin=lines(GOOD, task))
    assert ended.code == 7, ended.err
    submitted = [found for found in ended.documents if "line" in found]
    assert [found["line"] for found in submitted] == [1, 2]
    results = [found for found in ended.documents if "index" in found]
    assert {found["task_id"] for found in results} == {found["task"] for found in submitted}
    ends = [found for found in ended.documents if "submit_state" in found]
    assert sorted(found["status"] for found in ends) == ["partially_failed", "succeeded"]
    assert "line 2: warning: model:" in ended.err


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("{", "JSON"),
        ("[1]", "JSON object"),
        ("[" * 10_000, "JSON"),
        ({"positivePrompt": "a boat"}, "model"),
        ({**GOOD, "platform": "elsewhere"}, "elsewhere"),
        ({**GOOD, "platform": 7}, "platform"),
        ({**GOOD, "tags": {"a": 1}}, "tags"),
        ({**GOOD, "metadata": []}, "metadata"),
        ({**GOOD, "idempotencyKey": 7}, "idempotencyKey"),
        ({**GOOD, "taskUUID": "7"}, "taskUUID"),
        ({**GOOD, "parameters": []}, "parameters"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_an_unreadable_line_is_named_and_nothing_is_sent(
    shell: Shell, line: Any, word: str
) -> None:
    nowhere = {"REELHOOK_URL": "http://127.0.0.1:9"}  # it isn't even asked
    ended = shell("submit", "--file", "-", stdin=lines(GOOD, line, GOOD), **nowhere)
    assert (ended.code, ended.out) == (2, "")
    said, *rest = ended.err.splitlines()
    assert said.startswith("line 2: ")
    assert word in said
    assert rest == ["Nothing was sent."]


def test_a_line_that_the_rules_refuse_stops_all(shell: Shell) -> None:
    wrong, too_many = {**GOOD, "duration": 7}, {**POLLED, "numberResults": 2}
    nowhere = {"REELHOOK_URL": "http://127.0.0.1:9"}
    ended = shell("submit", "--file", "-", stdin=lines(GOOD, wrong, too_many, POLLED), **nowhere)
    assert (ended.code, ended.out) == (1, "")
    assert "line 2: error: duration: " in ended.err
    assert "line 3: error: numberResults: " in ended.err
    assert "line 1" not in ended.err
    assert "Nothing was sent." in ended.err


def test_some_of_several_that_failed_end_with_seven(shell: Shell) -> None:
    key = a_key()
    assert shell("submit", "--file", "-", stdin=lines({**GOOD, "idempotencyKey": key})).code == 0
    other = {**GOOD, "seed": 7, "idempotencyKey": key}
    ended = shell("submit", "--file", "-", "--json", stdin=lines(GOOD, other))
    assert ended.code == 7
    taken, refused = ended.documents
    assert (taken["line"], refused["line"]) == (1, 2)
    assert refused["error"]["code"] == "idempotency_conflict"
    assert ended.err.startswith("line 2: ")
    ended = shell("submit", "--file", "-", stdin=lines(other, other))
    assert (ended.code, ended.out) == (1, "")


@pytest.mark.parametrize(
    ("code", "environ"),
    [
        (3, {"REELHOOK_URL": f"http://127.0.0.1:{held_port()}"}),
        (4, {"REELHOOK_ADMIN_TOKEN": "wrong"}),
        (4, {"RUNWARE_API_KEY": ""}),
    ],
    ids=["no receiver", "wrong token", "no key"],
)
def test_what_stops_one_stops_all(shell: Shell, code: int, environ: dict[str, str]) -> None:
    ended = shell("submit", "--file", "-", stdin=lines(GOOD, GOOD), **environ)
    assert (ended.code, ended.out) == (code, "")
    assert ended.err


ODD: Sequence[tuple[str, ...]] = (
    ("submit", MODEL, "--file", "-"),
    ("submit", "--file", "-", "--resume", "x"),
    ("submit", "--file", "nowhere.jsonl"),
    ("submit", MODEL, "--run", "vid_a"),
    ("submit", MODEL, "--platform", "elsewhere"),
    ("validate", MODEL, "--file", "-"),
    ("validate", "--platform", "elsewhere", MODEL),
    ("validate",),
    ("models", "--platform", "elsewhere"),
    ("reconcile", "--once", "--rate", "elsewhere=2"),
    ("reconcile", "--once", "--rate", "nanogpt=0"),
    ("reconcile", "--once", "--rate", "fast"),
    ("submit", "--file", "-"),
)


def test_what_can_not_be_meant_ends_with_two(shell: Shell) -> None:
    with ThreadPoolExecutor(4) as threads:
        ended = list(threads.map(lambda arguments: shell(*arguments), ODD))
    assert [(found.code, found.out) for found in ended] == [(2, "")] * len(ODD)
    assert all(found.err and "Errno" not in found.err for found in ended)


def test_a_polled_task_is_submitted_and_named(shell: Shell) -> None:
    ended = shell("submit", "sora-2", "--platform", "nanogpt", "prompt=a boat", "seconds=4")
    assert ended.code == 0, ended.err
    (task_id,) = ids_of(ended)
    task = kept(shell, task_id)
    assert (task["platform"], task["submit_state"]) == ("nanogpt", "submitted")
    assert task["platform_id"].startswith("vid_")


def test_a_local_file_is_sent(shell: Shell, tmp_path: Path) -> None:
    image = tmp_path / "boat.png"
    image.write_bytes(PNG)
    asked = ("sora-2", "--platform", "nanogpt", "prompt=a boat")
    ended = shell("submit", *asked, f"imageDataUrl=@{image}")
    assert ended.code == 0, ended.err
    (task_id,) = ids_of(ended)
    assert kept(shell, task_id)["request"]["imageDataUrl"].startswith("data:image/png;base64,")
    ended = shell("submit", *asked, "imageDataUrl=@nowhere.png")
    assert (ended.code, ended.out) == (1, "")
    assert "nowhere.png" in ended.err


def test_a_run_is_taken_on_by_its_name(shell: Shell) -> None:
    asked = ("sora-2", "--platform", "nanogpt", "prompt=a boat")
    (known,) = ids_of(shell("submit", *asked, "conversationUUID=mine"))
    run = kept(shell, known)["platform_id"]
    (other,) = ids_of(shell("submit", *asked, "--id", str(uuid4())))
    ended = shell("submit", "--resume", other, "--run", run)
    assert (ended.code, ended.out) == (0, f"{other}\n")
    assert kept(shell, other)["platform_id"] == run
    ended = shell("submit", "--resume", other, "--run", "vid_nobody")
    assert (ended.code, ended.out) == (1, "")
    assert "vid_nobody" in ended.err


def test_validate_reads_a_file_of_both_platforms(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "tasks.jsonl"
    extension = {"platform": "nanogpt", "model": "midjourney-video", "runId": "vid_a", "index": 7}
    file.write_text(lines(GOOD, {**GOOD, "duration": 7}, extension))
    ended = shell("validate", "--file", str(file), "--json", RUNWARE_API_KEY="")
    assert ended.code == 1
    assert [found["line"] for found in ended.documents] == [1, 2, 3]
    errors = [
        [f["parameter"] for f in found["findings"] if f["severity"] == "error"]
        for found in ended.documents
    ]
    assert errors == [[], ["duration"], ["index"]]
    plain = shell("validate", "--file", str(file))
    assert plain.code == 1
    assert "line 2: error: duration: " in plain.out
    good = shell("validate", "--file", "-", stdin=lines(GOOD))
    assert (good.code, good.out, good.err) == (0, "", "Nothing to object.\n")


def test_validate_knows_the_other_platforms_rules(shell: Shell) -> None:
    asked = ("validate", "midjourney-video", "--platform", "nanogpt", "runId=vid_a", "index=7")
    ended = shell(*asked, "--json")
    assert ended.code == 1
    (found,) = ended.documents
    assert "index" in [f["parameter"] for f in found["findings"] if f["severity"] == "error"]
    task = {"platform": "nanogpt", "model": "midjourney-video", "runId": "vid_a", "index": 7}
    assert shell("validate", "-", "--json", stdin=json.dumps(task)).documents == [found]
    ended = shell("validate", "-", stdin=json.dumps({**task, "platform": "elsewhere"}))
    assert (ended.code, ended.out) == (2, "")


def test_models_are_those_with_rules_and_those_that_are_listed(shell: Shell) -> None:
    ended = shell("models", "--json", NANOGPT_API_KEY="", RUNWARE_API_KEY="")
    assert ended.code == 0, ended.err
    by_platform: dict[str, list[str]] = {}
    for found in ended.documents:
        by_platform.setdefault(found["platform"], []).append(found["id"])
    assert MODEL in by_platform["runware"]
    assert "sora-2" in by_platform["nanogpt"]
    plain = shell("models", "--platform", "runware")
    assert f"runware  {MODEL}  checked" in plain.out
    assert "nanogpt" not in plain.out
    nobody = f"http://127.0.0.1:{held_port()}"
    ended = shell("models", "--platform", "nanogpt", NANOGPT_BASE_URL=nobody)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err


def test_tasks_whose_platform_has_no_key_are_told_of(shell: Shell) -> None:
    asked = ("submit", "sora-2", "--platform", "nanogpt", "prompt=a boat")
    with simulator_process("--delay-s", "3600") as slow:
        assert shell(*asked, NANOGPT_BASE_URL=f"{slow}/api").code == 0
    ended = shell("reconcile", "--once", "--rate", "runware=5", NANOGPT_API_KEY="")
    assert "NANOGPT_API_KEY is not set" in ended.err
    assert "RUNWARE_API_KEY" not in ended.err
    none = shell("reconcile", "--once", NANOGPT_API_KEY="", RUNWARE_API_KEY="")
    assert (none.code, none.out) == (4, "")
    assert "RUNWARE_API_KEY or NANOGPT_API_KEY" in none.err
