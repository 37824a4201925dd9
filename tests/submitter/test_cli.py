"""The submitter's commands as a shell sees them: exit codes, data on stdout, words on stderr."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest

from scripts.proofs.ports import held_port
from submitter.cli.running import dev
from tests.doubles import ADMIN_TOKEN, running
from tests.submitter.shell import Ended, Shell
from tests.submitter.stage import (
    FAILING,
    MODEL,
    PARTIAL,
    RECEIVER,
    a_key,
    command_environment,
    simulator_process,
)

pytestmark = pytest.mark.process

GOOD = ("prompt=a paper boat", "width=1280", "height=720", "duration=5")


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A shell in which receiver and simulator are found."""
    with (
        running(tmp_path_factory.mktemp("receiver"), **RECEIVER) as receiver,
        simulator_process("--delay-s", "0.05", "--spread-s", "0.05") as simulator,
    ):
        folder = tmp_path_factory.mktemp("home")
        environ = {"REELHOOK_DATA_DIR": str(folder), "COLUMNS": "80", "NO_COLOR": "1"}
        yield Shell(command_environment(receiver.ready["url"], simulator, **environ))


def test_submit_prints_the_id_alone(shell: Shell) -> None:
    ended = shell("submit", MODEL, *GOOD)
    assert ended.code == 0
    assert UUID(ended.out.strip()).version == 4
    assert ended.err == ""


def test_submit_watches_as_json_to_the_end(shell: Shell) -> None:
    ended = shell("submit", MODEL, *GOOD, "-n", "2", "--tag", "a=b=c", "--watch", "--json")
    assert ended.code == 0, ended.err
    said, *results, task = ended.documents
    assert said == {"task": task["id"], "in_flight": False}
    assert [result["index"] for result in results] == [0, 1]
    assert {result["task_id"] for result in results} == {task["id"]}
    assert all("raw" not in result for result in results)
    assert (task["status"], task["succeeded"], task["tags"]) == ("succeeded", 2, {"a": "b=c"})
    assert ended.err == "succeeded: 2 of 2\n"


def test_submit_says_with_seven_that_some_failed(shell: Shell) -> None:
    ended = shell("submit", PARTIAL, *GOOD, "-n", "2", "--watch", "--yes")
    assert ended.code == 7
    task_id, *results = ended.out.splitlines()
    assert UUID(task_id).version == 4
    assert sum("failed  timeoutProvider: " in line for line in results) == 1
    assert sum("http://127.0.0.1" in line and "$" in line for line in results) == 1
    assert "partially_failed: 1 of 2" in ended.err
    assert "warning: model:" in ended.err


def test_submit_says_with_one_that_all_failed(shell: Shell) -> None:
    ended = shell("submit", FAILING, *GOOD, "--watch", "--json")
    assert ended.code == 1
    assert [found.get("error", {}).get("code") for found in ended.documents] == [
        None,
        "timeoutProvider",
        None,
    ]
    assert "failed: 0 of 1" in ended.err


def test_a_submit_that_the_rules_refuse_ends_with_one(shell: Shell) -> None:
    ended = shell("submit", MODEL, *GOOD[1:3], "promt=a paper boat", "duration=7", "--json")
    assert (ended.code, ended.out) == (1, "")
    for said in ("Set duration", "Add positivePrompt", "warning: promt"):
        assert said in ended.err


def test_a_command_that_cannot_be_read_ends_with_two(shell: Shell) -> None:
    unreadable: list[tuple[str, ...]] = [
        (MODEL, "duration"),
        (MODEL, "=5"),
        (MODEL, "inputs:={"),
        (MODEL, *GOOD, "--tag", "a"),
        (MODEL, *GOOD, "--metadata", "[1]"),
        (MODEL, *GOOD, "--metadata", "{"),
        (MODEL, *GOOD, "-n", "5"),
        GOOD,  # a parameter where the model belongs
        (),
    ]
    with ThreadPoolExecutor(4) as threads:
        ended = list(threads.map(lambda arguments: shell("submit", *arguments), unreadable))
    assert [(found.code, found.out) for found in ended] == [(2, "")] * len(unreadable)
    assert all(found.err for found in ended)


def pending(shell: Shell) -> set[str]:
    """The tasks that are under way."""
    listed = shell("tasks", "list", "--status", "pending", "--json")
    return {task["id"] for task in listed.documents}


def test_money_is_asked_about_last_and_not_for_what_surely_fails(shell: Shell) -> None:
    before = pending(shell)  # what another test left
    bills = {"RUNWARE_BASE_URL": "https://platform.invalid/v1"}
    task = ("submit", MODEL, *GOOD)
    surely: dict[str, tuple[int, tuple[str, ...], dict[str, str]]] = {
        "no API key": (4, task, {"RUNWARE_API_KEY": ""}),
        "no URL of Runware": (3, task, {"RUNWARE_BASE_URL": "api.runware.ai"}),
        "is no URL": (3, task, {"REELHOOK_URL": "http://[::1"}),
        "did not answer": (3, task, {"REELHOOK_URL": f"http://127.0.0.1:{held_port()}"}),
        "Bearer": (4, task, {"REELHOOK_ADMIN_TOKEN": "wrong"}),
        "duration": (1, (*task[:-1], "duration=7"), {}),
        "it is not https": (1, task, {}),  # the receiver's public URL, to which nobody could post
    }

    def typed(word: str) -> Ended:
        _, arguments, environ = surely[word]
        return shell.typing("y\n", *arguments, **{**bills, **environ})

    with ThreadPoolExecutor(4) as threads:
        for word, ended in zip(surely, threads.map(typed, surely), strict=True):
            assert (ended.code, ended.out) == (surely[word][0], ""), (word, ended)
            assert word in ended.err
            assert "spends money" not in ended.err
    assert pending(shell) <= before
    polled = {"NANOGPT_API_KEY": "any", "NANOGPT_BASE_URL": "https://platform.invalid/api"}
    declined = shell.typing(
        "n\n", "submit", "sora-2", "--platform", "nanogpt", "prompt=a boat", "seconds=4", **polled
    )
    assert (declined.code, declined.out) == (1, "")
    assert "This spends money at NanoGPT. Go on?" in declined.err


def test_submit_without_a_receiver_ends_with_three(shell: Shell) -> None:
    ended = shell("submit", MODEL, *GOOD, REELHOOK_URL=f"http://127.0.0.1:{held_port()}")
    assert (ended.code, ended.out) == (3, "")
    assert "reelhook serve" in ended.err
    platform = shell.environ["RUNWARE_BASE_URL"].removesuffix("/v1")
    ended = shell("tasks", "show", str(uuid4()), REELHOOK_URL=platform)
    assert (ended.code, "is not a receiver" in ended.err) == (3, True)


@pytest.mark.parametrize(
    ("variable", "value", "word"),
    [("RUNWARE_API_KEY", "", "RUNWARE_API_KEY"), ("REELHOOK_ADMIN_TOKEN", "wrong", "Bearer")],
)
def test_submit_without_a_right_ends_with_four(
    shell: Shell, variable: str, value: str, word: str
) -> None:
    ended = shell("submit", MODEL, *GOOD, **{variable: value})
    assert (ended.code, ended.out) == (4, "")
    assert word in ended.err
    assert variable in ended.err


def test_resuming_what_nobody_knows_ends_with_five(shell: Shell) -> None:
    ended = shell("submit", "--resume", str(uuid4()))
    assert (ended.code, ended.out) == (5, "")
    assert ended.err


def test_watching_in_vain_ends_with_six(shell: Shell) -> None:
    with simulator_process("--drop", "1") as silent:
        ended = shell(
            "submit", MODEL, *GOOD, "--watch", "--timeout", "0.2", RUNWARE_BASE_URL=silent
        )
        assert ended.code == 6
        assert UUID(ended.out.strip()).version == 4
        assert "0.2 s" in ended.err
        # What the platform has, and never called back about, is not asked for by a resume
        # that has nothing to finish: the task was submitted.
        resumed = shell("submit", "--resume", ended.out.strip(), RUNWARE_BASE_URL=silent)
        assert (resumed.code, resumed.out) == (0, ended.out)


def test_what_the_platform_refuses_ends_with_one(shell: Shell) -> None:
    with simulator_process("--submit-status", "402") as poor:
        ended = shell("submit", MODEL, *GOOD, "--json", RUNWARE_BASE_URL=poor)
    assert (ended.code, ended.out) == (1, "")
    assert "insufficientCredits" in ended.err


def test_the_same_key_prints_the_same_id_and_another_request_ends_with_one(shell: Shell) -> None:
    key = ("--idempotency-key", a_key())
    first = shell("submit", MODEL, *GOOD, *key)
    again = shell("submit", MODEL, *GOOD, *key)
    assert (again.code, again.out) == (0, first.out)
    other = shell("submit", MODEL, *GOOD, "seed=7", *key)
    assert (other.code, other.out) == (1, "")
    assert key[1] in other.err


def test_validate_has_nothing_to_object(shell: Shell) -> None:
    ended = shell("validate", MODEL, *GOOD)
    assert (ended.code, ended.out) == (0, "")
    assert "Nothing to object" in ended.err
    as_json = shell("validate", MODEL, *GOOD, "--json")
    assert (as_json.code, as_json.documents, as_json.err) == (0, [{"findings": []}], "")


def test_validate_says_what_is_wrong_and_what_would_be_right(shell: Shell) -> None:
    ended = shell("validate", MODEL, *GOOD[:3], "duration=7", "--json")
    assert ended.code == 1
    ((finding,),) = [found["findings"] for found in ended.documents]
    assert set(finding) == {"severity", "code", "parameter", "message", "allowed"}
    assert (finding["severity"], finding["parameter"]) == ("error", "duration")
    assert finding["allowed"] == [5, 8, 10]
    plain = shell("validate", MODEL, *GOOD[:3], "duration=7")
    assert plain.code == 1
    assert plain.out.startswith("error: duration: ")


def test_a_warning_is_no_failure(shell: Shell) -> None:
    ended = shell("validate", "nobody:1@1", *GOOD, "--json")
    assert ended.code == 0
    (found,) = ended.documents
    assert [finding["severity"] for finding in found["findings"]] == ["warning"]


def test_validate_reads_a_task_from_stdin(shell: Shell) -> None:
    task = {"model": MODEL, "positivePrompt": "a paper boat", "width": 1280, "height": 720}
    good = shell("validate", "-", "--json", stdin=json.dumps({**task, "duration": 5}))
    assert (good.code, good.documents) == (0, [{"findings": []}])
    bad = shell("validate", "-", "--json", stdin=json.dumps({**task, "duration": 7}))
    assert bad.code == 1
    assert [found["parameter"] for found in bad.documents[0]["findings"]] == ["duration"]
    ended = shell("validate", "-", "--json", stdin="[]")
    assert (ended.code, ended.out) == (2, "")
    assert "JSON object" in ended.err


def test_validate_needs_nobody(shell: Shell, tmp_path: Path) -> None:
    nowhere = {"REELHOOK_URL": "http://127.0.0.1:9", "RUNWARE_API_KEY": ""}
    ended = shell("validate", MODEL, *GOOD, REELHOOK_DATA_DIR=str(tmp_path), **nowhere)
    assert ended.code == 0
    assert list(tmp_path.iterdir()) == []


def test_every_help_shows_an_example(shell: Shell) -> None:
    commands = ("submit", "validate", "demo", "dev")
    with ThreadPoolExecutor(4) as threads:
        helps = list(threads.map(lambda command: shell(command, "--help"), commands))
    for command, ended in zip(commands, helps, strict=True):
        assert ended.code == 0
        # The usage names the command as well; the examples stand above it.
        described, _, _ = " ".join(ended.out.split()).partition("Usage")
        assert f"reelhook {command}" in described
    listed = shell("--help").out
    assert [command for command in commands if command in listed] == list(commands)


def test_dev_takes_its_own_examples(shell: Shell, tmp_path: Path) -> None:
    """As far as the tunnel program, of which there is none on this PATH."""
    lines = [line.split() for line in (dev.__doc__ or "").splitlines()]
    examples = [words[1:] for words in lines if words[:2] == ["reelhook", "dev"]]
    assert len(examples) > 1
    for arguments in examples:
        ended = shell(*arguments, PATH=str(tmp_path))
        assert (ended.code, "is not installed" in ended.err) == (3, True), ended.err


def test_reconcile_says_that_nothing_is_due(shell: Shell) -> None:
    ended = shell("reconcile", "--once")
    assert (ended.code, ended.out, ended.err) == (0, "", "Nothing is due.\n")
    ended = shell("reconcile", "--once", "--json")
    assert (ended.code, ended.out, ended.err) == (0, "", "")


@pytest.mark.parametrize(
    ("code", "environ"),
    [
        (4, {"RUNWARE_API_KEY": ""}),
        (4, {"REELHOOK_ADMIN_TOKEN": "another"}),
        (3, {"REELHOOK_URL": "http://127.0.0.1:9"}),
    ],
    ids=["no key", "wrong token", "no receiver"],
)
def test_reconcile_says_why_it_can_ask_nobody(
    shell: Shell, code: int, environ: dict[str, str]
) -> None:
    ended = shell("reconcile", "--once", **environ)
    assert (ended.code, ended.out) == (code, "")
    assert ended.err.strip()


@pytest.mark.parametrize("odd", [["--limit", "0"], ["--limit", "101"], ["--rate", "0"]])
def test_reconcile_refuses_odd_options(shell: Shell, odd: list[str]) -> None:
    assert shell("reconcile", "--once", *odd).code == 2


def test_reconcile_tells_of_a_platform_that_does_not_answer(shell: Shell) -> None:
    task_id = shell("submit", MODEL, *GOOD, "--watch").out.splitlines()[0]
    asked = httpx.post(
        f"{shell.environ['REELHOOK_URL']}/v1/tasks/{task_id}/reconcile",
        headers={"authorization": f"Bearer {ADMIN_TOKEN}"},
        trust_env=False,
    )
    assert asked.status_code == 200
    nobody = f"http://127.0.0.1:{held_port()}/v1"
    ended = shell("reconcile", "--once", "--json", RUNWARE_BASE_URL=nobody)
    assert ended.code == 1
    assert ended.documents == [{"task": task_id, "found": "unavailable", "detail": "ConnectError"}]
